"""Memory prices and their effect on the cost of a million tokens: price history, and designs by year of purchase.

One mixture of experts is served within a latency target by chips that are priced by their parts: with HBM alone, with
some HBM sites replaced by High Bandwidth Flash, or with LPDDR and fewer engines. Only the memory price changes, by
the trends in the catalogue, with and without the price increase of 2026. Cost is linear in a price, so its elasticity
is the difference of two evaluations.
"""

import itertools
import math

import jaxcost as jc
from jaxcost.edge.catalog.loaders import load_part
from jaxcost.edge.catalog.silicon import YEAR
from jaxcost.edge.commands.cost_options import CATALOGUE_YEAR, with_year
from jaxcost.edge.io.quantity import parse_quantity
from study import Case, Study, Table, evaluate, run

GB = 1e9
TRENDFORCE = "trendforce.com and its reports, 2024-2026"
BILLS = "siliconanalysts.com, June 2026: share of the bill of materials over capacity"
CATALOGUE = "configs/memories"
# Family, memory, year, USD/GB, its low and high (None: a point as reported), source.
HISTORY = (
    ("HBM", "any", 2023.8, 7.0, None, None, "LLMCompass cost model: an assumption"),
    ("HBM", "HBM2e", 2023.5, 9.0, 7.0, 15.0, f"estimate from {TRENDFORCE}"),
    ("HBM", "HBM3", 2023.5, 12.0, 10.0, 16.0, f"estimate from {TRENDFORCE}"),
    ("DDR", "DDR5", 2023.8, 2.4, None, None, "LLMCompass cost model: spot price"),
    ("DDR", "DDR5", 2026.5, 11.0, 8.0, 15.0, f"estimate from {TRENDFORCE}; mid of the interval"),
    ("flash", "SSD", 2023.5, 0.065, 0.05, 0.08, f"estimate from {TRENDFORCE}; mid of the interval"),
    ("flash", "SSD", 2026.5, 0.18, 0.12, 0.25, f"estimate from {TRENDFORCE}; mid of the interval"),
)
# Entries of the catalogue: family, name, year that the price is of.
LISTED = (
    ("HBM", "hbm3", 2025),
    ("HBM", "hbm3e", 2025),
    ("HBM", "hbm4", 2026),
    ("DDR", "ddr4-3200", 2025),
    ("DDR", "ddr5-6400", 2025),
    ("LPDDR", "lpddr5x-8533", 2025),
    ("flash", "nvme-ssd", 2025),
    ("HBF", "hbf", 2025),
)
# Chip, bill of materials in USD, share of it that is HBM.
BOMS = (("h200-sxm", 4250, 0.35), ("b200", 6400, 0.45), ("mi325x", 3800, 0.58), ("mi355x", 8000, 0.54))
# arXiv:2601.05047: a price over an earlier one, and a catalogue entry of that family.
PAPER = (("HBM, USD/GB", 2023, 2025, 1.35, "hbm3e"), ("DDR4, USD/GB", 2022, 2025, 0.54, "ddr4-3200"))
# The jump: 2026 over 2025, low, mid, high. DDR5 8-15 USD/GB after 4, LPDDR taken as DDR; SSDs 0.12-0.25 after 0.08, and
# flash stacks as they; HBM3E contracts a fifth dearer in a quarter: the trend alone to two such quarters.
JUMP = {"HBM": (1.16, 1.2, 1.44), "LPDDR": (2.0, 2.75, 3.75), "HBF": (1.5, 2.3, 3.1)}
YEARS = (2023, 2024, 2025, 2026, 2027, 2028)

BASE, MODEL = "b200-x8", "kimi-k2"
TARGET = 0.05  # s per token
SITES, CHANNELS = 8, 16  # stacks of the chip; LPDDR channels of 64 bits
# An LPDDR chip has a seventh of the bandwidth: a quarter of the engines, and watts to match. Estimates.
ENGINES, LPDDR_TDP, LPDDR_IDLE = 0.25, 350.0, 60.0  # TDP 250 to 450 W, idle 40 to 80 W
CHIPS, BATCHES = (
    (2, 4, 8, 16, 32, 64),
    tuple(2**k for k in range(5, 15)),
)  # all chips within one scale-up domain
FLASH_SITES = (1, 2, 4)  # of the eight, whichever is cheapest
PLAN = {"weight_bits": 8, "expert_bits": 8, "kv_bits": 8, "activation_bits": 8, "chunk": 1024}
TRAFFIC = {"prompt": 4096, "output": 1024}
# Design: its memories as (tier, family, catalogue entry), and whether the vendor's margin of the base chip is paid.
DESIGNS = {
    "HBM, bought": ((("memory", "HBM", "hbm3e"),), True),
    "HBM, at cost": ((("memory", "HBM", "hbm3e"),), False),
    "HBM + HBF, at cost": ((("memory", "HBM", "hbm3e"), ("hbf", "HBF", "hbf")), False),
    "LPDDR, at cost": ((("memory", "LPDDR", "lpddr5x-8533"),), False),
}
PARTS = {
    "memory": ("memory",),
    "dies and package": ("dies", "package"),
    "vendor's margin": ("margin",),
    "servers, network, racks": ("hosts", "network", "racks"),
    "upkeep, building, interest": ("maintenance", "datacenter", "interest"),
    "electricity, water": ("electricity", "water"),
}


def interval(name: str) -> tuple[float, float, float]:
    """Low, mid and high price of a memory in the catalogue, USD/B."""
    price = load_part("memories", name)[0].price
    low, mid, high = (parse_quantity(str(x), "USD/B") for x in (price.low, price.value, price.high))
    return low, mid, high


def history_rows() -> list[dict]:
    points = [(f, m, y, *(x and x / GB for x in prices), s) for f, m, y, *prices, s in HISTORY]
    for family, name, year in LISTED:
        low, mid, high = interval(name)
        points.append((family, name, year, mid, low, high, f"{CATALOGUE}/{name}.yaml"))
    for name, bill, share in BOMS:
        memory = jc.load_chip(name).memory
        made = float(memory.capacity + memory.withheld)
        points.append(("HBM", f"of {name}", 2026.5, bill * share / made, None, None, BILLS))
    names = ("family", "memory", "year", "price", "low", "high", "source")
    return [dict(zip(names, p, strict=True)) for p in sorted(points, key=lambda p: (p[0], p[2], p[1]))]


def trend_rows() -> list[dict]:
    """Yearly factors: the paper's, and the catalogue's of the same memory."""
    rows = []
    for what, first, last, times, name in PAPER:
        ours = math.exp(float(jc.load_memory(name).price_trend) * YEAR)
        rows.append(
            {
                "price": what,
                "first": first,
                "last": last,
                "times": times,
                "per_year": times ** (1 / (last - first)),
                "catalogue_per_year": ours,
            }
        )
    return rows


def built(name: str, flash: int) -> jc.System:
    """A design whose price follows from its parts; `flash` of its sites hold flash, where it has any."""
    memories, bought = DESIGNS[name]
    base = jc.load_system(BASE, efficiency="typical")
    made = base
    if any(tier == "hbf" for tier, *_ in memories):
        left = {
            n: getattr(base.chip.memory, n) * (1 - flash / SITES) for n in ("capacity", "bandwidth", "stacks")
        }
        made = jc.replace(made, chip=jc.replace(made.chip, memory=jc.replace(made.chip.memory, **left)))
        made = jc.add_tier(made, "hbf", "hbf", stacks=flash)
    if memories[0][1] == "LPDDR":
        made = jc.add_tier(made, "memory", memories[0][2], stacks=CHANNELS)
        fewer = {
            n: getattr(base.chip.compute, n) * ENGINES for n in ("flops_16", "flops_8", "flops_6", "flops_4")
        }
        compute = jc.replace(made.chip.compute, **fewer)
        made = jc.replace(
            made, chip=jc.replace(made.chip, compute=compute, tdp=LPDDR_TDP, idle_power=LPDDR_IDLE)
        )
    made = jc.replace_at(jc.by_parts(made, like=base), "fabric.domain", float(max(CHIPS)))
    return made if bought else jc.replace_at(made, "chip.package.margin", 0.0)


def priced(name: str, system: jc.System, factors: dict[str, float]) -> jc.System:
    """The same with every memory's price times a factor of its family."""
    for tier, family, _ in DESIGNS[name][0]:
        path = f"chip.{tier}.price_per_byte"
        price = getattr(system.chip, tier).price_per_byte
        system = jc.replace_at(system, path, float(price) * factors[family])
    return system


def chosen(chips: tuple[int, ...]) -> dict[str, Case]:
    """Per design the chips, flash and batch that cost least at the catalogue's prices, within the target."""
    model = jc.load_model(MODEL)
    named = [
        (
            name,
            Case(
                jc.replace(system, chips=float(n)),
                model,
                jc.Traffic(**TRAFFIC, batch=batch),
                jc.Plan(dp=n, ep=n, **PLAN),
            ),
        )
        for name, (memories, _) in DESIGNS.items()
        for flash in (FLASH_SITES if len(memories) > 1 else (0,))
        for system in (built(name, flash),)
        for n, batch in itertools.product(chips, BATCHES)
        if batch >= n
    ]
    report = evaluate([case for _, case in named])
    best: dict[str, int] = {}
    for i, (name, _) in enumerate(named):
        holds = min(report.margins.memory[i], report.margins.hbf[i]) >= 0 and report.tpot[i] <= TARGET
        if holds and (name not in best or report.usd_per_mtok[i] < report.usd_per_mtok[best[name]]):
            best[name] = i
    return {name: named[i][1] for name, i in best.items()}


def at(case: Case, name: str, year: float, factors: dict[str, float]) -> Case:
    """A design bought in a year, its memories' prices times factors."""
    prices = with_year(case.prices, year)
    return Case(priced(name, case.system, factors), case.model, case.traffic, case.plan, prices)


def factors_of(scenario: str, year: int, bound: str) -> dict[str, float]:
    """Factors on top of the trend: none, or from 2026 on what the jump has beyond it; low and high prices likewise."""
    entries = {family: entry for memories, _ in DESIGNS.values() for _, family, entry in memories}
    which = ("low", "price", "high").index(bound)
    out = {}
    for family, entry in entries.items():
        prices = interval(entry)
        out[family] = prices[which] / prices[1]
        if scenario == "jump of 2026" and year >= 2026:
            trend = math.exp(float(jc.load_memory(entry).price_trend) * YEAR)
            # The interval of the jump is taken in place of that of the price: they are not independent.
            out[family] = JUMP[family][which] / trend
    return out


def year_rows(designs: dict[str, Case], years: tuple[int, ...]) -> list[dict]:
    bounds = ("price", "low", "high")
    grid = list(itertools.product(designs, ("trend", "jump of 2026"), years))
    cases = [at(designs[n], n, y, factors_of(s, y, b)) for n, s, y in grid for b in bounds]
    usd = evaluate(cases).usd_per_mtok
    rows = []
    for i, (name, scenario, year) in enumerate(grid):
        main = cases[i * 3]
        row = {"design": name, "scenario": scenario, "year": year}
        for tier in ("memory", "hbf"):
            memory = getattr(main.system.chip, tier)
            grown = math.exp(float(memory.price_trend) * float(main.prices.since))
            row[f"{tier}_price"] = float(memory.price_per_byte) * grown if memory.capacity > 0 else None
        rows.append(row | dict(zip(("usd_per_mtok", "low", "high"), usd[i * 3 : i * 3 + 3], strict=True)))
    return rows


def design_rows(designs: dict[str, Case]) -> list[dict]:
    """What each design is, what a token costs by part, and by how much that follows memory's price."""
    ones = {family: 1.0 for family in JUMP}
    changes = [ones, dict.fromkeys(JUMP, 2.0), *(ones | {family: 2.0} for family in JUMP)]
    cases = [at(case, name, CATALOGUE_YEAR, change) for name, case in designs.items() for change in changes]
    report = evaluate(cases)
    rows = []
    for k, (name, case) in enumerate(designs.items()):
        i = k * len(changes)
        usd = report.usd_per_mtok[i : i + len(changes)]
        slopes = [float(x / usd[0] - 1) for x in usd[1:]]
        row = {
            "design": name,
            "chips": float(case.system.chips),
            "flash_sites": float(case.system.chip.hbf.stacks),
            "batch": float(case.traffic.batch),
            "tpot": float(report.tpot[i]),
            "memory_left": float(report.margins.memory[i]),
            "chip_price": float(report.build.price[i]),
            "chip_memory": float(report.build.memory[i]),
            "usd_per_mtok": float(usd[0]),
            "elasticity": slopes[0],
            **{f"elasticity_{family}": slope for family, slope in zip(JUMP, slopes[1:], strict=True)},
        }
        for part, of in PARTS.items():
            row[part] = float(sum(getattr(report.usd, leaf)[i] for leaf in of))
        rows.append(row)
    return rows


def findings(
    trend: list[dict], designs: list[dict], years: list[dict], history: list[dict]
) -> tuple[str, ...]:
    usd = {(r["design"], r["scenario"], r["year"]): r["usd_per_mtok"] for r in years}
    first, last = years[0]["year"], years[-1]["year"]
    by = {r["design"]: r for r in designs}
    names = list(by)
    bills = [r["price"] * GB for r in history if r["memory"].startswith("of ")]
    moved = "; ".join(
        f"{n} {usd[n, 'trend', first]:.3f} in {first} to {usd[n, 'trend', last]:.3f} in {last}, with the jump "
        f"{usd[n, 'jump of 2026', last]:.3f}"
        for n in names
    )
    plain = by["HBM, at cost"]
    lines = [
        "; ".join(
            f"{r['price']} went x{r['times']:.2f} in {r['first']}-{r['last']}, x{r['per_year']:.2f} a year (catalogue "
            f"x{r['catalogue_per_year']:.2f})"
            for r in trend
        )
        + f". Bills of materials of 2026 put HBM at {min(bills):.1f} to {max(bills):.1f} USD/GB.",
        "Memory's price moves a token's by its share of the cost: one per cent more of all memory prices makes a million "
        "tokens " + "; ".join(f"{by[n]['elasticity']:.2f}% more expensive ({n})" for n in names) + ".",
        f"USD per million output tokens: {moved}.",
    ]
    for name in names[2:]:
        other = by[name]
        family = DESIGNS[name][0][-1][1]
        slope = other[f"elasticity_{family}"] * other["usd_per_mtok"]
        even = 1 + (plain["usd_per_mtok"] - other["usd_per_mtok"]) / slope
        price = interval(DESIGNS[name][0][-1][2])[1] * GB
        how = (
            f"both cost the same at {even * price:.2f} USD/GB of {family}, {even:.1f} times the catalogue's"
            if even > 0
            else f"no price of {family} makes both the same"
        )
        lines.append(
            f"{name}: {other['usd_per_mtok']:.3f} USD/Mtok by {other['chips']:.0f} chips of {other['chip_price']:,.0f} USD, "
            f"where HBM at cost takes {plain['usd_per_mtok']:.3f} by {plain['chips']:.0f} of {plain['chip_price']:,.0f}; {how}. "
            f"At its cheapest batch, {other['batch']:,.0f}, {other['memory_left']:.0%} of main memory is left, of HBM alone "
            f"{plain['memory_left']:.0%}: what is scarce there is not capacity."
        )
    return tuple(lines)


def study(small: bool) -> Study:
    designs = chosen((16, 32) if small else CHIPS)
    history, trend = history_rows(), trend_rows()
    design, years = design_rows(designs), year_rows(designs, YEARS[::5] if small else YEARS)
    return Study(
        title="Memory prices and the cost of a million tokens",
        findings=findings(trend, design, years, history),
        assumptions=(
            f"{MODEL} at 8 bits, prompt {TRAFFIC['prompt']}, output {TRAFFIC['output']}, prefill in chunks of {PLAN['chunk']} "
            f"among decode steps, at most {TARGET * 1e3:.0f} ms a token, typical efficiency; per design the chips (of "
            f"{', '.join(map(str, CHIPS))}, data-parallel attention, expert-parallel) and the power of two of requests that "
            f"cost least at {CATALOGUE_YEAR:.0f}'s prices.",
            f"Chips by their parts, with the engines of a B200: HBM at {SITES} sites, or flash at some of them, or {CHANNELS} "
            f"channels of LPDDR5X, {ENGINES:g} of the engines and {LPDDR_TDP:.0f} W. At cost: no vendor's margin. "
            "Flash holds weights, the cache stays in HBM.",
            "By the trend every memory keeps its catalogue's yearly factor; the jump sets 2026 anew and the trend goes on from "
            "there. Only memory prices move, design, traffic and all other prices stay; low and high are those of the "
            "memories' prices alone, all low or all high.",
            "Flash stacks are not sold yet: their price is a vendor's target, and a jump like that of SSDs is assumed.",
        ),
        sources=(
            CATALOGUE,
            "arXiv:2601.05047",
            "PrincetonUniversity/LLMCompass cost_model.py",
            TRENDFORCE,
            BILLS,
        ),
        tables={
            "history": Table(
                "a price of a memory in a year; low and high where it is an estimate",
                {
                    "family": "",
                    "memory": "",
                    "year": "1",
                    "price": "USD/B",
                    "low": "USD/B",
                    "high": "USD/B",
                    "source": "",
                },
                history,
            ),
            "trend": Table(
                "a published price over an earlier one, and the catalogue's yearly factor",
                {name: "" if name == "price" else "1" for name in trend[0]},
                trend,
            ),
            "designs": Table(
                f"a design at the prices of {CATALOGUE_YEAR:.0f}: cost by part, and its elasticity to memory prices",
                dict.fromkeys(design[0], "1")
                | {
                    "design": "",
                    "tpot": "s",
                    "chip_price": "USD",
                    "chip_memory": "USD",
                    "usd_per_mtok": "USD/Mtok",
                }
                | dict.fromkeys(PARTS, "USD/Mtok"),
                design,
            ),
            "years": Table(
                "a design bought in a year: memory prices, and cost with its low and high by them",
                {
                    "design": "",
                    "scenario": "",
                    "year": "1",
                    **dict.fromkeys(("memory_price", "hbf_price"), "USD/B"),
                    **dict.fromkeys(("usd_per_mtok", "low", "high"), "USD/Mtok"),
                },
                years,
            ),
        },
    )


if __name__ == "__main__":
    run(study)
