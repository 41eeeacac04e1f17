"""The numbered experiments write what their figures read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["02_scaling"])
def test_experiment_and_figure(name):
    data, picture = ROOT / "experiments" / "out" / f"{name}.json", ROOT / "figures" / "out" / f"{name}.svg"
    for path in (data, picture):
        path.unlink(missing_ok=True)
    for folder in ("experiments", "figures"):
        subprocess.run([sys.executable, f"{folder}/{name}.py"], cwd=ROOT, check=True, timeout=300)
    rows = json.loads(data.read_text())["rows"]
    today, soon = (
        {(r["model"], r["chips"], r["batch"]): r for r in rows if r["latency"] == latency}
        for latency in sorted({r["latency"] for r in rows}, reverse=True)
    )
    for key, row in today.items():
        assert soon[key]["tpot"] <= row["tpot"]
        assert (row["message_share"] == 0) == (row["chips"] == 1)
    assert picture.stat().st_size > 10_000
