"""Two recorded traces replayed on eight H100s: the tables of docs/replay_tables.md.

    python experiments/trace_tables.py --traces FOLDER

The folder has `azure2023_conv.csv` and `mooncake_conversation.csv`, in the format `csv` of docs/traces.md. Every model
serves each trace at its recorded rate and at shares of the rate that the deployment sustains: that of requests
completed while a queue is never empty, between the first and the last tenth of them.
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import numpy as np

import jaxcost as jc

PAGE = Path(__file__).parents[1] / "docs" / "replay_tables.md"
SYSTEM, CHIP, EFFICIENCY = "h100-sxm-x8", "h100-sxm", "h100-sxm-vllm"
SHARES = (0.25, 0.5, 0.75, 0.95)
TTFT, TPOT = 2.0, 0.05  # s, limits of the goodput
AT_ONCE = 1e6  # requests/s


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A model on eight chips."""

    model: str
    quantization: str | None
    replicas: int
    degrees: dict[str, float]
    words: str


@dataclasses.dataclass(frozen=True)
class Workload:
    """A trace and its prefix cache."""

    file: str
    cache: jc.PrefixCache | None
    words: str


DEPLOYMENTS = (
    Deployment("llama-3.1-8b", None, 8, {"tp": 1.0}, "16 bits, 8 replicas of tp 1"),
    Deployment("llama-3.1-70b", None, 2, {"tp": 4.0}, "16 bits, 2 replicas of tp 4"),
    Deployment("qwen3-235b-a22b", "fp8", 1, {"tp": 8.0, "ep": 8.0}, "FP8 weights, tp 8, ep 8"),
)
INFINITE = jc.PrefixCache(np.inf, shared=True)
WORKLOADS = (
    Workload("azure2023_conv.csv", None, "Azure 2023, conversation"),
    Workload("mooncake_conversation.csv", None, "Mooncake, conversation, no prefix cache"),
    Workload("mooncake_conversation.csv", INFINITE, "Mooncake, conversation, infinite prefix cache"),
)
HEAD = (
    "rate|requests/s|TTFT p50, s|TTFT p99, s|TPOT p50, ms|TPOT p99, ms|goodput, requests/s|within limits|USD/Mtok"
    "|time, s"
)


def plan_of(deployment: Deployment) -> jc.Plan:
    """Return the plan of one replica."""
    name, quantization = deployment.model, deployment.quantization
    checkpoint = (
        jc.load_checkpoint(name, quantization=quantization) if quantization else jc.load_checkpoint(name)
    )
    return jc.replace(checkpoint.plan(engine=jc.load_engine("vllm", SYSTEM)), **deployment.degrees)


def sustained_rate(replayed: jc.Replay) -> float:
    """Return requests completed a second between the first and the last tenth of them."""
    finish = np.sort(replayed.finish)
    n = len(finish)
    return (int(0.9 * n) - int(0.1 * n)) / (finish[int(0.9 * n)] - finish[int(0.1 * n)])


def cells(name: str, rate: float, replayed: jc.Replay) -> str:
    """Return a row of the table."""
    ttft = [replayed.percentile("ttft", q) for q in (50, 99)]
    tpot = [1e3 * replayed.percentile("tpot", q) for q in (50, 99)]
    limits = {"ttft": TTFT, "tpot": TPOT}
    goodput, share = replayed.goodput(**limits), replayed.attained(**limits)
    numbers = [
        f"{rate:.2f}",
        *(f"{x:.3g}" if x < 100 else f"{x:,.0f}" for x in ttft),
        *(f"{x:.1f}" for x in tpot),
    ]
    numbers += [f"{goodput:.2f}", f"{share:.1%}", f"{replayed.usd_per_mtok:.2f}", f"{replayed.seconds:.2f}"]
    return f"| {name} | " + " | ".join(numbers) + " |"


def section(folder: Path, deployment: Deployment) -> list[str]:
    """Return the tables of one model."""
    base = jc.replace_at(jc.load_system(SYSTEM), "chip.efficiency", jc.load_efficiency(EFFICIENCY))
    model, plan = jc.load_model(deployment.model), plan_of(deployment)
    lines = [f"## {deployment.model}", "", f"{deployment.words}.", ""]
    for workload in WORKLOADS:
        trace = jc.load_trace(folder / workload.file)

        replay = functools.partial(
            jc.replay, base, model, trace, plan, replicas=deployment.replicas, prefix_cache=workload.cache
        )
        queued = replay(rate=AT_ONCE)
        capacity = sustained_rate(queued)
        replay(rate=trace.rate)  # compiles what the rows use
        rows = [cells("recorded", trace.rate, replay(rate=trace.rate))]
        rows += [cells(f"{share:.0%}", share * capacity, replay(rate=share * capacity)) for share in SHARES]
        hits = f" {float(queued.hit_rate):.0%} of the prompt tokens are cached." if workload.cache else ""
        lines += [
            f"### {workload.words}",
            "",
            f"{trace.requests:,} requests; sustained: {capacity:.2f} requests/s.{hits} Error of the step table:"
            f" {queued.table_error:.1%}.",
            "",
            "| " + " | ".join(HEAD.split("|")) + " |",
            "|" + "---|" * len(HEAD.split("|")),
            *rows,
            "",
        ]
        print("\n".join(lines[-len(rows) - 3 :]), flush=True)
    return lines


def page(folder: Path) -> str:
    """Return the whole page."""
    about = f"""# Replayed traces

Two recorded traces on eight H100s, written by `python experiments/trace_tables.py --traces FOLDER`. The system is
`{SYSTEM}` with kernels calibrated for vLLM (`{EFFICIENCY}`), the engine is vLLM with its defaults on that chip,
requests are sent to replicas by round robin, and hardware is paid for from the first arrival to the last token.
Mooncake's requests arrive nine at once on average, every 3 s, with a mean prompt of 13,312 tokens. They are replayed
without a prefix cache and with an infinite one, which has the hits that the trace states at no cost of memory.

Rates are that of the recording and shares of the rate that the deployment sustains: requests completed a second while
all are queued, between the first and the last tenth of them. A rate scales all gaps between arrivals. Goodput counts
requests with a TTFT of at most {TTFT:g} s and a TPOT of at most {TPOT * 1e3:g} ms. USD/Mtok is per million output tokens. The time is
that of one replay on two cores that others use too, its step tables included, after a first call that compiles.
"""
    lines = [about]
    for deployment in DEPLOYMENTS:
        lines += section(folder, deployment)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Replay two recorded traces on eight H100s and write docs/replay_tables.md."
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder of the traces")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    args = parser.parse_args()
    args.out.write_text(page(args.traces))
