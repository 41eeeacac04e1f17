"""Small versions of all studies: their numbers, the same bytes every time, pictures that draw, and their page.

The numbers kept in tests/figures are those of `jaxcost figures --small --out DIR`, copied from DIR/data.
"""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import report
import study
import style
from jaxcost.core.program import execution
from jaxcost.edge.commands.cli import main

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).parent / "figures"
NAMES = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("[0-9][0-9]_*.py")
    if "from study import" in path.read_text() and 'reads="--measured"' not in path.read_text()
)
SOLVED = ("16_costs", "17_fronts")  # co-design, whose answer is tested to be the same to the bit by itself
# Of every kind of study one is made twice: a sweep, a search of plans, designs one by one.
TWICE = ("05_phones", "18_agents", "23_explorer")


def exhaustive(names, always):
    return [n if n in always else pytest.param(n, marks=pytest.mark.exhaustive) for n in names]


TOLERANCE = 2e-3  # of numbers in 32 bits, which searches and steps amplify


@pytest.fixture(autouse=True)
def _interpreted():
    """Small studies are over before a compiler would be."""
    with execution("interpret"):
        yield


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
@pytest.mark.parametrize("name", exhaustive(NAMES, set(NAMES) - set(SOLVED)))
def test_small_numbers_and_picture(built, name):
    folder = built(name)
    kept, found = (json.loads((path / f"{name}.json").read_text()) for path in (KEPT, folder))
    assert list(kept["tables"]) == list(found["tables"])
    wrong = {key: differences(kept["tables"][key], found["tables"][key]) for key in kept["tables"]}
    assert not any(wrong.values()), {key: lines[:5] for key, lines in wrong.items() if lines}
    assert found["title"] and found["findings"] and found["assumptions"] and found["sources"]
    if has_picture(name):
        assert len(picture_of(folder, name)) > 10_000


def has_picture(name):
    return (ROOT / "figures" / f"{name}.py").exists()


def picture_of(folder, name):
    """Draw the picture of a study, and return its bytes."""
    draw = importlib.import_module(f"figures.{name}").draw
    with style.mpl.rc_context(style.STYLE):
        style.save(draw(style.read(folder / f"{name}.json")), folder / f"{name}.svg")
    return (folder / f"{name}.svg").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", exhaustive([name for name in NAMES if name not in SOLVED], TWICE))
def test_same_bytes(built, name):
    first = (built(name) / f"{name}.json").read_text()
    assert study.as_json(importlib.import_module(f"experiments.{name}").study(True)) == first
    if has_picture(name):
        assert picture_of(built(name), name) == picture_of(built(name), name)


def rebuild(name, out, *options):
    """Run an experiment and its figure as scripts."""
    for folder, more in (
        ("experiments", ["--out", str(out), *options]),
        ("figures", ["--data", str(out), "--out", str(out)]),
    ):
        command = [sys.executable, f"{folder}/{name}.py", *more]
        subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    assert (out / f"{name}.svg").stat().st_size > 10_000


@pytest.mark.slow
def test_scripts_run_by_themselves(built, tmp_path):
    rebuild("09_history", tmp_path, "--small")
    assert (tmp_path / "09_history.json").read_bytes() == (
        built("09_history") / "09_history.json"
    ).read_bytes()


@pytest.fixture(params=["small", pytest.param("full", marks=pytest.mark.exhaustive)])
def tables(request, built, tmp_path):
    """Rows of the tables of a study: of its small version, or of all of it, run as scripts."""

    def of(name):
        folder = tmp_path
        if request.param == "small":
            folder = built(name)
        else:
            rebuild(name, folder)
        found = json.loads((folder / f"{name}.json").read_text())["tables"]
        return {
            key: [dict(zip(table["units"], row, strict=True)) for row in table["rows"]]
            for key, table in found.items()
        }

    return of


@pytest.mark.slow
def test_scaling(tables):
    rows = tables("02_scaling")["designs"]
    today, soon = (
        {(r["model"], r["chips"], r["batch"]): r for r in rows if r["fabric"] == fabric}
        for fabric in ("today", "fast")
    )
    for key, row in today.items():
        assert soon[key]["message"] < row["message"]
        assert soon[key]["tpot"] <= row["tpot"]
        assert (row["message_share"] == 0) == (row["chips"] == 1)
        assert 1 <= row["speedup"] <= row["chips"]


@pytest.mark.slow
def test_directions(tables):
    found = tables("04_directions")
    workloads = {r["workload"] for r in found["designs"]}
    assert len(found["designs"]) == 16 * len(workloads) > 0
    effects = {(r["workload"], r["directions"]): r for r in found["effects"]}
    for workload in workloads:
        assert effects[workload, "flash"]["chips"] < 0.5
        assert effects[workload, "stacked"]["tpot"] < 0.5
        assert effects[workload, "quick"]["tpot"] < 1
        assert effects[workload, "near"]["joules_per_token"] <= 1.01


@pytest.mark.slow
def test_phones(tables):
    rows = tables("05_phones")["answers"]
    answers = {(r["phone"], r["arm"], r["model"]): r for r in rows}
    for (phone, arm, model), row in answers.items():
        today = answers[phone, "today", model]
        assert row["fits"] >= today["fits"] or arm == "stacked"
        if arm in ("in memory", "stacked"):
            assert row["tpot"] < today["tpot"] and row["battery_share"] < today["battery_share"]


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
