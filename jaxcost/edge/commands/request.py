"""The options that describe one evaluation, and how they become trees."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax

from jaxcost.core.pytree import replace, rows
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.check import check_plan, check_traffic
from jaxcost.edge.catalog.set_option import Setting, add_set_argument, read_settings, with_settings
from jaxcost.edge.commands.cost_options import add_cost_arguments, with_costs, with_year
from jaxcost.edge.commands.memory_options import add_memory_arguments, read_placement, with_memories
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.io.formats import FORMATS, read_bits
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.show.tables import Values
from jaxcost.evaluation import evaluate
from jaxcost.explore.analysis import DEGREES, OBJECTIVES, best_plan
from jaxcost.explore.serve import Service
from jaxcost.report import Report
from jaxcost.spec.chip import Efficiency
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "Request",
    "Values",
    "add_request_arguments",
    "build_system",
    "degrees",
    "evaluated",
    "measure",
    "picture_path",
    "read_number",
    "read_request",
    "read_system",
    "with_efficiency",
]

_PLAN = {
    "tp": "tensor-parallel degree",
    "pp": "pipeline stages",
    "ep": "expert-parallel degree",
    "dp": "data-parallel replicas",
    "cp": "context-parallel degree",
    "microbatches": "parts of a replica's batch in its pipeline, 0 for one a stage",
    "sequence-parallel": "1 to cut norms along the sequence: reduce-scatter and all-gather",
    "draft-length": "tokens drafted before each verification",
    "acceptance": "probability that a drafted token is accepted",
    "draft-parameters": "weights of the draft model; 0 for the model's own module",
    "chunk": "prompt tokens prefilled along with each decode step, 0 for none",
    "weight-sparsity": "share of weights that are zero, neither stored nor multiplied",
    "activation-sparsity": "share of feed-forward neurons a token skips",
    "neuron-window": "tokens whose feed-forward neurons stay in main memory",
}
_BITS = {
    "weight-bits": "weights other than routed experts",
    "expert-bits": "routed experts' weights",
    "kv-bits": "cached keys and values",
    "activation-bits": "activations",
}
_TRAFFIC = {
    "batch": "requests in flight over the whole system",
    "prompt": "prompt tokens of a request",
    "output": "tokens generated per request",
    "prefix-hit": "share of the prompt that is cached already",
    "retrieved": "retrieved tokens, cached: read and not computed",
    "encoder-tokens": "tokens an encoder prefixes to the prompt",
    "corpus": "bytes of a retrieval corpus that the system holds",
    "corpus-read": "bytes of it that a request reads before its prefill",
    "weight-updates": "times a second that all weights and the corpus are renewed",
}
_TARGETS = {
    "ttft-target": "longest acceptable time to first token, such as 0.5 or 500ms, 0 for none",
    "tpot-target": "longest acceptable time per output token, such as 0.02 or 20ms, 0 for none",
}
_PICTURES = (".svg", ".png", ".pdf")


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked, apart from the system."""

    name: str
    model: Model
    traffic: Traffic
    plan: Plan
    prices: Prices
    tiers: tuple[str, ...] = ()  # memory tiers added to the system, as given
    near: tuple[str, ...] = ()  # engines near memory, as given
    power_cap: float = 0.0  # W, 0 for that of the system
    by_parts: bool = False  # whether area and price follow from the parts
    settings: tuple[Setting, ...] = ()  # single numbers, set after all else
    objective: str = ""  # what the degrees are chosen by; none where they are given
    choice: str = ""  # how they were chosen, in a line


def read_number(text: str) -> float:
    """Read a finite number from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}; expected a number")
    return value


def _seconds(text: str) -> float:
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else parse_quantity(text, "s")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _auto(text: str) -> str:
    if text != "auto":
        raise argparse.ArgumentTypeError(
            f"got {text[:40]!r}; expected auto, or --tp, --pp, --ep, --dp and --cp"
        )
    return text


def _objective(text: str) -> str:
    if text not in OBJECTIVES:
        raise argparse.ArgumentTypeError(str(not_among(OBJECTIVES, text)))
    return text


def _bits(text: str) -> float:
    try:
        return read_bits(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_request_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options of a model, its traffic, its plan and the surroundings."""
    parser.add_argument("--model", required=required, help="catalogue name, or a Hugging Face config.json")
    group = parser.add_argument_group("traffic")
    _add_numbers(group, _TRAFFIC, Traffic())
    for flag, text in _TARGETS.items():
        group.add_argument(f"--{flag}", type=_seconds, default=0.0, metavar="TIME", help=text)
    group = parser.add_argument_group("plan")
    group.add_argument(
        "--plan",
        type=_auto,
        metavar="auto",
        help="choose tp, pp, cp, dp and ep: the best that hold every constraint",
    )
    group.add_argument(
        "--objective",
        type=_objective,
        default="tpot",
        metavar="NAME",
        help=f"what --plan auto chooses by, one of {', '.join(OBJECTIVES)} (default tpot)",
    )
    _add_numbers(group, _PLAN, Plan())
    group = parser.add_argument_group(
        "bits of an element", f"A number in (0, 32], or one of {', '.join(FORMATS)}."
    )
    for flag, text in _BITS.items():
        group.add_argument(f"--{flag}", type=_bits, default=16.0, metavar="BITS", help=f"{text} (default 16)")
    add_memory_arguments(parser)
    add_cost_arguments(parser)
    group = parser.add_argument_group("surroundings")
    group.add_argument(
        "--skew", type=read_number, metavar="N", help="unevenness of expert popularity, 0 for none"
    )
    group.add_argument(
        "--efficiency", metavar="NAME", help="ideal, typical or a file: achieved shares of the peaks"
    )
    group.add_argument("--prices", metavar="NAME", help="catalogue name or file: money and carbon")
    add_set_argument(group)


def _add_numbers(group: Any, options: dict[str, str], defaults: Any) -> None:
    for flag, text in options.items():
        default = getattr(defaults, flag.replace("-", "_"))
        group.add_argument(
            f"--{flag}", type=read_number, default=default, metavar="N", help=f"{text} (default {default:g})"
        )


def read_request(args: argparse.Namespace) -> Request:
    """Read the catalogue entries that the options name."""
    settings = read_settings(args.settings)
    model = catalog.load_model(args.model)
    if args.skew is not None:
        model = replace(model, experts=replace(model.experts, skew=args.skew))
    plan_fields = {flag.replace("-", "_") for flag in (*_PLAN, *_BITS)}
    traffic_fields = {flag.replace("-", "_") for flag in (*_TRAFFIC, *_TARGETS)}
    plan = Plan(**{name: getattr(args, name) for name in plan_fields}, placement=read_placement(args))
    plan = with_settings("plan", plan, settings)
    if args.plan == "auto":
        for degree in DEGREES:
            if getattr(plan, degree) != 1:
                given = f"{getattr(plan, degree):g}"
                raise InputError(
                    "no degrees beside --plan auto, which chooses them", path=f"--{degree}", given=given
                )
    traffic = Traffic(**{name: getattr(args, name) for name in traffic_fields})
    prices = Prices() if args.prices is None else catalog.load_prices(args.prices)
    return Request(
        name=args.model,
        model=with_settings("model", model, settings),
        traffic=with_settings("traffic", traffic, settings),
        plan=plan,
        prices=with_settings("prices", with_year(prices, args.year), settings),
        tiers=tuple(args.tier),
        near=tuple(args.near),
        power_cap=args.power_cap,
        by_parts=args.by_parts,
        settings=settings,
        objective=args.objective if args.plan == "auto" else "",
    )


def read_system(name: str, efficiency: str | None, request: Request) -> tuple[System, Request, str]:
    """Read a system, choose the plan for it where that is asked, and refuse a request that does not go with it.

    Returns:
        The system, the request with its plan, and one line that says how much of its peaks it is taken to reach.
    """
    system = build_system(name, efficiency, request)
    if request.objective:
        check_traffic(request.traffic, request.model)
        request = _planned(system, request)
    check_plan(system, request.model, request.plan, request.traffic)
    return system, request, describe_efficiency(system.chip.efficiency, efficiency)


def build_system(name: str, efficiency: str | None, request: Request) -> System:
    """Read a system and add what the request changes of it: cap, memories, efficiency, single numbers."""
    # What parts cost is taken of the chip as it is made; tiers added by hand come on top.
    system = with_costs(catalog.load_system(name), name, power_cap=request.power_cap, parts=request.by_parts)
    system = with_memories(system, request.tiers, request.near)
    return with_settings("system", with_efficiency(system, efficiency), request.settings)


def with_efficiency(system: System, name: str | None) -> System:
    """Take the achieved shares of the peaks from a name or file; those of the system where none is given."""
    if name is None:
        return system
    return replace(system, chip=replace(system.chip, efficiency=catalog.load_efficiency(name)))


def _planned(system: System, request: Request) -> Request:
    objective = request.objective
    choice = best_plan(
        system, request.model, request.traffic, request.plan, objective=objective, prices=request.prices
    )
    if not choice.valid:
        expected = "a system whose chips the model and its requests can be spread over"
        raise InputError(expected, path="--plan", given="auto")
    plan, other = (jax.tree.map(float, p) for p in (choice.plan, choice.runner_up))
    found = f"{choice.feasible:.0f} of {choice.valid:.0f} valid plans hold every constraint"
    if choice.feasible > 1:
        found += f"; runner-up by {objective}: {degrees(other)}, {float(choice.gap):.2%} worse"
    return dataclasses.replace(request, plan=plan, choice=found)


def degrees(plan: Plan) -> str:
    """Name the degrees of a plan that are not 1."""
    named = [f"{d} {getattr(plan, d):g}" for d in ("tp", "pp", "ep", "dp", "cp") if getattr(plan, d) != 1]
    return ", ".join(named) or "one chip"


def describe_efficiency(efficiency: Efficiency, name: str | None) -> str:
    """Say in one line how much of the peaks is reached."""
    if efficiency.kernels is not None:
        return f"{name or 'of the system'}: kernels fitted to measurements"
    names = [f.name for f in dataclasses.fields(efficiency) if f.name != "kernels"]
    values = {key: float(getattr(efficiency, key)) for key in names}
    overhead, overlap = values.pop("operator_overhead"), values.pop("overlap")
    if overhead == 0 and overlap == 0 and all(v == 1 for v in values.values()):
        return "ideal roofline: peaks reached"
    shares = ", ".join(f"{key} {value:.0%}" for key, value in values.items())
    return f"{name or 'of the system'}: {shares} of the peaks, {overhead * 1e6:.3g} µs an operator"


def evaluated(system: System, request: Request) -> Report:
    """Evaluate, exactly, and bring every number here."""
    report = evaluate(system, request.model, request.traffic, request.plan, prices=request.prices)
    return jax.device_get(report)


def measure(report: Report | Service) -> Values:
    """Return every number of a result by its path.

    Raises:
        InputError: numbers so large that the arithmetic overflows.
    """
    values = {path: (unit, float(value)) for path, unit, value in rows(report)}
    overflown = [path for path, (_, value) in values.items() if not math.isfinite(value)]
    if overflown:
        raise InputError(
            "sizes and rates for which every result is finite", path=overflown[0], given="overflow"
        )
    return values


def picture_path(text: str) -> Path:
    """Read the name of a picture to write."""
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(
            f"got {text[:60]!r}; expected a name ending in {', '.join(_PICTURES)}"
        )
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"got {text[:60]!r}; expected a name in a folder that exists")
    return path
