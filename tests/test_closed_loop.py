"""A closed loop of users: against a simulation, limits, directions, gradients, one compilation."""

import heapq
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
import jaxcost.explore.serve.closed_loops as loops
from jaxcost.core.program import program
from jaxcost.explore.serve.closed_loops import LoopSteps, closed_loop, closed_loop_steps, loop_times
from jaxcost.spec.kernels import UNLIMITED, EngineOverheads
from tests.serving_kernels import system

MODEL = jc.load_model("llama-3.1-8b")
TRAFFIC = jc.Traffic(prompt=1024, output=256, variation=0.0)
PLAN = jc.Plan(tp=2)
ENGINE = {
    "layer": 1e-5,
    "sequence": 3e-5,
    "eager_launch_floor": 5e-4,
    "frontend_latency": 0.05,
    "burst_size": 4.0,
}
SYSTEM = system(**ENGINE)


def run(users=16.0, system=SYSTEM, traffic=TRAFFIC, plan=PLAN, **more):
    return jax.device_get(closed_loop(system, MODEL, traffic, plan, users=users, **more))


def simulate(users, prompt, output, decode, prefill, *, budget, waves=10, together=False, spread=0.0):
    """Serve `waves` requests of each user with chunked prefill, step by step; mean TTFT and TPOT.

    Together, whatever waits is prefilled before anybody decodes on. With a spread, lengths are drawn evenly from
    that share below the full length.
    """
    random = np.random.default_rng(0)
    count = waves * users
    draw = lambda length: np.maximum(np.round(length * (1 - spread * random.random(count))), 1)  # noqa: E731
    prompts, outputs = draw(prompt), draw(output)
    came = [(2e-3 * random.random(), i) for i in range(users)]
    heapq.heapify(came)
    left, running, waiting = prompts.copy(), {}, []
    start, first, last = np.zeros(count), np.zeros(count), np.zeros(count)
    now, sent, done = 0.0, users, 0
    while done < count:
        while came and came[0][0] <= now:
            at, i = heapq.heappop(came)
            start[i] = at
            waiting.append(i)
        if not waiting and not running:
            now = came[0][0]
            continue
        room, tokens, ready = budget, 0, []
        while waiting and room > 0:
            taken = min(room, left[waiting[0]])
            left[waiting[0]] -= taken
            room, tokens = room - taken, tokens + taken
            if left[waiting[0]] == 0:
                ready.append(waiting.pop(0))
        decoding = [] if together and tokens else list(running)
        now += (decode if decoding or not together else 0) + tokens * prefill / prompt
        for i in decoding:
            running[i] -= 1
            if running[i] == 0:
                del running[i]
                last[i] = now
                done += 1
                if sent < count:
                    heapq.heappush(came, (now + 2e-3 + 1e-3 * random.exponential(), sent))
                    sent += 1
        for i in ready:
            first[i] = now
            running[i] = outputs[i] - 1
    return np.mean(first - start), np.mean((last - first) / np.maximum(outputs - 1, 1))


def closed_form(users, prompt, output, decode, prefill, *, burst_size, equal=1.0, budget=0.0):
    steps = LoopSteps(
        decode=decode,
        prefill=prefill,
        batch=float(users),
        slots=UNLIMITED,
        layers=32.0,
        together=max(budget / prompt, 1.0),
    )
    tpot, ttft = loop_times(
        EngineOverheads(burst_size=burst_size),
        steps,
        users=float(users),
        output=output,
        first=0.1,
        equal=equal,
    )
    return float(ttft), float(tpot)


@pytest.mark.parametrize("users", [8, 32, 128])
def test_prompts_before_decoding_agree_with_a_simulation(users):
    given = (users, 1024.0, 512.0, 0.015, 0.05)
    ttft, tpot = simulate(*given, budget=1024, together=True)
    ours = closed_form(*given, burst_size=UNLIMITED)
    assert ours == pytest.approx((ttft, tpot), rel=0.1)


@pytest.mark.parametrize("users", [16, 32, 64])
@pytest.mark.parametrize("prompt", [512, 1024, 2048])
def test_users_whose_prompts_share_a_step_wait_for_all_of_it(users, prompt):
    given = (users, float(prompt), 256.0, 0.015, 0.05)
    ttft, tpot = simulate(*given, budget=8192, together=True)
    ours = closed_form(*given, burst_size=UNLIMITED, budget=8192)
    assert ours == pytest.approx((ttft, tpot), rel=0.1)
    alone = closed_form(*given, burst_size=UNLIMITED)
    assert alone[0] < ours[0]


def test_prompts_in_eight_bits_are_slower_than_their_kernels():
    narrow = jc.replace(PLAN, weight_bits=8.0, activation_bits=8.0)
    for plan, ratio in ((PLAN, 1.0), (narrow, 1.5)):
        quick, slow = (
            run(system=system(link=1.0, narrow_prefill=share), plan=plan).prefill for share in (1.0, 1.5)
        )
        assert slow == pytest.approx(ratio * quick, rel=1e-4)


@pytest.mark.parametrize("users", [8, 32, 128])
@pytest.mark.parametrize(("spread", "budget"), [(0.0, 8192), (0.0, 2048), (0.2, 2048)])
def test_every_other_prompt_stalls_a_request_or_is_ahead_of_it(users, spread, budget):
    """Whatever the bursts, m of the simulation's TTFT leaves b - m of stalls to TPOT, and m is between bounds."""
    decode, prefill, mean = 0.015, 0.2, 1 - spread / 2
    ttft, tpot = simulate(users, 4096.0, 512.0, decode, prefill, budget=budget, spread=spread)
    ahead = (ttft - decode) / (mean * prefill)
    stalls = (tpot - decode) * mean * 512 / (mean * prefill)
    assert ahead + stalls == pytest.approx(users, rel=0.12)
    low, high = (
        closed_form(users, 4096.0, 512.0, decode, prefill, burst_size=burst_size)[0]
        for burst_size in (1.0, UNLIMITED)
    )
    assert 0.8 * low < ttft < 1.1 * high + prefill / 2


def test_work_is_conserved():
    """A cycle of all users is their decode steps and each one's prompt, whoever waits for whom."""
    for burst_size in (1.0, 4.0, UNLIMITED):
        steps = LoopSteps(decode=0.01, prefill=0.04, batch=32.0, slots=1e9, layers=32.0)
        tpot, ttft = loop_times(
            EngineOverheads(burst_size=burst_size),
            steps,
            users=32.0,
            output=256.0,
            first=0.0,
            equal=1.0,
        )
        assert float(ttft + 256 * tpot) == pytest.approx(257 * 0.01 + 32 * 0.04, rel=1e-5)


@pytest.mark.slow
def test_ideal_kernels_give_the_same_as_none():
    ideal = jc.load_system("h100-sxm-x8")
    kernels = jc.replace_at(
        system(link=1.0), "chip.efficiency.kernels", jc.canonical(type(SYSTEM.chip.efficiency.kernels)())
    )
    one, other = run(system=ideal), run(system=kernels)
    # In a mixed step prompts and decoding have an attention kernel each, which do not overlap.
    for path, _, value in jc.rows(one):
        assert getattr(other, path) == pytest.approx(value, rel=1e-2), path


def test_a_step_has_a_row_of_the_engine_only_where_kernels_are_calibrated():
    traffic = jc.replace(TRAFFIC, batch=16.0)
    ideal = jc.load_system("h100-sxm-x8")
    plain = jax.eval_shape(lambda s: jc.evaluate(s, MODEL, traffic, PLAN), ideal)
    assert "engine" not in plain.decode.names
    without = jc.evaluate(system(), MODEL, traffic, PLAN)
    engine = jc.evaluate(SYSTEM, MODEL, traffic, PLAN)
    at = engine.decode.names.index("engine")
    assert float(engine.decode.rows[at].seconds) == pytest.approx(32 * 1e-5 + 16 * 3e-5, rel=1e-5)
    assert float(without.decode.rows[at].seconds) == 0
    # A prefill step of 8,192 tokens has 8 of the 16 prompts.
    for phase, sequences in (("prefill", 8), ("decode", 16)):
        more = getattr(engine, phase).total - getattr(without, phase).total
        assert float(more) == pytest.approx(32 * 1e-5 + sequences * 3e-5, rel=1e-3)


def test_more_users_wait_longer_and_get_more_together():
    found = [run(users=float(users)) for users in (1, 2, 8, 32, 128, 512, 1024, 4096)]
    for less, more in itertools.pairwise(found):
        assert more.tpot >= less.tpot
        assert more.ttft > less.ttft * (1 - 1e-5)
        assert more.tokens_per_second > less.tokens_per_second * (1 - 2e-3)
        assert more.in_batch >= less.in_batch
    assert found[-1].in_batch == pytest.approx(found[-1].slots, rel=2e-2)
    assert found[-1].waiting == pytest.approx(4096 - found[-1].in_batch)


def test_users_memory_and_tokens_obey_littles_law():
    for users in (16.0, 2048.0):
        r = run(users=users)
        assert r.tokens_per_second == pytest.approx(users * 256 / (r.ttft + 255 * r.tpot), rel=1e-5)
    # What waits does so outside the batch: its throughput is that of as many users as fit.
    full = run(users=float(run(users=4096.0).in_batch))
    assert run(users=4096.0).tokens_per_second == pytest.approx(full.tokens_per_second, rel=0.03)


def test_a_faster_memory_is_never_slower():
    times = []
    for bandwidth in (1e12, 2e12, 3.35e12, 8e12):
        faster = jc.replace_at(SYSTEM, "chip.memory.bandwidth", jnp.asarray(bandwidth))
        times.append(run(system=faster))
    for slow, fast in itertools.pairwise(times):
        assert fast.tpot < slow.tpot
        assert fast.tokens_per_second > slow.tokens_per_second


@pytest.mark.slow
def test_gradients_are_finite_and_agree_with_differences():
    def tokens(system, users, tp, output):
        traffic = jc.replace(TRAFFIC, output=output)
        return closed_loop(system, MODEL, traffic, jc.replace(PLAN, tp=tp), users=users).tpot

    arguments = jc.canonical((SYSTEM, 16.0, 2.0, 256.0))
    slopes = program(jax.grad(tokens, (0, 1, 2, 3)))(*arguments)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slopes))
    base = float(tokens(*arguments))
    for path in ("chip.memory.bandwidth", "chip.efficiency.kernels.engine.sequence"):
        leaf = _at(SYSTEM, path)
        moved = [float(tokens(jc.replace_at(SYSTEM, path, leaf * f), *arguments[1:])) for f in (0.98, 1.02)]
        difference = (moved[1] - moved[0]) / 0.04
        assert float(_at(slopes[0], path) * leaf) == pytest.approx(difference, rel=0.05, abs=1e-4 * base)


def test_lengths_users_and_degrees_are_traced_once(monkeypatch):
    traces = []
    monkeypatch.setattr(
        loops, "closed_loop_steps", lambda *a, **k: (traces.append(1), closed_loop_steps(*a, **k))[1]
    )
    for users, tp, prompt in ((8, 2, 512), (64, 4, 4096), (128, 1, 300)):
        run(users=users, traffic=jc.replace(TRAFFIC, prompt=prompt), plan=jc.replace(PLAN, tp=tp))
    assert len(traces) <= 1


def _at(tree, path):
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree
