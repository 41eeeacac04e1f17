"""The rate of the replay, designs times requests a second, beside the plain event simulator of the tests.

`python experiments/replay_benchmark.py` prints a table and writes experiments/out/replay_benchmark.json. A trace of
5,000 requests with the lengths and burstiness of conversations is served by llama-3.1-70b on 8 H100s, in 1 to 1,000
designs that differ in memory bandwidth. The plain simulator, one step at a time in Python, serves the same requests
with the same step tables under the same policy; both agree request by request, which is checked here too.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jaxcost as jc  # noqa: E402
from jaxcost.explore.replay.pools import Workload, build_pool  # noqa: E402
from tests.replay_inputs import Policy, Requests, Tables  # noqa: E402
from tests.replay_simulator import simulate  # noqa: E402

OUT = ROOT / "experiments" / "out"


def plain(system, model, plan, trace) -> tuple[object, float]:
    """Return the result and the seconds of the plain simulator."""
    pool = build_pool(
        system, model, plan, Workload.of(trace), replicas=1, prices=jc.Prices(), knobs=jc.Knobs(), most_sequences=1024,
        fineness=1,
    )  # fmt: skip
    knobs = "sequences context mixed_sequences mixed_context tokens keys".split()
    values = [t[k, ..., 0].tolist() for t in (pool.tables.decode, pool.tables.mixed) for k in (0, 1)]
    tables = Tables(*(getattr(pool.grid, name).tolist() for name in knobs), *values)
    policy = Policy(
        pages=int(pool.pages[0]), block=int(pool.block[0]), budget=int(pool.budget[0]),
        sequences=int(pool.sequences[0]), mixed=bool(pool.mixed[0]),
    )  # fmt: skip
    requests = Requests(trace.arrival.tolist(), trace.prompt.tolist(), trace.output.tolist())
    began = time.perf_counter()
    result = simulate(requests, policy, tables)
    return result, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--designs", default="1,64,1000")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--plain", type=int, default=1000, help="requests of the plain simulator")
    args = parser.parse_args()
    trace = jc.synthetic_trace(
        "gamma", rate=5.0, burstiness=2.0, requests=args.requests, prompt=1000, output=250, prompt_cv=1.0,
        output_cv=0.8, seed=0,
    )  # fmt: skip
    model, base = jc.load_model("llama-3.1-70b"), jc.load_system("h100-sxm-x8", efficiency="h100-sxm-vllm")
    plan = jc.Plan(tp=8, engine=jc.load_engine("vllm", "h100-sxm"))
    rows = []
    for designs in map(int, args.designs.split(",")):
        factors = np.linspace(0.7, 1.5, designs)
        system = jc.replace_at(base, "chip.memory.bandwidth", base.chip.memory.bandwidth * factors)
        for call in ("first", "again"):
            began = time.perf_counter()
            replayed = jc.replay(system, model, trace, plan)
            seconds = time.perf_counter() - began
            rows.append({
                "designs": designs, "call": call, "seconds": seconds, "steps": float(replayed.steps.sum()),
                "rate": designs * trace.requests / seconds, "table_error": replayed.table_error,
            })  # fmt: skip
    few = trace.first(args.plain)
    with jax.enable_x64(True):
        arguments = jc.canonical((base, model, plan), np.float64)
        slow, seconds = plain(*arguments, few)
        fast = jc.replay(*arguments[:2], few, arguments[2])
    overheads = float(np.mean(fast.first - np.array(slow.first)))
    np.testing.assert_allclose(fast.first - overheads, slow.first, rtol=1e-6)
    rows.append({
        "designs": 1, "call": "plain simulator", "seconds": seconds, "steps": float(slow.steps),
        "rate": few.requests / seconds, "table_error": 0.0,
    })  # fmt: skip
    table = Table(
        "designs", "call", "seconds", "steps", "designs x requests/s", "steps/s", "over the plain simulator"
    )
    for row in rows:
        table.add_row(
            f"{row['designs']:,}", row["call"], f"{row['seconds']:.2f}", f"{row['steps']:,.0f}", f"{row['rate']:,.0f}",
            f"{row['steps'] / row['seconds']:,.0f}", f"{row['rate'] / rows[-1]['rate']:,.0f}",
        )  # fmt: skip
    Console().print(table)
    OUT.mkdir(exist_ok=True)
    (OUT / "replay_benchmark.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
