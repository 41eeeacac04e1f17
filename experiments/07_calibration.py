"""Errors of calibrated kernels and serving engines on held-out measurements.

`python experiments/07_calibration.py --measured DIR` fits the kernels of A100, H100 and L40S to a folder of
measurements (docs/measurements.md). It holds out whole axes, and leaves out every chip and every served model in
turn. This takes about 15 minutes. `experiments/validation_page.py` writes docs/validation.md from the result.
"""

import dataclasses
import itertools
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import jaxcost as jc
from jaxcost.core.pytree import replace_at
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate import find_outliers
from jaxcost.explore.calibrate.calibration import calibrate
from jaxcost.explore.calibrate.cross_validation import scores
from jaxcost.explore.calibrate.fit import predict
from jaxcost.explore.calibrate.serving_fit import (
    choose_split,
    choose_within,
    fit_engines,
    serving_points,
    serving_steps,
)
from jaxcost.spec.kernels import EngineOverheads, Kernels
from study import Study, Table, run

CHIPS = ("a100-80gb-sxm", "h100-sxm", "l40s")
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


def served(found) -> tuple[dict, list[dict]]:
    """Fit the engines' constants, each model left out in turn, beside rooflines; and every point."""
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

    engine = EngineOverheads()
    engines = {name: jc.load_engine(name, SERVED_ON) for name in LIBRARIES}
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
        columns = serving_steps(systems, uneven, points, engines)
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

    bare = {n: on("ideal", engine, kernels=False) for n in LIBRARIES}
    ideal = serving_steps(bare, models, points, engines)
    plain = np.stack([ideal["decode"], ideal["prefill"] + ideal["decode"]], 1)
    thumb_kernels = {n: on("typical", engine, kernels=False) for n in LIBRARIES}
    typical = serving_steps(thumb_kernels, models, points, engines)
    thumb = np.stack([typical["decode"], typical["prefill"] + typical["decode"]], 1)
    out = {
        "held": errors(made.held, ~wrong),
        "held_all": errors(made.held, np.ones(len(points), bool)),
        "inside": errors(made.inside, ~wrong),
        "roofline": errors(plain, ~wrong),
        "thumb": errors(thumb, ~wrong),
        "skews": SKEWS,
        "shares": SUSTAINED,
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
    rows = [
        {"model": MODELS[model], "metric": metric, "measured": true, "held": held, "wrong": bool(bad)}
        for column, metric in enumerate(("TPOT", "TTFT"))
        for model, true, held, bad in zip(
            points.model.tolist(), points.measured[:, column], made.held[:, column], wrong, strict=True
        )
    ]
    return out, rows


def nested(points, tried):
    """Choose what was tried for each model by what the others say, and for all of them together.

    The cost of a training set is that of its own rows: those of the model left out have no part in the choice.
    """

    def cost(made, out):
        sets = {n: 0 if out not in made.models[n] else 1 + made.models[n].index(out) for n in made.fits}
        # A library of the one model that is left out has nothing to say.
        return sum(made.fits[n].cost[at] for n, at in sets.items() if made.models[n] != [out])

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


def study(small: bool, folder: Path) -> Study:
    """Fit everything; there is no coarser version."""
    found, refused = read_measured(folder, chips=CHIPS)
    systems = {name: jc.load_system(name) for name in CHIPS}
    told = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    fits = calibrate(found, systems, on_progress=told)
    across = calibrate(found, systems, across=True, on_progress=told)
    serving, points = served(found)
    data = fitted(fits) | carried(across)
    data |= {
        "manifest": {"jax": jax.__version__, "python": platform.python_version()},
        "named": CHIPS,
        "repeated": repeated(found),
        "refused": len(refused),
        "doubts": doubts(found, systems),
        "left_out": left_out(found),
        "serving": serving,
        "wrong": [[first, last, why] for (first, last), why in WRONG.items()],
    }
    held = serving["held"]
    errors = [
        {
            "kernel": name,
            "rows": one["rows"],
            "median": one["median"],
            "ninth": one["ninth"],
            "roofline": one["roofline"],
        }
        for name, one in data["kernels"].items()
    ]
    return Study(
        title="Calibrated kernels and served models against measurements that no fit has seen",
        findings=(
            "Median error of kernels on axes held out, as |ln(predicted / measured)|: "
            + ", ".join(f"{e['kernel'].replace('_', ' ')} {e['median']:.3f}" for e in errors)
            + ".",
            f"TPOT of served models that the fit has not seen is off by {held['tpot']:.1%} in the median, TTFT by "
            f"{held['ttft']:.1%}; a plain roofline by {serving['roofline']['tpot']:.0%} and {serving['roofline']['ttft']:.0%}.",
        ),
        assumptions=(
            "Rows of A100, H100 and L40S; docs/validation.md says which axis is held out for each kernel, and which rows are "
            "left out and why.",
        ),
        sources=("docs/measurements.md", "docs/validation.md"),
        tables={
            "errors": Table(
                "one kernel: |ln(predicted / measured)| of rows held out",
                {"kernel": "", "rows": "1", "median": "1", "ninth": "1", "roofline": "1"},
                errors,
            ),
            "kernels": Table(
                "one measured row of a kernel",
                {"kernel": "", "chip": "", "measured": "s", "held": "s", "roofline": "s"},
                list(kernel_rows(fits)),
            ),
            "serving": Table(
                "one served point",
                {"model": "", "metric": "", "measured": "s", "held": "s", "wrong": ""},
                points,
            ),
        },
        blobs={"fits.json": json.dumps(data, indent=1).encode()},
    )


def kernel_rows(fits) -> Iterator[dict]:
    """Every row of every fit: measured, predicted where it was held out, and at the peaks of the chip."""
    for fit in fits:
        part, seconds = fit.selection, fit.selection.rows.seconds
        ideal = predict(part.form.run, part.columns, {})
        chips = part.rows.labels["chip"].astype(str).tolist()
        for chip, true, held, plain in zip(chips, seconds, fit.calibration.held, ideal, strict=True):
            yield {
                "kernel": part.family.name,
                "chip": chip,
                "measured": true,
                "held": true * np.exp(held),
                "roofline": plain,
            }


def fitted(fits) -> dict:
    """Errors of what is fitted chip by chip."""
    names = list(dict.fromkeys(map(name_of, fits)))
    of = {name: [f for f in fits if name_of(f) == name] for name in names}
    return {
        "kernels": {n: pooled(of[n]) for n in names},
        "chips": {
            n: {
                c: pooled(some, c)
                for c in CHIPS
                if (some := [f for f in of[n] if f.selection.labels["chip"] == c])
            }
            for n in names
        },
        "axis": {name_of(f): f.selection.axis_name for f in fits},
        "fits": [
            {
                "name": name_of(f),
                **f.selection.labels,
                "rows": len(f.selection.rows),
                "fitted": scores(f.calibration.inside)[0],
                "median": scores(f.calibration.held)[0],
                "ninth": scores(f.calibration.held)[1],
            }
            for f in fits
        ],
    }


def carried(across) -> dict:
    """Errors of what is fitted to the other chips."""
    of = {name: [f for f in across if name_of(f) == name] for name in dict.fromkeys(map(name_of, across))}
    return {
        "across": {n: pooled(some) for n, some in of.items()},
        "across_chips": {
            n: {
                c: pooled(some, c)
                for c in CHIPS
                if any((f.selection.rows.labels["chip"] == c).any() for f in some)
            }
            for n, some in of.items()
        },
    }


def doubts(found, systems) -> list[dict]:
    """Rows that stand out, chip by chip."""
    out = []
    for parts in found.values():
        for part in parts:
            for chip in part.values("chip"):
                rows = part.select(chip=chip)
                for one in find_outliers(rows, systems[chip].chip):
                    place = rows.place(one.row).split("/")[-1]
                    out.append({"place": place, "kind": one.kind, "reason": one.reason})
    return out


def left_out(found) -> list[dict]:
    """Rows that are not fitted, with the reason that their family gives."""
    from jaxcost.explore.calibrate import message_forms, mixture_form

    out: dict[str, list[int]] = {}
    for family, reasons in (("mixture", mixture_form.left_out), ("collective", message_forms.left_out)):
        for part in found[family]:
            for line, reason in zip(part.line.tolist(), reasons(part).tolist(), strict=True):
                if reason:
                    out.setdefault(f"{Path(part.file).name}: {reason}", []).append(line)
    return [{"reason": reason, "rows": len(lines), "lines": lines} for reason, lines in out.items()]


if __name__ == "__main__":
    run(study, reads="--measured")
