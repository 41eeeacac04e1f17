"""Rates of growth: AI and Memory Wall, and Ma and Patterson. Arithmetic on endpoints, without the catalogue."""

from collections.abc import Iterator

from claims.common import BY_HAND, PAPER, WRITE_UPS, Claim, printed

WALL = "AI and Memory Wall, arXiv:2403.14123"


def yearly(factor: float, years: float) -> float:
    """Per cent a year."""
    return 100 * (factor ** (1 / years) - 1)


def memory_wall() -> Iterator[Claim]:
    for what, claimed, rate in (
        ("FLOP/s of chips", 60e3, 3.0),
        ("bandwidth of DRAM", 100.0, 1.6),
        ("bandwidth of links", 30.0, 1.4),
    ):
        yield Claim(
            f"{what}, 20 years at {rate:g}x in two",
            WALL,
            claimed,
            "x",
            rate**10,
            "ok",
            f"{rate:g}^10",
            max(0.05, printed(claimed, 10 ** len(f"{claimed:.0f}"[1:]))),
        )


def growth() -> Iterator[Claim]:
    yield Claim("FLOP/s over bandwidth, 2012 to 2022", BY_HAND, 4.7, "x", 80 / 17, "ok", "80 over 17 times")
    for what, factor, wall in (("FLOP/s", 80.0, 3.0), ("bandwidth", 17.0, 1.6)):
        yield Claim(
            f"{what} of a GPU in two years",
            PAPER,
            None,
            "x",
            factor ** (1 / 5),
            "-",
            f"{factor:.0f} times in 10 years, with 64 bits; AI and Memory Wall has {wall:g} of any chip and precision in 20: "
            "not to be mixed",
        )
    for what, claimed, ours, why in (
        ("density of DRAM since 2014, at most", 14.9, yearly(4, 10), "4 times in more than 10 years"),
        ("density of DRAM before, slowest", 26.0, yearly(4, 6), "4 times in 6 years"),
        ("density of DRAM before, fastest", 59.0, yearly(4, 3), "4 times in 3 years"),
        ("capacity of flash", 26.0, yearly(2, 3), "twice in 3 years"),
    ):
        yield Claim(f"{what}, a year", BY_HAND, claimed, "%", ours, "ok", why, 0.01)
    yield Claim(
        "capacity of flash in ten years", BY_HAND, 10.0, "x", 2 ** (10 / 3), "ok", "twice in 3 years", 0.02
    )
    yield Claim(
        "bandwidth of an HBM stack over 13 years", BY_HAND, 16.0, "x", 2048 / 128, "ok", "128 to 2,048 GB/s"
    )
    yield Claim(
        "time of a sweep of a full stack, last over first",
        BY_HAND,
        1.0,
        "x",
        (64 / 2048) / (4 / 128),
        "ok",
        "capacity grew as bandwidth did: 31 ms then and now",
    )
    for multiple, years in ((4.0, 8.0), (6.0, 5.0)):
        yield Claim(
            f"{multiple:.0f} times in {years:.0f} years of sales, read as yearly",
            WRITE_UPS,
            100 * (multiple - 1),
            "%",
            yearly(multiple, years),
            "no",
            "the paper's multiple is of all years together",
        )
