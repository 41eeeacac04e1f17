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

_ANY = 1000.0  # log2 of more ranks than any system has
_NEAR = 1e-4  # tolerance of whole numbers
_TINY = 1e-6  # lower bound of a denominator in ranks or links


@pytree
class Topology:
    """The parameters of a topology: the family of its closed forms, and the numbers that they need."""

    is_full: jax.Array = field("1", "true for fully connected")
    is_tree: jax.Array = field("1", "true for a switch, fat tree or tree")
    is_dragonfly: jax.Array = field("1", "true for a dragonfly; where no family is true it is a grid")
    plain: Scalar = field("1", "true for a tree whose links all have the same bandwidth")
    cube: Scalar = field("1", "true for a hypercube, which has log2 n dimensions")
    ports: Scalar = field("1", "links of a rank along a side of a grid: 2 with wrap-around, else 1")
    dimensions: Scalar = field("1", "dimensions of a grid that is no hypercube")
    radix: Scalar = field("1", "radix, rounded")
    log_radix: Scalar = field("1", "log2 of the radix; unlimited for a single switch")
    narrowing: Scalar = field("1", "1 / taper of a fat tree, 1 for a switch")


def read_topology(link: Link) -> Topology:
    """Return the topology of a link."""
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
    """n ranks placed on a topology. Numbers that belong to another family are meaningless."""

    topology: Topology = field(doc="the topology")
    ranks: Scalar = field("1", "n")
    log: Scalar = field("1", "log2 n")
    bits: Scalar = field("1", "log2 n, rounded up")
    two_power: Scalar = field("1", "true where n is a power of 2")
    dimensions: Scalar = field("1", "d: sides of a grid")
    log_side: Scalar = field("1", "log2 of the shorter side")
    side: Scalar = field("1", "shorter side q of a grid")
    ports: Scalar = field("1", "links of a rank along a long side: 2 with wrap-around, else 1")
    joined: Scalar = field("1", "true with wrap-around")

    def choose(self, grid: Scalar, full: Scalar, tree: Scalar, dragonfly: Scalar) -> jax.Array:
        """Select the value of the topology's family."""
        family = self.topology
        other = arrays.where(family.is_tree, tree, arrays.where(family.is_full, full, grid))
        return arrays.where(family.is_dragonfly, dragonfly, other)

    @derived("1")
    def long_sides(self) -> Scalar:
        """Number of sides of length 2 q; 0 unless n is a power of 2."""
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
        """s = 1 / taper of a fat tree, s = r of a plain tree: a subtree has r / s times the links of a branch."""
        return arrays.materialize_once(
            arrays.where(self.topology.plain, self.branches, self.topology.narrowing)
        )

    @derived("1")
    def narrowed(self) -> Scalar:
        """Narrowing of all tiers: s^H."""
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
    """Place `ranks` compactly on a level of `size` chips; a part of a torus has no wrap-around."""
    n, size = lax.stop_gradient((jnp.maximum(ranks, 1), size))
    n = arrays.spread(n, arrays.batch_shape((topology, n, size)))
    log = jnp.log2(n)
    bits = arrays.materialize_once(jnp.ceil(log - _NEAR))
    two_power = bits - log < _NEAR
    dimensions = arrays.materialize_once(jnp.maximum(topology.dimensions, topology.cube * bits))
    # A grid of 2^k ranks divides the k bits among its dimensions; otherwise a side is the d-th root of n.
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
    """Return floor(x/2) ceil(x/2): the pairs between the two halves of x."""
    return jnp.floor(x / 2) * jnp.ceil(x / 2)


def _is_even(x: Scalar) -> Scalar:
    return jnp.floor(x / 2) * 2 == x


def mean_hops(lay: RankLayout) -> jax.Array:
    """Return the mean length of the shortest path between two different ranks, in links."""
    n, q, d, longer, a = lay.ranks, lay.side, lay.dimensions, lay.long_sides, lay.group
    others = jnp.maximum(n - 1, 1)
    # Sum over the sides of floor(side^2 / 4) / side with wrap-around, else of (side - 1 / side) / 3.
    joined = ((d - longer) * jnp.floor(q * q / 4) + longer * (q * q / 2)) / q
    apart = (lay.steps + d - (d - longer / 2) / q) / 3
    hops = lay.choose(
        arrays.where(lay.joined, joined, apart) * n / others,
        1.0,
        # Paths of a tree turn at tier t, except for pairs within the same r^t ranks.
        2 * (lay.switch_tiers * (others + 1) - lay.subtrees) / others,
        (a - 1 + (n - a) * (3 - 2 / a)) / others,
    )
    return hops * (n > 1)


def diameter(lay: RankLayout) -> Scalar:
    """Return the diameter: the length of the longest shortest path, in links."""
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
    """Return the links of a rank in use; 1 for the port of a tree."""
    n, a = lay.ranks, lay.group
    return lay.choose(grid_ports(lay, lay.ports), n - 1, 1.0, a - 1 + jnp.ceil((lay.groups - 1) / a)) * (
        n > 1
    )


def grid_ports(lay: RankLayout, ports: Scalar) -> Scalar:
    """Sum min(side - 1, ports) over the sides of a grid."""
    return arrays.where(
        lay.two_power,
        jnp.minimum(lay.bits, ports * lay.dimensions),
        jnp.minimum(lay.side - 1, ports) * lay.dimensions,
    )


def crossing(lay: RankLayout) -> Scalar:
    """Return the messages on the busiest link when every rank sends one message to every other rank.

    It is a link of the minimum cut on a grid, the port of a chip or of the topmost subtree in a tree, and the link
    between two groups in a dragonfly.
    """
    n, r, a = lay.ranks, lay.branches, lay.group
    return lay.choose(
        halves(n) / jnp.maximum(_grid_cut(lay), _TINY),
        1.0,
        jnp.maximum(n - 1, n * (1 - 1 / r) * lay.narrowed / lay.narrowing),
        arrays.where(lay.groups > 1, a * a, 1),
    )


def _grid_cut(lay: RankLayout) -> Scalar:
    # An even side is cut straight across; an odd one in steps.
    n, p = lay.ranks, lay.long_side
    across = arrays.where(_is_even(p), n / p, (n - 1) / jnp.maximum(p - 1, 1))
    return across * jnp.minimum(p - 1, lay.ports)


def bisection(lay: RankLayout) -> Scalar:
    """Return the bisection: links cut by the best halving, per direction, in links (or tree ports) of a chip."""
    n, r, s, a, g = lay.ranks, lay.branches, lay.narrowing, lay.group, lay.groups
    keeps = r / s  # bandwidth of a subtree over that of one of its branches
    top = n / lay.narrowed / keeps
    like = jnp.abs(keeps - 1) < _NEAR
    odd = arrays.where(like, lay.switch_tiers, (top * keeps - 1) / arrays.where(like, 1, keeps - 1)) * (
        (r - 1) / 2
    )
    # With an odd number of groups, one group is halved, and its links to other groups stay on the side of those.
    pairs = jnp.floor(g / 2) * jnp.floor(g / 2)
    apart = arrays.where(_is_even(g), pairs, pairs + halves(a))
    links = lay.choose(
        _grid_cut(lay),
        halves(n),
        arrays.where(_is_even(arrays.round_(r)), top * r / 2, odd),
        arrays.where(g > 1, apart, halves(n)),
    )
    return links * (n > 1)
