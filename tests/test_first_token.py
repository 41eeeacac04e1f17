"""The time to first token of one request alone, and of batches smaller than the stages of a pipeline."""

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import execution
from jaxcost.edge.catalog.check import check_plan
from jaxcost.edge.io.errors import InputError

SYSTEM, MODEL = jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-70b")
TRAFFIC = jc.Traffic(prompt=2048.0, output=128.0, batch=32.0)


@pytest.fixture(autouse=True)
def _interpreted():
    with execution("interpret"):
        yield


def test_one_request_in_a_pipeline_has_no_microbatches_of_others():
    plan, one = jc.Plan(pp=8.0), jc.replace(TRAFFIC, batch=1.0)
    check_plan(SYSTEM, MODEL, plan, one)
    ttft = float(jc.evaluate(SYSTEM, MODEL, one, plan).ttft)
    assert ttft == pytest.approx(0.297, rel=5e-3)
    single = jc.evaluate(SYSTEM, MODEL, one, jc.replace(plan, microbatches=1.0)).ttft
    assert ttft == pytest.approx(float(single), rel=1e-6)


def test_a_replica_without_a_request_is_refused():
    with pytest.raises(InputError, match=r"traffic.batch: got 3; expected at least dp = 4 requests.*'4'"):
        check_plan(SYSTEM, MODEL, jc.Plan(tp=2.0, dp=4.0), jc.replace(TRAFFIC, batch=3.0))


@pytest.mark.parametrize("plan", [jc.Plan(tp=8.0), jc.Plan(pp=8.0), jc.Plan(tp=2.0, dp=4.0)])
def test_alone_is_the_evaluation_of_one_request_in_each_replica(plan):
    alone = float(jc.ttft_alone(SYSTEM, MODEL, TRAFFIC, plan))
    same = jc.evaluate(SYSTEM, MODEL, jc.replace(TRAFFIC, batch=float(plan.dp)), plan)
    one = jc.evaluate(SYSTEM, MODEL, jc.replace(TRAFFIC, batch=1.0), plan)
    assert alone == float(same.ttft) == float(one.ttft)
    assert alone < float(jc.evaluate(SYSTEM, MODEL, TRAFFIC, plan).ttft)


def test_with_a_chunk_a_request_alone_is_computed_in_chunks_without_decoding():
    chunked = jc.Plan(tp=8.0, chunk=512.0)
    alone = float(jc.ttft_alone(SYSTEM, MODEL, TRAFFIC, chunked))
    engine = jc.replace(chunked.engine, step_tokens=512.0)
    assert alone == float(jc.ttft_alone(SYSTEM, MODEL, TRAFFIC, jc.Plan(tp=8.0, engine=engine)))
    assert alone < float(jc.evaluate(SYSTEM, MODEL, TRAFFIC, chunked).ttft)


def test_batches_and_slopes():
    """Every design of a batch has its own time, and the gradient is that of differences."""
    plans = jc.Plan(tp=np.asarray([8.0, 4.0, 8.0]), chunk=np.asarray([0.0, 0.0, 256.0]))
    several = jc.ttft_alone(SYSTEM, MODEL, TRAFFIC, plans)
    for found, tp, chunk in zip(several, (8, 4, 8), (0, 0, 256), strict=True):
        single = jc.ttft_alone(SYSTEM, MODEL, TRAFFIC, jc.Plan(tp=float(tp), chunk=float(chunk)))
        assert float(found) == pytest.approx(float(single), rel=1e-6)

    def time(flops):
        system = jc.replace_at(SYSTEM, "chip.compute.flops_16", flops)
        return jc.ttft_alone(system, MODEL, TRAFFIC, jc.Plan(tp=8.0))

    at = float(SYSTEM.chip.compute.flops_16)
    with jax.enable_x64(True):
        slope = float(jax.grad(time)(at))
        difference = (float(time(at * 1.0001)) - float(time(at * 0.9999))) / (2e-4 * at)
    assert slope == pytest.approx(difference, rel=1e-4) and slope < 0
