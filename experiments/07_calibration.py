"""How well calibrated kernels predict what they have not seen: every number of docs/validation.md.

`python experiments/07_calibration.py --data DIR` fits the kernels of A100, H100 and L40S in a folder of measurements
(docs/measurements.md), holds out whole axes, leaves out every chip and every served model in turn, and writes
experiments/out/07_calibration.json and .npz; with `--page` docs/validation.md too. figures/07_calibration.py draws it.
"""

import argparse
import dataclasses
import datetime
import itertools
import json
import platform
import sys
from pathlib import Path

import jax
import numpy as np

import jaxcost as jc
from jaxcost.core.pytree import replace_at
from jaxcost.edge.efficiency_file import write_engine
from jaxcost.edge.measured_files import read_measured
from jaxcost.explore.calibrate import calibrate
from jaxcost.explore.doubt import doubtful
from jaxcost.explore.fitting import predict
from jaxcost.explore.held_out import scores
from jaxcost.explore.serving_fit import (
    choose_split,
    choose_within,
    fit_engines,
    serving_points,
    serving_steps,
)
from jaxcost.spec.kernels import UNLIMITED, Engine, Kernels

OUT = Path(__file__).parent / "out"
PAGE = Path(__file__).parents[1] / "docs" / "validation.md"
CHIPS = ("a100-80gb-sxm", "h100-sxm", "l40s")
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
MODELS = {
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
}
SERVED_ON = "h100-sxm"
LIBRARIES = ("trtllm", "vllm", "sglang")
# Tried for all engines together, chosen for each model left out by the others: how uneven experts' popularity is
# (squared coefficient of variation), and the share of the benchmarked matmul rate that hours of serving keep.
SKEWS, SUSTAINED = (1.0, 3.0, 6.0), (1.0, 0.9)
MEMORY_SHARE = 0.84  # of main memory that engines give to weights and cache: not fitted
# Lines of e2e.csv (both metrics of a point) that cannot be right, and why.
WRONG = {
    (
        1408,
        1413,
    ): "gpt-oss-120b at 512 users: faster than the ideal roofline, a third of the time at 64 users",
    (1354, 1355): "gpt-oss-120b, tp 4, 32 users: three times the time at 16 users, and 1.6 times that at 64",
    (1366, 1367): "gpt-oss-120b, tp 8, 64 users: twice the time at 32 users, above tp 4",
    (
        1146,
        1155,
    ): "gpt-oss-120b, TensorRT-LLM: the same 47-49 ms from 160 to 384 users: another placement than told",
}


def name_of(fit) -> str:
    """The line of the tables that a fit belongs to."""
    family, precision = fit.selection.family.name, fit.selection.labels.get("precision", "")
    if family != "matmul":
        return family
    words = {"bfloat16": "BF16", "fp8": "FP8", "fp8_block": "FP8 in blocks"}
    return f"matmul, {words.get(precision, 'narrow weights or INT8')}"


def pooled(fits, chip=None) -> dict:
    """Errors of the rows of several fits together."""
    held, inside, covered, tested, plain, thumb = [], [], [], [], [], []
    for fit in fits:
        part, made = fit.selection, fit.calibration
        at = np.ones(len(part.rows), bool) if chip is None else part.rows.labels["chip"] == chip
        held.append(made.held[at])
        inside.append(made.inside[at])
        if made.folds > 2:
            covered.append(made.covered[at])
        ideal = predict(part.form.run, part.columns, {})
        plain.append(np.log(ideal / part.rows.seconds)[at])
        thumb.append(np.log((ideal / 0.8 + 3e-6) / part.rows.seconds)[at])
        tested.append(int(at.sum()))
    held, inside, plain, thumb = (np.concatenate(x) for x in (held, inside, plain, thumb))
    return {
        "rows": int(sum(tested)),
        "fitted": scores(inside)[0],
        "median": scores(held)[0],
        "ninth": scores(held)[1],
        "covered": float(np.concatenate(covered).mean()) if covered else None,
        "roofline": scores(plain)[0],
        "thumb": scores(thumb)[0],
    }


def repeated(found) -> list[dict]:
    """How far one matmul library is from another that calls the same kernels: no form can do better than that."""
    out = []
    for part in found["matmul"]:
        for chip in part.values("chip"):
            rows = {
                name: part.select(chip=chip, library=name, precision="bfloat16")
                for name in ("sglang", "vllm")
            }
            keyed = [
                dict(
                    zip(
                        zip(*(r.work[n].tolist() for n in ("rows", "columns", "inner")), strict=True),
                        r.seconds.tolist(),
                        strict=True,
                    )
                )
                for r in rows.values()
            ]
            both = sorted(set(keyed[0]) & set(keyed[1]))
            if both:
                off = np.log([keyed[0][k] / keyed[1][k] for k in both])
                median, ninth = scores(off)
                out.append({"chip": chip, "rows": len(both), "median": median, "ninth": ninth})
    return out


def served(found) -> dict:
    """Fit the engines' constants, each model left out in turn; beside rooflines."""
    rows = [m.select(chip=SERVED_ON) for m in found["serving"]]
    points = serving_points(rows[0])
    points = points.where(np.isin(points.model, list(MODELS)))
    wrong = np.zeros(len(points), bool)
    for first, last in WRONG:
        wrong |= ((points.line >= first) & (points.line <= last)).any(1)
    models = {name: jc.load_model(MODELS[name]) for name in sorted(set(points.model.tolist()))}

    def on(efficiency, engine, kernels=True):
        system = jc.load_system(f"{SERVED_ON}-x8", efficiency=efficiency)
        if not kernels:
            return replace_at(system, "chip.efficiency.kernels", Kernels(engine=engine))
        return replace_at(system, "chip.efficiency.kernels.engine", engine)

    engine = Engine(kv_share=MEMORY_SHARE)
    tried = {}
    for skew, share in itertools.product(SKEWS, SUSTAINED):
        uneven = {
            name: replace_at(m, "experts.skew", skew) if float(m.experts.experts) > 1 else m
            for name, m in models.items()
        }
        systems = {
            name: replace_at(on(f"{SERVED_ON}-{name}", engine), "chip.efficiency.matmul", share)
            for name in LIBRARIES
        }
        columns = serving_steps(systems, uneven, points)
        tried[skew, share] = fit_engines(points, columns, weights=(~wrong).astype(float))
    made, chosen = nested(points, tried)
    clear = points.where(~wrong)

    def errors(times, at):
        off = np.abs(times[at] / points.measured[at] - 1)
        return {
            "points": int(at.sum()),
            "tpot": float(np.median(off[:, 0])),
            "tpot_ninth": float(np.quantile(off[:, 0], 0.9)),
            "ttft": float(np.median(off[:, 1])),
            "ttft_ninth": float(np.quantile(off[:, 1], 0.9)),
        }

    def choices(times):
        split, within = choose_split(clear, times[~wrong]), choose_within(clear, times[~wrong])
        return {"split": vars(split), "within": vars(within)}

    ideal = serving_steps({n: on("ideal", engine, kernels=False) for n in LIBRARIES}, models, points)
    plain = np.stack([ideal["decode"], ideal["prefill"] + ideal["decode"]], 1)
    thumb_kernels = {n: on("typical", engine, kernels=False) for n in LIBRARIES}
    typical = serving_steps(thumb_kernels, models, points)
    thumb = np.stack([typical["decode"], typical["prefill"] + typical["decode"]], 1)
    out = {
        "held": errors(made.held, ~wrong),
        "held_all": errors(made.held, np.ones(len(points), bool)),
        "inside": errors(made.inside, ~wrong),
        "roofline": errors(plain, ~wrong),
        "thumb": errors(thumb, ~wrong),
        "skew": chosen[None][0],
        "sustained": chosen[None][1],
        "chosen": {MODELS[m]: list(c) for m, c in chosen.items() if m is not None},
        "engines": made.engines,
        "ends": {
            n: {
                k: [float(f.values[0, i]), float(f.low[0, i]), float(f.high[0, i])]
                for i, k in enumerate(f.names)
            }
            for n, f in made.fits.items()
        },
        "choice": {
            "held": choices(made.held),
            "roofline": choices(plain),
            "thumb": choices(thumb),
        },
        "by": [],
    }
    for library in LIBRARIES:
        for model in sorted(set(points.model[points.library == library].tolist())):
            at = (points.library == library) & (points.model == model) & ~wrong
            if at.any():
                out["by"].append({"library": library, "model": MODELS[model], **errors(made.held, at)})
    arrays = {
        "serving_measured": points.measured,
        "serving_held": made.held,
        "serving_wrong": wrong,
        "serving_model": np.asarray([MODELS[m] for m in points.model.tolist()]),
    }
    return out, arrays


def nested(points, tried):
    """Choose what was tried for each model by what the others say, and for all of them together.

    The cost of a lane is that of its own rows: those of the model left out have no part in the choice.
    """

    def cost(made, out):
        lanes = {n: 0 if out not in made.models[n] else 1 + made.models[n].index(out) for n in made.fits}
        # A library of the one model that is left out has nothing to say.
        return sum(made.fits[n].cost[lane] for n, lane in lanes.items() if made.models[n] != [out])

    chosen = {
        out: min(tried, key=lambda at: cost(tried[at], out))
        for out in (None, *sorted(set(points.model.tolist())))
    }
    best = tried[chosen[None]]
    held = best.held.copy()
    for out, at in chosen.items():
        if out is not None:
            held[points.model == out] = tried[at].held[points.model == out]
    return dataclasses.replace(best, held=held), chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of measurements")
    parser.add_argument("--page", action="store_true", help="write docs/validation.md")
    parser.add_argument("--only-page", action="store_true", help="from what was measured before")
    parser.add_argument("--only-serving", action="store_true", help="fit engines again, kernels as before")
    parser.add_argument("--engines", type=Path, help="folder of efficiency files that engines are written to")
    args = parser.parse_args()
    path, table = OUT / "07_calibration.json", OUT / "07_calibration.npz"
    if args.only_serving:
        data, arrays = json.loads(path.read_text()), dict(np.load(table))
        data["serving"], again = served(read_measured(args.data, chips=CHIPS)[0])
        arrays |= again
    elif not args.only_page:
        data, arrays = measured(args.data)
    if not args.only_page:
        OUT.mkdir(exist_ok=True)
        path.write_text(json.dumps(data, indent=1))
        np.savez_compressed(table, **arrays)
    data = json.loads(path.read_text())
    if args.engines is not None:
        write_engines(args.engines, data["serving"])
    if args.page or args.only_page:
        PAGE.write_text(page(data))


def write_engines(folder: Path, found: dict) -> None:
    """Put the engines' constants into the files of their libraries: they are the host's, whatever the chip."""
    date = datetime.date.today().isoformat()
    source = "fit to served TPOT and TTFT on H100 (aiconfigurator-core silicon samples, InferenceX)"
    for library, constants in found["ends"].items():
        given = {name: tuple(x) for name, x in constants.items()}
        given["kv_share"] = (MEMORY_SHARE, MEMORY_SHARE, 0.9)
        if "bunch" not in given:
            given["bunch"] = (UNLIMITED, UNLIMITED, UNLIMITED)
        for path in sorted(folder.glob(f"*-{library}.yaml")):
            write_engine(path, given, (found["sustained"], 0.8, 1.0), source, date=date)


def measured(folder: Path) -> tuple[dict, dict]:
    """Fit everything."""
    found, refused = read_measured(folder, chips=CHIPS)
    systems = {name: jc.load_system(name) for name in CHIPS}
    told = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    fits = calibrate(found, systems, told=told)
    across = calibrate(found, systems, across=True, told=told)
    names = list(dict.fromkeys(map(name_of, fits)))
    data: dict = {"manifest": {"jax": jax.__version__, "python": platform.python_version(), "rows": {}}}
    data["kernels"] = {n: pooled([f for f in fits if name_of(f) == n]) for n in names}
    data["chips"] = {
        n: {
            c: pooled(some, c)
            for c in CHIPS
            if (some := [f for f in fits if name_of(f) == n and f.selection.labels["chip"] == c])
        }
        for n in names
    }
    data["axis"] = {name_of(f): f.selection.axis_name for f in fits}
    data["fits"] = [
        {
            "name": name_of(f),
            **f.selection.labels,
            "rows": len(f.selection.rows),
            "fitted": scores(f.calibration.inside)[0],
            "median": scores(f.calibration.held)[0],
            "ninth": scores(f.calibration.held)[1],
        }
        for f in fits
    ]
    gone = list(dict.fromkeys(map(name_of, across)))
    data["across"] = {n: pooled([f for f in across if name_of(f) == n]) for n in gone}
    data["across_chips"] = {
        n: {
            c: pooled([f for f in across if name_of(f) == n], c)
            for c in CHIPS
            if any((f.selection.rows.labels["chip"] == c).any() for f in across if name_of(f) == n)
        }
        for n in gone
    }
    data["repeated"] = repeated(found)
    data["refused"] = len(refused)
    data["doubts"] = doubts(found, systems)
    data["left_out"] = left_out(found)
    data["serving"], arrays = served(found)
    arrays |= {
        "op": np.concatenate([np.full(len(f.selection.rows), f.selection.family.name) for f in fits]),
        "chip": np.concatenate([f.selection.rows.labels["chip"].astype(str) for f in fits]),
        "measured": np.concatenate([f.selection.rows.seconds for f in fits]),
        "held": np.concatenate([f.calibration.held for f in fits]),
        "roofline": np.concatenate([predict(f.selection.form.run, f.selection.columns, {}) for f in fits]),
    }
    return data, arrays


def doubts(found, systems) -> list[dict]:
    """Rows that stand out, chip by chip."""
    out = []
    for parts in found.values():
        for part in parts:
            for chip in part.values("chip"):
                rows = part.select(chip=chip)
                for one in doubtful(rows, systems[chip].chip):
                    place = rows.place(one.row).split("/")[-1]
                    out.append({"place": place, "kind": one.kind, "reason": one.reason})
    return out


def left_out(found) -> list[dict]:
    """Rows that are not fitted, with the reason that their family gives."""
    from jaxcost.explore import message_forms, mixture_form

    out: dict[str, list[int]] = {}
    for family, reasons in (("mixture", mixture_form.left_out), ("collective", message_forms.left_out)):
        for part in found[family]:
            for line, reason in zip(part.line.tolist(), reasons(part).tolist(), strict=True):
                if reason:
                    out.setdefault(f"{Path(part.file).name}: {reason}", []).append(line)
    return [{"reason": reason, "rows": len(lines), "lines": lines} for reason, lines in out.items()]


def percent(x: float) -> str:
    return f"{100 * x:.1f}%"


def page(data: dict) -> str:
    """The page of the docs."""
    lines = [
        "# Validation",
        "",
        "How far the calibrated kernels and engines of `configs/efficiency/` are from what was measured on A100, H100 and",
        "L40S, on axes that the fit has not seen. All numbers of this page are made by",
        "`python experiments/07_calibration.py --data DIR --page`, with the tables that `docs/measurements.md` describes",
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
        cells = [f"{of[c]['median']:.3f} / {of[c]['ninth']:.3f}" if c in of else "" for c in CHIPS]
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
        cells = [f"{of[c]['median']:.3f}" if c in of else "" for c in CHIPS]
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
        f"(squared coefficient of variation, of {', '.join(f'{x:g}' for x in SKEWS)}), and the share {s['sustained']:g} of the benchmarked",
        f"matmul rate that serving keeps (of {', '.join(f'{x:g}' for x in SUSTAINED)}). Memory for weights and cache is {MEMORY_SHARE} of the",
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
        "| engine | a layer | a sequence | eager layer | a request | bunch |",
        "|---|---|---|---|---|---|",
    ]
    for name, e in s["engines"].items():
        bunch = "all" if e.get("bunch", 1e9) > 1e6 else f"{e['bunch']:.1f}"
        lines.append(
            f"| {name} | {e['layer'] * 1e6:.1f} us | {e['sequence'] * 1e6:.1f} us | {e['eager'] * 1e6:.0f} us | {e['front'] * 1e3:.0f} ms | {bunch} |"
        )
    lines += ["", "## Rows that look wrong", "", "Left out of the fits, with the reason:", ""]
    lines += [f"- `{r['reason']}` ({r['rows']} rows: {spans(r['lines'])})" for r in data["left_out"]]
    lines += [f"- `e2e.csv: {first}-{last}`: {why}" for (first, last), why in WRONG.items()]
    lines += [
        "",
        "Found by rule (faster than the datasheet beyond the cache; more than twice or less than half of both neighbours in",
        "size); those that are not among the above are kept:",
        "",
        "| row | doubt | why |",
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
