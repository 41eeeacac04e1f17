"""The four directions in a phone: what fits, how fast it answers, and what that takes of the battery.

`python experiments/05_phones.py` writes experiments/out/05_phones.json, data and manifest, and prints a table;
figures/05_phones.py draws it. Arm by arm, with the watts that the case sheds without end as a cap:

    today    LPDDR5X, of which system and applications hold a part
    flash    an eighth of a stack of High Bandwidth Flash beside it holds the weights
    in memory  engines in the LPDDR chips
    stacked  8 GB of DRAM bonded on the logic in place of LPDDR

A fast fabric there is none: a phone is one chip.
"""

import importlib.metadata
import json
import platform
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxcost as jc

OUT = Path(__file__).parent / "out"
PHONES = ("iphone-16-pro", "galaxy-s25-ultra")
ARMS = ("today", "flash", "in memory", "stacked")
MODELS = ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "qwen3-30b-a3b")
TRAFFIC = {"prompt": 512, "output": 256, "batch": 1}
PLAN = {"weight_bits": 4.5, "expert_bits": 4.5, "kv_bits": 8}
FLASH_STACK = 0.125
METRICS = {
    "ttft": "s",
    "tpot": "s",
    "joules_per_token": "J/token",
    "battery_share": "1",
    "gco2e_per_query": "g",
}


def system(phone: str, arm: str) -> jc.System:
    """A phone with one of the directions."""
    made = jc.load_system(phone, efficiency="typical")
    gigabytes = float(made.chip.memory.capacity) / 1e9
    if arm == "flash":
        made = jc.add_tier(made, "hbf", "hbf", stacks=FLASH_STACK)
    if arm == "in memory":
        made = jc.add_near(made, "memory", "pim-ai-mobile", stacks=gigabytes)
    if arm == "stacked":
        dram = jc.load_memory("3d-dram", stacks=1)
        share = made.chip.memory.capacity / dram.capacity
        memory = jc.replace(
            made.chip.memory,
            bandwidth=dram.bandwidth * share,
            energy_per_byte=dram.energy_per_byte,
            carbon_per_byte=dram.carbon_per_byte,
        )
        # The way across the die is short: half the energy.
        made = jc.replace(made, chip=jc.replace(made.chip, memory=memory, stacking=jc.Stacking(energy=0.5)))
    return jc.canonical(made)


def rows() -> list[dict]:
    """Evaluate every phone, arm and model."""
    plan, traffic = jc.Plan(**PLAN, placement=jc.Placement(near_slack=0.1)), jc.Traffic(**TRAFFIC)
    prices, out = jc.load_prices("phone"), []
    for phone in PHONES:
        for arm in ARMS:
            made = system(phone, arm)
            for model in MODELS:
                report = jax.device_get(jc.evaluate(made, jc.load_model(model), traffic, plan, prices=prices))
                fits = min(float(report.margins.memory), float(report.margins.hbf))
                out.append(
                    {
                        "phone": phone,
                        "arm": arm,
                        "model": model,
                        "fits": bool(fits >= 0),
                        **{
                            name: float(getattr(report, name))
                            for name in METRICS
                            if name != "gco2e_per_query"
                        },
                        "gco2e_per_query": float(report.gco2e_per_mtok) * TRAFFIC["output"] / 1e6,
                        "prefill_watts": float(report.power.prefill),
                        "decode_watts": float(report.power.decode),
                        "decode_clock": float(report.power.decode_clock),
                        "waiting_share": float(report.decode.capped / report.decode.total),
                    }
                )
    return out


def main() -> None:
    """Write the data and print the table."""
    data = rows()
    table = Table(title="A request of 512 tokens in, 256 out; a dash where the model does not fit")
    for name in ("Phone", "Direction", "Model", "TTFT", "token/s", "W decoding", "waiting", "battery"):
        table.add_column(name)
    for r in data:
        shown = (
            f"{r['ttft']:.2f} s",
            f"{1 / r['tpot']:.1f}",
            f"{r['decode_watts']:.1f}",
            f"{r['waiting_share']:.0%}",
            f"{r['battery_share']:.2%}",
        )
        table.add_row(r["phone"], r["arm"], r["model"], *(shown if r["fits"] else "-" * 5))
    Console(width=110).print(table)
    manifest = {
        "plan": PLAN,
        "traffic": TRAFFIC,
        "efficiency": "typical",
        "prices": "phone",
        "units": METRICS | {"prefill_watts": "W", "decode_watts": "W"},
        "versions": {name: importlib.metadata.version(name) for name in ("jaxcost", "jax", "numpy")},
        "python": platform.python_version(),
    }
    assert np.isfinite([r["ttft"] for r in data]).all()
    OUT.mkdir(exist_ok=True)
    (OUT / "05_phones.json").write_text(json.dumps({"manifest": manifest, "rows": data}, indent=1) + "\n")


if __name__ == "__main__":
    main()
