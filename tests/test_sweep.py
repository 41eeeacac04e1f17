"""Sweeps: every design once, equal to a loop, whatever the chunk and the devices; bad designs only flagged."""

import jax
import numpy as np
import pytest

import jaxcost as jc
import jaxcost.explore.sweep.stream as streams
from jaxcost.explore.space.spaces import build_designs, space_features, sweep_features, unravel_index
from jaxcost.explore.sweep.run import METRICS, model_evaluation

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
    grid = np.stack(unravel_index(np.arange(space.size), space.shape))
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


@pytest.mark.exhaustive  # as test_blocks_hold_every_design_once_whatever_the_run, of a space without blocks
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


BLOCKS = """
models: [llama-3.1-8b]
systems: [h100-sxm-x8]
traffic: {prompt: 512, output: 64}
axes:
  traffic.batch: [8, 64]
  plan.tp: [1, 2]
  system.chip.memory.bandwidth: {scale: {log: [0.5, 2, 30]}}
  system.fabric.scale_up.bandwidth: {scale: [1, 2]}
"""


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "blocks.yaml"
    path.write_text(BLOCKS)
    return jc.load_space(str(path))


def test_a_block_of_the_last_axes_fills_chunks_and_is_not_cut_by_conditions(blocks):
    block = streams._block_of(blocks, 64)
    assert (block.axes, block.size, block.slots) == (2, 60, 64)
    assert streams._block_of(blocks, 128).axes == 3  # 60 designs would leave half of 128 slots empty
    conditional = jc.replace(
        blocks, axes=(*blocks.axes[:-1], jc.replace(blocks.axes[-1], when=(("plan.tp", (0,)),)))
    )
    assert streams._block_of(conditional, 64).axes == 0


def test_blocks_hold_every_design_once_whatever_the_run(blocks):
    whole = jc.sweep(blocks, devices=jax.local_devices()[:1])
    design = build_designs(blocks, unravel_index(np.arange(blocks.size, dtype=np.int32), blocks.shape))
    report = jc.evaluate(design.system, design.model, design.traffic, design.plan, prices=design.prices)
    for metric in ("tpot", "usd_per_mtok", "gco2e_per_mtok"):
        np.testing.assert_allclose(whole.column(metric), getattr(report, metric), rtol=5e-6)
    stream = streams.SweepStream(
        blocks,
        model_evaluation(METRICS, sweep_features(blocks)),
        METRICS,
        {"best": jc.TopK("tpot", 3)},
        keep=240,
    )
    # On two devices; `whole` is of one.
    for start, count in ((0, 240), (37, 101), (59, 1), (60, 60), (239, 1)):
        assert np.array_equal(stream.run(start, count), whole.values[start : start + count])
