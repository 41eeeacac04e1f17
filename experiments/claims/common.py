"""The type of a claim, and the systems that several claims are evaluated on."""

import math
from typing import NamedTuple

import jaxcost as jc
from jaxcost.evaluation import evaluate as evaluate_with
from jaxcost.spec.model import FeedForward

GB, TB, KIB, GIB = 1e9, 1e12, 2.0**10, 2.0**30
PICOJOULE_PER_BIT = 8e-12  # J/B
YEAR, DAY = 365.25 * 86400.0, 86400.0
ENDLESS = 1e25
SOLD = {
    "h100-sxm": 80 * GB,
    "h200-sxm": 141 * GB,
}  # as data sheets and claims say; drivers report another number
DECODE = jc.Traffic(prompt=1, output=2)  # one token of one request, with next to no cache
# What any row has beyond main memory: told together, all rows share one compiled program.
FEATURES = ("hbf", "ssd", "cxl", "memory.near", "cxl.near", "stacking", "window", "cap", "reserved")
WEIGHTS = ("weights", "shared", "experts")
IN_FLASH = jc.Split(hbf=1.0)
PAPER = "Ma and Patterson, arXiv:2601.05047"
WRITE_UPS = "Write-ups of arXiv:2601.05047"
BY_HAND = "By hand, from published numbers"  # not published: to hold the model to


class Claim(NamedTuple):
    """One row: the published value, jaxcost's value, and the conditions it depends on."""

    name: str
    source: str
    claimed: float | None
    unit: str
    ours: float
    verdict: str
    hangs_on: str
    tolerance: float = 0.01  # of what is claimed, that counts as the same
    bound: str = ""  # "at least" or "at most", where no more is claimed
    baseline_share: float | None = None  # of its roof, that the baseline reaches if the claim is true

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return None if not self.claimed else self.ours / self.claimed

    @property
    def holds(self) -> bool:
        """Whether ours is what is claimed."""
        if self.ratio is None:
            return False
        low = -math.inf if self.bound == "at most" else 1 - self.tolerance
        high = math.inf if self.bound == "at least" else 1 + self.tolerance
        return low - 1e-6 <= self.ratio <= high + 1e-6


def printed(claimed: float, unit: float) -> float:
    """Tolerance of a number whose last printed digit counts so many: half of that, as a share."""
    return unit / 2 / claimed


def evaluate(
    system: jc.System,
    model: jc.Model,
    traffic: jc.Traffic,
    plan: jc.Plan,
    prices: jc.Prices | None = None,
) -> jc.Report:
    """`jc.evaluate`, compiled once for all rows."""
    return evaluate_with(system, model, traffic, plan, prices=prices, features=FEATURES)


def engines(rate: float = ENDLESS, vector: float = ENDLESS) -> jc.Compute:
    """Engines of one matmul rate at every precision."""
    return jc.Compute(
        flops_32=rate,
        flops_16=rate,
        flops_8=rate,
        flops_6=rate,
        flops_4=rate,
        vector_flops=vector,
        exponentials=vector,
    )


def dense(parameters: float) -> jc.Model:
    """A model that is nothing but weights: so wide that its activations are less than a thousandth of them."""
    hidden, layers = 16384, 10
    width = parameters / (3 * hidden * layers)
    return jc.Model(hidden=hidden, feed_forward=FeedForward(layers=layers, width=width))


def memory_only(bandwidth: float, **tiers: jc.Memory) -> jc.System:
    """A chip whose memory is its only limit, with more tiers if asked."""
    memory = tiers.pop("memory", jc.Memory(capacity=ENDLESS, bandwidth=bandwidth))
    return jc.System(chip=jc.Chip(compute=engines(), memory=memory, **tiers))


def group(
    chips: int,
    memory: jc.Memory,
    flops: float,
    link: float,
    *,
    efficiency: jc.Efficiency | None = None,
    **tiers: jc.Memory,
) -> jc.System:
    """Chips behind one switch without latency; element-wise work for nothing."""
    chip = jc.Chip(compute=engines(flops), memory=memory, efficiency=efficiency or jc.Efficiency(), **tiers)
    link_up = jc.Link(bandwidth=link, sram_landing=1)
    return jc.System(chip=chip, fabric=jc.Fabric(domain=chips, scale_up=link_up), chips=chips)


def given(**where: jc.Split) -> jc.Placement:
    """Data where they are told to lie."""
    return jc.Placement(automatic=0.0, **where)


def stacked_system(memory: jc.Memory) -> jc.System:
    """A chip with a flash tier beside endless main memory."""
    return memory_only(ENDLESS, hbf=memory)


def weights_in_flash(memory: jc.Memory, model: jc.Model, bits: float = 16) -> jc.Report:
    """Decode once with all weights in flash."""
    plan = jc.Plan(weight_bits=bits, expert_bits=bits, placement=given(**dict.fromkeys(WEIGHTS, IN_FLASH)))
    return evaluate(stacked_system(memory), model, DECODE, plan)


def token_seconds(
    system: jc.System, model: jc.Model, context: float = 1, batch: float = 1, **plan: float
) -> float:
    """Time of one decode step."""
    traffic = jc.Traffic(prompt=max(context, 1), output=2, batch=batch)
    return float(evaluate(system, model, traffic, jc.Plan(**plan)).tpot)


def seconds_of(report: jc.Report, operator: str) -> float:
    """Time of one operator in a decode step."""
    return float(report.decode.rows[report.decode.names.index(operator)].seconds)
