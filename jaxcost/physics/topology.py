"""Distances and cuts of interconnection topologies, in closed form.

Symbols: n ranks. Grids (ring, torus, mesh, hypercube) have sides q; trees have r branches a switch and H tiers;
a dragonfly has groups of a chips, fully connected, with one link between every two groups.

A grid of n = 2^k ranks in d dimensions has k mod d sides of 2^(floor(k/d) + 1) and the others half of that; other
n have d sides of n^(1/d), whole or not. A tree counts the links from chip to chip through its switches, so a
single switch is 2 hops. Values are exact for whole sides, for full trees (n = r^H) and full groups; between
them they interpolate. Sources: Dally and Towles 2004; Leiserson 1985; Kim et al., ISCA 2008.
"""

import jax.numpy as jnp
from jax.lax import stop_gradient

from jaxcost.core import smooth
from jaxcost.core.fence import once, opaque_one
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.fabric import TOPOLOGIES, Link

__all__ = ["Geometry", "Layout", "Wiring", "geometry", "halves", "layout", "over_sides", "wiring"]

_RING, _FULL, _SWITCH, _FAT, _TREE, _TORUS, _MESH, _CUBE, _DRAGONFLY = range(len(TOPOLOGIES))


@pytree
class Wiring:
    """What of a link decides distances: the family of closed forms that its topology belongs to, and logarithms."""

    grid: Scalar = field("1", "1 for a ring, torus, mesh or hypercube")
    wraps: Scalar = field(
        "1", "1 for a ring or torus: ends of a side are joined when it spans the whole level"
    )
    full: Scalar = field("1", "1 for the fully connected")
    tree: Scalar = field("1", "1 for a switch, fat tree or tree")
    flat: Scalar = field("1", "1 for a single switch")
    plain: Scalar = field("1", "1 for a tree whose links are all alike")
    dimensions: Scalar = field("1", "dimensions of a grid, 0 for one a bit")
    log_radix: Scalar = field("1", "log2 of the radix")
    log_taper: Scalar = field("1", "log2 of the taper")

    def choose(self, grid: Scalar, full: Scalar, tree: Scalar, dragonfly: Scalar) -> Scalar:
        """Pick what holds for the family."""
        return jnp.where(self.grid, grid, jnp.where(self.full, full, jnp.where(self.tree, tree, dragonfly)))


def wiring(link: Link) -> Wiring:
    """Read a link's topology."""
    t = jnp.round(stop_gradient(link.topology))
    ring, cube = t == _RING, t == _CUBE
    return Wiring(
        grid=ring | (t >= _TORUS) & (t <= _CUBE),
        wraps=ring | (t == _TORUS),
        full=t == _FULL,
        tree=(t >= _SWITCH) & (t <= _TREE),
        flat=t == _SWITCH,
        plain=t == _TREE,
        dimensions=jnp.where(ring, 1, jnp.where(cube, 0, jnp.round(stop_gradient(link.dimensions)))),
        log_radix=jnp.log2(stop_gradient(jnp.maximum(link.radix, 2))),
        log_taper=jnp.log2(stop_gradient(link.taper)),
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
    long_side: Scalar = field("1", "longer side of a grid")
    long_sides: Scalar = field("1", "sides of that length")
    wrapped: Scalar = field("1", "1 where the ends of a side are joined")
    tiers: Scalar = field("1", "tiers H of switches between the ranks")
    branches: Scalar = field("1", "n^(1/H), the branches of a full tree of as many tiers")
    narrowing: Scalar = field("1", "s: 1 / taper of a fat tree, the branches of a plain one")
    narrowed: Scalar = field("1", "s^H")
    log_group: Scalar = field("1", "log2 of the ranks in a dragonfly's group")
    group: Scalar = field("1", "ranks in a dragonfly's group")


def layout(on: Wiring, ranks: Scalar, level: Scalar) -> Layout:
    """Lay `ranks` out compactly on a level of `level` chips; a part of a torus has no joined ends."""
    n = stop_gradient(jnp.maximum(ranks, 1))
    log = jnp.log2(n)
    whole_log = jnp.round(log)
    two_power = jnp.abs(log - whole_log) < 1e-4
    bits = jnp.where(two_power, whole_log, jnp.ceil(log))
    one = opaque_one(n)
    log, bits = once((log, bits), one)
    dimensions = jnp.maximum(jnp.where(on.dimensions > 0, on.dimensions, bits), 1)
    # 2^k: divide the bits among the dimensions. Otherwise the root, whole where it is very nearly so.
    share = jnp.floor((bits + 0.5) / dimensions)
    exponent = jnp.where(two_power, share, log / dimensions)
    side = jnp.exp2(exponent)
    whole = jnp.round(side)
    side = jnp.where(jnp.abs(side - whole) < 1e-4 * side, whole, side)
    long_sides = jnp.where(two_power, bits - share * dimensions, 0)
    side, long_sides, dimensions = once((side, long_sides, dimensions), one)
    tiers = jnp.where(on.flat, 1, jnp.maximum(jnp.ceil(log / on.log_radix - 1e-4), 1))
    tiers = once(tiers, one)
    log_branches = log / tiers
    branches = jnp.exp2(log_branches)
    log_narrowing = jnp.where(on.flat, 0, jnp.where(on.plain, log_branches, -on.log_taper))
    narrowed = jnp.exp2(tiers * log_narrowing)
    log_group = jnp.minimum(on.log_radix, log)
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
        tiers=tiers,
        branches=branches,
        narrowing=jnp.exp2(log_narrowing),
        narrowed=narrowed,
        log_group=log_group,
        group=jnp.where(on.log_radix < log, jnp.round(jnp.exp2(on.log_radix)), n),
    )


def over_sides(lay: Layout, short: Scalar, long: Scalar) -> Scalar:
    """Add up a quantity of every side of a grid."""
    return lay.sides * short + lay.long_sides * long


def halves(x: Scalar) -> Scalar:
    """Return floor(x/2) ceil(x/2): the pairs between the halves of x."""
    return jnp.floor(x / 2) * jnp.ceil(x / 2)


def _is_even(x: Scalar) -> Scalar:
    # jnp.mod is a call a number, which keeps a whole loop from being vectorised.
    return jnp.equal(2 * jnp.floor(x / 2), x)


@pytree
class Geometry:
    """What a topology is, apart from any message."""

    mean_hops: Scalar = field("1", "links on the shortest way between two different ranks, on average")
    diameter: Scalar = field("1", "links on the longest shortest way")
    bisection: Scalar = field(
        "1", "links cut, in each direction, by the least halving; in links of a chip, its own port of a tree"
    )
    degree: Scalar = field("1", "links of a rank in use; the port of a tree is one")


def geometry(on: Wiring, lay: Layout) -> Geometry:
    """Distances, cut and degree of ranks laid out on a link's topology."""
    n, q, p = lay.ranks, lay.side, lay.long_side
    others = jnp.maximum(n - 1, 1)

    def joined(side: Scalar) -> tuple[Scalar, Scalar, Scalar]:
        mean = jnp.where(lay.wrapped, jnp.floor(side * side / 4) / side, (side * side - 1) / (3 * side))
        far = jnp.where(lay.wrapped, jnp.floor(side / 2), side - 1)
        return mean, far, jnp.minimum(side - 1, jnp.where(lay.wrapped, 2, 1))

    (mean_q, far_q, ports_q), (mean_p, far_p, ports_p) = joined(q), joined(p)
    # An even side is halved across; an odd one in steps, side by side.
    even = _is_even(p)
    across = jnp.where(even, n / p, others / jnp.maximum(p - 1, 1))
    grid_cut = jnp.where(n > 1, across * ports_p, 0)
    # Pairs that part at tier l: all but those within the same r^l.
    r, tiers, s = lay.branches, lay.tiers, lay.narrowing
    same = smooth.safe_div(n - 1, r - 1) - tiers
    tree_mean = 2 * (tiers - same / others)
    keeps = r / s  # bandwidth of a subtree over that of one of its branches
    top = n / lay.narrowed / keeps
    odd_cut = jnp.where(
        jnp.abs(keeps - 1) < 1e-4, tiers, smooth.safe_div(top * keeps - 1, keeps - 1, 1.0)
    ) * ((r - 1) / 2)
    tree_cut = jnp.where(_is_even(jnp.round(r)), top * r / 2, odd_cut)
    a, g = lay.group, lay.ranks / lay.group
    apart = g > 1
    fly_mean = ((a - 1) + (n - a) * (3 - 2 / a)) / others
    all_pairs = halves(n)
    # An odd group out is itself halved, with its links to the others on the side where they lead.
    pairs = jnp.floor(g / 2) * jnp.floor(g / 2)
    fly_cut = jnp.where(_is_even(g), pairs, pairs + halves(a))

    alone = n <= 1
    return once(
        Geometry(
            mean_hops=jnp.where(
                alone, 0, on.choose(over_sides(lay, mean_q, mean_p) * n / others, 1, tree_mean, fly_mean)
            ),
            diameter=jnp.where(
                alone,
                0,
                on.choose(
                    over_sides(lay, far_q, far_p), 1, 2 * tiers, jnp.where(apart, jnp.where(a > 1, 3, 1), 1)
                ),
            ),
            bisection=jnp.where(
                alone, 0, on.choose(grid_cut, all_pairs, tree_cut, jnp.where(apart, fly_cut, all_pairs))
            ),
            degree=jnp.where(
                alone,
                0,
                on.choose(over_sides(lay, ports_q, ports_p), n - 1, 1, a - 1 + jnp.ceil((g - 1) / a)),
            ),
        ),
        opaque_one(n),
    )
