"""Tables for the interactive explorer: time, energy, cost and carbon of a token over six parameters, with their errors.

A chip around the die of a B200, whose price follows from its parts, decodes for six models. Discrete parameters
(model, chips, batch, stacks) take the tabulated values, so their results are exact. Between the tabulated bandwidths
and latencies, logarithms are interpolated linearly. The table `errors` has the largest interpolation errors, which
are those in the middle of a cell.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

import jaxcost as jc
from jaxcost.spec.memory import PER_STACK
from study import Study, Table, run

CHIP, STACK = "b200", "hbm4"
MODELS = ("llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "gpt-oss-120b", "deepseek-v3", "kimi-k2")
CHIPS = (1, 2, 4, 8, 16, 32)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
STACKS = (1, 2, 4, 6, 8, 12, 16)
BANDWIDTHS = (0.4e12, 4e12, 15)  # B/s of a stack: from, to, how many
LATENCIES = (50e-9, 20e-6, 7)  # s of an empty message through one switch: from, to, how many
TRAFFIC = {"prompt": 4096, "output": 1024}
PLAN = {"weight_bits": 8, "expert_bits": 8, "kv_bits": 8}
# What is tabled, and its unit; memory in use depends on model, chips and batch alone.
METRICS = {
    "tpot": "s",
    "usd_per_mtok": "USD/Mtok",
    "joules_per_token": "J/token",
    "carbon.operation": "g/Mtok",
    "embodied": "g/Mtok",
}
READ = ("tpot", "usd_per_mtok", "joules_per_token", "carbon.operation", "gco2e_per_mtok", "memory.used")
HOPS = 2.0  # through one switch
STEPS = 65535  # a table's logarithms are 16-bit numbers


@dataclasses.dataclass(frozen=True)
class Grid:
    """Values of every knob, in the order in which the tables run over them."""

    models: tuple[str, ...]
    chips: tuple[int, ...]
    batches: tuple[int, ...]
    stacks: tuple[int, ...]
    bandwidths: np.ndarray
    latencies: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(getattr(self, f.name)) for f in dataclasses.fields(self))


def grid_of(small: bool) -> Grid:
    few = (lambda x: x[::4]) if small else (lambda x: x)
    spaced = lambda low, high, count: np.geomspace(low, high, 3 if small else count)  # noqa: E731
    return Grid(few(MODELS), few(CHIPS), few(BATCHES), few(STACKS), spaced(*BANDWIDTHS), spaced(*LATENCIES))


def base_system() -> jc.System:
    """The chip with one stack; what it costs follows from its parts, as calibrated to the catalogue's chip."""
    like = jc.load_system(f"{CHIP}-x8")
    link = jc.replace(like.fabric.scale_up, launch=0.0, sram_landing=1.0)
    made = jc.replace(
        like,
        chip=jc.replace(like.chip, memory=jc.load_memory(STACK, stacks=1)),
        fabric=jc.replace(like.fabric, scale_up=link),
    )
    return jc.by_parts(made, like=like)


def tabled(grid: Grid) -> dict[str, np.ndarray]:
    """Evaluate a grid; every metric has its shape."""
    stack = jc.load_memory(STACK, stacks=1)

    def axis(path: str, values, *, relative: bool = False) -> jc.Axis:
        return jc.Axis(values=jnp.asarray(values, jnp.float32), path=path, relative=relative)

    # Of an empty message's time, half is the sender's and receiver's, half the hops'.
    quick = ("overhead", 0.5), ("latency", 0.5 / HOPS)
    space = jc.Space(
        base=jc.Design(
            system=jc.stack([base_system()]),
            model=jc.stack([jc.load_model(name) for name in grid.models]),
            traffic=jc.canonical(jc.Traffic(**TRAFFIC)),
            plan=jc.canonical(jc.Plan(**PLAN)),
            prices=jc.canonical(jc.Prices()),
            knobs=jc.canonical(jc.Knobs()),
        ),
        axes=(
            jc.Tied(
                axes=tuple(
                    axis(p, grid.chips)
                    for p in ("plan.tp", "plan.ep", "system.chips", "system.fabric.domain")
                )
            ),
            axis("traffic.batch", grid.batches),
            jc.Tied(
                axes=tuple(
                    axis(f"system.chip.memory.{leaf}", grid.stacks, relative=True)
                    for leaf in ("stacks", *PER_STACK)
                )
            ),
            axis("system.chip.memory.bandwidth", grid.bandwidths / float(stack.bandwidth), relative=True),
            jc.Tied(
                axes=tuple(
                    axis(f"system.fabric.scale_up.{leaf}", share * grid.latencies) for leaf, share in quick
                )
            ),
        ),
        systems=(CHIP,),
        models=grid.models,
    )
    found = jc.sweep(space, metrics=READ)
    columns = {name: found.column(name).reshape(grid.shape) for name in READ}
    columns["embodied"] = columns.pop("gco2e_per_mtok") - columns["carbon.operation"]
    return columns


def between(table: np.ndarray, grid: Grid, at: Grid) -> np.ndarray:
    """A table at other bandwidths and latencies, a cell each, as the page interpolates it: linear in latency and 1 / bandwidth.

    Times are sums of such terms wherever no operator turns from one limit to another within the cell.
    """
    for axis, of, to in ((-1, grid.latencies, at.latencies), (-2, 1 / grid.bandwidths, 1 / at.bandwidths)):
        weight = ((to - of[:-1]) / (of[1:] - of[:-1])).reshape(-1, *[1] * (-1 - axis))
        first, second = (np.delete(table, end, axis) for end in (-1, 0))
        table = first + weight * (second - first)
    return table


def encoded(table: np.ndarray) -> tuple[bytes, float, float]:
    """A table as 16-bit logarithms, with the least and the largest of them."""
    log = np.log(table)
    low, high = float(log.min()), float(log.max())
    return np.round((log - low) / (high - low) * STEPS).astype("<u2").tobytes(), low, high


def study(small: bool) -> Study:
    grid = grid_of(small)
    middle = lambda x: np.sqrt(x[1:] * x[:-1])  # noqa: E731
    halfway = dataclasses.replace(grid, bandwidths=middle(grid.bandwidths), latencies=middle(grid.latencies))
    # Tabled values and those between them take turns, so that one sweep has both.
    turns = lambda x, y: np.insert(x, np.arange(1, len(x)), y)  # noqa: E731
    fine = dataclasses.replace(
        grid,
        bandwidths=turns(grid.bandwidths, halfway.bandwidths),
        latencies=turns(grid.latencies, halfway.latencies),
    )
    both = tabled(fine)
    found = {name: x[..., ::2, ::2] for name, x in both.items()}
    true = {name: x[..., 1::2, 1::2] for name, x in both.items()}
    used = found["memory.used"][:, :, :, 0, 0, 0]
    assert np.allclose(found["memory.used"], used[..., None, None, None], rtol=1e-5)
    errors, layout, blob = [], [], b""
    for name, unit in METRICS.items():
        table, low, high = encoded(found[name])
        off = np.abs(between(found[name], grid, halfway) / true[name] - 1) + (high - low) / STEPS / 2
        errors.append(
            {
                "metric": name,
                "median": float(np.median(off)),
                "p99": float(np.quantile(off, 0.99)),
                "largest": float(off.max()),
            }
        )
        layout.append({"metric": name, "unit": unit, "low": low, "high": high, "start": len(blob)})
        blob += table
    stack = jc.load_memory(STACK, stacks=1)
    knobs = [
        {"knob": knob, "unit": unit, "position": i, "value": value}
        for knob, unit, values in (
            ("model", "", grid.models),
            ("chips", "1", grid.chips),
            ("batch", "1", grid.batches),
            ("stacks", "1", grid.stacks),
            ("bandwidth", "B/s", grid.bandwidths),
            ("latency", "s", grid.latencies),
        )
        for i, value in enumerate(values)
    ]
    memory = [
        {"model": model, "chips": chips, "batch": batch, "used": float(used[i, j, k])}
        for i, model in enumerate(grid.models)
        for j, chips in enumerate(grid.chips)
        for k, batch in enumerate(grid.batches)
    ]
    constants = [
        {"constant": "capacity of a stack", "unit": "B", "value": float(stack.capacity)},
        {"constant": "share of it that the engine uses", "unit": "1", "value": jc.Engine().memory_share},
        {"constant": "carbon intensity", "unit": "g/kWh", "value": float(jc.Prices().grid_carbon) * 3.6e9},
    ]
    worst = max(errors, key=lambda e: e["largest"])
    count = int(np.prod(grid.shape))
    return Study(
        title="Explorer: six knobs of a decode chip",
        findings=(
            f"{count:,} designs are tabled. In the middle between tabled bandwidths and latencies, where interpolation is "
            f"worst, token time is off by {errors[0]['median']:.2%} in the median, {errors[0]['p99']:.2%} at the 99th "
            f"percentile and {errors[0]['largest']:.2%} at most; the worst of all metrics is {worst['metric']}, "
            f"{worst['largest']:.2%} at most. In model, chips, batch and stacks the tables are exact.",
        ),
        assumptions=(
            f"A chip around the die of a {CHIP} with 1 to {STACKS[-1]} stacks of {STACK}, "
            f"{float(stack.capacity) / 1e9:.0f} GB each; its price and its making follow from its parts.",
            "A stack costs, weighs and reads a byte for the same at any bandwidth; of limits only capacity is told, neither "
            "power, heat nor the edge of the die.",
            f"Requests of {TRAFFIC['prompt']} tokens in and {TRAFFIC['output']} out, prefill on the same chips; "
            "8-bit weights, experts and cache; every peak reached.",
            "Tensor parallelism over all chips, experts spread over as many, one switch between them; latency is the time "
            "of an empty message, half of it in the two hops.",
        ),
        sources=(f"configs/chips/{CHIP}.yaml", f"configs/memories/{STACK}.yaml", "configs/prices"),
        tables={
            "knobs": Table(
                "one position of a knob", {"knob": "", "unit": "", "position": "1", "value": ""}, knobs
            ),
            "layout": Table(
                "one metric's 16-bit table: exp(low + (high - low) q / 65535), over model, chips, batch, stacks, bandwidth, "
                "latency, the last fastest, from byte `start`",
                {"metric": "", "unit": "", "low": "1", "high": "1", "start": "B"},
                layout,
            ),
            "memory": Table(
                "bytes in use on a chip", {"model": "", "chips": "1", "batch": "1", "used": "B"}, memory
            ),
            "constants": Table("a constant", {"constant": "", "unit": "", "value": ""}, constants),
            "errors": Table(
                "interpolated over evaluated, less 1, in the middle of every cell, rounding to 16 bits included",
                {"metric": "", "median": "1", "p99": "1", "largest": "1"},
                errors,
            ),
        },
        blobs={"tables.bin": blob},
    )


if __name__ == "__main__":
    run(study)
