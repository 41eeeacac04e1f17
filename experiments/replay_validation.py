"""Replay the measured closed loops of docs/validation.md, with engine constants fitted without each model.

    python experiments/replay_validation.py --measured e2e.csv [--every N]

prints median errors of mean TPOT and TTFT beside those of the closed form. `--every N` takes every N-th loop.
"""

import argparse
import importlib
import time
from pathlib import Path

import numpy as np

import jaxcost as jc
from jaxcost.core.pytree import replace_at
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate import fit_engines, serving_points, serving_steps, with_skew
from jaxcost.explore.replay import measured_loops, replay_loops
from jaxcost.spec.kernels import EngineOverheads

SUSTAINED = 0.9  # of docs/validation.md, for all models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, required=True, help="e2e.csv")
    parser.add_argument("--every", type=int, default=1, help="take every N-th loop")
    args = parser.parse_args()
    study = importlib.import_module("07_calibration")
    points = serving_points(read_measured(args.measured, [study.SERVED_ON])[0]["serving"][0])
    points = points.where(np.isin(points.model, list(study.MODELS)))
    wrong = np.zeros(len(points), bool)
    for first, last in study.WRONG:
        wrong |= ((points.line >= first) & (points.line <= last)).any(1)
    models = {name: jc.load_model(study.MODELS[name]) for name in sorted(set(points.model.tolist()))}
    models = {name: with_skew(model) for name, model in models.items()}
    systems, engines = {}, {}
    for name in study.LIBRARIES:
        system = jc.load_system(f"{study.SERVED_ON}-x8", efficiency=f"{study.SERVED_ON}-{name}")
        system = replace_at(system, "chip.efficiency.kernels.engine", EngineOverheads())
        systems[name] = replace_at(system, "chip.efficiency.matmul", SUSTAINED)
        engines[name] = jc.load_engine(name, study.SERVED_ON)
    columns = serving_steps(systems, models, points, engines)
    found = fit_engines(points, columns, weights=(~wrong).astype(float), intervals=False)
    began = time.perf_counter()
    times = replay_loops(
        measured_loops(points)[:: args.every],
        points,
        systems=systems,
        models=models,
        engines=engines,
        constants=found.unseen,
    )
    replayed = np.isfinite(times[:, 0])
    print(f"{replayed.sum()} of {len(points)} points replayed in {time.perf_counter() - began:.0f} s")
    for name in ("all", *study.LIBRARIES):
        at = replayed & ~wrong & ((points.library == name) | (name == "all"))
        for label, predicted in (("replay", times), ("closed form", found.held)):
            off = np.median(np.abs(predicted[at] / points.measured[at] - 1), 0)
            print(f"{name:8s} {label:12s} {at.sum():4d} points  TPOT {off[0]:.1%}  TTFT {off[1]:.1%}")


if __name__ == "__main__":
    main()
