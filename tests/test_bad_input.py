"""Every bad input ends in one line that says where it stands and what was expected there."""

import copy
import math

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from ruamel.yaml import YAML

from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.io.config import read_json, read_yaml
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.studies.space_file import load_space

CONFIGS = catalog.configs_root()
H100 = read_yaml(CONFIGS / "chips" / "h100-sxm.yaml")
LINK = H100["scale_up"]["bandwidth"]
NVLINK = {"fabric": "nvlink4", "bandwidth": LINK}
GONE = "<gone>"


def number(value):
    return {"value": value, "source": "s", "date": 1, "kind": "paper"}


def label(v):
    """Name a case the same in every process: no addresses."""
    return getattr(v, "__name__", str(v))[:24]


FUZZ = settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def refused(call, *arguments, shows=(), **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text and "expected" in text
    for part in shows:
        assert part in text, text
    return text


def edited(base, path, value):
    tree = copy.deepcopy(base)
    *parents, last = path.split(".")
    at = tree
    for key in parents:
        at = at[key]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return tree


def written(folder, tree, name="part.yaml"):
    path = folder / name
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(tree, file)
    return str(path)


QUANTITIES = [
    80,
    3.5,
    "80",
    "3 gb/s",
    "3.35 TB",
    "80 Gb",
    "",
    " ",
    "nan TB/s",
    "inf TB/s",
    "-3 TB/s",
    "1e999 TB/s",
]
QUANTITIES += [
    "TB/s",
    "3..5 TB/s",
    "3 TB/s/s",
    [3],
    {},
    None,
    True,
    "10 furlong",
    "3 µB/s",
    "3 TB/s²",
    "3__4 TB/s",
]
QUANTITIES += [
    "3_ TB/s",
    "1e40 B/s",
    10**400,
    "1 B^(9^9^9)/s",
    "1 B^9^9^9^9/s",
    "1 (B/s",
    "1 B/0 s",
    "1 B/s\n2",
]
QUANTITIES += [
    "1 TB/s + 1 TB/s",
    "__import__('os')",
    "1 B and s",
    "3 tB/s",
    "9" * 5000 + " B/s",
    float("nan"),
]


@pytest.mark.parametrize("value", QUANTITIES, ids=lambda v: repr(v)[:24])
def test_quantity(value):
    refused(parse_quantity, value, "B/s", file="chip.yaml", path="memory.bandwidth",
            shows=("chip.yaml: memory.bandwidth: ", "B/s"))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [("3.35 TB/s", "B/s", 3.35e12), ("1 GiB", "B", 2**30), ("400 Gbit/s", "B/s", 5e10), ("814 mm^2", "m^2", 814e-6),
     ("5 %", "1", 0.05), ("1_000 W", "W", 1000), ("3.9e12 1/s", "1/s", 3.9e12), ("1 kg/m**2", "kg/m^2", 1),
     ("481 g/kWh", "kg/J", 0.481 / 3.6e6), (8, "1", 8)],
)  # fmt: skip
def test_good_quantity(text, unit, value):
    assert parse_quantity(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.yaml", b""),
        ("white.yaml", b" \n\n"),
        ("cut.yaml", b"a: [1, 2"),
        ("tab.yaml", b"a:\n\tb: 1"),
        ("twice.yaml", b"a: 1\na: 2"),
        ("list.yaml", b"- 1"),
        ("number.yaml", b"3"),
        ("binary.yaml", b"\0\1\2"),
        ("weights.safetensors", b"x"),
        ("latin.yaml", b"a: \xff\xfe"),
        ("key.yaml", b"1: 2"),
        ("two.yaml", b"a: 1\n---\nb: 2"),
        ("tag.yaml", b"a: !!python/object:os.system 1"),
        ("alias.yaml", b"a: *b"),
        ("long.yaml", b"a: " + b"1" * 5000),
        ("deep.yaml", b"[" * 2000),
    ],
)
def test_yaml_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(read_yaml, tmp_path / name, shows=(name,))
    refused(catalog.load_chip, str(tmp_path / name), shows=(name,))


def test_yaml_is_read_in_the_core_schema(tmp_path):
    plain = ["yes", "on", "2025-01-02", "1_000", "0b1", "12:30", "1e3x", ".", "e5"]
    typed = {"010": 10, "0o10": 8, "0x1F": 31, "+3": 3, "1e3": 1e3, ".5": 0.5, "-.inf": -math.inf, "1.": 1.0}
    typed |= {"true": True, "False": False, "~": None, "null": None, "": None}
    lines = [f"p{i}: {text}" for i, text in enumerate(plain)] + [
        f"t{i}: {text}" for i, text in enumerate(typed)
    ]
    path = tmp_path / "core.yaml"
    path.write_text("\n".join([*lines, "base: &base {a: 1}", "merged: {<<: *base, b: 2}"]))
    data = read_yaml(path)
    assert [data[f"p{i}"] for i in range(len(plain))] == plain
    for i, value in enumerate(typed.values()):
        assert data[f"t{i}"] == value
        assert type(data[f"t{i}"]) is type(value)
    assert data["merged"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.json", b""),
        ("cut.json", b'{"a":'),
        ("list.json", b"[1]"),
        ("nan.json", b'{"a": NaN}'),
        ("large.json", b'{"a": 1e999}'),
        ("twice.json", b'{"a": 1, "a": 2}'),
        ("weights.safetensors", b"x"),
        ("weights.bin", b"x"),
        ("binary.json", b"\0\1"),
        ("latin.json", b"\xff\xfe"),
        ("long.json", b'{"a": ' + b"1" * 5000 + b"}"),
        ("deep.json", b"[" * 100_000),
    ],
)
def test_json_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(read_json, tmp_path / name, shows=(name,))
    refused(catalog.load_model, str(tmp_path / name), shows=(name,))


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_no_file(tmp_path, read):
    refused(read, tmp_path / "none.yaml", shows=("none.yaml", "exists"))
    refused(read, tmp_path, shows=(tmp_path.name, "folder"))
    refused(read, tmp_path / ("a" * 400), shows=("aaaa",))
    (tmp_path / "file").write_text("a: 1")
    refused(read, tmp_path / "file" / "below.yaml", shows=("below.yaml",))


CHIPS = [
    ("memori", 1, "'memory'"),
    ("str", 1, "str: expected one of"),
    ("compute.flop_16", 1, "'flops_16'"),
    ("compute.str", 1, "compute.str"),
    ("memory.bandwidth.sorce", "x", "'source'"),
    ("tdp", GONE, "missing"),
    ("compute.flops_16", GONE, "missing"),
    ("tdp", 700, "an entry with value, source, date and kind"),
    ("tdp.source", GONE, "missing"),
    ("tdp.kind", "guess", "'datasheet'"),
    ("idle_power.low", GONE, "low and high"),
    ("idle_power.low", "80 W", "low <= value <= high"),
    ("idle_power.high", "70 W", "low <= value <= high"),
    ("memory.bandwidth.value", "0 TB/s", "more than zero"),
    ("memory.bandwidth.value", "3.35 TB", "3.35 TB/s"),
    ("memory.bandwidth.value", 3.35e12, "with its unit"),
    ("memory.bandwidth.value", "1e200 TB/s", "finite"),
    ("memory.type", "hbm33", "'hbm3'"),
    ("memory.type", "a" * 400, "aaa"),
    ("silicon", "n44", "'n4'"),
    ("year", "2022", "integer"),
    ("aliases", "h100", "list"),
    ("compute", None, "mapping"),
    ("compute", [1], "mapping"),
    ("title", None, "text"),
    ("domain.value", -1, "not negative"),
]


@pytest.mark.parametrize(("path", "value", "hint"), CHIPS, ids=label)
def test_chip_file(tmp_path, path, value, hint):
    given_path = written(tmp_path, edited(H100, path, value))
    where = path.removesuffix(".value").removesuffix(".low") if value is GONE else path.removesuffix(".value")
    refused(catalog.load_chip, given_path, shows=("part.yaml", where, hint))


@pytest.mark.parametrize(
    ("path", "value", "hint"),
    [
        ("chip", "h100-smx", "'h100-sxm'"),
        ("chips", 0, "at least 1|between 1"),
        ("chips", 10**400, "between 1"),
        ("chips", "8", "integer"),
        ("host", "servr-8", "'server-8'"),
        ("efficiency", "typicl", "'typical'"),
        ("scale_up", {"fabric": "nvlink44", "bandwidth": LINK}, "'nvlink4'"),
        ("scale_up", {"fabric": "nvlink4", "bandwith": LINK}, "'bandwidth'"),
        ("scale_up", NVLINK | {"topology": "rong"}, "'ring'"),
        ("scale_up", NVLINK | {"dimensions": number(0)}, "at least 1"),
        ("scale_up", NVLINK | {"background": number(1)}, "at most 0.999"),
        ("scale_out", NVLINK | {"taper": number(0)}, "more than 0"),
        ("package", NVLINK | {"latency": number("-1 ns")}, "not negative"),
        ("reliability", {"spares": number(9)}, "at most 8"),
        ("reliability", {"jitter": number("1 m")}, "s"),
        ("domain", {"value": "8 m", "source": "s", "date": 1, "kind": "paper"}, "a number"),
        ("host_", "none", "'host'"),
    ],
    ids=label,
)
def test_system_file(tmp_path, path, value, hint):
    tree = {"title": "t", "chip": "h100-sxm", "chips": 8, path: value}
    text = refused(catalog.load_system, written(tmp_path, tree), shows=("part.yaml", path))
    assert any(h in text for h in hint.split("|")), text


@pytest.mark.parametrize(
    ("kind", "field", "part", "entry", "value"),
    [
        ("silicon", "silicon", "n4", "clustering", 0),
        ("silicon", "silicon", "n4", "wafer_price", "0 USD"),
        ("packages", "packaging", "cowos-s", "assembly_yield", 0),
        ("packages", "packaging", "cowos-s", "assembly_yield", 1.2),
    ],
)
def test_dies_and_packages_that_cannot_be(tmp_path, kind, field, part, entry, value):
    tree = read_yaml(CONFIGS / kind / f"{part}.yaml")
    tree[entry] = {"value": value, "source": "s", "date": 1, "kind": "paper"}
    chip = edited(H100, field, written(tmp_path, tree, "bad.yaml"))
    refused(catalog.load_chip, written(tmp_path, chip), shows=("bad.yaml", entry))


@pytest.mark.parametrize("value", [1.2, 0, -0.5, "abc", "0.7 m", float("nan")])
def test_efficiency_file(tmp_path, value):
    tree = edited(read_yaml(CONFIGS / "efficiency" / "typical.yaml"), "matmul.value", value)
    tree["matmul"] |= {"low": 0, "high": 9}
    refused(catalog.load_efficiency, written(tmp_path, tree), shows=("part.yaml", "matmul"))


@pytest.mark.parametrize(
    ("load", "name", "hint"),
    [
        (catalog.load_system, "h100-smx-x8", "'h100-sxm-x8'"),
        (catalog.load_system, "", "system"),
        (catalog.load_system, "h100-sxm-x0", "between 1 and"),
        (catalog.load_system, "h100-sxm-x99999999", "between 1 and"),
        (catalog.load_system, "h100-sxm-x", "'h100-sxm"),
        (catalog.load_system, "dgx-h10", "'dgx-h100'"),
        (catalog.load_system, "a" * 400, "aaa"),
        (catalog.load_system, None, "system"),
        (catalog.load_chip, "", "chips"),
        (catalog.load_chip, "h100-sxn", "'h100-sxm'"),
        (catalog.load_chip, 3, "3"),
        (catalog.load_chip, "a\0b", "chips"),
        (catalog.load_chip, "~no-such-user/chip.yaml", "chip.yaml"),
        (catalog.load_model, "lama-3.1-70b", "'llama-3.1-70b'"),
        (catalog.load_model, "", "models"),
        (catalog.load_model, "a" * 400, "aaa"),
        (catalog.load_memory, "hbff", "'hbf'"),
        (catalog.load_efficiency, "typicl", "'typical'"),
        (catalog.load_prices, "defaul", "'default'"),
        (catalog.list_names, "chip", "'chips'"),
        (catalog.list_names, ["chips"], "chips"),
        (load_space, "milion", "'million'"),
        (load_space, "a" * 400, "aaa"),
    ],
    ids=label,
)
def test_name(load, name, hint):
    refused(load, name, shows=(hint,))


@pytest.mark.parametrize(
    ("key", "value", "where", "hint"),
    [
        ("axs", {}, "axs", "'axes'"),
        ("axes", [1], "axes", "mapping"),
        ("axes", {"trafic.batch": [1]}, "axes.trafic.batch", "'traffic.batch'"),
        ("axes", {"traffic.batch": []}, "axes.traffic.batch", "list"),
        ("axes", {"traffic.batch": {"log": [4, 1, 3]}}, "axes.traffic.batch", "low < high"),
        ("axes", {"traffic.batch": {"log": [1, 4, 1]}}, "axes.traffic.batch", "at least 2|from 2"),
        ("axes", {"traffic.batch": {"log": [1, 4, 10**12]}}, "axes.traffic.batch", "from 2"),
        ("axes", {"traffic.batch": {"log": [0, 4, 3]}}, "axes.traffic.batch", "low < high"),
        ("axes", {"traffic.batch": [1e300]}, "axes.traffic.batch", "finite"),
        ("axes", {"system.chip.memory.bandwidth": ["3 TB"]}, "memory.bandwidth", "B/s"),
        ("axes", {"plan.weight_bits": ["fp7"]}, "axes.plan.weight_bits", "'fp8'"),
        ("models", ["lama-3.1-8b"], "models", "'llama-3.1-8b'"),
        ("models", [], "models", "list"),
        ("systems", ["h100-smx-x8"], "systems", "'h100-sxm-x8'"),
        ("efficiency", "idel", "efficiency", "'ideal'"),
        ("prices", "defualt", "prices", "'default'"),
        ("axes", {"plan.weight_bits": [64]}, "axes.plan.weight_bits", "(0, 32]"),
        ("plan", {"kv_bits": True}, "plan.kv_bits", "(0, 32]"),
        ("axes", {"traffic.batch": {"scale": [1], "log": [1, 2, 3]}}, "axes.traffic.batch", "scale"),
        ("objective", "usd_per_mtk", "objective", "'usd_per_mtok'"),
        ("traffic", {"promt": 1}, "traffic.promt", "'prompt'"),
        ("traffic", 3, "traffic", "mapping"),
        ("plan", {"weight_bits": "fp7"}, "plan.weight_bits", "'fp8'"),
    ],
    ids=lambda v: str(v)[:32],
)
def test_space_file(tmp_path, key, value, where, hint):
    tree = {
        "models": ["llama-3.1-8b"],
        "systems": ["h100-sxm-x8"],
        "axes": {"traffic.batch": [1]},
        key: value,
    }
    text = refused(load_space, written(tmp_path, tree), shows=(where, *(["part.yaml"] if where else [])))
    assert any(h in text for h in hint.split("|")), text


def test_space_of_any_size(tmp_path):
    line = {"linear": [1, 100_000, 100_000]}
    tree = {"models": "llama-3.1-8b", "systems": "h100-sxm-x8"}
    tree["axes"] = {"traffic.batch": line, "traffic.prompt": line}
    assert load_space(written(tmp_path, tree)).size == 10**10
    tree["axes"] = {"traffic.batch": {"linear": [1, 2, 10**7]}}
    refused(load_space, written(tmp_path, tree), shows=("part.yaml", "traffic.batch", "1,000,000"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    refused(load_space, str(tmp_path / "list.yaml"), shows=("list.yaml", "mapping"))


UNITS = st.text(alphabet="0123456789.eE+-_ /*^()%kKMGTPiBbsWJgmUSDFLO", max_size=16)


@FUZZ
@given(
    st.one_of(st.text(max_size=30), UNITS, UNITS.map(lambda t: "1 " + t)), st.sampled_from(["B/s", "1", "J"])
)
def test_fuzz_quantity(text, unit):
    try:
        value = parse_quantity(text, unit, file="f")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert math.isfinite(value) and value >= 0


def _paths(tree, prefix=""):
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")


JUNK = st.one_of(
    st.just(GONE), st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["value", "str", "x"]), st.integers(), max_size=2),
    st.sampled_from(["", "0 B/s", "1 W", "-1", "hbm3", "n5", "none", "1e30 W"]),
    st.text(alphabet="abc 019.", max_size=6),
)  # fmt: skip


@FUZZ
@given(st.sampled_from(sorted(_paths(H100))), JUNK)
def test_fuzz_chip(tmp_path, path, value):
    name = written(tmp_path, edited(H100, path, value))
    try:
        assert isinstance(catalog.load_chip(name), type(catalog.load_chip("h100-sxm")))
    except InputError as error:
        assert "\n" not in str(error)


@FUZZ
@given(st.one_of(st.text(max_size=40), st.text(alphabet='{}[]":,01e-aN ', max_size=20)))
def test_fuzz_json(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8", errors="ignore")
    try:
        assert isinstance(read_json(path), dict)
    except InputError as error:
        assert "\n" not in str(error) and "config.json" in str(error)
