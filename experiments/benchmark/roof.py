"""Trace sweeps on the device, and compare their memory traffic and arithmetic with the peak rates of the chip.

`python experiments/benchmark/roof.py DIR COUNT` writes a trace for TensorBoard or Perfetto to DIR and prints rows.
"""

import json
import sys
import time
from collections.abc import Iterator

import cells
import jax

import jaxcost as jc
from jaxcost.edge.studies.space_file import read_space
from jaxcost.explore.space.spaces import sweep_features
from jaxcost.explore.sweep.run import METRICS, design_metrics, metrics_of, model_evaluation
from jaxcost.explore.sweep.stream import SweepStream

CHUNKS = {"cpu": (256, 512)}
OTHER_CHUNKS = tuple(1 << k for k in (14, 16, 18, 20))


def profile(folder: str, count: int) -> Iterator[list[list[str]]]:
    """Yield rows of a table as they come."""
    space, objective, _ = read_space("billion")
    reducers = {
        "top": jc.TopK(objective, 100),
        "front": jc.Pareto(("tpot", "usd_per_mtok", "gco2e_per_mtok"), epsilon=0.01, size=4096),
    }
    metrics, present = metrics_of(reducers, METRICS), sweep_features(space)
    streams, rates = {}, {}
    for chunk in CHUNKS.get(jax.default_backend(), OTHER_CHUNKS):
        stream = streams[chunk] = SweepStream(
            space, model_evaluation(metrics, present), metrics, reducers, chunk=chunk
        )
        stream.run(0, chunk)
        stream.wait()
        start = time.perf_counter()
        stream.run(0, count)
        stream.wait()
        rates[chunk] = count / (time.perf_counter() - start)
    yield [[f"sweep of `billion`, chunk {chunk:,}", f"{r / 1e6:,.1f}"] for chunk, r in rates.items()]
    chunk = max(rates, key=rates.__getitem__)
    with jax.profiler.trace(folder):
        streams[chunk].run(0, count)
        streams[chunk].wait()
    yield [[f"a trace of chunk {chunk:,} is in {folder}", ""]]
    designs = jax.device_put(cells.mixed_designs(min(chunk, 1 << 16)))
    programs = {
        "value": lambda d: design_metrics(d, METRICS, features=present),
        "gradient in every leaf, everything traced": cells.PROGRAMS["gradient"],
    }
    for name, f in programs.items():
        yield roofs(name, f, designs)


def roofs(name: str, f, designs) -> list[list[str]]:
    """What XLA counts of a program, at the bandwidth and the peak of the chip it runs on."""
    over_batch, _ = cells.batched(f, designs)
    compiled = jax.jit(over_batch).lower(designs).compile()
    count, cost = len(jax.tree.leaves(designs)[0]), compiled.cost_analysis()
    flops, moved = cost["flops"] / count, cost["bytes accessed"] / count
    taken = cells.best(lambda: compiled(designs))
    rows = [
        [f"{name}, on one device, {count:,} designs a call", f"{count / taken / 1e6:,.1f}"],
        [f"{name}: XLA counts {flops:,.0f} FLOP and {moved:,.0f} bytes a design, caches not counted", ""],
    ]
    kind = jax.local_devices()[0].device_kind.lower().removeprefix("nvidia ").replace(" ", "-")
    for known in (c for c in jc.list_names("chips") if c.startswith(kind)):
        chip = jc.load_chip(known)
        for what, roof, each in (
            ("bytes", float(chip.memory.bandwidth), moved),
            ("operations", float(chip.compute.vector_flops), flops),
        ):
            rows.append(
                [f"{name}: its {what} at {roof / 1e12:.2f} T/s of {known}", f"{roof / each / 1e6:,.1f}"]
            )
    return rows


if __name__ == "__main__":
    table = []
    for rows in profile(sys.argv[1], int(sys.argv[2])):
        table += rows
        print(json.dumps(table), flush=True)
