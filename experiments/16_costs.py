"""Dollars, joules and CO2e per token, with intervals, on catalogue chips and on two co-designed chips.

Every chip serves the same requests within the same time per token, with the plan and the batch that are cheapest on
it and a clock that keeps its TDP. Then every estimate of the catalogue is drawn between its low and high value. The
result is the 5% and 95% quantile of each metric, and the constants that contribute most. The co-designed chips are
solutions of studies in configs/studies for this time per token; their parts have the same uncertainties.
"""

import dataclasses
import functools
import itertools

import jax
import numpy as np

import jaxcost as jc
from designed import Built, built
from jaxcost.edge.catalog.uncertain import uncertain
from jaxcost.explore.analysis.uncertainty import Spread, propagate
from plans import SERVICES, Key, candidates, case_of, cheapest, closer
from study import Case, Study, Table, evaluate, run

CHIPS = (
    "h100-sxm", "h200-sxm", "b200", "gb300", "rubin-vr200", "mi300x", "mi355x", "gaudi3", "tpu-v6e", "tpu-v7",
    "trainium2", "trainium3",
)  # fmt: skip
DESIGNED = {"decode chip, 1000 W": "decode-chip-1000w", "decode pod, 64 chips": "fabric-latency"}
EFFICIENCY, DRAWS, SEED, WEAKEST = "typical", 2000, 0, 3
DESIGNED_FOR = "deepseek-v3"
METRICS = {"usd_per_mtok": "USD/Mtok", "joules_per_token": "J/token", "gco2e_per_mtok": "g/Mtok"}
PARTS = {
    "dies": ("dies",),
    "memory": ("memory",),
    "package": ("package",),
    "vendor": ("margin",),
    "servers": ("hosts", "network", "racks", "maintenance"),
    "building": ("datacenter",),
    "interest": ("interest",),
    "energy": ("electricity", "water"),
}


UNITS = {
    "model": "", "chip": "", "catalogue": "", "chips": "1", "tp": "1", "batch": "1", "tpot": "s", "speed": "token/s", "power": "W",
    **{f"{name}{end}": unit for name, unit in METRICS.items() for end in ("", "_5", "_95")},
    "within": "1",
}  # fmt: skip


def kept(system: jc.System) -> jc.System:
    """A clock that keeps the TDP."""
    return jc.replace_at(system, "chip.power_cap", system.chip.tdp)


def catalogue(name: str) -> jc.System:
    return kept(jc.load_system(name, efficiency=EFFICIENCY))


def designed(made: Built) -> jc.System:
    return kept(made.load())


def sized(spread: Spread, chips: float) -> Spread:
    """The same doubts of a system of more chips."""
    system, _ = jax.tree.unflatten(spread.structure, list(range(len(spread.mid))))
    column = system.chips

    def at(leaves: np.ndarray) -> np.ndarray:
        out = np.array(leaves)
        out[..., column] = chips
        return out

    return dataclasses.replace(spread, mid=at(spread.mid), low=at(spread.low), high=at(spread.high))


def best_cases(systems: dict[str, jc.System], own: dict[str, Built], small: bool) -> dict[Key, Case]:
    """The cheapest plan and batch of every model and chip; a co-designed one may keep what it was designed for."""
    cases = {
        (model, chip): candidates(system, model, small)
        for model, (chip, system) in itertools.product(SERVICES, systems.items())
    }
    for chip, made in own.items():
        cases[DESIGNED_FOR, chip].append(
            case_of(systems[chip], DESIGNED_FOR, made.chips, made.plan, made.batch)
        )
    return cheapest({key: closer(case, key[0]) for key, case in cheapest(cases).items()})


def interval_rows(key: Key, case: Case, draws: int, constants, spread) -> tuple[dict, list[dict]]:
    """A row of results with their intervals, and rows of the constants that leave them open."""
    model, chip = key
    found = propagate(spread, constants, case.model, case.traffic, case.plan, draws=draws, seed=SEED)
    plan, chips = case.plan, float(case.system.chips)
    batch = float(case.traffic.batch)
    tpot, speed = (found.quantiles[name].mid for name in ("tpot", "tokens_per_second"))
    row = {
        "model": model,
        "chip": chip,
        "catalogue": chip not in DESIGNED,
        "chips": chips,
        "tp": float(plan.tp),
        "batch": batch,
        "tpot": tpot,
        "speed": speed / chips,
        "power": found.quantiles["average_power"].mid / chips,
        **{
            f"{name}{suffix}": getattr(found.quantiles[name], at)
            for name in METRICS
            for suffix, at in (("", "mid"), ("_5", "p5"), ("_95", "p95"))
        },
        "within": found.feasible,
    }
    weakest = [
        {
            "model": model,
            "chip": chip,
            "metric": name,
            "constant": bar.constant.name,
            "at_low": bar.at_low / found.quantiles[name].mid,
            "at_high": bar.at_high / found.quantiles[name].mid,
        }
        for name in METRICS
        for bar in found.weakest(name, WEAKEST)
    ]
    return row, weakest


def study(small: bool) -> Study:
    names = CHIPS[:2] if small else CHIPS
    target = float(SERVICES[DESIGNED_FOR].traffic.tpot_target)
    own = {} if small else {title: built(name, EFFICIENCY, target) for title, name in DESIGNED.items()}
    loads = {name: functools.partial(catalogue, name) for name in names}
    loads |= {title: functools.partial(designed, made) for title, made in own.items()}
    cases = best_cases({name: load() for name, load in loads.items()}, own, small)
    spreads = {
        name: uncertain(lambda load=load: (load(), jc.load_prices("default"))) for name, load in loads.items()
    }
    rows, weakest = [], []
    for key, case in cases.items():
        constants, spread = spreads[key[1]]
        spread = sized(spread, float(case.system.chips))
        row, bars = interval_rows(key, case, 64 if small else DRAWS, constants, spread)
        rows.append(row)
        weakest += bars
    report = evaluate(list(cases.values()))
    parts = [
        {
            "model": model,
            "chip": chip,
            **{
                part: float(sum(np.asarray(getattr(report.usd, name))[i] for name in of))
                for part, of in PARTS.items()
            },
            "operation": float(report.carbon.operation[i]),
            "manufacture": float(report.carbon.total[i] - report.carbon.operation[i]),
        }
        for i, (model, chip) in enumerate(cases)
    ]
    return Study(
        title="Costs: dollars, joules and CO2e of a token, with intervals",
        findings=findings(rows, parts, weakest, own),
        assumptions=assumptions(own),
        sources=(
            "configs/chips",
            "configs/prices/default.yaml",
            "configs/efficiency/typical.yaml",
            "configs/studies",
        ),
        tables={
            "designs": Table("the cheapest plan and batch of a chip; 5% and 95% of the draws", UNITS, rows),
            "parts": Table(
                "of what dollars and grams of a million tokens consist",
                {"model": "", "chip": ""}
                | dict.fromkeys(PARTS, "USD/Mtok")
                | {"operation": "g/Mtok", "manufacture": "g/Mtok"},
                parts,
            ),
            "weakest": Table(
                "constants that move a result most, alone at either end; results over the best value",
                {"model": "", "chip": "", "metric": "", "constant": "", "at_low": "1", "at_high": "1"},
                weakest,
            ),
        },
    )


def assumptions(own: dict[str, Built]) -> tuple[str, ...]:
    one, two = SERVICES.values()
    made = "; ".join(
        f'"{chip}": {m.base} with {m.memory}, by parts, so with the margin of that chip\'s vendor'
        for chip, m in own.items()
    )
    return (
        f"deepseek-v3: prompt {float(one.traffic.prompt):,.0f} computed elsewhere, {float(one.traffic.output):,.0f} tokens out, "
        f"{float(one.traffic.tpot_target) * 1e3:g} ms a token; experts in NVFP4, all else 8 bits. llama-3.1-70b: prompt "
        f"{float(two.traffic.prompt):,.0f} computed here, {float(two.traffic.output):,.0f} out, "
        f"{float(two.traffic.tpot_target) * 1e3:g} ms; 8 bits. A chip without an engine for a precision runs the next wider.",
        "Each chip with the cheapest of the plans and batches listed at the top of the experiment; a clock that keeps the TDP.",
        f"Efficiency {EFFICIENCY}, the same shares of the peaks for every chip; default prices and the world's mean grid.",
        "Constants are independent, triangular between low and high; plan and batch stay as chosen.",
        *([f"Co-designed: {made}; development is not charged."] if own else []),
    )


def findings(rows, parts, weakest, own) -> tuple[str, ...]:
    """Say it in sentences."""
    said = []
    for model in SERVICES:
        of = [r for r in rows if r["model"] == model]
        bought = [r for r in of if r["chip"] not in own]
        for metric, unit in METRICS.items():
            best = min(bought, key=lambda r: r[metric])
            last = max(bought, key=lambda r: r[metric])
            apart = [r["chip"] for r in bought if r[f"{metric}_5"] > best[f"{metric}_95"]]
            said.append(
                f"{model}, {unit}: of the catalogue chips, {best['chip']} has the lowest value, {best[metric]:.3g} "
                f"({best[f'{metric}_5']:.3g} to {best[f'{metric}_95']:.3g}), {last['chip']} the highest, {last[metric]:.3g}; {len(apart)} of "
                f"the {len(bought) - 1} others are clearly higher, their 5% above its 95%."
            )
    wide = [np.median([r[f"{metric}_95"] / r[f"{metric}_5"] for r in rows]) for metric in METRICS]
    said.append(
        "Ratio of the 95% to the 5% quantile, median of all rows: "
        + ", ".join(f"{w:.2f} in {u}" for w, u in zip(wide, METRICS.values(), strict=True))
        + "."
    )
    first = [
        next(
            w["constant"]
            for w in weakest
            if (w["model"], w["chip"], w["metric"]) == (r["model"], r["chip"], metric)
        )
        for metric in METRICS
        for r in rows
    ]
    counts = [
        max((first[i : i + len(rows)].count(c), c) for c in set(first[i : i + len(rows)]))
        for i in range(0, len(first), len(rows))
    ]
    said.append(
        "The most uncertain constants: "
        + "; ".join(
            f"{u}: {c} for {n} of {len(rows)}" for u, (n, c) in zip(METRICS.values(), counts, strict=True)
        )
        + "."
    )
    for chip, made in own.items():
        (mine,) = [r for r in rows if (r["model"], r["chip"]) == (DESIGNED_FOR, chip)]
        (base,) = [r for r in rows if r["model"] == DESIGNED_FOR and r["chip"] == made.like]
        (bill,) = [p for p in parts if (p["model"], p["chip"]) == (DESIGNED_FOR, chip)]
        said.append(
            f"{chip}: {mine['usd_per_mtok']:.3f} USD/Mtok ({mine['usd_per_mtok_5']:.3f} to {mine['usd_per_mtok_95']:.3f}) against "
            f"{base['usd_per_mtok']:.3f} of {made.like} it began as; joules {mine['joules_per_token'] / base['joules_per_token']:.2f}x, "
            f"grams {mine['gco2e_per_mtok'] / base['gco2e_per_mtok']:.2f}x; {bill['vendor'] / mine['usd_per_mtok']:.0%} of its "
            "cost is the vendor's margin, unchanged."
        )
    return tuple(said)


if __name__ == "__main__":
    run(study)
