"""Processing in memory (PIM) against processing near memory (PNM), on the eight criteria of arXiv:2601.05047 Table 4.

PIM has engines within the DRAM dies, PNM next to them. Each is evaluated with its own memory: energy per byte,
bandwidth per watt, power, capacity lost, price of the rest, and number and cost of shards. Then a 70B model decodes
on as many stacks as hold it, with and without the engines.
"""

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

CHIP, MODEL = "b200", "llama-3.1-70b"
TRAFFIC = {"prompt": 2048, "output": 512}
BATCHES = (1, 4, 16)
SHARDED_BYTES = 140e9  # a 70B model at 16 bits
MARGIN = 1.15  # over weights and cache, for buffers of the prefill
# Engine, the memory it belongs to, PIM or PNM: as the files in configs/near/ say.
ENGINES = {
    "hbm-pim": ("hbm2", "PIM"),
    "attacc-bank": ("hbm3", "PIM"),
    "attacc-bank-group": ("hbm3", "PIM"),
    "gddr6-aim": ("gddr6", "PIM"),
    "pim-ai-dimm": ("ddr5-6400", "PIM"),
    "upmem-dimm": ("ddr4-3200", "PIM"),
    "hbm4-base-die": ("hbm4", "PNM"),
    "cxl-pnm": ("cxl-pnm", "PNM"),
    "structera-a": ("cxl-dram", "PNM"),
}
SMALL = ("attacc-bank", "upmem-dimm", "hbm4-base-die", "structera-a")
# What the paper says of each criterion: PIM, PNM, which is better (Table 4 as transcribed).
CRITERIA = (
    ("data-movement power", "very low (on chip)", "low (off chip, near)", "PIM"),
    ("bandwidth per watt", "very high, 5x-10x standard", "high, 2x-5x standard", "PIM"),
    ("memory-logic coupling", "one die", "separate dies", "PNM"),
    ("logic PPA", "slow, power-hungry logic in DRAM process", "logic process", "PNM"),
    ("memory density", "reduced", "unaffected", "PNM"),
    ("commodity price per GB", "no", "yes", "PNM"),
    ("power and thermal budget", "tight", "loose", "PNM"),
    ("software sharding", "to banks, e.g. 32-64 MB", "e.g. 16-32 GB", "PNM"),
)


def built(engine: str, *, near: bool, shard: bool = True) -> jc.System:
    """One chip with as many stacks, modules or cards as hold the model with the engines' logic in them."""
    memory, _ = ENGINES[engine]
    one, logic = jc.load_memory(memory), jc.load_near(engine)
    cache = max(BATCHES) * sum(TRAFFIC.values()) * float(jc.kv_bytes_per_token(jc.load_model(MODEL)))
    held = 2 * float(jc.parameter_count(jc.load_model(MODEL))[0]) + cache
    usable = float(one.capacity) * float(logic.density)
    count = -(-held * MARGIN // usable)
    base = jc.load_system(CHIP)
    made = jc.add_tier(base, "memory", memory, stacks=count)
    if near:
        made = jc.add_near(made, "memory", engine)
        if not shard:
            made = jc.replace_at(made, "chip.memory.near.shard", 0.0)
    return jc.by_parts(made, like=base)


def engines(names: list[str]) -> Table:
    """Each engine by what its file says, against the memory it belongs to."""
    rows = []
    for name in names:
        memory_name, kind = ENGINES[name]
        memory, near = jc.load_memory(memory_name), jc.load_near(name)
        bandwidth, flops = float(near.bandwidth), float(near.flops)
        byte, flop = float(near.energy_per_byte), float(near.energy_per_flop)
        standard = float(memory.energy_per_byte)
        usable = float(memory.capacity) * float(near.density)
        shard = float(near.shard) or usable
        rate = min(bandwidth, flops)  # a FLOP a byte: weights of 16 bits, one request
        rows.append(
            {
                "engine": name,
                "kind": kind,
                "memory": memory_name,
                "byte": byte,
                "times_less": (standard + float(jc.load_chip(CHIP).on_chip_energy_per_byte)) / byte,
                "per_watt": 1 / byte,
                "times_per_watt": standard / byte,
                "times_bandwidth": bandwidth / float(memory.bandwidth),
                "flops_per_watt": 1 / flop,
                "flops_per_byte": flops / bandwidth,
                "density": near.density,
                "price": float(memory.price_per_byte) / float(near.density),
                "times_price": 1 / float(near.density),
                "power": rate * (byte + flop) + float(near.idle_power),
                "times_power": (rate * (byte + flop)) / (float(memory.bandwidth) * standard),
                "shard": shard,
                "shards": SHARDED_BYTES / shard,
            }
        )
    units = {
        "engine": "",
        "kind": "",
        "memory": "",
        "byte": "J/B",
        "per_watt": "B/s/W",
        "flops_per_watt": "FLOP/s/W",
        "flops_per_byte": "FLOP/B",
        "price": "USD/B",
        "power": "W",
        "shard": "B",
    }
    units = {column: units.get(column, "1") for column in rows[0]}
    return Table("one stack, module or card with its engines", units, rows)


def decoding(names: list[str], batches: tuple[int, ...]) -> Table:
    """A 70B model decoding with the engines, without them, and with engines that reach all memory in one shard."""
    model, keys, cases = jc.load_model(MODEL), [], []
    for name in names:
        systems = built(name, near=False), built(name, near=True), built(name, near=True, shard=False)
        for batch in batches:
            keys.append((name, batch, float(systems[0].chip.memory.stacks)))
            traffic = jc.Traffic(batch=batch, **TRAFFIC)
            placement = jc.Placement(near_slack=0.1)
            cases += [Case(made, model, traffic, jc.Plan(placement=placement)) for made in systems]
    report = evaluate(cases)
    rate, joules = report.decode_tokens_per_second, report.power.decode * report.decode.total
    near = sum(row.near for row in report.decode.rows)
    rows = []
    for i, (name, batch, count) in enumerate(keys):
        plain, there, whole = 3 * i, 3 * i + 1, 3 * i + 2
        rows.append(
            {
                "engine": name,
                "kind": ENGINES[name][1],
                "batch": batch,
                "stacks": count,
                "standard_rate": rate[plain],
                "rate": rate[there],
                "standard_joules": joules[plain] / batch,
                "joules": joules[there] / batch,
                "speed_up": rate[there] / rate[plain],
                "energy_ratio": joules[there] / joules[plain],
                "near_share": near[there] / report.decode.total[there],
                "unsharded_rate": rate[whole],
                "shard_cost": 1 - rate[there] / rate[whole] if near[there] > 0 else 0.0,
                "fits": bool(report.margins.memory[there] >= 0),
            }
        )
    units = {
        "engine": "",
        "kind": "",
        "standard_rate": "token/s",
        "rate": "token/s",
        "standard_joules": "J/token",
        "joules": "J/token",
        "unsharded_rate": "token/s",
        "fits": "",
    }
    units = {column: units.get(column, "1") for column in rows[0]}
    return Table(
        "a 70B model decoding on one chip and as many stacks as hold it, engines against none", units, rows
    )


def span(rows: list[dict], column: str, kind: str) -> tuple[float, float]:
    """Least and most of a column."""
    values = [float(r[column]) for r in rows if r["kind"] == kind]
    return min(values), max(values)


def criteria(made: Table) -> Table:
    """The paper's words on each criterion beside what can be computed."""
    computed = {
        "data-movement power": (
            "times_less",
            "energy of a byte to a chip's engines over that on the spot",
            True,
        ),
        "bandwidth per watt": ("times_per_watt", "device bandwidth per watt over that of the memory", True),
        "logic PPA": ("flops_per_watt", "FLOP/s per watt", True),
        "memory density": ("density", "share of the capacity that is left", True),
        "commodity price per GB": ("times_price", "price of a usable byte over that of the memory", False),
        "power and thermal budget": (
            "flops_per_byte",
            "FLOP that the engines have for a byte they read",
            True,
        ),
        "software sharding": ("shard", "bytes that one unit reaches", True),
    }
    rows = []
    for name, pim, pnm, winner in CRITERIA:
        column, measure, larger = computed.get(name, (None, "the paper's words alone", True))
        low, high = (
            ((None, None), (None, None))
            if column is None
            else (span(made.rows, column, k) for k in ("PIM", "PNM"))
        )
        found = ""
        if column is not None:
            middle = [median([float(r[column]) for r in made.rows if r["kind"] == k]) for k in ("PIM", "PNM")]
            found = "PIM" if (middle[0] > middle[1]) == larger else "PNM"
        rows.append(
            {
                "criterion": name,
                "paper_pim": pim,
                "paper_pnm": pnm,
                "paper": winner,
                "measure": measure,
                "pim_low": low[0],
                "pim_high": low[1],
                "pnm_low": high[0],
                "pnm_high": high[1],
                "computed": found,
                "agrees": found in ("", winner),
            }
        )
    units = {column: "1" if column.endswith(("low", "high")) else "" for column in rows[0]}
    return Table(
        "a criterion of Table 4: the paper's words, and least and most of the engines here", units, rows
    )


def median(values: list[float]) -> float:
    """The middle value, the mean of the two in the middle where they are even."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def study(small: bool) -> Study:
    names = list(SMALL) if small else list(ENGINES)
    made = engines(names)
    decode = decoding(names, BATCHES[::2] if small else BATCHES)
    marks = criteria(made)
    counted = [r for r in marks.rows if r["computed"]]
    by = {r["engine"]: r for r in made.rows}
    at = {(r["engine"], r["batch"]): r for r in decode.rows}
    last = max(r["batch"] for r in decode.rows)
    pim, pnm = "attacc-bank", "hbm4-base-die"
    one = [r for r in decode.rows if r["batch"] == 1]
    gains = {k: span(one, "speed_up", k) for k in ("PIM", "PNM")}
    saves = {k: span(one, "energy_ratio", k) for k in ("PIM", "PNM")}
    watts = {k: span(made.rows, "times_per_watt", k) for k in ("PIM", "PNM")}
    tight = {k: span(made.rows, "flops_per_byte", k) for k in ("PIM", "PNM")}
    draw = {k: span(made.rows, "times_power", k) for k in ("PIM", "PNM")}
    middle = {
        k: median([float(r["times_per_watt"]) for r in made.rows if r["kind"] == k]) for k in ("PIM", "PNM")
    }
    drawn = {
        k: median([float(r["times_power"]) for r in made.rows if r["kind"] == k]) for k in ("PIM", "PNM")
    }
    by_draw = min(drawn, key=lambda k: drawn[k])
    shards = {k: span(made.rows, "shards", k) for k in ("PIM", "PNM")}
    worst = max(one, key=lambda r: r["shard_cost"])
    off = [r["criterion"] for r in counted if not r["agrees"]]
    return Study(
        title="Processing in memory against near memory",
        findings=(
            f"Of the eight criteria {len(counted)} can be computed; {sum(r['agrees'] for r in counted)} of them fall as the paper says"
            + (f", not so {' and '.join(off)}" if off else "")
            + ".",
            f"Bandwidth per watt of the device is {watts['PIM'][0]:.1f} to {watts['PIM'][1]:.1f} times that of its memory for PIM, "
            f"in the middle {middle['PIM']:.1f} (paper: 5 to 10), and {watts['PNM'][0]:.1f} to {watts['PNM'][1]:.1f} times for PNM, "
            f"in the middle {middle['PNM']:.1f} (paper: 2 to 5).",
            f"PIM engines have {tight['PIM'][0]:.2g} to {tight['PIM'][1]:.2g} FLOP for a byte they read and PNM engines {tight['PNM'][0]:.2g} "
            f"to {tight['PNM'][1]:.2g}; reading at full bandwidth the former draw {draw['PIM'][0]:.1f} to {draw['PIM'][1]:.1f} times what their "
            f"memory does, the latter {draw['PNM'][0]:.1f} to {draw['PNM'][1]:.1f}; by that power {by_draw} would be "
            "the better, by the arithmetic that the power budget affords the other.",
            f"At batch 1 a 70B model decodes {gains['PIM'][0]:.2f} to {gains['PIM'][1]:.1f} times as fast with PIM as without, and "
            f"{gains['PNM'][0]:.2f} to {gains['PNM'][1]:.2f} times with PNM; a token takes {saves['PIM'][0]:.2f} to "
            f"{saves['PIM'][1]:.2f} and {saves['PNM'][0]:.2f} to {saves['PNM'][1]:.2f} of the energy.",
            f"{pim}: {at[pim, 1]['rate']:.0f} tokens/s against {at[pim, 1]['standard_rate']:.0f} on {at[pim, 1]['stacks']:.0f} stacks "
            f"of HBM3, {at[pim, 1]['joules']:.2f} against {at[pim, 1]['standard_joules']:.2f} J a token. {pnm}: "
            f"{at[pnm, 1]['rate']:.0f} against {at[pnm, 1]['standard_rate']:.0f} tokens/s on {at[pnm, 1]['stacks']:.0f} stacks of "
            f"HBM4, {at[pnm, 1]['joules']:.2f} against {at[pnm, 1]['standard_joules']:.2f} J: a base die saves energy and no time.",
            f"At batch {last} {pim} is {at[pim, last]['speed_up']:.2f} times as fast as no engines: it has "
            f"{by[pim]['flops_per_byte']:.0f} FLOP a byte, and 16-bit weights need one FLOP per byte and request.",
            f"{SHARDED_BYTES / 1e9:.0f} GB of weights fall into {shards['PIM'][0]:,.0f} to {shards['PIM'][1]:,.0f} PIM shards and "
            f"{shards['PNM'][0]:.1f} to {shards['PNM'][1]:.1f} PNM shards. Padding and partial sums of shards cost at most "
            f"{worst['shard_cost']:.1%} of the speed at batch 1 ({worst['engine']}).",
        ),
        assumptions=(
            f"{CHIP} logic; as many stacks, modules or cards as hold {MODEL} in 16 bits and {max(BATCHES)} requests, though no real "
            "package has enough edge for all of them; every peak reached.",
            f"{TRAFFIC['prompt']} tokens in, {TRAFFIC['output']} out; energy of a decode step, idle power of {CHIP} included.",
            "An operator runs near memory where that is at most a tenth slower; weights and attention may, element-wise work stays.",
            "The better kind on a computed criterion is decided by the medians over its engines.",
            "Energies of PIM units but AttAcc's, and of logic processes, are estimates; an engine of the catalogue is a product, "
            "a simulation or a proposal as its file says.",
            "The result for the power budget depends on its measure. The measure is the FLOPs of the engines per byte; published engines have as many as their budget allowed.",
            "'memory-logic coupling' is quoted, not computed; of logic PPA only FLOP/s per watt is, from estimates; the "
            "cores of structera-a are general-purpose ones.",
        ),
        sources=(
            "arXiv:2601.05047 Table 4, as transcribed",
            "configs/near/*.yaml",
            "configs/memories/*.yaml",
        ),
        tables={"criteria": marks, "engines": made, "decoding": decode},
    )


if __name__ == "__main__":
    run(study)
