"""The command line: every command's table and JSON against the library, and one clear line for bad input."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxcost.core.pytree import rows
from jaxcost.core.units import engineering, number
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.checkpoints import load_checkpoint
from jaxcost.edge.commands.cli import COMMANDS, main
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.formats import FORMATS, read_bits
from jaxcost.edge.show import tables
from jaxcost.evaluation import evaluate
from jaxcost.explore.analysis.sensitivity import elasticities, metric_names
from jaxcost.spec.plan import Plan
from jaxcost.spec.traffic import Traffic

MODEL = ["--model", "llama-3.1-70b"]
SIZES = ["--tp", "8", "--batch", "32", "--prompt", "2048", "--output", "512"]
DESIGN = [*MODEL, "--system", "h100-sxm-x8", *SIZES]
MIXTURE = ["--model", "deepseek-v3", "--system", "h100-sxm-x16", "--tp", "8"]


def run(capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, str, str]:
    """Run one command line in this process."""
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def report():
    """Evaluate the design that most tests ask for."""
    return evaluate(
        catalog.load_system("h100-sxm-x8"),
        catalog.load_model("llama-3.1-70b"),
        Traffic(batch=32, prompt=2048, output=512),
        Plan(tp=8),
    )


def test_evaluate_prints_tables(capsys):
    """Headline, memory, margins and both phases stand in lines of at most a hundred columns."""
    status, out, err = run(capsys, "evaluate", *DESIGN)
    assert (status, err) == (0, "")
    expected = engineering(float(report().tpot), "s")
    for text in ("TTFT", "TPOT", expected, "KV cache", "Margins", "Prefill step", "Decode step", "norms"):
        assert text in out
    assert "ideal peaks: engines measured on H100" in out
    assert "USD/Mtok" in out
    assert "g/Mtok" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "routed_experts" not in out  # absent from a dense model


def test_evaluate_json_equals_the_library(capsys):
    """Every number of the JSON is the library's."""
    status, out, err = run(capsys, "evaluate", *DESIGN, "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    for path, unit, value in rows(report()):
        assert document["results"][path] == {"value": float(value), "unit": unit}
    operators = document["operators"]["decode"]
    assert sum(row["seconds"] for row in operators) == pytest.approx(float(report().decode.total), rel=1e-5)
    assert sum(row["share"] for row in operators) == pytest.approx(1, rel=1e-5)
    assert all(row["binding"] in (*tables.LEGS, "overhead") for row in operators)
    assert document["feasible"] is True


def test_evaluate_flags_reach_the_plan(capsys):
    """Degrees, formats and traffic of a mixture of experts arrive where they belong."""
    flags = ["--ep", "16", "--dp", "2", "--batch", "64", "--weight-bits", "fp8-block"]
    flags += [
        "--expert-bits",
        "mxfp4",
        "--kv-bits",
        "8",
        "--skew",
        "0.5",
        "--draft-length",
        "1",
        "--acceptance",
        "0.8",
    ]
    flags += ["--prefix-hit", "0.25", "--chunk", "256", "--ttft-target", "500ms", "--efficiency", "ideal"]
    status, out, _ = run(capsys, "evaluate", *MIXTURE, *flags, "--json")
    assert status == 0
    document = json.loads(out)
    expected = {"ep": 16, "dp": 2, "weight_bits": FORMATS["fp8-block"], "expert_bits": 4.25, "chunk": 256}
    assert {key: document["plan"][key] for key in expected} == expected
    assert document["traffic"]["prefix_hit"] == 0.25
    assert document["traffic"]["ttft_target"] == 0.5


def test_plan_auto(capsys):
    """The table names the choice; the JSON's plan, evaluated as given, has the same figures."""
    argv = ["--model", "deepseek-v3", "--system", "h200-sxm-x16", "--batch", "64", "--weight-bits", "fp8"]
    argv += ["--expert-bits", "fp8"]
    chosen = [*argv, "--plan", "auto", "--objective", "usd_per_mtok"]
    status, out, err = run(capsys, "evaluate", *chosen)
    assert (status, err) == (0, "")
    assert "valid plans satisfy every constraint; runner-up by usd_per_mtok" in out
    status, out, _ = run(capsys, "evaluate", *chosen, "--json")
    told = json.loads(out)
    chosen = [part for d in ("tp", "pp", "cp", "dp", "ep") for part in (f"--{d}", f"{told['plan'][d]:g}")]
    status, out, _ = run(capsys, "evaluate", *argv, *chosen, "--json")
    assert json.loads(out)["results"] == told["results"]
    status, out, _ = run(capsys, "compare", *MODEL, "--systems", "h100-sxm-x8,b200-x8", "--plan", "auto")
    assert status == 0
    assert "Plan, h100-sxm-x8: tp" in out and "Plan, b200-x8: tp" in out


def test_negative_margins_are_said_in_a_word(capsys):
    """A model that does not fit is evaluated, and the table says so."""
    status, out, _ = run(capsys, "evaluate", *MODEL, "--system", "h100-sxm-x8", "--tpot-target", "0.001")
    assert status == 0
    assert out.count("EXCEEDED") >= 2
    status, out, _ = run(capsys, "evaluate", *MODEL, "--system", "h100-sxm-x8", "--json")
    assert "memory" in json.loads(out)["exceeded"]


def test_typical_efficiency_is_named(capsys):
    """What is reached of the peaks is said, and slower than the peaks."""
    status, out, _ = run(capsys, "evaluate", *DESIGN, "--efficiency", "typical", "--json")
    document = json.loads(out)
    assert status == 0
    assert document["efficiency"].startswith("typical: matmul ")
    assert document["results"]["tpot"]["value"] > float(report().tpot)


@pytest.mark.parametrize(
    "suffix", ["svg", *(pytest.param(other, marks=pytest.mark.exhaustive) for other in ("png", "pdf"))]
)
def test_evaluate_draws(capsys, tmp_path, suffix):
    """The roofline is written in the format that the name asks for."""
    path = tmp_path / f"roofline.{suffix}"
    status, _, err = run(capsys, "evaluate", *DESIGN, "--plot", str(path))
    assert (status, err) == (0, "")
    assert path.stat().st_size > 5000
    head = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(head)
    if suffix == "svg":
        text = path.read_text()
        for word in ("Arithmetic intensity (FLOP/B)", "FLOP/s", "memory: ", "feed_forward"):
            assert word in text


def test_roofline_points_lie_under_the_roof():
    """No operator beats min(peak, intensity x bandwidth), and the FLOPs are those of the closed form."""
    from jaxcost.edge.commands.request import Request, evaluate_request, measure
    from jaxcost.edge.show.plots import roofline_points
    from jaxcost.spec.prices import Prices

    system, model = catalog.load_system("h100-sxm-x8"), catalog.load_model("llama-3.1-70b")
    request = Request(
        name="llama",
        model=model,
        precision=load_checkpoint("llama-3.1-70b").precision,
        traffic=Traffic(batch=32, prompt=2048, output=512),
        plan=Plan(tp=8),
        prices=Prices(),
    )
    values = measure(evaluate_request(system, request))
    points, left_out = roofline_points(system, request.plan, values)
    assert "embedding" in left_out
    bandwidth, peak = float(system.chip.memory.bandwidth), float(system.chip.compute.flops_16)
    for point in points:
        assert point.rate <= min(peak, point.intensity * bandwidth) * 1.0001
    forward = next(p for p in points if p.phase == "decode" and p.name == "feed_forward")
    seconds = values["decode.feed_forward.seconds"][1]
    assert forward.rate * seconds == pytest.approx(80 * 2 * 32 * 3 * 8192 * 28672 / 8, rel=1e-4)


def test_compare_memories(capsys):
    status, out, _ = run(capsys, "compare", "--memories")
    assert status == 0
    # Table 3 of arXiv:2601.05047, its derived columns included.
    rows = {line[:20].strip(): line[20:].split() for line in out.splitlines() if line}
    assert rows["GB/s a watt"] == ["20.5", "41", "4.27", "17.1", "0.08"]
    assert rows["GB a watt"] == ["6.4", "1.2", "5.33", "5.33", "81.9"]
    assert rows["Bytes a read"] == ["4096", "32", "64", "64", "4096"]
    status, out, _ = run(capsys, "compare", "--memories", "hbm4,hbf-gen2", "--json")
    document = json.loads(out)
    assert [m["name"] for m in document["memories"]] == ["hbm4", "hbf-gen2"]
    engines = {e["name"]: e for e in document["engines"]}
    # Table 4: bandwidth a watt 5 to 10 times the standard in memory, 2 to 5 beside it; banks of 32 to 64 MB.
    for name in ("attacc-bank", "hbm-pim"):
        assert 5 <= engines[name]["bandwidth_per_watt_gain"] <= 10 and engines[name]["shard"] <= 64e6
    assert 2 <= engines["hbm4-base-die"]["bandwidth_per_watt_gain"] <= 5
    assert 16e9 <= engines["hbm4-base-die"]["shard"] <= 36e9
    assert engines["hbm-pim"]["density"] < 1 == engines["hbm4-base-die"]["density"]


def test_evaluate_tells_tiers_and_findings(capsys):
    argv = ["evaluate", "--model", "deepseek-v2-lite", "--system", "h100-sxm", "--tier", "hbf=hbf:2:chained"]
    status, out, _ = run(capsys, *argv, "--place", "experts=hbf:1", "--batch", "4")
    assert status == 0
    assert "Memory tiers" in out and "flash stacks" in out
    assert "Findings" in out and "system.chip.hbf.latency" in out
    status, out, _ = run(capsys, *argv, "--place", "experts=hbf:1", "--batch", "4", "--json")
    document = json.loads(out)
    assert document["plan"]["placement.experts.hbf"] == 1
    assert any(f["knob"] == "system.chip.hbf.latency" for f in document["findings"])


def test_compare_prints_and_marks(capsys, tmp_path):
    """Systems stand side by side; the best feasible one is starred and an infeasible one said to be."""
    argv = ["compare", *MODEL, "--systems", "h100-sxm-x8,b200-x8", *SIZES]
    path = tmp_path / "bars.png"
    status, out, err = run(capsys, *argv, "--plot", str(path))
    assert (status, err) == (0, "")
    assert path.stat().st_size > 5000
    assert "h100-sxm-x8" in out
    assert "* " in out
    assert out.count("Fits; power binds first") == 2 and "feasible systems" in out
    assert max(map(len, out.splitlines())) <= 100
    status, out, _ = run(capsys, *argv, "--json")
    documents = json.loads(out)
    assert [d["system"] for d in documents] == ["h100-sxm-x8", "b200-x8"]
    assert documents[0]["results"]["tpot"]["value"] == float(report().tpot)
    status, out, _ = run(capsys, "compare", *MODEL, "--systems", "h100-sxm-x8,b200-x8")
    assert "Does not fit: memory" in out


def test_sensitivity(capsys):
    """The table shows at most twenty leaves, the JSON all, both sorted."""
    status, out, err = run(capsys, "sensitivity", *DESIGN)
    assert (status, err) == (0, "")
    assert "chip.memory.bandwidth" in out
    status, out, _ = run(capsys, "sensitivity", *DESIGN, "--metric", "tpot", "--json")
    listed = json.loads(out)["elasticities"]
    assert len(listed) == len(jax.tree.leaves(catalog.load_system("h100-sxm-x8")))
    sizes = [abs(entry["elasticity"]) for entry in listed]
    assert sizes == sorted(sizes, reverse=True)
    assert listed[0]["value"] > 0


@pytest.mark.parametrize("kind", ["chips", "memories", "fabrics", "efficiency", "prices", "grids"])
def test_list_kinds(capsys, kind):
    """Every name is listed, and every number of one has a unit, a source, a date and a kind."""
    status, out, _ = run(capsys, "list", kind)
    assert status == 0
    name = catalog.list_names(kind)[0]
    assert name in out
    status, out, _ = run(capsys, "list", kind, "--json")
    assert [entry["name"] for entry in json.loads(out)] == catalog.list_names(kind)
    status, out, _ = run(capsys, "list", kind, name, "--json")
    entries = json.loads(out)["entries"]
    assert entries
    for entry in entries:
        assert isinstance(entry["value"], float), entry
        assert all(entry[key] for key in ("unit", "source", "date", "kind")), entry
        if entry["kind"] == "estimate":
            assert entry["low"] <= entry["value"] <= entry["high"]


def test_list_models_and_systems(capsys):
    """Models show parameters, systems their totals, `<chip>-x<N>` its chip's sources."""
    assert "llama-3.1-70b" in run(capsys, "list", "models")[1]
    assert "hidden_size" in run(capsys, "list", "models", "llama-3.1-70b")[1]
    assert run(capsys, "list", "systems")[0] == 0
    assert "chip.memory.bandwidth" in run(capsys, "list", "systems", "h100-sxm-x8")[1]
    assert "models" in run(capsys, "list")[1]


BAD = [
    ([], "command is missing"),
    (["evaluat"], "did you mean 'evaluate'"),
    (["nonsense"], "unknown command 'nonsense'"),
    (["evaluate"], "missing --model, --system"),
    (["evaluate", *MODEL], "missing --system"),
    (["evaluate", "--modle", "x", *DESIGN], "did you mean '--model'"),
    (["evaluate", *DESIGN, "stray"], "unknown argument 'stray'"),
    (["evaluate", "--model", "lama-3.1-70b", "--system", "h100-sxm-x8"], "did you mean 'llama-3.1-70b'"),
    (["evaluate", *MODEL, "--system", "h100-smx-x8"], "did you mean 'h100-sxm-x8'"),
    (["evaluate", *MODEL, "--system", "h100-sxm-x0"], "got 'h100-sxm-x0'"),
    (["evaluate", *MODEL, "--system", "/no/such.yaml"], "/no/such.yaml"),
    (["evaluate", "--model", "/no/config.json", "--system", "h100-sxm-x8"], "/no/config.json"),
    (["evaluate", *DESIGN, "--tp", "3"], "got 3; expected a divisor of the 64 query heads; did you mean '4'"),
    (["evaluate", *DESIGN, "--tp", "2.5"], "plan.tp: got 2.5; expected a whole number"),
    (["evaluate", *DESIGN, "--tp", "0"], "plan.tp"),
    (["evaluate", *DESIGN, "--tp", "16"], "at most the 8 chips"),
    (["evaluate", *DESIGN, "--tp", "eight"], "--tp: got 'eight'; expected a number"),
    (["evaluate", *DESIGN, "--tp"], "--tp"),
    (["evaluate", *DESIGN, "--pp", "81"], "80 layers"),
    (["evaluate", *DESIGN, "--ep", "2"], "plan.ep: got 2; expected 1: this model has no experts"),
    (["evaluate", *MIXTURE, "--batch", "32", "--ep", "3"], "a divisor of the 256 experts"),
    (["evaluate", *MIXTURE, "--batch", "32", "--ep", "16"], "at most tp x dp = 8"),
    (["evaluate", *DESIGN, "--skew", "1"], "model.experts.skew"),
    (["evaluate", *DESIGN, "--skew", "-1"], "model.experts.skew"),
    (["evaluate", *DESIGN, "--batch", "0"], "traffic.batch"),
    (["evaluate", *DESIGN, "--batch", "1.5"], "did you mean '2'"),
    (["evaluate", *DESIGN, "--tp", "4", "--dp", "2", "--batch", "1"], "at least dp = 2 requests"),
    (["evaluate", *DESIGN, "--prompt", "0"], "traffic.prompt"),
    (["evaluate", *DESIGN, "--prompt", "1e30"], "traffic.prompt"),
    (["evaluate", *DESIGN, "--prompt", "nan"], "--prompt: got 'nan'"),
    (["evaluate", *DESIGN, "--output", "-5"], "traffic.output"),
    (["evaluate", *DESIGN, "--prefix-hit", "1"], "[0, 1)"),
    (["evaluate", *DESIGN, "--acceptance", "1.1"], "[0, 1]"),
    (["evaluate", *DESIGN, "--weight-bits", "fp7"], "did you mean 'fp8'"),
    (["evaluate", *DESIGN, "--weight-bits", "0"], "--weight-bits: got '0'"),
    (["evaluate", *DESIGN, "--kv-bits", "64"], "(0, 32]"),
    (["evaluate", *DESIGN, "--weight-sparsity", "1"], "[0, 1)"),
    (["evaluate", *DESIGN, "--encoder-tokens", "100"], "no encoder"),
    (["evaluate", *DESIGN, "--ttft-target", "5 GB"], "--ttft-target"),
    (["evaluate", *DESIGN, "--efficiency", "idel"], "did you mean 'ideal'"),
    (["evaluate", *DESIGN, "--prices", "defualt"], "did you mean 'default'"),
    (["evaluate", *DESIGN, "--plot", "roofline.gif"], ".svg, .png, .pdf"),
    (["evaluate", *DESIGN, "--plot", "/no/such/folder/a.svg"], "folder that exists"),
    (["evaluate", *DESIGN, "--plan", "auto"], "--tp: got '8'; expected no degrees with --plan auto"),
    (["evaluate", *DESIGN, "--plan", "aut"], "--plan: got 'aut'; expected auto"),
    (["evaluate", *DESIGN, "--objective", "tpt"], "did you mean 'tpot'"),
    (["evaluate", *MODEL, "--system", "h100-sxm-x8", "--plan", "auto", "--batch", "0"], "traffic.batch"),
    (
        ["evaluate", "--model", "mamba-2-2.7b", "--system", "h100-sxm-x67", "--plan", "auto", "--batch", "1"],
        "--plan: got 'auto'; expected a system on whose chips",
    ),
    (
        ["evaluate", "--model", "mamba-2-2.7b", "--system", "h100-sxm-x2", "--cp", "2"],
        "this model has no attention",
    ),
    (["compare", *MODEL], "missing --systems"),
    (["compare", *MODEL, "--systems", ""], "--systems"),
    (["compare", "--systems", "b200-x8"], "--model: expected"),
    (["compare", "--systems", "b200-x8", "--memories"], "not allowed with"),
    (["compare", "--memories", "hbf,hfb"], "did you mean 'hbf'"),
    (["compare", "--memories", "hbf,hbf"], "every memory once"),
    (["evaluate", *MODEL, "--system", "b200", "--tier", "hbf=hfb:2"], "did you mean 'hbf'"),
    (["evaluate", *MODEL, "--system", "b200", "--near", "memory=none"], "jaxcost list near"),
    (["evaluate", *MODEL, "--system", "b200", "--place", "weights=hbf:2"], "from 0 to 1"),
    (["compare", *MODEL, "--systems", "h100-sxm-x8,,b200-x8"], "none of them empty"),
    (["compare", *MODEL, "--systems", "b200-x8,b200-x8"], "every system once"),
    (["compare", *MODEL, "--systems", "b200-x8,h100-sxm-x4", "--tp", "8", "--batch", "8"], "h100-sxm-x4"),
    (["compare", *MODEL, "--systems", "b200-x8,b20-x8"], "did you mean 'b200-x8'"),
    (["sensitivity", *DESIGN, "--metric", "tpt"], "did you mean 'tpot'"),
    (["sensitivity", *DESIGN, "--tau", "2"], "--tau"),
    (["sensitivity", *DESIGN, "--tau", "x"], "--tau: got 'x'"),
    (["list", "chip"], "did you mean 'chips'"),
    (["list", "chips", "h100-smx"], "did you mean 'h100-sxm'"),
    (["list", "systems", "h100-smx-x8"], "did you mean 'h100-sxm-x8'"),
    (["list", "chips", "b200", "more"], "unknown argument 'more'"),
    (["list", "--jsn"], "did you mean '--json'"),
]


BAD_NAMES = [" ".join(argv[:1] + argv[-2:]) or "nothing" for argv, _ in BAD]


@pytest.mark.parametrize(("argv", "said"), BAD, ids=BAD_NAMES)
def test_bad_command_lines(capsys, argv, said):
    """Exit status 2, one line on stderr that names the thing, nothing on stdout."""
    status, out, err = run(capsys, *argv)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(capsys, command):
    """Every command explains itself."""
    status, out, _ = run(capsys, *([command] if command else []), "--help")
    assert status == 0
    assert "usage: jaxcost" in out


def test_as_a_program():
    """`python -m jaxcost` has the same output, status and single line."""

    def program(*argv: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "jaxcost", *argv]
        folder = Path(__file__).parents[1]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, check=False)

    good = program("evaluate", *DESIGN, "--json")
    assert good.returncode == 0, good.stderr
    results = json.loads(good.stdout)["results"]
    assert results["tpot"]["value"] == pytest.approx(float(report().tpot), rel=1e-6)
    bad = program("evaluate", *DESIGN, "--tp", "7")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert len(bad.stderr.splitlines()) == 1
    assert program("list", "chips").returncode == 0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00749, "s", "7.49 ms"),
        (80e9, "B", "80.0 GB"),
        (3.35e12, "B/s", "3.35 TB/s"),
        (1.71, "USD/Mtok", "1.71 USD/Mtok"),
        (989e12, "FLOP/s", "989 TFLOP/s"),
        (1e15, "FLOP/s", "1.00 PFLOP/s"),
        (999.9e9, "B", "1.00 TB"),
        (0.9999e-3, "s", "1.00 ms"),
        (2858.7, "token/s", "2,860 token/s"),
        (31.2e-12, "J/B", "31.2 pJ/B"),
        (0.4e-9, "kg/B", "400 ng/B"),
        (200.0, "kg", "200 kg"),
        (71_200.0, "g/Mtok", "71.2 kg/Mtok"),
        (814e-6, "m^2", "814 mm^2"),
        (25000.0, "USD", "25,000 USD"),
        (2.22e-8, "USD/J", "2.22e-8 USD/J"),
        (0.0, "s", "0 s"),
        (-0.005, "s", "-5.00 ms"),
        (8.0, "1", "8"),
        (0.6, "1", "0.600"),
        (3.9e12, "1/s", "3.90e12 1/s"),
        (float("inf"), "s", "inf s"),
        (float("nan"), "B", "nan B"),
        (5000.0, "s", "5,000 s"),
        (0.5, "B", "0.500 B"),
        (16.0, "bit", "16 bit"),
    ],
)
def test_engineering(value, unit, text):
    """Numbers are written as people write them."""
    assert engineering(value, unit) == text


def test_engineering_keeps_the_digits_asked_for():
    """More digits on request, and never a mantissa of a thousand."""
    assert engineering(0.0074912, "s", digits=4) == "7.491 ms"
    for exponent in range(-15, 18):
        for lead in (1.0, 1.004, 9.994, 9.996, 99.96, 999.4, 999.6):
            mantissa = float(engineering(lead * 10.0**exponent, "W").split()[0])
            assert 1 <= mantissa < 1000
    assert number(128256) == "128,256"
    assert number(0.00312) == "0.00312"


def test_formats():
    """Block formats carry their scales; names and numbers are read, anything else told."""
    assert read_bits("mxfp8") == 8.25
    assert read_bits("mxfp6") == 6.25
    assert read_bits("MXFP4") == 4.25
    assert read_bits("nvfp4") == 4.5
    assert read_bits("ternary") == 1.6
    assert read_bits("fp8-block") == pytest.approx(8.002, abs=1e-4)
    assert read_bits("5.5") == 5.5
    for bad in ("fp9", "0", "-4", "33", "nan", "inf", ""):
        with pytest.raises(InputError):
            read_bits(bad, "weight-bits")


def test_elasticities_of_all_rates_add_up():
    """Twice every rate at half every latency halves the time: the elasticities add to -1."""
    traffic = Traffic(batch=32, prompt=2048, output=512)
    model, system = catalog.load_model("llama-3.1-70b"), catalog.load_system("h100-sxm-x8")
    found = dict(elasticities("tpot", system, model, traffic, Plan(tp=8)))
    rates = [p for p in found if p.startswith("chip.compute.") or p.endswith(".bandwidth")]
    times = [p for p in found if p.endswith((".latency", "overhead", ".launch"))]
    total = sum(found[p] for p in rates) - sum(found[p] for p in times)
    assert total == pytest.approx(-1, abs=1e-3)
    assert found["chip.memory.bandwidth"] < -0.3
    assert found["chip.price"] == 0
    cost = dict(elasticities("usd_per_mtok", system, model, traffic, Plan(tp=8)))
    assert 0 < cost["chip.price"] < 1


def test_elasticities_refuse_what_is_no_total():
    """The metric is one of the report's totals."""
    assert {"tpot", "ttft", "joules_per_token"} <= set(metric_names())
    with pytest.raises(ValueError, match="no total 'speed'"):
        elasticities("speed", None, None, None, None)


def test_what_is_compiled_is_kept(monkeypatch, tmp_path):
    """A command keeps it in the user's cache, unless told where."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert main(["list", "grids", "--json"]) == 0
        assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "jaxcost"))
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
        assert main(["list", "grids", "--json"]) == 0
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_long_compilation_is_announced(capsys):
    script = """
import sys, time, jax
from jaxcost.edge.commands import waiting
waiting._PATIENCE = 0.01
waiting.announce_compilation("FOLDER")
jax.monitoring.record_event(waiting._BEGIN)
time.sleep(0.3)
jax.monitoring.record_event_duration_secs(waiting._END, 0.3)
jax.monitoring.record_event(waiting._BEGIN)
time.sleep(0.3)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0
    assert run.stderr.count("compiling, once for this kind of design") == 1
    assert "FOLDER" in run.stderr
