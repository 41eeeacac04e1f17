"""The catalogue: every part loads, says where each number is from, and holds the values it should."""

import json
import math
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcost.core.bounds import Bounds
from jaxcost.core.pytree import field, pytree, replace, rows
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.parts import load_part
from jaxcost.edge.catalog.reading import quantities
from jaxcost.edge.catalog.schema import section
from jaxcost.edge.io.config import read_yaml
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.validation import validate
from jaxcost.spec.fabric import topology_id
from jaxcost.spec.prices import Prices

TYPED = [kind for kind, file_type in catalog.KINDS.items() if file_type is not None]
FILES = [(kind, name) for kind in TYPED for name in catalog.list_names(kind)]


def test_size():
    assert len(catalog.list_names("chips")) >= 40
    assert len(catalog.list_names("models")) >= 45


@pytest.mark.parametrize("kind", list(catalog.KINDS))
def test_names_are_sorted(kind):
    names = catalog.list_names(kind)
    assert names and names == sorted(names)


@pytest.mark.parametrize("name", catalog.list_names("chips"))
def test_chip_leaves(name):
    chip = catalog.load_chip(name)
    values = {path: float(x) for path, _, x in rows(chip)}
    assert all(math.isfinite(v) for v in values.values())
    assert {path for path, v in values.items() if v < 0} <= {"memory.price_trend"}
    # Cores and clock are not known of every chip, and then not counted.
    positive = [
        replace(chip.compute, cores=1.0, clock=1.0),
        chip.memory.capacity,
        chip.memory.bandwidth,
        chip.tdp,
        chip.die_area,
    ]
    positive += [chip.energy_per_flop, chip.energy_per_vector_flop, chip.energy_per_exponential]
    positive += [
        chip.on_chip_energy_per_byte,
        chip.process.fab_energy,
        chip.memory.energy_per_byte,
        chip.price,
    ]
    assert all(float(x) > 0 for x in jax.tree.leaves(positive))
    assert float(chip.idle_power) <= float(chip.tdp)


@pytest.mark.parametrize("name", catalog.list_names("chips"))
def test_memory_streams_at_its_peak_within_the_tdp(name):
    chip = catalog.load_chip(name)
    a_byte = float(chip.memory.energy_per_byte + chip.on_chip_energy_per_byte)
    assert float(chip.idle_power) + float(chip.memory.bandwidth) * a_byte < float(chip.tdp)


@pytest.mark.parametrize("name", catalog.list_names("memories"))
def test_memories_load(name):
    values = {path: float(x) for path, _, x in rows(catalog.load_memory(name))}
    assert all(math.isfinite(v) for v in values.values())
    assert {path for path, v in values.items() if v < 0} <= {"price_trend"}


@pytest.mark.parametrize("name", catalog.list_names("models"))
def test_models_load(name):
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(catalog.load_model(name)))


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_provenance_and_bounds(kind, name):
    path = catalog.configs_root() / kind / f"{name}.yaml"
    part, _ = load_part(kind, name)
    # Sections as well: catalog.quantities checks low <= value <= high.
    for part_of, prefix in [(part, ""), *((getattr(part, f), f"{f}.") for f in type(part).model_fields)]:
        if hasattr(part_of, "model_fields_set"):
            catalog.quantities(part_of, path, prefix)
    entries = catalog.provenance(kind, name)
    assert entries or kind == "systems"
    for where, value, unit, source, date, how, low, high in entries:
        assert where and unit and source.strip() and date.strip(), where
        assert isinstance(value, str | int | float) and how in {"datasheet", "paper", "measured", "estimate"}
        assert how != "estimate" or (low is not None and high is not None), where


@pytest.mark.parametrize("name", catalog.list_names("models"))
def test_models_have_a_source(name):
    entries = catalog.provenance("models", name)
    assert entries and all(source and date and kind for _, _, _, source, date, kind, _, _ in entries)


@pytest.mark.parametrize(
    "name", [*catalog.list_names("systems"), "h100-sxm", "h100-sxm-x8", "h100-x3", "tpu-v5e-x256"]
)
def test_systems_load(name):
    start = time.perf_counter()
    system = catalog.load_system(name)
    assert time.perf_counter() - start < 0.5
    assert float(system.chips) >= 1 and float(system.fabric.domain) >= 1
    assert all(math.isfinite(float(x)) for x in jax.tree.leaves(system))


def test_system_of_n_chips():
    one, many, alias = (catalog.load_system(n) for n in ("h100-sxm", "h100-sxm-x24", "h100-x24"))
    assert (float(one.chips), float(many.chips)) == (1, 24)
    assert [float(x) for x in jax.tree.leaves(many)] == [float(x) for x in jax.tree.leaves(alias)]
    assert float(catalog.load_system("dgx-h100").chips) == 8


def test_spot_values():
    h100 = catalog.load_chip("h100-sxm")
    assert float(h100.memory.bandwidth) == pytest.approx(3.35e12, rel=1e-6)
    assert float(h100.memory.capacity) == pytest.approx(79.19 * 2**30, rel=1e-6)
    assert float(h100.compute.flops_16) == pytest.approx(989e12, rel=1e-6)
    assert float(catalog.load_memory("hbf").capacity) == pytest.approx(512e9, rel=1e-6)
    system = catalog.load_system("h100-sxm-x8")
    link, landing = system.fabric.scale_up, 2 * float(system.chip.memory.latency)
    # Measured between two: starting, a round, landing and two hops.
    assert float(link.launch + link.overhead + 2 * link.latency) + landing == pytest.approx(2.8e-6, rel=1e-6)
    assert catalog.title("chips", "h100") == "NVIDIA H100 SXM"


def test_a_system_file_gives_packages_wiring_and_reliability(tmp_path):
    number = lambda value: {"value": value, "source": "s", "date": 1, "kind": "paper"}  # noqa: E731
    tree = {
        "title": "t",
        "chip": "h100-sxm",
        "chips": 64,
        "package_chips": number(4),
        "package": {"fabric": "ucie-advanced", "bandwidth": number("2 TB/s")},
        "scale_up": {
            "fabric": "nvlink4",
            "bandwidth": number("450 GB/s"),
            "topology": "torus",
            "dimensions": number(3),
        },
        "background_message": number("8 KiB"),
        "reliability": {"jitter": number("1 us"), "timeout": number("5 us"), "spares": number(2)},
    }
    path = tmp_path / "system.json"
    path.write_text(json.dumps(tree))
    system = catalog.load_system(str(path))
    fabric = system.fabric
    assert (float(fabric.package_chips), float(fabric.domain), float(system.spares)) == (4, 8, 2)
    assert float(fabric.scale_up.topology) == topology_id("torus") and float(fabric.scale_up.dimensions) == 3
    assert float(fabric.package.topology) == topology_id("mesh") and float(fabric.package.sram_landing) == 1
    assert float(fabric.scale_out.topology) == topology_id("fat-tree")
    assert float(fabric.timeout) == pytest.approx(5e-6) and float(fabric.background_message) == 8192
    assert float(catalog.load_system("tpu-v5p-64").fabric.scale_up.dimensions) == 3
    with pytest.raises(ValueError, match="no topology 'rong'"):
        topology_id("rong")


def test_efficiency():
    assert set(catalog.list_names("efficiency")) >= {"ideal", "typical"}
    ideal, typical = catalog.load_efficiency("ideal"), catalog.load_efficiency("typical")
    assert [float(x) for x in jax.tree.leaves(ideal)] == [1, 1, 1, 1, 0, 0]
    assert 0 < float(typical.matmul) < 1 and float(typical.operator_overhead) > 0
    assert float(catalog.load_system("h100-sxm", efficiency="typical").chip.efficiency.matmul) < 1


def test_prices_are_the_defaults():
    loaded = [float(x) for x in jax.tree.leaves(catalog.load_prices())]
    np.testing.assert_allclose(loaded, jax.tree.leaves(Prices()), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e12", 1e12),
        ("1.0e12", 1e12),
        ("NO", "NO"),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("010", 10),
        ("true", True),
    ],
)
def test_yaml_is_1_2(tmp_path, text, value):
    path = tmp_path / "a.yaml"
    path.write_text(f"key: {text}\n")
    got = read_yaml(path)["key"]
    assert got == value and type(got) is type(value)


def test_a_file_takes_every_number_of_its_tree_as_declared():
    """A number that is added to a tree of `spec` stands in its file at once."""

    @pytree
    class Cooler:
        """A part that a file describes."""

        flow: float = field("m^3/s", "what passes", default=0.0)
        share: float = field("1", "a part of it", default=0.5, bounds=Bounds(0.25, 0.75))
        name: str = field(doc="no number", default="", static=True)

    File = section(Cooler, required="flow", positive="flow", names={"share": "part"})
    entry = {"source": "a test", "date": "2026-11", "kind": "measured"}
    read = lambda **values: quantities(  # noqa: E731
        validate(File, {k: entry | {"value": v} for k, v in values.items()}, file="cooler.yaml"),
        Path("cooler.yaml"),
    )
    assert list(File.model_fields) == ["flow", "part"]
    assert read(flow="0.002 m^3/s", part=0.5) == {"flow": pytest.approx(2e-3), "share": 0.5}
    for values, path, expected in (
        ({"flow": "0 m^3/s"}, "flow", "more than zero"),
        ({"flow": "1 m^3/s", "part": 0.8}, "part", "at least 0.25 and at most 0.75"),
        ({"part": 0.5}, "flow", "this key, which is missing"),
        ({"flow": "1 m^3/s", "share": 0.5}, "share", "one of flow, part"),
    ):
        with pytest.raises(InputError, match=f"cooler.yaml: {path}: .*expected {expected}"):
            read(**values)
