"""LIMINAL: Llama 3.1 405B on chips with HBM3, as a roofline with a synchronization of fixed time.

The bit widths, TB meaning TiB, and the time of a collective are not published. They were fitted to the six points
below, so that the model meets these points is no validation. How the points relate is not fitted: three numbers of
chips and two contexts by two times of a collective.
"""

from collections.abc import Iterator

import jaxcost as jc
from claims.common import ENDLESS, Claim, memory_only, token_seconds

LIMINAL = "LIMINAL, arXiv:2507.14397"
MODEL = "llama-3.1-405b"
BANDWIDTH = 4 * 2.0**40  # B/s of a chip: its table says 4 TB/s
COLLECTIVES = 252  # two a layer
LATENCY = {8: 0.2e-6, 32: 2.24e-6, 128: 2.24e-6}  # s of a collective
EIGHT = {"weight_bits": 8.0, "kv_bits": 8.0, "activation_bits": 8.0}
PUBLISHED = {8: (86.0, 80.0), 32: (290.0, 271.0), 128: (776.0, 743.0)}  # tokens a second at 4K and 128K
CONTEXTS = (4096, 131072)


def even(chips: float, context: int) -> float:
    """Seconds to read weights and cache, spread evenly over all chips."""
    return token_seconds(memory_only(chips * BANDWIDTH), jc.load_model(MODEL), context, **EIGHT)


def sharded(chips: int, context: int) -> float:
    """Seconds of a token with tensor parallelism, key and value heads copied where there are too few."""
    link = jc.Link(bandwidth=ENDLESS, overhead=LATENCY[chips], sram_landing=1)
    system = jc.replace(
        memory_only(BANDWIDTH), chips=float(chips), fabric=jc.Fabric(domain=float(chips), scale_up=link)
    )
    return token_seconds(system, jc.load_model(MODEL), context, tp=float(chips), **EIGHT)


def liminal() -> Iterator[Claim]:
    for chips, published in PUBLISHED.items():
        waiting = COLLECTIVES * LATENCY[chips]
        for context, claimed in zip(CONTEXTS, published, strict=True):
            spread = 1 / (even(chips, context) + waiting)
            fit = f"8 bits, 4 TiB/s, {LATENCY[chips] * 1e6:g} us a collective: a fit to these six points"
            copies = f"; eight key-value heads are copied, spread evenly it is {spread:.0f}"
            yield Claim(
                f"405B on {chips} chips with HBM3, {context // 1024}K",
                LIMINAL,
                claimed,
                "tok/s",
                1 / sharded(chips, context),
                "ok" if chips == 8 else "loose",
                fit + (copies if chips > 8 else ""),
            )
    waiting = COLLECTIVES * LATENCY[128]
    best = 1 / (even(128, CONTEXTS[1]) + waiting)
    twice = 1 / (even(256, CONTEXTS[1]) + waiting)
    yield Claim(
        "405B at 128K on any system with HBM3, at most",
        LIMINAL,
        1000.0,
        "tok/s",
        best,
        "ok",
        f"128 chips; 256 evenly split would reach {twice:.0f} if a collective took no longer among them",
        bound="at most",
    )
    for chips in (128, 32):
        yield Claim(
            f"bandwidth where waits win, {chips} chips",
            LIMINAL,
            4.0,
            "x",
            even(chips, CONTEXTS[0]) / (COLLECTIVES * LATENCY[chips]),
            "loose",
            "the number of chips is not stated in the source",
        )
