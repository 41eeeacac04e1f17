"""Exchanges of experts over nodes, shared buses and clocks: the forms, their places, and that evaluations equal them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.pytree import replace, replace_at
from jaxcost.explore.calibrate import message_forms
from jaxcost.explore.calibrate.fit import predict
from jaxcost.explore.calibrate.kernel_families import FAMILIES, join_chips, selections
from jaxcost.physics.kernels.collective import (
    CLOCK,
    AllToAllWork,
    all_to_all_seconds,
    at_clock,
    collective_backend,
    shares_bus,
)
from jaxcost.physics.network.messages import hottest_rank
from jaxcost.spec.kernels import (
    AllToAllKernel,
    CollectiveKernel,
    CustomAllReduceKernel,
    InternodeKernel,
    Kernels,
)
from jaxcost.spec.measurement import Measurements

LAYERS, WIDTH, TOP_K, EXPERTS = 58, 7168.0, 8.0, 256.0  # of deepseek-v3
PARAMETERS = {
    "launch": 2e-5,
    "expert": 1e-8,
    "chunk": 3.0,
    "share": 0.6,
    "receiver": 0.2,
    "protocol_switch": 1.2,
    "internode_round": 2e-5,
    "internode_share": 0.9,
    "forwarding": 2.0,
}
OVER_NODES = AllToAllWork(
    ranks=32.0,
    tokens=64.0,
    top_k=8.0,
    experts=256.0,
    row=1e-6,
    link=2e-5,
    hops=4e-7,
    nodes=4.0,
    far=6e-5,
    delay=5e-6,
    forwarded=7e-6,
)


def exchanged(nodes, tokens, kernel, phase="dispatch", ranks=None, **labels):
    """Measured rows of an exchange of deepseek-v3 in 16 bits."""
    tokens = np.atleast_1d(np.asarray(tokens, float))
    work = {
        "ranks": ranks or 8.0 * nodes,
        "tokens": tokens,
        "hidden": WIDTH,
        "top_k": TOP_K,
        "experts": EXPERTS,
        "bits": 16.0,
    }
    labels = {
        "chip": "h100-sxm",
        "library": "sglang",
        "version": "1",
        "kernel": kernel,
        "phase": phase,
        "precision": "bfloat16",
        "nodes": f"{nodes}",
    } | labels
    count = len(tokens)
    return Measurements(
        family="all_to_all",
        work={name: np.broadcast_to(np.asarray(x, np.float64), (count,)) for name, x in work.items()},
        seconds=np.ones(count),
        labels={name: np.full(count, word, object) for name, word in labels.items()},
        source="",
        file="made.csv",
        line=np.arange(count) + 2,
    )


@functools.cache
def system_of(chips, name="h100-sxm"):
    return jc.load_system(f"{name}-x{chips}")


def with_kernels(system, **kernels):
    return replace_at(system, "chip.efficiency.kernels", Kernels(**kernels))


def steps_of(system, plan, batch=64):
    model, traffic = jc.load_model("deepseek-v3"), jc.Traffic(prompt=1024, output=64, batch=batch)
    report = jc.evaluate(system, model, traffic, plan)
    return {
        step: {
            n: float(r.seconds)
            for n, r in zip(getattr(report, step).names, getattr(report, step).rows, strict=True)
        }
        for step in ("prefill", "decode")
    }


@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize("kernel", ["deepep_ll", "deepep_normal_sms20"])
def test_an_evaluation_equals_the_fitted_form(nodes, kernel):
    ranks, tokens = 8 * nodes, 4.0
    system = system_of(ranks)
    rows = exchanged(nodes, tokens, kernel)
    chips, fabrics = {"h100-sxm": system.chip}, {"h100-sxm": system.fabric}
    columns = message_forms.all_to_all_columns(rows, chips, fabrics)
    fitted = message_forms.all_to_all_kernel(PARAMETERS, kernel)
    # What rings add to the network is not paid by exchanges.
    kernels = {"collective": CollectiveKernel(), "internode": InternodeKernel(round=1e-3, share=0.1)}
    system = with_kernels(system, dispatch=fitted, combine=fitted, **kernels)
    # The busiest rank sets the time.
    experts = jc.load_model("deepseek-v3").experts
    peak = float(hottest_rank(float(ranks), tokens * ranks * TOP_K, experts.experts, experts.skew))
    busy = columns | {name: peak * columns[name] for name in ("tokens", "link", "far", "forwarded")}
    found = steps_of(system, jc.Plan(dp=ranks, ep=ranks), batch=int(tokens * ranks))["decode"]
    expected = float(predict(message_forms.ALL_TO_ALL.seconds, busy, PARAMETERS)[0])
    assert found["expert_dispatch"] / LAYERS == pytest.approx(expected, rel=1e-4)


def test_bytes_between_nodes_are_sent_once_per_node_or_once_per_expert():
    fabrics = {"h100-sxm": system_of(8).fabric}
    chips = {"h100-sxm": system_of(8).chip}
    row = WIDTH * 2
    for nodes in (1, 2, 4, 8):
        normal, direct = (
            message_forms.all_to_all_columns(exchanged(nodes, 1.0, kernel), chips, fabrics)
            for kernel in ("deepep_ht", "deepep_ll")
        )
        n = 8 * nodes
        assert direct["far"][0] == pytest.approx(8 * (n - 8) / n * row / 50e9, rel=1e-5)
        assert direct["link"][0] == pytest.approx(8 * 7 / n * row / 450e9, rel=1e-5)
        assert normal["far"][0] <= direct["far"][0] + 1e-12
        touched = nodes * (1 - (1 - 1 / nodes) ** 8) if nodes > 1 else 1.0
        assert normal["far"][0] == pytest.approx(touched * (1 - 1 / nodes) * row / 50e9, rel=0.02, abs=1e-15)
        assert (normal["delay"][0] > 0) == (nodes > 1)
        assert normal["forwarded"][0] == pytest.approx(normal["far"][0] * 50 / 450)
        assert direct["forwarded"][0] == 0


def test_ideal_exchanges_over_nodes_are_what_links_take():
    seconds = float(all_to_all_seconds(AllToAllKernel(protocol_switch=0.0), OVER_NODES))
    assert seconds == pytest.approx(6e-5, rel=0.01)
    one = replace(OVER_NODES, nodes=1.0, far=0.0, delay=0.0, forwarded=0.0)
    assert float(all_to_all_seconds(AllToAllKernel(), one)) == pytest.approx(2.04e-5, rel=1e-5)


def test_exchanges_over_nodes_are_monotone_with_finite_gradients():
    kernel = jc.canonical(AllToAllKernel(**PARAMETERS))
    seconds = lambda far, nodes: all_to_all_seconds(kernel, replace(OVER_NODES, far=far, nodes=nodes))  # noqa: E731
    more = np.asarray(jax.vmap(seconds, (0, None))(jnp.geomspace(1e-9, 1.0, 40), jnp.asarray(4.0)))
    assert (np.diff(more) >= 0).all()
    wider = np.asarray(jax.vmap(seconds, (None, 0))(jnp.asarray(1e-5), jnp.asarray([1.0, 2.0, 4.0, 8.0])))
    assert (np.diff(wider) > 0).all()
    for work in (OVER_NODES, replace(OVER_NODES, nodes=1.0, far=0.0, delay=0.0, forwarded=0.0)):
        slopes = jax.grad(all_to_all_seconds, argnums=(0, 1))(kernel, jc.canonical(work))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))


def test_steps_without_prompts_use_the_exchanges_of_low_latency():
    slow, quick = AllToAllKernel(launch=1e-3), AllToAllKernel(launch=1e-5, copies=1.0)
    system, plan = system_of(16), jc.Plan(dp=16, ep=16)
    both = {"dispatch": slow, "combine": slow}
    quicker = {f"{name}_low_latency": quick for name in both}
    one = steps_of(with_kernels(system, **both), plan)
    two = steps_of(with_kernels(system, **both, **quicker), plan)
    for name in ("expert_dispatch", "expert_combine"):
        assert two["prefill"][name] == one["prefill"][name]
        assert one["decode"][name] > 1e-3 * LAYERS
        assert two["decode"][name] < 1e-4 * LAYERS
    alone = steps_of(with_kernels(system, **quicker), plan)
    assert alone["decode"] == pytest.approx(two["decode"])


def test_chips_on_a_shared_bus_have_kernels_of_their_own():
    assert bool(shares_bus(system_of(8, "l40s").fabric))
    assert not bool(shares_bus(system_of(8).fabric))
    kernels = Kernels(
        collective=CollectiveKernel(launch=1e-6),
        collective_shared_bus=CollectiveKernel(launch=2e-6),
        all_reduce=CustomAllReduceKernel(launch=3e-6),
    )

    def launches(shared):
        backend = collective_backend(kernels, 1e-12, 132.0, shared_bus=shared)
        assert backend is not None
        assert backend.collective is not None
        assert backend.all_reduce is not None
        return backend.collective.launch, backend.all_reduce.launch

    for shared in (False, True):
        ring, own = launches(jnp.asarray(shared))
        assert (float(ring), float(own)) == pytest.approx((2e-6 if shared else 1e-6, 3e-6))
    np.testing.assert_allclose(jax.vmap(launches)(jnp.asarray([True, False]))[0], [2e-6, 1e-6])


def test_collectives_start_in_cycles():
    kernel = CollectiveKernel(launch=6e-6, round=1e-6, share=0.8)
    for clock in (0.0, CLOCK):
        assert float(at_clock(kernel, clock).launch) == pytest.approx(6e-6)
    slow = at_clock(kernel, CLOCK / 2)
    assert (float(slow.launch), float(slow.round), slow.share) == pytest.approx((12e-6, 2e-6, 0.8))
    assert np.isfinite(jax.grad(lambda c: at_clock(kernel, c).launch)(0.0))
    assert at_clock(None, 1.0) is None


def test_places_and_the_reasons_for_rows_without_one():
    place = message_forms.exchange_place
    of = lambda library, kernel: {"library": library, "kernel": kernel, "phase": "dispatch"}  # noqa: E731
    assert place(of("sglang", "deepep_normal_sms20")) == ("dispatch", "")
    assert place(of("trtllm", "trtllm_deepep_ll")) == ("dispatch_low_latency", "")
    for other in (of("sglang", "deepep_normal_sms24"), of("vllm", "deepep_v2_generation")):
        assert place(other) is None
        assert message_forms.not_placed(other)
    assert message_forms.not_placed(of("vllm", "deepep_ht")) == ""
    place = message_forms.collective_place
    assert place({"library": "nccl", "bus": "shared"}) == ("collective_shared_bus", "")
    assert place({"library": "vllm", "kernel": "vLLM_custom_graph", "bus": ""}) == ("all_reduce", "")
    assert place({"library": "vllm", "kernel": "vLLM_custom_eager", "bus": ""}) == ("all_reduce_eager", "")
    assert "PyTorch" in message_forms.not_placed({"library": "nccl-torch", "bus": ""})


def test_exchanges_that_are_left_out_are_told_with_the_reason():
    left_out = message_forms.left_out
    assert left_out(exchanged(8, 1.0, "deepep_normal_sms20")).tolist() == [message_forms.HALVED]
    assert left_out(exchanged(8, 1.0, "deepep_ll")).tolist() == [""]
    assert left_out(exchanged(1, 1.0, "trtllm_deepep_ht", precision="nvfp4")).tolist() == [
        message_forms.NARROW
    ]
    assert left_out(exchanged(2, 1.0, "deepep_normal_sms20")).tolist() == [""]


def test_rows_of_several_nodes_and_precisions_are_fitted_together():
    rows = [
        exchanged(nodes, 2.0 ** np.arange(12), "deepep_normal_sms20", precision=word)
        for nodes, word in ((1, "bfloat16"), (2, "bfloat16"), (1, "fp8"))
    ]
    parts = selections(FAMILIES["all_to_all"], rows, {"h100-sxm": system_of(8)})
    (joined,) = join_chips(parts)
    assert joined.place == ("dispatch", "")
    assert len(joined.rows) == 36
    assert set(joined.columns["nodes"].tolist()) == {1.0, 2.0}


@pytest.mark.parametrize("library", ["vllm", "sglang", "trtllm"])
def test_exchanges_of_files_never_send_between_nodes_for_nothing(library):
    kernels = jc.load_system("h100-sxm-x16", efficiency=f"h100-sxm-{library}").chip.efficiency.kernels
    for name in ("dispatch", "combine", "dispatch_low_latency", "combine_low_latency"):
        kernel = getattr(kernels, name) or getattr(kernels, name.removesuffix("_low_latency"))
        assert float(kernel.internode_round) > 1e-6
        assert float(kernel.internode_share) < 1
