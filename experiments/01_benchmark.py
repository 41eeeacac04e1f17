"""Rates and compile times of evaluate, value and gradient; what reducers cost; and other models on the same question.

`python experiments/01_benchmark.py` prints three tables and writes experiments/out/01_benchmark.json, data and
manifest; `--readme` puts them into the README too. In the first table every design takes its own model and chip from
the catalogue; values return all metrics of a sweep, gradients are summed over every leaf, so nothing is left out. The
second sweeps the space `million` bare, then with all that `jaxcost sweep` keeps, turn and turn about. The third asks
every tool installed for prefill and decode of one model on one chip, the batch changing from call to call.
`pip install -e ".[peers]"` and `pip install --no-deps llm-analysis` bring the others. On an accelerator,
`--profile DIR` writes a trace for TensorBoard or Perfetto and says what bounds the sweep.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import json
import logging
import os
import platform
import sys
import time
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, PartitionSpec  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import jaxcost as jc  # noqa: E402
from jaxcost.edge.reducer_file import default_reducers  # noqa: E402
from jaxcost.edge.space_file import read_space  # noqa: E402
from jaxcost.explore.space import space_features  # noqa: E402
from jaxcost.explore.stream import Stream  # noqa: E402
from jaxcost.explore.sweep import METRICS, design_metrics, metrics_of, model_evaluation  # noqa: E402

ROOT = Path(__file__).parents[1]
OUT = ROOT / "experiments" / "out"


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
    ("value, all metrics", value, 64),
    ("value, all metrics", value, 256),
    ("value, all metrics", value, 1024),
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
        "latency, memory, energy, USD, CO2e, 14 margins, gradients",
    ),
    ("GenZ", "GenZ", genz, "latency, memory, operator by operator"),
    ("llm-analysis", "llm_analysis", llm_analysis, "latency, memory"),
)


def rate(ask, seconds: float = 3.0) -> tuple[float, float, float]:
    ask(7)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        calls += 1
        ask(1 + calls % 64)
    return calls / (time.perf_counter() - start), *ask(32)


def peer_rows(sweep_rate: float) -> list[list[str]]:
    rows = [["jaxcost, a sweep", f"{sweep_rate:,.0f}", "", "", "the same for mixed models and chips"]]
    for name, module, make, gives in PEERS:
        if importlib.util.find_spec(module) is None:
            rows.append([name, "not installed", "", "", gives])
            continue
        calls, prefill, decode = rate(make())
        rows.append([name, f"{calls:,.0f}", f"{prefill:.1f}", f"{decode:.2f}", gives])
    return rows


def timed(function) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def overhead_rows(count: int, rounds: int) -> list[list[str]]:
    """Sweep the first designs of `million` bare, with all metrics summed and nothing kept, and with reducers."""
    space, objective, _ = read_space("million")
    reducers = default_reducers(objective)
    count = min(count, space.size)
    metrics = metrics_of(reducers, METRICS)
    evaluation = model_evaluation(metrics, space_features(space))
    kept = {
        "bare": {},
        "top 100 and a Pareto front of three": {
            "top": jc.TopK(objective, 100),
            "front": jc.Pareto(("tpot", "usd_per_mtok", "gco2e_per_mtok"), epsilon=0.01, size=4096),
        },
        "all that `jaxcost sweep` keeps": reducers,
    }
    streams = {name: Stream(space, evaluation, metrics, r or {"sum": Total()}) for name, r in kept.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in streams}

    def whole(stream: Stream) -> None:
        stream.run(0, count)
        stream.wait()

    for stream in streams.values():
        whole(stream)
    for _ in range(rounds):
        for name, stream in streams.items():
            seconds[name].append(timed(lambda stream=stream: whole(stream)))
    rows = []
    bare = np.asarray(seconds["bare"])
    for name, taken in seconds.items():
        wall, cpu = np.asarray(taken).T
        # In pairs, so that what else the machine does falls on both.
        ratio = np.median(cpu / bare[:, 1]) - 1
        rows.append(
            [name, f"{count / wall.min() / 1e6:.2f}", f"{cpu.min() / count * 1e9:.0f}", f"{ratio:+.1%}"]
        )
    return rows


@dataclasses.dataclass(frozen=True)
class Total:
    """The sum of all metrics: the least that keeps XLA from leaving the evaluation out."""

    needs = ()

    def init(self, layout, dtype=None):
        return jnp.zeros(len(layout.metrics))

    def update(self, layout, state, batch):
        return state + jnp.sum(batch.values, axis=0)

    def merge(self, layout, state, other):
        return state + other

    def result(self, layout, state):
        return state


def profile(folder: str, count: int) -> list[list[str]]:
    """Trace a sweep with a ranking and a front on the device, and hold what it moves against the chip's roofs."""
    space, objective, _ = read_space("billion")
    reducers = {
        "top": jc.TopK(objective, 100),
        "front": jc.Pareto(("tpot", "usd_per_mtok", "gco2e_per_mtok"), epsilon=0.01, size=4096),
    }
    metrics = metrics_of(reducers, METRICS)
    evaluation = model_evaluation(metrics, space_features(space))
    rows = []
    for chunk in (1 << 14, 1 << 16, 1 << 18, 1 << 20):
        stream = Stream(space, evaluation, metrics, reducers, chunk=chunk)
        stream.run(0, chunk)
        stream.wait()
        seconds, _ = timed(lambda stream=stream: (stream.run(0, count), stream.wait()))
        rows.append([f"{chunk:,}", f"{count / seconds / 1e6:,.1f}"])
    best = int(rows[int(np.argmax([float(r[1].replace(",", "")) for r in rows]))][0].replace(",", ""))
    stream = Stream(space, evaluation, metrics, reducers, chunk=best)
    stream.run(0, best)
    stream.wait()
    with jax.profiler.trace(folder):
        stream.run(0, count)
        stream.wait()
    rows.append([f"trace of {best:,} in {folder}", ""])
    one = jax.jit(jax.vmap(lambda i: evaluation(jc.design_at(space, i))))
    cost = one.lower(jnp.arange(best, dtype=np.int32)).compile().cost_analysis()
    flops, moved = cost["flops"] / best, cost["bytes accessed"] / best
    rows.append([f"XLA counts {flops:,.0f} FLOP and {moved:,.0f} bytes a design, caches not counted", ""])
    name = jax.local_devices()[0].device_kind.lower().removeprefix("nvidia ")
    for chip in (c for c in jc.list_names("chips") if c.startswith(name.replace(" ", "-"))):
        bandwidth = float(jc.load_chip(chip).memory.bandwidth)
        rows.append(
            [f"its bytes at the {bandwidth / 1e12:.2f} TB/s of {chip}", f"{bandwidth / moved / 1e6:,.1f}"]
        )
    return rows


HEADS = {
    "rates": ("what", "chunk", "trace + compile s", "million/s", "CPU ns each"),
    "overhead": ("the space `million`", "million/s", "CPU ns each", "over bare"),
    "peers": ("tool", "calls/s", "prefill ms", "decode ms", "one call gives"),
    "profile": ("chunk", "million/s"),
}


def markdown(tables: dict[str, list[list[str]]], about: str) -> str:
    """The tables as they stand in the README."""
    blocks = [about]
    for name, rows in tables.items():
        head = HEADS[name]
        lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
        lines.insert(1, "|" + "---|" * len(head))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=1 << 18)
    parser.add_argument("--rounds", type=int, default=5, help="turns of bare sweep and sweep with reducers")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    parser.add_argument("--profile", metavar="DIR", help="trace a sweep, and say what bounds it")
    args = parser.parse_args()
    count = args.designs // 8192 * 8192
    tables: dict[str, list[list[str]]] = {"rates": []}
    for name, f, _ in (CASES[1], CASES[-1]):
        tables["rates"].append([f"{name}, one design", "", f"{first_call(f):.1f}", "", ""])
    sweep_rate = 0.0
    for name, f, chunk in CASES:
        seconds, designs_per_second, nanoseconds = measure(f, chunk, count)
        if f is value:
            sweep_rate = max(sweep_rate, designs_per_second)
        tables["rates"].append(
            [name, str(chunk), f"{seconds:.1f}", f"{designs_per_second / 1e6:.2f}", f"{nanoseconds:.0f}"]
        )
    tables["overhead"] = overhead_rows(4 * count, args.rounds)
    tables["peers"] = peer_rows(sweep_rate)
    if args.profile:
        tables["profile"] = profile(args.profile, 64 * count)
    devices = jax.local_devices()
    about = (
        f"On {len(devices)} {devices[0].device_kind} device(s) of {cpu_name()}, jax {jax.__version__}, {count:,} mixed "
        f"designs. The peers answer for {MODEL} on one {CHIP}, {PROMPT} + {OUTPUT} tokens, latencies at batch 32, every "
        "peak reached."
    )
    OUT.mkdir(parents=True, exist_ok=True)
    manifest = {"command": sys.argv[1:], "about": about, "python": platform.python_version()}
    (OUT / "01_benchmark.json").write_text(json.dumps({"manifest": manifest, **tables}, indent=1) + "\n")
    console = Console()
    for name, rows in tables.items():
        table = Table(*HEADS[name])
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if args.readme:
        readme = ROOT / "README.md"
        before, _, rest = readme.read_text().partition("<!-- rates -->")
        _, _, after = rest.partition("<!-- end -->")
        text = markdown(tables, about)
        readme.write_text(f"{before}<!-- rates -->\n{text}\n<!-- end -->{after}")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


if __name__ == "__main__":
    main()
