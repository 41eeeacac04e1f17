"""Rows that cannot be right are listed, each for the reason it was made with, and sound rows are not."""

from pathlib import Path

import numpy as np
import pytest

from jaxcost.edge.catalog.loaders import load_chip
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate.outliers import (
    doubtful,
    find_outliers,
    least_bytes,
    least_flops,
    least_link_bytes,
)
from jaxcost.spec.measurement import FAMILIES, Measurements

SHARED = Path(__file__).parents[2] / "shared" / "data" / "measured"


@pytest.fixture(scope="module")
def chip():
    return load_chip("h100-sxm")


def made(family, seconds, labels=None, **work):
    seconds = np.asarray(seconds, dtype=float)
    count = len(seconds)
    work = {name: np.broadcast_to(np.asarray(value, dtype=float), count) for name, value in work.items()}
    return Measurements(
        family=family,
        work={name: work[name] for name in FAMILIES[family]},
        seconds=seconds,
        labels={
            name: np.array([*values, None], object)[:-1]
            for name, values in ({"chip": ["h100-sxm"] * count} | (labels or {})).items()
        },
        source="",
        file="made",
        line=np.arange(2, count + 2),
    )


def matmul(seconds, rows, columns=4096, inner=4096, bits=16):
    return made(
        "matmul", seconds, rows=rows, columns=columns, inner=inner, weight_bits=bits, activation_bits=bits
    )


def test_what_is_faster_than_the_chip_is_in_doubt(chip):
    flops = 2 * 8192 * 8192 * 8192
    sound = matmul([flops / 989e12, flops / 1979e12], [8192, 8192], 8192, 8192, np.array([16, 8]))
    assert find_outliers(sound, chip) == []
    (outlier,) = find_outliers(matmul([flops / 1979e12], [8192], 8192, 8192), chip)
    assert outlier.kind == "faster" and outlier.line == 2 and "2 times the matmul peak" in outlier.reason
    # 512 MB of weights: all but the 50 MB of the cache come from memory.
    least = (2 * 16384 * 16384 - 50e6) / 3.35e12
    assert find_outliers(matmul([1.03 * least], [1], 16384, 16384), chip) == []
    (outlier,) = find_outliers(matmul([0.9 * least], [1], 16384, 16384), chip)
    assert "memory bandwidth beyond the cache" in outlier.reason
    # What fits in the cache may be faster than memory.
    assert find_outliers(matmul([3e-6], [1], 4096, 4096, 8), chip) == []


def test_links_are_held_to_their_bandwidth_where_it_is_given(chip):
    rows = made("collective", [1e-3], {"op": ["all_gather"]}, ranks=4, bytes=1e9)
    np.testing.assert_allclose(least_link_bytes(rows), 0.75e9)
    assert find_outliers(rows, chip) == []
    (outlier,) = find_outliers(rows, chip, link_bandwidth=450e9)
    assert "1.67 times the link bandwidth" in outlier.reason
    exchange = made("all_to_all", [1.0], ranks=8, tokens=10, hidden=100, top_k=1, experts=64, bits=8)
    np.testing.assert_allclose(least_link_bytes(exchange), 10 * 100 * 7 / 8)


def test_a_row_out_of_line_is_found_and_not_its_neighbours(chip):
    rows = [1, 2, 4, 8, 16, 32]
    assert find_outliers(matmul([10e-6, 11e-6, 12e-6, 12e-6, 11e-6, 13e-6], rows), chip) == []
    # A step down to a faster kernel is no row out of line.
    assert find_outliers(matmul([30e-6, 31e-6, 32e-6, 12e-6, 12e-6, 13e-6], rows), chip) == []
    (slow,) = find_outliers(matmul([10e-6, 11e-6, 40e-6, 12e-6, 25e-6, 26e-6], rows), chip)
    assert (slow.line, slow.kind) == (4, "out of line")
    assert slow.reason == "40 us at rows 4; its neighbours take 11 us at rows 2 and 12 us at rows 8"
    (quick,) = find_outliers(matmul([30e-6, 31e-6, 32e-6, 12e-6, 33e-6, 34e-6], rows), chip)
    assert quick.line == 5
    (first,) = find_outliers(matmul([40e-6, 11e-6, 12e-6, 12e-6], rows[:4]), chip)
    assert first.line == 2
    # Growth alone is none, and neither is a quick start.
    assert find_outliers(matmul([3e-6, 30e-6, 60e-6, 200e-6], rows[:4]), chip) == []


def test_rows_of_other_kernels_are_no_neighbours(chip):
    seconds = [10e-6, 40e-6, 12e-6]
    plain = matmul(seconds, [1, 2, 4])
    assert len(find_outliers(plain, chip)) == 1
    labels = {"kernel": ["a", "b", "a"]}
    apart = made("matmul", seconds, labels, **plain.work)
    assert find_outliers(apart, chip) == []


def test_prompts_grow_in_queries_and_keys(chip):
    lengths = np.array([16, 64, 256, 512])
    rows = made(
        "attention",
        [10e-6, 10e-6, 50e-6, 12e-6],
        sequences=1,
        queries=lengths,
        keys=lengths,
        heads=8,
        kv_heads=1,
        head_dim=128,
        window=0,
        kv_bits=16,
        compute_bits=16,
    )
    (outlier,) = find_outliers(rows, chip)
    assert outlier.line == 4


def test_the_same_work_must_take_the_same_time(chip):
    assert find_outliers(matmul([10e-6, 14e-6], [4, 4]), chip) == []
    outliers = find_outliers(matmul([10e-6, 16e-6, 11e-6], [4, 4, 8]), chip)
    assert [(d.line, d.kind) for d in outliers] == [(2, "contradicted"), (3, "contradicted")]


@pytest.mark.parametrize("window", [0, 3, 8, 100])
@pytest.mark.parametrize(("queries", "keys"), [(1, 7), (7, 7), (4, 9)])
def test_pairs_of_attention_are_counted_one_by_one(window, queries, keys):
    pairs = sum(
        1
        for i in range(queries)
        for j in range(keys)
        if j <= keys - queries + i and (window == 0 or j > keys - queries + i - window)
    )
    rows = made(
        "attention",
        [1.0],
        sequences=2,
        queries=queries,
        keys=keys,
        heads=3,
        kv_heads=1,
        head_dim=4,
        window=window,
        kv_bits=16,
        compute_bits=16,
    )
    np.testing.assert_allclose(least_flops("attention", rows.work), 4 * 2 * 3 * 4 * pairs)


def test_least_work_of_experts():
    work = dict(
        tokens=16, hidden=10, width=20, top_k=2, experts=64, tensor_parallel=2, expert_parallel=4, skew=0
    )
    rows = made("mixture", [1.0], **work, weight_bits=8, activation_bits=8)
    np.testing.assert_allclose(least_flops("mixture", rows.work), 8 * 6 * 10 * 10)
    np.testing.assert_allclose(least_bytes("mixture", rows.work), 8 * 3 * 10 * 10)


def test_rows_of_several_chips_are_refused_and_none_are_fine(chip):
    rows = made("matmul", [1.0, 1.0], {"chip": ["l40s", "h100-sxm"]}, **matmul([1.0, 1.0], [1, 2]).work)
    with pytest.raises(ValueError, match="several chips: h100-sxm, l40s"):
        find_outliers(rows, chip)
    for family, columns in FAMILIES.items():
        labels = {"op": [], "phase": []}
        assert find_outliers(made(family, [], labels, **dict.fromkeys(columns, 1)), chip) == []


@pytest.mark.skipif(not SHARED.exists(), reason="the measurements are not part of the project")
def test_few_of_the_measurements_beside_the_project_are_outliers(chip):
    links = {"a100-80gb-sxm": 300e9, "h100-sxm": 450e9, "l40s": 32e9}
    rows = outliers = 0
    for parts in read_measured(SHARED, chips=links)[0].values():
        for part in parts:
            for name in part.values("chip"):
                own = part.select(chip=name)
                rows += len(own)
                outliers += len(find_outliers(own, load_chip(name), link_bandwidth=links[name]))
    assert 0 < outliers < rows / 500


def test_the_former_name_still_works(chip):
    rows = matmul([10e-6, 16e-6], [4, 4])
    with pytest.warns(DeprecationWarning, match="doubtful is now find_outliers"):
        assert doubtful(rows, chip) == find_outliers(rows, chip)
