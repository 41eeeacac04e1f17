"""TerEffic: ternary weights on an FPGA of 460 GB/s, batch 1, decoder layers only."""

from collections.abc import Iterator

import jaxcost as jc
from claims.common import DECODE, GB, Claim, dense, evaluate, memory_only, token_seconds

TEREFFIC = "TerEffic, arXiv:2502.16473"
U280 = 460 * GB  # B/s
JETSON = 68.29 * GB  # B/s, of the Orin Nano that they compare
SPEED, POWER = 727.0, 46.0  # token/s and W of the 2.7B model, measured


def tereffic() -> Iterator[Claim]:
    for parameters, measured, version in ((2.7e9, SPEED, 2), (1.3e9, 1489.0, 2), (2.7e9, 521.0, 1)):
        roof = 1 / token_seconds(memory_only(U280), dense(parameters), weight_bits=1.6)
        yield Claim(
            f"{parameters / 1e9:g}B on 460 GB/s, version {version}",
            TEREFFIC,
            measured,
            "tok/s",
            roof,
            "loose",
            f"1.6 bits; they reach {measured / roof:.0%} of this roof, which no input explains",
        )
    a100 = jc.load_system("a100-80gb-pcie")
    roof = 1 / token_seconds(memory_only(float(a100.chip.memory.bandwidth)), dense(2.7e9), weight_bits=4)
    share = SPEED / 3 / roof
    yield Claim(
        "2.7B against an A100 with 4-bit weights",
        TEREFFIC,
        3.0,
        "x",
        SPEED / roof,
        "loose",
        f"their A100 reaches {share:.0%} of its own roof of {roof:,.0f} tok/s: starting kernels, not memory",
        baseline_share=share,
    )
    slow = jc.replace_at(a100, "chip.efficiency.memory", share)
    report = evaluate(slow, dense(2.7e9), DECODE, jc.Plan(weight_bits=4))
    watts = float(report.power.decode)
    yield Claim(
        "tokens a joule against that A100",
        TEREFFIC,
        8.0,
        "x",
        SPEED / POWER / (SPEED / 3 / watts),
        "loose",
        f"an A100 at {share:.0%} of its bandwidth draws {watts:.0f} W here; theirs draws "
        f"{8 * POWER / 3:.0f} W by their two ratios",
    )
    roof = 1 / token_seconds(memory_only(JETSON), dense(370e6), weight_bits=8)
    yield Claim(
        "370M on chip against a Jetson, 8 bits",
        TEREFFIC,
        192.0,
        "x",
        16300 / roof,
        "loose",
        f"their measured 16,300 tok/s, whose inputs are not stated, over a Jetson at {16300 / 192 / roof:.0%} of its roof",
        baseline_share=16300 / 192 / roof,
    )
