"""Engines in memory: AttAcc, NeuPIMs and HPIM."""

from collections.abc import Iterator

import jaxcost as jc
from claims.common import ENDLESS, GB, GIB, TB, Claim, dense, evaluate, group, memory_only, token_seconds

ATTACC = "AttAcc, doi 10.1145/3620665.3640422"


def attacc_ratios(batch: int) -> dict[str, float]:
    """Time per token of the baselines over that of GPUs with AttAcc, and throughput with prefill."""
    model, traffic = jc.load_model("gpt-3-175b"), jc.Traffic(prompt=2048, output=128, batch=batch)
    reached = jc.Efficiency(matmul=0.8, memory=0.85)

    def gpus(count: int, capacity: float, **tiers: jc.Memory) -> jc.System:
        memory = jc.Memory(capacity=capacity * GIB, bandwidth=3.352 * TB)
        return group(count, memory, 312 * TB, 300 * GB, efficiency=reached, **tiers)

    def run(system: jc.System, **plan: float | jc.Placement) -> jc.Report:
        return evaluate(system, model, traffic, jc.Plan(**plan))

    near = jc.load_near("attacc-bank", stacks=5)
    device = jc.Memory(capacity=80 * GIB, bandwidth=600 * GB, near=near)
    there = jc.Placement(automatic=0.0, request_kv=jc.Split(cxl=1.0), near_weights=0.0)
    blocked = run(gpus(8, 80, cxl=device), tp=8, placement=there)
    piped = run(gpus(8, 80, cxl=device), tp=8, placement=jc.replace(there, interleaved=1.0))
    tenth = near.flops / (near.flops + 312 * TB)  # 9%: matmuls in proportion to the engines that do them
    matmuls = jc.replace(there, interleaved=1.0, weights=jc.Split(cxl=tenth), near_weights=1.0)
    helped = run(gpus(8, 80, cxl=device), tp=8, placement=matmuls)
    large = run(gpus(8, 160), tp=8)
    two = min((run(gpus(16, 80), tp=16), run(gpus(16, 80), tp=8, dp=2)), key=lambda r: float(r.tpot))
    return {
        "large": float(large.tpot / blocked.tpot),
        "large, pipelined": float(large.tpot / piped.tpot),
        "large, pipelined, matmuls": float(large.tpot / helped.tpot),
        "two, pipelined": float(two.tpot / piped.tpot),
        "with prefill": float(piped.tokens_per_second / large.tokens_per_second),
        "margin": float(min(piped.margins.memory, piped.margins.cxl, large.margins.memory)),
        "margin, matmuls": float(helped.margins.cxl),
    }


# 66 requests fill the devices' 640 GiB, 63 leave room for 9% of the weights.
ATTACC_BATCHES = (1, 32, 63, 66)


def attacc() -> Iterator[Claim]:
    found = {batch: attacc_ratios(batch) for batch in ATTACC_BATCHES}
    common = "GPT-3 175B, 2048 in, 128 out, 80% and 85% of peaks"
    for key, margin, against, verdict, why in (
        (
            "large, pipelined, matmuls",
            "margin, matmuls",
            "8 GPUs of 160 GB, generation alone",
            "loose",
            "pipelined, and 9% of the matmuls in memory, by the engines' rates: they do so, their share is not stated",
        ),
        ("large, pipelined", "margin", "the same, no matmuls in memory", "no", "pipelined"),
        ("large", "margin", "the same, not pipelined either", "no", "attention and matmuls in turn"),
        (
            "two, pipelined",
            "margin",
            "16 GPUs of 80 GB, generation alone",
            "no",
            "a baseline of twice the engines and bandwidth as well",
        ),
        (
            "with prefill",
            "margin",
            "8 GPUs of 160 GB, prefill included",
            "no",
            "2048 prompt tokens a request take longer than 128 new ones",
        ),
    ):
        fits = [batch for batch, ratios in found.items() if ratios[margin] >= 0]
        best = max(fits, key=lambda batch, key=key: found[batch][key])
        yield Claim(
            f"over {against}",
            ATTACC,
            2.81,
            "x",
            found[best][key],
            verdict,
            f"{common}; batch {best}, the most that fits; {why}; at batch 1 {found[1][key]:.2f}",
        )


NEUPIMS = "NeuPIMs, doi 10.1145/3620666.3651380"
NEUPIMS_GRID = tuple((batch, context) for batch in (64, 256, 512) for context in (128, 256, 512, 1024))


def neupims_ratios(batch: int, context: int, wider: float = 16) -> dict[str, float]:
    """Throughput of NeuPIMs over the same devices blocked and in turn, and over as many A100."""
    model, traffic = jc.load_model("gpt-3-175b"), jc.Traffic(prompt=context, output=2, batch=batch)
    # 16 of the banks of each of 32 channels deliver 64 B every 2 ns: 16 times what leaves the channel. Opening their
    # rows of 1 KB takes four times 30 ns (tFAW): 4 times.
    internal = wider * 1024 * GB
    near = jc.NearMemory(bandwidth=internal, flops=internal, shard=0.064 * GB)
    memory = jc.Memory(capacity=32 * GIB, bandwidth=1024 * GB, near=near)
    layout = {"tp": 8.0, "pp": 4.0}
    there = jc.Placement(near_weights=0.0)

    def run(system: jc.System, placement: jc.Placement) -> jc.Report:
        return evaluate(system, model, traffic, jc.Plan(**layout, placement=placement))

    def npus(blocking: float) -> jc.System:
        return group(32, jc.replace_at(memory, "near.blocking", blocking), 262 * TB, 300 * GB)

    a100 = jc.load_chip("a100-80gb-sxm").memory
    piped = run(npus(0.0), jc.replace(there, interleaved=1.0))
    gpu = run(
        group(32, jc.Memory(capacity=a100.capacity, bandwidth=a100.bandwidth), 312 * TB, 300 * GB), there
    )
    return {
        "blocked": float(run(npus(1.0), there).tpot / piped.tpot),
        "gpu": float(gpu.tpot / piped.tpot),
        "margin": float(piped.margins.memory),
    }


def neupims() -> Iterator[Claim]:
    found = {
        (*point, wider): neupims_ratios(*point, wider) for point in NEUPIMS_GRID for wider in (16.0, 4.0)
    }
    fits = {point: ratios for point, ratios in found.items() if ratios["margin"] >= 0}
    for key, claimed, against in (
        ("blocked", 1.6, "NPU and PIM in turn"),
        ("gpu", 3.0, "as many ideal A100"),
    ):
        for wider, limit in ((16.0, "columns"), (4.0, "activating rows")):
            ratio, batch, context, _ = max(
                (ratios[key], *point) for point, ratios in fits.items() if point[2] == wider
            )
            why = (
                "overlap gains what the shorter takes, and attention in memory is short beside the matmuls"
                if key == "blocked"
                else f"it would take A100s at {ratio / claimed:.0%} of their roof: theirs have twice the bandwidth"
            )
            yield Claim(
                f"over {against}, {wider:g} x inside, at most",
                NEUPIMS,
                claimed,
                "x",
                ratio,
                "no",
                f"GPT-3 175B on 8 x 4 devices of 32 GB, limited by {limit}; batch {batch}, context {context} "
                f"of what fits; {why}",
                baseline_share=ratio / claimed if key == "gpu" else None,
            )


HPIM = "HPIM, arXiv:2509.12993"
A100 = 2.039 * TB


def speedup_near_memory(internal: float, utilisation: float) -> float:
    """How much faster than an A100 at a share of its roof an engine near memory reads weights."""
    memory = jc.Memory(capacity=ENDLESS, bandwidth=A100)
    gpu = jc.replace_at(memory_only(A100), "chip.efficiency.memory", utilisation)
    near = jc.NearMemory(bandwidth=internal, flops=ENDLESS)
    pim = memory_only(A100, memory=jc.replace(memory, near=near))
    return token_seconds(gpu, dense(2e9)) / token_seconds(pim, dense(2e9))


def hpim() -> Iterator[Claim]:
    for utilisation in (1.0, 0.5, 0.25):
        internal = 22.8 * utilisation * A100
        yield Claim(
            f"{internal / TB:.1f} TB/s, A100 at {utilisation:.0%} of its roof",
            HPIM,
            22.8,
            "x",
            speedup_near_memory(internal, utilisation),
            "loose",
            "the internal bandwidth is not published; 22.8 u x 2.04 TB/s is the least it takes",
        )
    five = jc.load_near("hbm-pim", stacks=5)
    reached = speedup_near_memory(float(five.bandwidth), 1.0)
    for claimed, version in ((22.8, "v1"), (34.3, "v2")):
        yield Claim(
            f"five HBM-PIM stacks, ideal A100 ({version})",
            HPIM,
            claimed,
            "x",
            reached,
            "no",
            f"it would need an A100 at {reached / claimed:.0%} of its roof",
            baseline_share=reached / claimed,
        )
