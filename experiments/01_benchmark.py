"""Rates and compile times of evaluate, value and gradient, and of other analytical models on the same question.

`python experiments/01_benchmark.py --designs 262144` prints two tables. In the first every design takes its own model
and chip from the catalogue; values return all metrics of a sweep, gradients are summed over every leaf, so nothing is
left out. The second asks every tool installed for prefill and decode of one model on one chip, the batch changing
from call to call. `pip install -e ".[peers]"` and `pip install --no-deps llm-analysis` bring the others.
"""

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import time

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, PartitionSpec  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import jaxcost as jc  # noqa: E402
from jaxcost.explore.sweep import METRICS, design_metrics  # noqa: E402


def designs() -> tuple[jc.System, jc.Model]:
    systems = jc.stack([jc.load_system(f"{name}-x8") for name in jc.list_names("chips")])
    models = jc.stack([jc.load_model(name) for name in jc.list_names("models")])
    return systems, models


def design(stacks: tuple[jc.System, jc.Model], u: jax.Array) -> jc.Design:
    systems, models = stacks
    pick = lambda tree, x: jax.tree.map(lambda v: v[(x * v.shape[0]).astype(int)], tree)  # noqa: E731
    traffic, plan, prices, knobs = jc.canonical(
        (jc.Traffic(prompt=2048, output=512), jc.Plan(), jc.Prices(), jc.Knobs())
    )
    return jc.Design(
        system=pick(systems, u[0]),
        model=pick(models, u[1]),
        traffic=jc.replace(traffic, batch=jnp.round(1 + 255 * u[2])),
        plan=jc.replace(plan, tp=2.0 ** jnp.floor(4 * u[3])),
        prices=prices,
        knobs=knobs,
    )


def objective(d: jc.Design) -> jax.Array:
    return jnp.sum(jnp.log(jnp.abs(design_metrics(d, METRICS)) + 1e-3))


def value(d: jc.Design) -> jax.Array:
    return design_metrics(d, METRICS)


def gradient(*parts: str):
    def f(d: jc.Design) -> jax.Array:
        chosen = {name: getattr(d, name) for name in parts}
        out, slopes = jax.value_and_grad(lambda c: objective(jc.replace(d, **c)))(chosen)
        return jnp.stack([out, sum(jnp.abs(x) for x in jax.tree.leaves(slopes))])

    return f


CASES = (
    ("value, all metrics", value, 128),
    ("value, all metrics", value, 256),
    ("value, all metrics", value, 1024),
    ("value of one objective", lambda d: objective(d)[None], 256),
    ("gradient, system leaves", gradient("system"), 256),
    ("gradient, all leaves", gradient("system", "model", "traffic", "plan"), 256),
)


def measure(f, chunk: int, count: int) -> tuple[float, float, float]:
    mesh, here = Mesh(np.asarray(jax.local_devices()), ("designs",)), PartitionSpec("designs")
    run = jax.jit(
        jax.shard_map(
            lambda stacks, u: jax.lax.map(lambda x: f(design(stacks, x)), u, batch_size=chunk),
            mesh=mesh,
            in_specs=(PartitionSpec(), here),
            out_specs=here,
            # Designs are independent: checked, the gradient of a number they share would be summed over devices.
            check_vma=False,
        ),
        compiler_options={"xla_cpu_prefer_vector_width": "512"} if jax.default_backend() == "cpu" else None,
    )
    u = jax.random.uniform(jax.random.key(0), (count, 4))
    stacks = designs()
    start = time.perf_counter()
    compiled = run.lower(stacks, u).compile()
    compile_seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(stacks, u))
    wall, cpu = [], []
    for _ in range(3):
        a, b = time.perf_counter(), time.process_time()
        jax.block_until_ready(compiled(stacks, u))
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
    return compile_seconds, count / min(wall), min(cpu) / count * 1e9


def first_call(f) -> float:
    """Seconds to trace and compile for one design."""
    one = jax.tree.map(jnp.asarray, design(designs(), jnp.full(4, 0.5)))
    start = time.perf_counter()
    jax.jit(f).lower(one).compile()
    return time.perf_counter() - start


MODEL, CHIP, PROMPT, OUTPUT = "llama-3.1-8b", "h100-sxm", 2048, 512


def jaxcost_one_by_one():
    system, model = jc.load_system(CHIP), jc.load_model(MODEL)

    @jax.jit
    def whole(batch):
        report = jc.evaluate(system, model, jc.Traffic(prompt=PROMPT, output=OUTPUT, batch=batch), jc.Plan())
        return report, report.ttft, report.tpot

    def ask(batch):
        _, ttft, tpot = whole(float(batch))
        return 1000 * float(ttft), 1000 * float(tpot)

    return ask


def genz():
    from GenZ import decode_moddeling, prefill_moddeling

    chip = jc.load_chip(CHIP)
    same = {
        "model": "meta-llama/Llama-3.1-8B",
        "input_tokens": PROMPT,
        "bits": "bf16",
        "system_name": {
            "Flops": float(chip.compute.flops_16) / 1e12,
            "Memory_size": float(chip.memory.capacity) / 1e9,
            "Memory_BW": float(chip.memory.bandwidth) / 1e9,
            "ICN": 450,
            "real_values": True,
        },
    }

    def ask(batch):
        with contextlib.redirect_stdout(io.StringIO()):
            first = prefill_moddeling(batch_size=batch, **same)["Latency"]
            return first, decode_moddeling(batch_size=batch, output_tokens=OUTPUT // 2, **same)["Latency"]

    return ask


def llm_analysis():
    logging.disable(logging.WARNING)
    from llm_analysis import analysis, config

    model, chip = jc.load_model(MODEL), jc.load_chip(CHIP)
    same = analysis.LLMAnalysis(
        config.ModelConfig(
            name=MODEL,
            num_layers=32,
            n_head=32,
            hidden_dim=int(model.hidden),
            vocab_size=int(model.vocabulary),
            num_key_value_heads=int(model.attention.kv_heads),
            # It knows no gated feed-forward: two matrices of 5 d come nearest to Llama's three of 3.5 d.
            ffn_embed_dim=5 * int(model.hidden),
            model_type="llama",
        ),
        config.GPUConfig(
            name=CHIP,
            mem_per_GPU_in_GB=float(chip.memory.capacity) / 1e9,
            hbm_bandwidth_in_GB_per_sec=float(chip.memory.bandwidth) / 1e9,
            intra_node_bandwidth_in_GB_per_sec=450,
            intra_node_min_message_latency=2e-6,
            peak_fp16_TFLOPS=float(chip.compute.flops_16) / 1e12,
        ),
        flops_efficiency=1.0,
        hbm_memory_efficiency=1.0,
    )

    def ask(batch):
        found = same.inference(batch_size_per_gpu=batch, seq_len=PROMPT, num_tokens_to_generate=OUTPUT)
        return 1000 * found["prefill_latency"], 1000 * found["decode_latency"]

    return ask


PEERS = (
    (
        "jaxcost, a call each",
        "jaxcost",
        jaxcost_one_by_one,
        "latency, memory, energy, $, CO2e, margins; gradients",
    ),
    ("GenZ", "GenZ", genz, "latency, memory"),
    ("llm-analysis", "llm_analysis", llm_analysis, "latency, memory"),
)


def rate(ask, seconds: float = 3.0) -> tuple[float, float, float]:
    ask(7)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        calls += 1
        ask(1 + calls % 64)
    return calls / (time.perf_counter() - start), *ask(32)


def peers(sweep_rate: float) -> Table:
    title = f"{MODEL} on one {CHIP}, {PROMPT} + {OUTPUT} tokens; latencies at batch 32, every peak reached"
    table = Table("tool", "calls/s", "prefill ms", "decode ms", "one call gives", title=title)
    table.add_row("jaxcost, a sweep", f"{sweep_rate:,.0f}", "", "", "11 metrics of mixed models and chips")
    for name, module, make, gives in PEERS:
        if importlib.util.find_spec(module) is None:
            table.add_row(name, "not installed", "", "", gives)
            continue
        calls, prefill, decode = rate(make())
        table.add_row(name, f"{calls:,.0f}", f"{prefill:.1f}", f"{decode:.2f}", gives)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=1 << 18)
    count = parser.parse_args().designs // 8192 * 8192
    table = Table(
        "what", "chunk", "trace + compile s", "million/s", "CPU ns each", title=f"{count:,} mixed designs"
    )
    for name, f, _ in (CASES[1], *CASES[-2:]):
        table.add_row(f"{name}, one design", "", f"{first_call(f):.1f}", "", "")
    sweep_rate = 0.0
    for name, f, chunk in CASES:
        seconds, designs_per_second, nanoseconds = measure(f, chunk, count)
        if f is value:
            sweep_rate = max(sweep_rate, designs_per_second)
        table.add_row(
            name, str(chunk), f"{seconds:.1f}", f"{designs_per_second / 1e6:.2f}", f"{nanoseconds:.0f}"
        )
    console = Console()
    console.print(table)
    console.print(peers(sweep_rate))


if __name__ == "__main__":
    main()
