"""Time per token of 13B to 70B models on 1 to 64 chips: the effect of more chips and of a faster fabric.

Only tensor parallelism is used, in one scale-up domain, and every peak rate is reached. The two fabrics differ in
latency alone.
"""

import itertools

import jaxcost as jc
from study import SUB_MICROSECOND, Case, Study, Table, evaluate, run

CHIP = "h100-sxm"
MODELS = ("llama-2-13b", "qwen3-32b", "llama-3.1-70b")
CHIPS, MANY_CHIPS = (1, 2, 4, 8), (1, 2, 4, 8, 16, 32, 64)
FEW = 4
BATCHES = (1, 32)
PROMPT, OUTPUT = 2048, 512
UNITS = {
    "model": "",
    "fabric": "",
    "message": "s",
    "batch": "1",
    "chips": "1",
    "tpot": "s",
    "speedup": "1",
    "message_share": "1",
    "joules_per_token": "J/token",
    "usd_per_mtok": "USD/Mtok",
    "fits": "",
}


def empty_message(system: jc.System) -> float:
    """Time of a message of no bytes between two chips."""
    link, memory = system.fabric.scale_up, system.chip.memory
    landing = (1 - link.sram_landing) * 2 * memory.latency
    return float(link.launch + link.overhead + 2 * link.latency + landing)


def on(system: jc.System, chips: int) -> jc.System:
    """So many chips of it, all in one domain."""
    return jc.replace(system, chips=chips, fabric=jc.replace(system.fabric, domain=chips))


def study(small: bool) -> Study:
    models = MODELS[-1:] if small else MODELS
    many = (1, FEW, 64) if small else MANY_CHIPS
    today = jc.load_system(CHIP)
    link = jc.replace(today.fabric.scale_up, **SUB_MICROSECOND)
    fabrics = {"today": today, "fast": jc.replace(today, fabric=jc.replace(today.fabric, scale_up=link))}
    grid = [
        (model, fabric, batch, chips)
        for model, fabric, batch in itertools.product(models, fabrics, BATCHES)
        for chips in (many if model == MODELS[-1] else CHIPS)
    ]
    loaded = {name: jc.load_model(name) for name in models}
    report = evaluate(
        [
            Case(
                on(fabrics[f], c), loaded[m], jc.Traffic(prompt=PROMPT, output=OUTPUT, batch=b), jc.Plan(tp=c)
            )
            for m, f, b, c in grid
        ]
    )
    messages = sum(row.network for row in report.decode.rows) / report.decode.total
    rows, alone = [], {}
    for i, (model, fabric, batch, chips) in enumerate(grid):
        tpot = float(report.tpot[i])
        alone[model, fabric, batch] = tpot if chips == 1 else alone[model, fabric, batch]
        row = {
            "model": model,
            "fabric": fabric,
            "message": empty_message(fabrics[fabric]),
            "batch": batch,
            "chips": chips,
            "tpot": tpot,
            "speedup": alone[model, fabric, batch] / tpot,
            "message_share": float(messages[i]),
            "joules_per_token": float(report.joules_per_token[i]),
            "usd_per_mtok": float(report.usd_per_mtok[i]),
            "fits": bool(report.margins.memory[i] >= 0),
        }
        rows.append(row)
    return Study(
        title=f"Tensor parallelism over 1 to {max(many)} chips, with two fabrics",
        findings=findings(rows, models, max(many)),
        assumptions=(
            f"16 bits, prompt {PROMPT:,} and output {OUTPUT}, {CHIP} with every peak reached; links of the same bandwidth.",
            f"A message of no bytes takes {empty_message(today) * 1e6:.1f} us on today's fabric, "
            f"{empty_message(fabrics['fast']) * 1e6:.1f} us on the fast one (an assumption, not a product).",
            "Times where a model does not fit are those that its bandwidth would give.",
        ),
        sources=(f"configs/chips/{CHIP}.yaml", "configs/fabrics/nvlink4.yaml"),
        tables={"designs": Table("one model, fabric, batch and number of chips", UNITS, rows)},
    )


def findings(rows: list[dict], models: tuple[str, ...], most: int) -> tuple[str, ...]:
    """What four chips give, what the fabric adds, and where the two part."""
    of = {(r["model"], r["fabric"], r["batch"], r["chips"]): r for r in rows}
    said = []
    for model in models:
        slow, fast = of[model, "today", 1, FEW], of[model, "fast", 1, FEW]
        one = of[model, "today", 1, 1]
        does = "which holds it" if one["fits"] else "which does not hold it"
        said.append(
            f"{model} at batch 1: {FEW} chips make a token {slow['speedup']:.2f} times as fast as one, {does}: "
            f"{one['tpot'] * 1e3:.1f} ms become {slow['tpot'] * 1e3:.1f} ms, and {fast['tpot'] * 1e3:.1f} ms "
            f"({fast['speedup']:.2f} times) with the fast fabric; at batch {BATCHES[-1]} "
            f"{of[model, 'today', BATCHES[-1], FEW]['speedup']:.2f} and "
            f"{of[model, 'fast', BATCHES[-1], FEW]['speedup']:.2f} times."
        )
    large = models[-1]
    one, few = of[large, "today", 1, 1], of[large, "today", 1, FEW]
    slow, fast = of[large, "today", 1, most], of[large, "fast", 1, most]
    said += [
        f"Those {FEW} chips take {few['joules_per_token'] / one['joules_per_token']:.2f} times the energy and "
        f"{few['usd_per_mtok'] / one['usd_per_mtok']:.2f} times the cost a token of {large} at batch 1.",
        f"On {most} chips messages are {slow['message_share']:.0%} of a token of {large} at batch 1 with today's fabric "
        f"and {fast['message_share']:.0%} with the fast one: {slow['speedup']:.1f} and {fast['speedup']:.1f} times one chip. "
        "What else is lost are key and value heads, copied once there are more chips than heads.",
    ]
    return tuple(said)


if __name__ == "__main__":
    run(study)
