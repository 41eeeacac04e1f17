"""The efficiency in words: what it reaches, and what is outside the rows that a file was fitted to."""

import re
from pathlib import Path

import pytest

import jaxcost as jc
from jaxcost.edge.catalog.parts import list_names, load_part
from jaxcost.edge.commands.efficiency_text import calibrated_files, efficiency_notes, efficiency_of_system
from jaxcost.edge.commands.extrapolation_text import _groups
from jaxcost.edge.commands.request import with_efficiency
from jaxcost.physics.compute.shards import shard
from jaxcost.physics.network.levels import DOMAIN, fabric_levels
from jaxcost.physics.network.messages import plan_groups

ROOT = Path(jc.__file__).parents[1]


def notes(system, efficiency=None, model="llama-3.1-8b", **plan):
    tree = with_efficiency(jc.load_system(system), efficiency, system)
    return efficiency_notes(system, efficiency, tree, jc.load_model(model), jc.Plan(**plan))


def test_ideal_names_the_files_of_the_chip():
    assert calibrated_files("h100-sxm") == ["sglang", "trtllm", "vllm"]
    (line,) = notes("h100-sxm-x8", tp=8)
    assert line.startswith("ideal peaks:")
    assert "--efficiency vllm (or sglang, trtllm)" in line
    assert re.search("no file is fitted to h20; .* is fitted to other hopper chips", notes("h20-x8")[0])
    assert re.search("no file is fitted to b200; .*vllm is fitted to other GPUs", notes("b200-x8")[0])
    assert "no file is fitted to tpu-v5p; --efficiency typical" in notes("tpu-v5p-x4")[0]
    assert "--efficiency vllm (or sglang" in notes("a100-80gb-sxm-x4", "typical")[0]


def test_the_range_in_words_is_that_of_the_validation():
    text = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    median, ninth = (
        float(x) for x in re.search(r"\| plain roofline \| \d+ \| ([\d.]+)% \| ([\d.]+)%", text).groups()
    )
    line = notes("h100-sxm-x8")[0]
    least, most, middle = (
        float(x) for x in re.search(r"reach (\d+)-(\d+)% .* (\d+)% at the median", line).groups()
    )
    assert least == pytest.approx(100 - ninth, abs=1)
    assert middle == pytest.approx(100 - median, abs=1)
    assert middle < most < 100


def test_nothing_is_extrapolated_within_the_fit():
    (line,) = notes("h100-sxm-x8", "h100-sxm-vllm", "llama-3.1-70b", tp=4)
    assert line.startswith("h100-sxm-vllm: kernels of vllm fitted to measurements on a100-80gb-sxm, h100-sxm")
    assert "h100-sxm was measured: held-out shapes are" in line


@pytest.mark.parametrize(
    ("arguments", "plan", "expected"),
    [
        (("h200-sxm-x8", "h100-sxm-vllm"), {}, ["fitted on h100-sxm, used on h200-sxm$"]),
        (("gh200", "h100-sxm-vllm"), {}, ["fitted on h100-sxm, used on gh200$"]),
        (("h20-x8", "h100-sxm-vllm"), {}, ["used on h20; far outside .* 37 FLOP per byte .* against 295"]),
        (("h20-x8", "gpu-sglang"), {}, ["used on h20; far outside .* against 153-419"]),
        (("mi300x-x8", "gpu-vllm"), {}, ["used on mi300x; far outside .*: a chip of another maker"]),
        (("h100-sxm-x8", "h100-sxm-vllm"), {"tp": 8}, []),
        (
            ("h100-sxm-x16", "h100-sxm-vllm"),
            {"tp": 16},
            ["tp 16 spans 2 nodes: .* default latencies, not fitted: 9 us a round"],
        ),
        (("h100-sxm-x16", "h100-sxm-vllm"), {"tp": 4, "pp": 4}, ["pp 4 spans 2 nodes"]),
        (
            ("h100-sxm-x8", "h100-sxm-trtllm", "qwen3-235b-a22b"),
            {"tp": 4, "expert_bits": 4},
            ["experts at 4 bits: fitted to rows of sglang, none of trtllm"],
        ),
        (
            ("h100-sxm-x16", "h100-sxm-vllm", "deepseek-v3"),
            {"tp": 1, "ep": 16, "dp": 16},
            [
                "latent attention with KV at 16 bits: fitted to rows of trtllm, none of vllm",
                "ep 16: messages between nodes fitted to 8 ranks",
            ],
        ),
        (
            ("h100-sxm", "h100-sxm-vllm"),
            {"kv_bits": 4},
            [
                "KV at 4 bits: fitted at 8 bits in 8-bit arithmetic, 8 bits and 16 bits only; the kernel of 8 bits",
                "KV at 4 bits: fitted at 8 bits and 16 bits only; the kernel of 8 bits is used",
            ],
        ),
        (
            ("h100-sxm", "h100-sxm-vllm"),
            {"weight_bits": 4},
            [
                "4-bit weights with 16-bit inputs: fitted to rows of trtllm, none of vllm",
                "4-bit weights with 16-bit inputs: measured on a100-80gb-sxm only",
            ],
        ),
    ],
)
def test_what_is_outside_the_fit_is_said(arguments, plan, expected):
    lines = notes(*arguments, **plan)[1:]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert line.startswith("extrapolated: ")
        assert re.search(pattern, line)


def test_the_efficiency_of_a_system_file_is_used():
    assert efficiency_of_system("h100-sxm-x8", None) == "ideal"
    assert efficiency_of_system("h100-sxm-x8", "typical") == "typical"


@pytest.mark.parametrize(
    "degrees",
    [
        {"tp": 16},
        {"tp": 4, "pp": 4},
        {"tp": 2, "cp": 16},
        {"tp": 8, "ep": 32, "dp": 4},
        {"tp": 2, "ep": 8, "dp": 4, "pp": 2},
        {"ep": 16, "dp": 16},
    ],
)
def test_groups_are_those_of_the_model(degrees):
    system, model, plan = jc.load_system("h100-sxm-x32"), jc.load_model("deepseek-v3"), jc.Plan(**degrees)
    levels = fabric_levels(system.fabric, system.chips)
    placed = plan_groups(plan, shard(model, plan, 0.0), system.fabric, levels)
    rows = {"tp": 0, "cp": 1, "ep": 3}
    for name, _, ranks, inside in _groups(model, plan, system.fabric):
        if name in rows:
            within = placed.within[rows[name], DOMAIN]
            assert (ranks, inside) == pytest.approx((float(placed.ranks[rows[name]]), float(within)))


def test_calibrated_files_say_what_they_rest_on():
    for name in list_names("efficiency"):
        part = load_part("efficiency", name)[0]
        assert bool(part.chips) == bool(part.library) == bool(part.fits)
        messages = [
            fit for fit in part.fits if fit.kernels in ("all_reduce", "collective", "dispatch", "combine")
        ]
        assert all(fit.ranks for fit in messages)
        assert (part.kernels is None) or (part.kernels.internode is not None)
