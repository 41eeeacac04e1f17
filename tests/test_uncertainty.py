"""Intervals: every low and high of the files used is found, drawn as said, and worth what a changed file is worth."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcost.core.program import execution
from jaxcost.core.pytree import replace_at
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.reading import reading
from jaxcost.edge.catalog.tiers import add_tier
from jaxcost.edge.catalog.uncertain import intervals, uncertain
from jaxcost.edge.commands.cli import main
from jaxcost.edge.io.config import read_yaml
from jaxcost.edge.io.errors import InputError
from jaxcost.evaluation import evaluate
from jaxcost.explore.analysis.sensitivity import metric_names
from jaxcost.explore.analysis.uncertainty import QUANTILES, Spread, leaves_at, monte_carlo, positions, tornado
from jaxcost.spec.plan import Plan
from jaxcost.spec.traffic import Traffic

CONFIGS = catalog.configs_root()
NAME, MODEL, TRAFFIC, PLAN = "h100-sxm-x8", "llama-3.1-8b", Traffic(batch=16), Plan(tp=8)
# Fields of a file that name another, and the folder it stands in.
REFERENCES = {
    "chip": "chips",
    "type": "memories",
    "silicon": "silicon",
    "packaging": "packages",
    "host": "hosts",
    "fabric": "fabrics",
    "near": "near",
    "grid": "grids",
}
OVERRIDABLE = ("host", "package", "scale_up", "scale_out", "domain", "package_chips")


@pytest.fixture(autouse=True, scope="module")
def _interpreted():
    """Each question is asked a few times, which takes less than a compiler."""
    with execution("interpret"):
        yield


def load(name=NAME, efficiency="typical"):
    return lambda: (catalog.load_system(name, efficiency=efficiency), catalog.load_prices())


@pytest.fixture(scope="module")
def found():
    return uncertain(load())


@pytest.fixture(scope="module")
def result():
    return intervals(NAME, MODEL, TRAFFIC, PLAN, efficiency="typical", draws=2000, seed=1)


def column(metric):
    return metric_names().index(metric)


def row(found, name):
    constants, spread = found
    index = [c.name for c in constants].index(name)
    return constants[index], spread.low[index], spread.high[index]


# Reading


def key(kind, name, path):
    return (CONFIGS / kind / f"{name}.yaml", path)


def test_an_entry_is_overridden_while_it_is_asked_for_and_no_longer():
    before = catalog.load_prices()
    with reading({key("prices", "default", "electricity"): 1e-7}) as current:
        changed = catalog.load_prices()
    assert changed.electricity == 1e-7
    assert {path for _, path in current.entries} >= {"electricity", "pue", "carbon"}
    for name in ("pue", "lifetime", "grid_carbon"):
        assert getattr(changed, name) == pytest.approx(float(getattr(before, name)))
    again = catalog.load_prices()
    assert jax.tree.map(float, again).electricity == float(before.electricity)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(again))


def test_a_leaf_that_is_a_product_follows_each_of_its_entries():
    area = lambda: float(catalog.load_chip("h100-sxm").package.area_per_flop)  # noqa: E731
    whole = area()
    with reading({key("chips", "h100-sxm", "engine_share"): 0.25}):
        assert area() == pytest.approx(whole * 0.25 / 0.5)
    with reading({key("chips", "h100-sxm", "die_area"): 407e-6}):
        assert area() == pytest.approx(whole / 2)


def test_a_count_is_overridden_too():
    with reading({key("chips", "h100-sxm", "domain"): 4.0}):
        assert catalog.load_system(NAME).fabric.domain == 4


def entries(data, prefix=""):
    """Walk a file as plain YAML: (path, entry) of every entry with a low and a high."""
    for name, value in data.items():
        if isinstance(value, dict) and {"value", "source"} <= set(value):
            if "low" in value and "high" in value:
                yield f"{prefix}{name}"
        elif isinstance(value, dict):
            yield from entries(value, f"{prefix}{name}.")


def walk(kind, name, without=()):
    """Collect the bounded entries of a file and of all that it names."""
    data = {k: v for k, v in read_yaml(CONFIGS / kind / f"{name}.yaml").items() if k not in without}
    out = {f"{kind}/{name}: {path}" for path in entries(data)}

    def references(section, sort):
        for field, value in section.items():
            if isinstance(value, dict) and "value" not in value:
                yield from references(value, sort)
            elif isinstance(value, str) and field in REFERENCES and not (field == "host" and sort == "tiers"):
                yield REFERENCES[field], value

    used = [o for o in OVERRIDABLE if data.get(o) is not None]
    for other, its_name in references(data, ""):
        out |= walk(other, its_name, without=used if other == "chips" else ())
    return out


@pytest.mark.parametrize(
    "name", ["h100-sxm-x8", "gb200-nvl72", "rpu-cu", "tpu-v7-64", "dgx-h100", "groq-576"]
)
def test_every_low_and_high_of_the_files_used_is_found(name):
    in_systems = name in catalog.list_names("systems")
    expected = walk("systems", name) if in_systems else walk("chips", name.removesuffix("-x8"))
    expected |= walk("prices", "default") | walk("efficiency", "typical")
    constants, spread = uncertain(load(name))
    assert {c.name for c in constants} == expected
    assert all(c.low <= c.mid <= c.high for c in constants)
    assert np.isfinite(spread.low).all() and np.isfinite(spread.high).all()
    mid = np.asarray(jax.tree.leaves(load(name)()), np.float64)
    np.testing.assert_allclose(spread.mid, mid, rtol=1e-6)


def test_a_constant_that_several_parts_use_moves_them_together():
    def two_tiers():
        system, prices = load()()
        return add_tier(system, "hbf", "hbm3", stacks=4), prices

    found = uncertain(two_tiers)
    constants, spread = found
    assert len({c.name for c in constants}) == len(constants)
    constant, low, _ = row(found, "memories/hbm3: latency")
    moved = np.flatnonzero(low != spread.mid)
    assert len(moved) == 2
    np.testing.assert_allclose(low[moved] / spread.mid[moved], constant.low / constant.mid)


# Draws


def test_positions_are_triangular_and_reproducible():
    drawn = positions(4000, 3, seed=7)
    np.testing.assert_array_equal(drawn, positions(4000, 3, seed=7))
    assert not np.array_equal(drawn, positions(4000, 3, seed=8))
    assert np.all(np.abs(drawn) <= 1)
    # P(t <= x) = 1 - (1 - x)^2 / 2 for x >= 0
    for x in (0.0, 0.3, 0.8):
        share = np.mean(drawn <= x, axis=0)
        np.testing.assert_allclose(share, 1 - (1 - x) ** 2 / 2, atol=1e-3)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(3), atol=0.06)


def test_leaves_between_the_ends():
    # Leaf 0 is A B, leaf 1 is A / B, leaf 2 is C that may be 0, leaf 3 is D that is 0, leaf 4 is certain.
    a, b, c, d = (1.0, 2.0, 8.0), (3.0, 5.0, 6.0), (0.0, 4.0, 6.0), (0.0, 0.0, 2.0)

    def leaves(a, b, c, d):
        return np.array([a * b, a / b, c, d, 7.0])

    mids = (a[1], b[1], c[1], d[1])
    ends = [
        np.stack(
            [
                leaves(*(x[end] if i == k else m for i, m in enumerate(mids)))
                for k, x in enumerate((a, b, c, d))
            ]
        )
        for end in (0, 2)
    ]
    spread = Spread(None, leaves(*mids), *ends)
    at_ends = leaves_at(spread, np.concatenate([np.zeros((1, 4)), -np.eye(4), np.eye(4)]))
    np.testing.assert_allclose(at_ends, np.concatenate([spread.mid[None], *ends]))
    (between,) = leaves_at(spread, np.array([[-0.5, 0.25, -0.5, 0.75]]))
    expected = leaves(2.0 * 0.5**0.5, 5 * 1.2**0.25, 2.0, 1.5)  # powers, but linear where there is a 0
    np.testing.assert_allclose(between, expected)


def test_a_linear_metric_has_the_analytic_interval(found):
    """Cost is a + b x in the price of electricity x, whose quantiles the distribution gives."""
    constants, spread = found
    k = [c.name for c in constants].index("prices/default: electricity")
    constant = constants[k]
    alone = dataclasses.replace(spread, low=spread.low[[k]], high=spread.high[[k]])
    model = catalog.load_model(MODEL)
    drawn = monte_carlo(alone, model, TRAFFIC, PLAN, draws=2000, seed=0)[:, column("usd_per_mtok")]
    mid, low, high = (x[..., column("usd_per_mtok")] for x in tornado(alone, model, TRAFFIC, PLAN))
    slope = (high[0] - low[0]) / (constant.high - constant.low)

    v = 2 * np.asarray(QUANTILES) - 1
    t = np.sign(v) * (1 - np.sqrt(1 - np.abs(v)))
    price = constant.mid * (np.where(t < 0, constant.low, constant.high) / constant.mid) ** np.abs(t)
    np.testing.assert_allclose(np.quantile(drawn, QUANTILES), mid + slope * (price - constant.mid), rtol=2e-4)
    # E[r^|t|] of one side, of density 2 (1 - s) on [0, 1]: 2 (r - 1 - ln r) / ln(r)^2
    ratios = np.array([constant.low, constant.high]) / constant.mid
    mean = np.mean(2 * (ratios - 1 - np.log(ratios)) / np.log(ratios) ** 2)
    assert np.mean(drawn) == pytest.approx(mid + slope * constant.mid * (mean - 1), rel=2e-4)


def test_intervals_are_reproducible_by_seed(result):
    again = intervals(NAME, MODEL, TRAFFIC, PLAN, efficiency="typical", draws=2000, seed=1)
    assert again == result
    other = intervals(NAME, MODEL, TRAFFIC, PLAN, efficiency="typical", draws=2000, seed=2)
    assert other.tornado == result.tornado
    assert other.quantiles["usd_per_mtok"] != result.quantiles["usd_per_mtok"]
    for name, interval in result.quantiles.items():
        near = other.quantiles[name]
        assert near.p50 == pytest.approx(interval.p50, rel=0.02), name
        assert interval.p5 <= interval.p25 <= interval.p50 <= interval.p75 <= interval.p95


def test_mid_is_the_evaluation(result):
    system, prices = load()()
    report = evaluate(system, catalog.load_model(MODEL), TRAFFIC, PLAN, prices=prices)
    for name in metric_names():
        assert result.quantiles[name].mid == pytest.approx(float(getattr(report, name)), rel=1e-5), name
    assert result.feasible == 1
    assert all(bars == tuple(sorted(bars, key=lambda b: -b.width)) for bars in result.tornado.values())


# Tornado


def rewritten(folder: Path, kind: str, name: str, changes: dict[str, str]) -> str:
    """Copy a file of the catalogue as text, with lines changed; return the copy's path."""
    text = (CONFIGS / kind / f"{name}.yaml").read_text()
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_bar_is_what_a_changed_file_gives(result, tmp_path, end):
    """An independent way: the same entries at their ends in copies of the files, read as a user's own."""
    bars = {
        m: {b.constant.name: b for b in result.tornado[m]} for m in ("usd_per_mtok", "gco2e_per_mtok", "tpot")
    }
    price = "25000 USD" if end == "low" else "30000 USD"
    energy = "1.71 kWh/cm^2" if end == "low" else "3.16 kWh/cm^2"
    memory = "0.65" if end == "low" else "0.85"
    silicon = rewritten(
        tmp_path, "silicon", "n4", {'fab_energy: {value: "2.75 kWh/cm^2"': f'fab_energy: {{value: "{energy}"'}
    )
    typical = rewritten(
        tmp_path, "efficiency", "typical", {"memory: {value: 0.8,": f"memory: {{value: {memory},"}
    )
    cases = [
        (
            "usd_per_mtok",
            "chips/h100-sxm: price",
            {'price: {value: "27500 USD"': f'price: {{value: "{price}"'},
            "typical",
        ),
        ("gco2e_per_mtok", "silicon/n4: fab_energy", {'silicon: "n4"': f'silicon: "{silicon}"'}, "typical"),
        ("tpot", "efficiency/typical: memory", {}, typical),
    ]
    for metric, constant, changes, efficiency in cases:
        chip = rewritten(tmp_path, "chips", "h100-sxm", changes)
        path = tmp_path / "system.yaml"
        path.write_text(f'title: "Copy"\nchip: "{chip}"\nchips: 8\n')
        system = catalog.load_system(str(path), efficiency=efficiency)
        report = evaluate(system, catalog.load_model(MODEL), TRAFFIC, PLAN, prices=catalog.load_prices())
        value = getattr(bars[metric][constant], f"at_{end}")
        assert value == pytest.approx(float(getattr(report, metric)), rel=1e-5), constant
        assert abs(value / result.quantiles[metric].mid - 1) > 1e-4  # it does move


def test_a_leaf_that_is_set_is_not_moved(found, result):
    settled = uncertain(lambda: (replace_at(load()()[0], "chip.efficiency.memory", 0.5), load()()[1]))
    _, low, high = row(settled, "efficiency/typical: memory")
    np.testing.assert_array_equal(low, settled[1].mid)
    np.testing.assert_array_equal(high, settled[1].mid)
    assert not np.array_equal(row(found, "efficiency/typical: memory")[1], found[1].mid)


# The command line

DESIGN = ["--model", MODEL, "--system", NAME, "--tp", "8", "--batch", "16", "--efficiency", "typical"]


def test_evaluate_tells_intervals(result, capsys, tmp_path):
    picture = tmp_path / "tornado.svg"
    options = ["--intervals", "--draws", "2000", "--seed", "1", "--tornado", str(picture), "--metric", "tpot"]
    assert main(["evaluate", *DESIGN, *options]) == 0
    out = capsys.readouterr().out
    for text in (
        "Intervals: 2,000 draws",
        "Median",
        "Most uncertain constants",
        "prices/default: utilization",
        "[1] ",
    ):
        assert text in out
    assert max(map(len, out.splitlines())) <= 100
    drawn = picture.read_text()
    assert "efficiency/typical: memory" in drawn and "Each token (TPOT), ms" in drawn
    assert main(["evaluate", *DESIGN, *options[:5], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["intervals"]
    assert told["quantiles"]["usd_per_mtok"] == dataclasses.asdict(result.quantiles["usd_per_mtok"])
    assert told["weakest"]["tpot"] == [bar.constant.name for bar in result.weakest("tpot")]
    assert told["constants"]["prices/default: pue"]["written"] == ["1.08", "1.2", "1.5"]


def test_what_is_set_on_the_command_line_is_certain(capsys):
    options = [
        "--intervals",
        "--draws",
        "300",
        "--set",
        "prices.utilization=0.5",
        "--set",
        "prices.grid=norway",
    ]
    assert main(["evaluate", *DESIGN, *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    told = document["intervals"]
    bars = {bar["constant"]: bar for bar in told["tornado"]["usd_per_mtok"]}
    assert bars["prices/default: utilization"]["width"] == 0
    mid = told["quantiles"]["usd_per_mtok"]["mid"]
    assert mid == pytest.approx(document["results"]["usd_per_mtok"]["value"], rel=1e-5)
    # A grid taken by its name brings its own low and high.
    assert {"grids/norway: carbon"} <= set(told["constants"])
    assert told["tornado"]["gco2e_per_mtok"][0]["width"] > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--intervals", "--draws", "1"], "draws: got 1; expected a whole number from 2"),
        (["--intervals", "--seed", "-1"], "seed: got -1"),
        (["--tornado", "picture.txt"], "a name ending in .svg"),
        (["--intervals", "--metric", "usd_per_mtk"], "did you mean 'usd_per_mtok'?"),
    ],
)
def test_bad_options_are_told(options, told, capsys):
    assert main(["evaluate", *DESIGN, *options]) == 2
    assert told in capsys.readouterr().err


def test_a_plan_that_does_not_go_with_the_system_is_refused():
    with pytest.raises(InputError, match="at most the 8 chips"):
        intervals(NAME, MODEL, TRAFFIC, Plan(tp=16))
    with pytest.raises(InputError, match="got 'auto'; expected a Plan"):
        intervals(NAME, MODEL, TRAFFIC, "auto")  # type: ignore[arg-type]
