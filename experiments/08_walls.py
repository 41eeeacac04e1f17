"""The limits that bandwidth, capacity and latency set to decoding, one table each.

Every peak rate is reached, so the results are upper bounds for any software. Messages between chips keep their
latency.

    bandwidth  tokens per second of one user as the bandwidth of one chip grows; capacity is ignored
    capacity   tokens of KV cache that fit next to the weights, by system and precision
    latency    time per token against throughput as the batch grows, and what is the limit
"""

import itertools

import numpy as np

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

MODELS = ("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "deepseek-v3", "kimi-k2")
# Bits of a weight, and of cache and activations; 4.25 are MXFP4's with its scales.
PRECISIONS = {16: (16.0, 16.0), 8: (8.0, 8.0), 4: (4.25, 8.0)}
CHIP, CONTEXT = "b200", 2048  # engines of the chip whose bandwidth moves, tokens of its one user
BANDWIDTHS = np.geomspace(0.2e12, 200e12, 17)
# Memories drawn in: name, what the catalogue calls it, stacks or channels (0: a chip as it is), whether it is sold today.
MARKS = (
    ("DDR5 x12", "ddr5-6400", 12, True),
    ("M3 Ultra", "m3-ultra", 0, True),
    ("H100", "h100-sxm", 0, True),
    ("H200", "h200-sxm", 0, True),
    ("B200", "b200", 0, True),
    ("HBF x8", "hbf", 8, False),
    ("HBM4 x8", "hbm4", 8, False),
    ("HBM4 x16", "hbm4", 16, False),
    ("Groq LPU", "groq-lpu-v1", 0, True),
    ("WSE-3", "wse-3", 0, True),
)
# Systems of the capacity table; the flash chip has half of its sites for flash, half for HBM.
SYSTEMS = {
    "1 H100": "h100-sxm",
    "1 B200": "b200",
    "1 M3 Ultra": "m3-ultra",
    "1 chip, 4 HBM4 + 4 HBF": "",
    "8 H100": "dgx-h100",
    "8 H200": "dgx-h200",
    "8 B200": "hgx-b200",
    "72 GB200": "gb200-nvl72",
}
FLASH_SITES = 4
WIDTHS = (1, 8)  # tensor-parallel degrees: the dense models have 8 key-value heads, latent caches are not cut
CHUNK = 256  # prompt tokens prefilled at once, which sets the buffers
# The trade-off: one dense model at 8 bits, by the fastest of these plans (tp, pp, dp) that fits.
DENSE, PROMPT, OUTPUT = "llama-3.1-70b", 4096, 1024
EIGHT = ((8, 1, 1), (4, 1, 2), (2, 1, 4), (1, 1, 8))
SERVED = {
    "8 H100": ("dgx-h100", EIGHT),
    "8 H200": ("dgx-h200", EIGHT),
    "8 B200": ("hgx-b200", EIGHT),
    "576 Groq LPU": ("groq-576", ((64, 9, 1), (32, 18, 1), (16, 36, 1), (8, 72, 1))),
}
BATCHES = tuple(2**k for k in range(12))


def precision(bits: int) -> dict[str, float]:
    """The leaves of a plan that set all precisions."""
    weights, others = PRECISIONS[bits]
    return {"weight_bits": weights, "expert_bits": weights, "kv_bits": others, "activation_bits": others}


def bytes_read(name: str, bits: int, context: float) -> float:
    """Bytes that one token of one user reads, by hand: active weights but for the embedding, and the cache."""
    model, (weight_bits, kv_bits) = jc.load_model(name), PRECISIONS[bits]
    active = float(jc.parameter_count(model)[1]) - float(model.vocabulary * model.hidden) * (
        1 - float(model.tied)
    )
    cache = float(jc.kv_bytes_per_token(model, jc.Plan(kv_bits=kv_bits))) * context
    return active * weight_bits / 8 + cache


def weight_bytes(name: str, bits: int) -> float:
    """Bytes of all weights."""
    return float(jc.parameter_count(jc.load_model(name))[0]) * PRECISIONS[bits][0] / 8


def bandwidth_rows(names: tuple[str, ...], bandwidths: np.ndarray) -> list[dict]:
    base = jc.load_system(CHIP)
    grid = list(itertools.product(names, PRECISIONS, bandwidths))
    traffic = jc.Traffic(prompt=CONTEXT - 1, output=2, batch=1)
    models = {name: jc.load_model(name) for name in names}
    report = evaluate(
        [
            Case(
                jc.replace_at(base, "chip.memory.bandwidth", float(b)),
                models[name],
                traffic,
                jc.Plan(**precision(bits)),
            )
            for name, bits, b in grid
        ]
    )
    memory = sum(row.seconds * (row.memory >= row.seconds * 0.999) for row in report.decode.rows)
    return [
        {
            "model": name,
            "bits": bits,
            "bandwidth": b,
            "tokens_per_second": 1 / report.tpot[i],
            "tokens_by_hand": b / bytes_read(name, bits, CONTEXT),
            "memory_share": memory[i] / report.decode.total[i],
        }
        for i, (name, bits, b) in enumerate(grid)
    ]


def mark_rows() -> list[dict]:
    rows = []
    for name, of, stacks, sold in MARKS:
        memory = jc.load_memory(of, stacks=stacks) if stacks else jc.load_chip(of).memory
        held = [m for m in MODELS if weight_bytes(m, 8) <= float(memory.capacity)]
        rows.append(
            {
                "memory": name,
                "bandwidth": float(memory.bandwidth),
                "capacity": float(memory.capacity),
                "sold_today": sold,
                "holds_at_8_bits": ", ".join(held),
            }
        )
    return rows


def built(name: str) -> jc.System:
    """A system of the capacity table."""
    if SYSTEMS[name]:
        return jc.load_system(SYSTEMS[name])
    made = jc.add_tier(jc.load_system(CHIP), "memory", "hbm4", stacks=FLASH_SITES)
    return jc.add_tier(made, "hbf", "hbf", stacks=FLASH_SITES)


def plans(chips: int, bits: int) -> list[jc.Plan]:
    """Plans that use all chips: tensor-parallel groups, and pipeline stages, replicas or context shards of them."""
    made = []
    for tp in WIDTHS if chips > 1 else (1,):
        for further in ("pp", "dp", "cp") if chips > tp else ("pp",):
            degrees = {"tp": tp, "ep": chips if further == "dp" else tp, further: chips // tp}
            made.append(jc.Plan(**degrees, chunk=CHUNK, **precision(bits)))
    return made


def capacity_rows(names: tuple[str, ...], of: tuple[str, ...]) -> list[dict]:
    systems = {name: built(name) for name in names}
    models = {name: jc.load_model(name) for name in of}
    tried = [
        (name, model, bits, plan)
        for name, model, bits in itertools.product(names, of, PRECISIONS)
        for plan in plans(int(systems[name].chips), bits)
    ]
    report = evaluate(
        [
            Case(
                systems[name],
                models[model],
                jc.Traffic(prompt=CONTEXT - 1, output=1, batch=float(plan.dp * plan.pp)),
                plan,
            )
            for name, model, bits, plan in tried
        ]
    )
    found: dict[tuple, dict] = {}
    for i, (name, model, bits, plan) in enumerate(tried):
        chip, used = systems[name].chip, report.memory
        main, flash = float(chip.memory.capacity), float(chip.hbf.capacity)
        buffers = used.activations[i] + used.communication[i]
        weights = used.weights[i] + used.experts[i]
        # Flash holds weights alone: the cache is written too often.
        free = min(main, main + flash - weights) - buffers
        tokens = float(plan.dp * plan.pp) * CONTEXT * free / used.kv[i]
        row = {
            "system": name,
            "capacity": (main + flash) * float(systems[name].chips),
            "model": model,
            "bits": bits,
            "weights": weight_bytes(model, bits),
            "tokens": max(tokens, 0.0),
            "fits": bool(tokens >= 1),
            "tp": float(plan.tp),
            "pp": float(plan.pp),
            "dp": float(plan.dp),
            "cp": float(plan.cp),
        }
        best = found.get((name, model, bits))
        if best is None or row["tokens"] > best["tokens"]:
            found[name, model, bits] = row
    return list(found.values())


def latency_rows(batches: tuple[int, ...]) -> list[dict]:
    systems = {name: jc.load_system(of) for name, (of, _) in SERVED.items()}
    model = jc.load_model(DENSE)
    grid = [(n, batch, plan) for n, batch in itertools.product(SERVED, batches) for plan in SERVED[n][1]]
    report = evaluate(
        [
            Case(
                systems[name],
                model,
                jc.Traffic(prompt=PROMPT, output=OUTPUT, batch=batch),
                jc.Plan(tp=tp, pp=pp, dp=dp, chunk=CHUNK, **precision(8)),
            )
            for name, batch, (tp, pp, dp) in grid
        ]
    )
    step, found = report.decode, {}
    weights = step.rows[step.names.index("feed_forward")]
    for i, (name, batch, (tp, pp, dp)) in enumerate(grid):
        shares = dict.fromkeys(("memory", "matmul", "network"), 0.0)
        for row in step.rows:
            legs = {leg: float(getattr(row, leg)[i]) for leg in shares}
            shares[max(legs, key=legs.get)] += float(row.seconds[i] / step.total[i])
        # Decoding alone: other chips prefill, or at other times.
        tpot = float(step.total[i] * report.schedule.interval[i])
        row = {
            "system": name,
            "batch": batch,
            "tp": tp,
            "pp": pp,
            "dp": dp,
            "tpot": tpot,
            "tokens_per_second": batch / tpot,
            "tokens_per_second_per_chip": batch / tpot / float(systems[name].chips),
            **{f"{leg}_share": share for leg, share in shares.items()},
            "weights_bound_by_memory": bool(weights.memory[i] >= weights.matmul[i]),
            "fits": bool(report.margins.memory[i] >= 0),
        }
        best = found.get((name, batch))
        if best is None or (not row["fits"], tpot) < (not best["fits"], best["tpot"]):
            found[name, batch] = row
    return list(found.values())


def ridge(of: str) -> float:
    """Batch at which a matmul of 8-bit weights takes as long as reading them, by hand: rate / (2 bandwidth)."""
    chip = jc.load_system(of).chip
    return float(chip.compute.flops_8 / (2 * chip.memory.bandwidth))


def findings(bandwidth: list[dict], capacity: list[dict], latency: list[dict]) -> tuple[str, ...]:
    needed = bytes_read("llama-3.1-70b", 16, CONTEXT) * 100
    far = max(abs(r["tokens_per_second"] / r["tokens_by_hand"] - 1) for r in bandwidth)
    top = {
        r["model"]: r for r in bandwidth if r["bits"] == 8 and r["bandwidth"] == bandwidth[-1]["bandwidth"]
    }
    dense, experts = top["llama-3.1-405b"], top["deepseek-v3"]
    unfit = {}
    for row in capacity:
        if not row["fits"]:
            unfit.setdefault((row["model"], row["bits"]), []).append(row["system"])
    kimi = unfit.get(("kimi-k2", 8), [])
    least = [r for r in capacity if r["fits"] and r["model"] == "llama-3.1-405b" and r["bits"] == 8]
    lines = []
    for name, (of, _) in SERVED.items():
        rows = [r for r in latency if r["system"] == name]
        first, last = rows[0], [r for r in rows if r["fits"]][-1]
        passed = next(
            (r["batch"] / (r["dp"] * r["pp"]) for r in rows if not r["weights_bound_by_memory"]), None
        )
        crossing = f"{passed:,.0f} requests at once" if passed else f"no batch up to {rows[-1]['batch']}"
        lines.append(
            f"{name}: {first['tpot'] * 1e3:.2f} ms a token and {first['tokens_per_second']:,.0f} token/s at batch 1, "
            f"with {first['network_share']:.0%} of the time in messages; {last['tpot'] * 1e3:.2f} ms and "
            f"{last['tokens_per_second']:,.0f} token/s at batch {last['batch']}, the largest here that fits, with "
            f"{last['memory_share']:.0%} of the time memory-bound. Feed-forward matmuls become compute-bound at {crossing} "
            f"(by hand at {ridge(of):,.0f}); attention over the cache never does."
        )
    return (
        f"A 70B model at 16 bits needs {needed / 1e12:.1f} TB/s for 100 token/s of one user with {CONTEXT:,} tokens of context; "
        f"at {bandwidth[-1]['bandwidth'] / 1e12:.0f} TB/s and 8 bits a dense 405B model reaches {dense['tokens_per_second']:,.0f} "
        f"token/s, DeepSeek-V3 of 671B {experts['tokens_per_second']:,.0f}. Bytes over bandwidth are within {far:.0%} "
        "of the model's everywhere here.",
        "Bandwidth is needed for the active weights of a model, capacity for all of them: Kimi K2 at 8 bits "
        f"does not fit {len(kimi)} of {len({r['system'] for r in capacity})} systems here ({'; '.join(kimi)}); "
        "Llama 3.1 405B at 8 bits leaves "
        + "; ".join(f"{r['tokens']:,.0f} tokens on {r['system']}" for r in least)
        + ".",
        *lines,
    )


def study(small: bool) -> Study:
    models = MODELS[2:4] if small else MODELS
    bandwidth = bandwidth_rows(models, BANDWIDTHS[::16] if small else BANDWIDTHS)
    capacity = capacity_rows(tuple(SYSTEMS)[:4:3] if small else tuple(SYSTEMS), models)
    latency = latency_rows(BATCHES[::6] if small else BATCHES)
    return Study(
        title="Three limits of decoding: bandwidth, capacity, latency",
        findings=findings(bandwidth, capacity, latency),
        assumptions=(
            "Every peak is reached; messages between chips take the latencies of their fabric.",
            f"Bandwidth: one chip with the engines of a {CHIP}, one user, {CONTEXT:,} tokens of context, no drafts. Capacity "
            "is ignored. Marks are bandwidths alone, without the latency of flash and messages between chips.",
            "Precisions: weights at 16, 8 or 4.25 bits (MXFP4), cache and activations at 16, 8 and 8 bits.",
            f"Capacity: of plans with tensor-parallel groups of {WIDTHS[0]} or {WIDTHS[1]}, with further chips as pipeline "
            f"stages, replicas or context shards, the one with the largest cache; buffers of a prefill of {CHUNK} tokens at once. Flash holds weights, never cache.",
            f"Latency: {DENSE} at 8 bits, prompt {PROMPT}, output {OUTPUT}, decode steps without prefill; at "
            "each batch the fastest of a few plans that fits, or the fastest where none does.",
        ),
        sources=("configs/chips", "configs/memories", "configs/models", "configs/systems"),
        tables={
            "bandwidth": Table(
                "one user's decoding at a bandwidth, whatever the capacity",
                {
                    "model": "",
                    "bits": "bit",
                    "bandwidth": "B/s",
                    "tokens_per_second": "token/s",
                    "tokens_by_hand": "token/s",
                    "memory_share": "1",
                },
                bandwidth,
            ),
            "marks": Table(
                "a memory or chip, and which models' weights it holds at 8 bits",
                {"memory": "", "bandwidth": "B/s", "capacity": "B", "sold_today": "", "holds_at_8_bits": ""},
                mark_rows(),
            ),
            "capacity": Table(
                "a model at a precision on a system: tokens of cache that fit beside it, by the plan that leaves most",
                {
                    "system": "",
                    "capacity": "B",
                    "model": "",
                    "bits": "bit",
                    "weights": "B",
                    "tokens": "token",
                    "fits": "",
                    **dict.fromkeys(("tp", "pp", "dp", "cp"), "1"),
                },
                capacity,
            ),
            "latency": Table(
                "decode steps of a batch on a system: their pace, and the share that memory, matmuls or messages bind",
                {
                    "system": "",
                    "batch": "1",
                    **dict.fromkeys(("tp", "pp", "dp"), "1"),
                    "tpot": "s",
                    "tokens_per_second": "token/s",
                    "tokens_per_second_per_chip": "token/s",
                    **dict.fromkeys(("memory_share", "matmul_share", "network_share"), "1"),
                    "weights_bound_by_memory": "",
                    "fits": "",
                },
                latency,
            ),
        },
    )


if __name__ == "__main__":
    run(study)
