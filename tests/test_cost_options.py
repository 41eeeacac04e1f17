"""`jaxcost evaluate --costs --power-cap --by-parts --year`: what is printed, and what is refused."""

import json

import pytest

from jaxcost.edge.commands.cli import main

DESIGN = [
    "evaluate",
    "--model",
    "llama-3.1-8b",
    "--system",
    "h100-sxm",
    "--batch",
    "32",
    "--weight-bits",
    "8",
]


def run(capsys, *argv):
    status = main([*DESIGN, *argv])
    out, err = capsys.readouterr()
    return status, out, err


def results(capsys, *argv):
    status, out, _ = run(capsys, *argv, "--json")
    assert status == 0
    return {path: entry["value"] for path, entry in json.loads(out)["results"].items()}


def test_what_it_goes_to(capsys):
    status, out, err = run(capsys, "--costs")
    assert (status, err) == (0, "")
    for said in (
        "Energy per output token",
        "vendor's margin",
        "million input tokens",
        "yield 73%",
        "facility, average",
    ):
        assert said in out
    assert max(map(len, out.splitlines())) <= 110
    assert "Energy per output token" not in run(capsys)[1]


def test_what_the_power_of_servers_rests_on(capsys):
    shown = " ".join(run(capsys, "--costs")[1].split())
    assert (
        "Servers draw 165 W a chip (measured, 130 W to 210 W) and 25% of what the chips draw (meas" in shown
    )
    assert "They are provisioned for a nameplate of 575 W a chip (datasheet, 350 W to 790 W)." in shown
    shown = " ".join(run(capsys, "--costs", "--set", "system.host.power=200 W")[1].split())
    assert "Servers draw 200 W a chip (set) and 25%" in shown
    status = main(["evaluate", "--model", "llama-3.1-8b", "--system", "l40s", "--costs", "--batch", "2"])
    out = capsys.readouterr()[0]
    assert status == 0 and "Servers draw 150 W a chip (estimate, 80.0 W to 250 W).\n" in out
    assert "nameplate" not in out


def test_a_cap(capsys):
    status, out, _ = run(capsys, "--costs", "--power-cap", "300W")
    assert status == 0 and "(clock at " in out and "to keep the power cap" in out
    capped, free = results(capsys, "--power-cap", "0.3 kW"), results(capsys)
    assert capped["power.prefill"] == pytest.approx(300, rel=1e-3)
    # Engines take less; the server around them runs for longer.
    assert capped["ttft"] > free["ttft"] and capped["energy.matmul"] < free["energy.matmul"]
    assert capped["energy.host"] > free["energy.host"]


def test_parts_and_year(capsys):
    free, parts = results(capsys), results(capsys, "--by-parts")
    assert parts["usd_per_mtok"] == pytest.approx(free["usd_per_mtok"], rel=1e-4)
    cheaper = results(capsys, "--by-parts", "--set", "system.chip.memory.capacity=40 GB")
    assert cheaper["build.price"] < parts["build.price"] - 400
    early = results(capsys, "--by-parts", "--year", "2023")
    assert early["build.memory"] == pytest.approx(parts["build.memory"] / 1.35, rel=0.02)
    assert results(capsys, "--set", "system.chip.memory.capacity=40 GB")["build.price"] == free["build.price"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--power-cap", "5 J"], "a quantity in W"),
        (["--power-cap", "300"], "with its unit"),
        (["--year", "1900"], "a year from 2015 to 2040"),
        (["--year", "soon"], "a year from 2015 to 2040"),
        (["--by-part"], "did you mean '--by-parts'?"),
    ],
)
def test_refused(capsys, argv, said):
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "") and said in err and err.count("\n") == 1
