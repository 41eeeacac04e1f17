"""Files of measurements: rows become SI columns, bad rows are refused by line, and bad files named with the cure."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from jaxcost.edge.io.errors import InputError
from jaxcost.edge.measured.columns import (
    FORMATS_OF_FILES,
    PRECISIONS,
    UNITS,
    chip_name,
    format_of,
    precision_bits,
)
from jaxcost.edge.measured.files import read_measured, write_measured
from jaxcost.spec.measurement import FAMILIES, Measurements, concatenate

SHARED = Path(__file__).parents[2] / "shared" / "data" / "measured"
GEMM = "gpu,backend,dtype,m,n,k,latency_us\n"
FILES = {
    "gemm.csv": GEMM + "a100_sxm,trtllm,int4_wo,8,512,7168,5.5\nh100_sxm,vllm,fp8,1,128,7168,4.25\n",
    "gemm_vidur.csv": "source,gpu,backend,backend_version,kernel_source,dtype,m,n,k,latency_us\n"
    "vidur,a100_dgx,vllm(sarathi),2024,phi-2:mlp_up_proj:tp1,float16,1,8192,8192,92.5\n"
    "vidur,some_board,vllm,2024,linear,float16,1,8192,8192,92.5\n",
    "attention_decode.csv": "gpu,batch,kv_len,heads,kv_heads,head_dim,latency_us\nl40s,4,2048,32,8,128,20\n",
    "attention_prefill.csv": "gpu,attn_dtype,kv_dtype,batch,q_len,kv_len,heads,kv_heads,head_dim,window_size,latency_us\n"
    "h100_sxm,fp8,fp8,1,512,512,64,8,64,128,30\n",
    "mla.csv": "gpu,kind,kv_dtype,gemm_type,batch,q_len,kv_len,heads_local,latency_us\n"
    "h100_sxm,decode_kernel,fp8,,1,1,128,16,12\nh100_sxm,prefill_module,bfloat16,fp8_block,1,512,512,16,120\n",
    "moe.csv": "gpu,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,distribution,latency_us\n"
    "h100_sxm,w4a16_mxfp4,8,2880,2880,4,128,1,4,power_law_1.2,55\nh100_sxm,fp8_block,8,7168,2048,8,256,1,8,balanced,99\n",
    "collectives.csv": "gpu,backend,impl,op,num_gpus,dtype,bytes,latency_us\na100_sxm,nccl,nccl,alltoall,4,float16,512,9\n",
    "moe_alltoall.csv": "gpu,impl,phase,comm_dtype,num_gpus,hidden_size,topk,num_experts,num_tokens,latency_us\n"
    "h100_sxm,ll,dispatch,nvfp4,8,7168,8,256,16,70\nh100_sxm,ll,combine,nvfp4,8,7168,8,256,16,70\n"
    "h100_sxm,ll,dispatch,default,8,7168,8,256,16,70\n",
    "e2e.csv": "model,gpu,num_gpus,tp,engine,input_len,output_len,concurrency,metric,value,unit\n"
    "LLaMA-7B,a100,1,1,TensorRT-LLM,128,128,16,tpot_mean,12.5,ms\n"
    "LLaMA-7B,h100,1,1,vLLM,128,128,max_load,output_tput_total,900,tok/s\n",
}


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, **{name.removesuffix(".csv"): text for name, text in FILES.items()})


def test_every_kind_of_file_is_read_in_si_units(folder):
    found, refused = read_measured(folder)
    assert not refused
    assert set(found) == set(FAMILIES)
    for family, parts in found.items():
        for part in parts:
            assert tuple(part.work) == tuple(FAMILIES[family])
            assert all(column.dtype == np.float64 for column in part.work.values())
            assert all(isinstance(word, str) for column in part.labels.values() for word in column)
    matmul, vidur = found["matmul"]
    np.testing.assert_array_equal(matmul.work["rows"], [8, 1])
    np.testing.assert_allclose(matmul.work["weight_bits"], [4.125, 8])
    np.testing.assert_allclose(matmul.work["activation_bits"], [16, 8])
    np.testing.assert_allclose(matmul.seconds, [5.5e-6, 4.25e-6])
    assert matmul.values("chip") == ["a100-80gb-sxm", "h100-sxm"]
    assert list(vidur.labels["chip"]) == ["a100-80gb-sxm", "some_board"]
    assert list(vidur.labels["model"]) == ["phi-2", ""]
    assert vidur.source == "vidur"
    assert vidur.place(1) == f"{folder}/gemm_vidur.csv:3"
    decode, prefill = found["attention"]
    assert (decode.work["queries"], decode.work["window"], decode.work["kv_bits"]) == (1, 0, 16)
    assert (prefill.work["window"], prefill.work["compute_bits"]) == (128, 8)
    assert decode.values("phase") == ["decode"] and prefill.values("phase") == ["prefill"]
    (latent,) = found["latent_attention"]
    assert list(latent.work["module"]) == [0, 1] and list(latent.work["projection_bits"]) == [0, 8]
    (mixture,) = found["mixture"]
    assert list(mixture.work["skew"]) == [1.2, 0] and list(mixture.work["weight_bits"]) == [4.25, 8]
    (collective,) = found["collective"]
    assert collective.values("op") == ["all_to_all"]
    (exchange,) = found["all_to_all"]
    np.testing.assert_array_equal(exchange.work["bits"], [4.5, 16, np.nan])
    (serving,) = found["serving"]
    np.testing.assert_allclose(serving.seconds, [12.5e-3, 900])
    assert list(serving.labels["unit"]) == ["s", "token/s"] and list(serving.labels["load"]) == [
        "",
        "max_load",
    ]
    np.testing.assert_array_equal(serving.work["concurrency"], [16, np.nan])
    assert serving.values("library") == ["trtllm", "vllm"]
    assert np.isnan(serving.work["ep"]).all()


def test_what_is_written_is_read_again(folder, tmp_path):
    found, _ = read_measured(folder)
    out = tmp_path / "out"
    written = write_measured([part for parts in found.values() for part in parts], out)
    assert sorted(path.name for path in written) == sorted(set(FILES) - {"gemm_vidur.csv"})
    again, refused = read_measured(out)
    assert not refused
    for family, parts in found.items():
        before, after = concatenate(parts), concatenate(again[family])
        for name in before.work:
            np.testing.assert_array_equal(before.work[name], after.work[name])
        np.testing.assert_allclose(before.seconds, after.seconds, rtol=1e-12)
        for name in set(before.labels) - {"file"}:
            assert list(before.labels[name]) == list(after.labels[name]), name
    with pytest.raises(InputError, match="exists already"):
        write_measured(found["matmul"], out)


def test_chips_are_chosen_by_either_name(folder):
    for name in ("h100-sxm", "h100_sxm", "h100"):
        found, _ = read_measured(folder, chips=[name])
        assert all(part.values("chip") == ["h100-sxm"] for parts in found.values() for part in parts)
    with pytest.raises(InputError, match="did you mean 'h100-sxm'"):
        read_measured(folder, chips=["h101-sxm"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("l40s,x,fp8,eight,128,128,5", "m: got 'eight'; expected a whole number of at least 1"),
        ("l40s,x,fp8,0,128,128,5", "m: got '0'; expected a whole number of at least 1"),
        ("l40s,x,fp8,1.5,128,128,5", "m: got '1.5'; expected a whole number of at least 1"),
        ("l40s,x,fp8,1,128,128,0", "latency_us: got '0'; expected a number above 0"),
        ("l40s,x,fp8,1,128,128,nan", "latency_us: got 'nan'; expected a number above 0"),
        ("l40s,x,fp8,1,128,128,", "latency_us: got nothing; expected a value"),
        ("l40s,x,bfloat61,1,128,128,5", "dtype: got 'bfloat61'.*did you mean 'bfloat16'"),
        ("l40s,x,fp8,1,128,128", "got 6 fields; expected 7"),
    ],
)
def test_bad_rows_are_refused_with_their_line(tmp_path, row, reason):
    write(tmp_path, gemm=GEMM + f"l40s,x,fp8,1,128,128,5\n{row}\n\nl40s,x,fp8,2,128,128,5\n")
    found, (refused,) = read_measured(tmp_path)
    assert (refused.file, refused.line) == (f"{tmp_path}/gemm.csv", 3)
    np.testing.assert_array_equal(found["matmul"][0].line, [2, 5])
    assert re.search(reason, refused.reason), refused.reason


def test_rows_that_contradict_themselves_are_refused(tmp_path):
    write(
        tmp_path,
        attention_decode=FILES["attention_decode.csv"].replace("32,8,128", "4,8,128"),
        mla=FILES["mla.csv"].replace("decode_kernel,fp8,,", "decode_kernel,fp8,fp8_block,"),
        moe=FILES["moe.csv"].replace(",4,128,1,4", ",4,2,1,4"),
    )
    reasons = [refused.reason for refused in read_measured(tmp_path)[1]]
    assert reasons == [
        "expected heads of at least kv_heads",
        "expected a gemm_type of a module, and none of a kernel",
        "expected topk of at most num_experts",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gemm", "", "gemm.csv: line 1: expected a header that names the columns"),
        (
            "gemm",
            GEMM.replace("latency_us", "latency"),
            "line 1: column: got 'latency'; .* mean 'latency_us'",
        ),
        ("gemm", GEMM.replace("dtype,", ""), "line 1: got 'no dtype'; expected the columns gpu, dtype, m"),
        ("gemm", GEMM.replace("gpu,", "gpu,m,"), "line 1: column: got 'm'; expected each column once"),
        ("gem", GEMM, "got 'gem.csv'; expected a name that starts with .* did you mean 'gemm.csv'"),
        ("gemm", "gpu\0", "gemm.csv: "),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, name, text, message):
    write(tmp_path, **{name: text})
    with pytest.raises(InputError, match=message) as caught:
        read_measured(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_without_measurements_are_told(tmp_path):
    with pytest.raises(InputError, match=r"got 'no CSV file'; expected files among gemm\.csv"):
        read_measured(tmp_path)
    with pytest.raises(InputError, match="expected a folder of measurements"):
        read_measured(tmp_path / "absent")


def test_one_file_is_enough(folder):
    found, _ = read_measured(folder / "moe.csv")
    assert list(found) == ["mixture"]


def test_names_of_files_tell_what_they_hold():
    assert format_of("gemm_of_my_lab") == "gemm"
    assert format_of("moe_alltoall") == "moe_alltoall"
    assert format_of("gemmas") is None
    for kind in FORMATS_OF_FILES:
        assert format_of(kind) == kind


def test_words_become_bits_and_chips():
    assert precision_bits("BFloat16") == (16, 16)
    assert precision_bits("int8_wo") == (8, 16)
    assert chip_name("l40s") == "l40s"
    assert chip_name("a40") == "a40"


def test_rows_without_a_label_that_their_file_needs_are_not_written(folder, tmp_path):
    one = read_measured(folder)[0]["collective"][0]
    bare = dataclasses.replace(one, labels={"chip": one.labels["chip"], "op": one.labels["op"]})
    (path,) = write_measured([bare], tmp_path / "out")
    assert path.read_text() == "gpu,op,num_gpus,bytes,latency_us\na100-80gb-sxm,all_to_all,4,512,9.0\n"
    with pytest.raises(ValueError, match="without the label 'op'"):
        write_measured([dataclasses.replace(bare, labels={"chip": one.labels["chip"]})], tmp_path / "more")


def test_every_column_and_word_is_documented():
    text = (Path(__file__).parents[1] / "docs" / "measurements.md").read_text()
    for kind, form in FORMATS_OF_FILES.items():
        words = [kind, form.family, *(name for name in form.columns if name != "flag")]
        assert [word for word in words if f"`{word}`" not in text and word != form.family] == []
        assert form.family in text
    assert [
        word for word in [*PRECISIONS, *set(UNITS) - {"token/s", "token/s/chip"}] if f"`{word}`" not in text
    ] == []
    for columns in FAMILIES.values():
        assert all(name in text for name in columns)


def test_rows_are_picked_by_labels_and_masks(folder):
    both = concatenate(read_measured(folder)[0]["matmul"])
    assert len(both) == 4
    assert both.file == f"{folder}/gemm.csv; {folder}/gemm_vidur.csv"
    assert both.place(2) == f"{folder}/gemm_vidur.csv:2"
    assert len(both.select(chip="a100-80gb-sxm")) == 2
    assert len(both.select(chip=["a100-80gb-sxm", "h100-sxm"], library=("vllm", "trtllm"))) == 2
    assert len(both.where(both.seconds > 5e-6)) == 3
    with pytest.raises(ValueError, match="label 'gpu' is none of"):
        both.select(gpu="l40s")
    with pytest.raises(ValueError, match="rows of several families"):
        concatenate([both, read_measured(folder)[0]["mixture"][0]])
    with pytest.raises(ValueError, match="no measurements to concatenate"):
        concatenate([])


def test_columns_must_fit_the_family(folder):
    one = read_measured(folder)[0]["collective"][0]
    fields = {name: getattr(one, name) for name in one.__dataclass_fields__}
    with pytest.raises(ValueError, match="none of"):
        Measurements(**fields | {"family": "matmuls"})
    with pytest.raises(ValueError, match="the work of collective is ranks, bytes"):
        Measurements(**fields | {"work": {"ranks": np.ones(1)}})
    with pytest.raises(ValueError, match="line: not as long as seconds"):
        Measurements(**fields | {"line": np.arange(2)})


@pytest.mark.skipif(not SHARED.exists(), reason="the measurements are not part of the project")
def test_the_measurements_beside_the_project_are_all_taken():
    found, refused = read_measured(SHARED, chips=["a100_sxm", "h100_sxm", "l40s"])
    assert not refused
    assert set(found) == set(FAMILIES)
    assert all(np.isfinite(part.seconds).all() for parts in found.values() for part in parts)
