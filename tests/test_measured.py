"""Collectives measured on two and four GPUs: latency and bandwidth fitted on one count, tested on the other."""

import csv
import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

import jaxcost as jc
from jaxcost.physics.network.algorithms import algorithm_costs
from jaxcost.physics.network.levels import link_level
from jaxcost.spec.fabric import topology_id

DATA = Path(__file__).parents[2] / "shared" / "data" / "measured" / "collectives.csv"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the measurements are not part of the project")
# What a library runs: its all-reduce kernels, and its gathers.
ALGORITHMS = {
    "nccl": {"all_reduce": ("ring", "double-tree"), "gather": ("ring",)},
    "custom": {"all_reduce": ("one-shot", "two-shot"), "gather": ("direct",)},
}


def measurements():
    with DATA.open() as file:
        for row in csv.DictReader(file):
            if row["source"].startswith("aiconfigurator"):
                key = row["gpu"], row["impl"]
                yield (
                    key,
                    row["op"],
                    int(row["num_gpus"]),
                    float(row["bytes"]),
                    float(row["latency_us"]) * 1e-6,
                )


@functools.cache
def rounds_and_loads(library, op, ranks):
    link = jc.canonical(jc.Link(topology=topology_id("switch"), bandwidth=1.0))
    costs = algorithm_costs(
        link_level(link, jnp.asarray(ranks), jc.canonical(jc.Fabric())), jnp.asarray(ranks)
    )
    if op == "all_to_all":
        return [(1.0, (ranks - 1) / ranks)]
    kind = "all_reduce" if op == "all_reduce" else "gather"
    chosen = [getattr(costs, kind)[name] for name in ALGORITHMS[library][kind]]
    return [(float(cost.seconds(1, 0, 0)), float(cost.seconds(0, 0, 1))) for cost in chosen]


def times(logs, ranks, rows, library):
    launch, overhead, per_byte = np.exp(logs)
    options = {op: rounds_and_loads(library, op, ranks) for op in {op for op, _, _ in rows}}
    return np.array(
        [
            launch + min(rounds * overhead + load * size * per_byte for rounds, load in options[op])
            for op, size, _ in rows
        ]
    )


def error(rows, library, fitted, tested):
    pick = lambda n: [(op, size, t) for op, ranks, size, t in rows if ranks == n]  # noqa: E731
    known, unknown = pick(fitted), pick(tested)
    log = lambda group: np.log([t for _, _, t in group])  # noqa: E731
    starts = [np.log([4e-6, overhead, 1 / 200e9]) for overhead in (3e-7, 1e-6, 3e-6)]
    fits = [
        least_squares(
            lambda p: np.log(times(p, fitted, known, library)) - log(known),
            start,
            loss="soft_l1",
            f_scale=0.1,
        )
        for start in starts
    ]
    best = min(fits, key=lambda fit: fit.cost)
    return float(
        np.median(np.abs(np.exp(np.log(times(best.x, tested, unknown, library)) - log(unknown)) - 1))
    )


@pytest.mark.slow
def test_latency_and_bandwidth_of_one_gpu_count_predict_the_other():
    by = {}
    for key, *row in measurements():
        by.setdefault(key, []).append(row)
    errors = {}
    for (gpu, implementation), rows in by.items():
        library = "nccl" if implementation == "nccl" else "custom"
        for fitted, tested in ((2, 4), (4, 2)):
            errors[gpu, implementation, fitted] = error(rows, library, fitted, tested)
    for key, value in sorted(errors.items()):
        print(*key, f"{value:.3f}")
    switched = {k: v for k, v in errors.items() if k[0] in ("a100_sxm", "h100_sxm")}
    assert np.median(list(switched.values())) < 0.15
    custom = [v for (_, implementation, _), v in switched.items() if implementation != "nccl"]
    assert sum(v < 0.15 for v in custom) >= len(custom) - 1
    # NCCL changes protocol with size; the L40S are not on one switch, and four of them share a path that two do not.
    assert all(v < 0.3 for v in switched.values())
