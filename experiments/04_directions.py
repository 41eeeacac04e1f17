"""Flash, near-memory compute, 3D stacking and a low-latency fabric, each alone and in every combination.

A full factorial of 16 chips, evaluated for a dense model, a mixture of experts and a long shared context. Every chip
has eight memory sites at its edge, and every design uses the fewest chips that hold the model and cache:

    flash   four of eight HBM stacks are replaced by High Bandwidth Flash; all eight if main memory is stacked
    near    engines in the base dies of every stack at the edge
    stacked main memory is DRAM bonded on the logic, and heat leaves through it
    quick   the scale-up fabric has sub-microsecond latency

The effect of a direction is the ratio of a metric with it to the metric without it, as the geometric mean over the
other directions. The interaction of two directions is the factor by which one changes the effect of the other.
"""

import itertools
import math

import jaxcost as jc
from study import SUB_MICROSECOND, Case, Study, Table, evaluate, run

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
BITS = {"weight_bits": 8, "expert_bits": 8, "kv_bits": 8}
NEAR_SLACK = 0.1  # engines save energy: an operator may take a tenth longer there
# Estimates: a cold plate's 40 K mm^2/W (20-60), and 5 K mm^2/W (2-10) a layer of thinned DRAM with its bond.
COOLING = jc.Cooling(area=1600e-6, sink=40e-6, layer=5e-6, layers=8, limit=378.0)
STACKED_ENERGY = (
    0.5  # of the way between memory and engines: the bond replaces the edge; 1/3 to 1/2 published
)
METRICS = {
    "tpot": "s",
    "tokens_per_second": "token/s",
    "joules_per_token": "J/token",
    "usd_per_mtok": "USD/Mtok",
    "gco2e_per_mtok": "g/Mtok",
}
COMPARED = ("chips", *METRICS)


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
        chip = jc.replace(chip, cooling=COOLING, stacking=jc.Stacking(energy=STACKED_ENERGY))
    made = jc.replace(made, chip=jc.replace(chip, memory=memory, price=chip.price + bought))
    if on["flash"]:
        made = jc.add_tier(made, "hbf", "hbf", stacks=SITES - hbm_sites)
    if on["near"]:
        if hbm_sites:
            made = jc.add_near(made, "memory", "hbm4-base-die", stacks=hbm_sites)
            # The engines reach what the stacks at hand deliver, not what those of the next generation do.
            made = jc.replace_at(made, "chip.memory.near.bandwidth", memory.bandwidth)
        made = jc.add_near(made, "hbf", "hbf-base-die") if on["flash"] else made
    if on["quick"]:
        link = jc.replace(made.fabric.scale_up, **SUB_MICROSECOND)
        made = jc.replace(made, fabric=jc.replace(made.fabric, scale_up=link))
    return jc.replace_at(made, "fabric.domain", float(CHIPS[-1]))


def plan_of(workload: str, chips: int) -> jc.Plan:
    _, _, widest, further = WORKLOADS[workload]
    tp = min(chips, widest)
    degrees = {"tp": float(tp), further: float(chips // tp)}
    ep = float(chips if workload == "experts" else 1)
    return jc.Plan(**degrees, ep=ep, placement=jc.Placement(near_slack=NEAR_SLACK), **BITS)


def factorial(workloads: tuple[str, ...]) -> list[dict]:
    """Evaluate all designs on all numbers of chips; keep of each the fewest that hold it."""
    designs = [dict(zip(DIRECTIONS, on, strict=True)) for on in itertools.product((False, True), repeat=4)]
    systems = [system(on) for on in designs]
    models = {w: jc.load_model(WORKLOADS[w][0]) for w in workloads}
    grid = list(itertools.product(workloads, range(len(designs)), CHIPS))
    report = evaluate(
        [
            Case(
                jc.replace(systems[d], chips=float(c)),
                models[w],
                jc.Traffic(**WORKLOADS[w][1]),
                plan_of(w, c),
            )
            for w, d, c in grid
        ]
    )
    decode = report.decode
    near = sum(row.near for row in decode.rows) / decode.total
    messages = sum(row.network for row in decode.rows) / decode.total
    kept: dict[tuple[str, int], dict] = {}
    for i, (workload, design, chips) in enumerate(grid):
        holds = min(report.margins.memory[i], report.margins.hbf[i]) >= 0
        if holds and (workload, design) not in kept:
            kept[workload, design] = {
                "workload": workload,
                **designs[design],
                "chips": chips,
                **{name: float(getattr(report, name)[i]) for name in METRICS},
                "temperature": float(report.thermal.decode.temperature[i]),
                "near_share": float(near[i]),
                "message_share": float(messages[i]),
                "flash_share": float(report.tiers.hbf.used[i] / report.memory.used[i]),
            }
    return list(kept.values())


def effects(rows: list[dict], workload: str) -> list[dict]:
    """Effects of each direction and of each two: exp(2^n mean(sign log metric)) for n directions."""
    of = [r for r in rows if r["workload"] == workload]
    assert len(of) == 2 ** len(DIRECTIONS)
    found = []
    for names in (*itertools.combinations(DIRECTIONS, 1), *itertools.combinations(DIRECTIONS, 2)):
        signs = [math.prod(1 if r[d] else -1 for d in names) for r in of]
        row: dict = {"workload": workload, "directions": " and ".join(names)}
        for metric in COMPARED:
            mean = sum(s * math.log(r[metric]) for s, r in zip(signs, of, strict=True)) / len(of)
            row[metric] = math.exp(2 ** len(names) * mean)
        found.append(row)
    return found


def study(small: bool) -> Study:
    workloads = tuple(WORKLOADS)[:1] if small else tuple(WORKLOADS)
    rows = factorial(workloads)
    found = [row for workload in workloads for row in effects(rows, workload)]
    units = {"workload": "", **dict.fromkeys(DIRECTIONS, ""), "chips": "1", **METRICS}
    units |= {"temperature": "K", "near_share": "1", "message_share": "1", "flash_share": "1"}
    ratios = {"workload": "", "directions": "", **dict.fromkeys(COMPARED, "1")}
    told = [
        {
            "workload": w,
            "model": m,
            "batch": t["batch"],
            "context": t["prompt"] + t["output"] + t.get("retrieved", 0),
        }
        for w, (m, t, *_) in WORKLOADS.items()
        if w in workloads
    ]
    return Study(
        title="Flash, engines near memory, 3D stacking and a fast fabric: a full factorial",
        findings=tuple(sentence for workload in workloads for sentence in findings(workload, rows, found)),
        assumptions=(
            f"{CHIP} with {SITES} sites at its edge, 8 bits throughout, every peak reached; all chips in one domain.",
            "Every design on the fewest chips, a power of two, that hold model and cache: less capacity is more chips.",
            f"Engines near memory take an operator that is up to {NEAR_SLACK:.0%} slower there.",
            "Engines stand below stacks at the edge: main memory that is stacked on the logic has none.",
            "Bonded DRAM: 40 K mm2/W of cooling and 5 K mm2/W a layer, estimates, and half the energy of the way.",
        ),
        sources=(
            "arXiv:2601.05047, its four directions",
            f"configs/chips/{CHIP}.yaml",
            "configs/memories/hbf.yaml",
            "configs/memories/3d-dram.yaml",
            "configs/near/hbm4-base-die.yaml",
            "configs/near/hbf-base-die.yaml",
        ),
        tables={
            "designs": Table("one set of directions on the fewest chips that hold it", units, rows),
            "effects": Table("with over without, or the change of that by another direction", ratios, found),
            "workloads": Table(
                "what is served",
                {"workload": "", "model": "", "batch": "1", "context": "token"},
                told,
            ),
        },
    )


def findings(workload: str, rows: list[dict], found: list[dict]) -> tuple[str, ...]:
    """What each direction does to a workload, which set is best, and which two directions help or hinder most."""
    of = {r["directions"]: r for r in found if r["workload"] == workload}
    alone = [of[d] for d in DIRECTIONS]
    designs = [r for r in rows if r["workload"] == workload]

    def best(metric: str) -> str:
        row = min(designs, key=lambda r: r[metric])
        names = [d for d in DIRECTIONS if row[d]]
        return f"{' + '.join(names) or 'none of them'} on {row['chips']} chip{'s' * (row['chips'] > 1)}"

    pair = max((r for r in of.values() if r not in alone), key=lambda r: abs(math.log(r["usd_per_mtok"])))
    return (
        f"{workload}: flash takes {alone[0]['chips']:.2f} times the chips and {alone[0]['tpot']:.1f} times the time a "
        f"token, at {alone[0]['usd_per_mtok']:.2f} times the cost; engines near memory take "
        f"{alone[1]['joules_per_token']:.2f} times the energy; stacking {alone[2]['tpot']:.2f} times the time and "
        f"{alone[2]['usd_per_mtok']:.2f} times the cost; a fast fabric {alone[3]['tpot']:.2f} times the time.",
        f"{workload}: fastest is {best('tpot')}, of least energy {best('joules_per_token')}, cheapest "
        f"{best('usd_per_mtok')}; the two that change each other's cost most are {pair['directions']}, by "
        f"{pair['usd_per_mtok']:.2f} times.",
    )


if __name__ == "__main__":
    run(study)
