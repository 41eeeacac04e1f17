"""Time per token on 1 to 256 chips by topology, hop latency and in-network reduction.

A dense model of 405 billion parameters with tensor parallelism has two all-reduces per layer. All fabrics have the
same total bandwidth per chip, spread over the links of the topology, and no software overhead, except one that has
the software overhead of today's links. A mixture of experts exchanges its tokens by all-to-all instead.
"""

import functools
import itertools

import jaxcost as jc
from jaxcost.spec.fabric import topology_id
from study import Case, Study, Table, evaluate, run

CHIP, DENSE, EXPERTS = "b200", "llama-3.1-405b", "deepseek-v3"
CHIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HOPS = (50e-9, 100e-9, 200e-9, 500e-9, 1e-6, 2e-6, 5e-6)
HOP, MANY = 500e-9, 64  # where the others vary
CONTEXT, BATCHES, PER_CHIP = 8192, (1, 16, 256), 16
TODAY = "switch, today's software"
# Topology, and the branches or dimensions it is built with.
FABRICS = {
    "ring": {"topology": "ring"},
    "2D mesh": {"topology": "mesh", "dimensions": 2.0},
    "3D torus": {"topology": "torus", "dimensions": 3.0},
    "hypercube": {"topology": "hypercube"},
    "tree": {"topology": "tree", "radix": 8.0},
    "fat tree": {"topology": "fat-tree", "radix": 32.0},
    "dragonfly": {"topology": "dragonfly", "radix": 8.0},
    "switch": {"topology": "switch"},
    "fully connected": {"topology": "fully-connected"},
    TODAY: {"topology": "switch"},
}
ADDING = ("tree", "fat tree", "switch")  # fabrics whose switches can add
DENSE_PLAN = {"weight_bits": 8.0, "kv_bits": 8.0}
EXPERTS_PLAN = DENSE_PLAN | {"expert_bits": 8.0, "activation_bits": 8.0}
UNITS = {
    "fabric": "", "in_network": "", "chips": "1", "hop": "s", "batch": "1", "tpot": "s", "messages": "s", "share": "1",
    "fits": "",
}  # fmt: skip


load_system, load_model = functools.cache(jc.load_system), functools.cache(jc.load_model)


def system(fabric: str, chips: int, hop: float, *, adds: bool = False, bandwidth: float = 1.0) -> jc.System:
    """Chips in one domain of a topology; `bandwidth` is a factor on that of their links."""
    made = load_system(CHIP)
    today = made.fabric.scale_up
    wired = FABRICS[fabric] | {"topology": topology_id(FABRICS[fabric]["topology"])}
    bare = {} if fabric == TODAY else {"launch": 0.0, "overhead": 0.0, "sram_landing": 1.0}
    link = jc.replace(
        today, latency=hop, in_network=float(adds), bandwidth=today.bandwidth * bandwidth, **wired, **bare
    )
    return jc.replace(
        made, chips=float(chips), fabric=jc.replace(made.fabric, domain=float(chips), scale_up=link)
    )


def dense(of: jc.System, batch: int) -> Case:
    """One decode step at the context, all chips one tensor-parallel group."""
    traffic = jc.Traffic(prompt=CONTEXT - 1, output=2, batch=batch)
    return Case(of, load_model(DENSE), traffic, jc.Plan(tp=of.chips, **DENSE_PLAN))


def experts(of: jc.System) -> Case:
    """The same of a mixture: each chip has requests and experts of its own."""
    traffic = jc.Traffic(prompt=CONTEXT - 1, output=2, batch=PER_CHIP * of.chips)
    return Case(of, load_model(EXPERTS), traffic, jc.Plan(dp=of.chips, ep=of.chips, **EXPERTS_PLAN))


def rows_of(grid: list[tuple], report: jc.Report) -> list[dict]:
    """One row a point of (fabric, adds, chips, hop, batch)."""
    messages = sum(row.network for row in report.decode.rows)
    return [
        {
            "fabric": fabric,
            "in_network": adds,
            "chips": chips,
            "hop": hop,
            "batch": batch,
            "tpot": float(report.tpot[i]),
            "messages": float(messages[i]),
            "share": float(messages[i] / report.tpot[i]),
            "fits": bool(report.margins.memory[i] >= 0),
        }
        for i, (fabric, adds, chips, hop, batch) in enumerate(grid)
    ]


def pick(rows: list[dict], **of) -> list[dict]:
    return [row for row in rows if all(row[k] == v for k, v in of.items())]


def study(small: bool) -> Study:
    chips = (8, MANY) if small else CHIPS
    hops = (HOPS[0], HOP) if small else HOPS
    fabrics = ("ring", "switch", TODAY) if small else tuple(FABRICS)
    kinds = [(name, False) for name in fabrics] + [(name, True) for name in ADDING if name in fabrics]
    grid = [(*kind, n, hop, 1) for kind in kinds for n in chips for hop in hops]
    grid += [(*kind, n, HOP, BATCHES[1]) for kind in kinds for n in chips]
    tokens = rows_of(grid, evaluate([dense(system(name, n, hop, adds=a), b) for name, a, n, hop, b in grid]))
    # Links half as wide, or hops twice as long: which of the two hurts?
    pairs = list(itertools.product(fabrics, BATCHES[::2] if small else BATCHES))
    changes = ({}, {"bandwidth": 0.5}, {"hop": 2 * HOP})
    slower = evaluate(
        [dense(system(name, MANY, **({"hop": HOP} | of)), b) for name, b in pairs for of in changes]
    ).tpot.reshape(-1, len(changes))
    trades = [
        {
            "fabric": name,
            "batch": batch,
            "half_bandwidth": float(half / base),
            "twice_latency": float(twice / base),
        }
        for (name, batch), (base, half, twice) in zip(pairs, slower, strict=True)
    ]
    spread = [(name, False, n, HOP, PER_CHIP * n) for name in fabrics for n in chips if n >= 8]
    mixture = rows_of(spread, evaluate([experts(system(name, n, hop)) for name, _, n, hop, _ in spread]))
    return Study(
        title="Interconnect: topology, hop latency and in-network reduction",
        findings=findings(tokens, trades, mixture, fabrics, chips, hops),
        assumptions=(
            f"{DENSE} at 8 bits, activations and messages at 16, context {CONTEXT:,}, tensor parallel over all chips; "
            "beyond the 8 key-value heads these are copied, beyond the 128 query heads only the feed-forward is cut.",
            f"{CHIP} chips at their peaks, 900 GB/s a chip and direction in all on every topology; messages land on the chip. "
            "Only bytes and hops are charged: no launch, no software a round, no late rank, no overlap. "
            f'"{TODAY}" keeps launch, round and landing of NVLink 5, estimates of the catalogue.',
            "A switch is one crossbar of as many ports as chips; fat trees have 32 branches a switch, trees 8 and no more "
            "bandwidth above, dragonflies groups of 8 with one link between two groups. Equal bandwidth a chip is not equal "
            "cost: switches and long wires are not priced.",
            f"{EXPERTS}: {PER_CHIP} requests a chip, attention by data and experts by expert parallelism, 8 bits; "
            "evenly popular experts.",
        ),
        sources=(
            "configs/chips/b200.yaml",
            "configs/fabrics/nvlink5.yaml",
            "jaxcost/physics/network/algorithms.py",
        ),
        tables={
            "tokens": Table("one decode step of the dense model on a fabric", UNITS, tokens),
            "trades": Table(
                f"TPOT over that of the links as they are, {MANY} chips",
                {"fabric": "", "batch": "1", "half_bandwidth": "1", "twice_latency": "1"},
                trades,
            ),
            "experts": Table("one decode step of the mixture of experts on a fabric", UNITS, mixture),
        },
    )


def findings(tokens, trades, mixture, fabrics, chips, hops) -> tuple[str, ...]:
    """Say it in sentences."""
    alone = pick(tokens, in_network=False, hop=HOP, batch=1)
    best = {name: min(pick(alone, fabric=name), key=lambda r: r["tpot"]) for name in fabrics}
    each = "; ".join(f"{n} {r['tpot'] * 1e3:.2f} ms at {r['chips']}" for n, r in best.items())
    (many,) = pick(alone, fabric="switch", chips=MANY)
    ends = [
        pick(tokens, fabric="switch", in_network=False, chips=MANY, batch=1, hop=h)[0]
        for h in (hops[0], hops[-1])
    ]
    (today,) = pick(alone, fabric=TODAY, chips=MANY)
    gains = {
        (r["fabric"], r["batch"], r["chips"], r["hop"]): (
            pick(tokens, **{k: r[k] for k in ("fabric", "chips", "hop", "batch")}, in_network=False)[0][
                "tpot"
            ]
            / r["tpot"]
        )
        for r in pick(tokens, in_network=True)
    }
    top, most = max(gains.items(), key=lambda item: item[1])
    named = "; ".join(f"{name} {gains[name, 1, MANY, HOP]:.2f}x" for name in ADDING if name in fabrics)
    one = {t["fabric"]: t for t in trades if t["batch"] == 1}
    wide = {t["fabric"]: t for t in trades if t["batch"] == BATCHES[-1]}
    quicker = [n for n, t in one.items() if t["twice_latency"] > t["half_bandwidth"]]
    late = [n for n, t in wide.items() if t["half_bandwidth"] > t["twice_latency"]]
    far = {r["fabric"]: r for r in mixture if r["chips"] == chips[-1]}
    near, slow = (f(far.values(), key=lambda r: r["tpot"]) for f in (min, max))
    return (
        f"At {HOP * 1e6:g} us a hop and batch 1 the fastest token, and the chips it takes: {each}.",
        f"On {MANY} chips at one switch {many['share']:.0%} of a token is messages; from {ends[1]['hop'] * 1e6:g} us a hop to "
        f"{ends[0]['hop'] * 1e9:g} ns it falls from {ends[1]['tpot'] * 1e3:.2f} to {ends[0]['tpot'] * 1e3:.2f} ms. Launch, rounds "
        f"and landing of today's software make it {today['tpot'] * 1e3:.2f} ms, {today['share']:.0%} of it messages.",
        f"Switches that add make a token on {MANY} chips at {HOP * 1e6:g} us a hop faster by a factor: {named}; at most "
        f"{most:.2f}x here ({top[0]}, {top[2]} chips, {top[3] * 1e6:g} us a hop, batch {top[1]}).",
        f"On {MANY} chips twice the latency hurts more than half the bandwidth on {len(quicker)} of {len(one)} fabrics at "
        f"batch 1; at batch {BATCHES[-1]} half the bandwidth hurts more on {len(late)} of {len(wide)}.",
        f"All-to-all of a mixture on {chips[-1]} chips asks for bandwidth across: {near['tpot'] * 1e3:.1f} ms a token on "
        f"{near['fabric']}, {slow['tpot'] * 1e3:.1f} ms on {slow['fabric']}, {slow['share']:.0%} of it messages.",
    )


if __name__ == "__main__":
    run(study)
