"""Trees: round trips, labels, canonical leaves, static hygiene."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.pytree import canonical, derived, field, leaf_fields, pytree, replace_at, rows


@pytree
class Part:
    size: object = field("B", "bytes", default=2.0)
    name: tuple = field(static=True, default=("a",))

    @derived("B")
    def double(self):
        return 2 * self.size


TREES = (jc.System(), jc.Model(), jc.Traffic(), jc.Plan(), jc.Prices(), jc.Knobs())


@pytest.mark.parametrize("tree", TREES, ids=lambda t: type(t).__name__)
def test_round_trip_and_map(tree):
    leaves, structure = jax.tree.flatten(tree)
    again = jax.tree.unflatten(structure, leaves)
    assert jax.tree.leaves(again) == leaves
    doubled = jax.tree.map(lambda x: 2 * x, tree)
    assert jax.tree.leaves(doubled) == [2 * x for x in leaves]
    jax.tree.map(str, tree)


@pytest.mark.parametrize("tree", TREES, ids=lambda t: type(t).__name__)
def test_every_leaf_says_unit_and_meaning(tree):
    def walk(node):
        for f in leaf_fields(type(node)):
            assert f.metadata["doc"], f.name
            value = getattr(node, f.name)
            if dataclasses.is_dataclass(value):
                walk(value)
            elif value is not None:
                assert f.metadata["unit"], f.name

    walk(tree)


def test_canonical_makes_one_dtype_and_one_compilation():
    traces = []

    @jax.jit
    def f(traffic):
        traces.append(1)
        return traffic.prompt + traffic.batch

    for value in (3, 3.0, np.float64(3), np.int32(3), jnp.float32(3)):
        f(canonical(jc.Traffic(batch=value)))
    assert len(traces) == 1
    assert {x.dtype for x in jax.tree.leaves(canonical(jc.Plan()))} == {jnp.dtype("float32")}


def test_mutable_static_fields_are_refused():
    with pytest.raises(TypeError, match=r"Part\.name is static"):
        canonical(Part(name=["a"]))


def test_replace_at_and_rows():
    system = replace_at(jc.System(), "chip.memory.bandwidth", 5.0)
    assert system.chip.memory.bandwidth == 5.0
    with pytest.raises(AttributeError, match="bandwidth"):
        replace_at(system, "chip.memory.bandwith", 1.0)
    assert rows(Part()) == [("size", "B", 2.0), ("double", "B", 4.0)]
