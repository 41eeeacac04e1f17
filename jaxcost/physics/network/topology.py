"""Distances and cuts of interconnection topologies, in closed form.

Symbols: n ranks. Grids (ring, torus, mesh, hypercube) have sides q; trees have r branches a switch and H tiers;
a dragonfly has groups of a chips, fully connected, with one link between every two groups.

A grid of n = 2^k ranks in d dimensions has k mod d sides of 2^(floor(k/d) + 1) and the others half of that; other
n have d sides of n^(1/d), whole or not. A tree counts the links from chip to chip through its switches, so a
single switch is 2 hops. Values are exact for whole sides, for full trees (n = r^H) and full groups; between
them they interpolate. Sources: Dally and Towles 2004; Leiserson 1985; Kim et al., ISCA 2008.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcost.core import arrays
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.spec.fabric import Link, topology_id

__all__ = [
    "RankLayout",
    "Topology",
    "bisection",
    "crossing",
    "degree",
    "diameter",
    "lay_out_ranks",
    "mean_hops",
    "read_topology",
    "switch_tiers",
]

_ANY = 1000.0  # bits of more ranks than there may be
_NEAR = 1e-4  # by how much a whole number may be missed
_TINY = 1e-6  # ranks or links: what stands for none below a fraction bar


@pytree
class Topology:
    """What of a link decides distances: the family of closed forms that its topology belongs to, and its numbers."""

    is_full: jax.Array = field("1", "true for the fully connected")
    is_tree: jax.Array = field("1", "true for a switch, fat tree or tree")
    is_dragonfly: jax.Array = field("1", "true for a dragonfly; where none is true it is a grid")
    plain: Scalar = field("1", "true for a tree whose links are all alike")
    cube: Scalar = field("1", "true for a hypercube, which has a dimension for every bit")
    ports: Scalar = field(
        "1", "links along a side of a grid that spans the level: 2 where its ends are joined"
    )
    dimensions: Scalar = field("1", "dimensions of another grid")
    radix: Scalar = field("1", "radix, whole")
    log_radix: Scalar = field("1", "log2 of the radix; of a single switch, of as many as there may be")
    narrowing: Scalar = field("1", "1 / taper of a fat tree, 1 of a switch")


def read_topology(link: Link) -> Topology:
    """Read a link's topology."""
    kind, radix, taper, dimensions = lax.stop_gradient(
        (link.topology, link.radix, link.taper, link.dimensions)
    )
    kind, radix = arrays.round_(kind), jnp.maximum(radix, 2)
    full, ring, switch, fat_tree, tree, torus, cube, dragonfly = (
        kind == topology_id(name)
        for name in (
            "fully-connected",
            "ring",
            "switch",
            "fat-tree",
            "tree",
            "torus",
            "hypercube",
            "dragonfly",
        )
    )
    return Topology(
        is_full=full,
        is_tree=switch | fat_tree | tree,
        is_dragonfly=dragonfly,
        plain=tree,
        cube=cube,
        ports=arrays.where(ring | torus, 2.0, 1.0),
        dimensions=arrays.where(ring | cube, 1, jnp.maximum(arrays.round_(dimensions), 1)),
        radix=arrays.round_(radix),
        log_radix=arrays.where(switch, _ANY, jnp.log2(radix)),
        narrowing=1 / arrays.where(switch, 1, taper),
    )


@pytree
class RankLayout:
    """How n ranks lie on a topology. Numbers of another family are there but mean nothing."""

    topology: Topology = field(doc="the topology")
    ranks: Scalar = field("1", "n")
    log: Scalar = field("1", "log2 n")
    bits: Scalar = field("1", "log2 n, rounded up")
    two_power: Scalar = field("1", "true where n is a power of 2")
    dimensions: Scalar = field("1", "d: sides of a grid")
    log_side: Scalar = field("1", "log2 of the shorter side")
    side: Scalar = field("1", "shorter side q of a grid")
    ports: Scalar = field("1", "links of a rank along a long side: 2 where its ends are joined, else 1")
    joined: Scalar = field("1", "true where they are")

    def choose(self, grid: Scalar, full: Scalar, tree: Scalar, dragonfly: Scalar) -> jax.Array:
        """Pick what holds for the family."""
        family = self.topology
        other = arrays.where(family.is_tree, tree, arrays.where(family.is_full, full, grid))
        return arrays.where(family.is_dragonfly, dragonfly, other)

    @derived("1")
    def long_sides(self) -> Scalar:
        """Sides of 2 q; there are some only where n is a power of 2, and q whole."""
        spare = self.bits - self.log_side * self.dimensions
        return arrays.materialize_once(arrays.where(self.two_power, spare, 0))

    @derived("1")
    def long_side(self) -> Scalar:
        """Longest side of a grid."""
        return arrays.materialize_once(arrays.where(self.long_sides > 0, 2 * self.side, self.side))

    @derived("1")
    def steps(self) -> Scalar:
        """Sum of (side - 1) over the sides of a grid."""
        return arrays.materialize_once(self.side * (self.dimensions + self.long_sides) - self.dimensions)

    @derived("1")
    def switch_tiers(self) -> Scalar:
        """Tiers H of switches between the ranks."""
        return arrays.materialize_once(switch_tiers(self.topology, self.log))

    @derived("1")
    def branches(self) -> Scalar:
        """Branches r of a full tree of as many tiers: n^(1/H)."""
        return jnp.exp2(self.log / self.switch_tiers)

    @derived("1")
    def narrowing(self) -> Scalar:
        """Of a fat tree s = 1 / taper, of a plain one s = r: a subtree has r / s times the links of a branch."""
        return arrays.materialize_once(
            arrays.where(self.topology.plain, self.branches, self.topology.narrowing)
        )

    @derived("1")
    def narrowed(self) -> Scalar:
        """Of all tiers: s^H."""
        return jnp.exp2(self.switch_tiers * jnp.log2(self.narrowing))

    @derived("1")
    def subtrees(self) -> Scalar:
        """Sum of r^t over the tiers t = 0 ... H - 1 of a tree: (n - 1) / (r - 1)."""
        return (self.ranks - 1) / jnp.maximum(self.branches - 1, _TINY)

    @derived("1")
    def group(self) -> Scalar:
        """Ranks a in a group of a dragonfly."""
        return arrays.materialize_once(jnp.minimum(self.topology.radix, self.ranks))

    @derived("1")
    def groups(self) -> Scalar:
        """Groups of a dragonfly."""
        return self.ranks / self.group


def switch_tiers(topology: Topology, log: Scalar) -> Scalar:
    """Count the tiers of switches that a tree needs for 2^log ranks."""
    return jnp.maximum(jnp.ceil(log / topology.log_radix - _NEAR), 1)


def lay_out_ranks(topology: Topology, ranks: Scalar, size: Scalar) -> RankLayout:
    """Lay `ranks` out compactly on a level of `size` chips; a part of a torus has no joined ends."""
    n, size = lax.stop_gradient((jnp.maximum(ranks, 1), size))
    n = arrays.spread(n, arrays.batch_shape((topology, n, size)))
    log = jnp.log2(n)
    bits = arrays.materialize_once(jnp.ceil(log - _NEAR))
    two_power = bits - log < _NEAR
    dimensions = arrays.materialize_once(jnp.maximum(topology.dimensions, topology.cube * bits))
    # A grid of 2^k divides the bits among its dimensions; else a side is a root.
    share = jnp.floor((bits + 0.5) / dimensions)
    log_side = arrays.materialize_once(arrays.where(two_power, share, log / dimensions))
    root = jnp.exp2(log_side)
    whole = arrays.round_(root)
    ports = arrays.materialize_once(arrays.where(n > size - 0.5, topology.ports, 1.0))
    return RankLayout(
        topology=topology,
        ranks=n,
        log=log,
        bits=bits,
        two_power=two_power,
        dimensions=dimensions,
        log_side=log_side,
        side=arrays.materialize_once(arrays.where(jnp.abs(root - whole) < _NEAR * root, whole, root)),
        ports=ports,
        joined=ports > 1,
    )


def halves(x: Scalar) -> Scalar:
    """Return floor(x/2) ceil(x/2): the pairs between the halves of x."""
    return jnp.floor(x / 2) * jnp.ceil(x / 2)


def _is_even(x: Scalar) -> Scalar:
    return jnp.floor(x / 2) * 2 == x


def mean_hops(lay: RankLayout) -> jax.Array:
    """Links on the shortest way between two different ranks, on average."""
    n, q, d, longer, a = lay.ranks, lay.side, lay.dimensions, lay.long_sides, lay.group
    others = jnp.maximum(n - 1, 1)
    # Sum over the sides of floor(side^2 / 4) / side where the ends are joined, else of (side - 1 / side) / 3.
    joined = ((d - longer) * jnp.floor(q * q / 4) + longer * (q * q / 2)) / q
    apart = (lay.steps + d - (d - longer / 2) / q) / 3
    hops = lay.choose(
        arrays.where(lay.joined, joined, apart) * n / others,
        1.0,
        # Pairs of a tree part at tier t, all but those within the same r^t.
        2 * (lay.switch_tiers * (others + 1) - lay.subtrees) / others,
        (a - 1 + (n - a) * (3 - 2 / a)) / others,
    )
    return hops * (n > 1)


def diameter(lay: RankLayout) -> Scalar:
    """Links on the longest shortest way."""
    q, longer = lay.side, lay.long_sides
    joined = (lay.dimensions - longer) * jnp.floor(q / 2) + longer * q
    hops = lay.choose(
        arrays.where(lay.joined, joined, lay.steps),
        1.0,
        2 * lay.switch_tiers,
        1 + 2.0 * ((lay.groups > 1) & (lay.group > 1)),
    )
    return hops * (lay.ranks > 1)


def degree(lay: RankLayout) -> Scalar:
    """Links of a rank in use; the port of a tree is one."""
    n, a = lay.ranks, lay.group
    return lay.choose(grid_ports(lay, lay.ports), n - 1, 1.0, a - 1 + jnp.ceil((lay.groups - 1) / a)) * (
        n > 1
    )


def grid_ports(lay: RankLayout, ports: Scalar) -> Scalar:
    """Add up min(side - 1, ports) over the sides of a grid, which are powers of 2 where the ranks are one."""
    return arrays.where(
        lay.two_power,
        jnp.minimum(lay.bits, ports * lay.dimensions),
        jnp.minimum(lay.side - 1, ports) * lay.dimensions,
    )


def crossing(lay: RankLayout) -> Scalar:
    """Messages over the busiest link when every rank sends one to every other.

    On a grid the least cut is the busiest; in a tree the chip's port or the topmost subtree's; in a dragonfly the one
    link between two groups.
    """
    n, r, a = lay.ranks, lay.branches, lay.group
    return lay.choose(
        halves(n) / jnp.maximum(_grid_cut(lay), _TINY),
        1.0,
        jnp.maximum(n - 1, n * (1 - 1 / r) * lay.narrowed / lay.narrowing),
        arrays.where(lay.groups > 1, a * a, 1),
    )


def _grid_cut(lay: RankLayout) -> Scalar:
    # An even side is halved across; an odd one in steps, side by side.
    n, p = lay.ranks, lay.long_side
    across = arrays.where(_is_even(p), n / p, (n - 1) / jnp.maximum(p - 1, 1))
    return across * jnp.minimum(p - 1, lay.ports)


def bisection(lay: RankLayout) -> Scalar:
    """Links cut, in each direction, by the least halving; in links of a chip, its own port of a tree."""
    n, r, s, a, g = lay.ranks, lay.branches, lay.narrowing, lay.group, lay.groups
    keeps = r / s  # bandwidth of a subtree over that of one of its branches
    top = n / lay.narrowed / keeps
    like = jnp.abs(keeps - 1) < _NEAR
    odd = arrays.where(like, lay.switch_tiers, (top * keeps - 1) / arrays.where(like, 1, keeps - 1)) * (
        (r - 1) / 2
    )
    # An odd group out is itself halved, with its links to the others on the side where they lead.
    pairs = jnp.floor(g / 2) * jnp.floor(g / 2)
    apart = arrays.where(_is_even(g), pairs, pairs + halves(a))
    links = lay.choose(
        _grid_cut(lay),
        halves(n),
        arrays.where(_is_even(arrays.round_(r)), top * r / 2, odd),
        arrays.where(g > 1, apart, halves(n)),
    )
    return links * (n > 1)
