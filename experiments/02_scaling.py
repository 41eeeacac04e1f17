"""What a faster fabric is worth: time per token of 13B to 70B models on 1 to 8 chips, and its share of messages to 64.

`python experiments/02_scaling.py` writes experiments/out/02_scaling.json, data and manifest; figures/02_scaling.py draws
it. Tensor parallelism only, one scale-up domain, every peak reached: what is left between the two fabrics is latency.
"""

import importlib.metadata
import json
import platform
from pathlib import Path

import jax
import jax.numpy as jnp

import jaxcost as jc

OUT = Path(__file__).parent / "out"
CHIP = "h100-sxm"
MODELS = ("llama-2-13b", "qwen3-32b", "llama-3.1-70b")
CHIPS, MANY_CHIPS = (1, 2, 4, 8), (1, 2, 4, 8, 16, 32, 64)
BATCHES = (1, 32)
TRAFFIC = jc.Traffic(prompt=2048, output=512)
# Launch, overhead of a round, latency of a hop, share that lands on the chip: two hops through a switch make 0.3 us.
SUB_MICROSECOND = (0.0, 0.1e-6, 0.1e-6, 1.0)


def empty_message(link: tuple[float, ...]) -> float:
    """Time of a message of no bytes between two chips."""
    launch, overhead, hop, landing = link
    return launch + overhead + 2 * hop + (1 - landing) * 2 * float(jc.load_chip(CHIP).memory.latency)


@jax.jit
@jax.vmap
def measure(
    model: jc.Model, chips: jax.Array, link: tuple[jax.Array, ...], batch: jax.Array
) -> dict[str, jax.Array]:
    system = jc.load_system(CHIP)
    names = ("launch", "overhead", "latency", "sram_landing")
    fast = jc.replace(system.fabric.scale_up, **dict(zip(names, link, strict=True)))
    system = jc.replace(system, chips=chips, fabric=jc.replace(system.fabric, domain=chips, scale_up=fast))
    report = jc.evaluate(system, model, jc.replace(TRAFFIC, batch=batch), jc.Plan(tp=chips))
    messages = sum(row.network for row in report.decode.rows)
    return {
        "tpot": report.tpot,
        "message_share": messages / report.decode.total,
        "memory_margin": report.margins.memory,
    }


def main() -> None:
    today = jc.load_system(CHIP).fabric.scale_up
    links = (
        tuple(float(x) for x in (today.launch, today.overhead, today.latency, today.sram_landing)),
        SUB_MICROSECOND,
    )
    grid = [
        (model, chips, link, batch)
        for model in MODELS
        for chips in (MANY_CHIPS if model == MODELS[-1] else CHIPS)
        for link in links
        for batch in BATCHES
    ]
    names, chips, wired, batches = zip(*grid, strict=True)
    found = measure(
        jc.stack([jc.load_model(name) for name in names]),
        jnp.asarray(chips, float),
        tuple(jnp.asarray(x, float) for x in zip(*wired, strict=True)),
        jnp.asarray(batches, float),
    )
    rows = [
        {
            "model": m,
            "chips": c,
            "latency": round(empty_message(link), 9),
            "batch": b,
            **{k: float(v[i]) for k, v in found.items()},
        }
        for i, (m, c, link, b) in enumerate(grid)
    ]
    manifest = {
        "chip": CHIP,
        "prompt": TRAFFIC.prompt,
        "output": TRAFFIC.output,
        "bits": 16,
        "efficiency": "ideal",
        "units": {"latency": "s", "tpot": "s", "message_share": "1", "memory_margin": "1"},
        "versions": {name: importlib.metadata.version(name) for name in ("jaxcost", "jax", "numpy")},
        "python": platform.python_version(),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "02_scaling.json").write_text(json.dumps({"manifest": manifest, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
