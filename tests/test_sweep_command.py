"""`jaxcost sweep`: tables, JSON and files agree, with the library and with each other; bad input is one line."""

import json

import jax
import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import jaxcost as jc
from jaxcost.edge.commands import sweep as sweep_command
from jaxcost.edge.commands.cli import main
from jaxcost.edge.jobs import sweep_rows
from jaxcost.edge.studies import reducer_file
from jaxcost.edge.studies.space_file import load_space
from jaxcost.explore.sweep.run import report_metrics

SPACE = """
title: A small space
models: [llama-3.1-8b, llama-3.1-70b]
systems: [h100-sxm-x8, b200-x8]
objective: tpot
axes:
  traffic.batch: {log: [1, 64, 3]}
  plan.tp: [1, 8]
  system.chip.memory.bandwidth: {scale: [0.5, 1, 2, 4]}
"""
REDUCE = """
reduce:
  cheapest: {top: 5, by: usd_per_mtok, where: {tpot: {at_most: 5 ms}, usd_per_mtok: {at_least: 0.1}}}
  busiest: {best: tokens_per_second, groups: [plan.tp], infeasible: true}
  front: {pareto: [tpot, usd_per_mtok, tokens_per_second], epsilon: 1%}
  spread: {distribution: joules_per_token}
  why: {feasibility: all}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A space, and a folder with all that sweeping it leaves; run once, for it compiles."""
    path = tmp_path_factory.mktemp("sweep")
    (path / "small.yaml").write_text(SPACE)
    (path / "asked.yaml").write_text(SPACE + REDUCE)
    out = path / "out"
    options = ["--out", str(out), "--keep", "--plot", str(path / "a.svg")]
    assert main(["sweep", str(path / "small.yaml"), *options]) == 0
    return path


def run(capsys, *argv):
    capsys.readouterr()
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def designs(folder):
    kept = pyarrow.dataset.dataset(folder / "out" / "designs", partitioning="hive").to_table()
    return sorted(kept.to_pylist(), key=lambda row: row["index"])


def fits(row):
    return all(value >= 0 for name, value in row.items() if name.startswith("margins."))


def test_it_prints_saves_and_draws(capsys, tmp_path, folder):
    """The table ranks each pair's best; one file holds every design with units; the picture has both panels."""
    saved = tmp_path / "sweep.parquet"
    small = str(folder / "small.yaml")
    status, out, err = run(capsys, "sweep", small, "--save", str(saved), "--set", "prices.pue=1.5")
    assert (status, err) == (0, "")
    assert "A small space; prices.pue = 1.5" in out and "96 designs" in out
    assert "The best design of each model on each system, by tpot" in out and "x1" in out
    for text in (
        "Violated constraints",
        "TPOT of the",
        "within 0.005 of the Pareto front",
        "Elasticities of tpot",
    ):
        assert text in out
    assert max(map(len, out.splitlines())) <= 100
    assert (folder / "a.svg").stat().st_size > 10_000
    table = pq.read_table(saved)
    assert table.num_rows == 96
    assert table.schema.field("tpot").metadata == {b"unit": b"s"}
    assert table.schema.field("system.chip.memory.bandwidth").metadata == {b"unit": b"1"}
    assert set(table["model"].to_pylist()) == {"llama-3.1-8b", "llama-3.1-70b"}


def test_every_design_is_kept_once_with_what_the_library_finds(folder):
    rows = designs(folder)
    assert [row["index"] for row in rows] == list(range(96))
    space = load_space(str(folder / "small.yaml"))
    for row in rows[::19]:
        d = jc.design_at(space, row["index"])
        assert space.systems.index(row["system"]) == row["index"] // 48
        found = jc.evaluate(d.system, d.model, d.traffic, d.plan, prices=d.prices)
        assert float(found.tpot) == pytest.approx(row["tpot"], rel=1e-5)


def test_json_is_the_least_of_the_designs(capsys, folder):
    """The best of the JSON is the least feasible design, and evaluate finds the same figures."""
    kept = ("--out", str(folder / "out"), "--keep", "--resume")
    status, out, _ = run(capsys, "sweep", str(folder / "small.yaml"), *kept, "--json", "--top", "2")
    assert status == 0
    told = json.loads(out)
    assert (told["designs"], told["objective"], len(told["best"])) == (96, "tpot", 2)
    fitting = [row for row in designs(folder) if fits(row)]
    assert told["feasible"] == pytest.approx(len(fitting) / 96)
    best = told["best"][0]
    assert best["metrics"]["tpot"] == min(row["tpot"] for row in fitting)
    system = jc.load_system(best["system"])
    faster = system.chip.memory.bandwidth * best["system.chip.memory.bandwidth"]
    found = jc.evaluate(
        jc.replace_at(system, "chip.memory.bandwidth", faster),
        jc.load_model(best["model"]),
        jc.Traffic(batch=best["traffic.batch"]),
        jc.Plan(tp=best["plan.tp"]),
    )
    assert float(found.tpot) == pytest.approx(best["metrics"]["tpot"], rel=1e-5)
    largest = max(told["elasticities"], key=lambda k: abs(told["elasticities"][k]))
    assert largest in {path for path, _, _ in jc.rows(system)}


def test_the_folder_holds_the_results_and_how_they_came_about(folder):
    out = folder / "out"
    best = pq.read_table(out / "best.parquet")
    assert best.num_rows == 4 and best.schema.field("usd_per_mtok").metadata == {b"unit": b"USD/Mtok"}
    rows = designs(folder)
    for row in best.to_pylist():
        pair = [r for r in rows if fits(r) and (r["system"], r["model"]) == (row["system"], row["model"])]
        assert row["tpot"] == min(r["tpot"] for r in pair)
    reasons = {row["margin"]: row for row in pq.read_table(out / "reasons.parquet").to_pylist()}
    assert reasons["margins.memory"]["violated"] == sum(row["margins.memory"] < 0 for row in rows)
    spread = pq.read_table(out / "distribution.parquet").to_pandas()
    assert spread["designs"].sum() == sum(map(fits, rows))
    said = json.loads((out / "results.json").read_text())
    assert said["reasons"]["total"] == 96 and said["front"]["complete"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["title"] == "A small space" and manifest["finished"]
    assert manifest["space"]["models"] == ["llama-3.1-8b", "llama-3.1-70b"]
    assert manifest["axes"]["plan.tp"] == 2 and manifest["units"]["tpot"] == "s"


def test_a_finished_folder_answers_at_once(capsys, folder):
    small, out = str(folder / "small.yaml"), str(folder / "out")
    status, said, err = run(capsys, "sweep", small, "--out", out, "--keep", "--resume", "--json")
    assert status == 0
    assert json.loads(said)["results"]["reasons"]["total"] == 96
    status, _, err = run(capsys, "sweep", small, "--out", out, "--keep")
    assert status == 2 and "--resume" in err
    status, _, err = run(capsys, "sweep", small, "--out", out, "--resume")
    assert status == 2 and "every design kept: got 'True'" in err


def test_a_design_by_its_index(capsys, folder):
    row = designs(folder)[37]
    status, out, _ = run(capsys, "sweep", str(folder / "small.yaml"), "--index", "37", "--json")
    told = json.loads(out)
    assert status == 0 and told["index"] == 37
    assert told["metrics"]["tpot"] == row["tpot"]  # to the bit
    assert told["plan.tp"] == row["plan.tp"]
    assert "design 37 of 96" in run(capsys, "sweep", str(folder / "small.yaml"), "--index", "37")[1]


def test_what_a_file_asks_for(capsys, folder):
    status, out, err = run(capsys, "sweep", str(folder / "asked.yaml"), "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)["results"]
    rows = designs(folder)
    cheap = [r for r in rows if fits(r) and r["tpot"] <= 5e-3 and r["usd_per_mtok"] >= 0.1]
    assert [d["index"] for d in told["cheapest"]["designs"]] == [
        r["index"] for r in sorted(cheap, key=lambda r: r["usd_per_mtok"])[:5]
    ]
    for tp in (1, 8):
        most = max(r["tokens_per_second"] for r in rows if r["plan.tp"] == tp)
        found = [d for d in told["busiest"]["designs"] if d["plan.tp"] == tp]
        assert [d["metrics"]["tokens_per_second"] for d in found] == [most]
    assert told["front"]["complete"] and told["front"]["epsilon"] == 0.01
    for r in filter(fits, rows):
        assert any(
            d["metrics"]["tpot"] <= 1.01 * r["tpot"]
            and d["metrics"]["usd_per_mtok"] <= 1.01 * r["usd_per_mtok"]
            and 1.01 * d["metrics"]["tokens_per_second"] >= r["tokens_per_second"]
            for d in told["front"]["designs"]
        )
    assert sum(told["spread"]["counts"]) == sum(map(fits, rows))
    status, out, _ = run(capsys, "sweep", str(folder / "asked.yaml"))
    assert "cheapest: the best designs, by usd_per_mtok" in out
    assert "busiest: the best design of each plan.tp, by tokens_per_second" in out


def test_a_space_without_a_feasible_design(capsys, tmp_path):
    path = tmp_path / "none.yaml"
    path.write_text(SPACE.replace("objective", "traffic: {tpot_target: 1e-9}\nobjective"))
    status, out, _ = run(capsys, "sweep", str(path), "--out", str(tmp_path / "out"), "--keep")
    assert status == 0
    assert "0.0% satisfy every constraint" in out and "by tpot: none" in out
    assert "tpot          100.0%" in out


def test_results_open_in_one_line(folder):
    """What the README shows."""
    import duckdb
    import pandas
    import polars
    import xarray

    kept = folder / "out" / "designs"
    assert pandas.read_parquet(kept).shape[0] == 96
    assert set(polars.read_parquet(kept, hive_partitioning=True)["system"]) == {"h100-sxm-x8", "b200-x8"}
    least = duckdb.sql(
        f"select min(tpot) from '{kept}/*/*/*.parquet' where \"margins.worst\" >= 0"
    ).fetchall()
    assert least[0][0] == pytest.approx(min(row["tpot"] for row in designs(folder) if fits(row)))
    assert xarray.Dataset.from_dataframe(pandas.read_parquet(kept).set_index("index")).sizes == {"index": 96}


def test_all_cores_are_asked_for_before_anything_starts_jax(capsys, monkeypatch):
    """Reading a space makes arrays, after which the number of devices is fixed."""
    called = []
    monkeypatch.setattr(sweep_command, "_use_all_cores", lambda: called.append("cores"))
    monkeypatch.setattr(sweep_command, "read_space_data", lambda name: called.append("read") or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["sweep", "million"])
    assert called == ["cores", "read"]


BAD = [
    (["sweep"], "space"),
    (["sweep", "milion"], "did you mean 'million'"),
    (["sweep", "/no/such/space.yaml"], "/no/such/space.yaml"),
    (["sweep", "million", "--objective", "tpt"], "did you mean 'tpot'"),
    (["sweep", "million", "--top", "0"], "--top"),
    (["sweep", "million", "--plot", "sweep.gif"], ".svg"),
    (["sweep", "million", "--save", "sweep.csv"], ".parquet"),
    (["sweep", "million", "--save", "/no/such/folder/a.parquet"], "folder that exists"),
    (["sweep", "million", "--save", "a.parquet", "--processes", "2"], "--out DIR --keep"),
    (["sweep", "million", "--resume"], "--out DIR"),
    (["sweep", "million", "--keep"], "--out DIR"),
    (["sweep", "million", "--chunk", "100"], "multiple of 64"),
    (["sweep", "million", "--every", "-1"], "0 or more"),
    (["sweep", "million", "--index", "1244160"], "from 0 to 1,244,159"),
    (["sweep", "million", "--processes", "0"], "from 1 to 1024, or cluster"),
    (["sweep", "million", "--processes", "clusters"], "cluster"),
    (["sweep", "million", "--procesess", "2"], "did you mean '--processes'"),
]


@pytest.mark.parametrize(("argv", "text"), BAD, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_bad_input_is_one_line(capsys, argv, text):
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert text in err and err.count("\n") == 1


BAD_REDUCE = [
    ("[]", "a mapping of names"),
    ("{}", "at least one reducer"),
    ("{a: 3}", "one of top, pareto, best, distribution, feasibility"),
    ("{a: {topp: 3}}", "did you mean 'top'"),
    ("{a: {top: 3, best: tpot}}", "one of top"),
    ("{a: {top: 3}}", "reduce.a.by"),
    ("{a: {top: 0, by: tpot}}", "from 1 to 100,000"),
    ("{a: {top: 3, by: tpt}}", "did you mean 'tpot'"),
    ("{a: {top: 3, by: worst}}", "did you mean 'margins.worst'"),
    ("{a: {top: 3, by: tpot, wher: 1}}", "did you mean 'where'"),
    ("{a: {top: 3, by: tpot, largest: 1}}", "true or false"),
    ("{a: {top: 3, by: tpot, infeasible: 1}}", "true or false"),
    ("{a: {top: 3, by: tpot, where: 5}}", "a mapping of names"),
    ("{a: {top: 3, by: tpot, where: {tpot: 5}}}", "at_least"),
    ("{a: {top: 3, by: tpot, where: {tpot: {below: 1 s}}}}", "at_most"),
    ("{a: {top: 3, by: tpot, where: {tpot: {at_most: 3 W}}}}", "where.tpot"),
    ("{a: {top: 3, by: tpot, where: {tpot: {at_most: 3}}}}", "where.tpot"),
    ("{a: {pareto: tpot}}", "2 to 4 different metrics"),
    ("{a: {pareto: [tpot]}}", "2 to 4 different metrics"),
    ("{a: {pareto: [tpot, ttft], epsilon: 2}}", "valid options (epsilon"),
    ("{a: {pareto: [tpot, ttft], epsilon: -1}}", "not negative"),
    ("{a: {pareto: [tpot, ttft], largest: [usd_per_mtok]}}", "is not among the objectives"),
    ("{a: {pareto: [tpot, ttft], groups: [plan.pp]}}", "did you mean 'plan.tp'"),
    ("{a: {best: tpot, groups: 3}}", "reduce.a.groups: got 3; expected text"),
    ("{a: {feasibility: some}}", "expected 'all'"),
    ("{a b: {feasibility: all}}", "letters, digits"),
]


@pytest.mark.parametrize(("text", "said"), BAD_REDUCE)
def test_a_bad_wish_is_one_line(capsys, tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(SPACE + f"reduce: {text}\n")
    status, out, err = run(capsys, "sweep", str(path))
    assert (status, out) == (2, "")
    assert said in err and "bad.yaml" in err and err.count("\n") == 1


def test_bounds_take_the_units_of_their_metric(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    space = load_space(str(path))
    where = {
        "tpot": {"at_most": "50 ms"},
        "usd_per_mtok": {"at_most": 2, "at_least": "0.5 USD/Mtok"},
        "tokens_per_second": {"at_least": 100},
    }
    found = reducer_file.read_reducers({"a": {"distribution": "tpot", "where": where}}, space, "space.yaml")[
        "a"
    ]
    assert [(c.metric, c.low, c.high) for c in found.where] == [
        ("margins.worst", 0.0, np.inf),
        ("tpot", -np.inf, 0.05),
        ("usd_per_mtok", 0.5, 2.0),
        ("tokens_per_second", 100.0, np.inf),
    ]


def test_every_number_of_a_report_has_its_unit():
    units = {}

    def note(system, model):
        report = jc.evaluate(system, model, jc.Traffic(), jc.Plan())
        units.update({path: unit for path, unit, _ in jc.rows(report)})

    jax.eval_shape(note, jc.load_system("h100-sxm"), jc.load_model("llama-3.1-8b"))
    metrics = report_metrics()
    assert {"tpot", "margins.worst", "memory.weights", "usd.electricity"} <= set(metrics)
    assert all(units[path] == unit for path, unit in metrics.items())
    assert sweep_rows.metric_unit("my own metric") == "1"
