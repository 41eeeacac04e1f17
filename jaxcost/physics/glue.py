"""Turn the tables of the memory hierarchy into what the roofline and the energy of single rows want."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxcost.core.arrays import row
from jaxcost.core.pytree import Scalar, field, leaf_fields, pytree
from jaxcost.physics.hierarchy import Hierarchy
from jaxcost.physics.near_memory import OPERAND_CLASSES
from jaxcost.physics.ops import absent, add
from jaxcost.physics.placement import TRAFFIC_CLASSES

__all__ = ["RowNear", "RowStream", "Shares", "both", "dicts", "largest", "main_share"]

Shares = dict[str, Scalar]


@pytree
class RowStream:
    """A row of `Stream`."""

    main: Scalar = field("1", "", default=1.0)
    beside: Scalar = field("s/B", "", default=0.0)
    write: Scalar = field("s/B", "", default=0.0)
    wait: Scalar = field("s", "", default=0.0)


@pytree
class RowNear:
    """A row of `NearStream`."""

    share: Scalar = field("1", "")
    byte: Scalar = field("s/B", "")
    flop: Scalar = field("s/FLOP", "")
    transfer: Scalar = field("s/B", "")
    partials: Scalar = field("s/B", "")
    overhead: Scalar = field("s", "")
    blocking: Scalar = field("1", "")
    main: Scalar = field("1", "")
    unread: Scalar = field("1", "")
    taken: Shares = field(doc="")
    energy: Scalar = field("J/B", "")
    flop_energy: Scalar = field("J/FLOP", "")


def dicts(h: Hierarchy) -> tuple[dict[str, Shares], dict[str, Any], dict[str, Any]]:
    """Return shares, streams and near memory by class."""
    layout, stream, near = h.layout, h.stream, h.near
    names = layout.tiers
    alone = len(names) == 1
    by_tier = lambda table: {n: row(table, i) for i, n in enumerate(names)}  # noqa: E731
    shares, streams = {}, {}
    engines: dict[str, Any] = dict.fromkeys(OPERAND_CLASSES)
    for i, name in enumerate(TRAFFIC_CLASSES):
        found = {} if alone else by_tier(row(layout.read, i))
        shares[name] = {n: x for n, x in found.items() if n != "memory"}
        write = row(stream.write, i)
        streams[name] = (
            RowStream(write=write)
            if alone
            else RowStream(
                main=row(stream.main, i),
                beside=row(stream.auxiliary, i),
                write=write,
                wait=row(stream.wait, i),
            )
        )
    if near is not None:
        for i, name in enumerate(OPERAND_CLASSES):
            fields: dict[str, Any] = {f.name: row(getattr(near, f.name), i) for f in leaf_fields(RowNear)}
            fields["taken"] = by_tier(fields["taken"])
            engines[name] = RowNear(**fields)
    return shares, streams, engines


def main_share(shares: Shares) -> Scalar:
    """Share of a class in main memory."""
    return 1.0 if not shares else 1 - add(*shares.values())


def both(a: Scalar, b: Scalar, in_turn: Scalar) -> Scalar:
    """Time of two streams: the longer where they run at once, their sum where in turn."""
    return a if absent(b) else a + b - (1 - in_turn) * jnp.minimum(a, b)


def largest(values: Sequence[Scalar]) -> Scalar:
    """Return the largest of a few numbers."""
    out = values[0]
    for x in values[1:]:
        out = jnp.maximum(out, x)
    return out
