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
    collective_seconds,
    custom_all_reduce_seconds,
    ring_work,
    shot_works,
)
from jaxcost.physics.network.algorithms import CollectiveCost, algorithm_costs
from jaxcost.physics.network.levels import DOMAIN, Level, fabric_levels, take_level
from jaxcost.physics.network.messages import touched_groups
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric, topology_id
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
    "collective_columns",
    "collective_form",
    "groups",
    "is_collective",
    "left_out",
]

OUTSIDE = "ranks in several nodes, whose network is not recorded"
UNNAMED = 16.0  # bits on the wire where a row does not record them
_WORK = ("ranks", "rounds", "hops", "link", "own", "whole")
_RINGS = ("nccl", "nccl-torch")  # libraries whose collectives are rings
# Kernels that send a token once for every expert.
EVERY_EXPERT = ("deepep_ll", "trtllm_deepep_ll", "deepep_v2_generation")


def is_collective(measured: Measurements) -> np.ndarray:
    """Return which rows of the family "collective" are ring collectives, bool [R]; others are custom all-reduces."""
    return np.isin(measured.labels["library"].astype(str), _RINGS)


def left_out(measured: Measurements) -> np.ndarray:
    """Return the reason why a row is excluded from the fit, [R]; "" where it is fitted."""
    out = np.full(len(measured), "", object)
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
    phase and precision.
    """
    labels = measured.labels
    if measured.family == "collective":
        kernel = np.where(is_collective(measured), "ring", labels["kernel"].astype(str))
        return labelled([labels["chip"], labels["library"], kernel])
    return labelled([labels[name] for name in ("chip", "library", "kernel", "phase", "precision")])


def all_to_all_axis(measured: Measurements) -> np.ndarray:
    """Return the value of the held-out axis of all-to-alls, [R]: the shape of a model's experts."""
    return labelled([measured.work[name].astype(int) for name in ("hidden", "top_k", "experts")])


def _each(
    measured: Measurements,
    fabrics: Mapping[str, Fabric],
    describe: Callable[[np.ndarray, str, Level, float], Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Fill the columns with `describe(rows, chip, domain, ranks)`, for every chip and number of ranks."""
    out: dict[str, np.ndarray] = {}
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

    return _each(measured, fabrics, describe)


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
        out = {"bytes": size, "ring": collective_seconds(rings[name], ring)}
        for number, shot in enumerate(shots):
            out |= {f"{column}_{number}": _full(getattr(shot, column), size) for column in _WORK}
        return out

    return _each(measured, fabrics, describe)


def all_to_all_columns(
    measured: Measurements, chips: Mapping[str, Chip], fabrics: Mapping[str, Fabric]
) -> dict[str, np.ndarray]:
    """Return the columns of dispatches and combines, [R] each."""
    work = measured.work
    every = np.isin(measured.labels["kernel"].astype(str), EVERY_EXPERT)
    row = work["hidden"] * np.nan_to_num(work["bits"], nan=UNNAMED) / 8

    def describe(at: np.ndarray, name: str, domain: Level, ranks: float) -> Mapping[str, Any]:
        exchange, chip = algorithm_costs(domain, jnp.asarray(ranks)).exchange, chips[name]
        top_k, experts = work["top_k"][at], work["experts"][at]
        copies = np.where(
            every[at], top_k, np.asarray(touched_groups(ranks, jnp.asarray(experts), jnp.asarray(top_k)))
        )
        sent = work["tokens"][at] * copies * (ranks - 1) / ranks * row[at]
        return {
            "ranks": _full(ranks, sent),
            "tokens": work["tokens"][at],
            "top_k": top_k,
            "experts": experts,
            "row": row[at] * float(chip.compute.cores) / float(chip.memory.bandwidth),
            "link": sent * float(exchange.load * domain.per_byte),
            "hops": _full(exchange.hops * domain.hop, sent),
        }

    return _each(measured, fabrics, describe)


def _ring_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    work = CollectiveWork(**{name: columns[name] for name in _WORK})
    return collective_seconds(CollectiveKernel(**parameters), work)


def _custom_all_reduce_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    one, two = (CollectiveWork(**{name: columns[f"{name}_{i}"] for name in _WORK}) for i in range(2))
    return custom_all_reduce_seconds(
        CustomAllReduceKernel(**parameters), one, two, columns["bytes"], columns["ring"]
    )


def _all_to_all_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    names = ("ranks", "tokens", "top_k", "experts", "row", "link", "hops")
    work = AllToAllWork(**{name: columns[name] for name in names})
    return all_to_all_seconds(AllToAllKernel(**parameters), work)


_CONTENTION = {"contention_exponent": Bounds(0, 3, 1)}
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
    """Return whether ranks share PCIe bridges of a host, as in a tree; a switch gives each pair its own path."""
    return bool(fabric.scale_up.topology == topology_id("tree"))


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
    },
)
