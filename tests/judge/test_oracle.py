"""The package against the oracle: 600 random designs over the whole catalogue, every quantity, f64 to 1e-12."""

import jax
import numpy as np

import jaxcost as jc
from jaxcost.spec.fabric import TOPOLOGIES
from jaxcost.spec.model import Attention, Indexer
from tests import oracle
from tests.batched import evaluate, load_model, load_system, stacked

CASES = 600
MODELS = jc.list_names("models")
CHIPS = jc.list_names("chips")


OPTIONAL_BITS = ("mixer_bits", "wide_bits", "matmul_bits", "attention_bits", "message_bits")


def with_new_mixers(model, pick):
    """Give a model sparse attention, an indexer, and attention whose projections and values are unlike the keys."""
    sparse = Attention(
        layers=pick(0, 3, 20),
        window=pick(0, 128),
        compression=pick(1, 4, 128),
        selected=pick(0, 16, 512),
        shared_layers=pick(0, 2),
        stored_share=pick(1, 0.5),
        heads=pick(24, 60.5),
        kv_heads=pick(1, 3.25),
        head_dim=pick(128, 512),
        value_dim=pick(0, 64, 512),
        value_projection=pick(0, 1),
        value_cache=pick(0, 1),
        query_rank=pick(0, 1024),
        output_rank=pick(0, 1024),
        output_groups=pick(1, 8),
        extra_parameters=pick(0, 1e6),
    )
    if sparse.layers == 0:
        sparse = jc.replace(sparse, shared_layers=0.0)
    indexer = Indexer(
        layers=pick(0, 20),
        heads=64.0,
        head_dim=128.0,
        compression=sparse.compression,
        parameters=pick(0, 9e6),
    )
    model = jc.replace(model, sparse_attention=sparse, indexer=indexer, unused_parameters=pick(0, 1e8))
    model = jc.replace_at(model, "latent.selected", pick(0, 64, 2048))
    model = jc.replace_at(model, "experts.latent", pick(0, 1024))
    model = jc.replace_at(model, "feed_forward.stored_share", pick(1, 0.5))
    return jc.replace_at(model, "window_attention.value_dim", pick(64, 192))


def random_engine(pick):
    return jc.Engine(
        step_tokens=pick(0, 512, 2048, 16384),
        sequences=pick(0, 64, 1024),
        profiled=pick(0, 1),
        memory_share=pick(0.85, 1),
        cache_share=pick(0.9, 1),
        activations_outside=pick(0, 1),
        runtime_outside=pick(0, 1),
        graphs_outside=pick(0, 1),
        runtime_bytes=pick(0, 5e8),
        communicator_bytes=pick(0, 2e9),
        graph_bytes=pick(0, 3e8),
        graph_layer_bytes=pick(0, 1e7),
        kept_bytes=pick(0, 1e9),
        kept_step_bytes=pick(0, 1.5e6),
        kept_rank_bytes=pick(0, 1e8),
        stream_copies=pick(2, 4),
        workspace_bytes=pick(0, 2e8),
        logit_bytes=pick(6, 14.5),
        block=pick(1, 16, 256),
        window_steps=pick(0, 1),
        window_blocks=pick(0, 1),
        window_share=pick(0, 0.8),
        grouped=pick(0, 1),
        state_slots=pick(1, 3),
        state_ratio=pick(0, 0, 0.9),
    )


def random_case(rng):
    model = load_model(str(rng.choice(MODELS)))
    chips = int(rng.choice([1, 2, 8, 16, 64]))
    efficiency = str(rng.choice(["ideal", "typical"]))
    pick = lambda *options: float(rng.choice(options))  # noqa: E731
    system = jc.replace(load_system(str(rng.choice(CHIPS)), efficiency), chips=float(chips))
    link = lambda link: jc.replace(  # noqa: E731
        link,
        topology=float(rng.integers(0, len(TOPOLOGIES))) if rng.random() < 0.7 else link.topology,
        dimensions=pick(1, 2, 3, 4),
        radix=pick(2, 4, 8, 32),
        taper=pick(1, 1, 0.5),
        in_network=pick(0, 1),
        sram_landing=pick(0, 0, 0.5, 1),
        background=pick(0, 0, 0.3, 0.9),
        overhead=pick(0, 1e-6),
    )
    fabric = jc.replace(
        system.fabric,
        package=link(jc.Link(bandwidth=2e12, latency=1e-8, energy_per_byte=1e-12)),
        scale_up=link(system.fabric.scale_up),
        scale_out=link(system.fabric.scale_out),
        package_chips=pick(1, 1, 1, 2, 4),
        jitter=pick(0, 0, 1e-6),
    )
    system = jc.replace(
        system,
        fabric=fabric,
        spares=pick(0, 0, 1, 3),
        failure_rate=pick(0, 1e-8),
        repair_time=pick(0, 86400),
        switchover_time=pick(0, 60),
    )
    system = jc.replace_at(system, "chip.efficiency.overlap", pick(0, 0, 0.4, 1))
    traffic = jc.Traffic(
        prompt=float(rng.integers(1, 20000)),
        output=float(rng.integers(2, 3000)),
        batch=float(rng.integers(1, 400)),
        prefix_hit=pick(0, 0, 0.25, 0.9),
        retrieved=pick(0, 0, 1000, 50000),
        encoder_tokens=pick(0, 0, 256, 576),
        ttft_target=pick(0, 2.0),
        tpot_target=pick(0, 0.05),
    )
    plan = jc.Plan(
        tp=pick(1, 2, 3, 4, 8, 16),
        pp=pick(1, 1, 2, 4),
        dp=pick(1, 1, 2, 3),
        cp=pick(1, 1, 2),
        microbatches=pick(0, 0, 1, 4),
        sequence_parallel=pick(0, 0, 1),
        ep=pick(1, 1, 2, 8, 32),
        weight_bits=pick(16, 8, 4.25, 1.6),
        expert_bits=pick(16, 8, 6.25, 4.25),
        kv_bits=pick(16, 8, 4.5),
        activation_bits=pick(16, 8, 32),
        weight_sparsity=pick(0, 0, 0.5),
        activation_sparsity=pick(0, 0, 0.9),
        draft_length=pick(0, 0, 1, 4),
        acceptance=pick(0.6, 0.9),
        draft_parameters=pick(0, 1e9),
        chunk=pick(0, 0, 512, 4096),
        absorb_prefill=pick(0, 1),
        absorb_decode=pick(0, 1),
    )
    skew = pick(0, 0, 0.5, 2.0)
    model = jc.replace_at(model, "experts.skew", skew)
    rng = np.random.default_rng(int(traffic.prompt))  # leaves the draws of other cases alone
    pick = lambda *options: float(rng.choice(options))  # noqa: E731
    system = jc.replace_at(system, "chip.process.yield_model", pick(0, 1, 2, 3))
    if rng.random() < 0.5:
        plan = jc.replace(plan, **{name: pick(0, 4.5, 8, 16) for name in OPTIONAL_BITS})
    if rng.random() < 0.3:
        plan = jc.replace(plan, expert_width_multiple=pick(0, 128), expert_input_multiple=pick(0, 256))
    if rng.random() < 0.4:
        model = with_new_mixers(model, pick)
    if plan.draft_length > 0:
        plan = jc.replace(
            plan,
            accepted=pick(0, 0, 1.5, 3.3),
            draft_layers=pick(1, 16),
            draft_embedding=pick(0, 3e8),
            draft_width=pick(0, 2048),
            draft_cache=pick(0, 16384),
        )
        model = jc.replace(model, draft_parameters=pick(0, 1, 1) * (model.draft_parameters or 4e8))
    if rng.random() < 0.6:
        plan = jc.replace(plan, engine=random_engine(pick))
    if rng.random() < 0.3:
        with jax.enable_x64(True):
            system = jax.tree.map(float, jc.by_parts(system))
    return system, model, traffic, plan


def random_prices(rng):
    swing = rng.choice([0, 0.3], 2)
    return jc.Prices(interest=float(rng.choice([0, 2e-9])), load_swing=swing[0], grid_swing=swing[1])


def compare(cases, dtype, rtol, atol=0.0):
    *cases, prices = zip(*cases, strict=True)
    found = evaluate(list(zip(*cases, strict=True)), prices=prices, dtype=dtype)
    found = {path: values.tolist() for path, values in found.items()}
    # The oracle has the numbers as they are in this precision.
    rounded = stacked(list(zip(*cases, prices, strict=True)), dtype)
    columns, structure = jax.tree.flatten(rounded)
    for i, numbers in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        for path, wanted in oracle.evaluate(*jax.tree.unflatten(structure, numbers)).items():
            # A margin is a difference: its error is to be judged against what it is a difference of.
            scale = max(1.0, abs(1 - wanted)) if path.startswith("margins.") else abs(wanted)
            scale = found["usd.total"][i] if path == "usd.margin" else scale
            value = found[path][i]
            assert abs(value - wanted) <= rtol * scale + atol, (i, path, value, wanted)


def random_cases(count, seed):
    rng, other = np.random.default_rng(seed), np.random.default_rng(3)
    return [(*random_case(rng), random_prices(other)) for _ in range(count)]


def test_agrees_in_f64():
    compare(random_cases(CASES, 2026), np.float64, rtol=1e-12)


def test_agrees_in_f32():
    compare(random_cases(40, 7), np.float32, rtol=2e-4, atol=1e-12)
