"""`--set`: one leaf of every unit, the nearest path to a wrong one, and the same numbers as the library's."""

import json

import jax
import pytest

from jaxcost.core.pytree import replace, replace_at
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.set_option import read_settings, set_in_space, settable, with_settings
from jaxcost.edge.commands.cli import main
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.studies.space_file import leaf_units, load_space
from jaxcost.evaluation import evaluate
from jaxcost.spec.design import Design
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

DESIGN = ["--model", "llama-3.1-70b", "--system", "h100-sxm-x8", "--tp", "8"]

# A leaf of every unit, as a person writes it, and in SI units.
EVERY_UNIT = {
    "": ("prices.grid", "norway", "norway"),
    "1": ("system.fabric.domain", "72", 72),
    "1/m^2": ("system.chip.stacking.bond_density", "1e4 1/mm^2", 1e10),
    "1/s": ("prices.maintenance", "5 %/year", 0.05 / (365.25 * 86400)),
    "B": ("system.chip.memory.capacity", "96 GiB", 96 * 2**30),
    "B/s": ("system.chip.memory.bandwidth", "4 TB/s", 4e12),
    "B/token": ("plan.engine.kept_step_bytes", "2 MB/token", 2e6),
    "FLOP": ("model.recurrence.matmul_flops", "2 MFLOP", 2e6),
    "FLOP/s": ("system.chip.compute.flops_8", "2 PFLOP/s", 2e15),
    "J": ("system.chip.energy_per_exponential", "5 pJ", 5e-12),
    "J/B": ("system.chip.memory.energy_per_byte", "4 pJ/bit", 32e-12),
    "J/FLOP": ("system.chip.energy_per_flop", "0.5 pJ/FLOP", 5e-13),
    "K": ("system.chip.cooling.coolant", "300 K", 300),
    "K*m^2/W": ("system.chip.cooling.sink", "20 K*mm^2/W", 20e-6),
    "USD": ("system.chip.price", "20000 USD", 20000),
    "USD/B": ("system.chip.hbf.price_per_byte", "1 USD/GB", 1e-9),
    "USD/J": ("prices.electricity", "0.05 USD/kWh", 0.05 / 3.6e6),
    "USD/W": ("prices.datacenter", "10 USD/W", 10),
    "W": ("system.chip.tdp", "500 W", 500),
    "bit": ("plan.weight_bits", "mxfp4", 4.25),
    "bit/s": ("system.chip.stacking.bond_rate", "2 Gbit/s", 2e9),
    "kg": ("system.host.carbon", "100 kg", 100),
    "kg/B": ("system.chip.memory.carbon_per_byte", "0.4 kg/GB", 4e-10),
    "kg/J": ("prices.grid_carbon", "481 g/kWh", 0.481 / 3.6e6),
    "J/m^2": ("system.chip.process.fab_energy", "2.75 kWh/cm^2", 2.75 * 3.6e6 * 1e4),
    "USD/m^2": ("system.chip.package.price_per_area", "0.3 USD/mm^2", 3e5),
    "USD/m^3": ("prices.water", "2 USD/m^3", 2),
    "USD/s": ("system.chip.rental", "3.6 USD/h", 1e-3),
    "kg/W": ("prices.building_carbon", "0.6 kg/W", 0.6),
    "kg/m^2": ("system.chip.process.fab_gases", "0.2 kg/cm^2", 2000),
    "m": ("system.chip.shoreline", "60 mm", 0.06),
    "m*s/B": ("system.fabric.scale_up.interface_edge", "0.03 mm/(GB/s)", 3e-14),
    "m^2": ("system.chip.die_area", "814 mm^2", 814e-6),
    "m^2*s/B": ("system.fabric.scale_up.interface_area", "0.04 mm^2/(GB/s)", 4e-17),
    "m^2*s/FLOP": ("system.chip.package.area_per_flop", "0.4 mm^2/(TFLOP/s)", 4e-19),
    "m^2/B": ("system.chip.package.area_per_byte", "0.5 mm^2/MB", 5e-13),
    "m^3/J": ("prices.site_water", "0.5 L/kWh", 0.5e-3 / 3.6e6),
    "s": ("system.fabric.scale_up.latency", "200 ns", 2e-7),
    "token": ("traffic.prompt", "4096", 4096),
}


def test_every_leaf_is_settable():
    design = Design(system=System(), model=Model())
    units = {path: unit for path, unit in leaf_units(design).items() if not path.startswith("knobs.")}
    listed = settable()
    assert {path: unit for path, (unit, _) in listed.items() if path != "prices.grid"} == units
    assert all(meaning for _, meaning in listed.values())
    assert {unit for unit, _ in listed.values()} == set(EVERY_UNIT)


@pytest.mark.parametrize("unit", EVERY_UNIT)
def test_a_leaf_of_every_unit(unit):
    path, text, value = EVERY_UNIT[unit]
    assert settable()[path][0] == unit
    (setting,) = read_settings([f"{path}={text}"])
    assert setting.value == (value if unit == "" else pytest.approx(value, rel=1e-12))


def test_other_ways_of_writing():
    same = [
        ("plan.kv_bits", ("8", "fp8", "8 bit", "1 B"), 8),
        ("traffic.output", ("64", "64 token"), 64),
        ("system.fabric.scale_out.topology", ("torus",), 5),
        ("system.host.power", ("0.5 kW", "500W"), 500),
    ]
    for path, texts, value in same:
        assert [s.value for s in read_settings([f"{path}={text}" for text in texts])] == [value] * len(texts)


def test_settings_reach_the_leaf_and_no_other():
    system = catalog.load_system("h100-sxm-x8")
    settings = read_settings(["system.chip.tdp=1 W", "plan.tp=4", "system.chip.tdp=500 W"])
    changed = with_settings("system", system, settings)
    expected = jax.tree.leaves(replace_at(system, "chip.tdp", 500.0))
    assert [float(x) for x in jax.tree.leaves(changed)] == [float(x) for x in expected]
    assert with_settings("plan", Plan(), settings).tp == 4
    assert with_settings("traffic", Traffic(), settings).prompt == Traffic().prompt


def test_a_grid_is_set_by_name():
    prices = with_settings("prices", catalog.load_prices(), read_settings(["prices.grid=norway"]))
    assert float(prices.grid_carbon) == pytest.approx(25e-3 / 3.6e6)
    sunny = with_settings("prices", prices, read_settings(["prices.grid=california"]))
    assert float(sunny.grid_swing) > 0 == float(prices.grid_swing)
    assert float(sunny.grid_peak) == pytest.approx(20 / 24)


WRONG = [
    ("system.chip.memory.bandwith=4 TB/s", "did you mean 'system.chip.memory.bandwidth'?"),
    ("bandwidth=4 TB/s", "did you mean 'system.chip.memory.bandwidth'?"),
    ("electricity=0.05 USD/kWh", "did you mean 'prices.electricity'?"),
    ("plan.weigth_bits=8", "did you mean 'plan.weight_bits'?"),
    ("prices.grid=norwy", "did you mean 'norway'?"),
    ("system.fabric.scale_up.topology=trous", "did you mean 'torus'?"),
    (
        "system.host=5 W",
        "a number under this branch: price, network_price, rack_price, power, overhead, provisioned, carbon",
    ),
    ("system.chip=5 W", "more (`jaxcost list leaves system.chip`)"),
    ("system.chip.tdp=500", "a quantity in W, such as '700 W' with its unit"),
    ("system.chip.tdp=500 J", "a quantity in W"),
    ("traffic.prompt=3 s", "a quantity in token, such as '2048 token'"),
    ("plan.tp=-1", "a number, finite and not negative"),
    ("plan.kv_bits=fp9", "bits in (0, 32] or a format"),
    ("system.chip.tdp", "PATH=VALUE"),
    ("=5 W", "PATH=VALUE"),
    ("system.chip.tdp=", "PATH=VALUE"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=[text for text, _ in WRONG])
def test_wrong_settings_are_told(text, told, capsys):
    assert main(["evaluate", *DESIGN, "--set", text]) == 2
    line = capsys.readouterr().err
    assert told in line and "--set" in line and line.count("\n") == 1


def test_plans_and_traffic_are_checked_still(capsys):
    for text, told in (
        ("plan.tp=7", "plan.tp: got 7; expected a divisor of the 64 query heads"),
        ("traffic.batch=0", "traffic.batch: got 0"),
        ("plan.dp=3", "at most the 8 chips"),
    ):
        assert main(["evaluate", *DESIGN, "--set", text]) == 2
        assert told in capsys.readouterr().err
    assert main(["evaluate", *DESIGN[:4], "--plan", "auto", "--set", "plan.tp=2"]) == 2
    assert "no degrees with --plan auto" in capsys.readouterr().err


def test_evaluate_and_compare_as_the_library_does(capsys):
    model, traffic, plan = catalog.load_model("llama-3.1-70b"), Traffic(batch=16), Plan(tp=8)
    system = replace_at(catalog.load_system("h100-sxm-x8"), "chip.memory.bandwidth", 4e12)
    prices = replace(catalog.load_prices(), electricity=0.05 / 3.6e6)
    expected = evaluate(system, model, traffic, plan, prices=prices)
    settings = ["system.chip.memory.bandwidth=4 TB/s", "prices.electricity=0.05 USD/kWh", "traffic.batch=16"]
    options = [part for text in settings for part in ("--set", text)]
    assert main(["evaluate", *DESIGN, *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["set"] == dict(text.split("=") for text in settings)
    assert document["traffic"]["batch"] == 16
    for metric in ("tpot", "usd_per_mtok"):
        assert document["results"][metric]["value"] == pytest.approx(
            float(getattr(expected, metric)), rel=1e-6
        )
    argv = ["--model", "llama-3.1-70b", "--tp", "8", "--systems", "h100-sxm-x8", *options]
    assert main(["compare", *argv]) == 0
    assert "system.chip.memory.bandwidth = 4 TB/s" in capsys.readouterr().out
    assert main(["compare", *argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["results"] == document["results"]


def test_a_space_is_set_in_every_design():
    space = load_space("million")
    settings = ["system.host.power=123 W", "prices.grid=norway", "system.chip.memory.bandwidth=4 TB/s"]
    changed = set_in_space(space, read_settings(settings))  # the last is scaled by an axis, which is well
    assert changed.base.system.host.power.shape == space.base.system.host.power.shape
    assert set(changed.base.system.host.power.tolist()) == {123.0}
    assert float(changed.base.prices.grid_carbon) == pytest.approx(25e-3 / 3.6e6)
    with pytest.raises(InputError, match="no axis of the space"):
        set_in_space(space, read_settings(["plan.tp=4"]))


def test_leaves_are_listed(capsys):
    assert main(["list", "leaves", "chip.cooling"]) == 0
    out = capsys.readouterr().out
    assert "system.chip.cooling.sink" in out and "K*m^2/W" in out and "system.chip.tdp" not in out
    assert main(["list", "leaves", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {leaf["path"]: leaf["unit"] for leaf in listed} == {p: u for p, (u, _) in settable().items()}
    assert main(["list", "leaves", "zzzz"]) == 2
