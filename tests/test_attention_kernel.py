"""Attention kernels: the rate of a task, conversion of the cache, selection by bits, places of measured kernels."""

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.pytree import canonical
from jaxcost.explore.calibrate.attention_form import ATTENTION_DECODE, LATENT_DECODE
from jaxcost.explore.calibrate.kernel_families import FAMILIES
from jaxcost.physics.kernels.attention import AttentionWork, attention_bytes, attention_timing
from jaxcost.physics.kernels.matmul import Machine, timing_seconds
from jaxcost.spec.kernels import AttentionKernel, AttentionKernels, Kernels

H100 = {"rate": 989e12, "bandwidth": 3.35e12, "cores": 132.0, "cache": 50e6, "exponentials": 3.9e12}
CLOCK = 3.9e12 / 16 / 132
SPLIT = AttentionKernel(
    launch=6e-6, reduce=2e-6, memory=0.93, cache=20.0, capacity=0.9, fill=1.3, slots=1.5, splits=30.0, block=200.0,
    prologue=2e-6, core=15.0, convert=5.0, serial=0.3, matmul=0.7, aware=0.6, pad=60.0, packed_window=0.9, rows=16.0,
)  # fmt: skip


def attention(b, length, kernel, *, queries=1.0, heads=32.0, kv_heads=8.0, bits=16.0, **machine):
    on = Machine(**H100 | machine)
    work = AttentionWork(
        sequences=b,
        queries=queries,
        keys=length,
        heads=heads,
        kv_heads=kv_heads,
        window=0.0,
        key_dim=128.0,
        value_dim=128.0,
        row_bytes=256.0 * bits / 8,
        query_bytes=2.0,
    )
    return timing_seconds(attention_timing(on, kernel, work), attention_bytes(work) / on.bandwidth)


def test_one_task_streams_its_bytes_per_cycle():
    with jax.enable_x64(True):
        alone = AttentionKernel(splits=1.0, core=7.0, rows=8.0)
        work = {"heads": 8.0, "kv_heads": 1.0, "bits": 8.0, "rate": 1e20}
        seconds = float(attention(1.0, 32768.0, alone, **work))
        assert seconds == pytest.approx(32768 * 256 / (7 * CLOCK), rel=1e-3)
        # As many tasks as cores take the same time; twice as many take twice as long, or as long with two at once.
        for tasks, slots, times in ((132.0, 1.0, 1.0), (264.0, 1.0, 2.0), (264.0, 2.0, 1.0)):
            many = float(attention(tasks, 32768.0, jc.replace(alone, slots=slots), **work, bandwidth=8e12))
            assert many == pytest.approx(times * seconds, rel=1e-3)


def test_conversion_of_the_cache_adds_its_time():
    with jax.enable_x64(True):
        plain, converted = (
            float(attention(64.0, 8192.0, jc.replace(SPLIT, convert=c))) for c in (1e15, SPLIT.convert)
        )
        cached = 64 * 8192 * 8 * 512
        assert converted - plain == pytest.approx(cached / (5 * CLOCK * 132), rel=1e-6)


@pytest.mark.parametrize("form", [ATTENTION_DECODE, LATENT_DECODE])
def test_decode_forms_are_continuous_in_their_parameters(form):
    starts = {name: bounds.start for name, bounds in form.bounds.items()}
    # Least squares cannot cross the steps of whole waves.
    assert AttentionKernel(**form.kernel(starts)).waves == 0
    with jax.enable_x64(True):
        for name in ("fill", "splits", "block", "slots"):
            low, high = form.bounds[name].low, form.bounds[name].high
            x = np.geomspace(low, high, 4000)
            kernel = AttentionKernel(**form.kernel(starts | {name: x}))
            seconds = np.asarray(attention(4.0, 3000.0, kernel))
            assert np.max(np.abs(np.diff(np.log(seconds)))) < 0.02


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_gradients_are_finite_and_right_in_both_precisions(precision):
    with jax.enable_x64(True):
        for b, length in ((1.0, 900.0), (256.0, 5000.0)):
            run = lambda kernel, b=b, length=length: attention(b, length, kernel)  # noqa: E731
            slopes = jax.grad(run)(canonical(SPLIT, precision))
            for name in ("core", "convert", "memory", "slots", "prologue"):
                at = float(getattr(SPLIT, name))
                up, down = (float(run(jc.replace(SPLIT, **{name: at * (1 + s)}))) for s in (1e-5, -1e-5))
                slope = np.asarray(getattr(slopes, name))
                assert slope.dtype == precision
                assert float(slope) == pytest.approx((up - down) / (2e-5 * at), rel=5e-3, abs=1e-12)
            for leaf in jax.tree.leaves(jax.grad(run)(canonical(AttentionKernel(), precision))):
                assert np.isfinite(leaf)


def test_batches_are_the_single_runs():
    b, length = np.array([1.0, 16.0, 256.0]), np.array([[128.0], [4096.0]])
    with jax.enable_x64(True):
        both = np.asarray(attention(b, length, SPLIT))
        for i, one in enumerate(length[:, 0]):
            for j, many in enumerate(b):
                assert both[i, j] == pytest.approx(float(attention(many, one, SPLIT)), rel=1e-12)


def test_more_keys_and_sequences_never_take_less_time():
    with jax.enable_x64(True):
        keys = np.unique(np.round(np.geomspace(1, 131072, 600)))
        for b in (1.0, 20.0, 300.0):
            assert np.all(np.diff(attention(b, keys, SPLIT)) >= -1e-15)
        assert np.all(np.diff(attention(np.arange(1.0, 600.0), 3000.0, SPLIT)) >= -1e-15)


def test_a_chip_with_a_seventh_of_the_arithmetic_decodes_at_its_bandwidth():
    with jax.enable_x64(True):
        work = {"heads": 128.0, "kv_heads": 1.0}
        h100 = float(attention(64.0, 8192.0, SPLIT, heads=8.0, kv_heads=1.0))
        h20 = float(
            attention(64.0, 8192.0, SPLIT, heads=8.0, kv_heads=1.0, rate=148e12, bandwidth=4e12, cores=78.0,
                      exponentials=2.5e12)
        )  # fmt: skip
        assert h20 < 1.8 * h100
        # With many heads each of their tiles streams the keys again, beside the arithmetic.
        dense = float(attention(64.0, 8192.0, SPLIT, rate=148e12, bandwidth=4e12, cores=78.0, **work))
        assert dense < 5 * 4 * 128 * 64 * 128 * 8192 / 148e12


def kernels(**launch):
    return AttentionKernels(**{name: AttentionKernel(launch=value) for name, value in launch.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    "cache, arithmetic, launch", [(16.0, 16.0, 1e-3), (8.0, 16.0, 2e-3), (8.0, 8.0, 4e-3), (16.0, 8.0, 1e-3)]
)
def test_kernels_are_selected_by_the_bits_of_cache_and_arithmetic(cache, arithmetic, launch):
    several = kernels(bits_16=1e-3, bits_8=2e-3, compute_8=4e-3)
    system = jc.load_system("h100-sxm-x8")
    plan = jc.Plan(tp=4, kv_bits=cache, attention_bits=arithmetic)
    traffic = jc.Traffic(prompt=1024, output=256, batch=16)
    model = jc.load_model("llama-3.1-70b")

    def seconds(attention):
        used = Kernels(attention_prefill=attention, attention_decode=attention)
        result = jc.evaluate(jc.replace_at(system, "chip.efficiency.kernels", used), model, traffic, plan)
        return float(result.tpot)

    bare = seconds(kernels(bits_16=0.0, bits_8=0.0, compute_8=0.0))
    assert seconds(several) - bare == pytest.approx(80 * launch, rel=0.05)


def test_kernels_that_a_library_does_not_select_have_no_place():
    decode, prefill = FAMILIES["attention_decode"], FAMILIES["attention_prefill"]
    labels = {"library": "sglang", "precision": "bfloat16", "kv_precision": "fp8"}
    assert decode.place(labels | {"kernel": "flashinfer"}) == ("attention_decode", "bits_8")
    assert decode.place(labels | {"kernel": "triton"}) is None
    assert prefill.place(labels | {"kernel": "fa3", "precision": "fp8"}) == ("attention_prefill", "compute_8")
    assert prefill.place(labels | {"kernel": "fa3", "precision": "fp8", "kv_precision": "bfloat16"}) is None
    assert FAMILIES["latent_decode"].place(labels | {"kernel": "triton"}) == ("latent_decode", "bits_8")
