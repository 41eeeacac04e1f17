"""Operational intensity and capacity footprint of agents (Zhao and Liu): FLOPs per byte of decode, and bytes held."""

from collections.abc import Iterator

import jaxcost as jc
from claims.common import ENDLESS, GB, KIB, Claim, evaluate, memory_only

FOOTPRINT = "OI and CF, arXiv:2601.22001"
CHAT = jc.Traffic(prompt=2048, output=2)


def intensity(step: str, batch: float) -> float:
    """Matmul FLOPs over bytes of one step of a 70B model, from the two legs of its operators."""
    bandwidth = 8e12
    report = evaluate(
        memory_only(bandwidth),
        jc.load_model("llama-3.1-70b"),
        jc.replace(CHAT, batch=batch),
        jc.Plan(),
    )
    rows = getattr(report, step).rows
    return float(sum(r.matmul for r in rows) * ENDLESS / (sum(r.memory for r in rows) * bandwidth))


def agents() -> Iterator[Claim]:
    decode, prefill = intensity("decode", 1.0), intensity("prefill", 1.0)
    yield Claim(
        "FLOPs a byte, 70B decoding, at most",
        FOOTPRINT,
        0.5,
        "FLOP/B",
        decode,
        "no",
        "a multiply and an add for each weight of two bytes make one",
        bound="at most",
    )
    yield Claim(
        "FLOPs a byte, 70B in prefill, at least",
        FOOTPRINT,
        10.0,
        "FLOP/B",
        prefill,
        "ok",
        "2,048 tokens at once, batch 1",
        bound="at least",
    )
    per_token = float(jc.kv_bytes_per_token(jc.load_model("llama-3.1-70b")))
    room = float(jc.load_chip("b200").memory.capacity)
    yield Claim(
        "cache of an agent with 1M tokens, 70B",
        FOOTPRINT,
        327.7,
        "GB",
        1e6 * per_token / GB,
        "ok",
        f"{per_token / KIB:.0f} KiB a token",
    )
    yield Claim(
        "70B with 300K tokens, over a B200, at least",
        FOOTPRINT,
        1.0,
        "x",
        (3e5 * per_token + 140 * GB) / room,
        "ok",
        "most agents' footprints exceed one B200: this one does with the weights beside it, not alone",
        bound="at least",
    )
    latent = float(jc.kv_bytes_per_token(jc.load_model("deepseek-r1")))
    yield Claim(
        "context of 100 GB a request, DeepSeek-R1",
        FOOTPRINT,
        None,
        "Mtoken",
        100 * GB / latent / 1e6,
        "-",
        f"{latent / KIB:.1f} KiB a token: the 100 GB that they state are a longer context than it was trained for",
    )
