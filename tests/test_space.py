"""Spaces: every design once whatever the conditions, found again by its index, the same on the device and off it."""

import itertools
import operator

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxcost as jc
from jaxcost.core.pytree import canonical
from jaxcost.edge.catalog.loaders import grid_leaves, load_host
from jaxcost.edge.catalog.set_option import read_settings, set_in_space
from jaxcost.edge.studies.space_file import read_space, read_space_data
from jaxcost.explore.space import (
    Axis,
    ChoiceAxis,
    Space,
    Tied,
    axis_indices_at,
    build_designs,
    choice,
    coordinates,
    cursor_at,
    design_at,
    linear_range,
    log_range,
    sample,
    space_features,
    unravel_index,
)
from jaxcost.spec.design import Design

MIXED = """
models: [llama-3.1-8b, mixtral-8x7b]
systems: [h100-sxm-x8, h200-sxm-x8]
axes:
  traffic.batch: [1, 4, 16]
  system.chip.memory: {choose: ["hbm3e:8", "hbm4:6"]}
  system.chip.memory.bandwidth: {scale: {log: [0.5, 2, 3]}}
  system.chip.hbf: {choose: [none, "hbf:4", "hbf:2:chained"]}
  system.chip.hbf.bandwidth: {scale: [0.5, 2], when: {system.chip.hbf: ["hbf:4", "hbf:2:chained"]}}
  system.chip.hbf.near: {choose: [none, hbf-base-die], when: {system.chip.hbf: "hbf:4"}}
  plan.ep: {values: [1, 2, 8], when: {model: mixtral-8x7b, traffic.batch: {at_least: 4}}}
  system.fabric.scale_up.topology: [ring, switch]
  prices.grid: [norway, poland-is-not-there]
tied:
  - {plan.tp: [1, 2, 4], plan.dp: [8, 4, 2], when: {system.fabric.scale_up.topology: ring}}
sample:
  method: latin
  count: 5
  seed: 3
  knobs:
    system.chip.tdp: {scale: {log: [0.5, 2]}}
    traffic.prompt: {linear: [1, 4096], whole: true}
    plan.kv_bits: [8, nvfp4]
    system.host: {choose: [none, server-8]}
  when: {plan.dp: {at_most: 4}}
"""


def written(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    text = MIXED.replace("poland-is-not-there", "usa")
    return jc.load_space(written(tmp_path_factory.mktemp("space"), text))


def base(systems=1, models=1):
    stacked = [jc.System(chips=float(i + 1)) for i in range(systems)]
    model = [jc.replace(jc.load_model("llama-3.1-8b"))] * models
    names = tuple(f"s{i}" for i in range(systems)), tuple(f"m{i}" for i in range(models))
    return {
        "base": canonical(Design(system=jc.stack(stacked), model=jc.stack(model))),
        "systems": names[0],
        "models": names[1],
    }


def axis(path, *values, **options):
    return Axis(path=path, values=jax.numpy.asarray(values, float), **options)


def by_brute_force(space):
    """Every design once: all full combinations, what is inactive put to -1 from the first axis on."""
    allowed = [[(space.names.index(name), set(some)) for name, some in axis.when] for axis in space.axes]
    found = set()
    for full in itertools.product(*map(range, space.shape)):
        own = list(full)
        for k, clauses in enumerate(allowed, 2):
            if any(own[j] not in some for j, some in clauses):
                own[k] = -1
        found.add(tuple(own))
    return found


@jax.jit
def axis_indices_of(space, cursor, offsets):
    return jax.vmap(lambda offset: axis_indices_at(space, cursor, offset))(offsets)


def all_axis_indices(space):
    rows, index, block = [], 0, 1 << 12  # of one length, for one compilation
    while index < space.size:
        cursor, left = cursor_at(space, index)
        rows.append(np.asarray(axis_indices_of(space, cursor, np.arange(block, dtype=np.int32)))[:left])
        index += len(rows[-1])
    return np.concatenate(rows)


def value_of(design, path):
    return np.asarray(operator.attrgetter(path)(design))


def test_without_conditions_indices_mean_mixed_radix():
    space = jc.load_space("million")
    assert len(space.subgrids) == 1 and space.subgrids[0].size == space.size == np.prod(space.shape)
    for index in (0, 1, 777_777, space.size - 1):
        cursor, left = cursor_at(space, index)
        assert left == space.size - index
        assert tuple(int(d) for d in axis_indices_at(space, cursor, 0)) == unravel_index(index, space.shape)
    traced = jax.jit(lambda i: design_at(space, i).plan.tp)
    for index in (0, np.int64(40_000)):
        assert traced(np.int32(index)) == design_at(space, index).plan.tp


def test_every_design_of_a_mixed_space_once(mixed):
    rows = [tuple(row) for row in all_axis_indices(mixed).tolist()]
    assert len(rows) == mixed.size == len(set(rows))
    assert set(rows) == by_brute_force(mixed)
    assert mixed.names[-2:] == ("plan.tp+plan.dp", "sample")
    for subgrid in mixed.subgrids:
        inside = rows[subgrid.start : subgrid.start + subgrid.size]
        assert inside == list(itertools.product(*(own.tolist() for own in subgrid.axis_indices)))
    assert [c.start for c in mixed.subgrids[1:]] == [c.start + c.size for c in mixed.subgrids[:-1]]


def test_one_compilation_serves_all_cases_and_borders(mixed):
    traces = []

    @jax.jit
    def row(space, cursor, offset):
        traces.append(1)
        return axis_indices_at(space, cursor, offset)

    expected = all_axis_indices(mixed)
    starts = [subgrid.start for subgrid in mixed.subgrids]
    for start in {0, 1, *starts, *(s - 1 for s in starts[1:]), mixed.size - 1}:
        cursor, left = cursor_at(mixed, start)
        for offset in {0, 1, left // 2, left - 1} & set(range(left)):
            assert np.array_equal(row(mixed, cursor, np.int32(offset)), expected[start + offset])
    assert len(mixed.subgrids) == 27 and len(traces) == 1  # no more grids than there are ways to be active


def test_coordinates_are_what_designs_hold(mixed):
    index = np.sort(np.random.default_rng(0).integers(0, mixed.size, 300))
    table, rows = coordinates(mixed, index), all_axis_indices(mixed)[index]
    plain = jc.replace(mixed, axes=())
    paths = (
        *(
            "traffic.batch",
            "plan.ep",
            "plan.tp",
            "plan.dp",
            "traffic.prompt",
            "plan.kv_bits",
            "system.chip.tdp",
        ),
        *("system.host.price", "system.fabric.scale_up.topology", "prices.grid_carbon", "prices.grid_swing"),
        *(f"system.chip.memory.{leaf}" for leaf in ("capacity", "bandwidth", "latency")),
        *(
            f"system.chip.hbf.{leaf}"
            for leaf in ("capacity", "bandwidth", "chained", "near.flops", "near.shard")
        ),
    )

    def leaves(space, row):
        design = build_designs(space, row)
        return {path: operator.attrgetter(path)(design) for path in paths}

    several = jax.jit(jax.vmap(leaves, in_axes=(None, 0)))
    held, before = (
        jax.tree.map(np.asarray, several(*arguments)) for arguments in ((mixed, rows), (plain, rows[:, :2]))
    )
    for path in paths[:6]:  # numbers set, or left as they were
        inactive = np.isnan(table[path])
        assert np.array_equal(held[path], np.where(inactive, before[path], table[path])), path
    for path in ("plan.ep", "plan.dp", "traffic.prompt"):
        assert 0 < np.isnan(table[path]).sum() < len(index)
    scale = np.nan_to_num(table["system.chip.tdp"], nan=1.0)
    assert np.array_equal(held["system.chip.tdp"], before["system.chip.tdp"] * scale)

    def chosen(path, leaf, by_name):
        expected = [by_name[name] for name in table[path].tolist()]
        assert np.array_equal(held[leaf], np.asarray(expected, held[leaf].dtype)), leaf

    memories = {"hbm3e:8": jc.load_memory("hbm3e", stacks=8), "hbm4:6": jc.load_memory("hbm4", stacks=6)}
    for leaf in ("capacity", "latency"):
        by_name = {name: getattr(tree, leaf) for name, tree in memories.items()}
        chosen("system.chip.memory", f"system.chip.memory.{leaf}", by_name)
    bandwidth = np.asarray([memories[name].bandwidth for name in table["system.chip.memory"].tolist()])
    assert np.array_equal(
        held["system.chip.memory.bandwidth"], bandwidth * table["system.chip.memory.bandwidth"]
    )
    flash = {"none": 0.0, "hbf:4": 4.0, "hbf:2:chained": 2.0}
    one, engine = jc.load_memory("hbf"), jc.load_near("hbf-base-die")
    sizes = {name: n * one.capacity for name, n in flash.items()}
    chosen("system.chip.hbf", "system.chip.hbf.capacity", sizes)
    chosen("system.chip.hbf", "system.chip.hbf.chained", {"none": 0, "hbf:4": 0, "hbf:2:chained": 1})
    assert set(table["system.chip.hbf.near"].tolist()) == {"", "none", "hbf-base-die"}
    # Engines come one a stack, and there are four where they may be.
    engines = {"": 0, "none": 0, "hbf-base-die": 4 * engine.flops}
    chosen("system.chip.hbf.near", "system.chip.hbf.near.flops", engines)
    chosen(
        "system.chip.hbf.near",
        "system.chip.hbf.near.shard",
        dict.fromkeys(engines, 0) | {"hbf-base-die": engine.shard},
    )
    chosen("system.fabric.scale_up.topology", "system.fabric.scale_up.topology", {"ring": 0, "switch": 2})
    chosen(
        "prices.grid",
        "prices.grid_carbon",
        {name: grid_leaves(name)["grid_carbon"] for name in ("norway", "usa")},
    )
    price = {"none": load_host("none").price, "server-8": load_host("server-8").price}
    expected = [
        price.get(name, was)
        for name, was in zip(table["system.host"].tolist(), before["system.host.price"], strict=True)
    ]
    assert np.array_equal(held["system.host.price"], np.asarray(expected, held["system.host.price"].dtype))
    for i in (0, 150, 299):
        design = design_at(mixed, int(index[i]))
        assert all(value_of(design, path) == held[path][i] for path in paths)


LARGE = 1000


def large():
    """Two cases: 10^15 designs and 10^15 x 2^30 more, axes of prime and other lengths."""
    paths = ("traffic.batch", "traffic.prompt", "traffic.output", "plan.tp", "plan.pp")
    axes = [axis(path, *(np.arange(LARGE) + k / 8)) for k, path in enumerate(paths)]
    knobs = (log_range("system.chip.tdp", 10, 1000), linear_range("plan.cp", 1, 64, whole=True))
    points = sample(*knobs, count=1 << 30, method="random", when=(("model", (1,)),))
    return Space(axes=(*axes, points), **base(models=2))


def by_hand(space, index):
    subgrid = space.subgrid_at(index)
    local = unravel_index(index - subgrid.start, tuple(len(own) for own in subgrid.axis_indices))
    return tuple(int(own[i]) for i, own in zip(local, subgrid.axis_indices, strict=True))


@pytest.mark.parametrize(
    "index", [2**31 - 1, 2**31, 2**40 + 12345, 10**15 - 1, 10**15, 10**15 + 2**50, 10**15 * (2**30 + 1) - 1]
)
def test_indices_beyond_words(index):
    space = large()
    assert space.size == 10**15 * (2**30 + 1)
    assert by_hand(space, space.size - 1)[-1] == 2**30 - 1
    cursor, left = cursor_at(space, index)
    for offset in (0, 1, 999_999, 2**30 - 1):
        if offset < left:
            expected = by_hand(space, index + offset)
            assert (
                tuple(np.asarray(axis_indices_of(space, cursor, np.asarray([offset], np.int32)))[0])
                == expected
            )
    design, table = design_at(space, index), coordinates(space, [index, 0, index])
    for path in ("traffic.batch", "traffic.output", "plan.pp", "system.chip.tdp", "plan.cp"):
        assert table[path][0] == value_of(design, path) or np.isnan(table[path][0])
    assert np.isnan(table["plan.cp"][0]) == (index < 10**15)
    with pytest.raises(IndexError, match="no design"):
        design_at(space, space.size)
    with pytest.raises(IndexError, match="in a space of"):
        coordinates(space, [space.size])


def test_a_million_coordinates_in_int64_too():
    space = jc.replace(large(), axes=large().axes[:-1])
    index = np.random.default_rng(1).integers(0, space.size, 1_000_000)
    table = coordinates(space, index)
    back = np.ravel_multi_index(
        [(table["model"] == "m1").astype(int)]
        + [(table[a.path] - k / 8).round().astype(int) for k, a in enumerate(space.axes)],
        space.shape[1:],
    )
    assert np.array_equal(back, index)


PATHS = ("traffic.batch", "traffic.prompt", "plan.tp", "plan.pp", "plan.ep", "plan.dp")


@st.composite
def small_spaces(draw):
    axes, names, sizes = [], ["system", "model"], [draw(st.integers(1, 2)), draw(st.integers(1, 3))]
    count = draw(st.integers(0, 4))
    for path in PATHS[:count]:
        when = []
        for name in draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
            n = sizes[names.index(name)]
            when.append((name, tuple(draw(st.sets(st.integers(0, n - 1), min_size=1)))))
        size = draw(st.integers(1, 3))
        kind = draw(st.sampled_from(["axis", "sample", "choice"]))
        if kind == "axis":
            axes.append(axis(path, *range(size), when=tuple(when)))
        elif kind == "choice":
            axes.append(choice(path, {str(i): float(i) for i in range(size)}, when=tuple(when)))
        else:
            knob = linear_range(path, 0, 1)
            axes.append(sample(knob, count=size, method="random", name=path, when=tuple(when)))
        names.append(path)
        sizes.append(size)
    return Space(axes=tuple(axes), **base(*sizes[:2]))


@settings(max_examples=40, deadline=None)
@given(small_spaces())
def test_any_small_space_holds_every_design_once(space):
    rows = [by_hand(space, i) for i in range(space.size)]
    assert len(set(rows)) == len(rows) and set(rows) == by_brute_force(space)
    for index in {0, space.size // 2, space.size - 1}:
        cursor, left = cursor_at(space, index)
        with jax.disable_jit():
            assert tuple(axis_indices_at(space, cursor, left - 1).tolist()) == rows[index + left - 1]


def test_python_errors():
    tied = Tied(axes=(axis("plan.tp", 1, 2), axis("plan.pp", 1, 2, 3)))
    with pytest.raises(ValueError, match="equal numbers of values"):
        _ = Space(axes=(tied,), **base()).size
    late = (axis("plan.tp", 1, when=(("plan.pp", (0,)),)), axis("plan.pp", 1))
    with pytest.raises(ValueError, match="no axis before it"):
        _ = Space(axes=late, **base()).size
    with pytest.raises(ValueError, match="different names"):
        _ = Space(axes=(axis("plan.tp", 1), axis("plan.tp", 2)), **base()).size
    conditional = Space(axes=(axis("plan.tp", 1, 2, when=(("model", (0,)),)),), **base(models=2))
    with pytest.raises(ValueError, match="without conditions"):
        jax.jit(lambda i: design_at(conditional, i).plan.tp)(np.int32(0))


def test_features_are_of_any_design(mixed):
    assert set(space_features(mixed)) == {"hbf", "hbf.near"}
    zero, some = jc.Memory(), canonical(jc.Memory(capacity=1e12, bandwidth=1e12))
    flash = choice("system.chip.hbf", {"none": zero, "hbf": some})
    erased = axis("system.chip.hbf.capacity", 0)
    features = lambda *axes: set(space_features(Space(axes=axes, **base())))  # noqa: E731
    assert features() == set() and features(flash) == {"hbf"}
    assert features(flash, erased) == set()
    assert features(flash, jc.replace(erased, when=(("system.chip.hbf", (0,)),))) == {"hbf"}
    assert features(axis("system.chip.hbf.capacity", 2, 3, relative=True)) == set()
    # Bonds that all work are no feature; a factor on their yield makes one.
    assert features(axis("system.chip.stacking.bond_yield", 0.9, relative=True)) == {"stacking"}
    assert features(sample(log_range("system.chip.reserved", 1, 2), count=4)) == {"reserved"}
    assert features(Tied(axes=(axis("traffic.corpus", 0, 1), axis("plan.tp", 1, 2)))) == {"corpus"}


def test_gradients_pass_a_space(mixed):
    def of_scaled(system):
        space = jc.replace(mixed, base=jc.replace(mixed.base, system=system))
        return design_at(space, mixed.size - 1).system.chip.tdp

    slope = jax.grad(of_scaled)(mixed.base.system).chip.tdp
    assert slope[0] == 0 and slope[1] > 0


@pytest.mark.parametrize(
    "setting",
    [
        "system.chip.memory.latency=1 us",
        "prices.grid=usa",
        "prices.grid_swing=0.1",
        "plan.tp=2",
        "plan.kv_bits=8",
    ],
)
def test_what_varies_cannot_be_set(mixed, setting):
    with pytest.raises(jc.InputError, match="no axis of the space"):
        set_in_space(mixed, read_settings([setting]))
    assert set_in_space(mixed, read_settings(["system.chip.tdp=500 W"])).base.system.chip.tdp[0] == 500


@pytest.mark.parametrize(
    ("name", "least", "features"),
    [
        ("memories", 200_000, {"hbf", "hbf.near", "memory.near"}),
        ("sobol", 1 << 20, set()),
        ("billion", 10**9, set()),
    ],
)
def test_spaces_of_the_catalogue(name, least, features):
    data, shown, path = read_space_data(name)
    space, objective, _ = read_space(name)
    assert shown == path.name == f"{name}.yaml" and data["objective"] == objective
    assert space.size >= least and set(space_features(space)) == features
    # The first line says how many designs there are.
    assert f"{space.size:,}" in path.read_text().splitlines()[0]


GOOD = {"models": ["llama-3.1-8b", "mixtral-8x7b"], "systems": ["h100-sxm-x8"]}
BATCH = {"traffic.batch": [1, 4]}


@pytest.mark.parametrize(
    ("tree", "where", "hint"),
    [
        (
            {"axes": {"system.chip.memry": {"choose": ["hbm3e:8"]}}},
            "axes.system.chip.memry",
            "'system.chip.memory'",
        ),
        ({"axes": {"system.chip.memory": {"choose": ["hbm3f:8"]}}}, "chip.memory", "'hbm3"),
        ({"axes": {"system.chip.memory": {"choose": ["none"]}}}, "chip.memory", "main one"),
        ({"axes": {"system.chip.memory": {"log": [1, 2, 3]}}}, "chip.memory", "names to choose"),
        ({"axes": {"system.chip.hbf": ["hbf:x"]}}, "chip.hbf", "TYPE:N"),
        ({"axes": {"system.chip.hbf": ["hbf:4", "hbf:4"]}}, "chip.hbf", "once"),
        ({"axes": {"prices": {"choose": ["phon"]}}}, "axes.prices", "'phone'"),
        ({"axes": {"prices": ["none"]}}, "axes.prices", "list prices"),
        ({"axes": {"prices.grid": ["norwy"]}}, "axes.prices.grid", "'norway'"),
        ({"axes": {"system.fabric.scale_up.topology": ["rng"]}}, "topology", "'ring'"),
        ({"axes": {"system.chip.hbf.near": ["none", "hbf-base"]}}, "hbf.near", "'hbf-base-die'"),
        ({"axes": {"prices.grid": ["norway"], "prices.grid_swing": [0.1]}}, "prices.grid_swing", "undo"),
        ({"axes": {"system.chip.hbf.latency": ["1 us"], "system.chip.hbf": ["hbf:1"]}}, "chip.hbf", "undo"),
        (
            {"axes": {"system.chip.hbf.near": ["hbf-base-die"], "system.chip.hbf.stacks": [2]}},
            "hbf.stacks",
            "comes in that number",
        ),
        ({"axes": BATCH, "tied": [{"traffic.batch": [1], "plan.tp": [1]}]}, "tied.1", "one axis"),
        ({"tied": {"plan.tp": [1, 2], "plan.ep": [1, 2, 3]}}, "tied.1", "as many values"),
        ({"tied": {"plan.tp": [1, 2]}}, "tied.1", "at least two"),
        ({"tied": [3]}, "tied", "mapping"),
        (
            {"axes": BATCH | {"plan.tp": {"values": [1], "when": {"traffic.bach": 1}}}},
            "plan.tp.when",
            "'traffic.batch'",
        ),
        (
            {"axes": {"plan.tp": {"values": [1], "when": {"traffic.batch": 1}}} | BATCH},
            "plan.tp.when",
            "before",
        ),
        (
            {"axes": BATCH | {"plan.tp": {"values": [1], "when": {"traffic.batch": 3}}}},
            "when.traffic.batch",
            "1, 4",
        ),
        (
            {"axes": BATCH | {"plan.tp": {"values": [1], "when": {"traffic.batch": {"at_least": 5}}}}},
            "when.traffic.batch",
            "meets",
        ),
        (
            {"axes": BATCH | {"plan.tp": {"values": [1], "when": {"traffic.batch": {"over": 5}}}}},
            "when.traffic.batch",
            "at_least",
        ),
        (
            {"axes": {"plan.tp": {"values": [1], "when": {"model": "mixtral"}}}},
            "when.model",
            "'mixtral-8x7b'",
        ),
        ({"axes": {"plan.tp": {"values": [1], "when": ["model"]}}}, "plan.tp.when", "mapping"),
        ({"sample": {"count": 4}}, "sample.knobs", "mapping"),
        ({"sample": {"count": 4, "knobs": {}}}, "sample.knobs", "at least one"),
        ({"sample": {"count": 4, "nobs": {}}}, "sample", "'knobs'"),
        ({"sample": {"count": 0, "knobs": BATCH}}, "sample.count", "1,073,741,824"),
        ({"sample": {"count": 2**31, "knobs": BATCH}}, "sample.count", "1,073,741,824"),
        ({"sample": {"count": 4, "seed": -1, "knobs": BATCH}}, "sample.seed", "whole number"),
        ({"sample": {"count": 4, "method": "sobel", "knobs": BATCH}}, "sample.method", "'sobol'"),
        ({"sample": {"count": 4, "knobs": {"plan.tp": {"log": [4, 1]}}}}, "knobs.plan.tp", "low < high"),
        ({"sample": {"count": 4, "knobs": {"plan.tp": {"log": [0, 1]}}}}, "knobs.plan.tp", "low < high"),
        (
            {"sample": {"count": 4, "knobs": {"plan.tp": {"linear": [0.5, 2], "whole": True}}}},
            "knobs.plan.tp",
            "whole",
        ),
        (
            {"sample": {"count": 4, "knobs": {"plan.tp": {"log": [1, 2], "step": 3}}}},
            "knobs.plan.tp.step",
            "one of log, linear, values",
        ),
        ({"sample": {"count": 4, "knobs": {"plan.tpp": {"log": [1, 2]}}}}, "knobs.plan.tpp", "'plan.tp'"),
        (
            {"sample": [{"count": 2, "knobs": BATCH}, {"count": 2, "knobs": BATCH}]},
            "sample.2",
            "one axis",
        ),
    ],
    ids=lambda v: str(v)[:48],
)
def test_mistakes_are_told_in_one_line(tmp_path, tree, where, hint):
    import json

    with pytest.raises(jc.InputError) as error:
        jc.load_space(written(tmp_path, json.dumps(GOOD | tree)))
    text = str(error.value)
    assert "\n" not in text and text.startswith("space.yaml: ") and where in text and hint in text, text


def test_reducing_is_left_to_others(tmp_path):
    name = written(tmp_path, "models: llama-3.1-8b\nsystems: h100-sxm-x8\nreduce: {top: anything}\n")
    assert read_space(name)[0].size == 1
    assert read_space_data(name)[0]["reduce"] == {"top": "anything"}


def test_settings_take_dotted_names(tmp_path):
    text = "models: llama-3.1-8b\nsystems: h100-sxm-x8\nplan: {tp: 8, placement.near_slack: 0.25}\n"
    plan = design_at(jc.load_space(written(tmp_path, text)), 0).plan
    assert (plan.tp, plan.placement.near_slack) == (8, 0.25)


def test_more_axes_of_the_catalogue(tmp_path):
    text = """
models: [llama-3.1-8b]
systems: [h100-sxm-x8, b200-x8]
axes:
  prices: {choose: [default, phone]}
  system.fabric.scale_up: [nvlink5, ualink]
  system.chip.efficiency: [ideal, typical]
  system.chip.process: [n5, n3]
  system.chip.package: [cowos-s, organic]
sample:
  - {count: 3, knobs: {plan.tp: {log: [1, 8, 4]}}}
  - {count: 2, method: random, knobs: {plan.pp: {choose: [1, 2]}}}
"""
    space = jc.load_space(written(tmp_path, text))
    assert space.shape == (2, 1, 2, 2, 2, 2, 2, 3, 2) and space.names[-2:] == ("sample", "sample.2")
    design = design_at(space, space.size - 1)
    assert design.prices.pue == jc.load_prices("phone").pue
    assert design.system.chip.efficiency.memory == jc.load_efficiency("typical").memory
    assert float(design.plan.tp) in (1, 2, 4, 8)
    named = coordinates(space, [0])
    assert named["system.chip.process"] == "n5" and named["system.fabric.scale_up"] == "nvlink5"
    first, h100 = design_at(space, 0).system, jc.load_system("h100-sxm-x8")
    dies = [jax.tree.leaves(system.chip.process) for system in (first, jc.load_system("b200"), h100)]
    assert dies[0] != dies[1] or dies[0] != dies[2]
    assert isinstance(space.axes[3], ChoiceAxis) and first.chip.package.area_per_byte > 0
