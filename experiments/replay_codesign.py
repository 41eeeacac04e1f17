"""Design a chip for a recorded trace: least dollars within limits of p99 TTFT and p99 TPOT, by gradients of a replay.

`python experiments/replay_codesign.py --trace FILE` prints the path and writes experiments/out/replay_codesign.json.
Three knobs of an 8-chip system, each a factor on an H100 whose price follows from its parts: memory stacks (bandwidth
and capacity), compute, and link bandwidth. One iteration:

    replay the trace, recorded; gradients of p99 TTFT and p99 TPOT along the schedule, and of dollars
    a linear program within a trust region: least dollars with both percentiles within their limits
    replay its solution at eight lengths, as one batch; keep the cheapest within the limits, or the nearest to them

The derivative along a path leaves out requests that move to other steps; the replays judge. `--grid N` also replays all
N^3 designs of a grid over the box, the check that nothing cheaper was missed.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import linprog

import jaxcost as jc
from jaxcost.core.program import execution, program
from jaxcost.evaluation import design_features
from jaxcost.explore.serve import evaluate_point
from jaxcost.spec.memory import PER_STACK

OUT = Path(__file__).parent / "out"
KNOBS = {
    "memory stacks": tuple(f"chip.memory.{leaf}" for leaf in ("stacks", *PER_STACK)),
    "compute": tuple(f"chip.compute.flops_{bits}" for bits in (16, 8)),
    "link bandwidth": ("fabric.scale_up.bandwidth",),
}
BOX = np.log([[0.5, 2.5], [0.25, 2.0], [0.25, 2.0]])  # of the factors
FRACTIONS = np.array([1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.08, 0.0])  # of the step of the linear program


def at(tree, path):
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


def designed(base: jc.System, x) -> jc.System:
    """Scale the leaves of every knob; x are logarithms of the factors, `[knobs]` or `[knobs, designs]`."""
    system = base
    for factor, paths in zip(jnp.exp(jnp.asarray(x)), KNOBS.values(), strict=True):
        for path in paths:
            system = jc.replace_at(system, path, at(base, path) * factor)
    return system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", required=True, help="file that jc.load_trace reads")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=8.0, help="requests a second")
    parser.add_argument("--ttft", type=float, default=1.0, help="limit of p99 TTFT, s")
    parser.add_argument("--tpot", type=float, default=0.03, help="limit of p99 TPOT, s")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--grid", type=int, default=0)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    trace = jc.load_trace(args.trace).first(args.requests).scaled_to(args.rate)
    model = jc.load_model("llama-3.1-70b")
    base = jc.by_parts(jc.load_system("h100-sxm-x8", efficiency="h100-sxm-vllm"))
    plan = jc.Plan(tp=8, engine=jc.load_engine("vllm", "h100-sxm"))
    base, model, plan = jc.canonical((base, model, plan), np.float64)
    limits = {"ttft": args.ttft, "tpot": args.tpot}

    def replayed(x, **options) -> jc.Replay:
        return jc.replay(designed(base, x), model, trace, plan, **options)

    def violation(r: jc.Replay) -> np.ndarray:
        """Return the largest logarithm of a p99 over its limit."""
        return np.max([np.log(r.percentile(m, 99) / limit) for m, limit in limits.items()], 0)

    def slopes(x, r: jc.Replay):
        """Return the logarithms of both percentiles and of dollars a chip-second, and their gradients."""

        @program
        def values(x):
            system = designed(base, x)
            times = jc.retime(r, system, model, plan)
            features = design_features(system, jc.Traffic(), plan, jc.Knobs())
            point = evaluate_point(system, model, jc.Traffic(), plan, jc.Prices(), jc.Knobs(), features, 1.0)
            logs = [jnp.log(times.percentile(m, 99.0) / limit) for m, limit in limits.items()]
            return jnp.stack([*logs, jnp.log(point.bill.usd.total)])

        with execution("interpret"):
            value = np.asarray(program(values)(x))
            return value, np.asarray(program(jax.jacrev(values))(x))

    began, x, radius, rows = time.perf_counter(), np.zeros(len(KNOBS)), 0.3, []
    for _ in range(args.iterations):
        r = replayed(x, record=True)
        value, slope = slopes(jnp.asarray(x), r)
        low, high = np.maximum(-radius, BOX[:, 0] - x), np.minimum(radius, BOX[:, 1] - x)
        # Limits may be missed by a slack that costs more than any step gains.
        cost = np.append(slope[2], 100.0)
        bounds = [*zip(low, high, strict=True), (0, None)]
        solved = linprog(cost, np.hstack([slope[:2], -np.ones((2, 1))]), -value[:2], bounds=bounds)
        step = solved.x[:-1]
        tried = x[:, None] + step[:, None] * FRACTIONS
        batch = replayed(tried)
        over, usd = violation(batch), batch.usd_per_mtok
        fits = over <= 0
        best = int(np.argmin(np.where(fits, usd, np.inf))) if fits.any() else int(np.argmin(over))
        rows.append({
            "factors": np.exp(x).tolist(), "usd_per_mtok": float(r.usd_per_mtok),
            **{f"p99_{m}": float(r.percentile(m, 99)) for m in limits}, "radius": radius,
        })  # fmt: skip
        radius = radius * (1.5 if best == 0 else max(FRACTIONS[best] * 1.5, 0.3))
        x = tried[:, best]
        if radius < 0.01:
            break
    final = replayed(x)
    seconds = time.perf_counter() - began
    rows.append({
        "factors": np.exp(x).tolist(), "usd_per_mtok": float(final.usd_per_mtok),
        **{f"p99_{m}": float(final.percentile(m, 99)) for m in limits}, "radius": radius,
    })  # fmt: skip
    table = Table(
        "iteration", *KNOBS, "USD/Mtok", "p99 TTFT, s", "p99 TPOT, ms", "trust region", title=trace.name
    )
    for i, row in enumerate(rows):
        table.add_row(
            str(i), *(f"{f:.3f}" for f in row["factors"]), f"{row['usd_per_mtok']:.4f}", f"{row['p99_ttft']:.3f}",
            f"{1e3 * row['p99_tpot']:.2f}", f"{row['radius']:.3f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"{seconds:.0f} s; {len(rows) - 1} iterations")
    found = {"rows": rows, "seconds": seconds, "limits": limits}
    if args.grid:
        axes = [np.linspace(*box, args.grid) for box in BOX]
        points = np.stack([p.ravel() for p in np.meshgrid(*axes, indexing="ij")])
        began = time.perf_counter()
        every = replayed(points)
        usd = np.where(violation(every) <= 0, every.usd_per_mtok, np.inf)
        best = int(np.argmin(usd))
        found["grid"] = {
            "designs": points.shape[1], "seconds": time.perf_counter() - began, "usd_per_mtok": float(usd[best]),
            "factors": np.exp(points[:, best]).tolist(), "feasible": int(np.isfinite(usd).sum()),
        }  # fmt: skip
        console.print(found["grid"])
    OUT.mkdir(exist_ok=True)
    (OUT / "replay_codesign.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
