"""Every algorithm's closed form against an event-by-event simulation of it on its topology, up to 64 ranks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import program
from jaxcost.physics.network.algorithms import algorithm_costs, broadcast_costs, duration
from jaxcost.physics.network.levels import link_level
from jaxcost.spec.fabric import topology_id
from tests import algorithms, networks

OVERHEAD, LATENCY, PER_BYTE = 1.3e-6, 0.2e-6, 1e-9  # a second a byte over one link
SIZES = (8.0, 64e3, 4e6)
SEGMENTS = 250  # of a message through switches, a tier


@program
def costs_of(link, ranks):
    one = link_level(link, ranks, jc.canonical(jc.Fabric(), ranks.dtype))
    costs = algorithm_costs(one, ranks)
    tables = {
        "gather": costs.gather,
        "all_reduce": costs.all_reduce,
        "broadcast": broadcast_costs(one, ranks),
    }
    return one, {**tables, "exchange": costs.exchange}


def networks_to_try():
    """(topology, ranks, further fields, network)."""
    for n in (3, 5, 8, 64):
        yield "ring", n, {}, networks.grid([n], True)
    for n in (2, 3, 5, 8, 9, 16, 64):
        yield "fully-connected", n, {}, networks.fully_connected(n)
    for n in (2, 5, 8, 64):
        yield "switch", n, {}, networks.tree(n, 1, 1.0)
    for r, h in ((2, 3), (4, 3), (8, 2)):
        yield "fat-tree", r**h, {"radix": r}, networks.tree(r, h, r)
    for r, h in ((2, 4), (4, 3), (8, 2)):
        yield "tree", r**h, {"radix": r}, networks.tree(r, h, 1)
    for name in ("torus", "mesh"):
        for n, d in ((9, 2), (16, 2), (64, 2), (64, 3), (27, 3), (4, 2), (8, 3), (16, 4)):
            yield name, n, {"dimensions": d}, networks.grid(networks.grid_sides(n, d), name == "torus")
    for k in (1, 3, 6):
        yield "hypercube", 2**k, {}, networks.grid([2] * k, False)


def algorithms_of(name, n, fields, links):
    """(kind of collective, algorithm, the messages it sends) where they do not get in each other's way."""
    tree, binary = name in ("switch", "fat-tree", "tree"), fields.get("radix") == 2
    for kind, passes in (("gather", 1), ("all_reduce", 2)):
        if name in ("torus", "mesh", "hypercube"):
            sides = networks.grid_sides(n, int(fields.get("dimensions", n.bit_length() - 1)))
            yield kind, "ring", (algorithms.grid_ring, sides, name == "torus", passes)
        # An even number of the fully connected leaves one link idle. In a binary tree one of two steps in a row
        # is long, so that the second way round is 2 hops shorter than the first.
        elif (name != "fully-connected" or n % 2 or n == 2) and not (binary and passes == 2):
            yield kind, "ring", (algorithms.ring, algorithms.cycles(name, n), passes)
    two_power = n & (n - 1) == 0
    if name in ("switch", "fat-tree", "fully-connected", "hypercube") and two_power:
        yield "all_reduce", "doubling", (algorithms.doubling, n)
        yield "gather", "halving", (algorithms.halving, n, 1)
        yield "all_reduce", "rabenseifner", (algorithms.halving, n, 2)
    if name in ("switch", "fully-connected"):
        yield "all_reduce", "one-shot", (algorithms.direct, n, 1.0)
        yield "all_reduce", "two-shot", (algorithms.direct, n, 1 / n, 2)
        yield "gather", "direct", (algorithms.direct, n, 1 / n)
        yield "exchange", "", (algorithms.direct, n, 1 / (n - 1))
        yield "broadcast", "scatter-gather", (algorithms.scatter_gather, n)
    if tree:
        tiers = len({node[1] for node in links if isinstance(node, tuple)})
        yield "all_reduce", "in-network", (algorithms.in_network, links, SEGMENTS * tiers)
        yield "broadcast", "multicast", (algorithms.multicast, links)
    if two_power and name != "tree" and name != "torus":
        yield "broadcast", "binomial", (algorithms.binomial, n)


def case(name, n, fields, links, kind, algorithm, how):
    """Trees of 64 ranks with 3 tiers are exhaustive: those of 8 to 16 ranks with 2 to 4 tiers are not, nor 64 with 2."""
    large = algorithm == "in-network" and n == 64 and fields.get("radix") == 4
    marks = (pytest.mark.exhaustive,) if large else ()
    return pytest.param(name, n, fields, links, kind, algorithm, how, marks=marks)


CASES = [case(*net, *how) for net in networks_to_try() for how in algorithms_of(*net)]


def simulate(links, play, arguments, size):
    sim = networks.Simulation(links, overhead=OVERHEAD, latency=LATENCY, per_byte=PER_BYTE)
    play(sim, size, *arguments)
    return sim.run()


def closed_form(name, n, fields, links, *, in_network=1.0):
    degrees = [len(links[rank]) for rank in networks.ranks_of(links)]
    link = jc.Link(
        bandwidth=(min(degrees) if name == "mesh" else max(degrees)) / PER_BYTE,
        latency=LATENCY,
        overhead=OVERHEAD,
        topology=topology_id(name),
        in_network=in_network,
        **fields,
    )
    return costs_of(jc.canonical(link, np.float64), jnp.asarray(float(n)))


@pytest.mark.parametrize(
    ("name", "n", "fields", "links", "kind", "algorithm", "how"),
    CASES,
    ids=lambda x: f"{x}" if isinstance(x, str | int) else "",
)
def test_equals_an_event_by_event_simulation(name, n, fields, links, kind, algorithm, how):
    with jax.enable_x64(True):
        one, costs = closed_form(name, n, fields, links)
        cost = costs[kind][algorithm] if algorithm else costs[kind]
        for size in SIZES:
            wanted = simulate(links, how[0], how[1:], size)
            assert float(duration(cost, one, size)) == pytest.approx(wanted, rel=0.01), size


@pytest.mark.parametrize("n", [8, 16])
def test_double_tree(n):
    links = networks.tree(n, 1, 1.0)
    with jax.enable_x64(True):
        one, costs = closed_form("switch", n, {}, links)
        cost = costs["all_reduce"]["double-tree"]
        for size, near in ((8.0, 0.01), (4e8, 0.3)):
            wanted = simulate(links, algorithms.double_tree, (n, 100), size)
            assert float(duration(cost, one, size)) == pytest.approx(wanted, rel=near)
