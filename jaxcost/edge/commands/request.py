"""The options of one evaluation, and the model, traffic, plan, prices and system that they describe."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax

from jaxcost.core.pytree import replace, rows
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.check import check_plan, check_traffic
from jaxcost.edge.catalog.checkpoints import load_checkpoint
from jaxcost.edge.catalog.engines import DEFAULT_ENGINE
from jaxcost.edge.catalog.set_option import (
    Setting,
    add_set_argument,
    read_settings,
    settings_line,
    with_settings,
)
from jaxcost.edge.commands.cost_options import add_cost_arguments, with_costs, with_year
from jaxcost.edge.commands.draft_options import Draft, add_draft_arguments, describe_draft, read_draft
from jaxcost.edge.commands.efficiency_text import efficiency_notes
from jaxcost.edge.commands.engine_options import (
    EngineChoice,
    add_engine_arguments,
    read_cache_type,
    read_engine,
    set_engine,
    with_expert_kernel,
)
from jaxcost.edge.commands.memory_options import add_memory_arguments, read_placement, with_memories
from jaxcost.edge.commands.precision_options import add_precision_arguments, flag_of, stated_bits
from jaxcost.edge.hf.precision.stored import StoredPrecision
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.show.tables import Values
from jaxcost.evaluation import evaluate
from jaxcost.explore.analysis import DEGREES, OBJECTIVES, best_plan
from jaxcost.explore.serve import Service
from jaxcost.report import Report
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "Request",
    "Values",
    "add_request_arguments",
    "add_system_argument",
    "build_system",
    "degrees",
    "describe_request",
    "evaluate_request",
    "measure",
    "picture_path",
    "read_number",
    "read_request",
    "read_seconds",
    "read_system",
    "unset_targets",
    "with_efficiency",
]

_PLAN = {
    "tp": "tensor-parallel degree",
    "pp": "pipeline stages",
    "ep": "expert-parallel degree",
    "dp": "data-parallel replicas",
    "cp": "context-parallel degree",
    "microbatches": "microbatches of a replica's batch in its pipeline, 0 for one per stage",
    "sequence-parallel": "1 for sequence parallelism: norms split along the sequence, reduce-scatter and all-gather",
    "draft-length": "tokens drafted before each verification",
    "draft-parameters": "weights of a one-layer draft head; 0 for the model's own module or --draft-model",
    "chunk": "prompt tokens prefilled with each decode step (chunked prefill), 0 for none",
    "expert-width-multiple": "multiple to which a kernel pads the width of an expert's shard, 0 for none",
    "expert-input-multiple": "multiple to which a kernel pads the input width of an expert, 0 for none",
    "weight-sparsity": "share of weights that are zero, which are neither stored nor multiplied",
    "activation-sparsity": "share of feed-forward neurons that a token skips",
    "neuron-window": "tokens whose feed-forward neurons stay in main memory",
}
_TRAFFIC = {
    "batch": "requests in flight over the whole system",
    "prompt": "prompt tokens of a request",
    "output": "tokens generated per request",
    "prefix-hit": "share of the prompt that is in the prefix cache",
    "retrieved": "retrieved tokens whose KV is cached: read, not computed",
    "encoder-tokens": "tokens that an encoder prepends to the prompt",
    "corpus": "bytes of a retrieval corpus in the memory of the system",
    "corpus-read": "bytes of the corpus that a request reads before its prefill",
    "weight-updates": "rewrites of all weights and the corpus per second",
}
_TARGETS = {
    "ttft-target": "longest acceptable time to first token, such as 0.5 or 500ms, 0 for none",
    "tpot-target": "longest acceptable time per output token, such as 0.02 or 20ms, 0 for none",
}
_PICTURES = (".svg", ".png", ".pdf")


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate, apart from the system."""

    name: str
    model: Model
    precision: StoredPrecision
    traffic: Traffic
    plan: Plan
    prices: Prices
    tiers: tuple[str, ...] = ()  # texts of --tier: memory tiers added to the system
    near: tuple[str, ...] = ()  # texts of --near: engines near memory
    power_cap: float = 0.0  # W; 0 keeps that of the system
    by_parts: bool = False  # whether area and price are computed from the parts
    settings: tuple[Setting, ...] = ()  # numbers of --set, applied last
    objective: str = ""  # metric by which --plan auto chooses the degrees; empty where they are given
    choice: str = ""  # description of that choice
    stated_bits: dict[str, str] = dataclasses.field(
        default_factory=dict
    )  # field of a plan: flag that states it
    notes: tuple[str, ...] = ()  # what was assumed, left out or ignored of the model
    draft: Draft = dataclasses.field(default_factory=Draft)  # options of speculative decoding
    engine: EngineChoice = dataclasses.field(
        default_factory=EngineChoice
    )  # set in the plan where the system is known


def read_number(text: str) -> float:
    """Read a finite number from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}; expected a number")
    return value


def read_seconds(text: str) -> float:
    """Read a time from the command line: a number of seconds, or a number with a unit."""
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


def add_request_arguments(
    parser: argparse.ArgumentParser, *, required: bool = True, engine: str = DEFAULT_ENGINE
) -> None:
    """Add the options of a model, its traffic, its plan, prices and efficiency; `engine` is the default engine."""
    parser.add_argument(
        "--model",
        required=required,
        help="catalogue name, a config.json or its folder, or a Hugging Face id of the catalogue or the local cache",
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch the configuration files of a Hugging Face id that is in neither (requires huggingface_hub)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse a type of model that no family names, instead of reading it by its fields",
    )
    group = parser.add_argument_group("traffic")
    _add_numbers(group, _TRAFFIC, Traffic())
    for flag, text in _TARGETS.items():
        group.add_argument(f"--{flag}", type=read_seconds, default=0.0, metavar="TIME", help=text)
    group = parser.add_argument_group("plan")
    group.add_argument(
        "--plan",
        type=_auto,
        metavar="auto",
        help="choose tp, pp, cp, dp and ep: the best plan that satisfies every constraint",
    )
    group.add_argument(
        "--objective",
        type=_objective,
        default="tpot",
        metavar="NAME",
        help=f"metric by which --plan auto chooses, one of {', '.join(OBJECTIVES)} (default tpot)",
    )
    _add_numbers(group, _PLAN, Plan())
    add_draft_arguments(group, read_number)
    add_engine_arguments(parser, read_number, engine)
    add_precision_arguments(parser)
    add_memory_arguments(parser)
    add_cost_arguments(parser)
    group = parser.add_argument_group("model, efficiency and prices")
    group.add_argument(
        "--skew", type=read_number, metavar="N", help="skew of expert popularity, 0 for uniform routing"
    )
    group.add_argument(
        "--efficiency",
        metavar="NAME",
        help="achieved shares of peak rates: a catalogue name such as ideal or typical, or a YAML file",
    )
    group.add_argument(
        "--prices",
        metavar="NAME",
        help="prices of energy and hardware, and their carbon: a catalogue name, or a YAML file",
    )
    add_set_argument(group)


def add_system_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option of a system."""
    parser.add_argument("--system", required=True, help="catalogue name such as h100-sxm-x8, or a YAML file")


def _add_numbers(group: Any, options: dict[str, str], defaults: Any) -> None:
    for flag, text in options.items():
        default = getattr(defaults, flag.replace("-", "_"))
        group.add_argument(
            f"--{flag}", type=read_number, default=default, metavar="N", help=f"{text} (default {default:g})"
        )


def read_request(args: argparse.Namespace) -> Request:
    """Build the request that the options describe."""
    settings = read_settings(args.settings)
    checkpoint = load_checkpoint(
        args.model, quantization=args.quantization, download=args.download, strict=args.strict
    )
    model = checkpoint.model
    if args.skew is not None:
        model = replace(model, experts=replace(model.experts, skew=args.skew))
    plan_fields = {flag.replace("-", "_") for flag in _PLAN}
    stated, of_cache = stated_bits(args), read_cache_type(args)
    traffic_fields = {flag.replace("-", "_") for flag in (*_TRAFFIC, *_TARGETS)}
    plan = checkpoint.plan(
        **{name: getattr(args, name) for name in plan_fields},
        **stated,
        **of_cache,
        placement=read_placement(args),
    )
    plan, padding = with_expert_kernel(args, plan, checkpoint.precision)
    plan = with_settings("plan", read_draft(args, plan, model), settings)
    if args.plan == "auto":
        for degree in DEGREES:
            if getattr(plan, degree) != 1:
                given = f"{getattr(plan, degree):g}"
                raise InputError(
                    "no degrees with --plan auto, which chooses them", path=f"--{degree}", given=given
                )
    traffic = Traffic(**{name: getattr(args, name) for name in traffic_fields})
    prices = Prices() if args.prices is None else catalog.load_prices(args.prices)
    return Request(
        name=args.model,
        model=with_settings("model", model, settings),
        precision=checkpoint.precision,
        traffic=with_settings("traffic", traffic, settings),
        plan=plan,
        prices=with_settings("prices", with_year(prices, args.year), settings),
        tiers=tuple(args.tier),
        near=tuple(args.near),
        power_cap=args.power_cap,
        by_parts=args.by_parts,
        settings=settings,
        objective=args.objective if args.plan == "auto" else "",
        stated_bits={name: flag_of(name) for name in stated} | dict.fromkeys(of_cache, "--kv-cache-dtype"),
        notes=checkpoint.notes + padding,
        draft=Draft(args.draft_model, args.acceptance),
        engine=read_engine(args),
    )


def read_system(name: str, efficiency: str | None, request: Request) -> tuple[System, Request, list[str]]:
    """Load a system, choose a plan for it where the request has an objective, and validate the request.

    Returns:
        The system, the request with its plan and engine, and a one-line description of the efficiency.
    """
    system = build_system(name, efficiency, request)
    plan = with_settings("plan", set_engine(request.plan, request.engine, name), request.settings)
    request = dataclasses.replace(request, plan=plan)
    if request.objective:
        check_traffic(request.traffic, request.model)
        request = _planned(system, request)
    check_plan(system, request.model, request.plan, request.traffic)
    notes = efficiency_notes(name, efficiency, system, request.model, request.plan)
    return system, request, notes


def build_system(name: str, efficiency: str | None, request: Request) -> System:
    """Load a system and apply the power cap, memories, efficiency and single numbers of the request."""
    # --by-parts prices the chip of the catalogue; tiers of --tier are added afterwards.
    system = with_costs(catalog.load_system(name), name, power_cap=request.power_cap, parts=request.by_parts)
    system = with_memories(system, request.tiers, request.near)
    return with_settings("system", with_efficiency(system, efficiency, name), request.settings)


def with_efficiency(system: System, name: str | None, system_name: str) -> System:
    """Replace the efficiency of a system by a named one on its chip; None keeps it."""
    if name is None:
        return system
    efficiency = catalog.load_efficiency(name, catalog.chip_of_system(system_name))
    return replace(system, chip=replace(system.chip, efficiency=efficiency))


def _planned(system: System, request: Request) -> Request:
    objective = request.objective
    choice = best_plan(
        system, request.model, request.traffic, request.plan, objective=objective, prices=request.prices
    )
    if not choice.valid:
        expected = "a system on whose chips the model and its requests can be sharded"
        raise InputError(expected, path="--plan", given="auto")
    plan, other = (jax.tree.map(float, p) for p in (choice.plan, choice.runner_up))
    description = f"{choice.feasible:.0f} of {choice.valid:.0f} valid plans satisfy every constraint"
    if choice.feasible > 1:
        description += f"; runner-up by {objective}: {degrees(other)}, {float(choice.gap):.2%} worse"
    return dataclasses.replace(request, plan=plan, choice=description)


def describe_request(request: Request) -> str:
    """Return a description of the traffic and the plan, of one line or two."""
    plan, traffic = request.plan, request.traffic
    requests = f"batch {traffic.batch:g}, prompt {traffic.prompt:g}, output {traffic.output:g} tokens"
    # With several systems, each may get a plan of its own.
    chosen_later = request.objective and not request.choice
    sharding = f"degrees chosen by {request.objective}" if chosen_later else degrees(plan)
    draft = f"; {text}" if (text := describe_draft(plan, request.draft)) else ""
    return f"{requests}; {sharding}{draft}{settings_line(request.settings)}"


def unset_targets(request: Request) -> list[str]:
    """Return which of the TTFT and TPOT targets are not set."""
    return [name for name in ("ttft", "tpot") if getattr(request.traffic, f"{name}_target") == 0]


def degrees(plan: Plan) -> str:
    """Return the degrees of a plan that are not 1 as text."""
    named = [f"{d} {getattr(plan, d):g}" for d in ("tp", "pp", "ep", "dp", "cp") if getattr(plan, d) != 1]
    return ", ".join(named) or "one chip"


def evaluate_request(system: System, request: Request) -> Report:
    """Evaluate a request on a system; the report is on the host."""
    report = evaluate(system, request.model, request.traffic, request.plan, prices=request.prices)
    return jax.device_get(report)


def measure(report: Report | Service) -> Values:
    """Return every number of a result, with its unit, by dotted path.

    Raises:
        InputError: a number is not finite, as the arithmetic overflowed.
    """
    values = {path: (unit, float(value)) for path, unit, value in rows(report)}
    overflown = [path for path, (_, value) in values.items() if not math.isfinite(value)]
    if overflown:
        raise InputError(
            "sizes and rates for which every result is finite", path=overflown[0], given="overflow"
        )
    return values


def picture_path(text: str) -> Path:
    """Validate the file name of a plot."""
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(
            f"got {text[:60]!r}; expected a name ending in {', '.join(_PICTURES)}"
        )
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"got {text[:60]!r}; expected a name in a folder that exists")
    return path
