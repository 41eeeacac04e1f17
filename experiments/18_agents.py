"""Operational intensity and capacity footprint of agentic requests, and the resource that limits them.

Operational intensity (OI) is FLOPs per byte of memory traffic in a step. Capacity footprint (CF) is the bytes of
memory per request of a batch, its share of the weights included (Zhao and Liu, arXiv:2601.22001). A chip divides this
plane in four: its ridge point separates compute-bound from bandwidth-bound, and its capacity separates what fits from
what does not. The chips of a system are pooled into one, so that neither copies nor messages count.
"""

import functools
import itertools

import jax
import numpy as np

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

CHIP, POOLS = "b200", (1, 8, 72)
MODELS = ("llama-3.1-70b", "deepseek-v3")
# Tokens of context and tokens a turn adds: low, best and high. The source gives 20-30 turns and 300,000 to 1,000,000
# tokens for coding; what a page or a screen takes, and chat, are estimates of ours.
WORKLOADS = {
    "chat": ((2_000, 8_000, 32_000), (100, 500, 2_000)),
    "web use": ((60_000, 150_000, 300_000), (2_000, 6_000, 15_000)),
    "computer use": ((30_000, 100_000, 300_000), (1_000, 4_000, 10_000)),
    "coding": ((300_000, 500_000, 1_000_000), (1_000, 4_000, 20_000)),
}
ENDS = ("low", "mid", "high")
BATCHES = (1, 16)
RANKS, CONTEXTS = (64, 128, 256, 512, 1024), (32_000, 128_000, 1_000_000)
QUOTED = {"decode": 0.5, "prefill": 10.0}  # FLOP/B, of a note on the source that could not be checked
LATENT_HEADS = 128  # that share a latent of DeepSeek-V3

load_model = functools.cache(jc.load_model)


@functools.cache
def pool(chips: int) -> jc.System:
    """So many chips as one of their bandwidth, capacity and rates together."""
    made = jc.load_system(CHIP)
    memory, compute = made.chip.memory, jax.tree.map(lambda rate: rate * chips, made.chip.compute)
    memory = jc.replace(memory, capacity=memory.capacity * chips, bandwidth=memory.bandwidth * chips)
    return jc.replace(made, chip=jc.replace(made.chip, memory=memory, compute=compute))


def case(model: jc.Model, context: float, new: float, batch: float, chips: int = 1) -> Case:
    """A turn: so many new tokens on a cached context, then one decode step; 16 bits."""
    prompt = context - 1.0
    traffic = jc.Traffic(prompt=prompt, output=2, batch=batch, prefix_hit=1 - new / prompt)
    return Case(pool(chips), model, traffic, jc.Plan())


def work(step, i: int, chips: int = 1) -> tuple[float, float]:
    """FLOPs and bytes of case i's step, from the legs of its operators at peak rates."""
    chip = pool(chips).chip
    legs = [sum(float(np.asarray(getattr(row, leg))[i]) for row in step.rows) for leg in ("matmul", "memory")]
    return legs[0] * float(chip.compute.flops_16), legs[1] * float(chip.memory.bandwidth)


def held(report: jc.Report, i: int) -> tuple[float, float]:
    """Bytes of weights and of the cache of all requests."""
    memory = report.memory
    return float(memory.weights[i] + memory.experts[i]), float(memory.kv[i])


def points(small: bool) -> list[dict]:
    """OI and CF of every workload, whole prompts, turns and decoding."""
    ends = ("mid",) if small else ENDS
    batches = BATCHES[:1] if small else BATCHES
    grid = []
    for model, (workload, (contexts, added)), end, batch in itertools.product(
        MODELS, WORKLOADS.items(), ends, batches
    ):
        k = ENDS.index(end)
        grid.append((model, workload, end, batch, contexts[k], added[k]))
    turns = evaluate([case(load_model(m), c, new, b) for m, _, _, b, c, new in grid])
    whole = evaluate([case(load_model(m), c, c - 1, b) for m, _, _, b, c, _ in grid])
    ridge, capacity = chip_numbers()
    rows = []
    for i, (model, workload, end, batch, context, _) in enumerate(grid):
        steps = {"decode": turns.decode, "turn": turns.prefill, "prompt": whole.prefill}
        weights, cache = held(turns, i)
        footprint = (weights + cache) / batch
        for phase, step in steps.items():
            flops, moved = work(step, i)
            rows.append(
                {
                    "model": model,
                    "workload": workload,
                    "end": end,
                    "context": context,
                    "batch": batch,
                    "phase": phase,
                    "oi": flops / moved,
                    "cf": footprint,
                    "cache": cache / batch,
                    "binds": quadrant(flops / moved > ridge, footprint > capacity),
                }
            )
    return rows


def chip_numbers() -> tuple[float, float]:
    """The ridge point at 16 bits and the capacity of one chip."""
    chip = pool(1).chip
    return float(chip.compute.flops_16 / chip.memory.bandwidth), float(chip.memory.capacity)


def quadrant(intense: bool, large: bool) -> str:
    engine = "compute" if intense else "bandwidth"
    return f"capacity, then {engine}" if large else engine


def fits(small: bool) -> list[dict]:
    """The largest batch that a system holds, and what limits its decoding."""
    grid = list(itertools.product(MODELS, WORKLOADS, POOLS[:1] if small else POOLS))
    one = evaluate([case(load_model(m), WORKLOADS[w][0][1], WORKLOADS[w][1][1], 1) for m, w, _ in grid])
    batches = []
    for i, (_, _, chips) in enumerate(grid):
        weights, cache = held(one, i)
        batches.append(np.floor((chips * chip_numbers()[1] - weights) / cache))
    batches = np.maximum(batches, 0)
    wider = np.maximum(np.round(1.1 * batches), batches + 1)
    full, more = (
        evaluate(
            [
                case(load_model(m), WORKLOADS[w][0][1], 1, max(b, 1), chips)
                for (m, w, chips), b in zip(grid, tried, strict=True)
            ]
        )
        for tried in (batches, wider)
    )
    rows = []
    for i, ((model, workload, chips), batch) in enumerate(zip(grid, batches, strict=True)):
        if batch < 1:
            found = dict.fromkeys(("oi", "tpot", "tokens_per_second", "compute_share", "gain_of_capacity"))
            binds = "does not fit"
        else:
            flops, moved = work(full.decode, i, chips)
            tpot, capacity = float(full.tpot[i]), chips * chip_numbers()[1]
            # 1% more memory makes the batch C / (C - W) per cent larger, and a step longer by its slope.
            longer = np.log(more.tpot[i] / tpot) / np.log(wider[i] / batch)
            gain = capacity / (capacity - held(full, i)[0]) * float(1 - longer)
            engines = sum(
                float(row.seconds[i]) for row in full.decode.rows if np.all(row.matmul[i] > row.memory[i])
            )
            share = engines / float(full.decode.total[i])
            binds = "capacity" if gain > 1 else "compute" if share > 0.5 else "bandwidth"
            found = {
                "oi": flops / moved,
                "tpot": tpot,
                "tokens_per_second": batch / tpot,
                "compute_share": share,
                "gain_of_capacity": gain,
            }
        of = {"model": model, "workload": workload, "chips": chips, "batch": batch}
        rows.append(of | found | {"binds": binds})
    return rows


def latents(small: bool) -> list[dict]:
    """DeepSeek-V3 with latents of other widths: decoding a large batch, so that weights hardly count."""
    grid = list(itertools.product(CONTEXTS[-1:] if small else CONTEXTS, RANKS[::2] if small else RANKS))
    models = {rank: jc.replace_at(load_model("deepseek-v3"), "latent.kv_rank", float(rank)) for rank in RANKS}
    found = evaluate([case(models[rank], context, 1, 1024) for context, rank in grid])
    alone = evaluate([case(models[rank], context, 1, 1) for context, rank in grid])
    rows = []
    for i, (context, rank) in enumerate(grid):
        flops, moved = work(found.decode, i)
        first, read = work(alone.decode, i)
        rows.append(
            {
                "context": context,
                "latent": rank,
                "oi": flops / moved,
                "oi_alone": first / read,
                "oi_by_hand": LATENT_HEADS * (2 * rank + 64) / (rank + 64),
                "cache": held(alone, i)[1],
            }
        )
    return rows


def study(small: bool) -> Study:
    mapped, held_rows, swept = points(small), fits(small), latents(small)
    ridge, capacity = chip_numbers()
    phases = {
        phase: [r["oi"] for r in mapped if r["phase"] == phase] for phase in ("decode", "turn", "prompt")
    }
    per_token = {name: float(jc.kv_bytes_per_token(load_model(name))) for name in MODELS}
    agents = [r for r in mapped if (r["phase"], r["batch"], r["model"]) == ("decode", 1, MODELS[0])]
    large = [r for r in agents if r["cf"] > capacity]
    counts = {
        kind: sum(r["binds"] == kind for r in held_rows)
        for kind in dict.fromkeys(r["binds"] for r in held_rows)
    }
    wide = [r for r in swept if r["context"] == CONTEXTS[-1]]
    least = min(phases["decode"])

    def beside(phase: str) -> str:
        return "above" if min(phases[phase]) > QUOTED["prefill"] else "below"

    return Study(
        title="Agents: operational intensity, capacity footprint, and the limiting resource",
        findings=(
            f"Decoding has {least:.2f} to {max(phases['decode']):.0f} FLOP/B here, {'never' if least > QUOTED['decode'] else 'also'} below {QUOTED['decode']:g} as one note on "
            "the source has it: at 16 bits a weight of two bytes does two FLOPs a request, so 1 is the floor (0.5 would be 32 "
            f"bits). A whole prompt has at least {min(phases['prompt']):.0f}, {beside('prompt')} the note's {QUOTED['prefill']:g}; a turn "
            f"on a cached context at least {min(phases['turn']):.1f}, {beside('turn')} it.",
            f"A token of cache takes {per_token[MODELS[0]] / 1024:.0f} KiB of {MODELS[0]} (by hand 2 x 80 x 8 x 128 x 2 B = 320 KiB) "
            f"and {per_token[MODELS[1]] / 1024:.1f} KiB of {MODELS[1]}; a million take {per_token[MODELS[0]] * 1e6 / 1e9:.0f} and "
            f"{per_token[MODELS[1]] * 1e6 / 1e9:.0f} GB.",
            f"Alone on a {CHIP} of {capacity / 1e9:.0f} GB and a ridge of {ridge:.0f} FLOP/B, {len(large)} of {len(agents)} requests "
            f"of {MODELS[0]} do not fit beside the weights: {', '.join(dict.fromkeys(r['workload'] for r in large))}.",
            "What limits decoding at the largest batch that fits, of "
            f"{len(held_rows)} pairs of workload and system: " + ", ".join(f"{kind} {n}" for kind, n in counts.items()) + ".",
            f"From a latent of {wide[0]['latent']} to {wide[-1]['latent']} a request of {CONTEXTS[-1]:,} tokens grows from "
            f"{wide[0]['cache'] / 1e9:.0f} to {wide[-1]['cache'] / 1e9:.0f} GB, and a large batch's decoding goes from "
            f"{wide[0]['oi']:.0f} to {wide[-1]['oi']:.0f} FLOP/B: the width moves the footprint, the {LATENT_HEADS} heads that share "
            "it the intensity.",
        ),
        assumptions=(
            "16 bits throughout; every peak reached. Bytes are weights, cache and activations of each operator, once a step.",
            "Contexts and turns of the workloads are estimates with a low and a high, but for coding's context.",
            "A batch prefills at once; decoding is one step at the full context. CF leaves working buffers out.",
            "Chips are pooled: memory is never split, nothing is copied, messages take no time. Capacity binds where 1% more "
            "of it gains more than 1% of tokens a second, compute where operators that engines limit take over half of a step.",
            "Latents: DeepSeek-V3 with another kv_lora_rank, all else the same; a batch of 1,024, whether it fits or not.",
        ),
        sources=(
            "arXiv:2601.22001 (abstract; turns, contexts and latents as quoted from it)",
            "configs/chips/b200.yaml",
            "configs/models/llama-3.1-70b.yaml",
            "configs/models/deepseek-v3.yaml",
        ),
        tables={
            "chip": Table(
                "the chip that divides the map",
                {"chip": "", "ridge": "FLOP/B", "capacity": "B"},
                [{"chip": CHIP, "ridge": ridge, "capacity": capacity}],
            ),
            "points": Table(
                "a step of a workload; what binds on one chip",
                {"model": "", "workload": "", "end": "", "context": "token", "batch": "1", "phase": "", "oi": "FLOP/B",
                 "cf": "B", "cache": "B", "binds": ""},
                mapped,
            ),
            "fits": Table(
                "decoding at the largest batch that a system holds",
                {"model": "", "workload": "", "chips": "1", "batch": "1", "oi": "FLOP/B", "tpot": "s",
                 "tokens_per_second": "token/s", "compute_share": "1", "gain_of_capacity": "1", "binds": ""},
                held_rows,
            ),
            "latents": Table(
                "decoding with latents of another width: large batch, alone, the latents by hand; cache of a request",
                {"context": "token", "latent": "1", "oi": "FLOP/B", "oi_alone": "FLOP/B", "oi_by_hand": "FLOP/B",
                 "cache": "B"},
                swept,
            ),
        },
    )  # fmt: skip


if __name__ == "__main__":
    run(study)
