"""Capacities of chips: what the driver reports, what it withholds, and what both cost."""

import jax
import pytest

import jaxcost as jc
from jaxcost.core.pytree import replace_at
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.parts import load_part
from jaxcost.physics.economics.area import manufactured_bytes, memory_price
from jaxcost.physics.economics.carbon import embodied

GIB = 2.0**30
CHIPS = catalog.list_names("chips")
# GiB of the stacks where their number times the type's capacity says something else: taller stacks, two devices on one
# channel, or one stack of two.
STACKED = {
    "mi300x": 192, "mi325x": 256, "tpu-v5e": 16, "l40s": 48, "l40": 48, "a40": 48, "rtx-a6000": 48,
    "rtx-6000-ada": 48, "rtx-pro-6000-blackwell": 96, "l4": 24,
}  # fmt: skip
UNIFIED = {"gb10": 128, "m4-max": 128, "m3-ultra": 512}
SHOWN = {
    "h100-sxm": 79.19, "h200-sxm": 139.8, "b200": 178.35, "a100-80gb-sxm": 79.15, "l40s": 44.42, "rtx-3090": 23.58,
    "rtx-5090": 31.36, "mi300x": 191.984, "tpu-v5e": 15.75, "tpu-v7": 189.5, "t4": 14.56, "gb10": 121.69,
    "h20": 95.33, "gb200": 184.31, "a100-40gb-sxm": 39.394, "rtx-4090": 23.64, "mi355x": 287.98, "tpu-v4": 30.75,
}  # fmt: skip


def reported(name):
    """Return whether the file of a chip tells the driver's total from the nominal capacity."""
    part, _ = load_part("chips", name)
    return "nominal capacity" not in part.memory.capacity.source


def physical(name):
    """Return the GiB of the stacks: a gigabyte of DRAM is 2^30 bytes."""
    if name in STACKED | UNIFIED:
        return (STACKED | UNIFIED)[name]
    part, _ = load_part("chips", name)
    return float(catalog.load_chip(name).memory.stacks * catalog.load_memory(part.memory.type).capacity) / 1e9


@pytest.mark.parametrize("name", [n for n in CHIPS if reported(n)])
def test_the_driver_reports_the_stacks_less_what_is_withheld(name):
    memory = catalog.load_chip(name).memory
    assert 0.9 * physical(name) * GIB < float(memory.capacity) <= physical(name) * GIB
    assert float(manufactured_bytes(memory)) == pytest.approx(physical(name) * GIB, rel=0.02)


@pytest.mark.parametrize("name", CHIPS)
def test_bytes_are_withheld_only_where_a_total_is_known(name):
    withheld = float(catalog.load_chip(name).memory.withheld)
    assert withheld > 0 if reported(name) and name not in ("m4-max", "m3-ultra") else withheld == 0


@pytest.mark.parametrize(("name", "gib"), SHOWN.items())
def test_published_totals(name, gib):
    assert float(catalog.load_chip(name).memory.capacity) == pytest.approx(gib * GIB, rel=1e-3)


def evaluate(system):
    return jc.evaluate(system, jc.load_model("llama-3.1-8b"), jc.Traffic(prompt=64, output=8), jc.Plan())


def test_withheld_bytes_are_bought_and_do_not_hold_data():
    system = jc.load_system("h100-sxm")
    memory = system.chip.memory
    made = float(memory.capacity + memory.withheld)
    assert float(memory_price(memory, 0.0)) == pytest.approx(made * float(memory.price_per_byte))
    report = evaluate(system)
    per_byte = float(memory.carbon_per_byte / system.chip.package.assembly_yield)
    assert float(embodied(system.chip, report.build, ()).memory) == pytest.approx(made * per_byte, rel=1e-5)
    more = evaluate(replace_at(system, "chip.memory.withheld", 20 * memory.withheld))
    assert float(more.margins.memory) == float(report.margins.memory)
    assert float(more.gco2e_per_mtok) > float(report.gco2e_per_mtok)


def test_withheld_bytes_have_a_gradient():
    slope = jax.grad(lambda s: evaluate(s).gco2e_per_mtok)(jc.load_system("h100-sxm")).chip.memory
    assert float(slope.withheld) > 0


def test_a_knob_of_stacks_scales_withheld_bytes():
    assert "system.chip.memory.withheld" in jc.stacks("system.chip.memory", 1, 8).paths
