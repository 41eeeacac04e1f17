"""Hops, diameter, bisection and degree against a graph search on every topology, up to 256 ranks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import program
from jaxcost.physics.network.topology import (
    bisection,
    degree,
    diameter,
    lay_out_ranks,
    mean_hops,
    read_topology,
)
from jaxcost.spec.fabric import TOPOLOGIES, topology_id
from tests import networks

CASES = (
    [("ring", n, {}, lambda n=n: networks.grid([n], True)) for n in (2, 3, 4, 5, 8, 16, 31, 64, 255, 256)]
    + [("fully-connected", n, {}, lambda n=n: networks.fully_connected(n)) for n in (2, 3, 7, 8, 12)]
    + [("switch", n, {}, lambda n=n: networks.tree(n, 1, 1.0)) for n in (2, 4, 7, 8, 72)]
    + [
        ("fat-tree", r**h, {"radix": r, "taper": t}, lambda r=r, h=h, t=t: networks.tree(r, h, r * t))
        for r, h, t in (
            (2, 3, 1.0),
            (4, 3, 1.0),
            (4, 4, 1.0),
            (16, 2, 1.0),
            (4, 3, 0.5),
            (8, 2, 0.5),
            (3, 3, 1.0),
        )
    ]
    + [
        ("tree", r**h, {"radix": r}, lambda r=r, h=h: networks.tree(r, h, 1.0))
        for r, h in ((2, 4), (2, 8), (4, 3), (16, 2), (3, 3))
    ]
    + [
        (
            name,
            n,
            {"dimensions": d},
            lambda n=n, d=d, name=name: networks.grid(networks.grid_sides(n, d), name == "torus"),
        )
        for name in ("torus", "mesh")
        for n, d in (
            (4, 2),
            (9, 2),
            (16, 2),
            (25, 2),
            (64, 2),
            (256, 2),
            (8, 2),
            (32, 2),
            (128, 2),
            (100, 2),
            (8, 3),
            (27, 3),
            (64, 3),
            (125, 3),
            (216, 3),
            (16, 3),
            (32, 3),
            (256, 3),
            (81, 4),
            (256, 4),
            (16, 4),
            (64, 5),
            (243, 5),
            (64, 6),
            (256, 1),
            (7, 1),
        )
    ]
    + [("hypercube", 2**k, {}, lambda k=k: networks.grid([2] * k, False)) for k in range(1, 9)]
    + [
        ("dragonfly", a * g, {"radix": a}, lambda a=a, g=g: networks.dragonfly(a, g))
        for a, g in (
            (2, 1),
            (4, 1),
            (2, 2),
            (2, 3),
            (4, 2),
            (4, 3),
            (4, 4),
            (4, 5),
            (8, 2),
            (8, 4),
            (8, 9),
            (15, 16),
            (5, 5),
            (8, 7),
        )
    ]
)


@program
def shape(link, ranks):
    lay = lay_out_ranks(read_topology(link), ranks, ranks)
    return {of.__name__: of(lay) for of in (mean_hops, diameter, bisection, degree)}


@pytest.mark.parametrize(
    ("name", "ranks", "fields", "network"), CASES, ids=lambda x: "" if callable(x) else str(x)
)
def test_equals_a_graph_search(name, ranks, fields, network):
    links = network()
    mean, diameter = networks.mean_and_diameter(links)
    cut = networks.bisection(links, tries=6)
    degree = max(len(links[node]) for node in networks.ranks_of(links))
    for dtype, near in ((np.float32, 1e-5), (np.float64, 1e-9)):
        with jax.enable_x64(dtype == np.float64):
            link = jc.canonical(jc.Link(topology=topology_id(name), **fields), dtype)
            found = shape(link, jnp.asarray(ranks, dtype))
        assert float(found["mean_hops"]) == pytest.approx(mean, rel=near)
        assert float(found["diameter"]) == diameter
        assert float(found["bisection"]) == pytest.approx(cut, rel=1e-3)
        if name != "mesh":  # whose corners have fewer links than its middle: the fewest count
            assert float(found["degree"]) == degree
        else:
            assert float(found["degree"]) == min(len(links[node]) for node in links)


def test_one_compilation_for_all_topologies_sizes_and_batches():
    traces = []

    @jax.jit
    @jax.vmap
    def all_of(topology, ranks, dimensions, radix):
        traces.append(1)
        return shape(jc.Link(topology=topology, dimensions=dimensions, radix=radix), ranks)

    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, len(TOPOLOGIES), 500), jnp.float32)
    ranks, dims, radix = (jnp.asarray(rng.integers(1, 257, 500), jnp.float32) for _ in range(3))
    found = all_of(ids, ranks, dims, radix)
    assert len(traces) == 1
    for leaf in jax.tree.leaves(found):
        assert np.isfinite(leaf).all() and (np.asarray(leaf) >= 0).all()
