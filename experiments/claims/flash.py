"""High bandwidth flash: Yu et al., FlashAccel, Sandisk, and arithmetic on Ma and Patterson."""

from collections.abc import Iterator

import jaxcost as jc
from claims.common import (
    BY_HAND,
    DAY,
    DECODE,
    GB,
    IN_FLASH,
    PICOJOULE_PER_BIT,
    YEAR,
    Claim,
    dense,
    evaluate,
    given,
    memory_only,
    seconds_of,
    token_seconds,
    weights_in_flash,
)
from jaxcost.physics.memory.tiers import prefetch_buffer
from jaxcost.physics.memory.wear import wear_share

YU = "Yu et al. 2026, HBF for LLM serving"
SITE = 1000 * GB  # B/s of one site, of either memory


def sites(hbm: int, *, chained: bool = False) -> jc.System:
    """Eight sites, `hbm` of them HBM and the others flash; or flash behind HBM at every site."""
    flash = 8 if chained else 8 - hbm
    hbm = 8 if chained else hbm
    memory = jc.Memory(
        capacity=hbm * 24 * GB,
        bandwidth=hbm * SITE,
        latency=0.1e-6,
        energy_per_byte=3.4 * PICOJOULE_PER_BIT,
    )
    return memory_only(0, memory=memory, hbf=flash_stacks(flash, chained=chained))


def flash_stacks(stacks: float, *, chained: bool = False) -> jc.Memory:
    """Flash as Yu et al. state it; latency hidden."""
    return jc.Memory(
        capacity=stacks * 375 * GB,
        bandwidth=stacks * SITE,
        write_bandwidth=stacks * 8 * GB,
        latency=20e-6,
        energy_per_byte=6.8 * PICOJOULE_PER_BIT,
        write_energy_per_byte=100 * PICOJOULE_PER_BIT,
        endurance=1e5,
        chained=float(chained),
        stacks=stacks,
    )


def yu() -> Iterator[Claim]:
    size, model = 100 * GB, dense(50e9)
    for hbm, share in ((2, 0.9), (4, 0.25), (4, 0.9), (6, 0.25)):
        plan = jc.Plan(placement=given(weights=jc.Split(hbf=share)))
        ours = 1e3 * float(evaluate(sites(hbm), model, DECODE, plan).tpot)
        formula = 1e3 * max((1 - share) * size / (hbm * SITE), share * size / ((8 - hbm) * SITE))
        yield Claim(
            f"{hbm} of 8 sites HBM, {share:.0%} in flash: max",
            YU,
            formula,
            "ms",
            ours,
            "ok",
            "every operator's data split alike, tiers at once",
            0.002,
        )
    for share in (0.25, 0.9):
        plan = jc.Plan(placement=given(weights=jc.Split(hbf=share)))
        ours = 1e3 * float(evaluate(sites(8, chained=True), model, DECODE, plan).tpot)
        yield Claim(
            f"flash behind 8 of HBM, {share:.0%} in flash: sum",
            YU,
            1e3 * size / (8 * SITE),
            "ms",
            ours,
            "ok",
            "both pass one interface",
            0.002,
        )
    model, traffic = jc.load_model("llama-3.1-70b"), jc.Traffic(prompt=8192, output=2, batch=32)
    report = evaluate(sites(4), model, traffic, jc.Plan(placement=given(weights=IN_FLASH)))
    attention = seconds_of(report, "attention_full")
    rest = float(report.tpot) - attention
    yield Claim(
        "70B: weights in 4 flash sites, cache in HBM",
        YU,
        1e3 * max(rest, attention),
        "ms",
        1e3 * float(report.tpot),
        "no",
        "operators follow each other here: what one reads from flash does not hide behind the next one's HBM",
    )
    # The writes: the cache itself in flash, its life from the share of cycles that serving uses up.
    kept = jc.Placement(automatic=0.0, request_kv=IN_FLASH)
    report = evaluate(sites(4), model, jc.Traffic(prompt=8192, output=512, batch=32), jc.Plan(placement=kept))
    tier, served = report.tiers.hbf, jc.Prices()
    life = float(served.lifetime * served.utilization / tier.wear) / YEAR
    written = float(tier.written)
    per_token = float(jc.kv_bytes_per_token(model))
    for claimed, how in ((4.77, "as it comes"), (14.82, "with an admission buffer of 10%")):
        implied = written * life / claimed
        yield Claim(
            f"writes that a life of {claimed} years allows, {how}",
            YU,
            None,
            "GB/s",
            implied / GB,
            "-",
            f"4 stacks of 375 GB, 1e5 cycles: {implied / (32 * GB):.1%} of their write bandwidth, "
            f"{implied / per_token:,.0f} tok/s of a 70B cache",
        )
    yield Claim(
        "life with writes at full bandwidth",
        YU,
        None,
        "year",
        written * life / (32 * GB),
        "-",
        "8 GB/s a stack all the time; the writes behind their 4.77 years are not in what we have",
    )


FLASHACCEL = "FlashAccel, arXiv:2607.10186"


def buffer_rule() -> Iterator[Claim]:
    stack = jc.load_memory("hbf")
    rule = float(prefetch_buffer(stack))
    for share, claimed in ((2.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.1, 0.1)):
        report = weights_in_flash(jc.replace(stack, buffer=share * rule), dense(20e9))
        yield Claim(
            f"bandwidth with {share:g} of 2 x bandwidth x latency",
            FLASHACCEL,
            claimed,
            "of peak",
            float(report.tiers.hbf.bandwidth / stack.bandwidth),
            "ok",
            f"{rule / 1e6:.0f} MB at {float(stack.latency) * 1e6:.0f} us: half in flight, half in use",
            1e-3,
        )


SANDISK = "Sandisk newsroom, 2025-08-11"


def sandisk() -> Iterator[Claim]:
    stacks, model = jc.load_memory("hbf", stacks=8), jc.load_model("llama-3.1-405b")
    ideal = token_seconds(memory_only(float(stacks.bandwidth)), model, weight_bits=8)
    rule = float(prefetch_buffer(stacks))

    def slower(memory: jc.Memory) -> float:
        return 100 * (float(weights_in_flash(memory, model, 8).tpot) / ideal - 1)

    yield Claim(
        "405B on flash, slower than on endless HBM",
        SANDISK,
        2.2,
        "%",
        slower(jc.replace(stacks, buffer=rule)),
        "loose",
        f"reads known ahead and a buffer of {rule / 1e6:.0f} MB for 8 stacks: nothing is lost, so theirs has a wait that is left",
    )
    yield Claim(
        "the same, with 1/1.022 of that buffer",
        SANDISK,
        2.2,
        "%",
        slower(jc.replace(stacks, buffer=rule / 1.022)),
        "loose",
        f"a buffer of {rule / 1.022 / 1e6:.0f} MB; neither buffer nor latency nor batch is published",
        0.05,
    )
    layer = jc.replace(stacks, read_size=405.9e9 / 126, queue_depth=1.0, in_order=1.0)
    wait = slower(layer)
    yield Claim(
        "the same, one wait of 15 us a layer",
        SANDISK,
        2.2,
        "%",
        wait,
        "loose",
        f"a latency of {15 * 2.2 / wait:.1f} us, or prefetching over {wait / 2.2:.1f} layers",
    )


def flash_arithmetic() -> Iterator[Claim]:
    for name, claimed in (("hbf", 313.0), ("hbm4-6400", 29.3)):
        memory = jc.load_memory(name)
        full = dense(float(memory.capacity) / 2)
        yield Claim(
            f"sweep of a full stack of {name}",
            BY_HAND,
            claimed,
            "ms",
            1e3 * float(weights_in_flash(memory, full).tpot),
            "ok",
            "capacity over bandwidth: a dense model that fills it",
        )
    two = jc.load_memory("hbf", stacks=2)
    yield Claim(
        "DeepSeek-V3 at 8 bits on two flash stacks, a token",
        BY_HAND,
        11.3,
        "ms",
        1e3 * float(weights_in_flash(two, jc.load_model("deepseek-v3"), 8).tpot),
        "loose",
        "37 GB active, 11.2 ms without the embedding; experts, known only once routed, wait 15 us in each of 58 layers",
    )
    stack = jc.replace(jc.load_memory("hbf"), latency=10e-6)
    rule = float(weights_in_flash(jc.replace(stack, buffer=1e6), dense(20e9)).tiers.hbf.buffer)
    yield Claim("bytes in flight over 10 us", BY_HAND, 16.4, "MB", rule / 2 / 1e6, "ok", "Little's law")
    yield Claim("pages in flight over 10 us", BY_HAND, 4000.0, "page", rule / 2 / 4096, "ok", "4 KB each")
    yield Claim("buffer for 10 us", BY_HAND, 32.8, "MB", rule / 1e6, "ok", "twice what is in flight")
    rate = 2000 * float(jc.kv_bytes_per_token(jc.load_model("llama-3.1-70b")))
    for cycles, claimed, unit, seconds in ((1e5, 2.5, "year", YEAR), (3e3, 27.0, "day", DAY)):
        worn = jc.replace(stack, endurance=cycles, write_amplification=1.0)
        yield Claim(
            f"life of a stack under 2,000 tok/s of a 70B cache, {cycles:g} cycles",
            BY_HAND,
            claimed,
            unit,
            1 / float(wear_share(worn, rate, seconds)),
            "ok",
            f"{rate / 1e6:.0f} MB/s, no write amplification, never idle",
            0.02,
        )
