"""Serving as users see it: the front of speed and throughput by chip, prefix caches on flash, and slow links at p99.

Three questions on replays of seeded traces and on steady states. What can a chip serve at which speed for each user?
What is a prefix cache worth to agents by the tier that holds it: HBM taken from the KV pool, host memory, High
Bandwidth Flash, or a drive? And how far do hops, narrow links and late ranks move the 99th percentile, on all replicas
or on one of eight?
"""

import dataclasses
import functools

import numpy as np

import jaxcost as jc
from designed import built
from plans import SERVICES
from study import Study, Table, run

# The front. The co-designed chips were designed for this model and this time per token.
FRONT_MODEL = "deepseek-v3"
CHIPS = ("h100-sxm", "h200-sxm", "b200", "mi355x", "tpu-v7", "rubin-vr200")
EIGHT = 8
DESIGNED = {"decode chip, 1000 W": "decode-chip-1000w", "decode pod, 64 chips": "fabric-latency"}
EFFICIENCY = "typical"
KINDS = {"decoding alone": 0.99, "whole requests": 0.0}  # share of the prompt that is computed elsewhere
SPEEDS = (20.0, 50.0, 100.0)  # tokens/s of a user at which chips are compared
# Prefix caches.
MODEL, CHIP, BITS = "llama-3.1-70b", "b200", {"weight_bits": 8.0, "kv_bits": 8.0, "activation_bits": 8.0}
AGENTS = {
    "turns": 12.0, "system_prompt": 8000, "new_tokens": 3000.0, "output": 300.0, "think": 180.0, "block_tokens": 512,
    "seed": 24,
}  # fmt: skip
SESSION_RATES = (0.01, 0.02, 0.035, 0.055, 0.08)  # sessions a second
AT = 0.035  # where capacities are compared
TTFT, TPOT = 10.0, 0.05  # s, limits at p99
FIRST = 10e9  # B of HBM in front of every slower tier
FAST = (0.0, 10e9, 20e9, 40e9, 60e9)  # B of HBM
SLOW = (128e9, 256e9, 512e9, 1024e9, 2048e9, 4096e9)  # B of the slower tier
PCIE = 64e9  # B/s, of configs/fabrics/pcie5.yaml, between host and chip
# Memories of the catalogue; one that is not on the package is read through PCIe.
TIERS = {"HBM": None, "host memory": "ddr5-6400", "HBF": "hbf", "SSD": "nvme-ssd"}
YEAR = 365.25 * 86400.0
# Slow links: tensor parallelism in every replica, eight replicas.
REPLICAS = 8
FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0)
CHANGES = {
    "hop latency": ("fabric.scale_up.latency", lambda x, factor: x * factor),
    "bandwidth": ("fabric.scale_up.bandwidth", lambda x, factor: x / factor),
    "jitter": ("fabric.jitter", lambda x, factor: 1e-6 * (factor - 1.0)),
}
LINKS = {
    "rate": 70.0,
    "burstiness": 4.0,
    "prompt": 2000,
    "prompt_cv": 1.0,
    "output": 300,
    "output_cv": 1.0,
    "seed": 24,
}

load_model = functools.cache(jc.load_model)


def engine(**changes: float):
    """Return the limits of vLLM on the chip."""
    return jc.load_engine("vllm", CHIP, **changes)


def fronts(small: bool) -> list[dict]:
    """Return the points of the front of every chip, of one pool or of separate ones."""
    systems = {name: (jc.load_system(f"{name}-x{EIGHT}", efficiency=EFFICIENCY), True) for name in CHIPS}
    if small:
        systems = {name: systems[name] for name in CHIPS[1:2]}
    else:
        target = float(SERVICES[FRONT_MODEL].traffic.tpot_target)
        for title, name in DESIGNED.items():
            made = built(name, EFFICIENCY, target)
            systems[title] = (jc.replace(made.load(), chips=made.chips), False)
    plan = jc.Plan(**SERVICES[FRONT_MODEL].bits)
    rows = []
    for kind, hit in list(KINDS.items())[-1:] if small else KINDS.items():
        traffic = jc.Traffic(prompt=4096, output=1024, prefix_hit=hit, ttft_target=5.0)
        for name, (system, catalogue) in systems.items():
            front = jc.serving_front(system, load_model(FRONT_MODEL), traffic, plan, split=hit == 0)
            for i in front.front:
                degrees = dict(zip(("tp", "pp", "cp", "dp", "ep"), front.degrees[i], strict=True))
                rows.append(
                    {
                        "kind": kind,
                        "chip": name,
                        "catalogue": catalogue,
                        "user": front.tokens_per_second_per_user[i],
                        "throughput": front.tokens_per_second_per_chip[i],
                        "ttft": front.ttft[i],
                        "batch": front.batch[i],
                        **{k: degrees[k] for k in ("tp", "pp", "dp", "ep")},
                        "split": bool(front.is_split[i]),
                    }
                )
    return rows


@dataclasses.dataclass(frozen=True)
class Cache:
    """A tier with so many bytes of prefix cache, behind HBM."""

    tier: str
    capacity: float  # B
    hbm: float  # B of HBM taken from the KV pool
    load: float  # B/s
    price: float  # USD
    write: float  # B/s, 0 where it does not limit
    life: float  # B that may be written, 0 without limit


def caches(small: bool) -> list[Cache]:
    """Return the caches that are compared; the first is none."""
    found = [Cache("HBM", size, size, 0.0, 0.0, 0.0, 0.0) for size in (FAST[:3:2] if small else FAST)]
    for tier, name in TIERS.items():
        if name is None:
            continue
        of = jc.load_memory(name, stacks=1)
        for size in SLOW[2::2] if small else SLOW:
            stacks = size / float(of.capacity)
            devices = stacks if tier == "host memory" else np.ceil(stacks)
            reads = float(of.bandwidth) * devices
            found.append(
                Cache(
                    tier,
                    size,
                    FIRST,
                    reads if tier == "HBF" else min(reads, PCIE),
                    size * float(of.price_per_byte),
                    float(of.write_bandwidth) * devices,
                    size * float(of.endurance) / float(of.write_amplification),
                )
            )
    return found


def cached_agents(small: bool) -> list[dict]:
    """Return a row a cache and session rate: all caches of a rate are one replay."""
    kinds, model = caches(small), load_model(MODEL)
    base = jc.load_system(CHIP, efficiency=EFFICIENCY)
    plan = jc.Plan(engine=engine(sequences=64.0), **BITS)
    fitted = jc.fit(base, model, plan, context=8192)
    bytes_per_token = float(fitted.request_bytes / fitted.context)
    column = lambda name: np.asarray([getattr(kind, name) for kind in kinds])  # noqa: E731
    hbm, load = column("hbm"), column("load")
    share = float(plan.engine.memory_share)
    system = jc.replace_at(base, "chip.memory.capacity", float(base.chip.memory.capacity) - hbm / share)
    system = jc.replace_at(system, "chip.price", float(base.chip.price) + column("price"))
    slow = np.asarray([kind.tier != "HBM" for kind in kinds])
    cache = jc.PrefixCache(
        hbm / bytes_per_token,
        np.where(slow, column("capacity"), 0.0) / bytes_per_token,
        np.divide(bytes_per_token, load, out=np.zeros(len(kinds)), where=load > 0),
    )
    rows = []
    for rate in (AT,) if small else SESSION_RATES:
        trace = jc.agent_trace(sessions=40 if small else 500, session_rate=rate, **AGENTS)
        replayed = jc.replay(system, model, trace, plan, prefix_cache=cache)
        written = (trace.prompt.sum() * (1 - replayed.hit_rate) + trace.output.sum()) * bytes_per_token
        per_second = written / replayed.duration
        for i, kind in enumerate(kinds):
            rows.append(
                {
                    "tier": kind.tier if kind.capacity else "none",
                    "capacity": kind.capacity,
                    "sessions": rate,
                    "turns": trace.rate,
                    "pool": replayed.pool_tokens[i],
                    "hits": replayed.hit_rate[i],
                    "ttft_50": replayed.percentile("ttft", 50)[i],
                    "ttft_99": replayed.percentile("ttft", 99)[i],
                    "tpot_50": replayed.percentile("tpot", 50)[i],
                    "tpot_99": replayed.percentile("tpot", 99)[i],
                    "usd_per_mtok": replayed.usd_per_mtok[i],
                    "usd_per_hour": 3600 * replayed.usd[i] / replayed.duration[i],
                    "write_share": per_second[i] / kind.write if kind.write else 0.0,
                    "years": kind.life / per_second[i] / YEAR if kind.life else None,
                    "table_error": replayed.table_error,
                }
            )
    return rows


def within_limits(rows: list[dict]) -> list[dict]:
    """Return for every cache the most turns a second within the limits at p99, and the cost of a token there.

    Between the last rate within the limits and the first beyond, the logarithm of the load is interpolated in that of
    the worse of the two ratios to a limit.
    """
    found = []
    for tier, capacity in dict.fromkeys((r["tier"], r["capacity"]) for r in rows):
        mine = [r for r in rows if (r["tier"], r["capacity"]) == (tier, capacity)]
        over = [max(r["ttft_99"] / TTFT, r["tpot_99"] / TPOT) for r in mine]
        last = next((k for k, x in enumerate(over) if x > 1), len(over)) - 1
        if last < 0:
            turns = None
        elif last + 1 == len(over):
            turns = mine[-1]["turns"]
        else:
            low, high = np.log(over[last : last + 2])
            part = -low / (high - low)
            turns = float(
                np.exp((1 - part) * np.log(mine[last]["turns"]) + part * np.log(mine[last + 1]["turns"]))
            )
        tokens = None if turns is None else turns * AGENTS["output"]
        found.append(
            {
                "tier": tier,
                "capacity": capacity,
                "turns": turns,
                "usd_per_mtok": None if tokens is None else mine[0]["usd_per_hour"] / 3600 / tokens * 1e6,
                "all_rates": last + 1 == len(over),
            }
        )
    return found


def slow_links(small: bool) -> list[dict]:
    """Return percentiles where links of all replicas, or of one of eight, are slow: one replay for all designs."""
    factors = FACTORS[::4] if small else FACTORS
    designs = [(kind, factor) for kind in CHANGES for factor in factors]
    base = jc.load_system(f"{CHIP}-x{EIGHT}", efficiency=EFFICIENCY)
    system = base
    for kind, (path, change) in CHANGES.items():
        today = float(functools.reduce(getattr, path.split("."), base))
        values = [change(today, factor) if kind == name else today for name, factor in designs]
        system = jc.replace_at(system, path, np.asarray(values))
    trace = jc.synthetic_trace("gamma", requests=400 if small else 4000, **LINKS)
    plan = jc.Plan(tp=float(EIGHT), engine=engine(sequences=64.0), **BITS)
    replayed = jc.replay(system, load_model(MODEL), trace, plan, replicas=REPLICAS)
    slow = (
        np.arange(trace.requests)[:, None] % REPLICAS == 0
    )  # round robin: replicas do not affect each other
    rows = []
    for replicas in (REPLICAS, 1):
        for i, (kind, factor) in enumerate(designs):
            row = {"change": kind, "factor": factor, "replicas": replicas}
            for metric in ("ttft", "tpot"):
                times = getattr(replayed, metric)
                mixed = np.where(slow[:, 0] | (replicas == REPLICAS), times[:, i], times[:, 0])
                row |= {f"{metric}_{q}": float(np.nanpercentile(mixed, q)) for q in (50, 99)}
            rows.append(row)
    return rows


def study(small: bool) -> Study:
    points, cached, links = fronts(small), cached_agents(small), slow_links(small)
    most = within_limits(cached)
    bits = SERVICES[FRONT_MODEL].bits
    return Study(
        title="Serving: speed against throughput, prefix caches on flash, and slow links at the 99th percentile",
        findings=(*front_findings(points), *cache_findings(cached, most), *link_findings(links)),
        assumptions=(
            f"Fronts: {FRONT_MODEL}, attention and cache at {bits['kv_bits']:g} bits, experts at {bits['expert_bits']:g}; prompt "
            f'4,096, output 1,024, TTFT at most 5 s; "{EFFICIENCY}" efficiency; eight chips of the catalogue. "Decoding alone" '
            "has prompts computed elsewhere, as the co-designed chips were designed for; whole requests may have separate "
            "pools of the same chip.",
            f"Caches: {MODEL} at 8 bits on one {CHIP}, vLLM's limits with 64 sequences. {AGENTS['turns']:g} turns a session, "
            f"{AGENTS['system_prompt']:,} tokens of system prompt shared by all, {AGENTS['new_tokens']:,.0f} new tokens and "
            f"{AGENTS['output']:g} of output a turn, {AGENTS['think']:g} s between turns; arrivals do not wait for answers. "
            f"A cache in HBM is taken from the KV pool; slower tiers lie behind {FIRST / 1e9:g} GB of it. The price of a tier "
            "is that of its bytes, in the chip's price; its energy and interfaces are not counted.",
            "A cached token is read from the slower tier before its step, without overlap: HBF at its own bandwidth, host "
            f"memory and drives at most at the {PCIE / 1e9:g} GB/s of PCIe 5. Every token computed is written to the tier once, "
            "amplified as the catalogue states; whole stacks and drives have bandwidth, part of one has capacity.",
            f"Limits at p99: TTFT {TTFT:g} s, TPOT {TPOT * 1e3:g} ms.",
            f"Links: {MODEL} at 8 bits, {REPLICAS} replicas of {EIGHT} {CHIP}, tensor parallel, round robin; Gamma arrivals "
            f"of burstiness {LINKS['burstiness']:g} at {LINKS['rate']:g} requests/s. Jitter is the mean of an exponential delay "
            "of every rank at every collective, whose expected maximum every step waits for; a rare stall is not represented. "
            "One slow replica gets as many requests as the others.",
        ),
        sources=(
            "configs/chips",
            "configs/memories",
            "configs/fabrics/nvlink5.yaml",
            "jaxcost/explore/replay",
            *(f"configs/studies/{name}.yaml" for name in DESIGNED.values()),
        ),
        tables={
            "fronts": Table(
                "a point of the front of a chip",
                {
                    "kind": "", "chip": "", "catalogue": "", "user": "token/s", "throughput": "token/s", "ttft": "s",
                    "batch": "1", "tp": "1", "pp": "1", "dp": "1", "ep": "1", "split": "",
                },
                points,
            ),
            "caches": Table(
                "a prefix cache under the agents' trace at a session rate",
                {
                    "tier": "", "capacity": "B", "sessions": "1/s", "turns": "1/s", "pool": "token", "hits": "1",
                    "ttft_50": "s", "ttft_99": "s", "tpot_50": "s", "tpot_99": "s", "usd_per_mtok": "USD/Mtok",
                    "usd_per_hour": "USD/h", "write_share": "1", "years": "year", "table_error": "1",
                },
                cached,
            ),
            "limits": Table(
                "the most turns a second of a prefix cache within the limits, and the cost of an output token there",
                {"tier": "", "capacity": "B", "turns": "1/s", "usd_per_mtok": "USD/Mtok", "all_rates": ""},
                most,
            ),
            "links": Table(
                "percentiles where the links of some replicas are slow",
                {
                    "change": "", "factor": "1", "replicas": "1", "ttft_50": "s", "ttft_99": "s", "tpot_50": "s",
                    "tpot_99": "s",
                },
                links,
            ),
        },
    )  # fmt: skip


def front_findings(points: list[dict]) -> tuple[str, ...]:
    """Return sentences on the throughput of chips at speeds of a user."""
    said = []
    for kind in dict.fromkeys(row["kind"] for row in points):
        each = []
        for speed in SPEEDS:
            best: dict[str, float] = {}
            for row in points:
                if row["kind"] == kind and row["user"] >= speed:
                    best[row["chip"]] = max(best.get(row["chip"], 0.0), row["throughput"])
            ranked = sorted(best.items(), key=lambda item: -item[1])
            each.append(f"at {speed:g} token/s a user " + ", ".join(f"{n} {x:,.0f}" for n, x in ranked))
        said.append(f"{kind.capitalize()}, token/s a chip: " + "; ".join(each) + ".")
    return tuple(said)


def cache_findings(cached: list[dict], most: list[dict]) -> tuple[str, ...]:
    """Return sentences on prefix caches."""
    rows = [r for r in cached if r["sessions"] == AT]
    none = next(r for r in rows if r["tier"] == "none")
    best = {
        t: max(
            (r for r in rows if r["tier"] == t), key=lambda r: (round(float(r["hits"]), 2), -r["capacity"])
        )
        for t in TIERS
    }
    said = [
        f"At {none['turns']:.2f} turns/s p99 TTFT is {none['ttft_99']:,.1f} s without a prefix cache; with the smallest that "
        "has the most hits: "
        + "; ".join(
            f"{tier} {r['capacity'] / 1e9:,.0f} GB {r['hits']:.0%} hits, {r['ttft_99']:.1f} s"
            for tier, r in best.items()
        )
        + "."
    ]
    names = {"none": "no cache"}
    served = {
        t: min(
            (r for r in most if r["tier"] == t and r["turns"]), key=lambda r: r["usd_per_mtok"], default=None
        )
        for t in ("none", *TIERS)
    }
    said.append(
        f"Cheapest token within p99 TTFT {TTFT:g} s and TPOT {TPOT * 1e3:g} ms: "
        + "; ".join(
            f"{t} {r['usd_per_mtok']:.2f} USD/Mtok at {r['turns']:.2f} turns/s ({r['capacity'] / 1e9:,.0f} GB)"
            if r
            else f"{t} beyond them at every rate"
            for t, r in ((names.get(t, t), r) for t, r in served.items())
        )
        + "."
    )
    worn = [r for r in rows if r["tier"] == "HBF"]
    said.append(
        f"Written once, the tokens of {none['turns']:.2f} turns/s wear flash out: "
        + "; ".join(f"{r['capacity'] / 1e9:,.0f} GB in {r['years']:.1f} years" for r in worn)
        + f"; they take at most {max(r['write_share'] for r in worn):.1%} of its write bandwidth."
    )
    return tuple(said)


def link_findings(links: list[dict]) -> tuple[str, ...]:
    """Return sentences on slow links."""
    said = []
    top = max(r["factor"] for r in links)
    for change in CHANGES:
        words = f"{top - 1:g} us of jitter" if change == "jitter" else f"{change} worse by {top:g}"
        parts = []
        for replicas in (REPLICAS, 1):
            of = [r for r in links if r["change"] == change and r["replicas"] == replicas]
            base, worst = (next(r for r in of if r["factor"] == f) for f in (1.0, top))
            ratios = [worst[m] / base[m] for m in ("ttft_99", "tpot_99", "tpot_50")]
            parts.append(
                f"on {'all' if replicas == REPLICAS else 'one of eight'} replicas p99 TTFT x {ratios[0]:.2f}, "
                f"p99 TPOT x {ratios[1]:.2f} and p50 TPOT x {ratios[2]:.2f}"
            )
        said.append(f"{words.capitalize()}: " + "; ".join(parts) + ".")
    return tuple(said)


if __name__ == "__main__":
    run(study)
