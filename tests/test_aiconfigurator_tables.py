"""The importer of the tables of `aiconfigurator-core`, on a folder of the same shape with a few rows of its own."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxcost.edge.io.errors import InputError
from jaxcost.edge.measured.aiconfigurator_tables import import_tables, systems
from jaxcost.edge.measured.files import read_measured, write_measured
from jaxcost.spec.measurement import concatenate

COMMON = {"framework": "X", "version": "1", "device": "D", "op_name": "op", "kernel_source": "kernel"}
ATTENTION = {
    "batch_size": [2],
    "num_heads": [32],
    "num_key_value_heads": [8],
    "head_dim": [128],
    "beam_width": [1],
    "attn_dtype": ["bfloat16"],
    "kv_cache_dtype": ["fp8"],
    "latency": [0.5],
}
LATENT = {
    "mla_dtype": ["bfloat16"],
    "kv_cache_dtype": ["fp8"],
    "num_heads": [16],
    "batch_size": [1],
    "tp_size": [8],
    "latency": [0.02],
}
NORMAL = {
    "node_num": [1],
    "hidden_size": [2048],
    "num_token": [16],
    "num_topk": [8],
    "num_experts": [128],
    "dispatch_sms": [20],
    "dispatch_transmit_us": [25.0],
    "dispatch_notify_us": [1.0],
    "combine_sms": [24],
    "combine_transmit_us": [30.0],
    "combine_notify_us": [0.0],
}
LOW = {
    **{k: NORMAL[k] for k in ("node_num", "hidden_size", "num_token", "num_topk", "num_experts")},
    "combine_avg_t_us": [11.0],
    "dispatch_avg_t_us": [10.0],
}
MIXTURE = {
    "num_tokens": [1, 2],
    "hidden_size": [4096, 4096],
    "inter_size": [2048, 2048],
    "topk": [6, 6],
    "num_experts": [256, 256],
    "moe_tp_size": [1, 1],
    "moe_ep_size": [1, 1],
}
TABLES = {
    "gemm/trt/1.0/gemm_perf": {
        "gemm_dtype": ["bfloat16", "int5"],
        "m": [8, 8],
        "n": [64, 64],
        "k": [32, 32],
        "latency": [0.01, 1],
    },
    "attention/trt/1.0/context_attention_perf": ATTENTION | {"isl": [16], "step": [0], "window_size": [8]},
    "attention/trt/1.0/generation_attention_perf": ATTENTION | {"isl": [1], "step": [127]},
    "mla/trt/1.0/context_mla_perf": LATENT | {"isl": [16], "step": [0]},
    "mla/trt/1.0/mla_generation_module_perf": LATENT
    | {"isl": [1], "step": [512], "gemm_type": ["fp8_block"]},
    "moe/trt/1.0/moe_perf": MIXTURE
    | {
        "moe_dtype": ["fp8", "w4a16_mxfp4"],
        "distribution": ["balanced", "power_law_1.01"],
        "latency": [0.1, 0.2],
    },
    "comm/nccl/2.2/nccl_perf": {
        "nccl_dtype": ["half", "int8"],
        "num_gpus": [2, 2],
        "message_size": [256, 256],
        "latency": [0.005, 0.006],
        "op_name": ["alltoall", "all_gather"],
    },
    "comm/lang/0.5/wideep_deepep_normal_perf": NORMAL,
    "comm/lang/0.5/wideep_deepep_ll_perf": LOW,
    "comm/trt/1.0/moe_a2a_perf": {
        "comm_backend": ["deepep_ht"],
        "phase": ["combine"],
        "comm_dtype": ["nvfp4"],
        "ep_size": [8],
        "node_num": [1],
        "hidden_size": [3072],
        "topk": [8],
        "num_experts": [256],
        "num_tokens": [16],
        "latency": [45.6],
    },
    "quantize/trt/1.0/computescale_perf": {"latency": [1.0]},
}


@pytest.fixture
def root(tmp_path):
    data = tmp_path / "package" / "aiconfigurator_core" / "systems" / "data"
    for name, columns in TABLES.items():
        path = data / "h100_sxm" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        count = len(next(iter(columns.values())))
        pq.write_table(pa.table({k: [v] * count for k, v in COMMON.items()} | columns), path)
    broken = data / "l40s" / "gemm" / "trt" / "1.0" / "gemm_perf.parquet"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not to be opened")
    return tmp_path / "package"


def by_family(parts):
    families = {part.family for part in parts}
    return {f: concatenate([part for part in parts if part.family == f]) for f in families}


def test_tables_become_measurements(root):
    parts, refused = import_tables("h100-sxm", root)
    found = by_family(parts)
    assert all(part.values("chip") == ["h100-sxm"] for part in parts)
    (bad,) = refused
    assert bad.line == 2 and "got 'int5'" in bad.reason and bad.file.endswith("gemm_perf.parquet")
    matmul = found["matmul"]
    assert (matmul.work["rows"], matmul.work["columns"], matmul.work["inner"]) == (8, 64, 32)
    np.testing.assert_allclose(matmul.seconds, 10e-6)
    assert matmul.values("library") == ["trt"] and matmul.values("version") == ["1.0"]
    attention = found["attention"]
    assert list(attention.labels["phase"]) == ["prefill", "decode"]
    np.testing.assert_array_equal(attention.work["queries"], [16, 1])
    np.testing.assert_array_equal(attention.work["keys"], [16, 128])
    np.testing.assert_array_equal(attention.work["window"], [8, 0])
    np.testing.assert_array_equal(attention.work["kv_bits"], [8, 8])
    latent = found["latent_attention"]
    np.testing.assert_array_equal(latent.work["keys"], [16, 513])
    np.testing.assert_array_equal(latent.work["projection_bits"], [0, 8])
    np.testing.assert_array_equal(found["mixture"].work["skew"], [0, 1.01])
    collective = found["collective"]
    np.testing.assert_array_equal(collective.work["bytes"], [512, 256])
    assert list(collective.labels["op"]) == ["all_to_all", "all_gather"]
    exchange = found["all_to_all"]
    assert list(exchange.labels["phase"]) == ["dispatch", "combine"] * 2 + ["combine"]
    np.testing.assert_allclose(exchange.seconds, np.array([10, 11, 26, 30, 45.6]) * 1e-6)
    np.testing.assert_array_equal(exchange.work["bits"], [8, 16, 8, 16, 16])
    np.testing.assert_array_equal(exchange.work["ranks"], 8)


@pytest.mark.parametrize("chip", ["h100-sxm", "h100_sxm", "h100"])
@pytest.mark.parametrize("inside", ["", "aiconfigurator_core", "aiconfigurator_core/systems/data"])
def test_a_chip_goes_by_any_name_and_a_folder_by_any_depth(root, chip, inside):
    assert len(import_tables(chip, root / inside)[0]) == 12


def test_imported_rows_are_exported_as_files(root, tmp_path):
    parts, _ = import_tables("h100-sxm", root)
    write_measured(parts, tmp_path / "out")
    again, refused = read_measured(tmp_path / "out")
    assert not refused
    for family, before in by_family(parts).items():
        after = concatenate(again[family])
        for name in before.work:
            np.testing.assert_array_equal(np.sort(before.work[name]), np.sort(after.work[name]))
        np.testing.assert_allclose(np.sort(before.seconds), np.sort(after.seconds), rtol=1e-12)


def test_no_other_system_is_opened(root):
    assert systems(root) == ["h100_sxm", "l40s"]
    import_tables("h100-sxm", root)
    with pytest.raises(InputError, match=r"l40s/.*gemm_perf\.parquet: expected a parquet table"):
        import_tables("l40s", root)


def test_what_is_absent_is_named(root, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"got 'h10-sxm'; expected one of h100_sxm, l40s; did you mean"):
        import_tables("h10-sxm", root)
    with pytest.raises(InputError, match="a folder of aiconfigurator-core"):
        import_tables("h100-sxm", tmp_path / "absent")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install aiconfigurator-core"):
        import_tables("h100-sxm")


def test_a_table_without_a_column_is_told(root):
    path = next(root.rglob("h100_sxm/**/gemm_perf.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["m"]), path)
    with pytest.raises(InputError, match=r"gemm_perf\.parquet: got 'no column m'"):
        import_tables("h100-sxm", root)


def test_an_installed_package_is_found(root, monkeypatch):
    (root / "aiconfigurator_core" / "__init__.py").write_text("raise RuntimeError('not to be run')")
    monkeypatch.syspath_prepend(root)
    parts, _ = import_tables("h100-sxm")
    assert len(parts) == 12
