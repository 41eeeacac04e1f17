"""Time other tools on the question that jaxcost is timed on, and print JSON.

The question is prefill and decode of one model on one chip, with a different batch in each call.
`pip install -e ".[peers]"` and `pip install --no-deps llm-analysis` install the tools.
"""

import contextlib
import importlib.util
import io
import json
import logging
import time

import jax

import jaxcost as jc

MODEL, CHIP, PROMPT, OUTPUT = "llama-3.1-8b", "h100-sxm", 2048, 512


def jaxcost_one_by_one():
    system, model = jc.load_system(CHIP), jc.load_model(MODEL)

    @jax.jit
    def whole(batch):
        report = jc.evaluate(system, model, jc.Traffic(prompt=PROMPT, output=OUTPUT, batch=batch), jc.Plan())
        return report, report.ttft, report.tpot

    def ask(batch):
        _, ttft, tpot = whole(float(batch))
        return 1000 * float(ttft), 1000 * float(tpot)

    return ask


def genz():
    from GenZ import decode_moddeling, prefill_moddeling

    chip = jc.load_chip(CHIP)
    same = {
        "model": "meta-llama/Llama-3.1-8B",
        "input_tokens": PROMPT,
        "bits": "bf16",
        "system_name": {
            "Flops": float(chip.compute.flops_16) / 1e12,
            "Memory_size": float(chip.memory.capacity) / 1e9,
            "Memory_BW": float(chip.memory.bandwidth) / 1e9,
            "ICN": 450,
            "real_values": True,
        },
    }

    def ask(batch):
        with contextlib.redirect_stdout(io.StringIO()):
            first = prefill_moddeling(batch_size=batch, **same)["Latency"]
            return first, decode_moddeling(batch_size=batch, output_tokens=OUTPUT // 2, **same)["Latency"]

    return ask


def llm_analysis():
    logging.disable(logging.WARNING)
    from llm_analysis import analysis, config

    model, chip = jc.load_model(MODEL), jc.load_chip(CHIP)
    same = analysis.LLMAnalysis(
        config.ModelConfig(
            name=MODEL,
            num_layers=32,
            n_head=32,
            hidden_dim=int(model.hidden),
            vocab_size=int(model.vocabulary),
            num_key_value_heads=int(model.attention.kv_heads),
            # It knows no gated feed-forward: two matrices of 5 d come nearest to Llama's three of 3.5 d.
            ffn_embed_dim=5 * int(model.hidden),
            model_type="llama",
        ),
        config.GPUConfig(
            name=CHIP,
            mem_per_GPU_in_GB=float(chip.memory.capacity) / 1e9,
            hbm_bandwidth_in_GB_per_sec=float(chip.memory.bandwidth) / 1e9,
            intra_node_bandwidth_in_GB_per_sec=450,
            intra_node_min_message_latency=2e-6,
            peak_fp16_TFLOPS=float(chip.compute.flops_16) / 1e12,
        ),
        flops_efficiency=1.0,
        hbm_memory_efficiency=1.0,
    )

    def ask(batch):
        found = same.inference(batch_size_per_gpu=batch, seq_len=PROMPT, num_tokens_to_generate=OUTPUT)
        return 1000 * found["prefill_latency"], 1000 * found["decode_latency"]

    return ask


PEERS = (
    (
        "jaxcost, a call each",
        "jaxcost",
        jaxcost_one_by_one,
        "latency, memory, energy, USD, CO2e, 14 margins, gradients",
    ),
    ("GenZ", "GenZ", genz, "latency, memory, operator by operator"),
    ("llm-analysis", "llm_analysis", llm_analysis, "latency, memory"),
)


def rate(ask, seconds: float = 3.0) -> tuple[float, float, float]:
    ask(7)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        calls += 1
        ask(1 + calls % 64)
    return calls / (time.perf_counter() - start), *ask(32)


def main() -> None:
    for name, module, make, gives in PEERS:
        row: dict[str, object] = {"gives": gives, "calls": None}
        if importlib.util.find_spec(module) is not None:
            row |= dict(zip(("calls", "prefill", "decode"), rate(make()), strict=True))
        print(json.dumps({name: row}), flush=True)


if __name__ == "__main__":
    main()
