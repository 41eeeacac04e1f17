"""High Bandwidth Flash with HBM4, against HBM4 alone and LPDDR5: speed, price, power and life for a large model.

A chip has eight sites for memory stacks: eight of HBM4, or four of HBM4 and four of flash, or four of HBM4 and as
many LPDDR5 modules as have the capacity of one flash stack. The model has the shape of DeepSeek-V3. The share of it
that a token reads is varied from one routed expert per layer to all of them. Flash holds weights, and nothing that a
request writes.
"""

import itertools
import math

import numpy as np

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

CHIP, MODEL, SITES, DOMAIN = "b200", "deepseek-v3", 8, 64
BITS = {"weight_bits": 8, "expert_bits": 8, "kv_bits": 8}
TRAFFIC = {"prompt": 1024, "output": 512}
# A tier beside four stacks of HBM4: name, memory, how many. 32 modules of 16 GB hold what a stack of flash does.
BESIDE = {"HBM4": None, "HBM4 and flash": ("hbf", "hbf", 4), "HBM4 and LPDDR5": ("host", "lpddr5-6400", 32)}
TOP_K = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SIZES = (1, 4)  # times the routed experts
BATCHES = (1, 16)
CHIPS = (1, 2, 4, 8, 16)
FEWEST, CHEAPEST, QUICK = GOALS = ("fewest chips", "cheapest token", "cheapest within 10 ms")
TARGET = 0.01  # s a token
PRICES = (0.0, 3e-9)  # USD/B, between which cost is a straight line
LATENCIES = (1e-6, 15e-6, 40e-6)  # s: low, mid and high of configs/memories/hbf.yaml
DAY = 86400.0
YEAR = 365.25 * DAY
# Program and erase cycles of cells of one bit, of the mid value, of three bits (configs/memories/hbf.yaml).
CYCLES = (1e5, 2e4, 3e3)
CACHE_MODEL = "llama-3.1-70b"
CACHE_RATE = 2000.0  # tokens a second of a 70B model whose cache goes to one stack
STACKS = {
    "HBM4": "hbm4-6400",
    "flash": "hbf",
    "LPDDR5": "lpddr5-6400",
    "DDR5": "ddr5-6400",
    "flash card": "flash-card",
}


def system(design: str, price: float | None = None, latency: float | None = None) -> jc.System:
    """A chip with eight sites, its price that of its parts."""
    base = jc.load_system(CHIP)
    other = BESIDE[design]
    made = jc.add_tier(base, "memory", "hbm4-6400", stacks=SITES if other is None else SITES // 2)
    if other is not None:
        tier, memory, count = other
        made = jc.add_tier(made, tier, memory, stacks=count)
    if price is not None:
        made = jc.replace_at(made, "chip.hbf.price_per_byte", price)
        made = jc.replace_at(made, "chip.hbf.latency", latency)
    made = jc.replace_at(made, "fabric.domain", float(DOMAIN))
    return jc.by_parts(made, like=base)


def mixture(size: float, top_k: float) -> jc.Model:
    """A model with more experts and more or fewer of them at work."""
    model = jc.load_model(MODEL)
    model = jc.replace_at(model, "experts.experts", model.experts.experts * size)
    return jc.replace_at(model, "experts.top_k", float(top_k) * size)


def parameters(model: jc.Model) -> tuple[float, float]:
    """All weights, and those that a token uses."""
    total, active = jc.parameter_count(model)
    return float(total), float(active)


class Grid:
    """Systems by models by batches by chips, evaluated at once."""

    def __init__(self, systems: dict, sizes: tuple, batches: tuple, shares: tuple) -> None:
        self.models = {(s, k): mixture(s, k) for s in sizes for k in shares}
        keys = list(itertools.product(systems, sizes, batches, shares, CHIPS))
        self.at = {key: i for i, key in enumerate(keys)}
        self.report = evaluate(
            [
                Case(
                    jc.replace(systems[name], chips=float(n)),
                    self.models[s, k],
                    jc.Traffic(batch=b, **TRAFFIC),
                    jc.Plan(tp=n, ep=n, **BITS),
                )
                for name, s, b, k, n in keys
            ]
        )
        m = self.report.margins
        self.fits = np.minimum(np.minimum(m.memory, m.hbf), m.host) >= 0

    def best(self, goal: str, *key) -> tuple[int | None, int | None]:
        """Chips and index of the number of chips that serves a goal best, None where none does."""
        found = [(n, self.at[(*key, n)]) for n in CHIPS]
        found = [
            (n, i) for n, i in found if self.fits[i] and (goal != QUICK or self.report.tpot[i] <= TARGET)
        ]
        if goal == FEWEST:
            return found[0] if found else (None, None)
        return min(found, key=lambda f: self.report.usd_per_mtok[f[1]], default=(None, None))

    def purchase(self, chips: int, i: int) -> float:
        """Dollars for all packages."""
        return chips * float(self.report.build.price[i])


METRICS = {
    "tpot": "s",
    "tokens_per_second": "token/s",
    "usd_per_mtok": "USD/Mtok",
    "purchase": "USD",
    "power": "W",
    "joules_per_token": "J/token",
}


def designs(small: bool) -> Table:
    """Every design with as many chips as serve a goal best."""
    shares, sizes, batches = (TOP_K[::4], SIZES[:1], BATCHES[:1]) if small else (TOP_K, SIZES, BATCHES)
    grid = Grid({name: system(name) for name in BESIDE}, sizes, batches, shares)
    report, rows = grid.report, []
    for goal, s, b, k, design in itertools.product(GOALS, sizes, batches, shares, BESIDE):
        total, active = parameters(grid.models[s, k])
        n, i = grid.best(goal, design, s, b, k)
        values = dict.fromkeys(METRICS)
        if i is not None:
            values = {
                "tpot": report.tpot[i],
                "tokens_per_second": report.decode_tokens_per_second[i],
                "usd_per_mtok": report.usd_per_mtok[i],
                "purchase": grid.purchase(n, i),
                "power": n * report.power.decode[i],
                "joules_per_token": report.joules_per_token[i],
            }
        told = {
            "goal": goal,
            "parameters": total,
            "batch": b,
            "active": active / total,
            "design": design,
            "chips": n,
        }
        rows.append(told | values)
    units = {
        "goal": "",
        "parameters": "1",
        "batch": "1",
        "active": "1",
        "design": "",
        "chips": "1",
        **METRICS,
    }
    return Table("a design with as many chips as serve a goal best", units, rows)


def break_even(small: bool) -> Table:
    """Price of flash at which it costs what HBM4 alone does: by the smallest system bought, and by the token."""
    shares, sizes, latencies = (TOP_K[::4], SIZES[:1], LATENCIES[1:2]) if small else (TOP_K, SIZES, LATENCIES)
    flash = {(p, x): system("HBM4 and flash", p, x) for p in PRICES for x in latencies}
    grid = Grid(flash | {"HBM4": system("HBM4")}, sizes, (1,), shares)
    rows = []
    for goal, s, k, latency in itertools.product((FEWEST, CHEAPEST), sizes, shares, latencies):
        total, active = parameters(grid.models[s, k])

        def cost(key, goal=goal, s=s, k=k) -> float:
            n, i = grid.best(goal, key, s, 1, k)
            return grid.purchase(n, i) if goal == FEWEST else float(grid.report.usd_per_mtok[i])

        low, high = (cost((p, latency)) for p in PRICES)
        price = (cost("HBM4") - low) / (high - low) * PRICES[1]
        rows.append(
            {"goal": goal, "parameters": total, "latency": latency, "active": active / total, "price": price}
        )
    units = {"goal": "", "parameters": "1", "latency": "s", "active": "1", "price": "USD/B"}
    return Table(
        "price of flash at batch 1 for which the smallest system, or a token, costs what it does with HBM4 alone; "
        "negative where even free flash is dearer",
        units,
        rows,
    )


def stacks() -> Table:
    """Memory alone, from the catalogue's constants: what holds DeepSeek-V3 in 8 bits, and reads what a token needs."""
    total, active = parameters(jc.load_model(MODEL))
    rows = []
    for name, kind in STACKS.items():
        memory = jc.load_memory(kind)
        capacity, bandwidth = float(memory.capacity), float(memory.bandwidth)
        watts = bandwidth * float(memory.energy_per_byte)
        count = math.ceil(total / capacity)
        rows.append(
            {
                "memory": name,
                "capacity": capacity,
                "bandwidth": bandwidth,
                "power": watts,
                "sweep": capacity / bandwidth,
                "count": count,
                "price": count * capacity * float(memory.price_per_byte),
                "token": active / (count * bandwidth),
                "joules_per_token": active * float(memory.energy_per_byte),
                "power_all": count * watts,
                "bandwidth_per_usd": bandwidth / capacity / float(memory.price_per_byte),
            }
        )
    units = {
        "memory": "",
        "capacity": "B",
        "bandwidth": "B/s",
        "power": "W",
        "sweep": "s",
        "count": "1",
        "price": "USD",
        "token": "s",
        "joules_per_token": "J/token",
        "power_all": "W",
        "bandwidth_per_usd": "B/s/USD",
    }
    return Table(f"stacks, modules or cards that hold {MODEL} in 8 bits, at full bandwidth", units, rows)


def lifetimes(small: bool) -> Table:
    """Years of service until the cells are worn, by what is written to flash."""
    made = jc.replace(system("HBM4 and flash"), chips=1.0)
    hbf = jc.Split(hbf=1.0)
    kept = jc.Placement(automatic=0.0, weights=hbf)
    cache = jc.Placement(automatic=0.0, weights=hbf, request_kv=hbf)
    written = {
        "weights, once a day": (MODEL, jc.Placement(), 1 / DAY),
        "weights, once an hour": (MODEL, jc.Placement(), 24 / DAY),
        "cache of every request": (CACHE_MODEL, cache, 0.0),
        "none of its cache": (CACHE_MODEL, kept, 0.0),
    }
    cycles = CYCLES[1:2] if small else CYCLES
    grid = list(itertools.product(written, cycles))
    cases = []
    for what, count in grid:
        model, placement, updates = written[what]
        traffic = jc.Traffic(batch=64, weight_updates=updates, **TRAFFIC)
        worn = jc.replace_at(made, "chip.hbf.endurance", count)
        cases.append(Case(worn, jc.load_model(model), traffic, jc.Plan(placement=placement, **BITS)))
    report = evaluate(cases)
    tier = made.chip.hbf
    rows = []
    for i, (what, count) in enumerate(grid):
        rate = float(report.tiers.hbf.written[i])
        life = float(tier.capacity) * count / (float(tier.write_amplification) * rate) if rate else math.inf
        rows.append(
            {
                "written": what,
                "cycles": count,
                "rate": rate,
                "life": life,
                "endurance": report.margins.endurance[i],
                "tpot": report.tpot[i],
                "tokens_per_second": report.tokens_per_second[i],
            }
        )
    units = {
        "written": "",
        "cycles": "1",
        "rate": "B/s",
        "life": "s",
        "endurance": "1",
        "tpot": "s",
        "tokens_per_second": "token/s",
    }
    return Table("four stacks of flash on one chip: written a second, and life in service", units, rows)


def study(small: bool) -> Study:
    chips, even, alone, worn = designs(small), break_even(small), stacks(), lifetimes(small)
    by = {r["memory"]: r for r in alone.rows}
    hbm, flash = by["HBM4"], by["flash"]
    total, active = parameters(jc.load_model(MODEL))
    share = active / total

    def of(goal: str, design: str, batch: int = 1) -> list[dict]:
        key = {"goal": goal, "design": design, "batch": batch, "parameters": total}
        return [r for r in chips.rows if all(r[k] == v for k, v in key.items())]

    def near(rows: list[dict]) -> dict:
        return min(rows, key=lambda r: abs(r["active"] - share))

    plain, mixed = (near(of(FEWEST, design)) for design in ("HBM4", "HBM4 and flash"))
    ratio = [
        (b["usd_per_mtok"] / a["usd_per_mtok"], a["active"])
        for a, b in zip(of(CHEAPEST, "HBM4"), of(CHEAPEST, "HBM4 and flash"), strict=True)
    ]
    price = float(jc.load_memory("hbf").price_per_byte)
    held = [r["price"] * 1e9 for r in even.rows if r["goal"] == FEWEST]
    token = [r for r in even.rows if r["goal"] == CHEAPEST]
    won = [r for r in token if r["price"] >= price]
    quick = [r for r in won if r["latency"] == min(x["latency"] for x in token)]
    life = {(r["written"], r["cycles"]): r["life"] / YEAR for r in worn.rows}
    mid = CYCLES[1]
    hbf = jc.load_memory("hbf")
    each = float(jc.kv_bytes_per_token(jc.load_model(CACHE_MODEL)))
    hand = [float(hbf.capacity) * c / (CACHE_RATE * each) / YEAR for c in (CYCLES[0], CYCLES[-1])]
    buffer = 2 * BESIDE["HBM4 and flash"][2] * float(hbf.bandwidth * hbf.latency)
    return Study(
        title="Flash with HBM4, against HBM4 alone and LPDDR5",
        findings=(
            f"{MODEL} in 8 bits takes {flash['count']} stacks of flash or {hbm['count']} of HBM4. A token that reads "
            f"{active / 1e9:.0f} GB then takes {flash['token'] * 1e3:.1f} ms from {flash['price']:,.0f} USD and "
            f"{flash['power_all']:.0f} W of flash, {hbm['token'] * 1e3:.1f} ms from {hbm['price']:,.0f} USD and "
            f"{hbm['power_all']:.0f} W of HBM4.",
            f"A full stack of flash is read in {flash['sweep'] * 1e3:.0f} ms, one of HBM4 in {hbm['sweep'] * 1e3:.0f} ms: a dense "
            f"model that fills it decodes at {1 / flash['sweep']:.1f} or {1 / hbm['sweep']:.0f} tokens/s. Flash of which a token "
            f"reads {hbm['sweep'] / flash['sweep']:.1%} is as fast as HBM4 of which it reads all.",
            f"For the same bandwidth flash draws {flash['power'] / hbm['power']:.1f} times the power of HBM4: a device of flash lowers "
            "neither the power nor the time of a read, only the number of devices that hold a model.",
            f"At {share:.1%} active and batch 1, {mixed['chips']} chip with flash holds what takes {plain['chips']} with HBM4 alone: "
            f"{mixed['purchase']:,.0f} against {plain['purchase']:,.0f} USD and {mixed['power']:,.0f} against {plain['power']:,.0f} W, "
            f"at {mixed['tokens_per_second']:.0f} against {plain['tokens_per_second']:.0f} tokens/s.",
            f"Per token of that model, flash saves little or nothing: {min(ratio)[0]:.2f} to {max(ratio)[0]:.2f} times the cost of HBM4 alone at "
            f"batch 1, worst at {max(ratio)[1]:.0%} active. Both read at the same bandwidth a stack, and each layer of experts waits "
            "for the latency of flash.",
            f"To hold a model with the least purchase, flash may cost up to {min(held):.1f} to {max(held):.1f} USD/GB; the assumed price is "
            f"{price * 1e9:.1f}. For a token no more expensive than with HBM4 alone, it would have to cost less than assumed in "
            f"{len(token) - len(won)} of {len(token)} cases; at {min(r['latency'] for r in token) * 1e6:.0f} us of latency flash wins "
            f"in {len(quick)} of {sum(r['latency'] == min(x['latency'] for x in token) for r in token)}.",
            f"Weights written anew once a day wear out cells of {mid:,.0f} cycles in {life['weights, once a day', mid]:,.0f} years, the "
            f"cache of every request of a 70B model in {life['cache of every request', mid]:.1f} (four stacks).",
            f"By hand, without write amplification, {CACHE_RATE:,.0f} tokens/s of a 70B cache in 16 bits wear out one stack in "
            f"{hand[0]:.1f} years with cells of {CYCLES[0]:,.0f} cycles and in {hand[1] * 365.25:.0f} days with cells of {CYCLES[-1]:,.0f}.",
            f"To stream four stacks in full takes {buffer / 1e6:.0f} MB of on-chip buffer at {float(hbf.latency) * 1e6:.0f} us, "
            f"against {float(jc.load_chip(CHIP).package.cache) / 1e6:.0f} MB of cache on the chip; here the buffer is assumed to exist.",
        ),
        assumptions=(
            f"{CHIP} logic with memory of eight sites; the price of a chip follows its memory; everything else is as published.",
            f"{MODEL}-like models of 1 and 4 times its routed experts, weights and cache of 8 bits, {TRAFFIC['prompt']} tokens in and "
            f"{TRAFFIC['output']} out, tensor and expert parallel over 1, 2, 4, 8 or 16 chips; every peak reached.",
            "Weights are spread over HBM4 and the second tier in proportion to bandwidth where there is room, both read at once; "
            "cache and buffers in HBM4 alone.",
            "32 LPDDR5 modules on one chip are assumed to be possible, with the capacity and bandwidth of a stack of flash.",
            "Price, latency, energy and endurance of flash are estimates, with low and high in configs/memories/hbf.yaml.",
            "Lifetimes are of continuous service, wear spread evenly.",
        ),
        sources=("arXiv:2601.05047 Table 3", "configs/memories/hbf.yaml", "configs/memories/hbm4-6400.yaml"),
        tables={"designs": chips, "break_even": even, "stacks": alone, "lifetimes": worn},
    )


if __name__ == "__main__":
    run(study)
