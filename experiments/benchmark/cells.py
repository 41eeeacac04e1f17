"""Measure one cell, with the jaxcost that is on the path, in this process, and print it as one line of JSON.

`PYTHONPATH=TREE python experiments/benchmark/cells.py value 512`

Cells may use only what the present code and the oldest commit to compare with have in common: the public calls,
`jaxcost.evaluate.evaluate` and `design_metrics`. Compilations are never cached from run to run.
"""

import time

START = time.perf_counter()

import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import functools  # noqa: E402
import importlib  # noqa: E402
import inspect  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

import jax  # noqa: E402

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
jax.config.update("jax_num_cpu_devices", CORES)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import jaxcost as jc  # noqa: E402


def imported(name, *modules):
    """Return a name from the first of some modules that exists: today's, then those of older commits."""
    for module in modules:
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"{name} in none of {', '.join(modules)}")


evaluate = imported("evaluate", "jaxcost.evaluation", "jaxcost.evaluate")
METRICS = imported("METRICS", "jaxcost.explore.sweep")
design_metrics = imported("design_metrics", "jaxcost.explore.sweep", "jaxcost.explore.sweep.run")

# Older commits call the argument `present`.
FEATURES, METRIC_FEATURES = (
    "features" if "features" in inspect.signature(f).parameters else "present"
    for f in (evaluate, design_metrics)
)

IMPORTED = time.perf_counter() - START
REPEATS = 7  # the best of so many is reported


def seconds(function):
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - start, result


def first_answer(function):
    """Wall and CPU seconds of a call that traces, compiles or interprets, and what it returned."""
    cpu = time.process_time()
    wall, result = seconds(function)
    return {"first": wall, "cpu": time.process_time() - cpu}, result


def cpu_seconds(function):
    """Tracing and lowering take one thread: its own time is that of a quiet machine, whatever else runs."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def best(function, repeats=REPEATS):
    return min(seconds(function)[0] for _ in range(repeats))


def equations(jaxpr):
    """Count the equations of a jaxpr, with those of the programs inside."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(1 + sum(map(equations, _programs(e.params))) for e in inner.eqns)


def _programs(params):
    leaves = [
        x for value in params.values() for x in (value if isinstance(value, tuple | list) else (value,))
    ]
    return [x for x in leaves if hasattr(x, "eqns") or hasattr(x, "jaxpr")]


# --- designs ---


def one_design():
    """One design in plain numbers: everything in it is traced by whoever traces."""
    return jc.canonical(
        jc.Design(
            system=jc.load_system("h100-sxm-x8"),
            model=jc.load_model("llama-3.1-8b"),
            traffic=jc.Traffic(prompt=2048, output=512, batch=32),
            plan=jc.Plan(tp=2),
            prices=jc.Prices(),
            knobs=jc.Knobs(),
        )
    )


def mixed_designs(count):
    """Designs of a model, a chip, a batch and a degree of sharding each, every leaf of shape [count]."""
    rng = np.random.default_rng(0)
    base = jax.tree.map(lambda x: np.full(count, x, np.float32), one_design())

    def pick(trees):
        index = rng.integers(0, len(trees), count)
        return jax.tree.map(lambda x: np.asarray(x)[index], jc.stack(trees))

    return jc.replace(
        base,
        system=pick([jc.load_system(f"{name}-x8") for name in jc.list_names("chips")]),
        model=pick([jc.load_model(name) for name in jc.list_names("models")]),
        traffic=jc.replace(base.traffic, batch=rng.integers(1, 257, count).astype(np.float32)),
        plan=jc.replace(base.plan, tp=(2.0 ** rng.integers(0, 4, count)).astype(np.float32)),
    )


# --- value and gradient over batches ---


def values(design):
    """All metrics of a sweep; everything is traced, so that everything a design can have is evaluated."""
    return design_metrics(design, METRICS)


def objective(design):
    return jnp.sum(jnp.log(jnp.abs(values(design)) + 1e-3), axis=0)


def slopes(design):
    """The objective and the sum of its slopes in every leaf of the design, so that none is left out."""
    out, gradient = jax.value_and_grad(lambda d: (lambda y: (jnp.sum(y), y))(objective(d)), has_aux=True)(
        design
    )
    return jnp.stack([out[1], functools.reduce(jnp.add, map(jnp.abs, jax.tree.leaves(gradient)))])


PROGRAMS = {"value": values, "gradient": slopes}


def batched(f, designs):
    """Return f over a batch: natively in the last axis where the package can, else with `vmap`; and which it is."""
    with contextlib.suppress(Exception):
        if jax.eval_shape(f, designs).shape[1:] == jax.tree.leaves(designs)[0].shape:
            return f, "native"
    return jax.vmap(f, out_axes=-1), "vmap"


def compiler_options(name):
    """The options that the package compiles such programs with."""
    with contextlib.suppress(ImportError):
        compilation = imported("compilation", "jaxcost.explore.compilation", "jaxcost.explore.compiling")
        return compilation("gradient" if name == "gradient" else "sweep", jax.default_backend()).options
    return imported("_COMPILER_OPTIONS", "jaxcost.explore.stream").get(jax.default_backend())


def over_chunks(name, chunk, count=1 << 15):
    """Trace, lower and compile a program for a chunk of designs on one device a core, and time call after call.

    Values are then timed in a loop over chunks inside one program, as a sweep has it, for a call of some 500 arrays
    takes a millisecond. XLA takes up to three times as long to compile that ("loop").
    """
    devices = np.asarray(jax.local_devices())
    mesh, here = Mesh(devices, ("designs",)), PartitionSpec("designs")
    each = chunk * len(devices)
    designs = mixed_designs(max(count // each, 1) * each)
    part = lambda start, size: jax.tree.map(lambda x: x[start : start + size], designs)  # noqa: E731
    starts = range(0, len(jax.tree.leaves(designs)[0]), each)
    chunks = [jax.device_put(part(start, each), NamedSharding(mesh, here)) for start in starts]
    f, form = batched(PROGRAMS[name], part(0, chunk))
    run = jax.jit(
        jax.shard_map(
            f,
            mesh=mesh,
            in_specs=here,
            out_specs=PartitionSpec(None, "designs"),
            # Designs are independent: checked, the gradient of a number they share would be summed over devices.
            check_vma=False,
        ),
        compiler_options=compiler_options(name),
    )
    out = {"chunk": chunk, "form": form}
    out["trace"], traced = cpu_seconds(lambda: run.trace(chunks[0]))
    out["lower"], lowered = cpu_seconds(traced.lower)
    out["equations"] = equations(traced.jaxpr)
    yield out
    cpu = time.process_time()
    out["compile"], compiled = seconds(lowered.compile)
    out["compile cpu"] = time.process_time() - cpu
    yield out
    every_chunk = lambda: [compiled(x) for x in chunks]  # noqa: E731
    if name == "value":
        whole = jax.tree.map(lambda *x: jnp.stack(x), *chunks)
        loop = jax.jit(
            jax.shard_map(
                lambda designs: jax.lax.map(f, designs),
                mesh=mesh,
                in_specs=PartitionSpec(None, "designs"),
                out_specs=PartitionSpec(None, None, "designs"),
                check_vma=False,
            ),
            compiler_options=compiler_options(name),
        )
        out["loop"], looped = seconds(lambda: loop.lower(whole).compile())
        every_chunk = lambda: looped(whole)  # noqa: E731
    jax.block_until_ready(every_chunk())
    taken, number = best(every_chunk), len(chunks) * each
    out["rate"], out["nanoseconds"] = number / taken, taken * len(devices) / number * 1e9
    out["designs"], out["devices"], out["repeats"] = number, len(devices), REPEATS
    yield out


def value(chunk):
    yield from over_chunks("value", int(chunk))


def gradient(chunk):
    yield from over_chunks("gradient", int(chunk))


def trace(name):
    """Trace and lower a program over a chunk of 512 designs, and do no more."""
    yield next(over_chunks(name, 512))


def tpot(system, d, present=None):
    known = {FEATURES: present}
    return evaluate(system, d.model, d.traffic, d.plan, prices=d.prices, knobs=d.knobs, **known).tpot


def count_equations():
    """Count the equations of one design's programs, and time their tracing."""
    d = one_design()
    programs = {
        "base design, value": lambda d: design_metrics(d, METRICS, **{METRIC_FEATURES: ()}),
        "everything traced, value": values,
        "base design, gradient of TPOT in the system": lambda d: jax.grad(tpot)(d.system, d, ()),
        "everything traced, gradient in every leaf": jax.grad(objective),
    }
    out = {}
    for name, f in programs.items():
        taken, jaxpr = cpu_seconds(lambda f=f: jax.make_jaxpr(f)(d))
        out[f"{name}: equations"], out[f"{name}: trace"] = equations(jaxpr), taken
        yield out


# --- the first answer in a fresh process ---


def first_evaluate():
    loaded, d = seconds(one_design)
    call = lambda: jc.evaluate(d.system, d.model, d.traffic, d.plan)  # noqa: E731
    first, _ = first_answer(call)
    yield first | {"import": IMPORTED, "load": loaded}
    yield {"again": best(call)}


def first_gradient():
    """The quickest public way to the slopes of TPOT in every leaf of a system."""
    d = one_design()
    if hasattr(jc, "gradient"):
        call = lambda: jc.gradient("tpot", d.system, d.model, d.traffic, d.plan)  # noqa: E731
    else:
        call = lambda: jax.grad(tpot)(d.system, d)  # noqa: E731
    first, _ = first_answer(call)
    yield first
    yield {"again": best(call)}


def compiled_gradient():
    d = one_design()
    run = jax.jit(jax.grad(tpot))
    first, _ = first_answer(lambda: run(d.system, d))
    yield first
    yield {"again": best(lambda: run(d.system, d))}


def serve_auto():
    system, model = jc.load_system("h100-sxm-x8", efficiency="typical"), jc.load_model("llama-3.1-70b")
    load = jc.Traffic(prompt=2048, output=512, rate=100.0, tpot_target=0.05, ttft_target=1.0)
    first, found = first_answer(lambda: jc.serve(system, model, load, "auto"))
    yield first | {"answer": float(found.usd_per_mtok)}


def codesign():
    """The README's: the cheapest design within 12 ms a token, from 4 starts."""
    space = jc.load_space("sobol")
    limit = [jc.Constraint("tpot", high=0.012)]
    first, found = first_answer(lambda: jc.codesign(space, "usd_per_mtok", limit, starts=4))
    yield first | {"answer": float(found.value)}


# --- sweeps ---


@dataclasses.dataclass(frozen=True)
class Total:
    """The sum of all metrics: the least that keeps XLA from leaving the evaluation out."""

    needs = ()

    def init(self, layout, dtype=None):
        return jnp.zeros(len(layout.metrics))

    def update(self, layout, state, batch):
        return state + jnp.sum(batch.values, axis=0)

    def merge(self, layout, state, other):
        return state + other

    def result(self, layout, state):
        return state


def default_reducers(metric):
    make = imported("default_reducers", "jaxcost.edge.studies.reducer_file", "jaxcost.edge.reducer_file")
    return make(metric)


def million():
    """The space `million` with all that `jaxcost sweep` keeps of it: the whole call, first and again."""
    space = jc.load_space("million")
    call = lambda: jc.sweep(space, reduce=default_reducers("usd_per_mtok"))  # noqa: E731
    start = time.perf_counter()
    call()
    out = {"designs": space.size, "first": time.perf_counter() - start}
    taken = best(call, 5)
    yield out | {"again": taken, "rate": space.size / taken}


def reducers(rounds=5):
    """The space `million` bare, with a ranking and a front, and with all that `jaxcost sweep` keeps, by turns."""
    space, everything = jc.load_space("million"), default_reducers("usd_per_mtok")
    needs = tuple(dict.fromkeys((*METRICS, *(n for r in everything.values() for n in r.needs))))
    kept = {
        "bare": {"sum": Total()},
        "top 100 and a Pareto front of three": {
            "top": jc.TopK("usd_per_mtok", 100),
            "front": jc.Pareto(("tpot", "usd_per_mtok", "gco2e_per_mtok"), epsilon=0.01, size=4096),
        },
        "all that `jaxcost sweep` keeps": everything,
    }
    taken = {name: [] for name in kept}
    for number in range(int(rounds) + 1):
        for name, reduce in kept.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jc.sweep(space, metrics=needs, reduce=reduce)
            if number:  # the first compiles
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    out = {}
    bare = np.asarray(taken["bare"])
    for name, times in taken.items():
        wall, cpu = np.asarray(times).T
        out[f"{name}: rate"] = space.size / wall.min()
        out[f"{name}: nanoseconds"] = cpu.min() / space.size * 1e9
        # In pairs, so that what else the machine does falls on both.
        out[f"{name}: over bare"] = float(np.median(cpu / bare[:, 1])) - 1
    yield out | {"designs": space.size, "repeats": int(rounds)}


CELLS = {
    f.__name__: f
    for f in (
        value,
        gradient,
        trace,
        count_equations,
        first_evaluate,
        first_gradient,
        compiled_gradient,
        serve_auto,
        codesign,
        million,
        reducers,
    )
}


def main():
    name, *arguments = sys.argv[1:]
    for result in CELLS[name](*arguments):  # what is known so far, in case the rest does not end in time
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
