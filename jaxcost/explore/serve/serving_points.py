"""The result of `serving_front`: candidates for serving a model on a system, and the front among them."""

import dataclasses

import numpy as np

from jaxcost.explore.analysis import with_degrees
from jaxcost.physics.compute.roofline import LEGS
from jaxcost.spec.plan import Plan

__all__ = ["LIMITS", "ServingFront", "find_nondominated"]

LIMITS = (*LEGS, "overhead")  # what the time of a step is attributed to


@dataclasses.dataclass(frozen=True)
class ServingFront:
    """Candidates that fit in memory, each array [points], and the front among them.

    Attributes:
        precisions: names of the precisions.
        plans: plan of each precision, whose degrees are ignored.
        precision: index into `precisions`.
        degrees: tp, pp, cp, dp and ep of a replica, [points, 5]; with separate pools, of the decode pool.
        batch: sequences of each data-parallel rank.
        users: concurrent users: of a replica; with separate pools, of the deployment.
        chips: chips of these users.
        replicas: replicas of these users: 1, or those of the decode pool.
        prefill_degrees: degrees of a replica of the prefill pool, [points, 5]; 0 without one.
        prefill_replicas: replicas of the prefill pool; a fraction without a limit of chips, and 0 without a pool.
        prefill_prompts: prompts of a prefill step of each data-parallel rank of that pool.
        ttft: mean time to first token, s.
        tpot: mean time per output token after the first, s.
        decode_tpot: the same where no prompt is mixed into the steps, s.
        tokens_per_second: output tokens per second of these users.
        slots: sequences of a data-parallel rank whose whole context fits in memory.
        front: indices of the points that no other beats in both tokens per second, by rising speed per user, among
            those within the targets.
        in_time: whether a point is within the targets of TTFT and TPOT.
        limits: for each point of the front, what takes most of its decode step, one of `LIMITS`.
        invalid: plans by which the model cannot be sharded.
        unfit: candidates that do not fit in memory.
        unpaired: candidates of a decode pool without a prefill pool within the limit of chips.
        evaluated: candidates and pairs of pools that were evaluated.
    """

    precisions: tuple[str, ...]
    plans: tuple[Plan, ...]
    precision: np.ndarray
    degrees: np.ndarray
    batch: np.ndarray
    users: np.ndarray
    chips: np.ndarray
    replicas: np.ndarray
    prefill_degrees: np.ndarray
    prefill_replicas: np.ndarray
    prefill_prompts: np.ndarray
    ttft: np.ndarray
    tpot: np.ndarray
    decode_tpot: np.ndarray
    tokens_per_second: np.ndarray
    slots: np.ndarray
    front: np.ndarray
    limits: tuple[str, ...]
    in_time: np.ndarray
    invalid: int
    unfit: int
    unpaired: int
    evaluated: int

    @property
    def tokens_per_second_per_user(self) -> np.ndarray:
        """Output tokens per second that a user sees: 1 / TPOT."""
        return 1 / self.tpot

    @property
    def tokens_per_second_per_chip(self) -> np.ndarray:
        """Output tokens per second of a chip, prefill pool included."""
        return self.tokens_per_second / self.chips

    @property
    def is_split(self) -> np.ndarray:
        """Whether a point has separate pools."""
        return self.prefill_replicas > 0

    @property
    def memory_full(self) -> np.ndarray:
        """Whether not one more sequence of each rank fits in memory."""
        return self.batch + 1 > self.slots

    @property
    def prefill_share(self) -> np.ndarray:
        """Share of TPOT due to prompts that are mixed into the steps."""
        return 1 - self.decode_tpot / self.tpot

    def plan(self, point: int) -> Plan:
        """Return the plan of a point; with separate pools, of the decode pool."""
        return with_degrees(self.plans[int(self.precision[point])], self.degrees[point].tolist())

    def prefill_plan(self, point: int) -> Plan | None:
        """Return the plan of the prefill pool of a point, None without one."""
        if not self.prefill_replicas[point] > 0:
            return None
        return with_degrees(self.plans[int(self.precision[point])], self.prefill_degrees[point].tolist())

    def front_of(self, mask: np.ndarray) -> np.ndarray:
        """Return the front among the points of a mask [points] that are within the targets, to five digits."""
        among = np.flatnonzero(mask & self.in_time)
        x, y = self.tokens_per_second_per_user[among], self.tokens_per_second_per_chip[among]
        return among[find_nondominated(_rounded(x), _rounded(y))]


def _rounded(x: np.ndarray) -> np.ndarray:
    """Round to five digits, so that a difference in the last bits of a float32 decides nothing."""
    scale = 10.0 ** (4 - np.floor(np.log10(x)))
    return np.round(x * scale) / scale


def find_nondominated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the indices of the points [n] that no other point equals or exceeds in both x and y, by rising x.

    Of equal points the first is returned.
    """
    order = np.lexsort((-np.asarray(y), -np.asarray(x)))
    ranked = np.asarray(y)[order]
    best = np.concatenate(([-np.inf], np.maximum.accumulate(ranked)[:-1])) if len(ranked) else ranked
    return order[ranked > best][::-1]
