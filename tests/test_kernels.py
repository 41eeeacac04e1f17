"""Kernels: the roofline in the limit, more work never faster, gradients that are finite, rows of an evaluation."""

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import program
from jaxcost.core.pytree import canonical, leaf_fields
from jaxcost.physics.kernels.attention import AttentionWork, attention_bytes, attention_timing
from jaxcost.physics.kernels.matmul import Machine, MatmulWork, matmul_bytes, matmul_timing, timing_seconds
from jaxcost.spec.kernels import (
    AttentionKernel,
    ElementwiseKernel,
    Kernels,
    MatmulKernel,
    MatmulKernels,
)

MACHINE = {"rate": 989e12, "bandwidth": 3.35e12, "cores": 132.0, "cache": 50e6, "exponentials": 3.9e12}
MATMUL = MatmulKernel(
    launch=3e-6, depth=3e-10, memory=0.85, matmul=0.8, serial=0.1, rows=64.0, waves=0.3, quantise=2.0
)
DECODE = AttentionKernel(
    launch=8e-6, reduce=2e-6, memory=0.9, cache=25.0, capacity=0.9, fill=1.2, slots=1.2, splits=60.0,
    block=200.0, prologue=2e-6, serial=0.25, matmul=0.7, aware=0.9, pad=60.0, packed_window=0.9, waves=0.5, rows=64.0,
)  # fmt: skip
PREFILL = AttentionKernel(
    launch=1e-5, memory=0.8, cache=25.0, capacity=0.9, prologue=2e-6, serial=0.4, matmul=0.8, exponentials=1.5,
    pad=150.0, unskipped=0.01, traffic=1.5, waves=0.5, rows=128.0, splits=1.0, slots=1.0,
)  # fmt: skip


def matmul(m, n, k, kernel, bits=16.0, **machine):
    on = Machine(**MACHINE | machine)
    work = MatmulWork(rows=m, columns=n, inner=k, weight_bits=bits, activation_bits=bits)
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


def test_narrow_inputs_cost_their_narrowing_and_only_theirs():
    for bits, more in ((16.0, 0.0), (8.0, 2.0 * 4096 * 7168 * 3 / 3.35e12)):
        plain = float(matmul(4096.0, 512.0, 7168.0, jc.replace(MATMUL, quantise=0.0), bits))
        assert float(matmul(4096.0, 512.0, 7168.0, MATMUL, bits)) - plain == pytest.approx(
            more, rel=1e-3, abs=1e-12
        )


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_gradients_are_finite_and_right(precision):
    with jax.enable_x64(True):
        on = Machine(**MACHINE)

        def seconds(x):
            machine, kernel, work = x
            return timing_seconds(
                attention_timing(machine, kernel, work), attention_bytes(work) / machine.bandwidth
            )

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
