"""`jaxcost fit`: what fits in the memory of a system, as a serving engine divides it."""

import argparse
import dataclasses
import json
import sys
from typing import Any, NamedTuple

import jax
from rich.table import Table
from rich.text import Text

from jaxcost.core.pytree import replace
from jaxcost.core.units import engineering, number
from jaxcost.edge.catalog.parts import list_names
from jaxcost.edge.catalog.set_option import described_settings
from jaxcost.edge.commands.engine_options import (
    CONTEXT_FLAGS,
    check_name,
    describe_engine,
    engine_document,
)
from jaxcost.edge.commands.fit_option import add_require_fit_argument, fit_status
from jaxcost.edge.commands.precision_text import precision_document, precision_lines
from jaxcost.edge.commands.request import (
    Request,
    add_request_arguments,
    add_system_argument,
    degrees,
    read_number,
    read_request,
    read_system,
)
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.show import tables
from jaxcost.edge.show.allotment import allotment_lines
from jaxcost.explore.serve import MEASURABLE, ChipCount, MemoryFit, count_chips, fit, whole_requests
from jaxcost.physics.compute.shards import microbatches
from jaxcost.spec.plan import Plan
from jaxcost.spec.traffic import Traffic

__all__ = ["add_fit_arguments", "fit_command"]

_DEFAULT_CONTEXT = 8192.0
_MEASURED = {
    "weights_bytes": "weights on a chip",
    "activation_bytes": "peak of working buffers",
    "reserved_bytes": "runtime and communicators (non-torch memory)",
    "graph_bytes": "captured CUDA graphs",
}


class _Fit(NamedTuple):
    """What fits, with what a user asked for."""

    request: Request
    system: str
    chips: float  # of the system
    memory: Any  # `MemoryFit` in Python's numbers
    users: float | None
    fewest: ChipCount | None

    @property
    def replicas(self) -> float:
        return float(self.request.plan.dp)

    @property
    def requests(self) -> float:
        """Whole requests, the same number in every replica."""
        return float(whole_requests(self.memory.requests, self.replicas))

    @property
    def fits(self) -> bool:
        return self.requests >= (self.users or 1)


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    parser.set_defaults(prompt=None, output=None)
    add_system_argument(parser)
    group = parser.add_argument_group("what must fit")
    group.add_argument(
        "--context",
        type=read_number,
        metavar="N",
        help=f"tokens of a request, prompt and output (default {_DEFAULT_CONTEXT:,.0f}, or --prompt and --output)",
    )
    for flag in CONTEXT_FLAGS:
        group.add_argument(f"--{flag}", type=read_number, metavar="N", help="the engine's name of --context")
    group.add_argument(
        "--users",
        type=read_number,
        metavar="N",
        help="concurrent requests that must fit: shows the share of memory and the number of chips that suffice",
    )
    add_require_fit_argument(group, "the users, or one request, do not fit")
    group = parser.add_argument_group(
        "measured instead of computed, such as 1.89GiB; logs of an engine state them"
    )
    for name, text in _MEASURED.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=_bytes, metavar="BYTES", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _bytes(text: str) -> float:
    try:
        return parse_quantity(text, "B")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def fit_command(args: argparse.Namespace) -> int:
    """Compute what fits and print it."""
    context, defaults = _read_context(args), Traffic()
    if args.batch != defaults.batch:
        raise InputError("--users, the requests that must fit", path="--batch", given=args.batch)
    if args.users is not None and (args.users < 1 or args.users != int(args.users)):
        raise InputError("a whole number of at least 1", path="--users", given=args.users)
    args.prompt, args.output = args.prompt or context, args.output or defaults.output
    request = read_request(args)
    groups = request.plan.dp * float(microbatches(request.plan))
    request = dataclasses.replace(
        request, traffic=replace(request.traffic, batch=max(args.users or 1, groups))
    )
    system, request, _ = read_system(args.system, args.efficiency, request)
    measured = {name: value for name in MEASURABLE if (value := getattr(args, name)) is not None}
    users = args.users or request.plan.dp
    memory = fit(system, request.model, request.plan, context=context, users=users, measured=measured)
    memory = jax.tree.map(float, jax.device_get(memory))
    count = None
    if args.users is not None:
        count = count_chips(system, request.model, request.plan, context=context, users=args.users)
    result = _Fit(request, args.system, float(system.chips), memory, args.users, count)
    if args.json:
        sys.stdout.write(json.dumps(_document(result), indent=2, allow_nan=False) + "\n")
    else:
        _print(result, measured)
    return fit_status(args, exceeded=not result.fits)


def _read_context(args: argparse.Namespace) -> float:
    named = {flag: getattr(args, flag.replace("-", "_")) for flag in ("context", *CONTEXT_FLAGS)}
    named = {flag: value for flag, value in named.items() if value is not None}
    for flag, value in named.items():
        if flag != "context":
            check_name(args.engine, "context", flag)
        if value < 1 or value != int(value):
            raise InputError("a whole number of tokens, at least 1", path=f"--{flag}", given=value)
    parts = [value for value in (args.prompt, args.output) if value is not None]
    if len(named) + bool(parts) > 1:
        last = list(named)[-1]
        raise InputError("the context once, or --prompt and --output", path=f"--{last}", given=named[last])
    return sum(parts) if parts else next(iter(named.values()), _DEFAULT_CONTEXT)


def _document(result: _Fit) -> dict[str, Any]:
    m, request, count = result.memory, result.request, result.fewest
    return {
        "model": request.name,
        "system": result.system,
        "fits": result.fits,
        **{f.name: getattr(m, f.name) for f in dataclasses.fields(MemoryFit)},
        "chips_used": _chips(request.plan),
        "chips_needed": None if count is None else count.chips,
        "plan_needed": None if count is None or not count.chips else _degrees(count.plan),
        "plan": _degrees(request.plan),
        **engine_document(request.engine, request.plan),
        **described_settings(request.settings),
        **{"notes": [], **precision_document(request)},
    }


def _degrees(plan: Plan) -> dict[str, float]:
    return {name: float(getattr(plan, name)) for name in ("tp", "pp", "ep", "dp", "cp")}


def _chips(plan: Plan) -> float:
    return float(plan.tp * plan.pp * plan.cp * plan.dp)


def _hardware(result: _Fit) -> str:
    """Return the chips in use as text, such as 2 x h100-sxm."""
    used = _chips(result.request.plan)
    chip, _, size = result.system.rpartition("-x")
    named = chip if size.isdecimal() and chip in list_names("chips") else result.system
    if named in list_names("chips"):
        return f"{used:g} x {named}"
    return f"{used:g} of {result.chips:g} chips of {result.system}"


def _verdict(result: _Fit) -> str:
    """Return in one line what fits, or by how much it does not."""
    m, where = result.memory, _hardware(result)
    tokens = f"{m.context:,.0f} tokens"
    if m.kv_bytes <= 0:
        left = m.weights_bytes + m.kv_bytes
        if left <= 0:
            short = f"the rest takes {_gib(-left)} more than the engine has, before any weights"
        else:
            short = f"weights take {_gib(-m.kv_bytes)} more than the {_gib(left)} that are left for them"
        return f"does not fit on {where}: {short}"
    requests = result.requests
    if result.users is not None and not result.fits:
        return f"{result.users:,.0f} requests of {tokens} do not fit on {where}: {requests:,.0f} do"
    if requests == 0:
        return (
            f"no request of {tokens} fits on {where}: it takes {_gib(m.request_bytes)}, "
            f"{_gib(m.kv_bytes)} are left; the longest context is {m.longest_context:,.0f}"
        )
    fit_text = (
        f"{requests:,.0f} request{'s' * (requests != 1)} of {tokens} fit{'s' * (requests == 1)} on {where}"
    )
    return fit_text if result.users is None else f"{result.users:,.0f} requests fit: {fit_text}"


def _gib(size: float) -> str:
    return f"{number(size / 2**30)} GiB"


def _print(result: _Fit, measured: dict[str, float]) -> None:
    request, plan = result.request, result.request.plan
    verdict = Text(_verdict(result), "bold green" if result.fits else "bold red")
    engine = plan.engine
    limit = float(engine.sequences * plan.dp)
    notes = []
    if 0 < limit < result.requests:
        notes.append(f"the engine runs at most {limit:,.0f} of these requests at a time")
    if result.replicas > 1:
        notes.append(f"each of {result.replicas:g} replicas holds the same number of requests")
    tables.write(
        verdict,
        Text(f"{request.name} on {result.system}; {degrees(plan)}", "bold"),
        *precision_lines(request),
        Text(f"Engine: {describe_engine(request.engine, plan)}"),
        *(Text(f"Note: {note}", "yellow") for note in notes),
        Text(""),
        _memory_table(result, measured),
        _result_table(result),
        *allotment_lines(request.model, plan, request.engine.name, result.memory.context),
    )


def _memory_table(result: _Fit, measured: dict[str, float]) -> Table:
    m, engine = result.memory, result.request.plan.engine
    outside = "outside" if engine.graphs_outside else "inside"
    budget = float(engine.step_tokens)
    step = f"step of {min(budget, m.context) if not engine.profiled else budget or m.context:,.0f} tokens"
    rows = []
    for name, label in (
        ("weights_bytes", "Weights"),
        ("activation_bytes", f"Working buffers, {step}"),
        ("reserved_bytes", "Runtime and communicators"),
        ("graph_bytes", f"CUDA graphs, {outside} of the engine's share"),
        ("kv_bytes", "KV cache and states"),
        ("unused_bytes", "Left free"),
        ("capacity_bytes", "Memory of a chip"),
    ):
        size = getattr(m, name)
        mark = " (measured)" if name in measured else ""
        rows.append(
            (
                label + mark,
                f"{size / 2**30:,.2f} GiB",
                f"{size / 1e9:,.2f} GB",
                f"{size / m.capacity_bytes:.1%}",
            )
        )
    return tables.unwrapped(tables.plain_table("Memory of the fullest chip", ("", "", "", ""), rows))


def _result_table(result: _Fit) -> Table:
    m, count = result.memory, result.fewest
    rows = [
        ("KV tokens, all replicas", f"{m.kv_tokens:,.0f}"),
        (f"A request of {m.context:,.0f} tokens, on a chip", engineering(m.request_bytes, "B")),
        (f"Requests of {m.context:,.0f} tokens", f"{m.requests:,.2f}"),
    ]
    alone = m.users == result.replicas
    whose = "one request" if alone and m.users == 1 else f"{m.users:,.0f} requests"
    rows.append((f"Longest context of {whose}", f"{m.longest_context:,.0f} tokens"))
    if result.users is not None:
        share = f"{m.memory_share:.1%}" if m.memory_share <= 1 else "more than all"
        rows.append((f"Share of memory that {whose} need", share))
    if count is not None:
        text = f"{count.chips:g} ({degrees(count.plan)})" if count.chips else "more than 64"
        rows.append((f"Fewest chips for {whose}, a power of two", text))
    return tables.unwrapped(tables.plain_table("What fits", ("", ""), rows))
