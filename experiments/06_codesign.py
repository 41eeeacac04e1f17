"""Gradient-based co-design against evolutionary search, on twelve design problems of 6 to 30 parameters.

`python experiments/06_codesign.py` writes experiments/out/06_codesign.json, data and manifest, and prints a table;
figures/06_codesign.py draws it. `--smoke` is a small version. All solvers search the same box [0, 1]^K, in which most
parameters are logarithmic and integers are rounded before they are evaluated. All are judged by one exact function in
float64.

    NSGA-II   pymoo, limits as its constraints, 64 designs per generation
    CMA-ES    pymoo, restarted (bipop), the logarithm of the objective plus ten times the constraint violation
    DE        scipy, best1bin, 64 designs per generation, the same penalty
    gradient  `jc.codesign` from two starting points: a value with its gradient counts as one evaluation

Many parameters trade one property for another (faster memory is more expensive and hotter); their ranges are
assumptions.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import operator
import platform
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.soo.nonconvex.cmaes import CMAES
from pymoo.core.problem import Problem as PymooProblem
from pymoo.optimize import minimize
from rich.console import Console
from rich.table import Table
from scipy.optimize import differential_evolution
from scipy.stats import qmc

import jaxcost as jc
from jaxcost.evaluation import evaluate
from jaxcost.explore.codesign.lagrangian import evaluate_limits
from jaxcost.explore.codesign.relaxation import apply_knobs, design_from
from jaxcost.explore.codesign.rounding import find_exact_design
from jaxcost.explore.codesign.solver import InitialPoints, Solver, initial_points
from jaxcost.explore.space.axes import Joint

OUT = Path(__file__).parent / "out"
PACKAGES = ("jaxcost", "jax", "numpy", "scipy", "pymoo", "cma")
GENERATION, PENALTY, KEPT, NEAR = 64, 10.0, 1e-6, 0.01
ROWS, WIDTH = 32, 32  # of one compiled batch
QUICK = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": "True"}
CHIP, LINK = "system.chip", "system.fabric.scale_up"


def whole(path, low, high):
    return jc.log_range(path, low, high, whole=True)


def by(path, low, high):
    """A factor on what is there; from low down to high too."""
    made = jc.log_range(path, min(low, high), max(low, high), relative=True)
    return made if low < high else dataclasses.replace(made, low=made.high, high=made.low)


def trade(name, **factors):
    """One knob that moves several leaves."""
    return Joint(
        ranges=tuple(by(path.replace("__", "."), *ends) for path, ends in factors.items()), name=name
    )


def at(head, **leaves):
    return {f"{head}.{leaf}".replace(".", "__"): ends for leaf, ends in leaves.items()}


# fmt: off
STACKS = jc.stacks(f"{CHIP}.memory", 1, 16, whole=False)
WHOLE_STACKS = jc.stacks(f"{CHIP}.memory", 1, 16)
MEMORY = (
    trade("memory speed", **at(f"{CHIP}.memory", bandwidth=(0.3, 3), energy_per_byte=(0.7, 1.6), price_per_byte=(0.6, 2))),
    by(f"{CHIP}.memory.capacity", 0.2, 4),
)
# In the order in which problems take them.
KNOBS = (
    whole("traffic.batch", 1, 512),
    trade("engines", **at(f"{CHIP}.compute", **{f"flops_{bits}": (0.1, 2.5) for bits in (16, 8, 6, 4)})),
    by(f"{LINK}.bandwidth", 0.1, 4),
    by(f"{CHIP}.tdp", 0.3, 2),
    trade("quick links", **at(LINK, latency=(2, 0.2), overhead=(2, 0.2), energy_per_byte=(0.6, 2))),
    trade("vector", **at(CHIP, **{"compute.vector_flops": (0.25, 4), "package.other_area": (0.95, 1.4)})),
    trade("process", **at(CHIP, energy_per_flop=(1.4, 0.6), idle_power=(1.4, 0.6), **{"process.wafer_price": (0.6, 2.5)})),
    trade("hosts", **at(CHIP, **{"efficiency.operator_overhead": (2, 0.25)}), **at("system.host", price=(0.5, 4))),
    whole(f"{CHIP}.package.dies", 1, 8),
    trade("cells", **at(CHIP, **{"package.area_per_flop": (1.4, 0.7), "process.defect_density": (0.6, 2)})),
    by(f"{CHIP}.compute.exponentials", 0.25, 4),
    trade("network", **at(LINK, launch=(2, 0.2)), **at("system.host", network_price=(0.5, 4))),
    trade("cache", **at(CHIP, on_chip_energy_per_byte=(1.5, 0.6), **{"package.cache": (0.5, 3)})),
    trade("idle memory", **at(f"{CHIP}.memory", idle_power=(1.6, 0.5), latency=(0.5, 4))),
    trade("tests", **at(f"{CHIP}.package", assembly_yield=(0.95, 1.06), die_test=(0.5, 6))),
    trade("racks", **at("system.host", power=(1.5, 0.5), rack_price=(0.5, 4))),
    trade("redundancy", **at(f"{CHIP}.package", critical=(1.4, 0.5), price_per_area=(0.6, 2))),
    trade("adders", **at(CHIP, energy_per_vector_flop=(1.5, 0.6), **{"package.base_price": (0.5, 3)})),
    by(f"{CHIP}.efficiency.matmul", 0.7, 1.1),
    by(f"{CHIP}.efficiency.memory", 0.7, 1.1),
    by(f"{CHIP}.efficiency.link", 0.7, 1.2),
    trade("fab", **at(f"{CHIP}.process", fab_energy=(1.5, 0.6), fab_gases=(0.6, 2))),
    by(f"{CHIP}.memory.refresh", 0.5, 2),
    by(f"{CHIP}.energy_per_exponential", 0.5, 2),
    by(f"{CHIP}.voltage_slope", 0.6, 1.4),
    by(f"{CHIP}.process.clustering", 0.7, 1.4),
    by("system.host.carbon", 0.5, 2),
    by(f"{CHIP}.process.fab_materials", 0.5, 2),
)
# fmt: on
CHAT, LONG = {"prompt": 2048.0, "output": 512.0}, {"prompt": 32768.0, "output": 1024.0}
EIGHT = {"weight_bits": 8.0, "expert_bits": 8.0, "kv_bits": 8.0, "activation_bits": 8.0}


@dataclasses.dataclass(frozen=True)
class Case:
    """A design problem."""

    name: str
    model: str
    system: str
    objective: dict
    count: int  # of KNOBS beside the memory's
    traffic: dict
    plan: dict
    limits: tuple = ()
    stacks: object = None  # one knob of stacks in place of MEMORY

    def solver(self, **options):
        system = jc.by_parts(jc.load_system(self.system, efficiency="typical"))
        if self.stacks is not None:
            system = jc.replace_at(system, "chip.memory", jc.load_memory("hbm3e"))
        base = jc.canonical(
            jc.Design(
                system=jc.stack([system]),
                model=jc.stack([jc.load_model(self.model)]),
                traffic=jc.Traffic(**self.traffic),
                plan=jc.Plan(tp=8.0, **self.plan),
                prices=jc.load_prices(),
            )
        )
        knobs = (*(MEMORY if self.stacks is None else (self.stacks,)), *KNOBS[: self.count])
        space = jc.Space(
            base=base, axes=(jc.sample(*knobs, count=1),), systems=(self.system,), models=(self.model,)
        )
        return Solver(jc.Problem(space, self.objective, self.limits, **options))


def most(metric, bound):
    return jc.Constraint(metric, high=bound)


USD, ENERGY, CARBON = ({name: 1.0} for name in ("usd_per_mtok", "joules_per_token", "gco2e_per_mtok"))
BOTH = {"usd_per_mtok": 1.0, "joules_per_token": 1.0}
# fmt: off
CASES = (
    Case("dense, dollars", "llama-3.1-70b", "h100-sxm-x8", USD, 4, CHAT | {"tpot_target": 0.03}, {}),
    Case("quick at a price", "llama-3.1-405b", "b200-x8", {"tpot": 1.0}, 6, CHAT, EIGHT, (most("usd_per_mtok", 3.0),)),
    Case("mixture, dollars", "deepseek-v3", "b200-x8", USD, 7, CHAT | {"tpot_target": 0.04}, EIGHT, (), STACKS),
    Case("mixture, joules", "qwen3-235b-a22b", "h200-sxm-x8", ENERGY, 8, CHAT | {"tpot_target": 0.03}, EIGHT,
         (most("usd_per_mtok", 1.0),)),
    Case("small, carbon", "llama-3.1-8b", "mi355x-x8", CARBON, 8, CHAT | {"tpot_target": 0.004}, {}),
    Case("long context", "llama-3.1-70b", "b200-x8", USD, 10, LONG | {"tpot_target": 0.03, "ttft_target": 60.0}, EIGHT,
         (), STACKS),
    Case("dollars and seconds", "qwen3-32b", "h100-sxm-x8", {"usd_per_mtok": 1.0, "tpot": 1.0}, 10, CHAT, {}),
    Case("capped room", "mixtral-8x22b", "h200-sxm-x8", {"tokens_per_second": -1.0}, 13, CHAT | {"tpot_target": 0.03}, {},
         (most("power.provisioned", 1e4), most("usd_per_mtok", 2.0))),
    Case("dollars and joules", "gpt-oss-120b", "b200-x8", BOTH, 16, CHAT | {"tpot_target": 0.006}, EIGHT, (), WHOLE_STACKS),
    Case("latent attention", "deepseek-v2", "b200-x8", USD, 18, LONG | {"tpot_target": 0.02, "ttft_target": 60.0}, EIGHT),
    Case("large mixture", "glm-4.5", "mi355x-x8", BOTH, 22, CHAT | {"tpot_target": 0.02}, EIGHT,
         (most("power.provisioned", 1e4),)),
    Case("everything", "deepseek-v3", "b200-x8", CARBON, 28, CHAT | {"tpot_target": 0.03}, EIGHT,
         (most("usd_per_mtok", 1.0),)),
)
# fmt: on


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    cases: tuple[Case, ...] = CASES
    budget: int = 20_000
    seeds: int = 1
    starts: int = 1


class Spent(Exception):
    """The evaluations are."""


@functools.lru_cache
def plain(structure, metrics, present):
    """The exact model without a gradient: logarithm of the objective [ROWS] and limits [ROWS, C]."""

    def one(problem, base, weights, bounds, u):
        design = design_from(structure, apply_knobs(base, problem.effects, u))
        report = evaluate(
            design.system, design.model, design.traffic, design.plan,
            prices=design.prices, knobs=design.knobs, features=present,
        )  # fmt: skip
        row = jnp.stack([operator.attrgetter(name)(report) for name in metrics])
        logs = jnp.where(weights != 0, weights * jnp.log(jnp.where(weights != 0, row, 1)), 0)
        return jnp.sum(logs), evaluate_limits(problem, row[None], bounds)[0]

    rows = jax.vmap(one, in_axes=(None, None, None, None, 0))
    return jax.jit(rows, compiler_options=QUICK if jax.default_backend() == "cpu" else None)


class Judge:
    """Evaluates positions of a problem exactly, counts, and remembers the best that keeps all limits."""

    def __init__(self, solver, budget):
        self.solver, self.budget, self.used, self.best, self.curve = solver, budget, 0, np.inf, []
        r, paths = solver.relaxation, solver.relaxation.paths
        base = solver.bases[0, 0].copy()
        base[paths.index("knobs.tau")], base[paths.index("knobs.fractional")] = 0.0, 0.0
        self.run = plain(r.structure, solver.metrics, r.features)
        self.given = (solver.arrays, base, solver.weights, solver.bounds)
        self.listed = [
            (k, np.asarray(v.position(v.values))) for k, v in enumerate(r.knobs) if v.values is not None
        ]

    def rounded(self, u):
        out = np.clip(np.asarray(u, float), 0, 1)
        for k, grid in self.listed:
            out[:, k] = grid[np.argmin(np.abs(out[:, k, None] - grid[None]), axis=1)]
        return out

    def __call__(self, u):
        """Objective and limits of rows of positions; `Spent` once the budget is."""
        if self.used >= self.budget:
            raise Spent
        full = np.zeros((-(-len(u) // ROWS) * ROWS, WIDTH))
        full[: len(u), : self.solver.knobs] = self.rounded(u)
        with jax.enable_x64(True):
            parts = [jax.device_get(self.run(*self.given, part)) for part in full.reshape(-1, ROWS, WIDTH)]
        value = np.concatenate([p[0] for p in parts])[: len(u)]
        g = np.concatenate([p[1] for p in parts])[: len(u), : len(self.solver.limits)]
        sound = np.isfinite(value) & np.isfinite(g).all(axis=1)
        value, g = np.where(sound, value, 1e2), np.where(sound[:, None], g, 1e1)
        kept = np.where(sound & (g.max(axis=1) <= KEPT), value, np.inf)
        self.note(self.used + 1 + np.arange(len(u)), kept)
        self.used += len(u)
        return value, g

    def note(self, counts, kept):
        for count, x in zip(counts, kept, strict=True):
            if x < self.best:
                self.best = x
                self.curve.append((int(count), float(np.exp(x))))

    def penalised(self, u):
        value, g = self(u)
        return value + PENALTY * np.maximum(g, 0).sum(axis=1)


class Constrained(PymooProblem):
    """A problem as pymoo wants it."""

    def __init__(self, judge, penalty):
        self.judge, self.penalty = judge, penalty
        count = 0 if penalty else len(judge.solver.limits)
        super().__init__(n_var=judge.solver.knobs, n_obj=1, n_ieq_constr=count, xl=0.0, xu=1.0)

    def _evaluate(self, x, out, *args, **kwargs):
        if self.penalty:
            out["F"] = self.judge.penalised(x)[:, None]
        else:
            value, out["G"] = self.judge(x)
            out["F"] = value[:, None]


def nsga2(judge, seed):
    minimize(Constrained(judge, False), NSGA2(pop_size=GENERATION), ("n_gen", 10**6), seed=seed)


def cmaes(judge, seed):
    middle = np.full(judge.solver.knobs, 0.5)
    method = CMAES(x0=middle, sigma=0.3, restarts=1000, bipop=True, maxfevals=10**9)
    minimize(Constrained(judge, True), method, ("n_gen", 10**6), seed=seed)


def evolution(judge, seed):
    k = judge.solver.knobs
    differential_evolution(
        lambda u: judge.penalised(u.T), [(0, 1)] * k, init=qmc.Sobol(k, rng=seed).random(GENERATION),
        strategy="best1bin", recombination=0.9, tol=0, atol=0, maxiter=10**6, polish=False,
        vectorized=True, updating="deferred", rng=seed,
    )  # fmt: skip


RIVALS = {"NSGA-II": nsga2, "CMA-ES": cmaes, "DE": evolution}


def gradient(judge):
    """Solve as `jc.codesign` does; exact values are noted once all evaluations before them are counted."""
    solver, own = judge.solver, judge.solver.measure

    def measure(points: InitialPoints, tau: float = 0.0):
        found = own(points, tau)
        true = np.abs(found.positions - judge.rounded(found.positions)).max(axis=1) < 1e-9
        kept = (found.limits.max(axis=(1, 2)) <= KEPT) & true & (tau == 0) & (not points.fractional)
        judge.note(np.full(len(kept), solver.evaluations), np.where(kept, found.objective, np.inf))
        return found

    solver.measure, solver.evaluations = measure, 0
    found = find_exact_design(solver, solver.solve(initial_points(solver)))
    solver.measure = own
    judge.used = solver.evaluations
    if found is None:
        return None, None
    u = found[0].positions
    value, g = Judge(solver, 1)(u)
    return (float(np.exp(value[0])) if g.max() <= KEPT else None), [float(x) for x in u[0]]


def solved(case, config):
    """One problem by everybody."""
    runs = []
    for seed in range(config.seeds):
        solver = case.solver(starts=config.starts, seed=seed)
        for name in (*RIVALS, "gradient"):
            judge, began, positions = Judge(solver, config.budget), time.perf_counter(), None
            if name == "gradient":
                value, positions = gradient(judge)
            else:
                try:
                    RIVALS[name](judge, seed + 1)
                except Spent:
                    pass
                value = judge.curve[-1][1] if judge.curve else None
            seconds = time.perf_counter() - began
            print(f"{case.name}: {name} {seed}: {value} in {judge.used}, {seconds:.0f} s", flush=True)
            runs.append({"solver": name, "seed": seed, "value": value, "evaluations": judge.used, "seconds": seconds,
                         "curve": judge.curve, "positions": positions})  # fmt: skip
    found = [r["value"] for r in runs if r["value"] is not None]
    best = min(found, default=None)
    for r in runs:
        near = [n for n, x in r["curve"] if best is not None and x <= best * (1 + NEAR)]
        r["near"] = near[0] if near else None
        if r["solver"] == "gradient" and r["near"] is not None:
            # All that it takes to its end, where that is near.
            ended = r["value"] is not None and r["value"] <= best * (1 + NEAR)
            r["near"] = r["evaluations"] if ended else None
    return {"name": case.name, "knobs": solver.knobs, "whole": len(Judge(solver, 0).listed), "model": case.model,
            "system": case.system, "objective": case.objective, "best": best, "runs": runs,
            "limits": [[c.metric, c.high] for c in case.limits], "traffic": case.traffic}  # fmt: skip


def gradient_cost(case, times=20):
    """Time of a value with its gradient over that of a value: least of several, taken in turns; compiles both."""
    solver = case.solver()
    u = np.random.default_rng(0).random((ROWS, solver.knobs))
    judge, points = Judge(solver, np.inf), InitialPoints(combination=np.zeros(ROWS, int), positions=u)
    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        solver.measure(points)
        between = time.perf_counter()
        judge(u)
        seconds.append((between - began, time.perf_counter() - between))
    both = np.min(seconds[1:], axis=0)
    return float(both[0] / both[1])


def median(rows, key):
    """Median over seeds, None where half of them have none."""
    values = sorted(np.inf if r[key] is None else r[key] for r in rows)
    middle = values[(len(values) - 1) // 2]
    return middle if np.isfinite(middle) else None


def main() -> None:
    """Write the data and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true", help="one problem and 500 evaluations")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    config = Config(cases=CASES[:1], budget=500) if given.smoke else Config(seeds=given.seeds)
    names, rows, cost = (*RIVALS, "gradient"), [], gradient_cost(config.cases[0])
    table = Table(title="Ratio to the best design, and evaluations to within 1% of it (a dash: never within)")
    for name in ("Problem", "Knobs", *names, "fewest rival / gradient"):
        table.add_column(name)
    for case in config.cases:
        row = solved(case, config)
        rows.append(row)
        by_name = {name: [r for r in row["runs"] if r["solver"] == name] for name in names}
        cells, near = [], {}
        for name, runs in by_name.items():
            value, near[name] = median(runs, "value"), median(runs, "near")
            share = "none" if value is None else f"{value / row['best']:.4f}"
            cells.append(f"{share} {near[name] or '-'}")
        rivals = [near[name] for name in RIVALS if near[name]]
        row["ratio"] = min(rivals) / near["gradient"] if rivals and near["gradient"] else None
        ratio = "-" if not near["gradient"] else f"> {config.budget / near['gradient']:.0f}"
        ratio = f"{row['ratio']:.1f}" if row["ratio"] else ratio
        table.add_row(row["name"], str(row["knobs"]), *cells, ratio)
    Console(width=130).print(table, f"A value with its gradient takes {cost:.1f} times as long as a value.")
    manifest = {
        "budget": config.budget,
        "seeds": config.seeds,
        "starts": config.starts,
        "gradient_cost": cost,
        "near": NEAR,
        "kept": KEPT,
        "penalty": PENALTY,
        "generation": GENERATION,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "06_codesign.json").write_text(json.dumps({"manifest": manifest, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
