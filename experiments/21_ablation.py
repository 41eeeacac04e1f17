"""A decode step of 7B, 8B and 70B models with near-memory engines on and off, by operator class.

One chip has eight stacks of HBM4: plain, with logic in their base dies (PNM), or with units at every bank (PIM). The
engines work on attention alone, on weights alone, or on both, at batch 1, 8 and 64. The results are time and energy
of the step and the bytes that cross the edge of the chip.
"""

import itertools

import numpy as np

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

CHIP, MEMORY, STACKS = "b200", "hbm4", 8
MODELS = ("llama-2-7b", "llama-3.1-8b", "llama-3.1-70b")  # 1, 4 and 8 queries a key
ENGINES = {"base die": "hbm4-base-die", "bank": "attacc-bank"}
# Which operators may run near memory: shares of the cache's and of the weights' matmuls.
CLASSES = {"none": (0.0, 0.0), "attention": (1.0, 0.0), "weights": (0.0, 1.0), "both": (1.0, 1.0)}
BATCHES = (1, 8, 64)
TRAFFIC = {"prompt": 3584, "output": 512}
CORES = (
    "attention_full",
    "attention_window",
    "latent_attention",
)  # attention itself, without its projections
SLACK = 0.1  # engines save energy: an operator may take a tenth longer there


def built(engine: str) -> jc.System:
    """A chip whose stacks have engines."""
    made = jc.add_tier(jc.load_system(CHIP), "memory", MEMORY, stacks=STACKS)
    return jc.add_near(made, "memory", ENGINES[engine])


def plan(kind: str) -> jc.Plan:
    attention, weights = CLASSES[kind]
    near = jc.Placement(near_cache=attention, near_weights=weights, near_experts=weights, near_slack=SLACK)
    return jc.Plan(placement=near)


def steps(small: bool) -> Table:
    """Evaluate every model, engine, batch and class of operators."""
    models, batches = (MODELS[:1], BATCHES[::2]) if small else (MODELS, BATCHES)
    grid = list(itertools.product(models, ENGINES, batches, CLASSES))
    systems = {engine: built(engine) for engine in ENGINES}
    loaded = {name: jc.load_model(name) for name in models}
    report = evaluate(
        [
            Case(systems[engine], loaded[model], jc.Traffic(batch=batch, **TRAFFIC), plan(kind))
            for model, engine, batch, kind in grid
        ]
    )
    times = report.decode
    energy = report.power.decode * times.total
    attention = sum(r.seconds for r, name in zip(times.rows, times.names, strict=True) if name in CORES)
    near = sum(r.near for r in times.rows)
    # What still passes the chip's interface, at the peak of its bandwidth.
    crossing = sum(np.asarray(r.memory) for r in times.rows) * float(systems["bank"].chip.memory.bandwidth)
    capacity = float(systems["bank"].chip.memory.capacity)
    rows = []
    for i, (model, engine, batch, kind) in enumerate(grid):
        off = i - list(CLASSES).index(kind)
        rows.append(
            {
                "model": model,
                "engine": engine,
                "batch": batch,
                "near": kind,
                "queries_per_key": loaded[model].attention.heads / loaded[model].attention.kv_heads,
                "time": times.total[i],
                "attention_time": attention[i],
                "near_time": near[i],
                "energy": energy[i],
                "crossing": crossing[i],
                "time_ratio": times.total[i] / times.total[off],
                "energy_ratio": energy[i] / energy[off],
                "crossing_ratio": crossing[i] / crossing[off],
                "joules_per_token": energy[i] / batch,
                "fits": bool(report.memory.weights[i] + report.memory.kv[i] <= capacity),
            }
        )
    units = {
        "model": "",
        "engine": "",
        "near": "",
        "fits": "",
        "energy": "J",
        "crossing": "B",
        "joules_per_token": "J/token",
    }
    units |= dict.fromkeys(("time", "attention_time", "near_time"), "s")
    return Table("one decode step on one chip", {name: units.get(name, "1") for name in rows[0]}, rows)


def study(small: bool) -> Study:
    table = steps(small)
    models = list(dict.fromkeys(r["model"] for r in table.rows))
    first, last = models[0], models[-1]
    many = max(r["batch"] for r in table.rows)

    def row(model: str, engine: str, batch: int, kind: str) -> dict:
        key = {"model": model, "engine": engine, "batch": batch, "near": kind}
        return next(r for r in table.rows if all(r[k] == v for k, v in key.items()))

    off, both, die = (
        row(last, "bank", 1, "none"),
        row(last, "bank", 1, "both"),
        row(last, "base die", 1, "both"),
    )
    alone, part = row(last, "bank", 1, "weights"), row(last, "bank", 1, "attention")
    engines = {name: jc.load_near(file) for name, file in ENGINES.items()}
    ridge = {name: float(near.flops / near.bandwidth) for name, near in engines.items()}
    later = [r for r in table.rows if r["near"] == "weights" and r["batch"] > 1]
    runs = [r for r in later if r["near_time"] > 0]
    cache = "; ".join(
        f"{name} ({row(name, 'bank', many, 'none')['queries_per_key']:.0f} a key) {row(name, 'bank', many, 'attention')['time_ratio']:.2f} "
        f"with bank units and {row(name, 'base die', many, 'attention')['time_ratio']:.2f} with base dies, energy "
        f"{row(name, 'bank', many, 'attention')['energy_ratio']:.2f} and {row(name, 'base die', many, 'attention')['energy_ratio']:.2f}"
        for name in models
    )
    full = row(first, "bank", many, "none")
    fast, slow = (f(table.rows, key=lambda r: r["time_ratio"]) for f in (min, max))
    return Study(
        title="Near-memory engines on and off",
        findings=(
            f"At batch 1 a step of {last} takes {off['time'] * 1e3:.2f} ms and {off['energy']:.1f} J without engines, "
            f"{both['time'] * 1e3:.2f} ms and {both['energy']:.2f} J with bank units on both classes, {die['time'] * 1e3:.2f} ms and "
            f"{die['energy']:.2f} J with base dies; {both['crossing_ratio']:.1%} of the bytes still cross the edge of the chip.",
            f"At batch 1 that comes with the weights: alone they take the step to {alone['time_ratio']:.2f} of its time, attention alone "
            f"to {part['time_ratio']:.2f}.",
            f"From batch {min(r['batch'] for r in later)} on weights run near memory in {len(runs)} of {len(later)} cases: every request asks "
            f"for another FLOP a byte, of which bank units have {ridge['bank']:.0f} and base dies {ridge['base die']:.0f}.",
            f"At batch {many}, with attention near memory, the step takes of its time: {cache}. The gain depends on how many queries share a key.",
            f"Attention is {full['attention_time'] / full['time']:.0%} of a step of {first} at batch {many}; with bank units on it "
            f"{row(first, 'bank', many, 'attention')['crossing_ratio']:.1%} of the bytes cross the edge.",
            f"Over all cases the step is at most {1 / fast['time_ratio']:.1f} times as fast ({fast['model']}, {fast['engine']}, batch "
            f"{fast['batch']}, {fast['near']}) and takes at most {slow['time_ratio']:.3f} of the time. Base dies save energy and never time.",
        ),
        assumptions=(
            f"{CHIP} logic with {STACKS} stacks of {MEMORY}, 16 bits, every peak reached; requests of {TRAFFIC['prompt']:,} tokens in and "
            f"{TRAFFIC['output']} out, at their mean context.",
            "Bank units are AttAcc's of an HBM3 stack as published, put into every stack of HBM4; the memory holds as much with them.",
            f"An operator runs near memory where that takes at most {SLACK:.0%} longer; element-wise work stays on the chip.",
            "Bytes that cross the edge are operands and activations; partial sums of units are in the time, not in the bytes.",
            "What fits is weights and caches, without buffers of a prefill.",
            "Energy is that of the chip with its memory, idle power included, without the server.",
        ),
        sources=(
            "configs/near/hbm4-base-die.yaml",
            "configs/near/attacc-bank.yaml",
            f"configs/memories/{MEMORY}.yaml",
        ),
        tables={"steps": table},
    )


if __name__ == "__main__":
    run(study)
