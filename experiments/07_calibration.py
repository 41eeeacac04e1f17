"""Errors of calibrated kernels and serving engines on held-out measurements.

`python experiments/07_calibration.py --measured DIR` fits the kernels of A100, H100, H200 and L40S together to a folder
of measurements (docs/measurements.md). It leaves out shapes, every chip, every generation and every served model in
turn. `experiments/validation_page.py` writes docs/validation.md from the result.
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
from jaxcost.edge.catalog.parts import architecture_of
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate import (
    CIRCUMSTANCES,
    FAMILIES,
    Pooled,
    find_outliers,
    held_out,
    pool_selections,
    scores,
    selections,
)
from jaxcost.explore.calibrate.fit import predict
from jaxcost.explore.calibrate.serving_fit import (
    choose_fit,
    choose_split,
    choose_within,
    fit_engines,
    serving_points,
    serving_steps,
)
from jaxcost.spec.kernels import EngineOverheads, Kernels
from study import Study, Table, run

CHIPS = ("a100-80gb-sxm", "l40s", "h100-sxm", "h200-sxm")
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


WORDS = {
    "bits_16": "16 bits",
    "bits_8": "8 bits",
    "bits_8_block": "8 bits, block scales",
    "bits_4": "4 bits, micro-scaled",
    "bits_4_group": "4 bits, group scales",
    "weights_8": "8-bit weights",
    "weights_4": "4-bit weights",
    "compute_8": "8-bit arithmetic",
}


def name_of(one: Pooled) -> str:
    """The line of the tables that a fit belongs to: its kernels and their precision."""
    field, bits = one.place or (one.selection.family.name, "")
    return ", ".join(word for word in (field.replace("_", " "), WORDS.get(bits, bits)) if word)


def errors_of(fits: list[Pooled]) -> dict:
    """Errors of several fits together, on their own rows and in every circumstance, beside rooflines."""
    inside = np.concatenate([one.inside for one in fits])
    ideal = [
        predict(one.selection.form.run, one.selection.columns, {}) / one.selection.rows.seconds
        for one in fits
    ]
    plain = np.concatenate(ideal)
    thumb = np.concatenate(
        [part / 0.8 + 3e-6 / one.selection.rows.seconds for part, one in zip(ideal, fits, strict=True)]
    )
    out: dict = {
        "rows": len(inside),
        "fitted": scores(inside)[0],
        "roofline": scores(np.log(plain))[0],
        "thumb": scores(np.log(thumb))[0],
    }
    for circumstance in CIRCUMSTANCES:
        found = held_out(fits, circumstance)
        if found is None:
            continue
        chip = np.concatenate([one.selection.rows.labels["chip"].astype(str) for one in fits])
        errors = np.concatenate([one.held[circumstance] for one in fits])
        known = np.isfinite(errors)
        by = {c: scores(errors[known & (chip == c)]) for c in CHIPS if (known & (chip == c)).any()}
        out[circumstance] = {**dataclasses.asdict(found), "by": by}
    return out


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
    made, chosen = choose_fit(points, tried, (~wrong).astype(float))
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
            n: {k: [value, *made.ends[n][k]] for k, value in one.items()} for n, one in made.engines.items()
        },
        "intervals": {
            n: {m: dataclasses.asdict(x) for m, x in one.items()} for n, one in made.intervals.items()
        },
        "covered": dict(zip(("tpot", "ttft"), np.nanmean(made.covered[~wrong], 0).tolist(), strict=True)),
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


def study(small: bool, folder: Path) -> Study:
    """Fit everything; there is no coarser version."""
    found, refused = read_measured(folder, chips=CHIPS)
    systems = {name: jc.load_system(name) for name in CHIPS}
    progress = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    parts = [
        p for family in FAMILIES.values() for p in selections(family, found.get(family.source, ()), systems)
    ]
    fits = pool_selections(parts, {name: architecture_of(name) for name in CHIPS}, on_progress=progress)
    serving, points = served(found)
    names = list(dict.fromkeys(map(name_of, fits)))
    families = list(dict.fromkeys(one.selection.family.name for one in fits))
    data = {
        "kernels": {n: errors_of([f for f in fits if name_of(f) == n]) for n in names},
        "families": {n: errors_of([f for f in fits if f.selection.family.name == n]) for n in families},
        "all": errors_of(fits),
        "axis": {name_of(f): f.selection.axis_name for f in fits},
        "unplaced": unplaced(found, parts, fits),
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
            "shapes": one["shapes"]["median"],
            "chip": one.get("chip", {}).get("median"),
            "generation": one.get("generation", {}).get("median"),
            "roofline": one["roofline"],
        }
        for name, one in data["kernels"].items()
    ]
    return Study(
        title="Calibrated kernels and served models against measurements that no fit has seen",
        findings=(
            "Median error of all placed kernels, as |ln(predicted / measured)|: "
            f"{data['all']['shapes']['median']:.3f} on shapes left out, {data['all']['chip']['median']:.3f} on a chip left "
            f"out of a measured generation, {data['all']['generation']['median']:.3f} on a generation left out.",
            f"TPOT of served models that the fit has not seen is off by {held['tpot']:.1%} in the median, TTFT by "
            f"{held['ttft']:.1%}; a plain roofline by {serving['roofline']['tpot']:.0%} and {serving['roofline']['ttft']:.0%}.",
        ),
        assumptions=(
            "Rows of A100, L40S, H100 and H200; docs/validation.md says what is held out, and which rows are left out and why.",
        ),
        sources=("docs/measurements.md", "docs/validation.md"),
        tables={
            "errors": Table(
                "one kernel: median |ln(predicted / measured)| of rows held out by shape, chip and generation",
                {"kernel": "", "rows": "1", "shapes": "1", "chip": "1", "generation": "1", "roofline": "1"},
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


def kernel_rows(fits: list[Pooled]) -> Iterator[dict]:
    """Every row of every fit: measured, predicted where its shape was left out, and at the peaks of the chip."""
    for fit in fits:
        part, seconds = fit.selection, fit.selection.rows.seconds
        ideal = predict(part.form.run, part.columns, {})
        chips = part.rows.labels["chip"].astype(str).tolist()
        for chip, true, held, plain in zip(chips, seconds, fit.held["shapes"], ideal, strict=True):
            if np.isfinite(held):
                yield {
                    "kernel": part.family.name,
                    "chip": chip,
                    "measured": true,
                    "held": true * np.exp(held),
                    "roofline": plain,
                }


def unplaced(found, parts, fits) -> dict[str, int]:
    """Rows of kernels that no field of `Kernels` holds, by kernel."""
    used = sum(len(one.selection.rows) for one in fits)
    out: dict[str, int] = {}
    for part in parts:
        if part.place is None:
            words = " ".join(v for k, v in part.labels.items() if v and k != "version")
            out[f"{part.family.name} {words}"] = len(part.rows)
    others = sum(len(p.rows) for p in parts) - used - sum(out.values())
    return out | ({"a kernel of a library that has a faster one in its place": others} if others else {})


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
    for family, reasons in (
        ("mixture", mixture_form.left_out),
        *((name, message_forms.left_out) for name in ("collective", "all_to_all")),
    ):
        for part in found[family]:
            for line, reason in zip(part.line.tolist(), reasons(part).tolist(), strict=True):
                if reason:
                    out.setdefault(f"{Path(part.file).name}: {reason}", []).append(line)
    return [{"reason": reason, "rows": len(lines), "lines": lines} for reason, lines in out.items()]


if __name__ == "__main__":
    run(study, reads="--measured")
