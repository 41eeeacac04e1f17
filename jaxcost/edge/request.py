"""The options that describe one evaluation, and how they become trees."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

from jaxcost.core.pytree import replace, rows
from jaxcost.edge import catalog
from jaxcost.edge.check import check_plan
from jaxcost.edge.errors import InputError
from jaxcost.edge.formats import FORMATS, read_bits
from jaxcost.edge.quantity import parse_quantity
from jaxcost.evaluate import evaluate
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
    "measure",
    "picture_path",
    "read_number",
    "read_request",
    "read_system",
]

Values = dict[str, tuple[str, float]]  # dotted path in a report: (unit, value)

_PLAN = {
    "tp": "tensor-parallel degree",
    "pp": "pipeline stages",
    "ep": "expert-parallel degree",
    "dp": "data-parallel replicas",
    "cp": "context-parallel degree",
    "draft-length": "tokens drafted before each verification",
    "acceptance": "probability that a drafted token is accepted",
    "draft-parameters": "weights of the draft model; 0 for the model's own module",
    "chunk": "prompt tokens prefilled along with each decode step, 0 for none",
    "weight-sparsity": "share of weights that are zero, neither stored nor multiplied",
    "activation-sparsity": "share of feed-forward neurons a token skips",
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


def _bits(text: str) -> float:
    try:
        return read_bits(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a model, its traffic, its plan and the surroundings."""
    parser.add_argument("--model", required=True, help="catalogue name, or a Hugging Face config.json")
    group = parser.add_argument_group("traffic")
    _add_numbers(group, _TRAFFIC, Traffic())
    for flag, text in _TARGETS.items():
        group.add_argument(f"--{flag}", type=_seconds, default=0.0, metavar="TIME", help=text)
    group = parser.add_argument_group("plan")
    _add_numbers(group, _PLAN, Plan())
    group = parser.add_argument_group(
        "bits of an element", f"A number in (0, 32], or one of {', '.join(FORMATS)}."
    )
    for flag, text in _BITS.items():
        group.add_argument(f"--{flag}", type=_bits, default=16.0, metavar="BITS", help=f"{text} (default 16)")
    group = parser.add_argument_group("surroundings")
    group.add_argument(
        "--skew", type=read_number, metavar="N", help="unevenness of expert popularity, 0 for none"
    )
    group.add_argument(
        "--efficiency", metavar="NAME", help="ideal, typical or a file: achieved shares of the peaks"
    )
    group.add_argument("--prices", metavar="NAME", help="catalogue name or file: money and carbon")


def _add_numbers(group: Any, options: dict[str, str], defaults: Any) -> None:
    for flag, text in options.items():
        default = getattr(defaults, flag.replace("-", "_"))
        group.add_argument(
            f"--{flag}", type=read_number, default=default, metavar="N", help=f"{text} (default {default:g})"
        )


def read_request(args: argparse.Namespace) -> Request:
    """Read the catalogue entries that the options name."""
    model = catalog.load_model(args.model)
    if args.skew is not None:
        model = replace(model, experts=replace(model.experts, skew=args.skew))
    plan_fields = {flag.replace("-", "_") for flag in (*_PLAN, *_BITS)}
    traffic_fields = {flag.replace("-", "_") for flag in (*_TRAFFIC, *_TARGETS)}
    return Request(
        name=args.model,
        model=model,
        traffic=Traffic(**{name: getattr(args, name) for name in traffic_fields}),
        plan=Plan(**{name: getattr(args, name) for name in plan_fields}),
        prices=Prices() if args.prices is None else catalog.load_prices(args.prices),
    )


def read_system(name: str, efficiency: str | None, request: Request) -> tuple[System, str]:
    """Read a system, and refuse the request if it does not go with it.

    Returns:
        The system, and one line that says how much of its peaks it is taken to reach.
    """
    system = catalog.load_system(name)
    if efficiency is not None:
        system = replace(system, chip=replace(system.chip, efficiency=catalog.load_efficiency(efficiency)))
    check_plan(system, request.model, request.plan, request.traffic)
    return system, describe_efficiency(system.chip.efficiency, efficiency)


def describe_efficiency(efficiency: Efficiency, name: str | None) -> str:
    """Say in one line how much of the peaks is reached."""
    values = {f.name: float(getattr(efficiency, f.name)) for f in dataclasses.fields(efficiency)}
    overhead = values.pop("operator_overhead")
    if overhead == 0 and all(v == 1 for v in values.values()):
        return "ideal roofline: peaks reached"
    shares = ", ".join(f"{key} {value:.0%}" for key, value in values.items())
    return f"{name or 'of the system'}: {shares} of the peaks, {overhead * 1e6:.3g} µs an operator"


def measure(system: System, request: Request) -> Values:
    """Evaluate, exactly, and return every number of the report.

    Raises:
        InputError: numbers so large that the arithmetic overflows.
    """
    report = evaluate(system, request.model, request.traffic, request.plan, prices=request.prices)
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
