"""Efficiency files of a library, whose numbers follow the chip of the system."""

import re
from pathlib import Path

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.catalog import loaders, parts
from jaxcost.edge.catalog.efficiency import write_engine
from jaxcost.edge.catalog.parts import architecture_of, list_names, load_part, provenance
from jaxcost.edge.catalog.reading import configs_root
from jaxcost.edge.catalog.uncertain import uncertain
from jaxcost.edge.commands.cli import main
from jaxcost.edge.commands.efficiency_text import calibrated_files, efficiency_notes
from jaxcost.edge.commands.request import with_efficiency
from jaxcost.edge.io.errors import InputError
from jaxcost.explore.calibrate import ServingInterval

GENERAL, AMPERE, HOPPER, H100 = 4e-6, 5e-6, 3e-6, 2e-6
ENTRY = "{{value: {0}, low: {1}, high: {2}, source: rows, date: '2026-11-30', kind: measured{3}}}"
SHARE = ENTRY.format("0.8", "0.7", "0.9", "")
BY = ", by: {ampere: [5 us, 4 us, 6 us], hopper: [3 us, 2 us, 4 us], h100-sxm: [2 us, 1.9 us, 2.1 us]}"
FIT = (
    "{kernels: matmul, bits: bits_16, library: vllm 0.12, rows: 600, held_out: n and k, folds: 6, median: 0.03, "
    "ninth: 0.1, chips: [h100-sxm, a100-80gb-sxm], generations: [ampere, hopper], shapes: [-0.06, 0.05], "
    "chip: [-0.1, 0.11], generation: [-0.2, 0.3], medians: {shapes: 0.03, chip: 0.06, generation: 0.17}, "
    "ninths: {shapes: 0.1, chip: 0.2, generation: 0.4}, covers: {shapes: 0.79, chip: 0.77}, "
    "source: rows, date: '2026-11-30'}"
)


def text(by=BY, fit=FIT):
    shares = "".join(f"{name}: {SHARE}\n" for name in ("matmul", "vector", "memory", "link"))
    launch = ENTRY.format("4 us", "2 us", "8 us", by)
    overhead = ENTRY.format("0 s", "0 s", "0 s", "")
    return (
        f"title: vllm on GPUs\nlibrary: vllm\nchips: [a100-80gb-sxm, h100-sxm]\n{shares}operator_overhead: {overhead}\n"
        f"kernels:\n  matmul:\n    bits_16:\n      launch: {launch}\nfits:\n- {fit}\n"
    )


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """A catalogue whose efficiency files are ideal, typical, a library and a file of one chip."""
    root = tmp_path / "configs"
    root.mkdir()
    for folder in configs_root().iterdir():
        if folder.name != "efficiency":
            (root / folder.name).symlink_to(folder)
    made = root / "efficiency"
    made.mkdir()
    for name in ("ideal", "typical"):
        (made / f"{name}.yaml").write_text((configs_root() / "efficiency" / f"{name}.yaml").read_text())
    (made / "vllm.yaml").write_text(text())
    one = (
        text(by="")
        .replace("chips: [a100-80gb-sxm, h100-sxm]", "chips: [l40s]")
        .replace("value: 4 us", "value: 7 us")
    )
    (made / "l40s-vllm.yaml").write_text(one)
    for module in (parts, loaders, "jaxcost.edge.commands.efficiency_text"):
        where = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{where}.configs_root", lambda: root)
    return made


def launch(efficiency):
    return float(efficiency.kernels.matmul.bits_16.launch)


@pytest.mark.parametrize(
    ("name", "chip", "seconds"),
    [
        ("vllm", None, GENERAL),
        ("vllm", "h100-sxm", H100),
        ("vllm", "h100", H100),
        ("vllm", "h200-sxm", HOPPER),
        ("vllm", "a100-40gb-sxm", AMPERE),
        ("vllm", "b200", GENERAL),
        ("vllm", "mi300x", GENERAL),
        ("gpu-vllm", None, GENERAL),
        ("gpu-vllm", "h200-sxm", HOPPER),
        ("h100-sxm-vllm", None, H100),
        ("h100-sxm-vllm", "b200", H100),
        ("h100-vllm", "b200", H100),
        ("h200-sxm-vllm", "a100-80gb-sxm", HOPPER),
        ("hopper-vllm", "h100-sxm", HOPPER),
        ("blackwell-vllm", "h100-sxm", GENERAL),
        ("l40s-vllm", "h100-sxm", 7e-6),  # a file goes before an alias
    ],
)
def test_the_numbers_follow_the_chip(catalogue, name, chip, seconds):
    assert launch(jc.load_efficiency(name, chip)) == pytest.approx(seconds)
    # 8 bits were not measured: the numbers of 16, of the same chip.
    assert float(jc.load_efficiency(name, chip).kernels.matmul.bits_8.launch) == pytest.approx(seconds)


def test_systems_take_the_numbers_of_their_chip(catalogue, tmp_path):
    assert launch(jc.load_system("h100-sxm-x8", efficiency="vllm").chip.efficiency) == pytest.approx(H100)
    assert launch(jc.load_system("dgx-a100", efficiency="vllm").chip.efficiency) == pytest.approx(AMPERE)
    assert launch(jc.load_chip("gh200", efficiency="vllm").efficiency) == pytest.approx(HOPPER)
    assert launch(
        with_efficiency(jc.load_system("dgx-h100"), "vllm", "dgx-h100").chip.efficiency
    ) == pytest.approx(H100)
    own = tmp_path / "mine.yaml"
    own.write_text((configs_root() / "chips" / "h200-sxm.yaml").read_text())
    assert launch(jc.load_chip(str(own), efficiency="vllm").efficiency) == pytest.approx(HOPPER)
    own.write_text(own.read_text().replace("architecture: hopper\n", ""))
    assert launch(jc.load_chip(str(own), efficiency="vllm").efficiency) == pytest.approx(GENERAL)


def test_a_space_takes_the_numbers_of_every_system(catalogue, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("title: two\nsystems: [h100-sxm-x8, b200-x8]\nmodels: [llama-3.1-8b]\nefficiency: vllm\n")
    found = jc.load_space(str(path)).base.system.chip.efficiency.kernels.matmul.bits_16.launch
    assert found.tolist() == pytest.approx([H100, GENERAL])


def test_an_axis_of_efficiencies_needs_one_chip(catalogue, tmp_path):
    path = tmp_path / "space.yaml"
    space = "title: one\nsystems: [{}]\nmodels: [llama-3.1-8b]\nefficiency: vllm\naxes:\n  system.chip.efficiency: [vllm, {}]\n"
    path.write_text(space.format("h100-sxm-x8, dgx-h100", "gpu-vllm"))
    (axis,) = (a for a in jc.load_space(str(path)).axes if a.path == "system.chip.efficiency")
    assert axis.trees.kernels.matmul.bits_16.launch.tolist() == pytest.approx([H100, H100])
    path.write_text(space.format("h100-sxm-x8, b200-x8", "hopper-vllm"))
    with pytest.raises(
        InputError,
        match=r"got 'vllm, which differs on b200'; expected systems of one chip, or .*h100-sxm-vllm",
    ):
        jc.load_space(str(path))


def test_an_unknown_chip_of_a_file_is_an_error(catalogue, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text(by=", by: {hoper: 3 us}"))
    with pytest.raises(
        InputError, match=r"kernels.matmul.bits_16.launch.by: got 'hoper'; .* did you mean 'hopper'\?"
    ):
        jc.load_efficiency(str(path))
    path.write_text(text(by=", by: {my-chip: 3 us}").replace("chips: [a100-80gb-sxm", "chips: [my-chip"))
    assert launch(jc.load_efficiency(str(path), "h100-sxm")) == pytest.approx(GENERAL)
    own = tmp_path / "my-chip.yaml"
    own.write_text((configs_root() / "chips" / "h200-sxm.yaml").read_text())
    assert launch(jc.load_efficiency(str(path), str(own))) == pytest.approx(3e-6)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (
            ", by: {hopper: [1 us, 2 us]}",
            r"launch.by.hopper: got .*; expected a value, or \[value, low, high\]",
        ),
        (", by: [1 us]", "launch.by: .*expected names of chips and architectures"),
        (
            ", by: {hopper: [1 us, 2 us, 3 us]}",
            "launch.by.hopper.low: got '2 us'; expected low <= value <= high",
        ),
        (", by: {hopper: 1 GB}", "launch.by.hopper.value: got '1 GB'"),
        (", by: {hopper: -1 us}", "launch.by.hopper.value: got '-1 us'; expected"),
    ],
)
def test_errors_name_the_entry(tmp_path, by, said):
    path = tmp_path / "own.yaml"
    path.write_text(text(by=by))
    with pytest.raises(InputError, match=said):
        jc.load_efficiency(str(path), "h100-sxm")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("vlm", "vllm"),
        ("h100-vlm", "h100-vllm"),
        ("hoper-vllm", "hopper-vllm"),
        ("h200-sxn-vllm", "h200-sxm-vllm"),
    ],
)
def test_misspelled_names_get_the_nearest(catalogue, name, suggestion):
    with pytest.raises(InputError, match=f"did you mean '{suggestion}'"):
        jc.load_efficiency(name, "h100-sxm")


def test_intervals_are_those_of_the_chosen_entry(catalogue):
    def of(system, efficiency):
        constants, _ = uncertain(
            lambda: (jc.load_system(system, efficiency=efficiency), jc.load_prices("default"))
        )
        (one,) = (c for c in constants if "matmul.bits_16.launch" in c.name)
        return one.name.split("launch")[1], one.low, one.mid, one.high

    assert of("h100-sxm-x8", "vllm") == (".by.h100-sxm", *map(pytest.approx, (1.9e-6, 2e-6, 2.1e-6)))
    assert of("h200-sxm-x8", "gpu-vllm") == (".by.hopper", *map(pytest.approx, (2e-6, 3e-6, 4e-6)))
    assert of("b200-x8", "vllm") == ("", *map(pytest.approx, (2e-6, 4e-6, 8e-6)))


def test_listing(catalogue, capsys):
    assert list_names("efficiency") == ["ideal", "l40s-vllm", "typical", "vllm"]
    by_path = {path: value for path, value, *_ in provenance("efficiency", "vllm")}
    assert by_path["kernels.matmul.bits_16.launch"] == "4 us"
    assert by_path["kernels.matmul.bits_16.launch.by.hopper"] == "3 us"
    (of_chip,) = (e for e in provenance("efficiency", "h100-sxm-vllm") if "launch" in e[0])
    assert of_chip[1:3] + of_chip[6:] == ("2 us", "s", "1.9 us", "2.1 us")
    assert main(["list", "efficiency"]) == 0
    assert "vllm" in capsys.readouterr().out
    assert main(["list", "chips", "h200-sxm"]) == 0
    assert "Architecture hopper" in capsys.readouterr().out


def test_every_chip_has_an_architecture():
    assert all(architecture_of(name) for name in list_names("chips"))
    # A name of both is unambiguous where it is the chip's own architecture.
    both = set(parts.architectures()) & set(parts.known("chips"))
    assert all(architecture_of(name) == name for name in both)


def notes(system, efficiency, **plan):
    tree = with_efficiency(jc.load_system(system), efficiency, system)
    return efficiency_notes(system, efficiency, tree, jc.load_model("llama-3.1-8b"), jc.Plan(**plan))


@pytest.mark.parametrize(
    ("system", "efficiency", "said"),
    [
        ("h100-sxm-x8", "vllm", "h100-sxm was measured: held-out shapes are 3% off .* within -6% to .5%"),
        (
            "h200-sxm-x8",
            "vllm",
            "h200-sxm was not measured, other hopper chips were: held-out chips are 6%",
        ),
        ("h200-sxm-x8", "h100-vllm", "h200-sxm with the numbers of h100-sxm was not measured, other hopper"),
        (
            "b200-x8",
            "vllm",
            "generation blackwell was not measured: these are the library's means; held-out generations are "
            r"17% off \(medians\), 80% of times within -18% to \+35% of the prediction",
        ),
    ],
)
def test_the_line_says_what_was_measured(catalogue, system, efficiency, said):
    assert re.search(said, notes(system, efficiency)[0]), notes(system, efficiency)[0]


def test_hints_name_libraries(catalogue):
    assert calibrated_files("h100-sxm") == ["vllm"]
    assert calibrated_files("l40s") == ["l40s-vllm"]
    assert "--efficiency vllm is fitted to measurements of this chip" in notes("h100-sxm-x8", None)[0]
    assert (
        "no file is fitted to gh200; --efficiency vllm is fitted to other hopper chips"
        in notes("gh200", None)[0]
    )
    assert (
        "no file is fitted to b200; --efficiency vllm is fitted to other GPUs together"
        in notes("b200", None)[0]
    )


def test_a_chip_of_another_maker_is_far(catalogue):
    assert "held-out generations of NVIDIA are 17% off" in notes("mi300x-x8", "vllm")[0]
    assert "held-out generations are 17% off" in notes("b200-x8", "vllm")[0]
    (line,) = (n for n in notes("mi300x-x8", "vllm")[1:] if "used on mi300x" in n)
    assert "a chip of another maker than NVIDIA, of whom nothing was measured" in line
    assert "AMD GPUs take 2-3 times the predicted time" in line
    (line,) = (n for n in notes("tpu-v5p-x4", "vllm")[1:] if "used on tpu-v5p" in n)
    assert "another maker" in line and "AMD" not in line
    (line,) = (n for n in notes("h20-x8", "vllm")[1:] if "used on h20" in n)
    assert "37 FLOP per byte of memory bandwidth against 153-295" in line


def test_a_fit_without_interval_is_an_error(tmp_path):
    path = tmp_path / "own.yaml"
    bare = FIT.replace("shapes: [-0.06, 0.05], chip: [-0.1, 0.11], generation: [-0.2, 0.3], ", "")
    path.write_text(text(fit=bare))
    with pytest.raises(InputError, match=r"fits.1: .*expected low and high, or an interval"):
        load_part("efficiency", str(path))
    path.write_text(text(fit=FIT.replace("shapes: [-0.06, 0.05]", "shapes: [-0.06]")))
    with pytest.raises(InputError, match=r"fits.1.shapes: got .*; expected \[low, high\]"):
        load_part("efficiency", str(path))


def test_a_missing_circumstance_takes_the_wider_interval(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text(fit=FIT.replace("chip: [-0.1, 0.11], ", "")))
    (fit,) = load_part("efficiency", str(path))[0].fits
    assert fit.interval("chip") == (-0.2, 0.3)
    assert fit.interval("shapes") == (-0.06, 0.05)
    assert [
        fit.circumstance(keys)
        for keys in (("h100-sxm", "hopper"), ("gh200", "hopper"), ("b200", "blackwell"))
    ] == [
        "shapes",
        "chip",
        "generation",
    ]


def test_old_files_still_load():
    for path in sorted(Path(configs_root() / "efficiency").glob("*.yaml")):
        part = load_part("efficiency", path.stem)[0]
        for fit in part.fits:
            assert fit.interval("shapes") is not None


def test_errors_of_serving_are_written_and_read(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text())
    made = ServingInterval(low=-0.1, high=0.2, median=0.07, ninth=0.3, rows=82, models=5, covered=0.75)
    few = ServingInterval(low=-0.1, high=0.2, median=0.07, ninth=0.3, rows=8, models=2, covered=np.nan)
    constants = {"layer": (5e-6, 4e-6, 6e-6)}
    write_engine(
        path,
        constants,
        (0.9, 0.8, 1.0),
        "served times",
        date="2026-11-30",
        serving={"tpot": made, "ttft": few},
    )
    one, other = load_part("efficiency", str(path))[0].serving
    assert (one.metric, one.low, one.high, one.models, one.covered) == ("tpot", -0.1, 0.2, 5, 0.75)
    assert (other.metric, other.covered) == ("ttft", None)
    efficiency = jc.load_efficiency(str(path), "h100-sxm")
    assert float(efficiency.kernels.engine.layer) == pytest.approx(5e-6)
    assert launch(efficiency) == pytest.approx(H100)


@pytest.mark.parametrize(
    ("internode", "ranks", "said"),
    [
        ("", 16, "ep 16 spans 2 nodes: messages between nodes take the ideal latencies"),
        ("\n    internode_round: " + ENTRY.format("9 us", "5 us", "20 us", ""), 16, None),
        (
            "\n    internode_round: " + ENTRY.format("9 us", "5 us", "20 us", ""),
            32,
            "fitted to 8 and 16 ranks",
        ),
    ],
)
def test_exchanges_measured_over_nodes_are_not_extrapolated(tmp_path, internode, ranks, said):
    path = tmp_path / "own.yaml"
    share = ENTRY.format("0.8", "0.7", "0.9", "")
    fit = FIT.replace("kernels: matmul, bits: bits_16", "kernels: dispatch, bits: '', ranks: [8, 16]")
    path.write_text(text(fit=fit).replace("\nfits:", f"\n  dispatch:\n    share: {share}{internode}\nfits:"))
    system = f"h100-sxm-x{ranks}"
    tree = with_efficiency(jc.load_system(system), str(path), system)
    plan = jc.Plan(tp=1, ep=ranks, dp=ranks)
    lines = efficiency_notes(system, str(path), tree, jc.load_model("deepseek-v3"), plan)
    found = [line for line in lines if "nodes" in line]
    assert (found == []) if said is None else said in found[0]
