"""Many designs at once, in one traced program: hundreds of questions without hundreds of compilations."""

import functools
import re

import jax
import numpy as np

import jaxcost as jc
from jaxcost.core.interpret import Interpreter
from jaxcost.evaluation import evaluate as evaluate_plan

SIZE = 640  # designs in one call of `evaluate`; fewer are filled up, so that all calls share a program


def program(f, *arguments):
    """Trace a function for arguments of these shapes and return it, for any arguments of the same shapes."""
    jaxpr, result = jax.make_jaxpr(f, return_shape=True)(*arguments)
    run, structure = Interpreter(jaxpr), jax.tree.structure(result)
    return lambda *given: jax.tree.unflatten(structure, run(*jax.tree.leaves(given)))


def run(f, *arguments):
    return program(f, *arguments)(*arguments)


@functools.cache
def load_system(chip, efficiency):
    """A chip's system in f64, in Python's numbers, whose `chips` may be replaced."""
    with jax.enable_x64(True):
        return jax.tree.map(float, jc.load_system(f"{chip}-x8", efficiency=efficiency))


@functools.cache
def load_model(name):
    with jax.enable_x64(True):
        return jax.tree.map(float, jc.load_model(name))


def stacked(trees, dtype):
    """Stack trees of numbers along a batch axis, in one precision."""
    _, structure = jax.tree.flatten(trees[0])
    columns = np.asarray([[float(x) for x in structure.flatten_up_to(tree)] for tree in trees], dtype).T
    return jax.tree.unflatten(structure, list(np.ascontiguousarray(columns)))


def take(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


class Reports(dict):
    """Every path of a stack of reports, one value a design, and the same as a tree."""

    tree: jc.Report


UNITS = {}
"""Unit of every path of a report, known once a report has been traced."""


def _listed(design):
    *design, prices, knobs = design
    # No chip of the catalogue has tiers, engines near memory or cooling: they are left out, as a sweep does.
    report = evaluate_plan(*design, prices=prices, knobs=knobs, features=("pages",))
    UNITS.update({path: unit for path, unit, _ in jc.rows(report)})
    return {path: value for path, _, value in jc.rows(report)}, report


@functools.cache
def _program(dtype):
    case = (load_system("h100-sxm", "ideal"), load_model("llama-3.1-8b"), jc.Traffic(), jc.Plan())
    with jax.enable_x64(dtype == np.float64):
        return program(_listed, stacked([(*case, jc.Prices(), jc.Knobs())] * SIZE, dtype))


def evaluate_stacked(design, dtype=np.float64):
    """Evaluate a stack of (system, model, traffic, plan, prices, knobs)."""
    count = len(jax.tree.leaves(design)[0])
    calls = []
    with jax.enable_x64(dtype == np.float64):
        for start in range(0, count, SIZE):
            index = np.minimum(start + np.arange(SIZE), count - 1)
            calls.append(_program(dtype)(take(design, index)))
    rows, tree = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *calls)
    reports = Reports(rows)
    reports.tree = tree
    return reports


def evaluate(cases, taus=0.0, prices=None, dtype=np.float64):
    """Evaluate cases (system, model, traffic, plan), each with its tau and its prices."""
    prices = [jc.Prices()] * len(cases) if prices is None else prices
    knobs = [jc.Knobs(tau=tau) for tau in np.broadcast_to(taus, len(cases))]
    return evaluate_stacked(
        stacked([(*c, p, k) for c, p, k in zip(cases, prices, knobs, strict=True)], dtype), dtype
    )


def operators(report, step):
    """Names of the operators and messages of a step."""
    return [path.split(".")[1] for path in report if re.fullmatch(rf"{step}\.\w+\.seconds", path)]
