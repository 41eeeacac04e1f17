"""Rates and compile times of evaluate, value and gradient, over a mixed space of models, chips, batch and tp.

`python experiments/01_benchmark.py --designs 262144` prints a table. Every design takes its own model and chip from
the catalogue; values return all metrics of a sweep, gradients are summed over every leaf, so nothing is left out.
"""

import argparse
import os
import time

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, PartitionSpec  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import jaxcost as jc  # noqa: E402
from jaxcost.explore.sweep import METRICS, design_metrics  # noqa: E402


def designs() -> tuple[jc.System, jc.Model]:
    systems = jc.stack([jc.load_system(f"{name}-x8") for name in jc.list_names("chips")])
    models = jc.stack([jc.load_model(name) for name in jc.list_names("models")])
    return systems, models


def design(stacks: tuple[jc.System, jc.Model], u: jax.Array) -> jc.Design:
    systems, models = stacks
    pick = lambda tree, x: jax.tree.map(lambda v: v[(x * v.shape[0]).astype(int)], tree)  # noqa: E731
    traffic, plan, prices, knobs = jc.canonical(
        (jc.Traffic(prompt=2048, output=512), jc.Plan(), jc.Prices(), jc.Knobs())
    )
    return jc.Design(
        system=pick(systems, u[0]),
        model=pick(models, u[1]),
        traffic=jc.replace(traffic, batch=jnp.round(1 + 255 * u[2])),
        plan=jc.replace(plan, tp=2.0 ** jnp.floor(4 * u[3])),
        prices=prices,
        knobs=knobs,
    )


def objective(d: jc.Design) -> jax.Array:
    return jnp.sum(jnp.log(jnp.abs(design_metrics(d, METRICS)) + 1e-3))


def value(d: jc.Design) -> jax.Array:
    return design_metrics(d, METRICS)


def gradient(*parts: str):
    def f(d: jc.Design) -> jax.Array:
        chosen = {name: getattr(d, name) for name in parts}
        out, slopes = jax.value_and_grad(lambda c: objective(jc.replace(d, **c)))(chosen)
        return jnp.stack([out, sum(jnp.abs(x) for x in jax.tree.leaves(slopes))])

    return f


CASES = (
    ("value, all metrics", value, 128),
    ("value, all metrics", value, 256),
    ("value, all metrics", value, 1024),
    ("value of one objective", lambda d: objective(d)[None], 256),
    ("gradient, system leaves", gradient("system"), 256),
    ("gradient, all leaves", gradient("system", "model", "traffic", "plan"), 256),
)


def measure(f, chunk: int, count: int) -> tuple[float, float, float]:
    mesh, here = Mesh(np.asarray(jax.local_devices()), ("designs",)), PartitionSpec("designs")
    run = jax.jit(
        jax.shard_map(
            lambda stacks, u: jax.lax.map(lambda x: f(design(stacks, x)), u, batch_size=chunk),
            mesh=mesh,
            in_specs=(PartitionSpec(), here),
            out_specs=here,
            # Designs are independent: checked, the gradient of a number they share would be summed over devices.
            check_vma=False,
        ),
        compiler_options={"xla_cpu_prefer_vector_width": "512"} if jax.default_backend() == "cpu" else None,
    )
    u = jax.random.uniform(jax.random.key(0), (count, 4))
    stacks = designs()
    start = time.perf_counter()
    compiled = run.lower(stacks, u).compile()
    compile_seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(stacks, u))
    wall, cpu = [], []
    for _ in range(3):
        a, b = time.perf_counter(), time.process_time()
        jax.block_until_ready(compiled(stacks, u))
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
    return compile_seconds, count / min(wall), min(cpu) / count * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=1 << 18)
    count = parser.parse_args().designs // 8192 * 8192
    table = Table(
        "what", "chunk", "trace + compile s", "million/s", "CPU ns each", title=f"{count:,} mixed designs"
    )
    for name, f, chunk in CASES:
        seconds, rate, nanoseconds = measure(f, chunk, count)
        table.add_row(name, str(chunk), f"{seconds:.1f}", f"{rate / 1e6:.2f}", f"{nanoseconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
