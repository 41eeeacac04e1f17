"""The best design so far against evaluations, for gradient descent and evolutionary search."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
DATA = HERE.parent / "experiments" / "out" / "06_codesign.json"
COLOURS = {"NSGA-II": "#E69F00", "CMA-ES": "#0072B2", "DE": "#009E73", "gradient": "#000000"}
COLUMNS, TOP, FLOOR = 4, 1.0, 1e-6


def main() -> None:
    """Write figures/out/06_codesign.svg."""
    data = json.loads(DATA.read_text())
    rows, near, budget = data["rows"], data["manifest"]["near"], data["manifest"]["budget"]
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.7 * lines + 0.4), layout="constrained")
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for ax, row in zip(axes.flat, rows, strict=False):
        for run in row["runs"]:
            if not run["curve"]:
                continue
            counts, values = np.asarray(run["curve"]).T
            own = run["solver"] == "gradient"
            if own and run["value"] is not None:
                # The final design satisfies its limits by a small tolerance, which raises its objective a little.
                values = np.append(np.maximum(values[:-1], run["value"]), run["value"])
            above = np.maximum(values / row["best"] - 1, FLOOR)
            end = run["evaluations"] if own else budget
            colour = COLOURS[run["solver"]]
            label = run["solver"] if run["seed"] == 0 else None
            ax.step(
                [*counts, end],
                [*above, above[-1]],
                where="post",
                color=colour,
                lw=2 if own else 1.2,
                label=label,
            )
            if own:
                ax.plot(end, above[-1], "o", color=colour, ms=5, clip_on=False, zorder=5)
        ax.axhline(near, color="#888888", lw=0.8, ls=":")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(10, budget)
        ax.set_ylim(FLOOR, TOP)
        ax.set_title(f"{row['name']}, {row['knobs']} parameters", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("relative gap to the best", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("evaluations", fontsize=8)
    drawn = {}
    for ax in axes.flat:
        drawn = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True)) | drawn
    named = [name for name in COLOURS if name in drawn]
    figure.legend(
        [drawn[n] for n in named],
        named,
        loc="outside upper center",
        ncols=len(COLOURS),
        frameon=False,
        fontsize=9,
    )
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    for suffix in ("svg", "png"):
        figure.savefig(out / f"06_codesign.{suffix}", dpi=150)


if __name__ == "__main__":
    main()
