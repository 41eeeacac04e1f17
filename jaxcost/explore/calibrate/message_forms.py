"""The fitted forms of collectives, custom all-reduces and all-to-alls, and the columns of measured rows.

Rounds, hops and loads of the ring and one-shot algorithms on the scale-up level come from the closed forms of
`physics/network/algorithms.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcost.explore.calibrate.cross_validation import Form, labelled
from jaxcost.explore.calibrate.fit import Bounds, Columns
from jaxcost.physics.kernels.collective import (
    AllToAllWork,
    CollectiveWork,
    all_to_all_seconds,
    at_clock,
    collective_seconds,
    custom_all_reduce_seconds,
    network_delay,
    ring_work,
    shares_bus,
    shot_works,
)
from jaxcost.physics.network.algorithms import CollectiveCost, algorithm_costs
from jaxcost.physics.network.levels import DOMAIN, NETWORK, Level, fabric_levels, take_level
from jaxcost.physics.network.messages import touched_groups
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.kernels import AllToAllKernel, CollectiveKernel, CustomAllReduceKernel
from jaxcost.spec.measurement import Measurements

__all__ = [
    "ALL_TO_ALL",
    "EVERY_EXPERT",
    "all_reduce_columns",
    "all_reduce_form",
    "all_to_all_axis",
    "all_to_all_columns",
    "all_to_all_kernel",
    "bus",
    "collective_columns",
    "collective_form",
    "collective_place",
    "exchange_place",
    "groups",
    "is_collective",
    "left_out",
    "not_placed",
]

OUTSIDE = (
    "ranks in several nodes, over a network that is not recorded: 8 GB/s for two ranks on two nodes, where the "
    "InfiniBand of a DGX A100 has 25"
)
HALVED = (
    "dispatch and combine of prompts over 8 nodes, at 21 GB/s between nodes: half of what 4 nodes reach, and of the "
    "51 GB/s of 64 ranks in docs/legacy.md of DeepEP"
)
NARROW = "NVFP4 tokens on a chip that does not compute in NVFP4: twice the time that their bits tell"
UNNAMED = 16.0  # bits on the wire where a row does not record them
_WORK = ("ranks", "rounds", "hops", "link", "own", "whole")
SHARED_BUS = "shared"
_RINGS = ("nccl", "nccl-torch")  # libraries whose collectives are rings
# Kernels that send a token once for every expert.
EVERY_EXPERT = ("deepep_ll", "trtllm_deepep_ll", "deepep_v2_generation")
# The exchanges that a library runs unless told otherwise: 20 multiprocessors are the default of DeepEP.
_PROMPTS = {"sglang": "deepep_normal_sms20", "trtllm": "trtllm_deepep_ht", "vllm": "deepep_ht"}
_DECODING = {"sglang": "deepep_ll", "trtllm": "trtllm_deepep_ll", "vllm": "deepep_ll"}
_TORCH = "NCCL through PyTorch, on one chip: it repeats what rows of NCCL itself tell"
_OTHER = "not the library's default: DeepEP with another number of multiprocessors, or its second version"


def exchange_place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the field of `Kernels` of a dispatch or combine; None for kernels that are not a library's default."""
    library, kernel, phase = labels["library"], labels["kernel"], labels["phase"]
    if kernel == _PROMPTS.get(library):
        return phase, ""
    return (f"{phase}_low_latency", "") if kernel == _DECODING.get(library) else None


def collective_place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the place of collectives and of all-reduces.

    All-reduces that the host launches one by one, outside CUDA graphs, have a place that no step uses: their time is
    that of the host, which steps with prompts pay by `EngineOverheads.eager_launch_floor`.
    """
    end = "_shared_bus" if labels.get("bus") == SHARED_BUS else ""
    if labels["library"] == "nccl":
        return f"collective{end}", ""
    if labels["library"] == "nccl-torch":
        return None
    return f"{'all_reduce_eager' if 'eager' in labels.get('kernel', '') else 'all_reduce'}{end}", ""


def not_placed(labels: Mapping[str, str]) -> str:
    """Return the reason why fitted rows have no place among a library's kernels; "" where they have one."""
    place = exchange_place if "phase" in labels else collective_place
    if place(labels) is not None:
        return ""
    return _OTHER if "phase" in labels else _TORCH


def is_collective(measured: Measurements) -> np.ndarray:
    """Return which rows of the family "collective" are ring collectives, bool [R]; others are custom all-reduces."""
    return np.isin(measured.labels["library"].astype(str), _RINGS)


def left_out(measured: Measurements) -> np.ndarray:
    """Return the reason why a row is excluded from the fit, [R]; "" where it is fitted."""
    out = np.full(len(measured), "", object)
    if measured.family == "all_to_all":
        labels = measured.labels
        out[(_nodes(measured) == 8) & ~np.isin(labels["kernel"].astype(str), EVERY_EXPERT)] = HALVED
        out[labels["precision"] == "nvfp4"] = NARROW
    if measured.family != "collective":
        return out
    for row, kernel in enumerate(measured.labels["kernel"]):
        _, _, node = str(kernel).partition(";devices_per_node=")
        if node and measured.work["ranks"][row] > float(node):
            out[row] = OUTSIDE
    return out


def groups(measured: Measurements) -> np.ndarray:
    """Return the key of the rows that share parameters, [R].

    Ring collectives share chip and library; custom all-reduces also the kernel; all-to-alls chip, library, kernel,
    and phase: the bits of a row are a column.
    """
    labels = measured.labels
    if measured.family == "collective":
        kernel = np.where(is_collective(measured), "ring", labels["kernel"].astype(str))
        return labelled([labels["chip"], labels["library"], kernel])
    return labelled([labels[name] for name in ("chip", "library", "kernel", "phase")])


def _nodes(measured: Measurements) -> np.ndarray:
    """Return the nodes of every row, float [R]; 1 where the file does not tell."""
    return measured.labels.get("nodes", np.ones(len(measured))).astype(float)


def all_to_all_axis(measured: Measurements) -> np.ndarray:
    """Return the value of the held-out axis of all-to-alls, [R]: the shape of a model's experts, and the nodes."""
    shape = [measured.work[name].astype(int) for name in ("hidden", "top_k", "experts")]
    return labelled([*shape, _nodes(measured)])


def _each(
    measured: Measurements,
    chips: Mapping[str, Chip],
    fabrics: Mapping[str, Fabric],
    describe: Callable[[np.ndarray, str, Level, float], Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Fill the columns with `describe(rows, chip, domain, ranks)`, for every chip and number of ranks."""
    clocks = {name: float(chips[name].compute.clock) for name in measured.values("chip")}
    out = {"clock": np.asarray([clocks[name] for name in measured.labels["chip"].tolist()])}
    for name in measured.values("chip"):
        fabric = fabrics[name]
        domain = take_level(fabric_levels(fabric, fabric.domain), DOMAIN)
        for ranks in np.unique(measured.work["ranks"]):
            at = np.flatnonzero((measured.labels["chip"] == name) & (measured.work["ranks"] == ranks))
            if len(at):
                for column, values in describe(at, name, domain, float(ranks)).items():
                    out.setdefault(column, np.zeros(len(measured)))[at] = np.asarray(values, np.float64)
    return out


def collective_columns(
    measured: Measurements, chips: Mapping[str, Chip], fabrics: Mapping[str, Fabric]
) -> dict[str, np.ndarray]:
    """Return the columns of ring collectives, [R] each.

    Args:
        measured: rows of the family "collective".
        chips: the chips of all rows, by name.
        fabrics: the fabric of a system of each chip, by the same names.
    """
    operation = measured.labels["op"]

    def describe(at: np.ndarray, name: str, domain: Level, ranks: float) -> Mapping[str, Any]:
        costs = algorithm_costs(domain, jnp.asarray(ranks))
        ring, size = costs.gather["ring"], jnp.asarray(measured.work["bytes"][at])
        per_byte = 1 / float(chips[name].memory.bandwidth)
        message = CollectiveCost(rounds=1.0, hops=costs.exchange.hops, load=1.0)
        gather, both, one = (
            ring_work(cost, domain, size, ranks, per_byte, times)
            for cost, times in ((ring, 1.0), (ring, 2.0), (message, 1.0))
        )
        op = operation[at]
        kinds = [op == "all_reduce", op == "send_recv"]
        alone = {column: getattr(one, column) for column in _WORK} | {"own": 0.0 * size}
        return {
            column: np.select(
                kinds,
                [_full(getattr(both, column), size), _full(alone[column], size)],
                _full(getattr(gather, column), size),
            )
            for column in _WORK
        }

    return _each(measured, chips, fabrics, describe)


def _full(values: Any, like: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(values, np.float64), like.shape)


def all_reduce_columns(
    measured: Measurements,
    chips: Mapping[str, Chip],
    fabrics: Mapping[str, Fabric],
    rings: Mapping[str, CollectiveKernel],
) -> dict[str, np.ndarray]:
    """Return the columns of custom all-reduces, [R] each; `rings` has the ring kernel of each chip."""

    def describe(at: np.ndarray, name: str, domain: Level, ranks: float) -> Mapping[str, Any]:
        costs = algorithm_costs(domain, jnp.asarray(ranks))
        size, per_byte = jnp.asarray(measured.work["bytes"][at]), 1 / float(chips[name].memory.bandwidth)
        ring = ring_work(costs.gather["ring"], domain, size, ranks, per_byte, 2.0)
        shots = shot_works(costs.all_reduce["one-shot"], domain, size, ranks, per_byte)
        out = {
            "bytes": size,
            "ring": collective_seconds(at_clock(rings[name], chips[name].compute.clock), ring),
        }
        for number, shot in enumerate(shots):
            out |= {f"{column}_{number}": _full(getattr(shot, column), size) for column in _WORK}
        return out

    return _each(measured, chips, fabrics, describe)


def all_to_all_columns(
    measured: Measurements, chips: Mapping[str, Chip], fabrics: Mapping[str, Fabric]
) -> dict[str, np.ndarray]:
    """Return the columns of dispatches and combines within a node and over several, [R] each."""
    work, nodes = measured.work, _nodes(measured)
    every = np.isin(measured.labels["kernel"].astype(str), EVERY_EXPERT)
    row = work["hidden"] * np.nan_to_num(work["bits"], nan=UNNAMED) / 8
    places = list(zip(measured.labels["chip"].tolist(), work["ranks"].tolist(), nodes.tolist(), strict=True))
    out: dict[str, np.ndarray] = {}
    for place in dict.fromkeys(places):
        name, ranks, many = place
        at, chip = np.flatnonzero([other == place for other in places]), chips[name]
        levels = fabric_levels(fabrics[name], ranks, memory=chip.memory)
        (here, near), (outside, far) = (
            (
                take_level(levels, level),
                algorithm_costs(take_level(levels, level), jnp.asarray(group)).exchange,
            )
            for level, group in ((DOMAIN, ranks / many), (NETWORK, many))
        )
        top_k, experts, tokens = work["top_k"][at], work["experts"][at], work["tokens"][at]
        # Copies that leave a rank for others of its node, and for other nodes.
        away, beyond = (
            np.where(
                every[at],
                top_k * direct,
                np.asarray(touched_groups(groups, jnp.asarray(experts), jnp.asarray(top_k))) * others,
            )
            for groups, others, direct in (
                (ranks, 1 - many / ranks, (ranks / many - 1) / ranks),
                (many, 1 - 1 / many, 1 - 1 / many),
            )
        )
        columns = {
            "ranks": ranks,
            "nodes": many,
            "tokens": tokens,
            "top_k": top_k,
            "experts": experts,
            "row": row[at] * float(chip.compute.cores) / float(chip.memory.bandwidth),
            "link": tokens * away * row[at] * float(near.load * here.per_byte),
            "hops": float(near.hops * here.hop),
            "far": tokens * beyond * row[at] * float(far.load * outside.per_byte),
            "delay": float(network_delay(outside, far, many)),
            "forwarded": tokens * beyond * ~every[at] * row[at] * float(near.load * here.per_byte),
        }
        for column, values in columns.items():
            out.setdefault(column, np.zeros(len(measured)))[at] = np.asarray(values, np.float64)
    return out


def _ring_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    work = CollectiveWork(**{name: columns[name] for name in _WORK})
    return collective_seconds(at_clock(CollectiveKernel(**parameters), columns["clock"]), work)


def _custom_all_reduce_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    one, two = (CollectiveWork(**{name: columns[f"{name}_{i}"] for name in _WORK}) for i in range(2))
    return custom_all_reduce_seconds(
        at_clock(CustomAllReduceKernel(**parameters), columns["clock"]),
        one,
        two,
        columns["bytes"],
        columns["ring"],
    )


def _all_to_all_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    names = (
        "far",
        "delay",
        "forwarded",
        "ranks",
        "nodes",
        "tokens",
        "top_k",
        "experts",
        "row",
        "link",
        "hops",
    )
    work = AllToAllWork(**{name: columns[name] for name in names})
    return all_to_all_seconds(AllToAllKernel(**parameters), work)


# Rings of NCCL on PCIe start from where they end, 2: bytes go through the memory of the host.
_CONTENTION = {"contention_exponent": Bounds(0, 3, 2)}
_RING = {
    "launch": Bounds(1e-6, 2e-4, 6e-6),
    "round": Bounds(0, 5e-5, 1e-6),
    "share": Bounds(0.05, 1.2, 0.8),
    "copies": Bounds(0, 30, 2),
    "protocol_switch": Bounds(0.05, 5, 1.5),
}
_CUSTOM = _RING | {
    "round": Bounds(0, 5e-5, 3e-7),
    "staging": Bounds(0, 10, 1),
    "limit": Bounds(1e5, 1e8, 8e6),
    "floor": Bounds(0, 1, 0.1),
}
_FORMS = {
    shared: (
        Form("collective", _ring_seconds, _RING | more),
        Form("all_reduce", _custom_all_reduce_seconds, _CUSTOM | more),
    )
    for shared, more in ((False, {}), (True, _CONTENTION))
}


def _shared(fabric: Fabric) -> bool:
    return bool(shares_bus(fabric))


def bus(fabric: Fabric) -> dict[str, str]:
    """Return the label of a fabric's domain: whether its chips share the bus of a host."""
    return {"bus": SHARED_BUS if _shared(fabric) else ""}


def collective_form(fabric: Fabric) -> Form:
    """Return the form of ring collectives on a fabric, with contention where ranks share a bus of the host."""
    return _FORMS[_shared(fabric)][0]


def all_reduce_form(fabric: Fabric) -> Form:
    """Return the form of a custom all-reduce on a fabric."""
    return _FORMS[_shared(fabric)][1]


def all_to_all_kernel(parameters: Mapping[str, Any], name: str) -> AllToAllKernel:
    """Build the kernel of fitted parameters; its name in the rows decides whether it sends a token per expert."""
    return AllToAllKernel(copies=1.0 if name in EVERY_EXPERT else 0.0, **parameters)


ALL_TO_ALL = Form(
    "all_to_all",
    _all_to_all_seconds,
    {
        "launch": Bounds(1e-6, 5e-4, 2e-5),
        "expert": Bounds(0, 3e-7, 5e-9),
        "chunk": Bounds(0, 200, 5),
        "share": Bounds(0.02, 1.2, 0.6),
        "receiver": Bounds(0, 10, 0.5),
        "protocol_switch": Bounds(0.05, 4, 1),
        "internode_round": Bounds(0, 1e-4, 9e-6),
        "internode_share": Bounds(0.1, 1.0, 0.85),
        "forwarding": Bounds(0, 20, 3),
    },
)
