"""RPU: memory with few bytes and much bandwidth, compared with other chips."""

from collections.abc import Iterator

import jaxcost as jc
from claims.common import GB, SOLD, Claim
from claims.rpu import HBM3E_ENERGY, RPU

# Stated beside them: HBM3e of 1,280 GB/s, 48 GB a stack; the candidate costs 1.81 times as much a byte.
HBM3E = {"bandwidth": 1280 * GB, "capacity": 48 * GB}
PRICIER = 1.81


def rpu_memory() -> Iterator[Claim]:
    candidate = jc.load_memory("hbm-co")
    speed, room = float(candidate.bandwidth), float(candidate.capacity)
    picojoules = float(candidate.energy_per_byte) * 1e12 / 8
    per_bandwidth = (HBM3E["capacity"] / HBM3E["bandwidth"]) / (PRICIER * room / speed)
    for name, claimed, unit, ours, verdict, why, tolerance in (
        (
            "bandwidth over capacity of HBM3e",
            27.0,
            "1/s",
            HBM3E["bandwidth"] / HBM3E["capacity"],
            "ok",
            "1,280 GB/s over 48 GB",
            0.02,
        ),
        (
            "bandwidth over capacity of the candidate",
            341.0,
            "1/s",
            speed / room,
            "ok",
            "256 GB/s over 768 MB",
            0.03,
        ),
        (
            "energy of a bit, HBM3e over the candidate",
            2.4,
            "x",
            HBM3E_ENERGY / float(candidate.energy_per_byte),
            "ok",
            "3.44 over 1.45 pJ",
            0.02,
        ),
        (
            "power of 512 GB/s of it",
            6.7,
            "W",
            2 * speed * picojoules * 8e-12,
            "no",
            "1.45 pJ/bit at full bandwidth is 13% less",
            0.01,
        ),
        (
            "size of a stack, HBM3e over the candidate",
            192.0,
            "x",
            HBM3E["capacity"] / room,
            "no",
            "48 GB over 0.75 GB",
            0.01,
        ),
        (
            "price of a stack, HBM3e over the candidate",
            35.0,
            "x",
            HBM3E["capacity"] / room / PRICIER,
            "ok",
            "64 times the bytes at 1/1.81 of the price a byte: 192 would make it 106",
            0.03,
        ),
        (
            "bandwidth a dollar, the candidate over HBM3e",
            5.0,
            "x",
            per_bandwidth,
            "no",
            "35 times cheaper at a fifth of the bandwidth is seven times",
            0.01,
        ),
        (
            "cost with HBM3e over with the candidate",
            12.4,
            "x",
            per_bandwidth,
            "loose",
            f"memory alone at equal bandwidth; with a whole stack a unit of 1.5 GB memory is {HBM3E['capacity'] / (2 * room) / PRICIER:.1f} times as dear",
            0.01,
        ),
        (
            "HBM3e in use at 1,000 sweeps a second",
            2.7,
            "%",
            100 * HBM3E["bandwidth"] / HBM3E["capacity"] / 1000,
            "ok",
            "available over required bandwidth a byte",
            0.02,
        ),
        (
            "HBM3e in use at 341 sweeps a second",
            7.9,
            "%",
            100 * HBM3E["bandwidth"] / HBM3E["capacity"] / (speed / room),
            "ok",
            "the same, at the candidate's",
            0.03,
        ),
    ):
        yield Claim(name, RPU, claimed, unit, ours, verdict, why, tolerance)
    for chip, sweeps, intensity, verdict, why in (
        ("h200-sxm", 34.0, 206.0, "ok", ""),
        ("sn40l", 25.0, 399.0, "ok", ""),
        ("groq-lpu-v1", 355e3, 2.4, "ok", ""),
        ("wse-3", 477e3, 6.0, "no", ": 15.8 PFLOP/s dense; theirs are 125, which count zeros"),
        ("rpu-cu", 500.0, 32.0, "loose", ": where a unit has 1 of its 1 to 24 GB; the catalogue takes 8"),
    ):
        loaded = jc.load_chip(chip)
        memory, capacity = loaded.memory, SOLD.get(chip, loaded.memory.capacity)
        for what, claimed, unit, ours in (
            ("bandwidth over capacity", sweeps, "1/s", memory.bandwidth / capacity),
            ("16-bit operations a byte", intensity, "FLOP/B", loaded.compute.flops_16 / memory.bandwidth),
        ):
            same = abs(float(ours) / claimed - 1) < 0.03
            yield Claim(
                f"{chip}: {what}",
                RPU,
                claimed,
                unit,
                float(ours),
                "ok" if same else verdict,
                f"data sheet{'' if same else why}",
                0.03,
            )
