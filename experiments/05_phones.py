"""Flash, engines in memory and 3D stacking in a phone: which models fit, speed of an answer, and battery energy.

Every variant is capped at the power that the case can dissipate continuously:

    today     LPDDR5X, part of which the system and applications reserve
    flash     an eighth of a stack of High Bandwidth Flash, next to the LPDDR5X, holds the weights
    in memory engines in the LPDDR chips
    stacked   as many gigabytes of DRAM bonded on the logic instead of LPDDR

A fast fabric does not apply, because a phone has one chip.
"""

import itertools

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

PHONES = ("iphone-16-pro", "galaxy-s25-ultra")
ARMS = ("today", "flash", "in memory", "stacked")
MODELS = ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "qwen3-30b-a3b")
TRAFFIC = jc.Traffic(prompt=512, output=256, batch=1)
# An operator may take a tenth longer in memory: it saves energy there.
PLAN = jc.Plan(weight_bits=4.5, expert_bits=4.5, kv_bits=8, placement=jc.Placement(near_slack=0.1))
FLASH_STACK = 0.125  # of a datacenter's stack of 512 GB: an assumption, none is published for phones
STACKED_ENERGY = 0.5  # of the way between memory and engines: the bond is short; 1/3 to 1/2 published
UNITS = {
    "phone": "",
    "arm": "",
    "model": "",
    "fits": "",
    "ttft": "s",
    "tpot": "s",
    "tokens_per_second": "token/s",
    "joules_per_token": "J/token",
    "battery_share": "1",
    "gco2e_per_query": "g",
    "prefill_power": "W",
    "decode_power": "W",
    "decode_clock": "1",
    "waiting_share": "1",
}


def system(phone: str, arm: str) -> jc.System:
    """A phone with one of the directions."""
    made = jc.load_system(phone, efficiency="typical")
    if arm == "flash":
        made = jc.add_tier(made, "hbf", "hbf", stacks=FLASH_STACK)
    if arm == "in memory":
        # The engine's numbers are those of a gigabyte.
        made = jc.add_near(made, "memory", "pim-ai-mobile", stacks=float(made.chip.memory.capacity) / 1e9)
    if arm == "stacked":
        dram = jc.load_memory("3d-dram", stacks=1)
        share = made.chip.memory.capacity / dram.capacity
        memory = jc.replace(
            made.chip.memory,
            bandwidth=dram.bandwidth * share,
            energy_per_byte=dram.energy_per_byte,
            carbon_per_byte=dram.carbon_per_byte,
        )
        stacking = jc.Stacking(energy=STACKED_ENERGY)
        made = jc.replace(made, chip=jc.replace(made.chip, memory=memory, stacking=stacking))
    return made


def study(small: bool) -> Study:
    phones = PHONES[-1:] if small else PHONES
    prices, models = jc.load_prices("phone"), {name: jc.load_model(name) for name in MODELS}
    grid = list(itertools.product(phones, ARMS, MODELS))
    systems = {(p, a): system(p, a) for p, a in itertools.product(phones, ARMS)}
    report = evaluate([Case(systems[p, a], models[m], TRAFFIC, PLAN, prices) for p, a, m in grid])
    rows = [
        {
            "phone": phone,
            "arm": arm,
            "model": model,
            "fits": bool(min(report.margins.memory[i], report.margins.hbf[i]) >= 0),
            "ttft": float(report.ttft[i]),
            "tpot": float(report.tpot[i]),
            "tokens_per_second": 1 / float(report.tpot[i]),
            "joules_per_token": float(report.joules_per_token[i]),
            "battery_share": float(report.battery_share[i]),
            "gco2e_per_query": float(report.gco2e_per_query[i]),
            "prefill_power": float(report.power.prefill[i]),
            "decode_power": float(report.power.decode[i]),
            "decode_clock": float(report.power.decode_clock[i]),
            "waiting_share": float(report.decode.capped[i] / report.decode.total[i]),
        }
        for i, (phone, arm, model) in enumerate(grid)
    ]
    told = [
        {
            "phone": p,
            "power_cap": float(s.chip.power_cap),
            "memory": float(s.chip.memory.capacity),
            "reserved": float(s.chip.reserved),
            "bandwidth": float(s.chip.memory.bandwidth),
            "battery": float(s.battery),
        }
        for p in phones
        for s in [systems[p, "today"]]
    ]
    about = {
        "phone": "",
        "power_cap": "W",
        "memory": "B",
        "reserved": "B",
        "bandwidth": "B/s",
        "battery": "J",
    }
    return Study(
        title="Flash, engines in memory and stacking in a phone",
        findings=tuple(sentence for phone in phones for sentence in findings(phone, rows)),
        assumptions=(
            f"{PLAN.weight_bits} bits a weight, {PLAN.kv_bits} a cached element, {TRAFFIC.prompt} tokens in, "
            f"{TRAFFIC.output} out, one request; typical efficiency.",
            "Power is capped at what the case can dissipate continuously; a burst may draw more for some seconds.",
            f"{FLASH_STACK:g} of a stack of flash at its share of bandwidth and power; no such part is announced.",
        ),
        sources=(
            *(f"configs/systems/{phone}.yaml" for phone in phones),
            "configs/memories/hbf.yaml",
            "configs/near/pim-ai-mobile.yaml (arXiv:2411.17309)",
            "configs/memories/3d-dram.yaml",
            "configs/prices/phone.yaml",
        ),
        tables={
            "answers": Table("one phone, direction and model; times also where it does not fit", UNITS, rows),
            "phones": Table("what a phone has today", about, told),
        },
    )


def findings(phone: str, rows: list[dict]) -> tuple[str, ...]:
    """What fits by flash alone, and how each direction does on the largest model that fits today."""
    of = {(r["arm"], r["model"]): r for r in rows if r["phone"] == phone}
    fitting = {arm: [m for m in MODELS if of[arm, m]["fits"]] for arm in ARMS}
    gained = [m for m in fitting["flash"] if m not in fitting["today"]]
    speeds = " and ".join(f"{of['flash', m]['tokens_per_second']:.0f}" for m in gained)
    model = fitting["today"][-1]
    today, flash, inside, stacked = (of[arm, model] for arm in ARMS)
    return (
        f"{phone}: flash makes {' and '.join(gained) or 'nothing more'} fit, at {speeds} tokens "
        f"a second; on {model}, which "
        f"fits today, it is {flash['tokens_per_second'] / today['tokens_per_second']:.2f} times as fast, for "
        f"{flash['waiting_share']:.0%} of a token then waits for the power cap.",
        f"{phone}, {model}: {today['tokens_per_second']:.0f} tokens a second today, "
        f"{inside['tokens_per_second']:.0f} with engines in memory "
        f"({inside['tokens_per_second'] / today['tokens_per_second']:.1f} times) and {stacked['tokens_per_second']:.0f} "
        f"stacked ({stacked['tokens_per_second'] / today['tokens_per_second']:.1f} times); an answer takes "
        f"{inside['battery_share'] / today['battery_share']:.2f} and "
        f"{stacked['battery_share'] / today['battery_share']:.2f} times the battery, "
        f"{today['battery_share']:.3%} of it today.",
    )


if __name__ == "__main__":
    run(study)
