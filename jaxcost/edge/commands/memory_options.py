"""Options of the memory hierarchy: tiers and near-memory engines added to a system, and the placement of data."""

import argparse
from collections.abc import Sequence
from typing import Any

from jaxcost.core.pytree import current_name, replace
from jaxcost.edge.catalog.tiers import add_near, add_tier
from jaxcost.edge.io.errors import InputError, not_among, within
from jaxcost.physics.memory.placement import CLASSES
from jaxcost.physics.memory.tiers import AUXILIARY_TIERS
from jaxcost.spec.memory import TIERS
from jaxcost.spec.plan import Placement, Split
from jaxcost.spec.system import System

__all__ = ["add_memory_arguments", "read_placement", "with_memories"]


def add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("memory hierarchy")
    group.add_argument(
        "--tier",
        action="append",
        default=[],
        metavar="TIER=TYPE:N[:chained]",
        help=f"add N stacks of a memory type to every chip as a tier: {', '.join(TIERS)}; such as hbf=hbf:4",
    )
    group.add_argument(
        "--near",
        action="append",
        default=[],
        metavar="TIER=ENGINE",
        help="add engines near the memory of a tier, such as memory=attacc-bank (`jaxcost list near`)",
    )
    group.add_argument(
        "--place",
        action="append",
        default=[],
        metavar="CLASS=TIER:SHARE",
        help=f"place a share of a data class in a tier: {', '.join(CLASSES)}; the rest is in main memory (default: "
        "the most read data in the fastest tiers)",
    )
    group.add_argument(
        "--in-turn", action="store_true", help="read tiers one after the other, not concurrently"
    )
    group.add_argument(
        "--near-slack",
        type=float,
        default=0.0,
        metavar="N",
        help="share by which an operator may be slower near memory and still run there (default 0)",
    )
    group.add_argument(
        "--interleaved",
        type=float,
        default=0.0,
        metavar="N",
        help="share of near-memory work that overlaps with work of the chip (default 0)",
    )


def with_memories(system: System, tiers: Sequence[str], engines: Sequence[str]) -> System:
    """Add the tiers and engines of `--tier` and `--near` to a system."""
    for text in tiers:
        tier, rest = _pair(text, "--tier", "TIER=TYPE:N[:chained]")
        name, _, tail = rest.partition(":")
        count, _, how = tail.partition(":")
        if how not in ("", "chained"):
            raise InputError("nothing or `chained` after the number of stacks", path="--tier", given=how)
        stacks = _number(count or "1", "--tier", 0, 1e6)
        chained = how == "chained"
        system = within(
            None,
            "--tier",
            lambda part, s=system, t=tier, n=stacks, c=chained: add_tier(s, t, part, stacks=n, chained=c),
            name,
        )
    for text in engines:
        tier, engine = _pair(text, "--near", "TIER=ENGINE")
        system = within(None, "--near", lambda part, s=system, t=tier: add_near(s, t, part), engine)
    return system


def read_placement(args: argparse.Namespace) -> Placement:
    """Return the placement of the options; automatic without `--place`."""
    shares: dict[str, dict[str, float]] = {}
    for text in args.place:
        name, rest = _pair(text, "--place", "CLASS=TIER:SHARE")
        tier, _, share = rest.partition(":")
        name = current_name(Placement, name)
        if name not in CLASSES:
            raise not_among(CLASSES, name, path="--place")
        if tier not in AUXILIARY_TIERS:
            raise not_among(AUXILIARY_TIERS, tier, path="--place")
        shares.setdefault(name, {})[tier] = _number(share or "1", "--place", 0, 1)
    for name, split in shares.items():
        if sum(split.values()) > 1 + 1e-9:
            raise InputError("shares of at most 1 in all", path=f"--place {name}", given=sum(split.values()))
    splits: dict[str, Any] = {name: Split(**split) for name, split in shares.items()}
    interleaved = _number(str(args.interleaved), "--interleaved", 0, 1)
    slack = _number(str(args.near_slack), "--near-slack", 0, 1e6)
    placement = Placement(
        near_slack=slack, automatic=0.0 if shares else 1.0, serial_tier_reads=float(args.in_turn)
    )
    return replace(placement, interleaved=interleaved, **splits)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not equals or not name or not rest:
        raise InputError(form, path=option, given=text)
    return name, rest


def _number(text: str, option: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise InputError(f"a number from {least:g} to {most:g}", path=option, given=text)
    return value
