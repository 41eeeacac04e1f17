"""RPU: time and energy of a token, a plain roofline with weights of 4.25 bits and a cache of 8."""

import functools
from collections.abc import Iterator

import jax

import jaxcost as jc
from claims.common import BY_HAND, PICOJOULE_PER_BIT, Claim, evaluate, memory_only, printed, token_seconds

RPU = "RPU, arXiv:2602.18568"
CONTEXT = 8192
HBM3E_ENERGY = 3.44 * PICOJOULE_PER_BIT  # as stated
BITS = {"weight_bits": 4.25, "kv_bits": 8.0}
LATENCIES = (
    ("llama-3.1-405b", 308, 1.4),
    ("llama-3.1-405b", 428, 1.0),
    ("llama-3.1-70b", 145, 0.5),
    ("llama-3.1-70b", 204, 0.4),
    ("llama-4-maverick", 128, 0.2),
)


def milliseconds(model: str, units: float) -> float:
    """One token on so many units, bandwidth alone."""
    system = memory_only(units * float(jc.load_chip("rpu-cu").memory.bandwidth))
    return 1e3 * token_seconds(system, jc.load_model(model), CONTEXT, **BITS, expert_bits=4.25)


def gpu_milliseconds(model: str, gpus: int) -> float:
    """One token on so many H100s, bandwidth alone."""
    system = memory_only(gpus * float(jc.load_chip("h100-sxm").memory.bandwidth))
    return 1e3 * token_seconds(system, jc.load_model(model), CONTEXT, **BITS)


def rpu() -> Iterator[Claim]:
    for name, count, claimed in LATENCIES:
        ours = milliseconds(name, count)
        tolerance = 0.03 + printed(claimed, 0.1)
        yield Claim(
            f"{name} on {count} units, a token",
            RPU,
            claimed,
            "ms",
            ours,
            "ok" if name.startswith("llama-3.1") else "loose",
            "bandwidth alone: 512 GB/s a unit, 8K context, batch 1"
            + ("; experts at 4.25 bits, without messages" if "maverick" in name else ""),
            tolerance,
        )
    for model, units, gpus, claimed in (("llama-3.1-405b", 308, 4, 45.3), ("llama-3.1-70b", 145, 2, 47.0)):
        speedup = gpu_milliseconds(model, gpus) / milliseconds(model, units)
        yield Claim(
            f"{model[10:].upper()}, {units} units against {gpus} H100",
            RPU,
            claimed,
            "x",
            speedup,
            "loose",
            f"a GPU that reaches {speedup / claimed:.0%} of its bandwidth; they measured 32% at batch 32",
            baseline_share=speedup / claimed,
        )
    speedup = gpu_milliseconds("llama-3.1-405b", 4) / milliseconds("llama-3.1-405b", 308)
    unit, h100 = (float(jc.load_chip(name).memory.bandwidth) for name in ("rpu-cu", "h100-sxm"))
    yield Claim(
        "RPU's 45.3 times: of which bandwidth",
        BY_HAND,
        11.8,
        "x",
        308 * unit / (4 * h100),
        "ok",
        "equal thermal design power",
    )
    yield Claim(
        "RPU's 45.3 times: of which utilisation",
        BY_HAND,
        3.85,
        "x",
        45.3 / speedup,
        "ok",
        "what is left of their ratio; an ideal GPU has none of it",
        0.02,
    )
    yield Claim(
        "bandwidth of 308 units",
        RPU,
        154.0,
        "TB/s",
        308 * unit / 1e12,
        "loose",
        "301 units, or 500 GB/s a unit",
    )
    yield Claim(
        "70B on 200 units, 1.8 tokens a step",
        RPU,
        4423.0,
        "tok/s",
        1.8e3 / milliseconds("llama-3.1-70b", 200),
        "ok",
        "verifying eight tokens costs what one does",
        0.1,
    )


@functools.cache
def pooled(chip: str, count: float, energy: float = 0.0) -> jc.Report:
    """A token of 405B on one chip that is as much as several: no messages; with another energy of a byte if given."""
    one = jc.load_chip(chip)
    memory = jc.replace(
        one.memory,
        bandwidth=one.memory.bandwidth * count,
        capacity=one.memory.capacity * count,
        idle_power=one.memory.idle_power * count,
        energy_per_byte=energy or one.memory.energy_per_byte,
    )
    compute = jax.tree.map(lambda rate: rate * count, one.compute)
    whole = jc.replace(one, memory=memory, compute=compute, idle_power=one.idle_power * count)
    traffic = jc.Traffic(prompt=CONTEXT, output=2)
    return evaluate(jc.System(chip=whole), jc.load_model("llama-3.1-405b"), traffic, jc.Plan(**BITS))


def step_joules(report: jc.Report) -> float:
    """Energy of a decode step of one request, chips alone."""
    return float(report.power.decode * report.tpot)


def rpu_energy() -> Iterator[Claim]:
    gpus, units = pooled("h100-sxm", 4), pooled("rpu-cu", 308)
    ratio = step_joules(gpus) / step_joules(units)
    yield Claim(
        "energy of a token, four H100 over 308 units",
        RPU,
        6.5,
        "x",
        ratio,
        "loose",
        f"a decode step on chips of the catalogue, {step_joules(gpus):.0f} J over {step_joules(units):.1f} J; the "
        "source does not state its system",
    )
    dear = step_joules(pooled("rpu-cu", 308, HBM3E_ENERGY)) / step_joules(units)
    yield Claim(
        "energy of a token, with HBM3e over without",
        RPU,
        2.2,
        "x",
        dear,
        "loose",
        "3.44 against 1.45 pJ/bit; on chips of the catalogue memory is a smaller part of the energy",
    )
    ideal = float(gpus.tpot / pooled("rpu-cu", 428).tpot)
    yield Claim(
        "energy x delay, 4 H100 over 428: their ratios",
        RPU,
        412.0,
        "x",
        6.5 * 45.3 * milliseconds("llama-3.1-405b", 308) / milliseconds("llama-3.1-405b", 428),
        "ok",
        "6.5 x 45.3 x the time on 308 over that on 428 units: arithmetic on their own ratios",
        0.02,
    )
    yield Claim(
        "energy x delay, 4 H100 over 428 units: ours",
        RPU,
        412.0,
        "x",
        ideal * step_joules(gpus) / step_joules(pooled("rpu-cu", 428)),
        "no",
        f"an ideal GPU is only {ideal:.1f} times as slow, not 63 times",
    )
    for what, power, gpu_share, why in (
        (
            "prefill",
            634.2,
            {"matmul": 0.703},
            "70.3% of the 8-bit peak; without an eye to what else moves on the chip",
        ),
        ("decode", 239.9, {"memory": 0.322}, "a fit: what the catalogue's energy of a byte was taken from"),
    ):
        system = jc.load_system("h100-sxm-x4")
        chip = jc.replace(system.chip, efficiency=jc.Efficiency(**gpu_share))
        report = evaluate(
            jc.replace(system, chip=chip),
            jc.load_model("llama-3.1-70b"),
            jc.Traffic(prompt=16384, output=2048, batch=32),
            jc.Plan(tp=4, weight_bits=8, kv_bits=8, activation_bits=8),
        )
        yield Claim(
            f"power of an H100 in {what}, 70B at 8 bits",
            RPU,
            power,
            "W",
            float(getattr(report.power, what)),
            "loose",
            why,
        )
