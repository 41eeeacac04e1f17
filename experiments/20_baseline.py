"""KV-cache traffic, latency and power of a 7B model on one chip, against arithmetic by hand.

A dense model of seven billion parameters decodes on one chip at its peak rates, while batch and context grow. The
reference values are computed here from the shape of the model alone: bytes of weights and cache over bandwidth. Where
the two differ, something other than memory is the limit.
"""

import itertools

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

CHIP, MODEL = "h100-sxm", "llama-2-7b"
BATCHES, CONTEXTS = (1, 2, 4, 8, 16, 32, 64, 128), (512, 2048, 4096)
LAYERS, HIDDEN, FEED_FORWARD, VOCABULARY = 32, 4096, 11008, 32000


def weight_bytes() -> float:
    """Weights that a decode step reads, 2 bytes each: layers and head; one row of the embedding is next to nothing."""
    layer = 4 * HIDDEN**2 + 3 * HIDDEN * FEED_FORWARD + 2 * HIDDEN
    return 2.0 * (LAYERS * layer + HIDDEN * VOCABULARY)


def cache_bytes(context: float) -> float:
    """Keys and values of one request, 2 bytes each."""
    return 2.0 * 2 * LAYERS * HIDDEN * context


def study(small: bool) -> Study:
    batches = BATCHES[::3] if small else BATCHES
    contexts = CONTEXTS[-1:] if small else CONTEXTS
    system, model = jc.load_system(CHIP), jc.load_model(MODEL)
    bandwidth = float(system.chip.memory.bandwidth)
    grid = list(itertools.product(contexts, batches))
    # Two tokens: the one decode step reads a cache of just the prompt and the first.
    cases = [Case(system, model, jc.Traffic(prompt=c - 1, output=2, batch=b), jc.Plan()) for c, b in grid]
    report = evaluate(cases)
    rows = []
    for i, (context, batch) in enumerate(grid):
        cache = batch * cache_bytes(context)
        tpot = float(report.tpot[i])
        rows.append(
            {
                "context": context,
                "batch": batch,
                "tpot": tpot,
                "tpot_by_hand": (weight_bytes() + cache) / bandwidth,
                "cache_bandwidth": cache / tpot,
                "cache_share": cache / (weight_bytes() + cache),
                "tokens_per_second": batch / tpot,
                "power": float(report.power.decode[i]),
                "joules_per_token": float(report.power.decode[i]) * tpot / batch,
                "fits": bool(report.margins.memory[i] >= 0),
            }
        )
    units = {
        "context": "token",
        "batch": "1",
        "tpot": "s",
        "tpot_by_hand": "s",
        "cache_bandwidth": "B/s",
        "cache_share": "1",
        "tokens_per_second": "token/s",
        "power": "W",
        "joules_per_token": "J/token",
        "fits": "",
    }
    off = max(abs(r["tpot"] / r["tpot_by_hand"] - 1) for r in rows if r["batch"] == 1)
    far = max(abs(r["tpot"] / r["tpot_by_hand"] - 1) for r in rows)
    one = next(r for r in rows if r["batch"] == 1 and r["context"] == contexts[-1])
    many = [r for r in rows if r["fits"] and r["context"] == contexts[-1]][-1]
    return Study(
        title="A 7B model on one chip: cache traffic, latency and power",
        findings=(
            f"At batch 1 a token takes {one['tpot'] * 1e3:.2f} ms; bytes over bandwidth give "
            f"{one['tpot_by_hand'] * 1e3:.2f} ms. The two are within {off:.1%} at batch 1 and {far:.1%} anywhere.",
            f"With {contexts[-1]:,} tokens of context, batch {many['batch']} is the most here that fits: the cache then takes "
            f"{many['cache_share']:.0%} of what is read, {many['cache_bandwidth'] / 1e12:.2f} TB/s of "
            f"{bandwidth / 1e12:.2f}.",
            f"The chip draws {one['power']:.0f} W at batch 1 and {many['power']:.0f} W at batch {many['batch']}; a token takes "
            f"{one['joules_per_token']:.2f} J and {many['joules_per_token']:.3f} J.",
        ),
        assumptions=(
            f"{MODEL} at 16 bits on one {CHIP}, every peak reached.",
            "One decode step of a batch whose requests all have the context given.",
            "Power of the chip alone, without its share of a server.",
        ),
        sources=("configs/chips/h100-sxm.yaml", "configs/models/llama-2-7b.yaml"),
        tables={"steps": Table("one decode step of a batch at a context", units, rows)},
    )


if __name__ == "__main__":
    run(study)
