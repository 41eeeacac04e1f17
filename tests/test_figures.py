"""Small versions of all studies: their numbers, the same bytes every time, pictures that draw, and their page.

The numbers kept in tests/figures are those of `jaxcost figures --small --out DIR`, copied from DIR/data.
"""

import importlib
import json
import math
from pathlib import Path

import pytest

import report
import study
import style
from jaxcost.edge.commands.cli import main

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).parent / "figures"
NAMES = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("[0-9][0-9]_*.py")
    if "from study import" in path.read_text() and 'reads="--measured"' not in path.read_text()
)
SOLVED = ("16_costs", "17_fronts")  # co-design, whose answer is tested to be the same to the bit by itself
TOLERANCE = 2e-3  # of numbers in 32 bits, which searches and steps amplify


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Data and pictures of small versions, each made once."""
    folder, made = tmp_path_factory.mktemp("figures"), {}

    def build(name):
        if name not in made:
            found = importlib.import_module(f"experiments.{name}").study(True)
            study.write(name, found, folder, small=True, seconds=0.0)
            made[name] = found
        return folder

    return build


def differences(kept, found):
    """Say where two tables differ by more than numbers do."""
    if kept["units"] != found["units"] or len(kept["rows"]) != len(found["rows"]):
        return [f"{kept['units']} x {len(kept['rows'])}, now {found['units']} x {len(found['rows'])}"]
    out = []
    for number, (before, after) in enumerate(zip(kept["rows"], found["rows"], strict=True)):
        for column, x, y in zip(kept["units"], before, after, strict=True):
            numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (x, y))
            least = (
                1e-5 if kept["units"][column] == "1" else 0.0
            )  # shares may be differences of larger numbers
            same = math.isclose(x, y, rel_tol=TOLERANCE, abs_tol=least) if numeric else x == y
            if not same:
                out.append(f"row {number}, {column}: {x}, now {y}")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_small_numbers_and_picture(built, name):
    folder = built(name)
    kept, found = (json.loads((path / f"{name}.json").read_text()) for path in (KEPT, folder))
    assert list(kept["tables"]) == list(found["tables"])
    wrong = {key: differences(kept["tables"][key], found["tables"][key]) for key in kept["tables"]}
    assert not any(wrong.values()), {key: lines[:5] for key, lines in wrong.items() if lines}
    assert found["title"] and found["findings"] and found["assumptions"] and found["sources"]
    drawing = ROOT / "figures" / f"{name}.py"
    if drawing.exists():
        draw = importlib.import_module(f"figures.{name}").draw
        pictures = [folder / f"{name}{copy}.svg" for copy in ("", "-again")]
        for picture in pictures:
            with style.mpl.rc_context(style.STYLE):
                style.save(draw(style.read(folder / f"{name}.json")), picture)
        assert pictures[0].read_bytes() == pictures[1].read_bytes()
        assert pictures[0].stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in SOLVED])
def test_same_bytes(built, name):
    first = (built(name) / f"{name}.json").read_text()
    assert study.as_json(importlib.import_module(f"experiments.{name}").study(True)) == first


def test_rounding_and_shape_of_data():
    table = study.Table(
        "a thing", {"name": "", "x": "s"}, [{"name": "a", "x": 1 / 3}, {"name": "b", "x": math.inf}]
    )
    found = study.Study("title", ("one",), ("two",), ("three",), {"things": table})
    assert json.loads(study.as_json(found))["tables"]["things"]["rows"] == [["a", 0.333333], ["b", None]]
    with pytest.raises(AssertionError, match="things"):
        study.as_json(study.Study("t", (), (), (), {"things": study.Table("", {"x": "s"}, [{"y": 1.0}])}))


def test_every_figure_has_its_experiment():
    drawn = {path.stem for path in (ROOT / "figures").glob("[0-9][0-9]_*.py")}
    assert drawn <= {path.stem for path in (ROOT / "experiments").glob("[0-9][0-9]_*.py")}


def test_figures_read_data_only():
    for path in (ROOT / "figures").glob("*.py"):
        assert "import jax" not in path.read_text(), path.name


def test_papers_become_links():
    assert '<a href="https://arxiv.org/abs/2601.05047">' in report.linked("arXiv:2601.05047, Table 3")
    assert report.linked("a < b") == "a &lt; b"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "99"], "'99'"),
        (["--processes", "0"], "from 1"),
        (["--checkout", "nowhere"], "clone"),
        (["--measured", "nowhere"], "folder of measurements"),
    ],
)
def test_bad_input(capsys, given, said):
    assert main(["figures", *given]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_list(capsys):
    assert main(["figures", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(NAMES) < set(listed)
    assert "--measured" in listed["07_calibration"]["left_out"]
