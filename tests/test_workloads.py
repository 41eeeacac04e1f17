"""Synthetic traces: rates, burstiness, lengths and agents' sessions are those that were asked for."""

import itertools

import numpy as np
import pytest

from jaxcost.explore.replay import agent_trace, growing_blocks, synthetic_trace

MANY = 40_000


@pytest.mark.parametrize(
    ("arrivals", "options", "burstiness"),
    [
        ("poisson", {}, 1.0),
        ("gamma", {"burstiness": 4.0}, 4.0),
        ("gamma", {"burstiness": 0.25}, 0.25),
        ("diurnal", {"amplitude": 0.0}, 1.0),
        ("bursts", {"off": 0.0}, 1.0),
    ],
)
def test_arrivals_have_their_rate_and_burstiness(arrivals, options, burstiness):
    trace = synthetic_trace(arrivals, rate=5.0, requests=MANY, seed=1, **options)
    assert trace.requests == MANY and trace.name == arrivals
    assert trace.rate == pytest.approx(5.0, rel=0.04)
    assert trace.burstiness == pytest.approx(burstiness, rel=0.1)


def test_diurnal_arrivals_follow_the_sine():
    trace = synthetic_trace("diurnal", rate=10.0, requests=MANY, amplitude=0.8, period=400.0)
    phase = trace.arrival % 400 / 400
    share, edges = np.histogram(phase, bins=8, range=(0, 1))
    middle = (edges[1:] + edges[:-1]) / 2
    expected = 1 + 0.8 * np.sin(2 * np.pi * middle)
    assert share / share.mean() == pytest.approx(expected, abs=0.08)
    once = synthetic_trace("diurnal", rate=10.0, requests=MANY, amplitude=0.8)
    assert (once.arrival < MANY / 20).mean() > 0.7  # one period, whose first half is the busy one


def test_bursts_are_silent_between():
    trace = synthetic_trace("bursts", rate=5.0, requests=MANY, on=10.0, off=30.0, seed=3)
    gaps = np.diff(trace.arrival)
    assert trace.rate == pytest.approx(5.0, rel=0.1)
    silent = gaps > 2.0  # at 20/s in a burst, a gap of 2 s has probability e^-40
    assert gaps[silent].sum() / trace.span == pytest.approx(0.75, abs=0.05)
    assert np.median(gaps[~silent]) == pytest.approx(np.log(2) / 20, rel=0.05)


def test_lengths_are_fixed_lognormal_or_empirical():
    fixed = synthetic_trace(rate=1.0, requests=50, prompt=700, output=30)
    assert set(fixed.prompt.tolist()) == {700} and set(fixed.output.tolist()) == {30}
    drawn = synthetic_trace(rate=1.0, requests=MANY, prompt=2000, prompt_cv=1.5, output=300, output_cv=0.5)
    assert drawn.prompt.mean() == pytest.approx(2000, rel=0.04)
    assert drawn.prompt.std() / drawn.prompt.mean() == pytest.approx(1.5, rel=0.1)
    assert drawn.output.std() / drawn.output.mean() == pytest.approx(0.5, rel=0.05)
    assert abs(np.corrcoef(drawn.prompt, drawn.output)[0, 1]) < 0.03
    again = synthetic_trace(rate=1.0, requests=MANY, lengths=drawn.first(100))
    pairs = set(zip(drawn.prompt[:100].tolist(), drawn.output[:100].tolist(), strict=True))
    assert set(zip(again.prompt.tolist(), again.output.tolist(), strict=True)) == pairs


def test_a_seed_fixes_the_trace_and_arrivals_leave_lengths():
    options = {"rate": 2.0, "requests": 100, "prompt_cv": 1.0}
    one, two = synthetic_trace(seed=5, **options), synthetic_trace(seed=5, **options)
    assert (one.arrival == two.arrival).all() and (one.prompt == two.prompt).all()
    assert (synthetic_trace("gamma", seed=5, **options).prompt == one.prompt).all()
    assert not (synthetic_trace(seed=6, **options).prompt == one.prompt).all()


def test_contexts_of_agents_grow_by_outputs_and_new_tokens():
    trace = agent_trace(sessions=50, turns=6, system_prompt=1000, new_tokens=300, block_tokens=64, seed=2)
    assert trace.requests == 300
    for session in range(50):
        turns = np.flatnonzero(trace.session == session)
        prompt, output = trace.prompt[turns], trace.output[turns]
        new = np.diff(prompt) - output[:-1]
        assert len(turns) == 6 and prompt[0] > 1000 and (new >= 1).all()
        gaps = np.diff(trace.arrival[turns])
        assert (gaps >= 0.5 + 0.02 * output[:-1] - 1e-9).all()
        ids = [trace.blocks[trace.offsets[i] : trace.offsets[i + 1]] for i in turns]
        assert [len(x) for x in ids] == (prompt // 64).tolist()
        for before, after in itertools.pairwise(ids):
            assert (after[: len(before)] == before).all()
        assert trace.cached[turns[1:]].tolist() == ((prompt + output - 1)[:-1] // 64 * 64).tolist()
    first = trace.blocks[trace.offsets[:-1][:, None] + np.arange(1000 // 64)]
    assert (first == np.arange(1000 // 64)).all()  # the system prompt, in all sessions
    assert (trace.cached >= 0).all() and trace.cached[0] == 0


def test_turns_thinking_and_starts_have_their_means():
    trace = agent_trace(sessions=3000, session_rate=0.5, turns=5, turns_cv=0.6, think=20.0, seed=1)
    starts = np.sort([trace.arrival[trace.session == s].min() for s in range(3000)])
    assert 2999 / (starts[-1] - starts[0]) == pytest.approx(0.5, rel=0.06)
    assert trace.requests / 3000 == pytest.approx(5, rel=0.05)
    turns = np.bincount(trace.session)
    assert turns.std() / turns.mean() == pytest.approx(0.6, rel=0.1)
    order = np.lexsort((trace.arrival, trace.session))
    gap, same = np.diff(trace.arrival[order]), np.diff(trace.session[order]) == 0
    think = gap[same] - (0.5 + 0.02 * trace.output[order][:-1][same])
    assert think.mean() == pytest.approx(20.0, rel=0.05)


def test_a_longest_context_ends_sessions():
    free = agent_trace(sessions=40, turns=30, new_tokens=2000, seed=1)
    bounded = agent_trace(sessions=40, turns=30, new_tokens=2000, max_context=32_768, seed=1)
    assert (bounded.prompt + bounded.output).max() <= 32_768 < (free.prompt + free.output).max()
    assert bounded.requests == (free.prompt + free.output <= 32_768).sum()


def test_blocks_of_sessions_are_apart():
    ids = growing_blocks([0, 1, 0], [10, 12, 20], [7, 1, 4], 4, shared_tokens=5)

    def rows(name):
        offsets = ids[f"{name}offsets"]
        return [ids[f"{name}blocks"][a:b].tolist() for a, b in itertools.pairwise(offsets)]

    prompts, outputs = rows(""), rows("output_")
    assert prompts[0] + outputs[0] == prompts[2][:4] and len(prompts[2]) == 5
    assert [len(row) for row in outputs] == [2, 0, 0]
    assert set(prompts[1]) & set(prompts[2]) == {0}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"arrivals": "poison", "rate": 1},
            "arrivals is one of poisson, gamma, diurnal, bursts, not 'poison'",
        ),
        ({"rate": 0}, "rate is a positive number, not 0"),
        ({"rate": 1, "requests": 0}, "requests is a whole number of at least 1"),
        ({"rate": 1, "prompt_cv": -1}, "prompt_cv is a number of at least 0"),
        ({"rate": 1, "amplitude": 2}, r"amplitude is in \[0, 1\], not 2"),
        ({"rate": 1, "burstiness": float("inf")}, "burstiness is a positive number"),
    ],
)
def test_synthetic_traces_refuse(options, text):
    with pytest.raises(ValueError, match=text):
        synthetic_trace(**options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sessions": 1.5}, "sessions is a whole number"),
        ({"block_tokens": 0}, "block_tokens is at least 1"),
        ({"think": -1}, "think is a number of at least 0"),
        ({"max_context": 100}, "no turn fits in max_context, 100 tokens"),
    ],
)
def test_agent_traces_refuse(options, text):
    with pytest.raises(ValueError, match=text):
        agent_trace(**options)
