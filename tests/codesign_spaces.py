"""Spaces that can be searched in full: each described once, as `jc.codesign` sees it and as rows that are all evaluated.

Every space has the same tree of leaves, the same metrics and no tier beside main memory, and its rows come in blocks of
one length over one list of paths. So the gradient and the exhaustive search compile once for all of them.
"""

import dataclasses
import itertools
import math
import operator

import jax.numpy as jnp
import numpy as np

import jaxcost as jc
from jaxcost.edge.catalog.tiers import load_memory
from jaxcost.explore.space.stack_knob import PER_STACK

ROWS = 1 << 15
STACKED = ("stacks", *PER_STACK)
# All that any space moves; where a space leaves one alone its rows repeat what the base has.
PATHS = (
    "traffic.batch",
    "plan.tp",
    "plan.ep",
    "plan.dp",
    "plan.microbatches",
    "system.chips",
    "system.chip.tdp",
    "system.chip.compute.flops_16",
    "system.fabric.scale_up.bandwidth",
    "system.chip.memory.bandwidth",
    *(f"system.chip.memory.{leaf}" for leaf in STACKED if leaf != "bandwidth"),
)
METRICS = (
    "usd_per_mtok",
    "joules_per_token",
    "gco2e_per_mtok",
    "tpot",
    "ttft",
    "tokens_per_second",
    "power.provisioned",
    "margins.worst",
)


@dataclasses.dataclass(frozen=True)
class Whole:
    """Whole numbers from low to high, a knob."""

    path: str
    low: int
    high: int

    def __len__(self):
        return self.high - self.low + 1


@dataclasses.dataclass(frozen=True)
class Stacks(Whole):
    """So many stacks of the memory at a path."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A list of values."""

    path: str
    values: tuple

    def __len__(self):
        return len(self.values)


@dataclasses.dataclass(frozen=True)
class Pick:
    """One of several branches at a path."""

    path: str
    names: tuple
    load: object

    def __len__(self):
        return len(self.names)

    def trees(self):
        return {name: self.load(name) for name in self.names}


def even(path, low, high, count):
    """Values even in the logarithm."""
    return Grid(path, tuple(float(x) for x in np.geomspace(low, high, count)))


@dataclasses.dataclass(frozen=True)
class Problem:
    """What varies, what is lowered, and what limits it."""

    name: str
    models: tuple
    systems: tuple
    objective: dict
    varies: tuple
    traffic: dict
    plan: dict = dataclasses.field(default_factory=dict)
    limits: tuple = ()
    memory: str = ""  # main memory, of one stack, in place of the system's own
    parts: bool = False
    efficiency: str = "typical"

    @property
    def size(self):
        return len(self.models) * len(self.systems) * math.prod(len(v) for v in self.varies)

    def base(self, models, systems):
        loaded = [jc.load_system(s, efficiency=self.efficiency) for s in systems]
        loaded = [jc.by_parts(s) if self.parts else s for s in loaded]
        if self.memory:
            loaded = [jc.replace_at(s, "chip.memory", load_memory(self.memory)) for s in loaded]
        return jc.canonical(
            jc.Design(
                system=jc.stack(loaded),
                model=jc.stack([jc.load_model(m) for m in models]),
                traffic=jc.Traffic(**self.traffic),
                plan=jc.Plan(**self.plan),
                prices=jc.load_prices(),
            )
        )

    def space(self):
        """The space as an optimiser gets it."""
        knobs, axes = [], []
        for v in self.varies:
            if isinstance(v, Stacks):
                knobs.append(jc.stacks(v.path, v.low, v.high))
            elif isinstance(v, Whole):
                knobs.append(jc.log_range(v.path, v.low, v.high, whole=True))
            elif isinstance(v, Grid):
                axes.append(jc.Axis(values=jnp.asarray(v.values), path=v.path))
            else:
                axes.append(jc.choice(v.path, v.trees()))
        # Choices come before what multiplies a leaf of theirs.
        sampled = (jc.sample(*knobs, count=1),) if knobs else ()
        return jc.Space(
            base=self.base(self.models, self.systems),
            axes=(*axes, *sampled),
            systems=self.systems,
            models=self.models,
        )

    def grid_space(self):
        """The same designs as a product grid; without stacks."""
        axes = []
        for v in self.varies:
            if isinstance(v, Pick):
                axes.append(jc.choice(v.path, v.trees()))
            else:
                values = np.arange(v.low, v.high + 1.0) if isinstance(v, Whole) else np.asarray(v.values)
                axes.append(jc.Axis(values=jnp.asarray(values, jnp.float32), path=v.path))
        return jc.Space(
            base=self.base(self.models, self.systems),
            axes=tuple(axes),
            systems=self.systems,
            models=self.models,
        )

    def value(self, metrics):
        """The objective of columns of metrics by name, or of a report."""
        return math.prod(metrics(name) ** weight for name, weight in self.objective.items())


def exhaustive(problem):
    """The least objective of all designs of a problem, and how many hold all limits."""
    picks = [v for v in problem.varies if isinstance(v, Pick)]
    best, held, at = np.inf, 0, None
    for model, system in itertools.product(problem.models, problem.systems):
        base = problem.base((model,), (system,))
        for chosen in itertools.product(*(v.trees().items() for v in picks)):
            design = base
            for v, (_, tree) in zip(picks, chosen, strict=True):
                # Branches of the system have the leading axis of one system.
                lead = jc.stack([tree]) if v.path.startswith("system.") else tree
                design = jc.replace_at(design, v.path, lead)
            design = jc.canonical(design)
            for columns, count in _rows(problem, design):
                values, feasible = _measured(problem, design, columns)
                feasible[count:] = False
                held += int(feasible.sum())
                if feasible.any() and values[feasible].min() < best:
                    row = np.flatnonzero(feasible)[np.argmin(values[feasible])]
                    best = float(values[row])
                    moved = [p for p in PATHS if p in columns and np.ptp(columns[p][:count])]
                    at = (model, system, *(n for n, _ in chosen), {p: float(columns[p][row]) for p in moved})
    return best, held, at


def _rows(problem, design):
    """Blocks of ROWS designs: the column of every path, the last block filled up with its last design."""
    varies = [v for v in problem.varies if not isinstance(v, Pick)]
    shape = tuple(len(v) for v in varies)
    total = math.prod(shape)
    own = {path: float(np.ravel(operator.attrgetter(path)(design))[0]) for path in PATHS}
    for first in range(0, total, ROWS):
        digits = np.unravel_index(np.minimum(np.arange(first, first + ROWS), total - 1), shape)
        columns = {path: np.full(ROWS, x) for path, x in own.items()}
        for v, digit in zip(varies, digits, strict=True):
            if isinstance(v, Stacks):
                for leaf in STACKED:
                    columns[f"{v.path}.{leaf}"] = own[f"{v.path}.{leaf}"] * (v.low + digit)
            elif isinstance(v, Whole):
                columns[v.path] = v.low + digit
            else:
                columns[v.path] = np.asarray(v.values)[digit]
        yield columns, min(ROWS, total - first)


def _measured(problem, design, columns):
    """The objective of a block of designs, and which of them hold all limits."""
    axes = tuple(jc.Axis(values=jnp.asarray(columns[path], jnp.float32), path=path) for path in PATHS)
    space = jc.Space(base=design, axes=(jc.Tied(axes=axes),), systems=("",), models=("",))
    found = jc.sweep(space, metrics=METRICS)
    feasible = found.feasible
    for limit in problem.limits:
        feasible &= (found.column(limit.metric) >= limit.low) & (found.column(limit.metric) <= limit.high)
    return problem.value(lambda name: found.column(name).astype(float)), feasible


BATCH, MEMORY, CHIP = "traffic.batch", "system.chip.memory", "system.chip"
TP = Grid("plan.tp", (1.0, 2.0, 4.0, 8.0))
CHAT = {"prompt": 2048.0, "output": 512.0}
LONG = {"prompt": 32768.0, "output": 1024.0}
PROBLEMS = (
    Problem(
        "batch and degree of a dense model",
        ("llama-3.1-70b",),
        ("h100-sxm-x8",),
        {"usd_per_mtok": 1.0},
        (Whole(BATCH, 1, 256), TP),
        {**CHAT, "tpot_target": 0.04},
    ),
    Problem(
        "stacks of a large mixture",
        ("deepseek-v3",),
        ("b200-x8",),
        {"usd_per_mtok": 1.0},
        (Stacks(MEMORY, 2, 16), Whole(BATCH, 1, 512), TP),
        {**CHAT, "tpot_target": 0.05},
        {"weight_bits": 8.0, "expert_bits": 4.5, "kv_bits": 8.0, "activation_bits": 8.0},
        memory="hbm3e",
        parts=True,
    ),
    Problem(
        "energy of a mixture",
        ("qwen3-235b-a22b",),
        ("h200-sxm-x8", "mi355x-x8"),
        {"joules_per_token": 1.0},
        (Whole(BATCH, 1, 1024), Grid("plan.tp", (1.0, 2.0, 4.0, 8.0)), Grid("plan.ep", (1.0, 2.0, 4.0, 8.0))),
        {**CHAT, "tpot_target": 0.06},
        {"weight_bits": 8.0, "expert_bits": 8.0},
    ),
    Problem(
        "quick answers for their price",
        ("llama-3.1-405b",),
        ("b200-x8",),
        {"tpot": 1.0},
        (Stacks(MEMORY, 1, 12), Whole(BATCH, 1, 128), Grid("plan.tp", (2.0, 4.0, 8.0))),
        CHAT,
        {"weight_bits": 8.0, "kv_bits": 8.0},
        limits=(jc.Constraint("usd_per_mtok", high=4.0),),
        memory="hbm3e",
        parts=True,
    ),
    Problem(
        "carbon of a small model",
        ("llama-3.1-8b", "qwen3-8b"),
        ("l40s-x8", "tpu-v6e-x8", "a100-80gb-sxm-x8"),
        {"gco2e_per_mtok": 1.0},
        (Whole(BATCH, 1, 512), TP),
        {**CHAT, "tpot_target": 0.02, "ttft_target": 30.0},
    ),
    Problem(
        "dollars times seconds",
        ("qwen3-32b",),
        ("h100-sxm-x8",),
        {"usd_per_mtok": 1.0, "tpot": 1.0},
        (Stacks(MEMORY, 1, 12), Whole(BATCH, 1, 400), TP),
        CHAT,
        memory="hbm3",
        parts=True,
    ),
    Problem(
        "kinds of memory",
        ("llama-3.1-70b",),
        ("h200-sxm-x8",),
        {"usd_per_mtok": 1.0},
        (
            Pick(MEMORY, ("hbm3e", "hbm4", "lpddr6-14400", "gddr7"), load_memory),
            Stacks(MEMORY, 1, 16),
            Whole(BATCH, 1, 256),
            TP,
        ),
        {**CHAT, "tpot_target": 0.03},
        parts=True,
    ),
    Problem(
        "engines under the reticle",
        ("deepseek-v2-lite",),
        ("h200-sxm-x8",),
        {"usd_per_mtok": 1.0, "gco2e_per_mtok": 0.5},
        (
            even(f"{CHIP}.compute.flops_16", 1e14, 4e15, 40),
            Whole(BATCH, 1, 600),
            Grid("plan.tp", (1.0, 2.0)),
        ),
        {**LONG, "tpot_target": 0.02},
        parts=True,
    ),
    Problem(
        "links and engines of a long context",
        ("llama-3.1-70b",),
        ("b200-x8",),
        {"usd_per_mtok": 1.0},
        (
            even("system.fabric.scale_up.bandwidth", 5e10, 2e12, 70),
            even(f"{CHIP}.compute.flops_16", 2e14, 5e15, 60),
            Whole(BATCH, 1, 64),
        ),
        {**LONG, "tpot_target": 0.05, "ttft_target": 60.0},
        {"tp": 8.0, "kv_bits": 8.0},
        parts=True,
    ),
    Problem(
        "a room's power",
        ("mixtral-8x22b",),
        ("h100-sxm-x64",),
        {"tokens_per_second": -1.0},
        (Whole("system.chips", 8, 64), Whole(BATCH, 1, 1024)),
        {**CHAT, "tpot_target": 0.04},
        {"tp": 8.0},
        limits=(jc.Constraint("power.provisioned", high=4e4),),
    ),
    Problem(
        "what a package may draw",
        ("gpt-oss-120b",),
        ("b200-x8",),
        {"joules_per_token": 1.0, "usd_per_mtok": 1.0},
        (even(f"{CHIP}.tdp", 200.0, 1600.0, 24), Stacks(MEMORY, 1, 12), Whole(BATCH, 1, 256)),
        {**CHAT, "tpot_target": 0.01},
        {"tp": 4.0, "expert_bits": 4.25},
        memory="hbm4",
        parts=True,
    ),
    Problem(
        "ten million",
        ("deepseek-v2",),
        ("b200-x8",),
        {"usd_per_mtok": 1.0},
        (
            even("system.fabric.scale_up.bandwidth", 1e11, 4e12, 64),
            even(f"{CHIP}.compute.flops_16", 2e14, 5e15, 80),
            Stacks(MEMORY, 1, 16),
            Whole(BATCH, 1, 128),
        ),
        {**CHAT, "tpot_target": 0.03},
        {"tp": 8.0},
        memory="hbm3e",
        parts=True,
    ),
)
