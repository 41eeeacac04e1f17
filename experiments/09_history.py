"""FLOPS and memory bandwidth of datacenter chips, 2012-2026: peaks, and growth per two years against published rates.

Chips from 2020 on are from the catalogue. Older chips, and FP64 rates, which language models do not need and chip
files do not contain, are listed here with their sources. A chip without 16-bit arithmetic is counted at its 32-bit
rate.
"""

import dataclasses
import math

import numpy as np

import jaxcost as jc
from jaxcost.edge.catalog.loaders import load_part
from study import Study, Table, run

VENDORS = {
    "NVIDIA": ("a100-40gb-sxm", "a100-80gb-sxm", "h100-sxm", "h200-sxm", "b200", "b300", "rubin-vr200"),
    "AMD": ("mi250x", "mi300x", "mi325x", "mi355x"),
    "Google": ("tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-v7"),
    "Amazon, Intel": ("trainium2", "gaudi3", "trainium3"),
}
RECALLED = "vendor datasheet, recalled and not re-read"
TEN_LESSONS = "Jouppi et al., CACM 63(7) 2020, recalled and not re-read"
# Name, vendor, year, FLOP/s with 16-bit operands, FP64 vector and matrix FLOP/s (None: has none), B/s, source. Boost clocks.
OLDER = (
    ("Tesla K20X", "NVIDIA", 2012, 3.95e12, 1.31e12, 1.31e12, 250e9, f"{RECALLED}; FP32 rate for 16 bits"),
    ("Tesla K40", "NVIDIA", 2013, 5.04e12, 1.68e12, 1.68e12, 288e9, f"{RECALLED}; FP32 rate for 16 bits"),
    (
        "Tesla K80",
        "NVIDIA",
        2014,
        8.73e12,
        2.91e12,
        2.91e12,
        480e9,
        f"{RECALLED}; two GPUs, FP32 rate for 16 bits",
    ),
    ("Tesla P100", "NVIDIA", 2016, 21.2e12, 5.3e12, 5.3e12, 732e9, RECALLED),
    ("Tesla V100", "NVIDIA", 2017, 125e12, 7.8e12, 7.8e12, 900e9, RECALLED),
    ("Radeon Instinct MI60", "AMD", 2018, 29.5e12, 7.4e12, 7.4e12, 1024e9, RECALLED),
    ("Instinct MI100", "AMD", 2020, 184.6e12, 11.5e12, 11.5e12, 1228.8e9, RECALLED),
    ("TPU v2", "Google", 2017, 46e12, None, None, 700e9, TEN_LESSONS),
    ("TPU v3", "Google", 2018, 123e12, None, None, 900e9, TEN_LESSONS),
)
# FP64 of the catalogue's chips, vector and matrix; what is left out has none, or none is certain. All recalled from data
# sheets; a B200's and a B300's are an eighth of a board's 296 and 10 TFLOP/s (fibermall.com/blog/?p=17161).
FP64 = {
    "a100-40gb-sxm": (9.7e12, 19.5e12),
    "a100-80gb-sxm": (9.7e12, 19.5e12),
    "h100-sxm": (34e12, 67e12),
    "h200-sxm": (34e12, 67e12),
    "b200": (37e12, 37e12),
    "b300": (1.25e12, 1.25e12),
    "mi250x": (47.9e12, 95.7e12),
    "mi300x": (81.7e12, 163.4e12),
    "mi325x": (81.7e12, 163.4e12),
    "mi355x": (78.6e12, 78.6e12),
}
# Published: times in how many years, of what, from where.
PAPER, WALL = "arXiv:2601.05047: NVIDIA, 2012-2022", "arXiv:2403.14123: 20 years"
PUBLISHED = {
    ("flops_64", PAPER): (80.0, 10.0),
    ("bandwidth", PAPER): (17.0, 10.0),
    ("flops_16", WALL): (3.0, 2.0),
    ("bandwidth", WALL): (1.6, 2.0),
}
FIRST, LAST = 2012, 2022  # of the paper's window
QUANTITIES = ("flops_16", "flops_64", "flops_64_vector", "bandwidth", "flop_per_byte_16", "flop_per_byte_64")


@dataclasses.dataclass(frozen=True)
class Growth:
    """A straight line through logarithms."""

    per_two_years: float
    error: float  # of it, one standard error
    at: float  # value in the year `FIRST`
    chips: int


def growth(rows: list[dict], quantity: str) -> Growth:
    """Fit ln quantity = a + b year by least squares: growth e^(2b) per two years, its error by that of b."""
    known = [(r["year"] - FIRST, math.log(r[quantity])) for r in rows if r[quantity] is not None]
    year, value = (np.asarray(x, float) for x in zip(*known, strict=True))
    spread = np.sum((year - year.mean()) ** 2)
    slope = np.sum((year - year.mean()) * (value - value.mean())) / spread
    start = value.mean() - slope * year.mean()
    rest = value - start - slope * year
    error = math.sqrt(np.sum(rest**2) / (len(known) - 2) / spread)
    factor = math.exp(2 * slope)
    return Growth(factor, 2 * error * factor, math.exp(start), len(known))


def chip_rows() -> list[dict]:
    """Peaks of all chips, in order of time."""
    known = [(*chip, False) for chip in OLDER]
    for vendor, names in VENDORS.items():
        for name in names:
            chip, part = jc.load_chip(name), load_part("chips", name)[0]
            title = part.title.removeprefix(f"{vendor} ").split(",")[0]
            fp64 = FP64.get(name, (None, None))
            source = f"configs/chips/{name}.yaml" + (f"; FP64: {RECALLED}" if name in FP64 else "")
            peaks = (float(chip.compute.flops_16), *fp64, float(chip.memory.bandwidth))
            known.append((title, vendor, part.year, *peaks, source, True))
    rows = []
    for name, vendor, year, flops_16, vector, matrix, bandwidth, source, listed in known:
        rows.append(
            {
                "chip": name,
                "vendor": vendor,
                "year": year,
                "flops_16": flops_16,
                "flops_64": matrix,
                "flops_64_vector": vector,
                "bandwidth": bandwidth,
                "flop_per_byte_16": flops_16 / bandwidth,
                "flop_per_byte_64": None if matrix is None else matrix / bandwidth,
                "in_catalogue": listed,
                "source": source,
            }
        )
    return sorted(rows, key=lambda r: (r["year"], r["vendor"], r["chip"]))


def growth_rows(chips: list[dict]) -> list[dict]:
    groups = {
        "all chips": chips,
        "NVIDIA": [r for r in chips if r["vendor"] == "NVIDIA"],
        f"NVIDIA, {FIRST}-{LAST}": [r for r in chips if r["vendor"] == "NVIDIA" and r["year"] <= LAST],
        "AMD": [r for r in chips if r["vendor"] == "AMD"],
        "Google": [r for r in chips if r["vendor"] == "Google"],
    }
    rows = []
    for quantity in QUANTITIES:
        for group, of in groups.items():
            if sum(r[quantity] is not None for r in of) > 2:
                fit = growth(of, quantity)
                rows.append((quantity, group, False, fit.per_two_years, fit.error, fit.at, fit.chips))
        for (of, source), (times, years) in PUBLISHED.items():
            if of == quantity:
                rows.append((quantity, source, True, times ** (2 / years), None, None, None))
    names = ("quantity", "of", "published", "per_two_years", "standard_error", f"in_{FIRST}", "chips")
    return [dict(zip(names, row, strict=True)) for row in rows]


def endpoint_rows(chips: list[dict]) -> list[dict]:
    """Last over first of the paper's window, by every pair of NVIDIA chips of those years."""
    first, last = (
        [r for r in chips if r["vendor"] == "NVIDIA" and r["year"] == year] for year in (FIRST, LAST)
    )
    return [
        {
            "first": a["chip"],
            "last": b["chip"],
            "flops_64": b["flops_64"] / a["flops_64"],
            "flops_64_vector": b["flops_64_vector"] / a["flops_64_vector"],
            "flops_16": b["flops_16"] / a["flops_16"],
            "bandwidth": b["bandwidth"] / a["bandwidth"],
            "published_flops_64": PUBLISHED["flops_64", PAPER][0],
            "published_bandwidth": PUBLISHED["bandwidth", PAPER][0],
        }
        for a in first
        for b in last
    ]


def findings(chips: list[dict], rates: list[dict], ends: list[dict]) -> tuple[str, ...]:
    fits = {(r["quantity"], r["of"]): r for r in rates}

    def rate(quantity: str, of: str) -> str:
        row = fits[quantity, of]
        error = row["standard_error"]
        return f"x{row['per_two_years']:.2f}" + ("" if error is None else f" (standard error {error:.2f})")

    def off(quantity: str, of: str, published: str) -> str:
        fit, theirs = fits[quantity, of], fits[quantity, published]["per_two_years"]
        return f"{(fit['per_two_years'] - theirs) / fit['standard_error']:+.1f}"

    window, (end,) = f"NVIDIA, {FIRST}-{LAST}", ends
    nvidia = [r for r in chips if r["vendor"] == "NVIDIA"]
    first, last = nvidia[0], nvidia[-1]
    peak = max((r for r in nvidia if r["flops_64"] is not None), key=lambda r: r["flops_64"])
    cut = [r for r in nvidia if r["flops_64"] is not None][-1]
    return (
        f"From {first['chip']} to {last['chip']}, {first['year']}-{last['year']}, 16-bit FLOP/s of NVIDIA's chips grew "
        f"{rate('flops_16', 'NVIDIA')} per two years, bandwidth {rate('bandwidth', 'NVIDIA')}; over all {len(chips)} chips "
        f"{rate('flops_16', 'all chips')} and {rate('bandwidth', 'all chips')}. AI and Memory Wall has "
        f"{rate('flops_16', WALL)} and {rate('bandwidth', WALL)} over twenty years: NVIDIA's here stand "
        f"{off('flops_16', 'NVIDIA', WALL)} and {off('bandwidth', 'NVIDIA', WALL)} standard errors from that.",
        f"{end['last']} over {end['first']}, {FIRST}-{LAST}: FP64 x{end['flops_64']:.0f} with matrix units and "
        f"x{end['flops_64_vector']:.0f} without, bandwidth x{end['bandwidth']:.1f}, where the paper has "
        f"x{end['published_flops_64']:.0f} and x{end['published_bandwidth']:.0f}: neither of its endpoints is reproduced by these "
        f"parts, the gap of {end['flops_64'] / end['bandwidth']:.1f} between the two does within "
        f"{abs(end['flops_64'] / end['bandwidth'] / (end['published_flops_64'] / end['published_bandwidth']) - 1):.0%} "
        f"of its {end['published_flops_64'] / end['published_bandwidth']:.1f}. The fit through all parts of those years: FP64 "
        f"{rate('flops_64', window)}, bandwidth {rate('bandwidth', window)} (paper {rate('flops_64', PAPER)}, "
        f"{rate('bandwidth', PAPER)}: we are {off('flops_64', window, PAPER)} and {off('bandwidth', window, PAPER)} standard "
        "errors away).",
        f"FP64 is no measure of today's chips: it peaked at {peak['flops_64'] / 1e12:.0f} TFLOP/s ({peak['chip']}) and is at "
        f"{cut['flops_64'] / 1e12:.2f} on {cut['chip']}.",
        f"FLOP per byte at 16 bits, which is also the batch that shares a read of 16-bit weights before matmuls bind, went from "
        f"{first['flop_per_byte_16']:.0f} to {max(r['flop_per_byte_16'] for r in nvidia):.0f} at most and "
        f"{last['flop_per_byte_16']:.0f} on {last['chip']}: most of it in one step, to matrix units "
        f"({next(r['flop_per_byte_16'] for r in nvidia if r['year'] == 2016):.0f} in 2016, "
        f"{next(r['flop_per_byte_16'] for r in nvidia if r['year'] == 2017):.0f} in 2017); since then it grew "
        f"x{growth([r for r in nvidia if r['year'] >= 2017], 'flop_per_byte_16').per_two_years:.2f} per two years.",
    )


def study(small: bool) -> Study:
    chips = [r for r in chip_rows() if r["vendor"] == "NVIDIA" or not small]
    rates, ends = growth_rows(chips), endpoint_rows(chips)
    units = dict.fromkeys(chips[0], "FLOP/s") | {"bandwidth": "B/s", "year": "1"}
    units |= dict.fromkeys(("flop_per_byte_16", "flop_per_byte_64"), "FLOP/B")
    units |= dict.fromkeys(("chip", "vendor", "in_catalogue", "source"), "")
    return Study(
        title="FLOPS against bandwidth, 2012-2026",
        findings=findings(chips, rates, ends),
        assumptions=(
            "Peaks of datasheets, dense, with boost clocks; one product is one point, of one die or two (K80: two GPUs).",
            "Years are those of announcement; the fit is least squares on logarithms, every product of the same weight, and "
            "its standard error is that of the slope.",
            "FP64 takes matrix units where there are; vector rates stand beside them.",
            "Rubin's 16-bit rate is the catalogue's cautious one: announcements differ by two.",
        ),
        sources=("configs/chips", "arXiv:2601.05047", "arXiv:2403.14123", TEN_LESSONS),
        tables={
            "chips": Table("peaks of one product", units, chips),
            "growth": Table(
                "growth per two years of a quantity among a group of chips, fitted or published",
                {
                    "quantity": "",
                    "of": "",
                    "published": "",
                    "per_two_years": "1",
                    "standard_error": "1",
                    f"in_{FIRST}": "",
                    "chips": "1",
                },
                rates,
            ),
            "endpoints": Table(
                f"the last part over the first of NVIDIA's, {FIRST}-{LAST}",
                {name: "" if name in ("first", "last") else "1" for name in ends[0]},
                ends,
            ),
        },
    )


if __name__ == "__main__":
    run(study)
