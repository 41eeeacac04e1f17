"""The replay against results that are exact, and against measured closed loops."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.pytree import replace, replace_at
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate.serving_fit import fit_engines, serving_points, serving_steps
from jaxcost.explore.replay import loop_trace, measured_loops, replay_loops
from jaxcost.spec.trace import Trace

DATA = Path(__file__).parents[2] / "shared" / "data" / "measured" / "e2e.csv"
PROMPT = 512


def plan_of_one_prompt():
    """Plan of an engine that computes one prompt of `PROMPT` tokens in each step."""
    return replace_at(replace_at(jc.Plan(), "engine.step_tokens", float(PROMPT)), "engine.mixed", 0.0)


def equal_requests(arrival, output=1):
    n = len(arrival)
    return Trace(name="equal", arrival=arrival, prompt=np.full(n, PROMPT), output=np.full(n, output))


@pytest.fixture(scope="module")
def hardware():
    return jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-8b")


def test_a_server_of_prompts_waits_as_pollaczek_and_khinchine_say(hardware):
    """Prompts of equal length, one a step, are an M/D/1 queue: mean wait rho D / (2 (1 - rho))."""
    n, load = 20_000, 0.7
    alone = jc.replay(*hardware, equal_requests(np.zeros(1)), plan_of_one_prompt())
    service = float(alone.finish[0] - alone.admitted[0])
    gaps = np.random.default_rng(0).exponential(service / load, n)
    arrival = np.cumsum(gaps) - gaps[0]
    replayed = jc.replay(*hardware, equal_requests(arrival), plan_of_one_prompt())
    waits = replayed.queueing
    # Means of 20 batches are nearly independent, although waits of neighbours are not.
    means = waits.reshape(20, -1).mean(1)
    error = means.std(ddof=1) / np.sqrt(len(means))
    assert waits.mean() == pytest.approx(load * service / (2 * (1 - load)), abs=3 * error)
    assert error < 0.1 * waits.mean()


def test_a_single_user_never_waits(hardware):
    """Every request of one user is served as a request of its own."""
    one = jc.replay(*hardware, equal_requests(np.zeros(1), 32), plan_of_one_prompt())
    loop = jc.replay(*hardware, equal_requests(np.zeros(12), 32), plan_of_one_prompt(), concurrency=1)
    assert loop.ttft == pytest.approx(np.full(12, one.ttft[0]), rel=1e-5)
    assert loop.tpot == pytest.approx(np.full(12, one.tpot[0]), rel=1e-5)
    assert loop.queueing == pytest.approx(np.zeros(12), abs=1e-9)


@pytest.mark.exhaustive
@pytest.mark.skipif(not DATA.exists(), reason="the measurements are not part of the project")
def test_measured_loops_are_replayed_without_their_model():
    """A few of the loops of vLLM at moderate numbers of users, with constants fitted to the other models."""
    names = {
        "Qwen/Qwen3-32B": "qwen3-32b",
        "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
        "openai/gpt-oss-120b": "gpt-oss-120b",
    }
    points = serving_points(read_measured(DATA, ["h100-sxm"])[0]["serving"][0])
    points = points.where(
        np.isin(points.model, list(names)) & (points.library == "vllm") & (points.users < 512)
    )
    models = {name: jc.load_model(ours) for name, ours in names.items()}
    system = jc.load_system("h100-sxm-x8", efficiency="h100-sxm-vllm")
    system = replace_at(system, "chip.efficiency.matmul", 0.9)
    engines = {"vllm": jc.load_engine("vllm", "h100-sxm")}
    bare = replace_at(
        system,
        "chip.efficiency.kernels.engine",
        replace(
            jc.load_system("h100-sxm-x8", efficiency="h100-sxm-vllm").chip.efficiency.kernels.engine,
            layer=0.0,
            sequence=0.0,
            eager_launch_floor=0.0,
            frontend_latency=0.0,
        ),
    )
    found = fit_engines(points, serving_steps({"vllm": bare}, models, points, engines))
    loops = [
        loop for loop in measured_loops(points) if loop.model.startswith("meta") and loop.users in (8, 32)
    ]
    times = replay_loops(
        loops, points, systems={"vllm": system}, models=models, engines=engines, constants=found.unseen
    )
    at = np.isfinite(times[:, 0])
    assert at.sum() >= 3
    off = np.median(np.abs(times[at] / points.measured[at] - 1), 0)
    assert off[0] < 0.12 and off[1] < 0.25


def test_a_loop_sends_ten_requests_per_user():
    points = serving_points_of_one()
    (loop,) = measured_loops(points)
    assert loop_trace(loop).requests == 40
    varied = loop_trace(dataclasses.replace(loop, equal=False))
    assert varied.prompt.min() >= 800 and varied.prompt.max() <= 1000 and len(set(varied.output.tolist())) > 5


def serving_points_of_one():
    from jaxcost.explore.calibrate import ServingPoints

    one = np.ones(1)
    return ServingPoints(
        library=np.asarray(["vllm"]), model=np.asarray(["m"]), tp=one, ep=one, dp=one, users=4 * one,
        prompt=1000 * one, output=100 * one, nominal=np.asarray([[1000.0, 100.0]]), equal=one,
        weight_bits=16 * one, kv_bits=16 * one, tpot=one, ttft=one, line=np.zeros((1, 2), int),
    )  # fmt: skip
