"""Small questions of practitioners that once had wrong answers, with the right ones."""

import jax
import pytest

import jaxcost as jc
from jaxcost.core.program import execution


@pytest.fixture(autouse=True)
def _interpreted():
    with execution("interpret"):
        yield


H100 = jc.load_system("h100-sxm-x1")
NODE = jc.load_system("h100-sxm-x8")
SMALL, LARGE = jc.load_model("llama-3.1-8b"), jc.load_model("llama-3.1-70b")
GIB = 2**30


def test_as_many_long_prompts_fit_as_vllm_takes():
    """vLLM 0.19 reports 58.11 requests of 8,192 tokens at 95% of an H100; 33 fitted with the prompts of all at once."""
    traffic = jc.Traffic(prompt=8191, output=1)
    engine = jc.load_engine("vllm", "h100-sxm", memory_share=0.95)
    assert float(jc.largest_batch(H100, SMALL, traffic, jc.Plan(engine=engine))) == 58
    assert float(jc.largest_batch(H100, SMALL, traffic, jc.Plan())) == pytest.approx(58, abs=2)
    static = jc.load_engine("static")
    assert float(jc.largest_batch(H100, SMALL, traffic, jc.Plan(engine=static))) < 40


def test_a_prompt_of_a_million_tokens_fits():
    report = jc.evaluate(NODE, LARGE, jc.Traffic(prompt=1e6, output=256, batch=1), jc.Plan(tp=8))
    assert float(report.margins.memory) == pytest.approx(0.26, abs=0.02)
    assert float(report.schedule.prefill_steps) == 123  # of at most 8,192 tokens


def test_a_chip_has_the_memory_that_its_driver_reports():
    assert float(H100.chip.memory.capacity) / GIB == pytest.approx(79.19, abs=0.05)
    assert float(jc.load_chip("h20").memory.capacity) / GIB == pytest.approx(95.5, abs=0.5)


def test_llama_cpp_keeps_more_cells_than_a_window_has():
    """18 window layers of gpt-oss-120b take 90 MiB for two sequences at 1,024 tokens a step: 1,280 cells each."""
    model = jc.load_model("gpt-oss-120b")
    windowed = jc.replace_at(model, "attention.layers", 0.0)
    for name, mebibytes in (("llamacpp", 90.0), ("none", 9.0)):
        plan = jc.Plan(engine=jc.load_engine(name, step_tokens=1024.0))
        report = jc.evaluate(NODE, windowed, jc.Traffic(prompt=131071, output=1, batch=2), plan)
        assert float(report.memory.kv) / 2**20 == pytest.approx(mebibytes, rel=1e-6)


def test_microbatches_without_a_request_do_not_exist():
    traffic = jc.Traffic(prompt=2048, output=256, batch=1)
    found = [jc.evaluate(NODE, LARGE, traffic, jc.Plan(pp=8, microbatches=m)).ttft for m in (0, 1, 8)]
    assert [float(x) for x in found] == pytest.approx([0.297] * 3, rel=2e-3)


def test_a_loop_that_does_not_fit_says_so_and_nobody_waits():
    """A 72B model at 16 bits on one H100: weights alone are 1.7 times its memory."""
    model, traffic = jc.load_model("qwen2.5-72b"), jc.Traffic(prompt=1024, output=256)
    loop = jax.device_get(jc.closed_loop(H100, model, traffic, jc.Plan(), users=1.0))
    assert loop.memory < -0.5
    assert (loop.waiting, loop.slots) == (0, 1)
    alone = jc.closed_loop(NODE, model, traffic, jc.Plan(), users=1.0)
    assert float(loop.ttft) == pytest.approx(float(alone.ttft), rel=1e-5)


def test_a_closed_loop_is_continuous_in_the_variation():
    system = jc.load_system("h100-sxm-x2", efficiency="h100-sxm-sglang")

    def ttft(variation):
        traffic = jc.Traffic(prompt=4096, output=256, variation=variation)
        return float(jc.closed_loop(system, SMALL, traffic, jc.Plan(tp=2), users=64.0).ttft)

    equal = ttft(0.0)
    assert ttft(1e-10) == pytest.approx(equal, rel=1e-3)
    falling = [equal, *(ttft(v) for v in (1e-6, 1e-4, 1e-2, 1.0))]
    assert falling == sorted(falling, reverse=True)


def test_messages_between_nodes_are_not_ideal_beside_fitted_kernels():
    """Published all-reduces of a few KB over two nodes take 20 to 60 us; the ideal link takes 8."""
    system = jc.load_system("h100-sxm-x16", efficiency="h100-sxm-vllm")
    report = jc.evaluate(system, LARGE, jc.Traffic(prompt=256, output=256, batch=1), jc.Plan(tp=16))
    row = report.decode.rows[report.decode.names.index("tensor_all_reduce")]
    assert 15e-6 < float(row.seconds) / 160 < 60e-6
