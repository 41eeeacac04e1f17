"""Served times are scored row by row, and every row that is not has a reason."""

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate import score_serving, with_skew
from tests.serving_kernels import system

HEADER = "source,model,gpu,num_gpus,tp,pp,mode,engine,input_len,output_len,concurrency,metric,value,unit"
LOOP = "1024,128,8"


def rows(*lines):
    return "\n".join([HEADER, *lines]) + "\n"


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "e2e.csv"
    path.write_text(
        rows(
            f"own,some/8b,h100_sxm,2,2,1,agg,vllm,{LOOP},ttft_mean,100,ms",
            f"own,some/8b,h100_sxm,2,2,1,agg,vllm,{LOOP},tpot_mean,7,ms",
            f"own,some/8b,h100_sxm,2,2,1,disagg,vllm,{LOOP},tpot_mean,7,ms",
            f"own,some/8b,h100_sxm,2,2,1,static_batch,vllm,{LOOP},output_tput_total,900,tok/s",
            f"own,some/8b,h100_sxm,2,2,1,agg,vllm,{LOOP},output_tput_total,900,tok/s",
            "own,some/8b,h100_sxm,2,2,1,agg,vllm,1024,128,,tpot_mean,7,ms",
            f"own,some/8b,h100_sxm,4,2,2,agg,vllm,{LOOP},tpot_mean,7,ms",
            f"own,some/8b,h100_sxm,4,4,1,agg,vllm,{LOOP},tpot_mean,7,ms",
            f"own,other/9b,h100_sxm,2,2,1,agg,vllm,{LOOP},tpot_mean,7,ms",
            f"own,some/8b,h100_sxm,2,2,1,agg,sglang,{LOOP},tpot_mean,7,ms",
        )
    )
    read = read_measured(path)[0]["serving"]
    known = system(layer=1e-5, sequence=2e-5, frontend_latency=0.02, burst_size=4.0)
    found = score_serving(
        read,
        {"h100-sxm": {"vllm": known}},
        {"some/8b": jc.load_model("llama-3.1-8b")},
        {"h100-sxm": {"vllm": jc.load_engine("vllm", "h100-sxm")}},
        {"vllm": {"tpot": (-2.0, 2.0), "ttft": (5.0, 6.0)}},
    )
    return found, sum(len(part) for part in read)


def test_every_row_is_accounted_for(scores):
    found, count = scores
    assert len(found) == 2
    assert len(found) + sum(found.reasons.values()) == count == 10
    assert len(found.reasons) == 8
    assert any("other/9b" in reason for reason in found.reasons)


def test_rows_are_predicted_with_the_constants_of_their_system(scores):
    found, _ = scores
    assert found.labels["metric"].tolist() == ["tpot", "ttft"]
    assert found.line.tolist() == [3, 2]
    assert np.all(found.predicted > 0)
    assert found.inside.tolist() == [1, 0]
    assert found.predicted[1] > 0.02


def test_only_models_with_experts_are_given_a_skew():
    dense, mixture = jc.load_model("llama-3.1-8b"), jc.load_model("gpt-oss-120b")
    assert float(with_skew(dense).experts.skew) == 0
    assert float(with_skew(mixture).experts.skew) == 3
    assert float(with_skew(with_skew(mixture, 1.0)).experts.skew) == 1
