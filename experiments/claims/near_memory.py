"""Engines beside memory: how large their shards are, and what logic below a stack saves."""

from collections.abc import Iterator

import jaxcost as jc
from claims.common import BY_HAND, GB, PAPER, Claim, evaluate
from jaxcost.physics.memory.near_memory import units


def shards() -> Iterator[Claim]:
    def count(capacity: float, shard: float) -> float:
        near = jc.NearMemory(bandwidth=1.0, shard=shard)
        return float(units(jc.Memory(capacity=capacity, bandwidth=1.0, near=near)))

    for large, small, verdict in (
        (32 * GB, 0.032 * GB, "ok"),
        (16 * GB, 0.032 * GB, "no"),
        (32 * GB, 0.064 * GB, "no"),
    ):
        yield Claim(
            f"a shard of {large / GB:.0f} GB over a bank of {small / 1e6:.0f} MB",
            PAPER,
            1000.0,
            "x",
            count(large, small),
            verdict,
            "text and Table 4 differ by two: only its largest over its smallest is 1000",
        )
    for shard, claimed, kind in (
        (0.064 * GB, 2190.0, "banks of 64 MB"),
        (0.032 * GB, 4375.0, "banks of 32 MB"),
        (32 * GB, 4.4, "stacks of 32 GB"),
        (16 * GB, 8.8, "stacks of 16 GB"),
    ):
        yield Claim(
            f"70B at 16 bits over {kind}", BY_HAND, claimed, "shard", count(140 * GB, shard), "ok", "140 GB"
        )


def base_die() -> Iterator[Claim]:
    model, traffic = jc.load_model("llama-3.1-8b"), jc.Traffic(batch=4)
    system = jc.load_system("h100-sxm-x8")

    def run(energy: float) -> jc.Report:
        return evaluate(jc.replace_at(system, "chip.stacking.energy", energy), model, traffic, jc.Plan())

    before = run(1.0)
    for saving in (2, 3):
        after = run(1 / saving)
        yield Claim(
            f"base die at 1/{saving} of the energy: time",
            PAPER,
            1.0,
            "x",
            float(after.tpot / before.tpot),
            "ok",
            "the bandwidth of the stack is what it was",
            0.0,
        )
        yield Claim(
            f"base die at 1/{saving} of the energy: power",
            PAPER,
            1 / saving,
            "x",
            float(after.energy.chips / before.energy.chips),
            "loose",
            "if their power is that of reading alone, way to the engines included; idling and the engines draw as before",
        )
    stacks = jc.add_tier(system, "memory", "hbm4", stacks=5)
    without = evaluate(stacks, model, traffic, jc.Plan())
    inside = jc.add_near(stacks, "memory", "hbm4-base-die")
    for slack, verdict, why in (
        (0.0, "no", "nothing runs there: at the same bandwidth 0.2 us a command make it slower"),
        (
            0.05,
            "loose",
            "where an operator may take 5% longer; more than halved, for no byte crosses the chip",
        ),
    ):
        placement = jc.Placement(near_slack=slack)
        within = evaluate(inside, model, traffic, jc.Plan(placement=placement))
        yield Claim(
            f"engines in a base die, slack {slack:.0%}: energy",
            PAPER,
            0.5,
            "x",
            float(within.energy.memory / without.energy.memory),
            verdict,
            f"{why}; a token takes {float(within.tpot / without.tpot):.3f} times as long",
        )
