"""Units of the table: equal to Pint's to the last bit, and read without importing it."""

import subprocess
import sys

import pytest
from hypothesis import given, settings, strategies as st

from jaxcost.edge.catalog.loaders import configs_root
from jaxcost.edge.catalog.parts import KINDS, list_names, provenance
from jaxcost.edge.io import quantity
from jaxcost.edge.io.config import read_yaml
from jaxcost.edge.io.quantity import parse_quantity

TABLE = [(unit, text, factor) for unit, texts in quantity._FACTORS.items() for text, factor in texts.items()]


def quantities_of(tree):
    """Every text of a file that starts with a number and ends with a unit."""
    if isinstance(tree, dict | list):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from quantities_of(branch)
    elif isinstance(tree, str) and (form := quantity._FORM.fullmatch(tree)) and form[2]:
        yield form[2].replace("%", "percent")


def pint_value(text, unit):
    form = quantity._FORM.fullmatch(text)
    assert form
    return float(form[1]) * quantity._pint_factor(
        form[2].replace("%", "percent"), "" if unit == "1" else unit
    )


def test_every_factor_is_that_of_pint():
    assert len(TABLE) > 300
    for unit, text, factor in TABLE:
        assert factor == quantity._pint_factor(text, unit), (text, unit)


@pytest.mark.parametrize("kind", [kind for kind, file_type in KINDS.items() if file_type is not None])
def test_quantities_of_the_catalogue_need_no_pint(kind, monkeypatch):
    rows = [
        (v, row[2]) for name in list_names(kind) for row in provenance(kind, name) for v in (row[1], *row[6:])
    ]
    texts = sorted({row for row in rows if isinstance(row[0], str)})
    expected = [pint_value(*row) for row in texts]
    monkeypatch.setattr(quantity, "_pint_factor", lambda *a: pytest.fail(f"Pint for {a}"))
    assert [parse_quantity(*row) for row in texts] == expected


@pytest.mark.parametrize("kind", ["spaces", "studies"])
def test_quantities_of_spaces_and_studies_are_in_the_table(kind):
    texts = {
        text
        for name in list_names(kind)
        for text in quantities_of(read_yaml(configs_root() / kind / f"{name}.yaml"))
    }
    known = {text for _, text, _ in TABLE}
    assert {text for text in texts if "/" in text or text in ("W", "us", "ms", "GB")} <= known


def test_examples_of_errors_are_quantities_in_the_table(monkeypatch):
    monkeypatch.setattr(quantity, "_pint_factor", lambda *a: pytest.fail(f"Pint for {a}"))
    for unit, example in quantity._EXAMPLES.items():
        assert parse_quantity(example, unit) > 0


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-9, 100), st.sampled_from(TABLE))
def test_any_number_with_a_unit_of_the_table(number, row):
    unit, text, _ = row
    if text in ("mB", "pB", "mB/s", "pB/s", "USD/mB", "USD/pB", "kg/mB", "kg/pB"):
        return  # refused: small letters for large prefixes
    value = number * quantity._pint_factor(text, unit)
    assert parse_quantity(f"{number!r} {text}", unit or "1") == value


def test_units_that_are_not_in_the_table_go_to_pint():
    assert "kibibyte/second" not in quantity._FACTORS["B/s"]
    assert parse_quantity("2 kibibyte/second", "B/s") == 2048
    assert parse_quantity("3 TB / s", "B/s") == parse_quantity("3 TB/s", "B/s")


def test_a_system_loads_without_slow_packages():
    code = """
import sys
import jaxcost.edge.studies.study_file, jaxcost.edge.studies.reducer_file, jaxcost.edge.io.write
slow = {"matplotlib", "scipy", "pyarrow", "flax", "pint"}
print(sorted(slow & set(sys.modules)))
import jaxcost as jc
jc.load_system("h100-sxm-x8"), jc.load_space("million")
print("pint" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]
