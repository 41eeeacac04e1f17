"""LLM in a flash: weights on a drive, the neurons of a few tokens in memory."""

import functools
from collections.abc import Iterator

import jaxcost as jc
from claims.common import DECODE, ENDLESS, GB, Claim, evaluate, given, memory_only, seconds_of
from jaxcost.physics.memory.tiers import read_seconds
from jaxcost.spec.model import Attention, FeedForward

FLASH = "LLM in a flash, arXiv:2312.11514"
CHUNKS = {4096.0: 1.25 * GB, 32768.0: 2.25 * GB}
OPT = jc.Model(  # OPT-6.7B
    hidden=4096,
    vocabulary=50272,
    tied=1.0,
    attention=Attention(layers=32, heads=32, kv_heads=32, head_dim=128),
    feed_forward=FeedForward(layers=32, width=16384, matrices=2.0),
    activation_exponentials=0.0,
)
# The model without its embedding, and without its attention.
WITHOUT = {
    "embedding": {"vocabulary": 0.0},
    "attention": {"attention": jc.replace(OPT.attention, layers=0.0)},
}
BUNDLE = 2 * 4096 * 2.0  # a row of one matrix with a column of the other, at two bytes


@functools.cache
def flash_drive(read_size: float) -> jc.Memory:
    """Flash whose latency and peak go through the two published points, reads in order: 1/B(s) = 1/B + L / (q s)."""
    (small, slow), (large, fast) = CHUNKS.items()
    per_read = (1 / slow - 1 / fast) / (1 / small - 1 / large)
    peak = 1 / (1 / slow - per_read / small)
    threads = 32.0
    return jc.Memory(
        capacity=ENDLESS,
        bandwidth=peak,
        latency=per_read * threads,
        queue_depth=threads,
        read_size=read_size,
        granularity=4096.0,
        in_order=1.0,
    )


@functools.cache
def from_drive(drive: jc.Memory, sparsity: float, window: float) -> jc.Report:
    """One token of OPT-6.7B with all its weights on the drive."""
    plan = jc.Plan(
        activation_sparsity=sparsity, neuron_window=window, placement=given(weights=jc.Split(ssd=1.0))
    )
    return evaluate(memory_only(ENDLESS, ssd=drive), OPT, DECODE, plan)


def in_a_flash() -> Iterator[Claim]:
    for size, claimed in CHUNKS.items():
        yield Claim(
            f"flash in reads of {size / 1024:.0f} KB",
            FLASH,
            claimed / GB,
            "GB/s",
            1e-9 / float(read_seconds(flash_drive(size), 1.0, 0.0)),
            "ok",
            "a fit: two points, two unknowns",
        )
    endless = 1e-9 / float(read_seconds(flash_drive(1e9), 1.0, 0.0))
    yield Claim(
        "flash in sequence, at least",
        FLASH,
        6.0,
        "GB/s",
        endless,
        "no",
        "one latency and one peak do not join all three points: in sequence more is in flight than 32 reads at random",
    )
    dense_time = seconds_of(from_drive(flash_drive(BUNDLE), 0.0, 5.0), "feed_forward")
    for window in (4.0, 5.0):
        share = seconds_of(from_drive(flash_drive(BUNDLE), 0.97, window), "feed_forward") / dense_time
        yield Claim(
            f"feed-forward newly read a token, window {window:.0f}",
            FLASH,
            2.4,
            "%",
            100 * share,
            "no",
            "97% sparsity and tokens independent of each other; 2.4% would take a window of 7",
        )
    sparse = from_drive(flash_drive(BUNDLE), 0.97, 5.0)
    kept = float(sparse.tiers.memory.used - sparse.memory.kv - sparse.memory.activations)
    yield Claim(
        "neurons of the window, share of the model",
        FLASH,
        15.5,
        "%",
        100 * kept / float(sparse.memory.weights),
        "no",
        "independent tokens at 97% use 14% of the neurons in five; theirs use 24%: layers are less sparse than the mean",
    )
    io = 1e3 * seconds_of(sparse, "feed_forward")
    yield Claim(
        "input and output a token",
        FLASH,
        105.0,
        "ms",
        io,
        "ok",
        "16 KB a neuron (bundled), window 5; bandwidth between the two fitted points",
        0.05,
    )
    sequential = jc.Memory(capacity=ENDLESS, bandwidth=6 * GB)
    naive = 1e3 * float(from_drive(sequential, 0.0, 5.0).tpot)
    yield Claim(
        "naive loading with an RTX 4090",
        FLASH,
        2218.0,
        "ms",
        naive,
        "loose",
        "6 GB/s, stated of another machine; and no time for computing",
    )
    yield Claim(
        "naive over theirs, RTX 4090",
        FLASH,
        26.4,
        "x",
        naive / io,
        "no",
        "84 ms in all is less than the 105 ms of the other machine's drive: its own is not stated",
    )
    for machine, theirs, factor in (("a processor", 669.0, 4.8), ("a laptop's GPU", 565.0, 4.2)):
        yield Claim(
            f"naive over theirs, {machine}",
            FLASH,
            factor,
            "x",
            naive / io,
            "no",
            f"input and output alone; {theirs - 105 - 57:.0f} of their {theirs:.0f} ms are neither that nor the 57 ms of "
            "managing memory",
        )
    for machine, claimed in (("a processor", 3182.0), ("a laptop's GPU", 2389.0)):
        yield Claim(
            f"naive loading with {machine}",
            FLASH,
            claimed,
            "ms",
            naive,
            "loose",
            "6 GB/s in sequence, and no time for computing",
        )
    parts = {name: jc.replace(OPT, **without) for name, without in WITHOUT.items()}
    whole = float(jc.parameter_count(OPT)[0])
    shares = {name: 100 * (1 - float(jc.parameter_count(less)[0]) / whole) for name, less in parts.items()}
    for name, claimed, tolerance in (("embedding", 3.0, 0.05), ("attention", 32.3, 0.01)):
        yield Claim(
            f"{name} kept in memory, share of the model",
            FLASH,
            claimed,
            "%",
            shares[name],
            "ok",
            "shape of OPT-6.7B",
            tolerance,
        )
    resident = sum(shares.values()) + 1.25 + 100 * kept / float(sparse.memory.weights)
    yield Claim(
        "all that is kept in memory, share of it",
        FLASH,
        52.1,
        "%",
        resident,
        "loose",
        "with their 1.25% of predictors; the window's neurons are fewer here, see above",
    )
    yield Claim(
        "size of a model over its memory, at most",
        FLASH,
        2.0,
        "x",
        100 / 52.1,
        "ok",
        "1 over their 52.1%",
        0.05,
    )
