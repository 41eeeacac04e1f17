"""Distances and cuts of interconnection topologies, in closed form.

Symbols: n ranks. Grids (ring, torus, mesh, hypercube) have sides q; trees have r branches a switch and H tiers;
a dragonfly has groups of a chips, fully connected, with one link between every two groups.

A grid of n = 2^k ranks in d dimensions has k mod d sides of 2^(floor(k/d) + 1) and the others half of that; other
n have d sides of n^(1/d), whole or not. A tree counts the links from chip to chip through its switches, so a
single switch is 2 hops. Values are exact for whole sides, for full trees (n = r^H) and full groups; between
them they interpolate. Sources: Dally and Towles 2004; Leiserson 1985; Kim et al., ISCA 2008.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.lax import stop_gradient

from jaxcost.core.fence import once, opaque_one
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.fabric import TOPOLOGIES, Link

__all__ = [
    "Layout",
    "Wiring",
    "bisection",
    "crossing",
    "degree",
    "diameter",
    "layout",
    "mean_hops",
    "tiers",
    "wiring",
]

Pair = tuple[Scalar, Scalar]

_RING, _FULL, _SWITCH, _FAT, _TREE, _TORUS, _MESH, _CUBE, _DRAGONFLY = range(len(TOPOLOGIES))
_ANY = 1000.0  # bits of more ranks than there may be


@pytree
class Wiring:
    """What of a link decides distances: the family of closed forms that its topology belongs to, and its numbers."""

    grid: Scalar = field("1", "1 for a ring, torus, mesh or hypercube")
    wraps: Scalar = field(
        "1", "1 for a ring or torus: ends of a side are joined when it spans the whole level"
    )
    full: Scalar = field("1", "1 for the fully connected")
    tree: Scalar = field("1", "1 for a switch, fat tree or tree")
    plain: Scalar = field("1", "1 for a tree whose links are all alike")
    dimensions: Scalar = field("1", "dimensions of a grid, 0 for one a bit")
    radix: Scalar = field("1", "radix, whole")
    log_radix: Scalar = field("1", "log2 of the radix; of a single switch, of as many as there may be")
    narrowing: Scalar = field("1", "1 / taper of a fat tree, 1 of a switch")
    log_narrowing: Scalar = field("1", "log2 of that")

    def choose(self, grid: Scalar, full: Scalar, tree: Scalar, dragonfly: Scalar) -> Scalar:
        """Pick what holds for the family."""
        return jnp.where(self.grid, grid, jnp.where(self.full, full, jnp.where(self.tree, tree, dragonfly)))

    def ratio(self, grid: Pair, full: Pair, tree: Pair, dragonfly: Pair) -> Scalar:
        """Divide the (numerator, denominator) that holds for the family: one division, computed once."""
        above, below = zip(grid, full, tree, dragonfly, strict=True)
        return self.choose(*above) / self.choose(*below)


def wiring(link: Link) -> Wiring:
    """Read a link's topology."""
    t, radix = jnp.round(stop_gradient(link.topology)), stop_gradient(jnp.maximum(link.radix, 2))
    ring, cube, switch = t == _RING, t == _CUBE, t == _SWITCH
    taper = jnp.where(switch, 1, stop_gradient(link.taper))
    return Wiring(
        grid=ring | (t >= _TORUS) & (t <= _CUBE),
        wraps=ring | (t == _TORUS),
        full=t == _FULL,
        tree=(t >= _SWITCH) & (t <= _TREE),
        plain=t == _TREE,
        dimensions=jnp.where(ring, 1, jnp.where(cube, 0, jnp.round(stop_gradient(link.dimensions)))),
        radix=jnp.round(radix),
        log_radix=jnp.where(switch, _ANY, jnp.log2(radix)),
        narrowing=1 / taper,
        log_narrowing=-jnp.log2(taper),
    )


@pytree
class Layout:
    """How n ranks lie on a topology. Numbers of another family are there but mean nothing."""

    ranks: Scalar = field("1", "n")
    log: Scalar = field("1", "log2 n")
    bits: Scalar = field("1", "log2 n, rounded up")
    log_side: Scalar = field("1", "log2 of the longest side of a grid")
    side: Scalar = field("1", "shorter side of a grid")
    sides: Scalar = field("1", "sides of that length")
    long_side: Scalar = field("1", "longest side of a grid")
    long_sides: Scalar = field("1", "sides twice as long as the shorter")
    wrapped: Scalar = field("1", "1 where the ends of a side are joined")
    tiers: Scalar = field("1", "tiers H of switches between the ranks")
    branches: Scalar = field("1", "n^(1/H), the branches of a full tree of as many tiers")
    narrowing: Scalar = field("1", "s: 1 / taper of a fat tree, the branches of a plain one")
    narrowed: Scalar = field("1", "s^H")
    log_group: Scalar = field("1", "log2 of the ranks in a dragonfly's group")
    group: Scalar = field("1", "ranks in a dragonfly's group")
    groups: Scalar = field("1", "groups of a dragonfly")

    def over_sides(self, function: Callable[[Scalar], Scalar]) -> Scalar:
        """Add up a quantity of every side of a grid, given its length."""
        return self.sides * function(self.side) + self.long_sides * function(2 * self.side)

    def ports(self, side: Scalar) -> Scalar:
        """Links of a rank along one side of a grid."""
        return jnp.minimum(side - 1, jnp.where(self.wrapped, 2, 1))


def tiers(on: Wiring, log: Scalar) -> Scalar:
    """Count the tiers of switches that a tree needs for 2^log ranks."""
    return jnp.maximum(jnp.ceil(log / on.log_radix - 1e-4), 1)


def layout(on: Wiring, ranks: Scalar, level: Scalar) -> Layout:
    """Lay `ranks` out compactly on a level of `level` chips; a part of a torus has no joined ends."""
    n = stop_gradient(jnp.maximum(ranks, 1))
    one = opaque_one(n)
    log = jnp.log2(n)
    whole_log = jnp.round(log)
    two_power = jnp.abs(log - whole_log) < 1e-4
    bits = once(jnp.where(two_power, whole_log, jnp.ceil(log)), one)
    dimensions = jnp.maximum(jnp.where(on.dimensions > 0, on.dimensions, bits), 1)
    height = tiers(on, log)
    # A grid of 2^k divides the bits among its dimensions; else a side is a root, as the branches of a tree are.
    share = jnp.floor((bits + 0.5) / dimensions)
    log_root = log / jnp.where(on.grid, dimensions, height)
    exponent = jnp.where(on.grid & two_power, share, log_root)
    root = jnp.exp2(exponent)
    whole = jnp.round(root)
    side = jnp.where(jnp.abs(root - whole) < 1e-4 * root, whole, root)
    side, long_sides = once((side, jnp.where(two_power, bits - share * dimensions, 0)), one)
    group = jnp.minimum(on.radix, n)
    return Layout(
        ranks=n,
        log=log,
        bits=bits,
        log_side=exponent + jnp.where(long_sides > 0, 1, 0),
        side=side,
        sides=dimensions - long_sides,
        long_side=jnp.where(long_sides > 0, 2 * side, side),
        long_sides=long_sides,
        wrapped=on.wraps & (n > level - 0.5),
        tiers=height,
        branches=root,
        narrowing=jnp.where(on.plain, root, on.narrowing),
        narrowed=jnp.where(on.plain, n, jnp.exp2(height * on.log_narrowing)),
        log_group=jnp.minimum(on.log_radix, log),
        group=group,
        groups=n / group,
    )


def halves(x: Scalar) -> Scalar:
    """Return floor(x/2) ceil(x/2): the pairs between the halves of x."""
    return jnp.floor(x / 2) * jnp.ceil(x / 2)


def _is_even(x: Scalar) -> Scalar:
    # jnp.mod is a call a number, which keeps a whole loop from being vectorised.
    return jnp.equal(2 * jnp.floor(x / 2), x)


def mean_hops(on: Wiring, lay: Layout) -> Scalar:
    """Links on the shortest way between two different ranks, on average."""
    n, r, a, others = lay.ranks, lay.branches, lay.group, jnp.maximum(lay.ranks - 1, 1)

    def mean(q: Scalar) -> Scalar:
        return jnp.where(lay.wrapped, jnp.floor(q * q / 4), (q * q - 1) / 3) / q

    # Pairs of a tree part at tier l, all but those within the same r^l.
    found = on.ratio(
        (lay.over_sides(mean) * n, others),
        (1, 1),
        (2 * (lay.tiers * (others + 1) * (r - 1) - (n - 1)), jnp.where(r > 1, r - 1, 1) * others),
        ((a - 1) * a + (n - a) * (3 * a - 2), a * others),
    )
    return jnp.where(n > 1, found, 0)


def diameter(on: Wiring, lay: Layout) -> Scalar:
    """Links on the longest shortest way."""
    grid = lay.over_sides(lambda q: jnp.where(lay.wrapped, jnp.floor(q / 2), q - 1))
    dragonfly = jnp.where((lay.groups > 1) & (lay.group > 1), 3, 1)
    return jnp.where(lay.ranks > 1, on.choose(grid, 1, 2 * lay.tiers, dragonfly), 0)


def degree(on: Wiring, lay: Layout) -> Scalar:
    """Links of a rank in use; the port of a tree is one."""
    n, a = lay.ranks, lay.group
    found = on.choose(lay.over_sides(lay.ports), n - 1, 1, a - 1 + jnp.ceil((lay.groups - 1) / a))
    return jnp.where(n > 1, found, 0)


def crossing(on: Wiring, lay: Layout) -> Scalar:
    """Messages over the busiest link when every rank sends one to every other.

    On a grid the least cut is the busiest; in a tree the chip's port or the topmost subtree's; in a dragonfly the one
    link between two groups.
    """
    n, r, s, a = lay.ranks, lay.branches, lay.narrowing, lay.group
    above, below = _grid_cut(lay)
    return on.ratio(
        (halves(n) * below, jnp.where(above > 0, above, 1)),
        (1, 1),
        (jnp.maximum((n - 1) * r * s, n * (r - 1) * lay.narrowed), r * s),
        (jnp.where(lay.groups > 1, a * a, 1), 1),
    )


def _grid_cut(lay: Layout) -> Pair:
    # An even side is halved across; an odd one in steps, side by side.
    n, p = lay.ranks, lay.long_side
    even = _is_even(p)
    return jnp.where(even, n, jnp.maximum(n - 1, 1)) * lay.ports(p), jnp.where(even, p, jnp.maximum(p - 1, 1))


def bisection(on: Wiring, lay: Layout) -> Scalar:
    """Links cut, in each direction, by the least halving; in links of a chip, its own port of a tree."""
    n, r, s, a, g = lay.ranks, lay.branches, lay.narrowing, lay.group, lay.groups
    above, below = _grid_cut(lay)
    keeps = r / s  # bandwidth of a subtree over that of one of its branches
    top = n / lay.narrowed / keeps
    like = jnp.abs(keeps - 1) < 1e-4
    odd = jnp.where(like, lay.tiers, (top * keeps - 1) / jnp.where(like, 1, keeps - 1)) * ((r - 1) / 2)
    # An odd group out is itself halved, with its links to the others on the side where they lead.
    pairs = jnp.floor(g / 2) * jnp.floor(g / 2)
    apart = jnp.where(_is_even(g), pairs, pairs + halves(a))
    found = on.choose(
        above / below,
        halves(n),
        jnp.where(_is_even(jnp.round(r)), top * r / 2, odd),
        jnp.where(g > 1, apart, halves(n)),
    )
    return jnp.where(n > 1, found, 0)
