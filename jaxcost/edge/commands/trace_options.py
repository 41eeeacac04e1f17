"""Options that name a trace: a file, or a synthetic workload with its parameters."""

import argparse
from collections.abc import Container
from typing import Any

from jaxcost.edge.commands.request import read_number
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.traces.reader import FORMATS, load_trace
from jaxcost.explore.replay import ARRIVALS, agent_trace, synthetic_trace
from jaxcost.spec.trace import Trace

__all__ = ["PARAMETERS", "WORKLOADS", "add_trace_arguments", "read_trace_options"]

WORKLOADS = (*ARRIVALS, "agents")

# Option, the workloads that it applies to, and what it is; the name is that of the argument in Python.
_REQUESTS = ARRIVALS
_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "prompt": (_REQUESTS, "mean prompt tokens (default 1024)"),
    "prompt-cv": (_REQUESTS, "coefficient of variation of prompts, lognormal; 0 for equal ones (default 0)"),
    "output": (WORKLOADS, "mean output tokens (default 256)"),
    "output-cv": (WORKLOADS, "coefficient of variation of outputs, lognormal (default 0; agents 1)"),
    "burstiness": (("gamma",), "squared coefficient of variation of the gaps (default 4)"),
    "amplitude": (("diurnal",), "relative amplitude of the rate, 0 to 1 (default 0.5)"),
    "period": (("diurnal",), "period of the rate, s (default: the duration)"),
    "on": (("bursts",), "mean duration of a burst, s (default 10)"),
    "off": (("bursts",), "mean silence between bursts, s (default 30)"),
    "sessions": (("agents",), "number of sessions (default 100)"),
    "session-rate": (("agents",), "sessions that begin, 1/s (default 0.1)"),
    "turns": (("agents",), "mean turns of a session (default 8)"),
    "turns-cv": (("agents",), "coefficient of variation of the turns (default 0)"),
    "system-prompt": (("agents",), "tokens that every prompt begins with (default 4096)"),
    "new-tokens": (("agents",), "mean tokens that a user or tool adds a turn (default 512)"),
    "new-tokens-cv": (("agents",), "their coefficient of variation (default 1)"),
    "think": (("agents",), "mean time of a user or tool between turns, s (default 10)"),
    "ttft": (("agents",), "time to first token that the next turn waits for, s (default 0.5)"),
    "tpot": (("agents",), "time per output token that the next turn waits for, s (default 0.02)"),
    "max-context": (("agents",), "tokens at which a session ends, 0 for no limit (default 0)"),
    "seed": (WORKLOADS, "seed of the random numbers (default 0)"),
}
PARAMETERS = ("format", "block-tokens", "characters-per-token", "lengths", *_OPTIONS)
_WHOLE = ("sessions", "seed", "system-prompt", "max-context")


def add_trace_arguments(
    parser: argparse.ArgumentParser, *, file: str = "file", without: Container[str] = ()
) -> None:
    """Add a file, or the parameters of a synthetic workload.

    Args:
        parser: the parser.
        file: name of the argument or the option that names the file.
        without: parameters of synthetic workloads that are left out, as the parser has an option of that name.
    """
    optional: dict[str, Any] = {} if file.startswith("-") else {"nargs": "?"}
    parser.add_argument(file, **optional, metavar="FILE", help=f"trace as {', '.join(FORMATS)}")
    parser.add_argument("--format", metavar="NAME", help="format of the file, instead of the one recognized")
    parser.add_argument(
        "--block-tokens",
        type=read_number,
        metavar="N",
        help="tokens of a block (default 512, conversations 16)",
    )
    parser.add_argument(
        "--characters-per-token", type=read_number, metavar="N", help="to estimate tokens of text (default 4)"
    )
    parser.add_argument("--rate", type=read_number, metavar="N", help="requests/s: scales the arrivals")
    parser.add_argument(
        "--requests", type=read_number, metavar="N", help="number of requests, the first of a file"
    )
    group = parser.add_argument_group("synthetic workload, instead of a file")
    group.add_argument("--synthetic", metavar="KIND", help=f"one of {', '.join(WORKLOADS)}")
    group.add_argument("--lengths", metavar="FILE", help="trace of which prompts and outputs are drawn")
    for name, (workloads, text) in _OPTIONS.items():
        if name in without:
            continue
        limited = (
            ""
            if workloads == WORKLOADS
            else f"{'/'.join(workloads) if len(workloads) < 4 else 'not agents'}: "
        )
        group.add_argument(f"--{name}", type=read_number, metavar="N", help=limited + text)


def read_trace_options(args: argparse.Namespace) -> Trace:
    """Return the trace of a file, or a synthetic one.

    Raises:
        InputError: both or neither are named, or an option does not apply or is out of its range.
    """
    if (args.file is None) == (args.synthetic is None):
        given = "both" if args.file is not None else "neither"
        raise InputError("a FILE or --synthetic", given=given)
    for name in ("requests", "block_tokens", *(name.replace("-", "_") for name in _WHOLE)):
        value = getattr(args, name)
        if value is not None and (value != int(value) or value < (name in ("requests", "block_tokens"))):
            raise InputError("a whole number", path=f"--{name.replace('_', '-')}", given=value)
    if args.file is not None:
        return _read_file(args)
    if args.synthetic not in WORKLOADS:
        raise not_among(WORKLOADS, args.synthetic, path="--synthetic")
    return _make(args)


def _read_file(args: argparse.Namespace) -> Trace:
    for name in ("lengths", *_OPTIONS):
        if (value := getattr(args, name.replace("-", "_"))) is not None:
            raise InputError("--synthetic as well", path=f"--{name}", given=value)
    trace = load_trace(
        args.file,
        format=args.format or "",
        block_tokens=int(args.block_tokens or 0),
        characters_per_token=4.0 if args.characters_per_token is None else args.characters_per_token,
    )
    if args.requests is not None:
        trace = trace.first(int(args.requests))
    return trace if args.rate is None else _scaled(trace, args.rate)


def _scaled(trace: Trace, rate: float) -> Trace:
    try:
        return trace.scaled_to(rate)
    except ValueError as error:
        raise InputError(f"a rate that the trace can have ({error})", path="--rate", given=rate) from None


def _make(args: argparse.Namespace) -> Trace:
    kind, values = args.synthetic, {}
    for name, (workloads, _) in _OPTIONS.items():
        value = getattr(args, name.replace("-", "_"))
        if value is not None and kind not in workloads:
            raise InputError(f"--synthetic {' or '.join(workloads)}", path=f"--{name}", given=value)
        if value is not None:
            values[name.replace("-", "_")] = int(value) if name in _WHOLE else value
    unused = [
        "format",
        "characters_per_token",
        *(("lengths", "requests") if kind == "agents" else ("block_tokens",)),
    ]
    for name in unused:
        if (value := getattr(args, name)) is not None:
            raise InputError(
                f"no such option with --synthetic {kind}", path=f"--{name.replace('_', '-')}", given=value
            )
    return _call(args, kind, values)


def _call(args: argparse.Namespace, kind: str, values: dict[str, Any]) -> Trace:
    try:
        if kind == "agents":
            if args.block_tokens is not None:
                values["block_tokens"] = int(args.block_tokens)
            trace = agent_trace(**values)
            return trace if args.rate is None else _scaled(trace, args.rate)
        if args.rate is None:
            raise InputError("requests a second", path="--rate", given="no --rate")
        if args.lengths is not None:
            values["lengths"] = load_trace(args.lengths)
        if args.requests is not None:
            values["requests"] = int(args.requests)
        return synthetic_trace(kind, rate=args.rate, **values)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"parameters of a workload ({error})", path="--synthetic", given=kind) from None
