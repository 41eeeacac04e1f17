"""Calibrated kernels of routed experts and of messages: ideal limits, monotony, gradients, and fits that find them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.pytree import replace_at
from jaxcost.explore.calibrate import message_forms, mixture_form
from jaxcost.explore.calibrate.fit import fit, predict
from jaxcost.explore.calibrate.routing import measured_rank
from jaxcost.physics.compute.load import Group, step_load
from jaxcost.physics.compute.operators import OPERATORS
from jaxcost.physics.compute.shards import shard
from jaxcost.physics.kernels.collective import (
    AllToAllWork,
    all_to_all_seconds,
    collective_seconds,
    custom_all_reduce_seconds,
    ring_work,
    shot_works,
)
from jaxcost.physics.kernels.matmul import Machine, timing_seconds
from jaxcost.physics.kernels.mixture import MixtureWork, mixture_bytes, mixture_flops, mixture_timing
from jaxcost.physics.kernels.rows import kernel_rows, kernel_seconds
from jaxcost.physics.network.algorithms import algorithm_costs
from jaxcost.physics.network.levels import fabric_levels, take_level
from jaxcost.spec.kernels import (
    AllToAllKernel,
    CollectiveKernel,
    CustomAllReduceKernel,
    Kernels,
    MixtureKernel,
    MixtureKernels,
)
from jaxcost.spec.measurement import Measurements
from tests.batched import run

MACHINE = Machine(rate=989e12, bandwidth=3.35e12, cores=132.0, cache=5e7)
WORK = {
    "rows": 64.0,
    "experts": 30.0,
    "held": 64.0,
    "slots": 96.0,
    "hidden": 4096.0,
    "inner": 1536.0,
    "weight_bytes": 2.0,
    "activation_bytes": 2.0,
}
KERNEL = MixtureKernel(
    launch=2e-5,
    expert=5e-8,
    memory=0.85,
    cache=4.0,
    resident=0.8,
    matmul=0.6,
    rows=32.0,
    adapt=0.6,
    untuned_memory=0.8,
    untuned_matmul=0.5,
    padding=0.5,
    depth=100.0,
    serial=0.3,
    passes=1.5,
    remote_fraction=0.4,
)
RING = CollectiveKernel(launch=5e-6, round=3e-7, share=0.82, copies=4.0, protocol_switch=2.0)
QUICK = CustomAllReduceKernel(launch=2e-6, round=1e-7, share=0.95, protocol_switch=1.5, limit=8e6, floor=0.1)
WAY = AllToAllKernel(
    launch=8e-6, expert=1e-8, chunk=5.0, share=0.55, receiver=0.8, protocol_switch=0.9, copies=1.0
)


def mixture_seconds(kernel, machine=MACHINE, **changes):
    work = MixtureWork(**WORK | changes)
    return timing_seconds(mixture_timing(machine, kernel, work), mixture_bytes(work) / machine.bandwidth)


@pytest.mark.parametrize("rows", [1.0, 64.0, 1e3, 1e5])
def test_ideal_experts_are_the_roofline(rows):
    work = MixtureWork(**WORK | {"rows": rows, "replayed": 30.0})
    moved = (30 * 3 * 4096 * 1536 + rows * (2 * 4096 + 3 * 1536)) * 2
    roofline = max(moved / 3.35e12, 6 * rows * 4096 * 1536 / 989e12)
    assert float(mixture_bytes(work)) == pytest.approx(moved)
    assert float(mixture_flops(work)) == pytest.approx(6 * rows * 4096 * 1536)
    assert float(mixture_seconds(MixtureKernel(), rows=rows, replayed=30.0)) == pytest.approx(
        roofline, rel=1e-6
    )
    assert float(mixture_seconds(KERNEL, rows=rows)) > roofline


@pytest.mark.parametrize("column", ["rows", "experts", "held", "slots", "hidden", "inner", "weight_bytes"])
@pytest.mark.parametrize("replayed", [0.0, 40.0])
def test_experts_take_longer_the_more_there_is_to_do(column, replayed):
    rng = np.random.default_rng(0)
    values = np.geomspace(0.5, 200, 200) * WORK[column] / 20
    wide = {name: jnp.full(200, value) for name, value in WORK.items()}
    wide[column] = jnp.asarray(values)
    wide["slots"] = jnp.maximum(wide["slots"], wide["rows"])
    for _ in range(20):
        scale = lambda value: float(value * np.exp(0.5 * rng.normal()))  # noqa: E731
        # The same rows on more local experts have shorter tiles.
        kernel = jax.tree.map(scale, jc.replace(KERNEL, adapt=0.0 if column == "held" else KERNEL.adapt))
        seconds = np.asarray(mixture_seconds(kernel, **wide, replayed=replayed * wide["experts"] / 30))
        assert (np.diff(seconds) > -1e-6 * seconds[1:]).all()
        assert seconds[-1] > seconds[0]


def test_tiles_shrink_with_the_slots_of_a_local_expert_down_to_sixteen_rows():
    few = {"rows": 32.0, "experts": 32.0, "held": 32.0, "even": 1.0}  # a row for each of 32 experts
    kernel = MixtureKernel(matmul=1e-3, rows=128.0, padding=0.5)  # padded tiles take the time

    def tile(adapt, slots):
        one = mixture_seconds(jc.replace(kernel, rows=1.0), **few, slots=32.0)
        return float(mixture_seconds(jc.replace(kernel, adapt=adapt), **few, slots=slots) / one)

    assert tile(0.0, 32.0) == pytest.approx(128, rel=1e-4)
    assert tile(1.0, 32.0) == pytest.approx(16, rel=1e-4)
    assert tile(0.5, 32.0) == pytest.approx((128 * 16) ** 0.5, rel=1e-4)
    assert tile(1.0, 64.0 * 32) == pytest.approx(64, rel=1e-4)
    assert tile(1.0, 512.0 * 32) == pytest.approx(128, rel=1e-4)


def test_tiles_are_full_where_all_experts_have_equally_many_rows():
    kernel = MixtureKernel(matmul=1e-3, rows=128.0, padding=0.5)
    full = {"rows": 128.0 * 30, "experts": 30.0}
    ideal = float(mixture_seconds(MixtureKernel(matmul=1e-3), **full))
    assert float(mixture_seconds(kernel, **full, even=1.0)) == pytest.approx(ideal, rel=1e-5)
    assert float(mixture_seconds(kernel, **full, even=0.0)) == pytest.approx(1.5 * ideal, rel=1e-5)


def test_tile_sizes_that_are_not_tuned_cost_bandwidth_and_matmul_rate():
    kernel = MixtureKernel(untuned_memory=0.8, untuned_matmul=0.5)
    for rows, share in ((1.0, 0.8), (1e5, 0.5)):
        tuned, untuned = (float(mixture_seconds(kernel, rows=rows, untuned=x)) for x in (0.0, 1.0))
        assert tuned == pytest.approx(share * untuned, rel=1e-5)
        assert tuned == pytest.approx(float(mixture_seconds(MixtureKernel(), rows=rows)), rel=1e-6)


def test_a_batch_of_works_is_timed_as_one_by_one_in_both_precisions():
    rows = np.geomspace(1, 1e5, 16)
    with jax.enable_x64(True):
        exact = [float(mixture_seconds(KERNEL, rows=jnp.asarray(x, jnp.float64))) for x in rows]
    wide = jnp.asarray(rows, jnp.float32)
    batched = mixture_seconds(KERNEL, rows=wide)
    assert batched.dtype == jnp.float32
    np.testing.assert_allclose(batched, exact, rtol=2e-6)
    np.testing.assert_allclose(jax.vmap(lambda x: mixture_seconds(KERNEL, rows=x))(wide), exact, rtol=2e-6)


def test_gradients_of_a_kernel_are_those_of_differences():
    with jax.enable_x64(True):
        kernel = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), KERNEL)
        run = lambda k: mixture_seconds(k, slots=30.0 * 64, untuned=1.0, replayed=40.0)  # noqa: E731
        slopes = jax.grad(run)(kernel)
        for name in (
            "launch",
            "memory",
            "matmul",
            "rows",
            "adapt",
            "untuned_memory",
            "untuned_matmul",
            "depth",
        ):
            at = getattr(kernel, name)
            step = 1e-5 * at
            up, down = (run(jc.replace(kernel, **{name: at + sign * step})) for sign in (1, -1))
            expected = float((up - down) / (2 * step))
            assert float(getattr(slopes, name)) == pytest.approx(expected, rel=1e-5, abs=1e-15), name


def test_only_replayed_weights_stay_in_the_cache():
    few = {"rows": 1.0, "experts": 1.0, "slots": 1.0, "inner": 512.0}
    within, replayed, many = (
        float(mixture_seconds(MixtureKernel(cache=4.0, resident=0.8), **few, replayed=r)) for r in (0, 1, 8)
    )
    assert replayed == pytest.approx(within / 4, rel=0.1)
    assert within > many > 0.9 * within


def own_row(model, plan, kernels, new=1.0, sequences=1.0, machine=MACHINE):
    shards = shard(model, plan, 0.0)
    one = Group(
        sequences=sequences,
        new=new,
        context=1e3,
        logits=1.0,
        absorbed=1.0,
        encoder_positions=0.0,
        drafts=0.0,
    )
    nobody = jc.replace_at(one, "sequences", 0.0)
    load = step_load(model, (one, nobody))
    # The other families are timed in the same table, and need a whole chip.
    chip = Machine(rate=1e15, bandwidth=3e12, cores=132.0, cache=5e7, exponentials=4e12)
    machine_of = lambda operands: machine if operands == "experts" else chip  # noqa: E731
    kernels = kernel_rows(model, plan, shards, (one, nobody), load, kernels, machine_of)
    index = kernels.names.index("routed_experts")
    return jc.replace(jax.tree.map(lambda x: x[index : index + 1], kernels), names=("routed_experts",))


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v3", "llama-3.1-8b"])
@pytest.mark.parametrize("new", [1.0, 4096.0])
def test_gradients_are_finite_at_the_edges(name, new):
    model, plan = jc.canonical((jc.load_model(name), jc.Plan(tp=1, dp=8, ep=8)))
    kernels = jc.canonical(Kernels(mixture=MixtureKernels(bits_16=KERNEL)))

    def seconds(kernels, plan, new):
        row = own_row(model, plan, kernels, new, new / 4096)
        here = jnp.asarray([name == "routed_experts" for name in OPERATORS])
        memory, matmul = (jnp.where(here, jnp.sum(leg), 0.0) for leg in (row.memory, row.matmul))
        return jnp.sum(kernel_seconds(row, memory, matmul).seconds)

    value, slopes = run(jax.value_and_grad(seconds, argnums=(0, 1, 2)), kernels, plan, jnp.asarray(new))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, slopes)))
    assert (float(value) > 0) == (name != "llama-3.1-8b")
    assert (float(slopes[0].mixture.bits_16.memory) < 0) == (name != "llama-3.1-8b")
    assert all(float(getattr(slopes[0].mixture, place).launch) == 0 for place in PLACES[1:])


PLACES = ("bits_16", "bits_8", "bits_8_block", "bits_4", "bits_4_group")


@pytest.mark.parametrize(
    ("bits", "name"),
    [
        (16.0, "bits_16"),
        (8.5, "bits_8"),
        (8.25, "bits_8_block"),
        (8 + 32 / 128**2, "bits_8_block"),
        (8.0, "bits_8"),
        (6.0, "bits_8"),
        (4.5, "bits_4"),
        (4.25, "bits_4"),
        (4.125, "bits_4_group"),
        (4.0, "bits_4_group"),
    ],
)
@pytest.mark.parametrize("inputs", [16.0, 8.0])
def test_the_kernel_is_that_of_the_bits_of_the_weights(bits, name, inputs):
    launches = {place: 1e-3 * (1 + i) for i, place in enumerate(PLACES)}
    kernels = MixtureKernels(**{place: MixtureKernel(launch=x) for place, x in launches.items()})
    plan = jc.Plan(expert_bits=bits, matmul_bits=inputs)
    model, plan = jc.canonical((jc.load_model("mixtral-8x7b"), plan))
    row = own_row(model, plan, jc.canonical(Kernels(mixture=kernels)))
    assert float(row.timing.fixed[0]) == pytest.approx(launches[name], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "plan"),
    [("mixtral-8x7b", jc.Plan(tp=8)), ("deepseek-v3", jc.Plan(dp=8, ep=8, expert_bits=8, weight_bits=8))],
)
def test_default_kernels_leave_experts_and_messages_as_they_are(name, plan):
    system, model = jc.load_system("h100-sxm-x8"), jc.load_model(name)
    traffic = jc.Traffic(prompt=1024, output=64, batch=32)
    before = jc.evaluate(system, model, traffic, plan)
    after = jc.evaluate(replace_at(system, "chip.efficiency.kernels", Kernels()), model, traffic, plan)
    for step in ("prefill", "decode"):
        old, new = getattr(before, step), getattr(after, step)
        others = dict(zip(new.names, new.rows, strict=True))
        for row, a in zip(old.names, old.rows, strict=True):
            b = others[row]
            if row == "routed_experts":
                assert float(a.seconds) > 0
                assert float(b.seconds) == pytest.approx(float(a.seconds), rel=2e-6)
            elif float(a.network) > 0:
                assert float(b.seconds) == float(a.seconds)


# --- messages ---


@functools.cache
def scale_up(ranks, name="h100-sxm-x8"):
    system = jc.load_system(name)
    domain = take_level(fabric_levels(system.fabric, system.fabric.domain), 1)
    return system, domain, algorithm_costs(domain, jnp.asarray(ranks))


def ring_of(kernel, size, ranks=8.0, times=2.0):
    system, place, found = scale_up(ranks)
    work = ring_work(found.gather["ring"], place, size, ranks, 1 / system.chip.memory.bandwidth, times)
    return collective_seconds(kernel, work)


@pytest.mark.parametrize("ranks", [2.0, 4.0, 8.0])
def test_ideal_messages_are_what_links_take(ranks):
    hop, size = 0.2e-6, 1e9
    ring = float(ring_of(CollectiveKernel(), size, ranks))
    assert ring == pytest.approx(4 * (ranks - 1) * hop + 2 * (ranks - 1) / ranks * size / 450e9, rel=1e-5)
    only = float(ring_of(CollectiveKernel(protocol_switch=0.0), size, ranks))
    assert only == pytest.approx(2 * (ranks - 1) / ranks * size / 450e9, rel=1e-5)
    work = AllToAllWork(ranks=8.0, tokens=64.0, top_k=8.0, experts=256.0, row=1e-6, link=2e-5, hops=4e-7)
    assert float(all_to_all_seconds(AllToAllKernel(), work)) == pytest.approx(2.04e-5, rel=1e-5)


def test_shots_and_rings_take_turns_by_size():
    _, place, found = scale_up(4.0)
    sizes = jnp.geomspace(1e3, 1e9, 200)
    one, two = shot_works(found.all_reduce["one-shot"], place, sizes, 4.0, 1 / 3.35e12)
    ring = ring_of(RING, sizes, 4.0)
    shots = [np.asarray(collective_seconds(QUICK, shot)) for shot in (one, two)]
    seconds = np.asarray(custom_all_reduce_seconds(QUICK, one, two, sizes, ring))
    assert (np.diff(seconds) > 0).all()
    assert seconds[0] == pytest.approx(shots[0][0], rel=1e-4)  # one shot, of three messages
    assert shots[0][0] < shots[1][0]
    assert shots[1][-1] < shots[0][-1] / 1.9
    at = int(np.searchsorted(sizes, 2e6))
    assert seconds[at] == pytest.approx(shots[1][at], rel=1e-3)
    assert seconds[-1] == pytest.approx(max(float(ring[-1]) + 2e-7, shots[1][-1]), rel=1e-3)


@pytest.mark.parametrize(
    "kernel", [RING, CollectiveKernel(launch=1e-5, protocol_switch=0.3, contention_exponent=2.0, staging=1.0)]
)
def test_collectives_are_monotone_with_finite_gradients(kernel):
    seconds = np.asarray(ring_of(kernel, jnp.geomspace(1, 1e10, 30)))
    assert (np.diff(seconds) >= 0).all()
    assert seconds[-1] > seconds[0] > 0
    assert float(ring_of(kernel, 1e6, 8.0)) > float(ring_of(kernel, 1e6, 4.0))
    for size in (0.0, 1.0, 1e12):
        slopes = run(jax.grad(ring_of, argnums=(0, 1)), jc.canonical(kernel), jnp.asarray(size))
        assert all(np.isfinite(x) for x in jax.tree.leaves(slopes))


def test_the_evaluation_times_messages_by_the_kernels_that_were_fitted():
    system = jc.load_system("h100-sxm-x8")
    model, traffic = jc.load_model("deepseek-v3"), jc.Traffic(prompt=1024, output=64, batch=32)
    kernels = Kernels(collective=RING, all_reduce=QUICK, dispatch=WAY, combine=WAY)
    system = replace_at(system, "chip.efficiency.kernels", kernels)
    tensor, spread = jc.Plan(tp=8), jc.Plan(dp=8, ep=8)

    def times(plan, step):
        found = getattr(jc.evaluate(system, model, traffic, plan), step)
        return dict(zip(found.names, (float(row.seconds) for row in found.rows), strict=True))

    _, place, found = scale_up(8.0)
    # Shots below the limit, and rings above, in a prefill step of 8,192 tokens.
    for step, tokens in (("decode", 32), ("prefill", 8 * 1024)):
        size = tokens * 7168 * 2.0
        shots = shot_works(found.all_reduce["one-shot"], place, size, 8.0, 1 / 3.35e12)
        ring = float(ring_of(RING, size))
        own = float(custom_all_reduce_seconds(QUICK, *shots, size, ring))
        assert (own == pytest.approx(ring + 2e-7, rel=1e-3)) == (step == "prefill")
        assert times(tensor, step)["tensor_all_reduce"] == pytest.approx(122 * own, rel=1e-4)
    # A copy for each of 8 experts, 7 of 8 of them elsewhere: more than one for each rank that holds any.
    peak = (times(spread, "decode")["expert_dispatch"] / 58 - WAY.launch) / 1e-6
    row = 7168 * 2 / 3.35e12 * 132
    work = AllToAllWork(
        ranks=8.0, tokens=4.0, top_k=8.0, experts=256.0, row=row, link=4 * 7 * 14336 / 450e9, hops=4e-7
    )
    even = (float(all_to_all_seconds(WAY, work)) - WAY.launch) / 1e-6
    assert even < peak < 1.5 * even  # the busiest of eight ranks gets more than the average one


# --- measurements ---


def measurements(family, work, seconds, **labels):
    count = len(seconds)
    return Measurements(
        family=family,
        work={name: np.broadcast_to(np.asarray(x, np.float64), (count,)) for name, x in work.items()},
        seconds=np.asarray(seconds),
        labels={name: np.full(count, word, object) for name, word in labels.items()},
        source="",
        file="made.csv",
        line=np.arange(count) + 2,
    )


def experts_measured(seconds, **changes):
    work = {
        "tokens": 1.0,
        "hidden": 2048.0,
        "width": 768.0,
        "top_k": 8.0,
        "experts": 128.0,
        "tensor_parallel": 1.0,
        "expert_parallel": 1.0,
        "weight_bits": 16.0,
        "activation_bits": 16.0,
        "skew": 0.0,
    }
    labels = {"chip": "h100-sxm", "library": "trtllm", "version": "1.3.0rc20", "kernel": "", "model": "made"}
    own = {name: changes.pop(name) for name in list(changes) if name in labels or name == "precision"}
    return measurements("mixture", work | changes, seconds, **{"precision": "bfloat16"} | labels | own)


def chips():
    return {"h100-sxm": jc.load_chip("h100-sxm"), "l40s": jc.load_chip("l40s")}


def test_routing_gives_the_measured_rank_its_share():
    one = measured_rank(1, 8, 2, 1, 0.0)
    assert (one.rows, one.experts, one.reached, one.tokens) == (2, 2, 2, 1)
    even = measured_rank(512, 128, 8, 8, 0.0)
    assert (even.rows, even.experts) == (512, 16)
    assert measured_rank(512, 128, 8, 1, 1.2).rows == 512 * 8
    assert measured_rank(512, 128, 8, 1, 1.2).experts <= 128
    fullest = measured_rank(512, 128, 8, 8, 1.2)
    assert 1.05 * even.rows < fullest.rows <= 8 * even.rows
    assert fullest.rows / 8 <= fullest.tokens <= 512
    few = measured_rank(8, 128, 8, 1, 1.2)
    assert few.experts < few.reached <= 128  # turns of different draws reach more than one does
    measured_rank.cache_clear()
    assert measured_rank(512, 128, 8, 8, 1.2) == fullest


def test_routing_of_libraries_that_multiply_every_slot():
    kind = {"tokens": 64.0, "expert_parallel": 8.0, "library": "sglang"}
    old, new = (
        mixture_form.columns(experts_measured([1e-4], version=version, **kind), chips())
        for version in ("0.5.10", "0.5.14")
    )
    assert new["rows"] == 64
    assert old["rows"] == old["slots"] == new["slots"] > new["rows"]
    assert old["experts"] == new["experts"]  # all are reached
    kind["library"] = "vllm"
    every = mixture_form.columns(experts_measured([1e-4], version="0.24.0", **kind), chips())
    assert every["slots"] == 64 * 8
    assert every["rows"] == 64


def test_only_shapes_without_tuned_tile_sizes_of_sglang_are_untuned():
    kind = {"library": "sglang", "version": "0.5.14", "tokens": [128.0, 256.0]}
    both = experts_measured([1e-4, 1e-4], chip="l40s", **kind)
    assert mixture_form.columns(both, chips())["untuned"].tolist() == [
        0,
        1,
    ]  # beyond as many tokens as experts
    for changes in (
        {"chip": "h100-sxm"},
        {"chip": "l40s", "library": "vllm"},
        {"chip": "l40s", "precision": "fp8"},
    ):
        rows = experts_measured([1e-4, 1e-4], **kind | changes)
        assert mixture_form.columns(rows, chips())["untuned"].tolist() == [0, 0]


def test_precisions_have_places_of_their_own():
    words = ("bfloat16", "fp8", "fp8_block", "w4a16_mxfp4", "int4_wo")
    found = [mixture_form.place({"precision": word}) for word in words]
    assert found == [("mixture", place) for place in PLACES]
    assert mixture_form.place({"precision": "w4afp8"}) is None


def test_rows_that_are_left_out_are_told_with_the_reason():
    late = experts_measured([1e-4, 1e-4], tokens=[8.0, 64.0], expert_parallel=8.0, skew=1.2, version="1.0.0")
    assert mixture_form.left_out(late).tolist() == [mixture_form.UNROUTED, ""]
    blocks = experts_measured([1e-4], model="DeepSeek-V3/R1", precision="fp8_block", library="vllm")
    assert mixture_form.left_out(blocks).tolist() == [mixture_form.GROUPED]
    slow = {"model": "Llama-4-Scout", "expert_parallel": 4.0, "skew": 1.2}
    cases = (
        ({**slow, "chip": "h200-sxm"}, mixture_form.SLOW),
        ({**slow, "chip": "l40s"}, ""),
        ({"library": "vllm", "precision": "fp8", "kernel": "a_flashinfer_cutlass_b"}, mixture_form.UNTUNED),
        ({"library": "vllm", "precision": "fp8_block", "kernel": "a_flashinfer_cutlass_b"}, ""),
        ({"library": "vllm", "precision": "int4_wo", "version": "0.19.0"}, mixture_form.OLD),
        ({"library": "vllm", "precision": "int4_wo", "version": "0.24.0"}, ""),
        ({"library": "sglang", "precision": "w4a16_mxfp4"}, mixture_form.WIDENED),
        ({"precision": "w4afp8"}, mixture_form.FEW),
    )
    for labels, reason in cases:
        assert mixture_form.left_out(experts_measured([1e-4], **labels)).tolist() == [reason]
    rows = collectives(np.array([1e4, 1e4, 1e4]), [2.0, 2.0, 4.0], kernel="nccl;devices_per_node=2")
    assert message_forms.left_out(rows).tolist() == ["", "", message_forms.OUTSIDE]


def collectives(sizes, ranks, **labels):
    labels = {"chip": "h100-sxm", "library": "nccl", "kernel": "nccl", "op": "all_reduce"} | labels
    return measurements("collective", {"ranks": ranks, "bytes": sizes}, np.ones(len(sizes)), **labels)


def found_again(form, columns, truth, names):
    """Fit a form to what it says itself of known parameters, and compare those that the rows determine."""
    seconds = predict(form.seconds, columns, truth)
    weights, groups = np.ones((1, len(seconds))), np.arange(len(seconds))
    values = fit(form.seconds, form.bounds, columns, seconds, weights, groups).parameters(0)
    off = np.abs(np.log(predict(form.seconds, columns, values) / seconds))
    assert off.max() < 0.01
    for name in names:
        assert values[name] == pytest.approx(truth[name], rel=0.05), name


def test_a_fit_finds_the_kernel_of_experts():
    rng = np.random.default_rng(0)
    rows = experts_measured(
        np.ones(96),
        tokens=2.0 ** rng.integers(0, 14, 96),
        hidden=1024.0 * rng.integers(2, 8, 96),
        width=512.0 * rng.integers(1, 8, 96),
        experts=rng.choice([8.0, 64.0, 128.0], 96),
        expert_parallel=rng.choice([1.0, 4.0], 96),
    )
    truth = {
        "launch": 3e-5,
        "expert": 1e-7,
        "memory": 0.7,
        "matmul": 0.5,
        "resident": 0.8,
        "rows": 16.0,
        "adapt": 0.3,
        "untuned_memory": 0.9,
        "untuned_matmul": 0.9,
        "depth": 150.0,
        "serial": 0.4,
        "passes": 2.0,
        "remote_fraction": 0.5,
    }
    columns = mixture_form.columns(rows, chips())
    found_again(mixture_form.MIXTURE, columns, truth, ("launch", "memory", "matmul"))


def test_a_fit_finds_the_kernels_of_messages():
    sizes = np.tile(np.geomspace(512, 5e8, 16), 4)
    ranks = np.repeat([2.0, 4.0, 2.0, 4.0], 16)
    fabrics = {name: jc.load_system(f"{name}-x8").fabric for name in ("h100-sxm", "l40s")}
    rows = collectives(sizes, ranks)
    rows.labels["op"][32:] = "all_gather"
    columns = message_forms.collective_columns(rows, chips(), fabrics)
    assert columns["rounds"][[0, 16, 32, 48]].tolist() == [2, 6, 1, 3]
    form = message_forms.collective_form(fabrics["h100-sxm"])
    truth = {"launch": 8e-6, "round": 6e-7, "share": 0.7, "copies": 3.0, "protocol_switch": 2.0}
    found_again(form, columns, truth, tuple(truth))
    assert "contention_exponent" in message_forms.collective_form(fabrics["l40s"]).bounds
    own = collectives(sizes[:32], ranks[:32], library="vllm", kernel="vLLM_custom_graph")
    columns = message_forms.all_reduce_columns(own, chips(), fabrics, {"h100-sxm": RING})
    truth = {
        "launch": 4e-6,
        "round": 3e-7,
        "share": 0.75,
        "copies": 2.0,
        "protocol_switch": 1.4,
        "staging": 0.5,
        "limit": 8e6,
        "floor": 0.1,
    }
    found_again(
        message_forms.all_reduce_form(fabrics["h100-sxm"]), columns, truth, ("launch", "share", "limit")
    )
    work = {
        "ranks": 8.0,
        "tokens": np.tile(2.0 ** np.arange(16), 4),
        "hidden": np.repeat([2048.0, 7168.0, 4096.0, 7168.0], 16),
        "top_k": np.repeat([8.0, 8.0, 2.0, 8.0], 16),
        "experts": np.repeat([128.0, 256.0, 8.0, 384.0], 16),
        "bits": np.repeat([8.0, 8.0, np.nan, 16.0], 16),
    }
    labels = {"chip": "h100-sxm", "library": "x", "kernel": "deepep_ll", "phase": "dispatch", "precision": ""}
    sent = measurements("all_to_all", work, np.ones(64), **labels)
    columns = message_forms.all_to_all_columns(sent, chips(), fabrics)
    assert columns["link"][16] == pytest.approx(7 * 7168 / 450e9)
    truth = {
        "launch": 1e-5,
        "expert": 2e-8,
        "chunk": 10.0,
        "share": 0.6,
        "receiver": 0.5,
        "protocol_switch": 0.9,
    }
    found_again(message_forms.ALL_TO_ALL, columns, truth, ("launch", "share", "receiver", "protocol_switch"))
    assert message_forms.all_to_all_kernel(truth, "deepep_ll").copies == 1
    assert message_forms.all_to_all_kernel(truth, "deepep_ht").copies == 0
