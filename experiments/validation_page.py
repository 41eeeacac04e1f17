"""The page docs/validation.md, and the engines' constants of efficiency files, from what the calibration found.

    python experiments/validation_page.py [--out DIR] [--engines DIR]

reads 07_calibration.fits.json of the experiment's folder and writes docs/validation.md; with `--engines` also the
constants of serving engines into the efficiency files of a folder.
"""

import argparse
import datetime
import json
from pathlib import Path

from jaxcost.edge.catalog.efficiency import write_engine
from jaxcost.spec.kernels import UNLIMITED
from study import OUT

PAGE = Path(__file__).parents[1] / "docs" / "validation.md"
# Median |ln(predicted / measured)| wanted of held-out rows; the 90th percentile at most three times that.
BARS = {
    "matmul, BF16": 0.05,
    "matmul, FP8": 0.07,
    "attention_decode": 0.08,
    "attention_prefill": 0.10,
    "latent_decode": 0.10,
    "latent_prefill": 0.10,
    "mixture": 0.10,
    "collective": 0.10,
    "all_reduce": 0.10,
    "all_to_all": 0.10,
}


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
        given["kv_share"] = (found["memory_share"], found["memory_share"], 0.9)
        if "burst_size" not in given:
            given["burst_size"] = (UNLIMITED, UNLIMITED, UNLIMITED)
        for path in sorted(folder.glob(f"*-{library}.yaml")):
            write_engine(path, given, (found["sustained"], 0.8, 1.0), source, date=date)


def percent(x: float) -> str:
    return f"{100 * x:.1f}%"


def page(data: dict) -> str:
    """The page of the docs."""
    lines = [
        "# Validation",
        "",
        "How far the calibrated kernels and engines of `configs/efficiency/` are from what was measured on A100, H100 and",
        "L40S, on axes that the fit has not seen. All numbers of this page are made by",
        "`python experiments/07_calibration.py --measured DIR && python experiments/validation_page.py`, with the tables that `docs/measurements.md` describes",
        "(aiconfigurator-core 0.12.0 and vidur for kernels; silicon samples and InferenceX for serving). An error is",
        "|ln(predicted / measured)|: 0.05 is 5%. `jaxcost validate --data DIR` scores the shipped files on any such folder.",
        "",
        "![predicted over measured](validation.svg)",
        "",
        "## Kernels, on axes held out",
        "",
        "Six folds of whole values of the axis; each is predicted from the others, with parameters of its own chip, library",
        "and precision. *In 80%*: share of held-out rows within an 80% interval that was made without them. The forms were",
        "chosen with these errors in view, which makes them a little optimistic.",
        "",
        "| kernels | rows | held-out axis | fitted | held out | bar | 90th | in 80% | plain roofline | 0.8 bandwidth + 3 us |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in data["kernels"].items():
        bar = BARS.get(name)
        lines.append(
            f"| {name.replace('_', ' ')} | {one['rows']:,} | {data['axis'][name]} | {one['fitted']:.3f} | "
            f"**{one['median']:.3f}** | {f'{bar:.2f}' if bar else ''} | {one['ninth']:.3f} | "
            f"{percent(one['covered']) if one['covered'] is not None else 'two folds'} | {one['roofline']:.2f} | {one['thumb']:.2f} |"
        )
    lines += [
        "",
        "By chip, held out, median / 90th percentile:",
        "",
        "| kernels | A100 | H100 | L40S |",
        "|---|---|---|---|",
    ]
    for name, of in data["chips"].items():
        cells = [f"{of[c]['median']:.3f} / {of[c]['ninth']:.3f}" if c in of else "" for c in data["named"]]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    lines += [
        "",
        "How well one can do at all: BF16 matmuls of two libraries that call the same kernels differ, at equal shapes, by",
        "",
        "| chip | shapes | median | 90th |",
        "|---|---|---|---|",
        *(f"| {r['chip']} | {r['rows']} | {r['median']:.3f} | {r['ninth']:.3f} |" for r in data["repeated"]),
        "",
        "## A chip never measured",
        "",
        "One set of parameters for a library and precision, fitted to the other chips; the chip left out is predicted from",
        "its datasheet alone. `configs/efficiency/gpu-*.yaml` are such sets, fitted to all three, with these intervals. The",
        "bar of 0.15 is met by BF16 matmuls, no better than the rule of thumb, and by experts. What differs most between chips",
        "is the software: versions of a library, which kernel it takes, what stays in the last-level cache between repeats.",
        "",
        "| kernels | rows | median | 90th | in 80% | A100 | H100 | L40S | plain roofline | 0.8 bandwidth + 3 us |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in data["across"].items():
        of = data["across_chips"][name]
        cells = [f"{of[c]['median']:.3f}" if c in of else "" for c in data["named"]]
        lines.append(
            f"| {name.replace('_', ' ')} | {one['rows']:,} | **{one['median']:.3f}** | {one['ninth']:.3f} | "
            f"{percent(one['covered']) if one['covered'] is not None else 'two chips'} | {' | '.join(cells)} | "
            f"{one['roofline']:.2f} | {one['thumb']:.2f} |"
        )
    s = data["serving"]
    lines += [
        "",
        "## Serving, on H100",
        "",
        "Mean TPOT and TTFT of closed loops of users (`jaxcost.closed_loop`): steps from `evaluate` with the calibrated",
        "kernels, and a few constants of each engine, fitted without the model that is predicted. For all engines together,",
        f"and again without that model, two more were chosen among a few: the unevenness of experts' popularity {s['skew']:g}",
        f"(squared coefficient of variation, of {', '.join(f'{x:g}' for x in s['skews'])}), and the share {s['sustained']:g} of the benchmarked",
        f"matmul rate that serving keeps (of {', '.join(f'{x:g}' for x in s['shares'])}). Memory for weights and cache is {s['memory_share']} of the",
        "chip's, set and not fitted. Which constants there are was decided with all models in view.",
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
        "**Which tensor parallelism.** *Split*: the same chips and users, cut into replicas of tp chips; right if the choice is",
        "within 3% of the best measured tokens/s. *Bound*: most tokens/s a chip within a bound on TPOT; right within 5%. Asked",
        "at equal users, the largest tp always has the least TPOT, and the smallest the most tokens/s a chip, whatever the model.",
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
        "Constants of the engines:",
        "",
        "| engine | a layer | a sequence | eager layer | a request | burst size |",
        "|---|---|---|---|---|---|",
    ]
    for name, e in s["engines"].items():
        burst = "all" if e.get("burst_size", 1e9) > 1e6 else f"{e['burst_size']:.1f}"
        lines.append(
            f"| {name} | {e['layer'] * 1e6:.1f} us | {e['sequence'] * 1e6:.1f} us | {e['eager_launch_floor'] * 1e6:.0f} us | {e['frontend_latency'] * 1e3:.0f} ms | {burst} |"
        )
    lines += ["", "## Rows that look wrong", "", "Left out of the fits, with the reason:", ""]
    lines += [f"- `{r['reason']}` ({r['rows']} rows: {spans(r['lines'])})" for r in data["left_out"]]
    lines += [f"- `e2e.csv: {first}-{last}`: {why}" for first, last, why in data["wrong"]]
    lines += [
        "",
        "Found by rule (faster than the datasheet beyond the cache; more than twice or less than half of both neighbours in",
        "size); those that are not among the above are kept:",
        "",
        "| row | outlier | why |",
        "|---|---|---|",
        *(f"| {d['place']} | {d['kind']} | {d['reason']} |" for d in data["doubts"]),
        "",
    ]
    return "\n".join(lines)


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
