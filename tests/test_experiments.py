"""The numbered experiments write what their figures read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def rebuild(name):
    """Run an experiment and its figure from nothing; return the data."""
    data, picture = ROOT / "experiments" / "out" / f"{name}.json", ROOT / "figures" / "out" / f"{name}.svg"
    for path in (data, picture):
        path.unlink(missing_ok=True)
    for folder in ("experiments", "figures"):
        subprocess.run([sys.executable, f"{folder}/{name}.py"], cwd=ROOT, check=True, timeout=300)
    assert picture.stat().st_size > 10_000
    return json.loads(data.read_text())


@pytest.mark.slow
def test_scaling():
    rows = rebuild("02_scaling")["rows"]
    today, soon = (
        {(r["model"], r["chips"], r["batch"]): r for r in rows if r["latency"] == latency}
        for latency in sorted({r["latency"] for r in rows}, reverse=True)
    )
    for key, row in today.items():
        assert soon[key]["tpot"] <= row["tpot"]
        assert (row["message_share"] == 0) == (row["chips"] == 1)


@pytest.mark.slow
def test_directions():
    data = rebuild("04_directions")
    chosen = [r for r in data["rows"] if r["chosen"]]
    assert len(chosen) == 3 * 16
    effects = {(e["workload"], e["direction"], e["metric"]): e["ratio"] for e in data["manifest"]["effects"]}
    for workload in data["manifest"]["workloads"]:
        assert effects[workload, "flash", "chips"] < 0.5
        assert effects[workload, "stacked", "tpot"] < 0.5
        assert effects[workload, "quick", "tpot"] < 1
        assert effects[workload, "near", "joules_per_token"] <= 1.01
