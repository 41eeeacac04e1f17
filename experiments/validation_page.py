"""Write docs/validation.md, and the constants of serving engines, from the data of the calibration experiment.

    python experiments/validation_page.py [--out DIR] [--engines DIR]

reads 07_calibration.fits.json of the experiment's folder and writes docs/validation.md. With `--engines` it also
writes the constants of serving engines into the efficiency files of a folder.
"""

import argparse
import datetime
import json
import textwrap
from pathlib import Path

from jaxcost.edge.catalog.efficiency import write_engine
from jaxcost.explore.calibrate import ServingInterval
from jaxcost.spec.kernels import UNLIMITED
from study import OUT

PAGE = Path(__file__).parents[1] / "docs" / "validation.md"
# Median |ln(predicted / measured)| wanted of rows left out, by circumstance: of a kernel, and of all together.
BARS = {"chip": (0.10, 0.07), "generation": (0.20, 0.15)}
# Medians on shapes left out, and on a chip or generation left out, of the fits before those to all chips together: one
# for each of A100, H100 and L40S, and one for the other chips. TPOT and TTFT likewise.
EARLIER = {
    "matmul, 16 bits": (0.058, 0.128),
    "matmul, 8 bits": (0.071, 0.184),
    "matmul, 8 bits, block scales": (0.079, 0.447),
    "attention_decode": (0.061, 0.300),
    "attention_prefill": (0.070, 0.259),
    "latent_decode": (0.065, 0.590),
    "latent_prefill": (0.029, 0.212),
    "mixture": (0.071, 0.149),
    "collective": (0.085, 0.338),
    "all_reduce": (0.139, 0.344),
    "all_to_all": (0.077, None),
}
EARLIER_SERVING = (0.079, 0.220)
CHIPS = {"a100-80gb-sxm": "A100", "l40s": "L40S", "h100-sxm": "H100", "h200-sxm": "H200"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the data")
    parser.add_argument("--engines", type=Path, help="folder of efficiency files that engines are written to")
    args = parser.parse_args()
    data = json.loads((args.out / "07_calibration.fits.json").read_text())
    if args.engines is not None:
        write_engines(args.engines, data["serving"])
    PAGE.write_text(page(data))


def write_engines(folder: Path, found: dict) -> None:
    """Put the engines' constants into the files of their libraries: they are the host's, whatever the chip."""
    date = datetime.date.today().isoformat()
    source = "fit to served TPOT and TTFT on H100 (aiconfigurator-core silicon samples, InferenceX)"
    for library, constants in found["ends"].items():
        given = {name: tuple(x) for name, x in constants.items()}
        if "burst_size" not in given:
            given["burst_size"] = (UNLIMITED, UNLIMITED, UNLIMITED)
        intervals = {metric: ServingInterval(**one) for metric, one in found["intervals"][library].items()}
        path, sustained = folder / f"{library}.yaml", (found["sustained"], 0.8, 1.0)
        write_engine(path, given, sustained, source, date=date, serving=intervals)


def percent(x: float) -> str:
    return f"{100 * x:.1f}%"


def page(data: dict) -> str:
    """The page of the docs."""
    lines = [
        "# Validation",
        "",
        "This page compares the calibrated kernels and serving engines of `configs/efficiency/` with measurements on A100, L40S,",
        "H100 and H200 that the fit has not seen. An error is |ln(predicted / measured)|: 0.05 is 5%. All numbers are written by",
        "`python experiments/07_calibration.py --measured DIR` and then `python experiments/validation_page.py`. The",
        "measurements are in the format of [measurements](measurements.md): aiconfigurator-core 0.12.0 and vidur for kernels,",
        "silicon samples and InferenceX for serving. `jaxcost validate --data DIR` scores the shipped files on any such folder.",
        "",
        "![Predicted over measured times](validation.svg)",
        "",
        "## Kernels",
        "",
        "Every library and precision has one fit to all chips ([calibration](calibration.md)). It was repeated without parts of",
        "the rows, and predicts them in three circumstances:",
        "",
        "- *Shapes*: the values of an axis are split into four folds, each left out on all chips at once.",
        "- *Chip*: H100 is left out and predicted by the numbers of its generation, Hopper, hence of H200; and the reverse.",
        "- *Generation*: Ampere (A100), Ada (L40S) or Hopper (H100 and H200) is left out and predicted by the numbers of the",
        "  library, from the datasheet of the chip.",
        "",
        "Medians are over rows. *In 80%* is the share of rows within an 80% interval that was made without them, on average",
        "over what was left out. The forms of the kernel models and the widths of the priors were chosen with these errors in",
        "view, so the errors are somewhat optimistic. The last two columns are the median errors of an ideal roofline and of a",
        "rule of thumb.",
        "",
        "| kernels | rows | left-out shapes | fitted | shapes | in 80% | chip | in 80% | generation | in 80% | plain roofline | 0.8 bandwidth + 3 us |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    total = {"all placed kernels": data["all"]}
    for name, one in (data["kernels"] | total).items():
        cells = [cell for c in ("shapes", "chip", "generation") for cell in medians(one.get(c))]
        lines.append(
            f"| {name} | {one['rows']:,} | {data['axis'].get(name, '')} | {one['fitted']:.3f} | {' | '.join(cells)} | "
            f"{one['roofline']:.2f} | {one['thumb']:.2f} |"
        )
    for circumstance, (each, whole) in BARS.items():
        over = [
            f"{name.replace('_', ' ')} {one[circumstance]['median']:.3f}"
            for name, one in data["families"].items()
            if circumstance in one and one[circumstance]["median"] > each
        ]
        found = data["all"][circumstance]["median"]
        met = "met" if found <= whole else "missed"
        text = (
            f"Targets for a {circumstance} left out: {whole:.2f} for all placed kernels ({met}: {found:.3f}), {each:.2f} for "
            f"each family ({'missed by ' + ', '.join(over) if over else 'met by all'})."
        )
        lines += ["", textwrap.fill(text, 118, break_on_hyphens=False)]
    lines += [
        "",
        "Errors by chip, median / 90th percentile:",
        "",
        f"| kernels | {' | '.join(f'shapes, {n}' for n in CHIPS.values())} | H100 left out | H200 left out | Ampere left out | Ada left out | Hopper left out: H100 | H200 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in (data["kernels"] | total).items():
        by = {c: one.get(c, {}).get("by", {}) for c in ("shapes", "chip", "generation")}
        columns = [*(("shapes", c) for c in CHIPS), ("chip", "h100-sxm"), ("chip", "h200-sxm")]
        columns += [("generation", c) for c in CHIPS]
        cells = [f"{by[a][c][0]:.3f} / {by[a][c][1]:.2f}" if c in by[a] else "" for a, c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "A lower bound on the error: two libraries that call the same BF16 matmul kernels differ at equal shapes by",
        "",
        "| chip | shapes | median | 90th |",
        "|---|---|---|---|",
        *(f"| {r['chip']} | {r['rows']} | {r['median']:.3f} | {r['ninth']:.3f} |" for r in data["repeated"]),
        "",
        "### Against the earlier fits",
        "",
        "Until this version each chip had a fit of its own, and one more was for other chips. The rows differ: H200 is new, and",
        "kernels that a library does not select by default are no longer fitted. Medians, **bold** where they got worse:",
        "",
        "| kernels | shapes, earlier | shapes | chip or generation left out, earlier | generation left out |",
        "|---|---|---|---|---|",
        *(f"| {name.replace('_', ' ')} | {against(*both)} |" for name, both in compared(data)),
        "",
        "Rows that no kernel of a file stands for, and that are therefore in no fit:",
        "",
        *(item(f"{name}: {rows:,} rows") for name, rows in data["unplaced"].items()),
    ]
    s = data["serving"]
    lines += [
        "",
        "## Serving, on H100",
        "",
        "This section compares mean TPOT and TTFT of closed loops of users (`jaxcost.closed_loop`). Step times are from",
        "`evaluate` with the calibrated kernels. The few constants of each engine are partially pooled over libraries and",
        "models, and fitted without the model that is predicted. Two more, common to all engines, are chosen from short lists",
        "by the errors of the other models, each left out in turn:",
        f"the skew of expert popularity, {s['skew']:g} (squared coefficient of variation, of {', '.join(f'{x:g}' for x in s['skews'])}), and the share of the",
        f"benchmarked matmul rate that serving reaches, {s['sustained']:g} (of {', '.join(f'{x:g}' for x in s['shares'])}). The memory of the KV cache is that of the",
        "engine's file in `configs/engines`, at its defaults. The set of constants itself was chosen with all models in view.",
        "",
        "| | points | TPOT | 90th | TTFT | 90th |",
        "|---|---|---|---|---|---|",
    ]
    words = {
        "held": "model left out",
        "held_all": "model left out, with the rows below",
        "inside": "fitted",
        "roofline": "plain roofline",
        "thumb": "0.8 bandwidth, 0.7 FLOPs, 3 us",
    }
    for key, label in words.items():
        e = s[key]
        lines.append(
            f"| {label} | {e['points']} | {percent(e['tpot'])} | {percent(e['tpot_ninth'])} | {percent(e['ttft'])} | {percent(e['ttft_ninth'])} |"
        )
    for e in s["by"]:
        lines.append(
            f"| {e['model']}, {e['library']} | {e['points']} | {percent(e['tpot'])} | {percent(e['tpot_ninth'])} | {percent(e['ttft'])} | {percent(e['ttft_ninth'])} |"
        )
    lines += [
        "",
        *textwrap.wrap(
            f"An 80% interval made without a model holds {percent(s['covered']['tpot'])} of its TPOTs and "
            f"{percent(s['covered']['ttft'])} of its TTFTs. Before the constants were pooled, TPOT was off by "
            f"{percent(EARLIER_SERVING[0])} and TTFT by {percent(EARLIER_SERVING[1])} with the model left out.",
            118,
        ),
        "",
        "**Choice of tensor parallelism.** *Split*: the same chips and users are divided into replicas of tp chips, and a",
        "choice is right if it is within 3% of the best measured tokens/s. *Bound*: the most tokens/s per chip within a bound",
        "on TPOT, right within 5%. At equal numbers of users the question is trivial: the largest tp always has the lowest",
        "TPOT, and the smallest tp the most tokens/s per chip, for every model.",
        "",
        "| | split: cases | right | throughput kept | bound: cases | right | throughput kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, label in (
        ("held", "model left out"),
        ("roofline", "plain roofline"),
        ("thumb", "rule of thumb"),
    ):
        a, b = s["choice"][key]["split"], s["choice"][key]["within"]
        lines.append(
            f"| {label} | {a['cases']} | {percent(a['right'])} | {percent(a['kept'])} | {b['cases']} | {percent(b['right'])} | {percent(b['kept'])} |"
        )
    lines += [
        "",
        "Fitted constants of the serving engines: host time per layer and per sequence of a step, further time of a layer in",
        "steps with prompts (eager), time of 8-bit prompts over that of their kernels, time per request outside steps, and the",
        "number of users who return together:",
        "",
        "| engine | a layer | a sequence | eager layer | 8-bit prompts | a request | burst size |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, e in s["engines"].items():
        burst = "all" if e.get("burst_size", 1e9) > 1e6 else f"{e['burst_size']:.1f}"
        lines.append(
            f"| {name} | {e['layer'] * 1e6:.1f} us | {e['sequence'] * 1e6:.1f} us | {e['eager_launch_floor'] * 1e6:.0f} us | {e['narrow_prefill']:.2f} | {e['frontend_latency'] * 1e3:.0f} ms | {burst} |"
        )
    lines += ["", "## Rows that look wrong", "", "These rows are left out of the fits:", ""]
    lines += [item(f"{r['reason']} ({r['rows']} rows: {spans(r['lines'])})") for r in data["left_out"]]
    lines += [item(f"e2e.csv: {why} (rows {first}-{last})") for first, last, why in data["wrong"]]
    lines += [
        "",
        "These rows were found by rule: faster than the datasheet allows beyond the cache, or more than twice or less than half",
        "of both neighbours in size. Those that are not in the list above are kept in the fits.",
        "",
        "| row | outlier | why |",
        "|---|---|---|",
        *(f"| {d['place']} | {d['kind']} | {d['reason']} |" for d in data["doubts"]),
        "",
    ]
    return "\n".join(lines)


def compared(data: dict) -> list[tuple[str, tuple]]:
    """Medians of the earlier fits and of these, on shapes and on generations left out."""
    known = data["kernels"] | data["families"]
    out = []
    for name, (shapes, far) in EARLIER.items():
        one = known[name]
        out.append((name, (shapes, one["shapes"]["median"], far, one.get("generation", {}).get("median"))))
    return out


def against(*pairs: float | None) -> str:
    """Earlier and present medians as cells; the present ones bold where they are larger."""
    cells = []
    for before, now in zip(pairs[::2], pairs[1::2], strict=True):
        worse = before is not None and now is not None and now > before
        cells += ["" if before is None else f"{before:.3f}"]
        cells += ["" if now is None else f"**{now:.3f}**" if worse else f"{now:.3f}"]
    return " | ".join(cells)


def medians(one: dict | None) -> tuple[str, str]:
    """The median error of a circumstance and the coverage of its intervals; empty where it does not apply."""
    if one is None:
        return "", ""
    covered = one["covered"]
    return f"**{one['median']:.3f}**", percent(covered) if covered is not None else "one left out"


def item(text: str) -> str:
    """An item of a list, over several lines."""
    return textwrap.fill(
        text, 118, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def spans(lines: list[int]) -> str:
    """Whole numbers as ranges."""
    out: list[list[int]] = []
    for n in sorted(lines):
        if out and n - out[-1][1] <= 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in out)


if __name__ == "__main__":
    main()
