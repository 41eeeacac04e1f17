"""`jaxcost serve`: its table and JSON against the library, and one clear line for bad input."""

import json

import pytest

from jaxcost.core.program import execution
from jaxcost.core.pytree import rows
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.explore.serve.service import serve
from jaxcost.spec.plan import Plan
from jaxcost.spec.traffic import Traffic
from tests.test_cli import MODEL, run

SERVE = ["serve", *MODEL, "--system", "h100-sxm-x8", "--tp", "8", "--rate", "100"]


def test_serve_prints_and_its_json_equals_the_library(capsys):
    """Replicas, latencies, cost and margins stand in lines of at most 120 columns; numbers are the library's."""
    argv = [*SERVE, "--prompt", "2048", "--output", "512", "--tpot-target", "50ms"]
    # A program that other tests have called often is compiled, whose last digits differ from those of NumPy.
    with execution("interpret"):
        _prints_and_equals_the_library(capsys, argv)


def _prints_and_equals_the_library(capsys, argv):
    status, out, err = run(capsys, *argv)
    assert (status, err) == (0, "")
    for text in ("100 requests/s", "TPOT 50.0 ms", "Replicas", "wait for prefill", "Margins", "no target"):
        assert text in out
    assert max(map(len, out.splitlines())) <= 120
    status, out, err = run(capsys, *argv, "--json")
    assert (status, err) == (0, "")
    traffic = Traffic(prompt=2048, output=512, rate=100, tpot_target=0.05)
    expected = serve(catalog.load_system("h100-sxm-x8"), catalog.load_model(MODEL[1]), traffic, Plan(tp=8))
    document = json.loads(out)
    for path, unit, value in rows(expected):
        assert document["results"][path] == {"value": float(value), "unit": unit}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rate", "0"], "--rate: got 0.0; expected a positive number of requests a second"),
        (["--rate", "-3"], "--rate: got -3.0; expected a positive number of requests a second"),
        (["--variation", "-1"], "--variation: got -1.0; expected a number of at least 0"),
        (["--prefill-tp", "4"], "--prefill-tp: got 4.0; expected --prefill-system as well"),
        (["--prefill-system", "h100-sxm-x8", "--prefill-tp", "3"], "plan.tp: got 3; expected a divisor"),
        (["--plan", "auto"], "--tp: got '8'; expected no degrees with --plan auto"),
        (["--tp", "3"], "plan.tp: got 3; expected a divisor of the 64 query heads"),
    ],
)
def test_serve_refuses_in_one_line(capsys, more, message):
    """A bad load or pool ends in status 2 and one line."""
    status, out, err = run(capsys, *SERVE, *more)
    assert (status, out) == (2, "")
    assert err.startswith(f"jaxcost serve: {message}") and err.count("\n") == 1
