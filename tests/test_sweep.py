"""Sweeps: every design once, equal to a loop, whatever the chunk and the devices; bad designs only flagged."""

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.explore.space import digits, space_features
from jaxcost.explore.sweep import METRICS

SPACE = """
models: [llama-3.1-8b, mixtral-8x7b, mamba-2-2.7b]
systems: [h100-sxm-x8, a18-pro]
traffic: {prompt: 512, output: 64}
axes:
  traffic.batch: [1, 3, 64]
  plan.tp: [1, 2]
  plan.weight_bits: [bf16, 4.25]
  system.chip.memory.bandwidth: {scale: {log: [0.5, 2, 3]}}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "small.yaml"
    path.write_text(SPACE)
    return jc.load_space(str(path))


@pytest.fixture(scope="module")
def result(space):
    return jc.sweep(space)


def test_shape_and_index(space):
    assert space.shape == (2, 3, 3, 2, 2, 3)
    grid = np.stack(digits(np.arange(space.size), space.shape))
    assert len(np.unique(grid, axis=1).T) == space.size
    assert np.array_equal(np.ravel_multi_index(tuple(grid), space.shape), np.arange(space.size))


def test_equals_a_loop(space, result):
    assert result.values.shape == (space.size, len(METRICS))
    for index in (0, 1, 17, 100, space.size - 1):
        d = jc.design_at(space, np.int32(index))
        report = jc.evaluate(d.system, d.model, d.traffic, d.plan, prices=d.prices)
        np.testing.assert_allclose(result.column("tpot")[index], report.tpot, rtol=2e-6)
        np.testing.assert_allclose(
            result.column("margins.memory")[index], report.margins.memory, rtol=1e-5, atol=1e-6
        )


def test_chunk_and_devices_do_not_matter(space, result):
    one = jc.sweep(space, chunk=64, devices=jax.local_devices()[:1])
    assert np.array_equal(one.values, result.values)


def test_best_is_feasible_and_least(result):
    best = result.best("usd_per_mtok", 5)
    assert result.feasible[best].all()
    assert result.column("usd_per_mtok")[best[0]] == result.column("usd_per_mtok")[result.feasible].min()
    assert not result.feasible.all()
    assert np.isfinite(result.values).all()


def test_million_space_is_large():
    assert jc.load_space("million").size >= 1_000_000


TIERED = """
models: [deepseek-v2-lite]
systems: [h100-sxm-x2]
traffic: {prompt: 512, output: 64, batch: 4}
plan: {tp: 2}
axes:
  system.chip.hbf.capacity: [0 GB, 512 GB]
  system.chip.hbf.bandwidth: {linear: [100 GB/s, 1600 GB/s, 3]}
  system.chip.memory.near.bandwidth: [0 TB/s, 20 TB/s]
  system.chip.memory.near.flops: [20 TFLOP/s]
"""


def test_tiers_and_engines_are_knobs(tmp_path, space):
    path = tmp_path / "tiers.yaml"
    path.write_text(TIERED)
    tiered = jc.load_space(str(path))
    assert space_features(space) == ()
    assert set(space_features(tiered)) == {"hbf", "memory.near"}
    values = jc.sweep(tiered).column("tpot").reshape(2, 3, 2)
    for index in (0, 3, 7, 11):
        d = jc.design_at(tiered, np.int32(index))
        report = jc.evaluate(d.system, d.model, d.traffic, d.plan, prices=d.prices)
        np.testing.assert_allclose(values.ravel()[index], report.tpot, rtol=2e-6)
    assert (values[0, 0, 0] == values[0, :, 0]).all()  # without capacity its bandwidth is nothing
    assert (np.diff(values[1, :, 0]) < 0).all()  # with it, more is faster
    assert (values[:, :, 1] <= values[:, :, 0]).all()
