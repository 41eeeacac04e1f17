"""Kernels: the roofline in the limit, more work never faster, gradients that are finite, rows of an evaluation."""

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import program
from jaxcost.core.pytree import canonical, leaf_fields
from jaxcost.physics.kernels.attention import AttentionWork, attention_bytes, attention_timing
from jaxcost.physics.kernels.matmul import Machine, MatmulWork, matmul_bytes, matmul_timing, timing_seconds
from jaxcost.physics.kernels.rows import _matmul_kernel
from jaxcost.spec.kernels import (
    AttentionKernel,
    ElementwiseKernel,
    Kernels,
    MatmulKernel,
    MatmulKernels,
)

MACHINE = {"rate": 989e12, "bandwidth": 3.35e12, "cores": 132.0, "cache": 50e6, "exponentials": 3.9e12}
MATMUL = MatmulKernel(
    launch=3e-6, depth=1e-10, steps=0.5, memory=0.85, cache=40.0, resident=0.8, matmul=0.8, serial=0.1, rows=64.0,
    ends=100.0, waves=0.3, quantise=2.0, quantise_launch=8e-6, quantise_share=0.25,
)  # fmt: skip
DECODE = AttentionKernel(
    launch=8e-6, reduce=2e-6, memory=0.9, cache=25.0, capacity=0.9, fill=1.2, slots=1.2, splits=60.0,
    block=200.0, prologue=2e-6, serial=0.25, matmul=0.7, aware=0.9, pad=60.0, packed_window=0.9, waves=0.5, rows=64.0,
)  # fmt: skip
PREFILL = AttentionKernel(
    launch=1e-5, memory=0.8, cache=25.0, capacity=0.9, prologue=2e-6, serial=0.4, matmul=0.8, exponentials=1.5,
    pad=150.0, unskipped=0.01, traffic=1.5, waves=0.5, rows=128.0, splits=1.0, slots=1.0,
)  # fmt: skip


def matmul(m, n, k, kernel, bits=16.0, inputs=None, replayed=0.0, **machine):
    on = Machine(**MACHINE | machine)
    narrow = {"weight_bits": bits, "activation_bits": bits if inputs is None else inputs}
    work = MatmulWork(rows=m, columns=n, inner=k, **narrow, replayed=replayed)
    return timing_seconds(matmul_timing(on, kernel, work), matmul_bytes(work) / on.bandwidth)


def attention(b, q, length, kernel, *, heads=32.0, kv_heads=8.0, window=0.0, **machine):
    on = Machine(**MACHINE | machine)
    work = AttentionWork(
        sequences=b,
        queries=q,
        keys=length,
        heads=heads,
        kv_heads=kv_heads,
        window=window,
        key_dim=128.0,
        value_dim=128.0,
        row_bytes=512.0,
        query_bytes=2.0,
    )
    return timing_seconds(attention_timing(on, kernel, work), attention_bytes(work) / on.bandwidth), work


@pytest.mark.parametrize("m, n, k", [(1, 128, 7168), (300, 4096, 4096), (8192, 16384, 2048)])
def test_an_ideal_matmul_is_the_roofline(m, n, k):
    roofline = max(2 * m * n * k / 989e12, 2 * (n * k + m * k + m * n) / 3.35e12)
    assert float(matmul(float(m), float(n), float(k), MatmulKernel())) == pytest.approx(roofline, rel=1e-6)


@pytest.mark.parametrize("b, q, length, window", [(1, 1, 8192, 0), (64, 1, 2048, 128), (2, 2048, 2048, 0)])
def test_ideal_attention_is_the_roofline(b, q, length, window):
    with jax.enable_x64(True):
        seconds, _ = attention(float(b), float(q), float(length), AttentionKernel(), window=float(window))
        reach = min(length, window + q - 1) if window else length
        seen = [min(length - q + i + 1, window or length) for i in range(q)]
        moved = b * (8 * reach * 512 + 32 * q * 512)
        roofline = max(moved / 3.35e12, 4 * 128 * b * 32 * sum(seen) / 989e12)
        assert float(seconds) == pytest.approx(roofline, rel=1e-6)


def test_more_work_is_never_faster():
    sizes = np.unique(np.round(np.geomspace(1, 16384, 200)))
    with jax.enable_x64(True):
        for n, k in ((128.0, 7168.0), (8192.0, 8192.0)):
            assert np.all(np.diff(matmul(sizes, n, k, MATMUL)) >= -1e-15)
            assert np.all(np.diff(matmul(64.0, sizes * 8, k, MATMUL)) >= -1e-15)
        for kernel, q in ((DECODE, 1.0), (PREFILL, 512.0)):
            longer = attention(4.0, q, q + sizes * 4, kernel)[0]
            assert np.all(np.diff(longer) >= -1e-15)
        assert np.all(np.diff(attention(1.0, sizes, sizes, PREFILL)[0]) >= -1e-15)


def test_better_kernels_and_chips_are_faster():
    base = float(matmul(4096.0, 4096.0, 4096.0, MATMUL))
    assert float(matmul(4096.0, 4096.0, 4096.0, jc.replace(MATMUL, matmul=0.9))) < base
    assert float(matmul(4096.0, 4096.0, 4096.0, MATMUL, rate=2e15)) < base
    one = float(attention(8.0, 1.0, 32768.0, DECODE)[0])
    assert float(attention(8.0, 1.0, 32768.0, DECODE, bandwidth=8e12)[0]) < one
    assert float(attention(8.0, 1.0, 32768.0, jc.replace(DECODE, memory=0.5))[0]) > one


@pytest.mark.parametrize("replayed, share", [(0.0, 0.25), (6.0, 1.0)])
def test_narrow_inputs_cost_their_conversion_and_a_model_only_its_share(replayed, share):
    shape, free = (4096.0, 512.0, 7168.0), jc.replace(MATMUL, quantise=0.0, quantise_launch=0.0)
    moved = 2.0 * 4096 * 7168 * 3 / 3.35e12
    for bits, inputs, more in ((16.0, 16.0, 0.0), (4.25, 16.0, 0.0), (8.0, 8.0, share * (8e-6 + moved))):
        one, plain = (float(matmul(*shape, x, bits, inputs, replayed)) for x in (MATMUL, free))
        assert one - plain == pytest.approx(more, rel=1e-3, abs=1e-12)


def test_small_weights_stay_cached_in_benchmarks_only():
    fast = jc.replace(MATMUL, rows=0.0)
    small, large = (1.0, 1024.0, 1024.0), (1.0, 65536.0, 16384.0)
    assert float(matmul(*small, fast, replayed=6.0)) < 0.9 * float(matmul(*small, fast))
    assert float(matmul(*large, fast, replayed=6.0)) == pytest.approx(float(matmul(*large, fast)), rel=1e-3)
    # Without a cache, or a clock by which it delivers, nothing is faster and every slope is finite.
    for nothing in ({"cache": 0.0}, {"cores": 0.0}, {"exponentials": 0.0}):
        one = float(matmul(*small, fast, replayed=6.0, **nothing))
        assert one == pytest.approx(float(matmul(*small, fast, **nothing)), rel=1e-6)
        slopes = jax.grad(lambda on: matmul(*small, fast, replayed=6.0, **on))(MACHINE | nothing)
        assert all(np.isfinite(x) for x in slopes.values())


def test_steps_follow_the_clock_and_ends_the_peak():
    plain = jc.replace(MATMUL, steps=0.0)
    clock = 3.9e12 / (16 * 132)
    more = float(matmul(1.0, 128.0, 7168.0, MATMUL)) - float(matmul(1.0, 128.0, 7168.0, plain))
    assert more == pytest.approx(0.5 * 7168 / clock, rel=1e-3)
    busy = lambda k, kernel: float(matmul(16384.0, 16384.0, k, kernel)) - 3e-6  # noqa: E731
    ideal = MatmulKernel(launch=3e-6)
    assert busy(1024.0, jc.replace(ideal, ends=1024.0)) == pytest.approx(2 * busy(1024.0, ideal), rel=1e-3)


def test_every_pair_of_bits_has_its_kernel():
    kernels = MatmulKernels(
        **{f.name: MatmulKernel(launch=i) for i, f in enumerate(leaf_fields(MatmulKernels))}
    )
    names = [f.name for f in leaf_fields(MatmulKernels)]
    pairs = {
        (16.0, 16.0): "bits_16",
        (16.0, 8.0): "bits_16",
        (8.0, 16.0): "weights_8",
        (8.002, 16.0): "weights_8",
        (6.0, 16.0): "weights_8",
        (4.25, 16.0): "weights_4",
        (8.0, 8.0): "bits_8",
        (6.25, 8.0): "bits_8",
        (4.5, 8.0): "bits_8",
        (8.002, 8.0): "bits_8_block",
        (8.25, 8.25): "bits_8_block",
        (8.5, 8.0): "bits_8",
        (4.5, 4.5): "bits_4",
        (4.25, 4.25): "bits_4",
    }
    weights, inputs = (np.asarray(x, np.float32) for x in zip(*pairs, strict=True))
    chosen = jax.jit(_matmul_kernel)(kernels, weights, inputs).launch
    assert [names[int(i)] for i in chosen] == list(pairs.values())


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_gradients_are_finite_and_right(precision):
    with jax.enable_x64(True):
        on = Machine(**MACHINE)

        def seconds(x):
            machine, kernel, work = x
            return timing_seconds(
                attention_timing(machine, kernel, work), attention_bytes(work) / machine.bandwidth
            )

        for replayed in (0.0, 6.0):
            matmul_slopes = jax.grad(lambda x, r=replayed: matmul(300.0, 640.0, 700.0, x, 8.0, replayed=r))
            for leaf in jax.tree.leaves(matmul_slopes(canonical(MATMUL, precision))):
                assert np.isfinite(leaf) and leaf.dtype == precision
        for kernel, b, q, length, window in (
            (DECODE, 3.0, 1.0, 700.5, 128.0),
            (PREFILL, 1.0, 300.0, 900.0, 0.0),
        ):
            work = attention(b, q, length, kernel, window=window)[1]
            at = canonical((on, kernel, work), precision)
            slopes = jax.grad(seconds)(at)
            for leaf in jax.tree.leaves(slopes):
                assert np.isfinite(leaf) and leaf.dtype == precision
            for name in ("memory", "matmul", "prologue", "launch"):
                h = float(getattr(kernel, name)) * 1e-6
                up, down = (
                    seconds(
                        canonical(
                            (on, jc.replace(kernel, **{name: getattr(kernel, name) + s}), work), np.float64
                        )
                    )
                    for s in (h, -h)
                )
                slope = float(getattr(slopes[1], name))
                assert slope == pytest.approx(float(up - down) / (2 * h), rel=2e-3, abs=1e-12)


def test_matmuls_in_a_batch_are_those_alone():
    sizes = np.asarray([1.0, 37.0, 4096.0])
    with jax.enable_x64(True):
        bits = np.asarray([16.0, 8.0, 8.0])
        many = jax.vmap(lambda m, b: matmul(m, 2560.0, 8192.0, MATMUL, b, b, 6.0))(sizes, bits)
        each = [float(matmul(m, 2560.0, 8192.0, MATMUL, b, b, 6.0)) for m, b in zip(sizes, bits, strict=True)]
    np.testing.assert_allclose(many, each, rtol=1e-12)


def with_kernels(system, kernels):
    return jc.replace_at(system, "chip.efficiency.kernels", kernels)


REQUEST = (jc.Traffic(prompt=1024, output=256, batch=16), jc.Plan(tp=4))


@pytest.fixture(scope="module")
def fast_vectors():
    """A chip on which element-wise work never binds: kernels hold it within theirs."""
    system = jc.load_system("h100-sxm-x8")
    system = jc.replace_at(system, "chip.compute.vector_flops", 1e18)
    return jc.replace_at(system, "chip.compute.exponentials", 1e18)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-3.1-70b", "gemma-3-27b", "deepseek-v2-lite"])
def test_ideal_kernels_leave_an_evaluation_as_it_is(fast_vectors, name):
    model = jc.load_model(name)
    ideal = jc.evaluate(fast_vectors, model, *REQUEST)
    kernels = jc.evaluate(with_kernels(fast_vectors, Kernels()), model, *REQUEST)
    assert float(kernels.tpot) == pytest.approx(float(ideal.tpot), rel=5e-3)
    assert float(kernels.ttft) == pytest.approx(float(ideal.ttft), rel=5e-3)


@pytest.mark.slow
def test_kernels_time_their_rows(fast_vectors):
    model = jc.load_model("llama-3.1-70b")
    launched = Kernels(
        matmul=MatmulKernels(bits_16=MatmulKernel(launch=1e-5)), elementwise=ElementwiseKernel(launch=1e-6)
    )
    base, slow = (jc.evaluate(with_kernels(fast_vectors, k), model, *REQUEST) for k in (Kernels(), launched))
    more = {
        n: float(b.seconds - a.seconds)
        for n, a, b in zip(base.decode.names, base.decode.rows, slow.decode.rows, strict=True)
    }
    assert more["feed_forward"] == pytest.approx(2 * 80 * 1e-5, rel=1e-3)
    assert more["attention_qkv"] == pytest.approx(80 * 1e-5, rel=1e-3)
    assert more["norms"] == pytest.approx(160e-6, rel=0.02)
    assert more["routed_experts"] == 0
    gradient = program(jax.grad(lambda s: jc.evaluate(s, model, *REQUEST).tpot))
    slopes = gradient(with_kernels(fast_vectors, launched))
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(slopes))
    assert float(slopes.chip.efficiency.kernels.matmul.bits_16.launch) == pytest.approx(5 * 80 + 1, rel=0.3)


def test_every_number_of_a_kernel_has_a_unit_and_words():
    for kernel in (MatmulKernel, AttentionKernel, ElementwiseKernel):
        for field in leaf_fields(kernel):
            assert field.metadata["unit"] in ("1", "s", "B")
            assert field.metadata["doc"]
