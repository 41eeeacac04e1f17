"""Options of `jaxcost replay`: the workload, the replicas and the prefix cache."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxcost.core.pytree import replace
from jaxcost.core.units import engineering
from jaxcost.edge.commands.prefill_options import add_prefill_arguments
from jaxcost.edge.commands.request import Request, read_number, read_request, read_seconds
from jaxcost.edge.commands.trace_options import (
    PARAMETERS,
    add_trace_arguments as add_source_arguments,
    read_trace_options,
)
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.traces.bench_results import read_bench_file, trace_of_result
from jaxcost.explore.recommend import mean_traffic
from jaxcost.explore.replay import ROUTERS, PrefixCache
from jaxcost.explore.serve import fit
from jaxcost.physics.compute.shards import complete_plan, microbatches
from jaxcost.physics.memory.capacity import kv_bytes_per_token
from jaxcost.physics.memory.tiers import read_seconds as seconds_per_byte
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.trace import Trace
from jaxcost.spec.traffic import Traffic

__all__ = ["Load", "add_replay_options", "read_load", "read_prefix_cache", "read_replayed_request"]

_TIERS = ("hbf", "host", "cxl", "ssd")
_TARGETS = ("ttft", "tpot")
_LENGTHS = ("prompt", "output")
_OF_MEANS = (
    "batch",
    "prefix-hit",
    "retrieved",
    "encoder-tokens",
    "corpus",
    "corpus-read",
    "weight-updates",
)  # traffic of the closed forms, which no trace has


@dataclasses.dataclass(frozen=True)
class Load:
    """What is replayed: the trace, how its requests are sent, and the measured result to compare with."""

    trace: Trace
    concurrency: int = 0
    seed: int = 0
    measured: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def add_replay_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser that has those of a request."""
    add_source_arguments(parser, file="--trace", without=(*_LENGTHS, *_TARGETS))
    group = parser.add_argument_group("load")
    group.add_argument(
        "--concurrency",
        type=read_number,
        metavar="N",
        help="closed loop: most requests at a time; the next one is sent when one is finished, not before it arrives",
    )
    group.add_argument("--at-once", action="store_true", help="all requests arrive at 0 s")
    group.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="result of vllm bench serve, or of --out, to show next to the replay; its requests are replayed where "
        "no other trace is named",
    )
    for name in _TARGETS:
        group.add_argument(
            f"--{name}",
            dest=f"{name}_target",
            type=read_seconds,
            default=argparse.SUPPRESS,
            metavar="TIME",
            help=f"the same as --{name}-target",
        )
    group = parser.add_argument_group("replicas and prefix cache")
    group.add_argument(
        "--replicas", type=read_number, default=1.0, metavar="N", help="replicas of the plan (default 1)"
    )
    group.add_argument(
        "--router",
        default=ROUTERS[0],
        metavar="NAME",
        help=f"how requests go to replicas: {', '.join(ROUTERS)} (default {ROUTERS[0]})",
    )
    group.add_argument(
        "--prefix-cache",
        metavar="SIZE",
        help="memory of a replica for the KV of earlier prompts, in tokens or bytes such as 100GB, or inf (default "
        "none)",
    )
    group.add_argument(
        "--prefix-cache-slow",
        metavar="SIZE",
        help="the same behind it, in --prefix-cache-tier: what is found there is loaded first",
    )
    group.add_argument(
        "--prefix-cache-tier",
        metavar="TIER",
        help=f"memory tier of the chips that has it: {', '.join(_TIERS)} (--tier adds one)",
    )
    add_prefill_arguments(parser).add_argument(
        "--prefill-replicas",
        type=read_number,
        metavar="N",
        help="replicas of the prefill pool (default 1)",
    )


def read_load(args: argparse.Namespace) -> Load:
    """Return the trace and how it is sent.

    Raises:
        InputError: no trace or several, or an option that does not apply or is out of its range.
    """
    for name in ("replicas", "concurrency", "prefill_replicas"):
        value = getattr(args, name)
        if value is not None and (value < 1 or value != int(value)):
            raise InputError("a whole number of at least 1", path=f"--{name.replace('_', '-')}", given=value)
    if args.router not in ROUTERS:
        raise not_among(ROUTERS, args.router, path="--router")
    if args.prefill_replicas is not None and args.prefill_system is None:
        raise InputError("--prefill-system as well", path="--prefill-replicas", given=args.prefill_replicas)
    if args.at_once and args.rate is not None and args.synthetic is None:
        raise InputError("either --rate or --at-once", path="--rate", given=args.rate)
    measured = None if args.compare is None else read_bench_file(args.compare)
    concurrency, notes = int(args.concurrency or 0), []
    if args.trace is None and args.synthetic is None:
        if measured is None:
            raise InputError("--trace FILE, --synthetic KIND or --compare FILE", path="--trace", given="none")
        trace, limit = _trace_of_result(args, measured)
        if limit and not concurrency:
            concurrency = limit
            notes.append(f"The result states at most {limit} requests at a time.")
    else:
        seed = args.seed if args.synthetic is not None else None
        options = vars(args) | {"file": args.trace, "seed": seed, "ttft": None, "tpot": None}
        if args.at_once and args.synthetic is not None and args.rate is None:
            options["rate"] = 1.0  # of arrivals that --at-once replaces
        trace = read_trace_options(argparse.Namespace(**options))
    if args.at_once:
        trace = dataclasses.replace(trace, arrival=np.zeros(trace.requests))
    return Load(trace, concurrency, int(args.seed or 0), measured, tuple(notes))


def _trace_of_result(args: argparse.Namespace, measured: dict[str, Any]) -> tuple[Trace, int]:
    for name in PARAMETERS:
        value = getattr(args, name.replace("-", "_"), None)
        if value is not None and name not in ("seed", *_TARGETS):
            raise InputError("--trace or --synthetic as well", path=f"--{name}", given=value)
    trace, limit = trace_of_result(args.compare, measured)
    if args.requests is not None:
        if args.requests < 1 or args.requests != int(args.requests):
            raise InputError("a whole number of at least 1", path="--requests", given=args.requests)
        trace = trace.first(int(args.requests))
    if args.rate is not None:
        try:
            trace = trace.scaled_to(args.rate)
        except ValueError as error:
            expected = f"a rate that the trace can have ({error})"
            raise InputError(expected, path="--rate", given=args.rate) from None
    return trace, limit


def read_replayed_request(args: argparse.Namespace, trace: Trace) -> Request:
    """Return the request with the mean lengths of the trace.

    Raises:
        InputError: an option that a replay does not use.
    """
    for name in _OF_MEANS:
        value, default = (getattr(x, name.replace("-", "_")) for x in (args, Traffic()))
        if value != default:
            raise InputError(
                f"{default:g}: a replay takes its load from the trace", path=f"--{name}", given=value
            )
    if args.chunk != 0:
        raise InputError(
            "0: the token budget of the engine sets the chunks", path="--chunk", given=args.chunk
        )
    if args.plan is not None:
        expected = "no --plan, as a replay has the stated degrees; `jaxcost recommend --trace` searches them"
        raise InputError(expected, path="--plan", given=args.plan)
    lengths = {name: float(getattr(Traffic(), name)) for name in _LENGTHS}
    request = read_request(argparse.Namespace(**vars(args) | lengths))
    targets = [f"traffic.{name}_target" for name in _TARGETS]
    for setting in request.settings:
        if setting.path.startswith("traffic.") and setting.path not in targets:
            raise InputError(
                "no number of the traffic but the targets, as a replay takes its load from the trace",
                path="--set",
                given=setting.path,
            )
    fullest = request.plan.dp * float(microbatches(request.plan))
    traffic = replace(mean_traffic(trace, replace(request.traffic, rate=1.0)), batch=fullest)
    return dataclasses.replace(request, traffic=traffic)


def read_prefix_cache(
    args: argparse.Namespace, trace: Trace, system: System, model: Model, plan: Plan
) -> tuple[PrefixCache | None, str, System]:
    """Return the prefix cache of a replica, a description of it, and the system without the tier's share of it.

    There is no cache, None, where no size is stated.

    A byte of the cache is one of all chips of a replica together. A token of the slower tier takes the time in which
    every chip reads its share of it from that tier.

    Args:
        args: the options.
        trace: the requests.
        system: the chips that compute prompts.
        model: the model.
        plan: their plan.
    """
    if args.prefix_cache_slow is None and args.prefix_cache_tier is not None:
        raise InputError(
            "--prefix-cache-slow as well", path="--prefix-cache-tier", given=args.prefix_cache_tier
        )
    if {args.prefix_cache, args.prefix_cache_slow} <= {None, "none"}:
        return None, "none", system
    each = float(kv_bytes_per_token(model, plan))
    fast = _read_tokens("--prefix-cache", args.prefix_cache, each)
    slow = _read_tokens("--prefix-cache-slow", args.prefix_cache_slow, each)
    if fast == 0 and slow == 0:
        return None, "none", system
    if not trace.block_tokens and not (math.isinf(fast) and trace.cached.any()):
        expected = "none: the trace has no block ids, so the hits of a cache are unknown"
        option = "--prefix-cache" if fast else "--prefix-cache-slow"
        raise InputError(expected, path=option, given=args.prefix_cache if fast else args.prefix_cache_slow)
    size = lambda tokens: f"{tokens:,.0f} tokens ({engineering(tokens * each, 'B')})"  # noqa: E731
    words = size(fast) if math.isfinite(fast) else "unlimited"
    if slow == 0:
        return PrefixCache(fast), words, system
    name = args.prefix_cache_tier
    if name not in _TIERS:
        raise not_among(_TIERS, str(name), path="--prefix-cache-tier")
    tier, whole = getattr(system.chip, name), complete_plan(plan)
    chips = float(whole.tp * whole.pp * whole.cp * whole.dp)
    capacity = float(tier.capacity) * chips
    if slow * each > capacity:
        expected = (
            f"at most the {engineering(capacity, 'B')} of the tier {name} of a replica; --tier adds stacks"
        )
        raise InputError(expected, path="--prefix-cache-slow", given=str(args.prefix_cache_slow))
    memory = fit(system, model, plan, context=float(np.mean(trace.prompt + trace.output)))
    of_chip = float(memory.request_bytes) / float(memory.context)
    load = of_chip * float(seconds_per_byte(tier, system.chip.efficiency.memory, 0.0))
    words += f", then {size(slow)} in {name} at {engineering(load, 's')} a token"
    left = replace(tier, capacity=tier.capacity - slow * each / chips)
    return PrefixCache(fast, slow, load), words, replace(system, chip=replace(system.chip, **{name: left}))


def _read_tokens(option: str, text: str | None, bytes_per_token: float) -> float:
    """Return a size as tokens; 0 for none."""
    if text is None or text == "none":
        return 0.0
    try:
        tokens = float(text)
    except ValueError:
        if bytes_per_token == 0:
            raise InputError(
                "tokens, as a token adds no bytes to this cache", path=option, given=text
            ) from None
        tokens = parse_quantity(text, "B", path=option) / bytes_per_token
    if not tokens >= 0:
        raise InputError("a number of tokens or bytes of at least 0", path=option, given=text)
    return tokens
