"""How many measured rows of a chip a library's prior replaces: the table of docs/calibration.md.

    python experiments/learning_curve.py --measured DIR

A chip, or a generation of chips, is left out of the pooled fit of every library and kernel. Its numbers and intervals
are then the prior of an update (`explore/calibrate/updating.py`) from some rows of the chip, chosen by a seed, and the
errors are those of all its other rows. The table has the median of |ln(predicted / measured)| by family of kernels.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

import jaxcost as jc
from jaxcost.edge.catalog.parts import architecture_of
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate import FAMILIES, selections
from jaxcost.explore.calibrate.fit import fit, predict
from jaxcost.explore.calibrate.kernel_families import join_chips
from jaxcost.explore.calibrate.pooling import LIBRARY, pool_rows
from jaxcost.explore.calibrate.updating import prior_of

CHIPS = ("a100-80gb-sxm", "h100-sxm", "h200-sxm", "l40s")
LEFT_OUT = {"H200, Hopper known": ("h200-sxm",), "L40S, Ada unknown": ("l40s",)}
COUNTS = (0, 5, 20, 100)
PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"
BEGIN, END = "<!-- learning curve -->", "<!-- end of the learning curve -->"


def curve(part, out, *, seed=0):
    """Return the errors of a chip's rows after 0, 5, 20 and 100 of them, {count: [errors]}; {} where others lack."""
    chip = part.rows.labels["chip"].astype(str)
    here = np.isin(chip, out)
    if not here.any() or here.all() or here.sum() <= max(COUNTS):
        return {}
    rest = with_rows(part, ~here)
    generations = {name: architecture_of(name) for name in CHIPS}
    numbers = pool_rows(rest, generations, most_folds=1, seed=seed).values
    unit = generations[out[0]] if generations[out[0]] in numbers else LIBRARY
    new = with_rows(part, here)
    order = np.random.default_rng(seed).permutation(len(new.rows))
    measured, groups = new.rows.seconds, np.unique(new.axis, return_inverse=True)[1]
    errors = {}
    for count in COUNTS:
        weights = np.isin(np.arange(len(order)), order[:count]).astype(float)
        prior = prior_of(part.form.bounds, numbers[unit])
        form, columns = part.form, new.columns
        made = fit(
            form.seconds, form.bounds, columns, measured, weights[None], groups, prior=prior, seed=seed
        )
        # All counts are scored on the rows that none of them has.
        unseen = order[max(COUNTS) :]
        errors[count] = np.log(predict(form.seconds, columns, made.parameters(0)) / measured)[unseen]
    return errors


def with_rows(part, mask):
    """Return some rows of a selection."""
    columns = {name: column[mask] for name, column in part.columns.items()}
    return dataclasses.replace(part, rows=part.rows.where(mask), columns=columns, axis=part.axis[mask])


def table(measured, systems, families):
    """Return the lines of the table, a row for every chip and family."""
    lines = [
        "| left out | kernels | rows | " + " | ".join(f"{n} rows" for n in COUNTS) + " |",
        "|" + "---|" * 7,
    ]
    for words, out in LEFT_OUT.items():
        total = {count: [] for count in COUNTS}
        for name in families:
            of = {count: [] for count in COUNTS}
            parts = selections(FAMILIES[name], measured.get(FAMILIES[name].source, ()), systems)
            for part in join_chips(parts):
                print(f"{words}: {name} {' '.join(part.labels.values())}", file=sys.stderr, flush=True)
                for count, errors in curve(part, out).items():
                    of[count].append(errors)
                    total[count].append(errors)
            lines += line(words, name.replace("_", " "), of)
        lines += line(words, "all", total)
    return lines


def line(words, name, of):
    """Return one line of the table, none where no kernel has rows of the chip and of others."""
    if not of[0]:
        return []
    medians = [f"{np.median(np.abs(np.concatenate(of[count]))):.3f}" for count in COUNTS]
    return [f"| {words} | {name} | {sum(map(len, of[0]))} | " + " | ".join(medians) + " |"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measured", required=True, metavar="DIR", help="folder of measurements")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="repeat for several")
    parser.add_argument("--write", action="store_true", help="write the table into docs/calibration.md")
    args = parser.parse_args()
    found, _ = read_measured(args.measured, chips=CHIPS)
    lines = table(found, {name: jc.load_system(name) for name in CHIPS}, args.family or list(FAMILIES))
    if args.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(
            "\n".join([f"{before}{BEGIN}", "", *lines, "", END + rest.split(END)[1]]), encoding="utf-8"
        )
    print("\n".join(lines))
