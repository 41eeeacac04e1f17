"""Published energy of a token and of a prompt: measured GPUs and nodes, a fleet, and estimates.

Measured GPU energy is held to the energy of the chips, measured energy at the wall to that of chips and servers. A
measured number counts as reproduced within 10%. Efficiency is that fitted to vLLM on an H100, or to TensorRT-LLM; it
was fitted to times alone, and no constant to these rows, except the power of servers, which rests on the same node.
"""

import math
from collections.abc import Iterator

import numpy as np

import jaxcost as jc
from claims.common import Claim, dense

MEASURED = "ML.ENERGY Leaderboard 3.0, arXiv:2505.06371"
NODE = "MLPerf Inference v4.0, NVIDIA DGX H100 MaxQ"
ESTIMATED = "EcoLogits 0.10, ecologits.ai"
CHATGPT = "Epoch AI, energy of a ChatGPT query"
GEMINI = "Google, arXiv:2508.15734"
WATT_HOUR = 3600.0
WITHIN = 0.1  # of a measured energy
LLAMA_GPUS = {"llama-3.1-8b": 1, "llama-3.1-70b": 4, "llama-3.1-405b": 8}
PROMPT = 634  # tokens of a chat of the leaderboard on average
# Model, requests in flight on average, output tokens on average, J a token of all GPUs, W of a GPU.
LEADERBOARD = (
    ("llama-3.1-8b", 16, 404, 0.2627, 513),
    ("llama-3.1-8b", 128, 405, 0.0951, 669),
    ("llama-3.1-8b", 511, 397, 0.0702, 688),
    ("llama-3.1-70b", 32, 351, 1.2069, 449),
    ("llama-3.1-70b", 128, 359, 0.5634, 546),
    ("llama-3.1-70b", 898, 351, 0.3731, 637),
    ("llama-3.1-405b", 32, 372, 4.7653, 468),
    ("llama-3.1-405b", 128, 361, 2.4295, 576),
)
EIGHT = {"weight_bits": 8, "matmul_bits": 8}


def evaluate(
    system: str, model: str | jc.Model, batch: float, prompt: float, output: float, **plan: float
) -> jc.Report:
    """Evaluate a batch on a system of the catalogue, `<system>/<efficiency>`."""
    name, _, efficiency = system.partition("/")
    model = jc.load_model(model) if isinstance(model, str) else model
    traffic = jc.Traffic(prompt=prompt, output=output, batch=batch)
    return jc.evaluate(
        jc.load_system(name, efficiency=efficiency or "ideal"), model, traffic, jc.Plan(**plan)
    )


def verdict(ours: float, measured: float) -> str:
    """Return whether a measured energy is reproduced."""
    return "ok" if abs(ours / measured - 1) <= WITHIN else "no"


def leaderboard() -> Iterator[Claim]:
    for model, batch, output, claimed, watts in LEADERBOARD:
        gpus = LLAMA_GPUS[model]
        bits = EIGHT if gpus == 8 else {}
        system = f"h100-sxm-x{gpus}/h100-sxm-vllm"
        report = evaluate(system, model, batch, PROMPT, output, tp=gpus, **bits)
        joules = float(report.energy.chips)
        why = (
            f"{8 if bits else 16} bits, {gpus} H100, prompt {PROMPT} and output {output} tokens, GPUs alone; a GPU draws "
            f"{float(report.power.chips) / gpus:.0f} W, measured {watts}"
        )
        if bits:
            wide = evaluate(system, model, batch, PROMPT, output, tp=gpus, weight_bits=8)
            why += f"; an 8-bit matmul takes half of a 16-bit one here, with 16 bits {float(wide.energy.chips):.2f} J"
        yield Claim(
            f"energy of a token, {model}, {batch} requests",
            MEASURED,
            claimed,
            "J",
            joules,
            verdict(joules, claimed),
            why,
            WITHIN,
        )


def wall() -> Iterator[Claim]:
    """Llama 2 70B in eight-bit floats, offline: 5,922 W at the plateau of the wall's meter, 17,562 tokens a second."""
    system = jc.load_system("h100-sxm-x8", efficiency="h100-sxm-trtllm")
    system = jc.replace_at(system, "chip.power_cap", 450.0)
    plan = jc.Plan(tp=2, dp=4, weight_bits=8, matmul_bits=8, kv_bits=8)
    traffic = jc.Traffic(prompt=294, output=292, batch=4 * 896)
    report = jc.evaluate(system, jc.load_model("llama-2-70b"), traffic, plan)
    claimed, joules = 5922 / 17561.6, float(report.energy.total)
    yield Claim(
        "energy of a token at the wall, llama-2-70b",
        NODE,
        claimed,
        "J",
        joules,
        verdict(joules, claimed),
        f"8 bits, GPUs limited to 450 W, 4 x 896 requests, prompt 294 and output 292 tokens; ours makes "
        f"{float(report.tokens_per_second):,.0f} tokens a second for 17,562, and its GPUs draw less than their limit",
        WITHIN,
    )


def ecologits(
    parameters: float, gpus: int, *, batch: float = 64, output: float = 400, pue: float = 1.2
) -> float:
    """Return the Wh of a request by the formulas of EcoLogits, for billions of parameters."""
    gpu = 1.1665e-6 * math.exp(-1.1206e-2 * batch) * parameters + 4.0529e-5  # Wh a token
    latency = 6.7851e-4 * parameters + 3.1193e-4 * batch + 1.9474e-2  # s a token
    server = latency / WATT_HOUR * 1200 * gpus / 8 / batch
    return pue * output * (gpus * gpu + server)


def estimates() -> Iterator[Claim]:
    for model, parameters in (("llama-3.1-8b", 8.03), ("llama-3.1-70b", 70.6)):
        gpus = LLAMA_GPUS[model]
        report = evaluate(f"h100-sxm-x{gpus}/h100-sxm-vllm", model, 64, 1, 400, tp=gpus)
        yield Claim(
            f"energy of a request of 400 tokens, {model}",
            ESTIMATED,
            ecologits(parameters, gpus),
            "Wh",
            float(report.energy.total) * 400 * 1.2 / WATT_HOUR,
            "no",
            f"16 bits, {gpus} H100, 64 requests, no prompt, PUE 1.2; its fit to the leaderboard's version 2 has "
            f"{1e3 * (6.7851e-4 * parameters + 3.1193e-4 * 64 + 1.9474e-2):.0f} ms a token, ours "
            f"{1e3 * float(report.tpot):.0f}",
        )


def chatgpt() -> Iterator[Claim]:
    """500 tokens of 100B active parameters at 10% of an H100's FLOP/s, 70% of 1,275 W, PUE 1.2."""
    batches = np.asarray([8.0, 16.0, 32.0, 64.0, 128.0])
    reports = [evaluate("h100-sxm-x8/h100-sxm-vllm", dense(100e9), b, 1, 500, tp=8) for b in batches]
    used = np.asarray([float(r.tokens_per_second) * 2 * 100e9 / (8 * 989e12) for r in reports])
    watt_hours = np.asarray([float(r.energy.total) * 500 * 1.2 / WATT_HOUR for r in reports])
    ours = float(np.exp(np.interp(0.1, used, np.log(watt_hours))))
    batch = float(np.interp(0.1, used, batches))
    yield Claim(
        "energy of a query of 500 tokens, GPT-4o",
        CHATGPT,
        0.3,
        "Wh",
        ours,
        "loose",
        f"a dense 100B at 16 bits stands in, eight H100, no prompt, PUE 1.2; 10% of the FLOP/s are {batch:.0f} requests, "
        f"with 8 requests it is {watt_hours[0]:.1f} Wh, with 128 {watt_hours[-1]:.2f}",
        0.05,
    )


def gemini() -> Iterator[Claim]:
    """0.24 Wh a median prompt: TPUs 0.14, host 0.06, idle machines 0.02, overhead 0.02. Model and TPU are not published."""
    stand_in = (
        "DeepSeek-V3 at 8 bits on 64 TPU v6e stands in, prompt 1,000 and output 400 tokens, ideal peaks"
    )
    plan = {"tp": 8, "ep": 64, "dp": 8, "weight_bits": 8, "expert_bits": 8}
    batches = np.asarray([64.0, 128.0, 192.0, 256.0])
    reports = [evaluate("tpu-v6e-x64", "deepseek-v3", b, 1000, 400, **plan) for b in batches]
    watt_hours = np.asarray([float(r.energy.chips) * 400 / WATT_HOUR for r in reports])
    one, four = reports[0], reports[-1]
    yield Claim(
        "host over TPU, energy",
        GEMINI,
        0.06 / 0.14,
        "x",
        float(one.energy.servers / one.energy.chips),
        "no",
        f"150 W a chip is an estimate for any pod, too much around a TPU of {float(one.power.chips) / 64:.0f} W; {stand_in}",
        0.1,
    )
    facility = jc.evaluate(
        jc.load_system("tpu-v6e-x64"),
        jc.load_model("deepseek-v3"),
        jc.Traffic(prompt=1000, output=400, batch=64),
        jc.Plan(**plan),
        prices=jc.replace(jc.load_prices("default"), pue=1.09),
    ).power
    yield Claim(
        "overhead of the datacenter, of all energy",
        GEMINI,
        8.0,
        "%",
        100 * float(facility.cooling / facility.facility),
        "ok",
        "PUE 1.09",
        0.5 / 8,
    )
    at_meter = (
        400 * 1.09 * (0.22 / 0.20) / WATT_HOUR
    )  # of a request: PUE, and idle machines by the published share
    yield Claim(
        "energy of a median prompt, all in",
        GEMINI,
        0.24,
        "Wh",
        float(four.energy.total) * at_meter,
        "loose",
        f"{stand_in}, 4 requests a TPU, PUE 1.09 and idle machines as published; with 1 request a TPU it is "
        f"{float(one.energy.total) * at_meter:.2f} Wh",
    )
    yield Claim(
        "requests a TPU at which its energy is 0.14 Wh",
        GEMINI,
        None,
        "1",
        float(np.interp(-0.14, -watt_hours, batches)) / 64,
        "-",
        stand_in,
    )


def energy() -> Iterator[Claim]:
    for part in (leaderboard, wall, estimates, chatgpt, gemini):
        yield from part()
