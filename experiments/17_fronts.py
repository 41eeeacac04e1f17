"""The best decode chip for every time per token, and trade-offs between dollars, grams of CO2e and joules.

The study `decode-chip-1000w` asks how engines, stacks and links of an accelerator of 1,000 W share its power, its
edge and its reticles. It is solved for a range of bounds on the time per token, under two parallelism plans, with the
shadow price of every limit; as the Pareto front of CO2e against time per token; and for dollars, joules and grams
alone. Catalogue chips are shown for comparison.
"""

import dataclasses
import functools
import itertools

import numpy as np

import jaxcost as jc
from designed import spread_out
from jaxcost.edge.studies.study_file import read_study
from jaxcost.explore.space.spaces import Space
from study import Case, Study, Table, evaluate, run

STUDY, BASE, CHIPS = "decode-chip-1000w", "b200", 8
BOUNDS = (3e-3, 4.5e-3, 7e-3, 10e-3, 15e-3, 22e-3, 33e-3, 50e-3)
TARGET, POINTS, STARTS = 20e-3, 6, 1
CATALOGUE = ("h200-sxm", "b200", "rubin-vr200", "mi355x", "tpu-v7", "trainium3")
BATCHES = tuple(8 * 2**k for k in range(10))
PLANS = {"tensor parallel": {"tp": 8.0, "ep": 8.0}, "data parallel": {"dp": 8.0, "ep": 8.0}}
LIMITS = {"tpot": "tpot", "power": "margins.power", "capacity": "margins.memory", "edge": "margins.shoreline",
          "reticle": "margins.area"}  # fmt: skip
DESIGN = {
    "memory": "", "stacks": "1", "capacity": "B", "bandwidth": "B/s", "flops_8": "FLOP/s", "link": "B/s", "batch": "1",
}  # fmt: skip
KNOBS = {"memory": "", "stacks": "1", "engines": "1", "link": "B/s", "batch": "1"}
BATCH = jc.log_range("traffic.batch", 8, 16384, whole=True)
AIMS = ("usd_per_mtok", "joules_per_token", "gco2e_per_mtok")
RESULTS = {
    "tpot": "s", "usd_per_mtok": "USD/Mtok", "joules_per_token": "J/token", "gco2e_per_mtok": "g/Mtok",
}  # fmt: skip


def results(report: jc.Report, i: int) -> dict[str, float]:
    return {name: float(getattr(report, name)[i]) for name in RESULTS}


def space_of(asked, plan: str) -> Space:
    """The study's designs under a plan, with larger batches: the study's largest binds at tens of milliseconds."""
    space = spread_out(asked.space, CHIPS) if plan == "data parallel" else asked.space
    choices, sample = space.axes
    knobs = tuple(k if "traffic.batch" not in k.paths else BATCH for k in sample.knobs)
    return dataclasses.replace(space, axes=(choices, dataclasses.replace(sample, knobs=knobs)))


def along(asked, small: bool) -> list[dict]:
    """The cheapest design within every bound, its knobs and the price of each limit."""
    bounds = BOUNDS[3:6:2] if small else BOUNDS
    found = []
    for plan in list(PLANS)[-1:] if small else PLANS:
        walk = jc.codesign_along(
            space_of(asked, plan), asked.objective, asked.limits, "tpot", np.asarray(bounds), starts=STARTS
        )
        found += [(plan, bound, d) for bound, d in zip(bounds, walk.designs, strict=True) if not d.failed]
    designs = [d.design for _, _, d in found]
    report = evaluate([Case(d.system, d.model, d.traffic, d.plan, d.prices) for d in designs])
    rows = []
    for i, (plan, bound, d) in enumerate(found):
        chip, link = d.design.system.chip, d.design.system.fabric.scale_up
        prices = {
            name: sum(limit.multiplier for limit in d.limits if limit.metric == metric)
            for name, metric in LIMITS.items()
        }
        dearest = max((name for name in LIMITS if name != "tpot"), key=prices.get)
        rows.append(
            {
                "plan": plan,
                "bound": bound,
                **results(report, i),
                "memory": str(d.choices["system.chip.memory"]),
                "stacks": float(chip.memory.stacks),
                "capacity": float(chip.memory.capacity),
                "bandwidth": float(chip.memory.bandwidth),
                "flops_8": float(chip.compute.flops_8),
                "link": float(link.bandwidth),
                "batch": float(d.design.traffic.batch),
                "price": float(report.build.dies[i] + report.build.memory[i] + report.build.package[i]),
                "vendor": float(report.build.margin[i]),
                "power_prefill": float(report.power.prefill[i]),
                "power_decode": float(report.power.decode[i]),
                **{f"worth_of_{name}": prices[name] for name in LIMITS},
                "binds": dearest if prices[dearest] > 1e-3 else "nothing else",
            }
        )
    return rows


def knobs_of(memory: str, knobs) -> dict:
    """What a design is made of; engines as a share of B200's."""
    value = {k.name.rpartition(".")[2]: k.value for k in knobs}
    named = {"stacks": "stacks", "engines": "flops_8", "link": "bandwidth", "batch": "batch"}
    return {"memory": memory} | {name: value[key] for name, key in named.items()}


def stand_in(rows: list[dict], more: dict, *columns: str) -> list[dict]:
    """The coarse version's: the cheapest designs in place of those that are solved for."""
    rate = float(chip_of(BASE).chip.compute.flops_8)
    return [
        more
        | {name: r[name] for name in (*columns, "memory", "stacks")}
        | {"engines": r["flops_8"] / rate, "link": r["link"], "batch": r["batch"]}
        for r in rows
    ]


def cleanest(asked) -> list[dict]:
    """The front of CO2e against time per token."""
    limits = [c for c in asked.limits if c.metric != "tpot"]
    space, metrics = space_of(asked, "data parallel"), ("gco2e_per_mtok", "tpot")
    front = jc.codesign_front(space, metrics, limits, points=POINTS, starts=STARTS)
    return [
        {
            "tpot": point.values["tpot"],
            "gco2e_per_mtok": point.values["gco2e_per_mtok"],
            "slope": point.slopes["tpot"],
            **knobs_of(str(point.choices["system.chip.memory"]), point.knobs),
        }
        for point in front.points
    ]


def ends(asked) -> list[dict]:
    """The best design by dollars, by joules and by grams, within the target."""
    limits = [dataclasses.replace(c, high=TARGET) if c.metric == "tpot" else c for c in asked.limits]
    space, found = space_of(asked, "data parallel"), {}
    for name in AIMS:
        found[name] = jc.codesign(space, name, limits, starts=STARTS)
        assert not found[name].failed, found[name].failed
    designs = [d.design for d in found.values()]
    report = evaluate([Case(d.system, d.model, d.traffic, d.plan, d.prices) for d in designs])
    return [
        {
            "objective": name,
            **results(report, i),
            **knobs_of(str(d.choices["system.chip.memory"]), d.knobs),
        }
        for i, (name, d) in enumerate(found.items())
    ]


@functools.cache
def chip_of(name: str) -> jc.System:
    """Eight chips whose clock keeps their TDP."""
    made = jc.load_system(f"{name}-x{CHIPS}", efficiency="typical")
    return jc.replace_at(made, "chip.power_cap", made.chip.tdp)


def beside(asked, small: bool) -> list[dict]:
    """Chips of the catalogue under the same traffic and plans, batch by batch."""
    base = asked.space.base
    names, batches = (CATALOGUE[1:2], BATCHES[::4]) if small else (CATALOGUE, BATCHES)
    grid = list(itertools.product(names, PLANS, batches))
    model = jc.load_model("deepseek-v3")
    cases = [
        Case(
            chip_of(name),
            model,
            jc.replace(base.traffic, batch=float(batch)),
            jc.replace(base.plan, **({"tp": 1.0, "dp": 1.0} | PLANS[plan])),
        )
        for name, plan, batch in grid
    ]
    report = evaluate(cases)
    return [
        {
            "chip": name,
            "plan": plan,
            "batch": batch,
            **results(report, i),
            "fits": bool(report.margins.worst[i] >= -1e-6),
        }
        for i, (name, plan, batch) in enumerate(grid)
    ]


def study(small: bool) -> Study:
    asked = read_study(STUDY)
    designs, chips = along(asked, small), beside(asked, small)
    if small:
        clean = stand_in(designs, {}, "tpot", "gco2e_per_mtok")
        clean = [
            {"tpot": r.pop("tpot"), "gco2e_per_mtok": r.pop("gco2e_per_mtok"), "slope": 0.0} | r
            for r in clean
        ]
        best = stand_in(designs[-1:], {"objective": AIMS[0]}, *RESULTS)
    else:
        clean, best = cleanest(asked), ends(asked)
    base = chip_of(BASE).chip
    worth = {f"worth_of_{name}": "1" for name in LIMITS}
    power = {"power_prefill": "W", "power_decode": "W"}
    return Study(
        title="Fronts: the best decode chip for every time per token, and shadow prices of its limits",
        findings=findings(designs, clean, best, chips),
        assumptions=(
            f"Study {STUDY}: deepseek-v3 on {CHIPS} chips of 1,000 W, prompt 4,096 computed elsewhere, 1,024 tokens out; experts "
            "in NVFP4, all else 8 bits; typical efficiency; B200's process, reticles and vendor's margin, price by parts.",
            '"tensor parallel" cuts attention eight ways and copies the latent cache; "data parallel" gives each chip requests '
            "of its own. Experts lie on all eight chips in both.",
            "Worth of a limit: per cent by which a token is cheaper where the limit is 1% wider. No clock is governed: the "
            "step with the higher power keeps the TDP of a co-designed chip. Chips of the catalogue lower their clock.",
            f"One start for each of three memories and bound, then from its neighbours; fronts within {TARGET * 1e3:g} ms a token.",
        ),
        sources=(f"configs/studies/{STUDY}.yaml", "configs/chips", "docs/codesign.md"),
        tables={
            "designs": Table(
                "the cheapest design within a bound on the time per token",
                {"plan": "", "bound": "s", **RESULTS, **DESIGN, "price": "USD", "vendor": "USD", **power, **worth,
                 "binds": ""},
                designs,
            ),
            "cleanest": Table(
                "the front of CO2e against time per token; slope is d ln CO2e / d ln TPOT along it",
                {"tpot": "s", "gco2e_per_mtok": "g/Mtok", "slope": "1", **KNOBS},
                clean,
            ),
            "ends": Table("the best design by one metric alone", {"objective": "", **RESULTS, **KNOBS}, best),
            "base": Table(
                "the chip that the study begins with",
                {"chip": "", "capacity": "B", "bandwidth": "B/s", "flops_8": "FLOP/s", "link": "B/s"},
                [
                    {
                        "chip": BASE,
                        "capacity": float(base.memory.capacity),
                        "bandwidth": float(base.memory.bandwidth),
                        "flops_8": float(base.compute.flops_8),
                        "link": float(chip_of(BASE).fabric.scale_up.bandwidth),
                    }
                ],
            ),
            "catalogue": Table(
                "chips as they are, a batch each",
                {"chip": "", "plan": "", "batch": "1", **RESULTS, "fits": ""},
                chips,
            ),
        },
    )  # fmt: skip


def findings(designs: list[dict], clean: list[dict], best: list[dict], chips: list[dict]) -> tuple[str, ...]:
    """Say it in sentences."""
    said = []
    bounds = sorted({r["bound"] for r in designs})
    order = [min((r for r in designs if r["bound"] == b), key=lambda r: r["usd_per_mtok"]) for b in bounds]
    first, last = order[0], order[-1]
    said.append(
        f"From {first['bound'] * 1e3:g} to {last['bound'] * 1e3:g} ms a token the cheapest design falls from "
        f"{first['usd_per_mtok']:.3f} to {last['usd_per_mtok']:.3f} USD/Mtok, {first['joules_per_token']:.2f} to "
        f"{last['joules_per_token']:.3f} J/token; its batch goes from {first['batch']:.0f} to {last['batch']:.0f}, its stacks from "
        f"{first['stacks']:.0f} to {last['stacks']:.0f} of {first['memory']} and {last['memory']}, its 8-bit rate from "
        f"{first['flops_8'] / 1e15:.1f} to {last['flops_8'] / 1e15:.1f} PFLOP/s."
    )
    said.append(
        "Cheapest plan by bound: " + "; ".join(f"{r['bound'] * 1e3:g} ms {r['plan']}" for r in order) + "."
    )
    said.append(
        "Most expensive limit besides the bound on time: "
        + "; ".join(
            f"{r['bound'] * 1e3:g} ms {r['binds']}"
            + (f" ({r['worth_of_' + r['binds']]:.2f}%)" if r["binds"] in LIMITS else "")
            for r in order
        )
        + "."
    )
    for row in dict.fromkeys(
        map(tuple, ([r for r in order if r["tpot"] <= TARGET][-1].items(), last.items()))
    ):
        mine = dict(row)
        rivals = [r for r in chips if r["fits"] and r["tpot"] <= mine["bound"]]
        cheapest = {
            name: min((r for r in rivals if r["chip"] == name), key=lambda r: r["usd_per_mtok"])
            for name in dict.fromkeys(r["chip"] for r in rivals)
        }
        said.append(
            f"Within {mine['bound'] * 1e3:g} ms the co-designed chip takes {mine['usd_per_mtok']:.3f} USD/Mtok, of the "
            f"{mine['price'] + mine['vendor']:,.0f} USD of its package {mine['vendor'] / (mine['vendor'] + mine['price']):.0%} the "
            f"margin of {BASE}'s vendor, unchanged; of the catalogue, eight chips each: "
            + "; ".join(f"{name} {r['usd_per_mtok']:.3f}" for name, r in cheapest.items())
            + "."
        )
    span = {name: max(r[name] for r in best) / min(r[name] for r in best) - 1 for name in AIMS}
    said.append(
        f"Within {TARGET * 1e3:g} ms dollars, joules and grams hardly conflict: between the best design by each, "
        + ", ".join(f"{RESULTS[name].split('/')[0]} differ by {x:.1%}" for name, x in span.items())
        + "."
        if max(span.values()) < 0.1
        else f"Within {TARGET * 1e3:g} ms the designs best by dollars, joules and grams differ: "
        + ", ".join(f"{RESULTS[name].split('/')[0]} by {x:.0%}" for name, x in span.items())
        + "."
    )
    said.append(
        f"The designs with least CO2e go from {clean[0]['gco2e_per_mtok']:.1f} g/Mtok at {clean[0]['tpot'] * 1e3:.1f} ms to "
        f"{clean[-1]['gco2e_per_mtok']:.1f} at {clean[-1]['tpot'] * 1e3:.1f} ms, from a batch of {clean[0]['batch']:.0f} to "
        f"{clean[-1]['batch']:.0f}."
    )
    return tuple(said)


if __name__ == "__main__":
    run(study)
