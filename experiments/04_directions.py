"""The four directions, each alone and all together: flash, near-memory compute, 3D stacking, a low-latency fabric.

`python experiments/04_directions.py` writes experiments/out/04_directions.json, data and manifest, and prints main
effects; figures/04_directions.py draws it. A full factorial of 16 chips on a dense model, a mixture of experts and a
long shared context. Every chip has the same eight sites of shoreline, and every design the fewest chips that hold it:

    flash   four of eight HBM stacks give way to High Bandwidth Flash, all eight where main memory is stacked
    near    engines in the base dies of every stack at the edge
    stacked main memory is DRAM bonded on the logic, and heat leaves through it
    quick   the scale-up fabric answers in a sub-microsecond
"""

import importlib.metadata
import itertools
import json
import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxcost as jc

OUT = Path(__file__).parent / "out"
CHIP, SITES, STACK = "b200", 8, "hbm3e"
DIRECTIONS = ("flash", "near", "stacked", "quick")
CHIPS = (1, 2, 4, 8, 16, 32, 64)
# Model, traffic, tensor-parallel degree at most, and what further chips are for.
WORKLOADS = {
    "dense": ("llama-3.1-405b", {"prompt": 8192, "output": 1024, "batch": 1}, 32, "pp"),
    "experts": ("deepseek-v3", {"prompt": 8192, "output": 1024, "batch": 16}, 8, "dp"),
    "long context": (
        "llama-3.1-70b",
        {"prompt": 2048, "output": 1024, "batch": 8, "retrieved": 500_000},
        8,
        "cp",
    ),
}
PLAN = {"weight_bits": 8, "expert_bits": 8, "kv_bits": 8}
NEAR_SLACK = 0.1  # engines save energy: an operator may take a tenth longer there
# Estimates: a cold plate's 40 K mm^2/W, and 5 K mm^2/W a layer of thinned DRAM with its bond.
COOLING = jc.Cooling(area=1600e-6, sink=40e-6, layer=5e-6, layers=8, limit=378.0)
METRICS = ("tpot", "tokens_per_second", "joules_per_token", "usd_per_mtok", "gco2e_per_mtok")
UNITS = ("s", "token/s", "J/token", "USD/Mtok", "g/Mtok")


def system(on: dict[str, bool]) -> jc.System:
    """One chip with some of the directions; what it is fitted with is paid for, what it gives up is not."""
    made = jc.load_system(CHIP)
    chip = made.chip
    stack = jc.load_memory(STACK)
    hbm_sites = 0 if on["stacked"] else SITES // 2 if on["flash"] else SITES
    lost = chip.memory.capacity * (1 - hbm_sites / SITES) * stack.price_per_byte
    memory = jc.replace(
        chip.memory,
        capacity=chip.memory.capacity * hbm_sites / SITES,
        bandwidth=chip.memory.bandwidth * hbm_sites / SITES,
        stacks=float(hbm_sites),
    )
    bought = -lost
    if on["stacked"]:
        memory = jc.load_memory("3d-dram")
        bought += memory.capacity * memory.price_per_byte
        memory = jc.replace(memory, price_per_byte=0.0, idle_power=0.0)
        # The bond replaces the interface at the edge and the way across the die.
        chip = jc.replace(chip, cooling=COOLING, stacking=jc.Stacking(energy=0.5))
    made = jc.replace(made, chip=jc.replace(chip, memory=memory, price=chip.price + bought))
    if on["flash"]:
        made = jc.add_tier(made, "hbf", "hbf", stacks=SITES - hbm_sites)
    if on["near"]:
        made = jc.add_near(made, "memory", "hbm4-base-die", stacks=hbm_sites) if hbm_sites else made
        # The engines reach what the stacks at hand deliver, not what those of the next generation do.
        if hbm_sites:
            made = jc.replace_at(made, "chip.memory.near.bandwidth", memory.bandwidth)
        made = jc.add_near(made, "hbf", "hbf-base-die") if on["flash"] else made
    if on["quick"]:
        link = jc.replace(made.fabric.scale_up, launch=0.0, overhead=0.1e-6, latency=0.1e-6, sram_landing=1.0)
        made = jc.replace(made, fabric=jc.replace(made.fabric, scale_up=link))
    return jc.canonical(made)


@jax.jit
@jax.vmap
def measure(system: jc.System, model: jc.Model, traffic: jc.Traffic, plan: jc.Plan) -> dict[str, jax.Array]:
    chips = plan.tp * plan.pp * plan.dp * plan.cp
    system = jc.replace(system, chips=chips, fabric=jc.replace(system.fabric, domain=float(CHIPS[-1])))
    report = jc.evaluate(system, model, traffic, plan)
    out = {name: getattr(report, name) for name in METRICS}
    held = jnp.minimum(report.margins.memory, report.margins.hbf)
    near = sum(row.near for row in report.decode.rows)
    return out | {
        "fits": held,
        "temperature": report.thermal.decode.temperature,
        "near_share": near / report.decode.total,
        "message_share": sum(row.network for row in report.decode.rows) / report.decode.total,
        "flash_share": report.tiers.hbf.used / report.memory.used,
        "endurance": report.margins.endurance,
    }


def plan_of(workload: str, chips: int) -> jc.Plan:
    _, _, widest, further = WORKLOADS[workload]
    tp = min(chips, widest)
    degrees = {"tp": float(tp), further: float(chips // tp)}
    return jc.canonical(
        jc.Plan(
            **degrees,
            ep=float(chips if workload == "experts" else 1),
            placement=jc.Placement(near_slack=NEAR_SLACK),
            **PLAN,
        )
    )


def rows() -> list[dict]:
    designs = [
        dict(zip(DIRECTIONS, bits, strict=True)) for bits in itertools.product((False, True), repeat=4)
    ]
    grid = list(itertools.product(WORKLOADS, range(len(designs)), CHIPS))
    systems = [system(on) for on in designs]
    models = {name: jc.load_model(model) for name, (model, *_) in WORKLOADS.items()}
    traffics = {name: jc.canonical(jc.Traffic(**traffic)) for name, (_, traffic, *_) in WORKLOADS.items()}
    found = measure(
        jc.stack([systems[d] for _, d, _ in grid]),
        jc.stack([models[w] for w, _, _ in grid]),
        jc.stack([traffics[w] for w, _, _ in grid]),
        jc.stack([plan_of(w, c) for w, _, c in grid]),
    )
    found = {name: np.asarray(x, float) for name, x in found.items()}
    out = []
    for i, (workload, design, chips) in enumerate(grid):
        fewest = all(
            found["fits"][j] < 0
            for j, (w, d, c) in enumerate(grid)
            if (w, d) == (workload, design) and c < chips
        )
        out.append(
            {
                "workload": workload,
                **designs[design],
                "chips": chips,
                "chosen": bool(fewest and found["fits"][i] >= 0),
                **{name: float(x[i]) for name, x in found.items()},
            }
        )
    return out


def effects(data: list[dict]) -> list[tuple[str, str, str, float]]:
    """Main effect of each direction on each metric: geometric mean, over the others, of with / without."""
    chosen = [r for r in data if r["chosen"]]
    out = []
    for workload, direction, metric in itertools.product(WORKLOADS, DIRECTIONS, ("chips", *METRICS)):
        of = {tuple(r[d] for d in DIRECTIONS): r[metric] for r in chosen if r["workload"] == workload}
        k = DIRECTIONS.index(direction)
        without = {key: (*key[:k], False, *key[k + 1 :]) for key in of if key[k]}
        pairs = [(of[key], of[other]) for key, other in without.items() if other in of]
        out.append((workload, direction, metric, float(np.exp(np.mean([np.log(a / b) for a, b in pairs])))))
    return out


def main() -> None:
    data = rows()
    found = effects(data)
    table = Table(title="With over without, geometric mean over the other directions")
    for name in ("Workload", "Direction", "Chips", *METRICS):
        table.add_column(name)
    for workload, direction in itertools.product(WORKLOADS, DIRECTIONS):
        ratios = [r for w, d, _, r in found if (w, d) == (workload, direction)]
        table.add_row(workload, direction, *(f"{r:.2f}" for r in ratios))
    Console().print(table)
    manifest = {
        "chip": CHIP,
        "sites": SITES,
        "plan": PLAN,
        "workloads": {name: {"model": model, **traffic} for name, (model, traffic, *_) in WORKLOADS.items()},
        "efficiency": "ideal",
        "units": dict(zip(METRICS, UNITS, strict=True)) | {"temperature": "K"},
        "effects": [dict(zip(("workload", "direction", "metric", "ratio"), e, strict=True)) for e in found],
        "versions": {name: importlib.metadata.version(name) for name in ("jaxcost", "jax", "numpy")},
        "python": platform.python_version(),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "04_directions.json").write_text(json.dumps({"manifest": manifest, "rows": data}, indent=1) + "\n")


if __name__ == "__main__":
    main()
