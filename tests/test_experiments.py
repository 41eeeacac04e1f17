"""The numbered experiments write what their figures read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def rebuild(name, out):
    """Run an experiment and its figure from nothing; return its tables as rows."""
    folders = {"experiments": ["--out", str(out)], "figures": ["--data", str(out), "--out", str(out)]}
    for folder, options in folders.items():
        command = [sys.executable, f"{folder}/{name}.py", *options]
        subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    assert (out / f"{name}.svg").stat().st_size > 10_000
    tables = json.loads((out / f"{name}.json").read_text())["tables"]
    return {
        key: [dict(zip(table["units"], row, strict=True)) for row in table["rows"]]
        for key, table in tables.items()
    }


@pytest.mark.slow
def test_scaling(tmp_path):
    rows = rebuild("02_scaling", tmp_path)["designs"]
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
def test_directions(tmp_path):
    tables = rebuild("04_directions", tmp_path)
    assert len(tables["designs"]) == 3 * 16
    effects = {(r["workload"], r["directions"]): r for r in tables["effects"]}
    for workload in {r["workload"] for r in tables["designs"]}:
        assert effects[workload, "flash"]["chips"] < 0.5
        assert effects[workload, "stacked"]["tpot"] < 0.5
        assert effects[workload, "quick"]["tpot"] < 1
        assert effects[workload, "near"]["joules_per_token"] <= 1.01


@pytest.mark.slow
def test_phones(tmp_path):
    rows = rebuild("05_phones", tmp_path)["answers"]
    answers = {(r["phone"], r["arm"], r["model"]): r for r in rows}
    for (phone, arm, model), row in answers.items():
        today = answers[phone, "today", model]
        assert row["fits"] >= today["fits"] or arm == "stacked"
        if arm in ("in memory", "stacked"):
            assert row["tpot"] < today["tpot"] and row["battery_share"] < today["battery_share"]
