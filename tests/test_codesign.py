"""Co-design of a cheap function: optima against closed forms, and shadow prices against finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.explore.analysis.uncertainty import Spread
from jaxcost.explore.codesign import descent, lagrangian
from jaxcost.explore.codesign.relaxation import apply_knobs, relax
from jaxcost.explore.codesign.rounding import FEASIBILITY_TOLERANCE
from jaxcost.explore.codesign.solver import InitialPoints, Solver, draw_factors, initial_points

BANDWIDTH, FLOPS = "system.chip.memory.bandwidth", "system.chip.compute.flops_16"
GIVES = ("tpot", "usd_per_mtok", "margins.power")
POWER = jc.Constraint("margins.power", low=0.0)


def cheap(design):
    """Seconds b0/b + f0/f times the prompt, dollars b^0.6 f^0.4 times a price, watts b + f of the power there is."""
    b, f = design.system.chip.memory.bandwidth, design.system.chip.compute.flops_16
    seconds = design.traffic.prompt * (1 / b + design.model.hidden / f)
    dollars = design.system.chip.price * b**0.6 * f**0.4 / design.traffic.batch
    watts = b + f + 0.01 * design.traffic.batch
    return jnp.stack([seconds, dollars, 1 - watts / design.system.chip.tdp])


def space(*axes, low=0.1, high=100.0, models=(1.0,), tdp=10.0, whole=None):
    knobs = [jc.log_range(BANDWIDTH, low, high), jc.log_range(FLOPS, low, high)]
    if whole:
        knobs.append(jc.log_range("traffic.batch", *whole, whole=True))
    system = jc.replace_at(jc.replace_at(jc.System(), "chip.tdp", tdp), "chip.price", 1.0)
    base = jc.Design(
        system=jc.stack([system]),
        model=jc.stack([jc.Model(hidden=h) for h in models]),
        traffic=jc.Traffic(prompt=1.0, batch=1.0),
    )
    return jc.Space(
        base=jc.canonical(base),
        axes=(*axes, jc.sample(*knobs, count=64)),
        systems=("s",),
        models=tuple(f"m{h:g}" for h in models),
    )


def solve(space, objective="tpot", constraints=(POWER,), **options):
    return jc.codesign(space, objective, constraints, evaluation=cheap, metrics=GIVES, starts=4, **options)


def knobs(result):
    return {knob.name: knob.value for knob in result.knobs}


def test_an_optimum_in_closed_form():
    # Least 1/b + h/f with b + f = P - 0.01 where f / b = sqrt(h), at (1 + sqrt h)^2 / (P - 0.01); its price is 1.
    result = solve(space(models=(4.0,)))
    free = 10 - 0.01
    assert not result.failed
    assert result.value == pytest.approx(9 / free, rel=1e-4)
    assert knobs(result)[BANDWIDTH] == pytest.approx(free / 3, rel=1e-2)
    (limit,) = result.active
    assert limit.metric == "margins.power"
    assert limit.multiplier == pytest.approx(10 / free, rel=1e-3)
    assert (limit.path, limit.unit, limit.limit) == ("system.chip.tdp", "W", 10.0)
    assert limit.price == pytest.approx(-9 / free**2, rel=1e-3)  # seconds a watt
    assert abs(result.gap) < 1e-4
    found = result.convergence
    assert found.stationarity < 1e-4
    assert found.violation < 1e-5
    assert found.complementarity < 1e-4
    assert found.converged == found.agreed == 1


def test_the_exact_design_satisfies_its_limits_in_the_precision_of_the_space():
    design = solve(space(models=(4.0,))).design
    assert design.system.chip.tdp.dtype == jnp.float32
    margin = float(cheap(design)[2])
    assert 0 <= margin < 10 * FEASIBILITY_TOLERANCE


def test_same_seed_same_answer():
    one, two, other = (solve(space(), seed=seed) for seed in (0, 0, 7))
    assert np.array_equal(one.positions, two.positions)
    assert one.value == two.value
    assert one.limits == two.limits
    assert other.value == pytest.approx(one.value, rel=1e-4)


@pytest.mark.parametrize(("optimiser", "within"), [("bfgs", 1e-4), ("lbfgs", 1e-3), ("adam", 3e-2)])
def test_every_optimiser(optimiser, within):
    assert optimiser in descent.OPTIMISERS
    assert solve(space(models=(4.0,)), optimiser=optimiser).value == pytest.approx(9 / 9.99, rel=within)


def test_knobs_at_their_ends():
    result = solve(space(high=2.0))
    assert [knob.end for knob in result.knobs] == ["high", "high"]
    assert all(knob.slope < 0 for knob in result.knobs)  # more of either would be faster
    assert not result.active


def test_prices_are_differences_of_solved_problems():
    limits = lambda t, p: (jc.Constraint("tpot", high=t), jc.Constraint("margins.power", low=p))  # noqa: E731
    where = space(models=(4.0,), high=6.0)
    result = solve(where, "usd_per_mtok", limits(1.2, 0.05))
    prices = {limit.metric: limit.multiplier for limit in result.limits}
    step = 0.005
    more, less = (solve(where, "usd_per_mtok", limits(1.2 * (1 + s), 0.05)).relaxed for s in (step, -step))
    slope = np.log(more / less) / np.log((1 + step) / (1 - step))
    assert prices["tpot"] > 0.5
    assert -slope == pytest.approx(prices["tpot"], rel=0.01)
    tight = solve(space(models=(4.0,), tdp=7.8, low=1.0), {"tpot": 1.0, "usd_per_mtok": 0.2}, (POWER,))
    wide = solve(space(models=(4.0,), tdp=7.8 * 1.01, low=1.0), {"tpot": 1.0, "usd_per_mtok": 0.2}, (POWER,))
    (limit,) = tight.active
    assert -np.log(wide.relaxed / tight.relaxed) / np.log(1.01) == pytest.approx(limit.multiplier, rel=0.02)


def test_whole_numbers_and_choices_against_all_of_them():
    grid = jc.Axis(path="system.chip.price", values=jnp.asarray([3.0, 1.0, 2.0]))
    where = space(grid, models=(4.0,), whole=(1, 400), low=0.5, high=8.0)
    limits = (POWER, jc.Constraint("tpot", high=1.5))
    result = solve(where, "usd_per_mtok", limits)
    assert result.choices["system.chip.price"] == 1.0
    assert [v for _, v in result.alternatives] == sorted(v for _, v in result.alternatives)
    batch = np.arange(1, 401)[:, None, None]
    b, f = np.meshgrid(np.geomspace(0.5, 8, 400), np.geomspace(0.5, 8, 400), indexing="ij")
    allowed = (1 / b + 4 / f <= 1.5) & (b + f + 0.01 * batch <= 10)
    best = np.where(allowed, b**0.6 * f**0.4 / batch, np.inf).min()
    assert knobs(result)["traffic.batch"] % 1 == 0
    assert result.value <= best * 1.005
    assert float(cheap(result.design)[2]) >= 0


def test_the_worst_and_the_mean_of_two_models():
    worst = solve(space(models=(1.0, 4.0)), across=("model",), over="worst")
    assert worst.scenarios == ("m1", "m4")
    assert worst.value == pytest.approx(9 / 9.99, rel=2e-3)  # the larger model's own optimum
    mean = solve(space(models=(1.0, 4.0)), across=("model",))
    assert mean.value == pytest.approx((1 + np.sqrt(2.5)) ** 2 / 9.99, rel=1e-3)
    assert len(mean.designs) == 2


@pytest.mark.parametrize("level", [0.0, 0.3, 0.75, 0.9])
def test_cvar_is_the_mean_of_the_tail(level):
    values = np.random.default_rng(1).normal(size=40)
    tail = np.sort(np.exp(values))[::-1][: round(40 * (1 - level))]
    with jax.enable_x64(True):
        got = lagrangian.combine_scenarios(jnp.asarray(values), jnp.full(40, 1 / 40), level, 0.0)
    assert float(got) == pytest.approx(np.log(tail.mean()), rel=1e-9)


def test_a_failed_solve_says_so():
    result = solve(space(), constraints=(POWER, jc.Constraint("tpot", high=0.01)))
    assert "no design was found" in result.failed
    assert "tpot by" in result.failed or "margins.power by" in result.failed


def test_slopes_equal_differences():
    objective = {"tpot": 1.0, "usd_per_mtok": 0.3}
    solver = Solver(jc.Problem(space(models=(4.0,)), objective, (POWER,), evaluation=cheap, metrics=GIVES))
    u = np.full((1, 2), 0.7)
    shape = (1, 1, len(solver.arrays.sign))
    points = lambda at: InitialPoints(  # noqa: E731
        combination=np.zeros(1, int), positions=at, multipliers=np.full(shape, 0.3), penalty=np.full(1, 3.0)
    )
    slope = solver.measure(points(u), tau=0.1).slope[0]
    value = lambda at: lagrangian_value(solver, points(at))  # noqa: E731
    for k in range(2):
        step = np.zeros((1, 2))
        step[0, k] = 1e-6
        assert slope[k] == pytest.approx((value(u + step) - value(u - step)) / 2e-6, rel=1e-6)


def lagrangian_value(solver, points):
    solutions = solver.measure(points, tau=0.1)
    updated = np.maximum(0.3 + 3 * solutions.limits[0], 0)
    used = solver.arrays.sign != 0
    return solutions.objective[0] + (np.where(used, updated**2 - 0.09, 0) / 6).sum()


def test_a_relaxed_knob_is_the_design_of_its_position():
    relaxation = relax(space(whole=(1, 9)))
    u = np.asarray([0.25, 0.5, 1.0])
    design = relaxation.design(0, 0, u)
    with jax.enable_x64(True):
        leaves = apply_knobs(jnp.asarray(relaxation.bases[0, 0]), relaxation.effects(8), jnp.asarray(u))
    for got, want in zip(jax.tree.leaves(design), leaves, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    assert float(design.traffic.batch) == 9


def test_stacks_move_all_that_a_stack_brings():
    tier = jc.Memory(capacity=24.0, bandwidth=1.0, stacks=1.0, latency=5.0)
    knob = jc.stacks("system.chip.memory", 1, 12)
    design = jc.Design(system=jc.replace_at(jc.System(), "chip.memory", tier), model=jc.Model())
    moved = knob.put(jc.canonical(design), jnp.int32((1 << 24) - 1)).system.chip.memory
    assert (moved.capacity, moved.bandwidth, moved.stacks, moved.latency) == (288.0, 12.0, 12.0, 5.0)


def test_a_front_and_its_slopes():
    front = jc.codesign_front(
        space(models=(4.0,)),
        ("usd_per_mtok", "tpot"),
        (POWER,),
        points=5,
        starts=2,
        evaluation=cheap,
        gives=GIVES,
    )
    assert len(front.points) == 5
    cost, time = (np.asarray([p.values[m] for p in front.points]) for m in front.metrics)
    assert np.all(np.diff(cost) > 0)
    assert np.all(np.diff(time) < 0)
    inner = front.points[2]
    for k, end in ((1, 0), (3, 4)):
        chord = np.log(cost[k] / cost[end]) / np.log(time[k] / time[end])
        assert chord < 0
    assert inner.slopes["tpot"] == pytest.approx(
        -1.0, rel=0.15
    )  # b f = const / t^2 while power does not bind


def test_a_front_of_metrics_that_agree_is_their_common_best():
    def agreeing(design):
        batch = design.traffic.batch
        power = 1 - design.system.chip.memory.bandwidth / 200 - design.system.chip.compute.flops_16 / 200
        return jnp.stack([batch + 6.25 / batch, 2 * (batch + 6.25 / batch), power])

    # The best batch is 2.5; whole ones are 1.7% worse, beyond the tightest bound.
    front = jc.codesign_front(
        space(whole=(1, 9)),
        ("usd_per_mtok", "tpot"),
        (POWER,),
        points=3,
        starts=2,
        evaluation=agreeing,
        gives=GIVES,
    )
    assert [p.values["tpot"] for p in front.points] == pytest.approx([3 + 6.25 / 3], rel=1e-6)


def test_along_a_number_and_where_two_ways_break_even():
    prices = jc.choice(
        "system.chip", {"dear": jc.Chip(price=2.0, tdp=20.0), "cheap": jc.Chip(price=1.0, tdp=10.0)}
    )
    del prices
    grid = jc.Axis(path="system.chip.price", values=jnp.asarray([1.0, 1.5]))
    tied = jc.Tied(axes=(grid, jc.Axis(path="system.chip.tdp", values=jnp.asarray([10.0, 20.0]))))
    options = {"starts": 2, "evaluation": cheap, "metrics": GIVES}
    where = space(tied, models=(4.0,))
    limits = (POWER, jc.Constraint("tpot", high=1.0))
    along = jc.codesign_along(where, "usd_per_mtok", limits, "traffic.prompt", [0.8, 1.0, 2.0], **options)
    assert along.unit == "token"
    assert np.all(np.diff(along.objective) > 0)
    # With 20 W twice the prompt is still served in time; with 10 W it is not, at half the price.
    assert [c["system.chip.tdp"] for c in along.choices] == [10.0, 10.0, 20.0]
    even = jc.break_even(
        where, "usd_per_mtok", limits, "traffic.prompt", 0.5, 2.0,
        axis="system.chip.tdp", first="10.0", second="20.0", **options,
    )  # fmt: skip
    assert np.isnan(even.value)  # the dear one is only needed, never the cheaper of two that hold
    assert np.isnan(even.first[-1])
    assert not np.isnan(even.second[-1])
    even = jc.break_even(
        where, "usd_per_mtok", limits, "tpot", 0.91, 1.4,
        axis="system.chip.tdp", first="10.0", second="20.0", **options,
    )  # fmt: skip
    assert len(even.values) >= 9
    table = jc.elasticity_table(
        where, solve(where, "usd_per_mtok", limits), ("usd_per_mtok", "tpot"), evaluation=cheap, gives=GIVES
    )
    np.testing.assert_allclose(table.table[0], [0.6, 0.4], rtol=1e-6)
    assert table.table[1].sum() == pytest.approx(-1, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"objective": "tpots"}, "no metric 'tpots'"),
        ({"objective": {"tpot": 0.0}}, "a weight is a number other than 0"),
        ({"constraints": (jc.Constraint("tpot", high=-1.0),)}, "bounds are above 0"),
        ({"constraints": (jc.Constraint("margins.worst", low=0.0),)}, "a margin has a low end"),
        ({"across": ("nothing",)}, "across 'nothing'"),
        ({"over": "best"}, '"mean", "worst"'),
        ({"over": 1.5}, "from 0 to below 1"),
        ({"optimiser": "magic"}, "an optimiser is one of bfgs"),
        ({"starts": 0}, "starts is at least 1"),
        ({"draws": 0}, "draws is at least 1"),
    ],
)
def test_bad_input(change, says):
    arguments = {"objective": "tpot", "constraints": (POWER,)} | change
    objective, constraints = arguments.pop("objective"), arguments.pop("constraints")
    with pytest.raises(ValueError, match=says):
        jc.Problem(space(), objective, constraints, **arguments)


def test_a_problem_in_place_of_a_space():
    where = space(models=(4.0,))
    problem = jc.Problem(where, "tpot", (POWER,), evaluation=cheap, metrics=GIVES, starts=2)
    by_space = jc.codesign(where, "tpot", (POWER,), evaluation=cheap, metrics=GIVES, starts=2)
    by_problem = jc.codesign(problem)
    assert by_problem.value == by_space.value
    assert by_problem.limits == by_space.limits
    cheaper = jc.codesign(problem, {"usd_per_mtok": 1.0}, starts=1)
    assert (cheaper.objective, cheaper.convergence.starts) == ({"usd_per_mtok": 1.0}, 1)
    assert problem.weights == {"tpot": 1.0}
    options = {"evaluation": cheap, "gives": GIVES}
    one = jc.elasticity_table(problem, by_problem, ("tpot",))
    np.testing.assert_array_equal(one.table, jc.elasticity_table(where, by_space, ("tpot",), **options).table)
    front = jc.codesign_front(problem, ("usd_per_mtok", "tpot"), points=2)
    options["starts"] = 2
    assert front == jc.codesign_front(where, ("usd_per_mtok", "tpot"), (POWER,), points=2, **options)
    problem = dataclasses.replace(problem, constraints=(POWER, jc.Constraint("tpot", high=1.0)))
    along = jc.codesign_along(problem, path="tpot", values=[1.0, 1.2])
    bounds = [limit.bound for d in along.designs for limit in d.limits if limit.metric == "tpot"]
    assert bounds == [1.0, 1.2]
    with pytest.raises(TypeError, match="needs an objective"):
        jc.codesign(where)
    with pytest.raises(TypeError, match="start"):
        jc.codesign(where, "tpot", start=2)


def test_starts_are_within_the_box_and_differ():
    problem = jc.Problem(space(), "tpot", (POWER,), evaluation=cheap, metrics=GIVES, starts=8, seed=3)
    points = initial_points(Solver(problem))
    assert np.all((points.positions > 0) & (points.positions < 1))
    assert len(np.unique(points.positions, axis=0)) == 8


def test_over_draws_of_an_uncertain_constant():
    where = space(models=(4.0,), tdp=8.0, low=1.0)
    design = jc.design_at(where, 0)
    leaves, structure = jax.tree.flatten((design.system, design.prices))
    mid = np.asarray([float(x) for x in leaves])
    low, high = mid[None].copy(), mid[None].copy()
    paths = [
        ".".join(k.name for k in path[1:])
        for path, _ in jax.tree_util.tree_leaves_with_path((design.system, design.prices))
    ]
    at = paths.index("chip.price")
    low[0, at], high[0, at] = 0.5, 2.0
    spread = Spread(structure=structure, mid=mid, low=low, high=high)
    limits = (POWER, jc.Constraint("tpot", high=1.3))
    options = {"uncertain": spread, "draws": 16, "seed": 3}
    factors = draw_factors(relax(where), spread, 16, 3)
    assert factors.shape == (16, len(relax(where).paths))
    price = factors[:, relax(where).paths.index("system.chip.price")]
    assert price.min() >= 0.5
    assert price.max() <= 2.0
    sure = solve(where, "usd_per_mtok", limits)
    mean = solve(where, "usd_per_mtok", limits, **options)
    assert mean.value == pytest.approx(sure.value * price.mean(), rel=1e-3)
    tail = solve(where, "usd_per_mtok", limits, over=0.75, **options)
    assert tail.value == pytest.approx(sure.value * np.sort(price)[-4:].mean(), rel=1e-3)
    assert len(tail.limits) == 16 * 2
