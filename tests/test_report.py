"""The page of figures in a browser: no error, sliders that move the numbers, numbers that are right, a phone's width."""

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxcost as jc
import style

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]
KNOBS = ("chips", "batch", "stacks", "bandwidth", "latency")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data of two small studies; the page stands beside their folder."""
    out = tmp_path_factory.mktemp("report")
    command = [sys.executable, "-m", "jaxcost", "figures", "--only", "20,23", "--small", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=500, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return out / "data"


@pytest.fixture(scope="module")
def page(data):
    """The page of them, open in a browser; whatever it complains of is an error."""
    api = pytest.importorskip("playwright.sync_api")
    complaints = []
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=[*quiet, "--disable-sync"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900}, accept_downloads=True)
        opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on(
            "request",
            lambda asked: (
                None if asked.url.split(":")[0] in ("file", "data", "blob") else complaints.append(asked.url)
            ),
        )
        opened.goto((data.parent / "report.html").as_uri())
        yield opened
        browser.close()
    assert complaints == []


def result(page, name):
    """A number of the explorer."""
    text = page.locator(f"#result-{name} dd").inner_text().split()[0]
    return float(text.replace(",", "").rstrip("%"))


def move(page, knob, position):
    """Put a slider at a share of its way."""
    page.locator(f"#knob-{knob}").evaluate(
        """(e, at) => { e.value = Number(e.min) + at * (Number(e.max) - Number(e.min));
                        e.dispatchEvent(new Event("input", { bubbles: true })); }""",
        position,
    )


@pytest.mark.parametrize("knob", KNOBS)
def test_sliders_move_time_cost_and_carbon(page, knob):
    move(page, "chips", 1)
    move(page, knob, 0)
    before = [page.locator(f"#result-{name}").inner_text() for name in ("tpot", "usd", "carbon")]
    move(page, knob, 1)
    after = [page.locator(f"#result-{name}").inner_text() for name in ("tpot", "usd", "carbon")]
    if knob == "stacks":
        assert before[1:] != after[1:]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_model_and_grid_move_the_numbers(page):
    before = result(page, "tpot")
    page.locator("#knob-model").select_option(index=1)
    assert result(page, "tpot") != before
    move(page, "grid", 0)
    clean, joules = result(page, "carbon"), result(page, "joules")
    move(page, "grid", 1)
    assert result(page, "carbon") > clean
    assert result(page, "joules") == joules


def test_numbers_are_those_of_the_model(page):
    explorer = importlib.import_module("experiments.23_explorer")
    page.locator("#knob-model").select_option(index=0)
    for knob, position in (("chips", 1), ("batch", 0.5), ("stacks", 1), ("bandwidth", 0.5), ("latency", 0.5)):
        move(page, knob, position)
    grid = explorer.grid_of(True)
    chips, batch, stacks = grid.chips[-1], grid.batches[1], grid.stacks[-1]
    # At the middle step of both continuous knobs, where nothing is interpolated.
    bandwidth, latency = grid.bandwidths[1], grid.latencies[1]
    system = explorer.base_system()
    memory = jc.replace(jc.load_memory(explorer.STACK, stacks=stacks), bandwidth=stacks * bandwidth)
    system = jc.replace_at(system, "chip.memory", memory)
    link = jc.replace(system.fabric.scale_up, overhead=latency / 2, latency=latency / 4)
    fabric = jc.replace(system.fabric, domain=float(chips), scale_up=link)
    system = jc.replace(system, chips=float(chips), fabric=fabric)
    traffic = jc.Traffic(**explorer.TRAFFIC, batch=batch)
    plan = jc.Plan(tp=chips, ep=chips, **explorer.PLAN)
    found = jc.evaluate(system, jc.load_model(grid.models[0]), traffic, plan)
    unit = page.locator("#result-tpot dd small").inner_text()
    scale = {"ms": 1e3, "µs": 1e6, "s": 1.0}[unit]
    assert result(page, "tpot") == pytest.approx(float(found.tpot) * scale, rel=6e-3)
    assert result(page, "usd") == pytest.approx(float(found.usd_per_mtok), rel=6e-3)
    assert result(page, "joules") == pytest.approx(float(found.joules_per_token), rel=6e-3)
    assert result(page, "share") == pytest.approx(100 * (1 - float(found.margins.memory)), rel=6e-3)


@pytest.mark.parametrize(("bandwidth", "latency"), [(0.2, 0.7), (0.8, 0.3), (0.0, 1.0)])
def test_between_steps_it_is_linear_in_latency_and_inverse_bandwidth(page, data, bandwidth, latency):
    for knob, position in (
        ("chips", 1),
        ("batch", 1),
        ("stacks", 0),
        ("bandwidth", bandwidth),
        ("latency", latency),
    ):
        move(page, knob, position)
    explorer = style.read(data / "23_explorer.json")
    steps = {knob: explorer["knobs"].values("value", knob=knob) for knob in ("model", *KNOBS)}
    (entry,) = explorer["layout"].where(metric="usd_per_mtok")
    shape = tuple(map(len, steps.values()))
    raw = (data / "23_explorer.tables.bin").read_bytes()
    coded = np.frombuffer(raw, "<u2", math.prod(shape), entry["start"]).reshape(shape)
    table = np.exp(entry["low"] + (entry["high"] - entry["low"]) * coded / 65535)
    model = int(page.locator("#knob-model").input_value())
    at = [
        low * (high / low) ** share
        for (low, *_, high), share in ((steps["bandwidth"], bandwidth), (steps["latency"], latency))
    ]
    rows = [np.interp(at[1], steps["latency"], row) for row in table[model, -1, -1, 0]]
    inverse = 1 / np.asarray(steps["bandwidth"])
    assert result(page, "usd") == pytest.approx(np.interp(1 / at[0], inverse[::-1], rows[::-1]), rel=6e-3)


def test_numbers_can_be_read_and_taken_away(page, tmp_path):
    details = page.locator("#\\32 0_baseline details").first
    details.locator("summary").click()
    details.locator("tbody tr").nth(2).wait_for()  # tables are made once it is open
    with page.expect_download() as waiting:
        details.locator("button").first.click()
    waiting.value.save_as(tmp_path / "steps.csv")
    lines = (tmp_path / "steps.csv").read_text().splitlines()
    kept = json.loads((ROOT / "tests" / "figures" / "20_baseline.json").read_text())["tables"]["steps"]
    assert lines[0].startswith("context (token),batch,tpot (s)")
    assert len(lines) == 1 + len(kept["rows"])


def test_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    wide, shown = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= shown
    assert page.locator("#result-tpot").is_visible()
    page.set_viewport_size({"width": 1200, "height": 900})
