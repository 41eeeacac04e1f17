"""Bandwidth, capacity and latency: arithmetic on Ma and Patterson's paper and on write-ups of it."""

import math
from collections.abc import Iterator

import jaxcost as jc
from claims.common import (  # fmt: skip
    BY_HAND,
    ENDLESS,
    GB,
    KIB,
    PAPER,
    SOLD,
    TB,
    WRITE_UPS,
    Claim,
    dense,
    evaluate,
    memory_only,
    printed,
    token_seconds,
    weights_in_flash,
)

# Table 3: W, GB/s a watt and GB a watt as printed, with what their last digit counts.
TABLE_3 = {
    "hbf": (80.0, (20.5, 0.1), (6.4, 0.1)),
    "hbm4-6400": (40.0, (41.0, 1.0), (1.0, 1.0)),
    "ddr5-6400": (12.0, (4.0, 1.0), (5.0, 1.0)),
    "lpddr5-6400": (3.0, (17.0, 1.0), (5.0, 1.0)),
    "flash-card": (50.0, (0.1, 0.1), (82.0, 1.0)),
}
LATENCY = 2e-6  # s of a message: an assumption, the paper has none


def rate(bandwidth: float, parameters: float) -> float:
    """Tokens a second of a dense model of 16 bits, bandwidth alone."""
    return 1 / token_seconds(memory_only(bandwidth), dense(parameters))


def weight_bytes(bits: float, model: jc.Model) -> float:
    """Bytes of a model's weights."""
    report = evaluate(memory_only(TB), model, jc.Traffic(), jc.Plan(weight_bits=bits, expert_bits=bits))
    return float(report.memory.weights + report.memory.experts)


def bandwidth() -> Iterator[Claim]:
    for parameters, speed, claimed, what in (
        (70e9, 14 * TB, 100.0, "14 TB/s"),
        (400e9, 80 * TB, 100.0, "80 TB/s"),
        (70e9, 8 * TB, 57.1, "a B200's 8 TB/s"),
        (70e9, 12 * TB, 86.0, "12 TB/s of HBM4"),
        (70e9, 15 * TB, 107.0, "15 TB/s of HBM4"),
    ):
        yield Claim(
            f"{parameters / 1e9:.0f}B at 16 bits on {what}",
            WRITE_UPS,
            claimed,
            "tok/s",
            rate(speed, parameters),
            "ok",
            "weights alone, batch 1",
        )
    h100, h200, gb200 = (jc.load_chip(name).memory for name in ("h100-sxm", "h200-sxm", "gb200"))
    yield Claim(
        "70B at 16 bits on an H100",
        BY_HAND,
        23.9,
        "tok/s",
        rate(float(h100.bandwidth), 70e9),
        "loose",
        "140 GB do not fit its 80 GB: a bandwidth, not a system",
    )
    yield Claim(
        "bandwidth of an H200", WRITE_UPS, 8.0, "TB/s", float(h200.bandwidth) / TB, "no", "data sheet: 4.8"
    )
    yield Claim(
        "capacity of a GB200's GPU",
        WRITE_UPS,
        384.0,
        "GB",
        float(gb200.capacity) / GB,
        "no",
        "two GPUs of half as much",
    )
    yield Claim(
        "chips of 8 TB/s for 400B at 100 tok/s",
        WRITE_UPS,
        None,
        "chip",
        100 / rate(8 * TB, 400e9),
        "-",
        "true of one package; tensor parallelism makes of it a matter of latency",
    )


def capacity() -> Iterator[Claim]:
    seventy, b200_like = jc.load_model("llama-3.1-70b"), 192 * GB
    cache = float(jc.kv_bytes_per_token(seventy))
    yield Claim(
        "70B at 16 bits", WRITE_UPS, 140.0, "GB", weight_bytes(16, dense(70e9)) / GB, "ok", "two bytes each"
    )
    four = weight_bytes(16, dense(400e9))
    for room in (384 * GB, b200_like):
        yield Claim(
            f"packages of {room / GB:.0f} GB that hold 400B at 16 bits",
            WRITE_UPS,
            4.0,
            "package",
            math.ceil(four / room),
            "no",
            "weights alone",
        )
    h200, h100 = SOLD["h200-sxm"], SOLD["h100-sxm"]
    yield Claim(
        "tokens of cache left beside 70B on an H200",
        BY_HAND,
        3050.0,
        "token",
        (h200 - 140 * GB) / cache,
        "ok",
        "1 GB over 320 KiB",
    )
    for bits, gigabytes, tokens in ((4.0, 35.0, 137e3), (4.25, 37.2, 130.6e3)):
        used = weight_bytes(bits, dense(70e9))
        yield Claim(
            f"70B at {bits:g} bits", BY_HAND, gigabytes, "GB", used / GB, "ok", "with scales where 4.25"
        )
        yield Claim(
            f"tokens of cache left beside it on an H100, {bits:g} bits",
            BY_HAND,
            tokens,
            "token",
            (h100 - used) / cache,
            "ok",
            "cache at 16 bits",
        )
    for model, claimed in (
        ("llama-3.1-8b", 128.0),
        ("llama-3.1-70b", 320.0),
        ("llama-3.1-405b", 504.0),
        ("deepseek-v3", 68.6),
    ):
        held = float(jc.kv_bytes_per_token(jc.load_model(model)))
        yield Claim(f"cache a token, {model}", BY_HAND, claimed, "KiB", held / KIB, "ok", "16 bits")
    groq = float(jc.load_chip("groq-lpu-v1").memory.capacity)
    yield Claim(
        "chips with SRAM alone that hold 70B", BY_HAND, 609.0, "chip", 140 * GB / groq, "ok", "230 MB"
    )
    one, many = (token_seconds(memory_only(8 * TB), seventy, 8192, batch=batch) for batch in (1.0, 32.0))
    for what, claimed, ours in (
        ("time per token", 1.58, many / one),
        ("tokens a second", 20.0, 32 * one / many),
    ):
        yield Claim(
            f"batch 32 over batch 1, 70B at 8K: {what}",
            BY_HAND,
            claimed,
            "x",
            ours,
            "ok",
            "bandwidth alone: batching need not break the latency",
            0.02,
        )


def memories() -> Iterator[Claim]:
    loaded = {name: jc.load_memory(name) for name in TABLE_3}
    for name, (watts, speed, room) in TABLE_3.items():
        memory = loaded[name]
        for what, (claimed, digit), ours in (
            ("GB/s", speed, memory.bandwidth),
            ("GB", room, memory.capacity),
        ):
            yield Claim(
                f"{name}: {what} a watt",
                PAPER,
                claimed,
                f"{what}/W",
                float(ours) / GB / watts,
                "ok",
                f"{watts:.0f} W of Table 3, digits as printed",
                printed(claimed, digit) + 0.01,
            )
    hbf, hbm = loaded["hbf"], loaded["hbm4-6400"]
    ratio = float(hbf.capacity / hbm.capacity)
    yield Claim(
        "capacity of a flash stack over HBM4",
        PAPER,
        10.0,
        "x",
        ratio,
        "ok",
        "512 over 48 GB",
        printed(10.0, 2.0),
    )
    yield Claim(
        "capacity of a flash stack over 64 GiB of HBM4",
        PAPER,
        10.0,
        "x",
        float(hbf.capacity) / (64 * 2**30),
        "no",
        "512 GB over 64 GiB",
    )
    model = dense(20e9)
    plain = evaluate(memory_only(0.0, memory=hbm), model, jc.Traffic(prompt=1, output=2), jc.Plan())
    flash = weights_in_flash(hbf, model)
    yield Claim(
        "time per token from flash over HBM4's",
        WRITE_UPS,
        1.0,
        "x",
        float(flash.tpot / plain.tpot),
        "ok",
        "not at the level of a device; only a system of fewer chips",
        0.001,
    )
    yield Claim(
        "energy of a byte from flash over HBM4's",
        BY_HAND,
        2.0,
        "x",
        float(hbf.energy_per_byte / hbm.energy_per_byte),
        "ok",
        "80 over 40 W at equal bandwidth: at most, for theirs is less than 80",
    )
    held = weight_bytes(8, jc.load_model("deepseek-v3"))
    for name, claimed in (("hbf", 2.0), ("hbm4-6400", 14.0)):
        stacks = math.ceil(held / float(loaded[name].capacity))
        yield Claim(
            f"stacks of {name} that hold DeepSeek-V3", BY_HAND, claimed, "stack", stacks, "ok", "8 bits"
        )


def latency() -> Iterator[Claim]:
    def seconds(wait: float) -> float:
        link = jc.Link(bandwidth=ENDLESS, overhead=wait, sram_landing=1)
        system = jc.replace(memory_only(8 * TB), chips=32.0, fabric=jc.Fabric(domain=32.0, scale_up=link))
        return token_seconds(system, jc.load_model("llama-3.1-70b"), tp=32.0)

    without, waiting = seconds(0.0), seconds(LATENCY)
    assumed = f"{LATENCY * 1e6:g} us a message, an assumption"
    yield Claim(
        "70B on 32 chips of 8 TB/s: weights",
        BY_HAND,
        0.55,
        "ms",
        1e3 * without,
        "ok",
        "and copies of key and value heads",
        0.06,
    )
    yield Claim(
        "70B on 32 chips of 8 TB/s: messages",
        BY_HAND,
        0.32,
        "ms",
        1e3 * (waiting - without),
        "ok",
        f"160 of them, {assumed}",
    )
    sent, speed = 2 * 7 / 8 * 2 * 8192, 450 * GB  # of eight chips each sends 7/8 of 16 KB twice
    for what, claimed, unit, ours in (
        ("share of it that is latency", 97.0, "%", 100 * LATENCY / (LATENCY + sent / speed)),
        ("batch at which its bytes take as long", 31.0, "request", LATENCY * speed / sent),
    ):
        why = f"{speed / GB:.0f} GB/s, 8 chips; {assumed}"
        yield Claim(
            f"all-reduce of a 70B layer at batch 1: {what}", BY_HAND, claimed, unit, ours, "ok", why, 0.02
        )
    h100 = jc.load_chip("h100-sxm")
    yield Claim(
        "FLOPs a byte from which an H100 is bound by computing",
        BY_HAND,
        295.0,
        "FLOP/B",
        float(h100.compute.flops_16 / h100.memory.bandwidth),
        "ok",
        "16 bits",
    )
