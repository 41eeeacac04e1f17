"""Words and tables of a recommendation."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from jaxcost.core.units import engineering
from jaxcost.edge.show import tables
from jaxcost.edge.show.verdict import Verdict, judge_service
from jaxcost.explore.recommend import Candidate, Recommendation
from jaxcost.spec.plan import Plan

__all__ = [
    "compare_candidates",
    "comparison",
    "describe_deployment",
    "describe_plan",
    "judge_candidate",
    "plans_table",
    "runner_up_line",
]

_ROUNDING = 1e-4
_NAMES = {
    "memory": "memory",
    "ttft": "mean TTFT",
    "tpot": "mean TPOT",
    "prefill": "prefill",
    "slots": "slots",
    "sequences": "limit of sequences",
    "power": "power",
    "hardware": "chips, heat, wear",
}
_MOST_PLANS = 8
_NOTABLE = 0.005  # relative difference from which a metric counts as worse or better
# Metric of a candidate: its name in a sentence, its unit, and whether more is better.
_METRICS = {
    "usd_per_mtok": ("cost", "USD/Mtok", False),
    "chips": ("chips", "", False),
    "ttft": ("TTFT", "s", False),
    "tpot": ("TPOT", "s", False),
    "joules_per_token": ("energy of a token", "J/token", False),
    "capacity": ("largest load", "requests/s", True),
}


def describe_plan(candidate: Candidate, templates: Sequence[str] = ()) -> str:
    """Return the degrees, the prefill pool and, where several were tried, the precision of a candidate."""
    text = _degrees(candidate.plan)
    if candidate.prefill is not None:
        text += f" with prefill on {_degrees(candidate.prefill[1])}"
    return f"{text}, {templates[candidate.template]}" if len(templates) > 1 else text


def _degrees(plan: Plan) -> str:
    named = [f"{d} {getattr(plan, d):g}" for d in ("tp", "pp", "ep", "dp") if getattr(plan, d) != 1]
    return ", ".join(named) or "one chip"


def describe_deployment(candidate: Candidate) -> str:
    """Return the replicas and chips of a candidate."""
    text = _counted(candidate.replicas, float(candidate.system.chips))
    if candidate.prefill is not None:
        text += f" and for prefill {_counted(candidate.prefill_replicas, float(candidate.prefill[0].chips))}"
    total = f", {candidate.chips} chips" if candidate.replicas > 1 or candidate.prefill else ""
    return f"{text}{total}"


def _counted(replicas: int, chips: float) -> str:
    return f"{replicas} {'replica' if replicas == 1 else 'replicas'} of {chips:g} {'chip' if chips == 1 else 'chips'}"


def judge_candidate(candidate: Candidate, templates: Sequence[str] = ()) -> Verdict:
    """Return the verdict on a candidate: the deployment and its cost, and the limit with the smallest margin."""
    margins = {k: m for k, m in candidate.margins.items() if k != "hardware" or m < -_ROUNDING}
    names: dict[str, str] = dict(_NAMES)
    v = candidate.verification
    if v is not None:
        margins |= v.margins
        names |= {name: f"p{v.percentile:g} {name.upper()}" for name in v.margins}
    cost = f"{candidate.usd_per_mtok:.3g} USD per million output tokens"
    deployment = f"{describe_plan(candidate, templates)}: {describe_deployment(candidate)}, {cost}"
    return judge_service(margins, deployment, _ROUNDING, names)


def _metrics(candidate: Candidate) -> dict[str, float]:
    s, v = candidate.service, candidate.verification
    return {
        "usd_per_mtok": candidate.usd_per_mtok,
        "chips": float(candidate.chips),
        "ttft": float(s.ttft) if v is None else v.ttft,
        "tpot": float(s.tpot) if v is None else v.tpot,
        "joules_per_token": float(s.joules_per_token),
        "capacity": float(s.largest_rate) * candidate.replicas,
    }


def compare_candidates(best: Candidate, other: Candidate) -> dict[str, float]:
    """Return the relative difference of every metric of a candidate to the best, where both were measured alike.

    Latencies are left out where one candidate was replayed and the other was not.
    """
    alike = (best.verification is None) == (other.verification is None)
    ours, theirs = _metrics(best), _metrics(other)
    return {
        name: theirs[name] / ours[name] - 1
        for name in _METRICS
        if ours[name] > 0 and (alike or name not in ("ttft", "tpot", "usd_per_mtok"))
    }


def runner_up_line(recommendation: Recommendation, templates: Sequence[str] = ()) -> str:
    """Return what the runner-up loses against the best candidate, and what it gains."""
    other = recommendation.runner_up
    if other is None:
        return "Runner-up: none, no other plan was evaluated"
    changes = compare_candidates(recommendation.best, other)
    worse, better = [], []
    for name, change in changes.items():
        if abs(change) >= _NOTABLE:
            (better if (change > 0) == _METRICS[name][2] else worse).append(
                f"{_METRICS[name][0]} {change:+.1%}"
            )
    text = f"Runner-up: {describe_plan(other, templates)}"
    if not other.feasible:
        text += ", which exceeds a limit"
    parts = [f"loses {', '.join(worse)}"] if worse else ["loses nothing notable"]
    parts += [f"gains {', '.join(better)}"] if better else []
    return f"{text}: {'; '.join(parts)}"


def comparison(recommendation: Recommendation, templates: Sequence[str] = ()) -> Table:
    """Show the recommended candidate and the runner-up side by side."""
    shown = [recommendation.best, *([recommendation.runner_up] if recommendation.runner_up else [])]
    heads = ["Recommended" if recommendation.feasible else "Nearest", "Runner-up"]
    table = tables.plain_table("", ("", *heads[: len(shown)]), ())

    def row(name: str, cells: Sequence[str]) -> None:
        if any(cells):
            table.add_row(name, *cells)

    row("Plan of a replica", [describe_plan(c, templates) for c in shown])
    row("Token budget of a step", [_limit(float(c.plan.engine.step_tokens)) for c in shown])
    row("Limit of sequences", [_limit(float(c.plan.engine.sequences)) for c in shown])
    row("Prompts", [_schedule(c) for c in shown])
    row("Replicas", [str(c.replicas) for c in shown])
    row("Prefill replicas", [str(c.prefill_replicas or "") for c in shown])
    row("Chips", [str(c.chips) for c in shown])
    row("Cost of a million output tokens", [f"{c.usd_per_mtok:.4g} USD" for c in shown])
    row("TTFT, mean", [engineering(float(c.service.ttft), "s") for c in shown])
    row("TPOT, mean", [engineering(float(c.service.tpot), "s") for c in shown])
    for name in ("ttft", "tpot"):
        percentile = next((c.verification.percentile for c in shown if c.verification), 99.0)
        row(
            f"{name.upper()}, p{percentile:g} of the replay",
            [
                "" if c.verification is None else engineering(getattr(c.verification, name), "s")
                for c in shown
            ],
        )
    row("Largest load", [f"{_metrics(c)['capacity']:.3g} requests/s" for c in shown])
    row(
        "Requests in flight of a replica",
        [f"{c.service.in_flight:.3g} of {c.service.slots:.4g}" for c in shown],
    )
    row("Energy", [engineering(float(c.service.joules_per_token), "J/token") for c in shown])
    for name, label in _NAMES.items():
        # All chips of a plan are in use: a margin of hardware that holds says nothing.
        if name != "hardware" or any(c.margins[name] < -_ROUNDING for c in shown):
            row(f"Margin, {label}", [_percent(c.margins.get(name)) for c in shown])
    row("Evaluated by", [_evaluated(c) for c in shown])
    return tables.unwrapped(table)


def _limit(value: float) -> str:
    return f"{value:,.0f}" if value else "none"


def _schedule(candidate: Candidate) -> str:
    if candidate.prefill is not None:
        return "in their own pool"
    mixed = candidate.plan.engine.mixed > 0.5 or candidate.plan.chunk > 0
    return "in chunks, with decoding" if mixed else "before decoding"


def _percent(margin: float | None) -> str:
    return "" if margin is None else f"{margin + 0.0 if abs(margin) > _ROUNDING else 0.0:+.1%}"


def _evaluated(candidate: Candidate) -> str:
    v = candidate.verification
    return "closed form" if v is None else f"replay, {v.rounds} {'round' if v.rounds == 1 else 'rounds'}"


def plans_table(recommendation: Recommendation, templates: Sequence[str] = ()) -> Table:
    """Show the first plans in order, with their cost and latencies."""
    rows = []
    for c in recommendation.candidates[:_MOST_PLANS]:
        m, v = _metrics(c), c.verification
        verdict = judge_candidate(c, templates)
        rows.append(
            (
                describe_plan(c, templates),
                str(c.chips),
                f"{c.usd_per_mtok:.4g}",
                engineering(m["ttft"], "s"),
                engineering(m["tpot"], "s"),
                "means" if v is None else f"p{v.percentile:g}",
                Text(verdict.short, "" if c.feasible else "red"),
            )
        )
    heads = ("Plan", "Chips", "USD/Mtok", "TTFT", "TPOT", "of", "Limits")
    return tables.unwrapped(tables.plain_table("Plans, each with its best settings", heads, rows))
