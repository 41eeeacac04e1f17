"""Six trends on the roofline: mixtures of experts, reasoning, multimodality, long context, retrieval and diffusion.

Every trend is one model with one workload, compared with a twin that differs in the trend alone: the same model
without the images, the long answer or the retrieved text; a dense model with as many active weights; the same weights
decoded one token at a time. Elasticities are finite differences: one parameter of the system is changed by 1% up and
down. They are compared with the marks of Table 1 of arXiv:2601.05047.
"""

import dataclasses
import math

import jax
import numpy as np

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

CHIP, CHIPS = "b200", 8
DENSE, MIXTURE, PICTURES, DIFFUSION = "llama-3.1-70b", "deepseek-v3", "gemma-3-27b", "llada-8b"
SHORT = {"prompt": 2048, "output": 512}
BYTES = {"weight_bits": 8, "expert_bits": 8, "kv_bits": 8}  # as DeepSeek-V3 is published
IN_FLIGHT = 32
BATCHES = (1, IN_FLIGHT)
STEP = 0.01
# 2e8 passages of 500 16-bit numbers, of which a search reads one in a hundred; an estimate.
CORPUS = {"corpus": 200e9, "corpus_read": 2e9}
# What counts as stressed: a resource that moves the time per token by a tenth of its own change; half as many bytes
# again to hold as the twin.
FELT, HELD = 0.1, 1.5
RESOURCES = {
    "memory bandwidth": ("chip.memory.bandwidth",),
    "interconnect latency": tuple(f"fabric.scale_up.{x}" for x in ("latency", "overhead", "launch")),
    "compute": tuple(
        f"chip.compute.{x}" for x in ("flops_16", "flops_8", "flops_4", "vector_flops", "exponentials")
    ),
}
# Marks of the paper's Table 1 (as transcribed): capacity, bandwidth, interconnect latency, compute.
MARKS = {
    "conventional": ("", "primary", "primary", ""),
    "mixture of experts": ("primary", "primary", "primary", ""),
    "reasoning": ("primary", "primary", "derived", ""),
    "multimodal": ("primary", "primary", "derived", ""),
    "long context": ("primary", "primary", "derived", ""),
    "retrieval": ("primary", "primary", "derived", ""),
    "diffusion, block of 32": ("", "", "", "primary"),
    "diffusion, whole answer": ("", "", "", "primary"),
}
COLUMNS = ("memory capacity", *RESOURCES)
SMALL = ("conventional", "mixture of experts", "long context", "diffusion, whole answer")
BLOCKS = (1, 4, 16, 32, 64, 128, 256, 512, 1024)


@dataclasses.dataclass(frozen=True)
class Trend:
    """A model and a traffic with the trend, and the same without."""

    name: str
    model: jc.Model
    traffic: jc.Traffic
    twin: jc.Model
    without: jc.Traffic
    plan: jc.Plan
    chips: int = CHIPS

    def case(self, batch: float = 1, system: jc.System | None = None, *, twin: bool = False) -> Case:
        model, traffic = (self.twin, self.without) if twin else (self.model, self.traffic)
        made = jc.load_system(f"{CHIP}-x{self.chips}") if system is None else system
        return Case(made, model, jc.replace(traffic, batch=batch), self.plan)


def diffusing(block: float) -> jc.Model:
    """LLaDA with blocks of that length, a pass for each token of a block as in its paper."""
    return jc.replace(jc.load_model(DIFFUSION), diffusion_block=float(block), diffusion_steps=float(block))


def trends() -> list[Trend]:
    dense, mixture, pictures = (jc.load_model(name) for name in (DENSE, MIXTURE, PICTURES))
    short, bits = jc.Traffic(**SHORT), BYTES
    wide = jc.Plan(tp=CHIPS)
    # As many experts as a token uses: a dense model of the same active weights.
    active = jc.replace_at(mixture, "experts.experts", float(mixture.experts.top_k))
    asked = jc.Traffic(prompt=512, output=512)
    token = diffusing(1)

    def like(name: str, **more: float) -> Trend:
        return Trend(name, dense, jc.replace(short, **more), dense, short, wide)

    return [
        like("conventional"),
        Trend("mixture of experts", mixture, short, active, short, jc.Plan(tp=CHIPS, ep=CHIPS, **bits)),
        like("reasoning", output=32768),
        # 64 pictures of 256 tokens each.
        Trend("multimodal", pictures, jc.replace(asked, encoder_tokens=64 * 256), pictures, asked, wide),
        like("long context", prompt=120_000),
        like("retrieval", retrieved=32768, **CORPUS),
        Trend("diffusion, block of 32", diffusing(32), asked, token, asked, jc.Plan(), 1),
        Trend("diffusion, whole answer", diffusing(512), asked, token, asked, jc.Plan(), 1),
    ]


def scaled(system: jc.System, paths: tuple[str, ...], factor: float) -> jc.System:
    """A system some of whose numbers are larger by a factor."""
    for path in paths:
        value = system
        for name in path.split("."):
            value = getattr(value, name)
        system = jc.replace_at(system, path, value * factor)
    return system


def leg(rows: tuple, name: str) -> np.ndarray:
    """Seconds of one leg of a step, all rows together."""
    return sum(np.asarray(getattr(row, name)) for row in rows)


def held(report: jc.Report) -> np.ndarray:
    """Bytes on a chip while decoding: weights, caches, corpus; buffers of a prefill aside."""
    m = report.memory
    return m.weights + m.experts + m.kv + m.corpus


def roofline(found: list[Trend]) -> Table:
    """Where prefill and decode steps stand under the roof."""
    cases = [(t, batch, t.case(batch)) for t in found for batch in BATCHES]
    report = evaluate([case for *_, case in cases])
    rows = []
    for i, (trend, batch, case) in enumerate(cases):
        chip = case.system.chip
        peak, bandwidth = float(chip.compute.flops_16), float(chip.memory.bandwidth)
        for step in ("prefill", "decode"):
            times = jax.tree.map(lambda x, i=i: x[i], getattr(report, step))
            # One leg is one unit of work over its peak, so that the peak gives the work back.
            flops, moved = leg(times.rows, "matmul") * peak, leg(times.rows, "memory") * bandwidth
            if step == "prefill" and batch > 1:
                continue
            rows.append(
                {
                    "trend": trend.name,
                    "step": step,
                    "batch": batch,
                    "intensity": flops / moved,
                    "attained": flops / times.total,
                    "roof": min(peak, flops / moved * bandwidth),
                    "seconds": times.total,
                    "message_share": leg(times.rows, "network") / times.total,
                }
            )
    units = {
        "trend": "",
        "step": "",
        "batch": "1",
        "intensity": "FLOP/B",
        "attained": "FLOP/s",
        "roof": "FLOP/s",
        "seconds": "s",
        "message_share": "1",
    }
    return Table("one step on one chip: matmul work over bytes of main memory, work over time", units, rows)


def throughput(found: list[Trend]) -> dict[str, tuple[float, int]]:
    """Elasticity of tokens a second to capacity, by way of the batch that fits; and that batch."""
    capacity = float(jc.load_chip(CHIP).memory.capacity)
    size = held(evaluate([t.case(batch) for t in found for batch in (1, 2)]))
    fits = []
    for one, two in zip(size[::2], size[1::2], strict=True):
        each = float(two - one)
        room = capacity - float(one) + each
        largest = max(math.floor(room / each), 1)
        fits.append((largest, max(round(0.9 * largest), 1), round(1.1 * largest) + 1, capacity / room))
    sides = [t.case(batch) for t, (_, *around, _) in zip(found, fits, strict=True) for batch in around]
    speed = evaluate(sides).decode_tokens_per_second
    gain = np.log(speed[1::2] / speed[::2])
    return {
        t.name: (float(up) / math.log(high / low) * lever, largest)
        for t, up, (largest, low, high, lever) in zip(found, gain, fits, strict=True)
    }


def elasticities(found: list[Trend]) -> Table:
    """What moves the time per token, the time of an answer, and the tokens a second of a full chip."""
    keys, cases = [], []
    for trend in found:
        system = trend.case().system
        for name, paths in RESOURCES.items():
            for side in (1 - STEP, 1 + STEP):
                keys.append((trend.name, name))
                cases.append(trend.case(1, scaled(system, paths, side)))
    report = evaluate(cases)
    span = math.log((1 + STEP) / (1 - STEP))

    def slope(metric: str, trend: str, name: str) -> float:
        down, up = (i for i, key in enumerate(keys) if key == (trend, name))
        values = getattr(report, metric)
        return float(np.log(values[up] / values[down])) / span

    full = throughput(found)
    rows = []
    for trend in found:
        capacity, largest = full[trend.name]
        rows.append(
            {
                "trend": trend.name,
                **{f"token: {name}": slope("tpot", trend.name, name) for name in RESOURCES},
                **{f"answer: {name}": slope("latency", trend.name, name) for name in RESOURCES},
                "tokens a second: memory capacity": capacity,
                "largest batch": largest,
            }
        )
    units = {name: "" if name == "trend" else "1" for name in rows[0]}
    return Table(
        "d ln time / d ln resource at batch 1; d ln rate / d ln capacity at the batch that fits", units, rows
    )


def demands(found: list[Trend]) -> Table:
    """What a trend asks for, over what its twin does."""
    pairs = evaluate([t.case(IN_FLIGHT, twin=twin) for t in found for twin in (False, True)])
    steps = pairs.decode
    per_token = steps.total / pairs.tpot  # tokens of a sequence in a step
    work = leg(steps.rows, "matmul") / per_token
    moved = leg(steps.rows, "memory") / per_token
    size = held(pairs)
    rows = []
    for i, trend in enumerate(found):
        a, b = 2 * i, 2 * i + 1
        rows.append(
            {
                "trend": trend.name,
                "held": float(size[a]) * trend.chips,
                "times_held": size[a] / size[b],
                "chips": max(float(size[a]) * trend.chips / float(jc.load_chip(CHIP).memory.capacity), 1.0),
                "times_moved": moved[a] / moved[b],
                "times_work": work[a] / work[b],
                "tpot": pairs.tpot[a],
                "twin_tpot": pairs.tpot[b],
            }
        )
    units = {"trend": "", "held": "B", "tpot": "s", "twin_tpot": "s"}
    units = {name: units.get(name, "1") for name in rows[0]}
    return Table(f"at {IN_FLIGHT} requests in flight, a token of the trend over one of its twin", units, rows)


def verdicts(elastic: Table, asked: Table) -> Table:
    """The paper's marks beside what is measured."""
    rows = []
    for moved, wants in zip(elastic.rows, asked.rows, strict=True):
        for column, mark in zip(COLUMNS, MARKS[moved["trend"]], strict=True):
            if column == "memory capacity":
                value, measure, stressed = (
                    wants["times_held"],
                    "bytes held over the twin's",
                    wants["times_held"] >= HELD,
                )
            else:
                value, measure = abs(moved[f"token: {column}"]), "elasticity of the time per token"
                stressed = value >= FELT
            rows.append(
                {
                    "trend": moved["trend"],
                    "resource": column,
                    "paper": mark,
                    "measure": measure,
                    "value": value,
                    "stressed": bool(stressed),
                    "agrees": bool(stressed) == bool(mark),
                }
            )
    units = {name: "1" if name == "value" else "" for name in rows[0]}
    return Table("a cell of Table 1 of arXiv:2601.05047", units, rows)


def crossing(small: bool) -> Table:
    """How long a diffusion block must be before compute binds."""
    blocks, batches = (BLOCKS[::4], (1,)) if small else (BLOCKS, (1, 8, 64))
    system = jc.load_system(CHIP)
    grid = [(block, batch) for batch in batches for block in blocks]
    cases = []
    for block, batch in grid:
        for factor in (1 - STEP, 1 + STEP):
            moved = scaled(system, RESOURCES["compute"], factor)
            traffic = jc.Traffic(prompt=512, output=1024, batch=batch)
            cases.append(Case(moved, diffusing(block), traffic, jc.Plan()))
    report = evaluate(cases)
    chip = system.chip
    ridge = float(chip.compute.flops_16) / float(chip.memory.bandwidth)
    flops, moved = (leg(report.decode.rows, name) for name in ("matmul", "memory"))
    slopes = np.log(report.tpot[1::2] / report.tpot[::2]) / math.log((1 + STEP) / (1 - STEP))
    rows = [
        {
            "batch": batch,
            "block": block,
            "intensity": flops[2 * i] / moved[2 * i] * ridge * (1 - STEP),
            "compute": -slopes[i],
        }
        for i, (block, batch) in enumerate(grid)
    ]
    units = {"batch": "1", "block": "token", "intensity": "FLOP/B", "compute": "1"}
    return Table("a diffusion model's elasticity to compute, by block and batch", units, rows)


def study(small: bool) -> Study:
    found = [t for t in trends() if t.name in SMALL] if small else trends()
    roof, elastic, asked = roofline(found), elasticities(found), demands(found)
    marks, blocks = verdicts(elastic, asked), crossing(small)
    chip = jc.load_chip(CHIP)
    ridge = float(chip.compute.flops_16) / float(chip.memory.bandwidth)
    decode = [r for r in roof.rows if r["step"] == "decode" and not r["trend"].startswith("diffusion")]
    prefill = [r for r in roof.rows if r["step"] == "prefill"]
    one = [r for r in decode if r["batch"] == 1]
    by = {r["trend"]: r for r in elastic.rows}
    off = [r for r in marks.rows if not r["agrees"]]
    most = max(decode, key=lambda r: r["intensity"])
    answers = [r for r in elastic.rows if not r["trend"].startswith("diffusion")]
    heavy = max(answers, key=lambda r: -r["answer: compute"])
    crossed = [r for r in blocks.rows if r["compute"] >= 0.5 and r["batch"] == 1]
    full = {
        t: by[t]["tokens a second: memory capacity"]
        for t in ("conventional", "long context", "mixture of experts")
    }
    longest = asked.rows[-1]
    under = [r for r in prefill if r["intensity"] > ridge]
    return Study(
        title="Six trends of inference on the roofline",
        findings=(
            f"At batch 1 every autoregressive decode step stands at {min(r['intensity'] for r in one):.2g} to "
            f"{max(r['intensity'] for r in one):.2g} FLOP/B, the ridge at {ridge:.0f}; the chip attains at most "
            f"{max(r['attained'] for r in one) / float(chip.compute.flops_16):.2%} of its peak. At batch {most['batch']} "
            f"none exceeds {most['intensity']:.0f} FLOP/B ({most['trend']}).",
            f"Of {len(prefill)} prefill steps at batch 1, {len(under)} lie beyond the ridge, from "
            f"{min(r['intensity'] for r in prefill):.0f} to {max(r['intensity'] for r in prefill):,.0f} FLOP/B.",
            f"{len(marks.rows) - len(off)} of {len(marks.rows)} cells agree with the paper's marks"
            + "".join(
                f"; not so {r['trend']}, {r['resource']} ({r['value']:.2f}, marked {r['paper'] or 'nothing'})"
                for r in off
            )
            + ".",
            f"The marks are of decoding. Over a whole answer compute counts too: {-heavy['answer: compute']:.2f} of the time of "
            f"a {heavy['trend']} answer, {-by['conventional']['answer: compute']:.2f} of a conventional one.",
            f"With memory full, 1% more capacity gives {full['conventional']:.2f}% more tokens a second for the conventional "
            f"model, {full['long context']:.2f}% at long context and {full['mixture of experts']:.2f}% for the mixture of experts: "
            "bytes of cache are read as often as they are held, so that long contexts use up bandwidth and capacity "
            "alike; only experts, and a corpus, are held and mostly not read.",
            f"Interconnect latency takes {by['mixture of experts']['token: interconnect latency']:.2f} of the time per token of "
            f"the mixture of experts and {by['conventional']['token: interconnect latency']:.2f} of the conventional model's on "
            f"{CHIPS} chips; the share falls as the context grows ({by['long context']['token: interconnect latency']:.2f}), "
            "unless more chips are needed to hold it.",
            f"Where a diffusion model takes as many passes as tokens, a token costs {longest['times_work']:,.0f} times the work of one "
            f"read from the same weights one by one, and {longest['tpot'] / longest['twin_tpot']:.0f} times the time at "
            f"{IN_FLIGHT} requests ({longest['trend']}).",
            (
                f"A diffusion model alone is bound by compute, and of the blocks tried only with those of {crossed[0]['block']} tokens or more "
                f"at batch 1 ({crossed[0]['intensity']:.0f} FLOP/B)."
                if crossed
                else "At batch 1 no block here makes a diffusion model bound by compute."
            ),
        ),
        assumptions=(
            f"{CHIPS} {CHIP} in one scale-up domain, tensor parallel, every peak reached; diffusion ({DIFFUSION}) on one chip.",
            f"{DENSE}, {PICTURES} and {DIFFUSION} at 16 bits; {MIXTURE} with weights and cache of 8 bits, experts spread over all "
            "chips.",
            "A twin lacks the trend alone: short answer, no pictures, short prompt, nothing retrieved; a dense model of the same "
            "active weights; one token a pass.",
            f"Stressed means: the time per token moves by at least {FELT} of a change of the resource, or {HELD} times as many bytes "
            f"are held as by the twin at {IN_FLIGHT} requests. 'derived' marks count as marks.",
            "Capacity is that of a pool that only decodes: weights, caches and corpus, without buffers of a prefill.",
            "The retrieval corpus (200 GB, 2 GB read a search) lies in main memory, an estimate.",
        ),
        sources=(
            "arXiv:2601.05047 Table 1, as transcribed",
            "arXiv:2502.09992 (LLaDA: as many passes as tokens)",
            f"configs/chips/{CHIP}.yaml",
        ),
        tables={
            "roofline": roof,
            "elasticities": elastic,
            "demands": asked,
            "marks": marks,
            "blocks": blocks,
        },
    )


if __name__ == "__main__":
    run(study)
