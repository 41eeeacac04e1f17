"""Draw experiments/out/04_directions.json: what each set of directions makes of latency, energy and cost."""

import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

HERE = Path(__file__).parent
DATA = HERE.parent / "experiments" / "out" / "04_directions.json"
DIRECTIONS = {"flash": "flash", "near": "near memory", "stacked": "3D stacking", "quick": "fast fabric"}
METRICS = (
    ("tpot", "time per token (ms)", 1e3, True),
    ("joules_per_token", "energy (J/token)", 1, False),
    ("usd_per_mtok", "cost (USD/Mtok)", 1, False),
)
PLAIN, BEST = "#9AA5B1", "#0072B2"


def main() -> None:
    data = json.loads(DATA.read_text())
    rows, manifest = [r for r in data["rows"] if r["chosen"]], data["manifest"]
    workloads = manifest["workloads"]
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    axes = figure.subplots(
        len(METRICS) + 1,
        len(workloads),
        sharex="col",
        squeeze=False,
        height_ratios=[2.2] * len(METRICS) + [1.2],
    )
    for column, (workload, about) in enumerate(workloads.items()):
        of = [r for r in rows if r["workload"] == workload]
        of.sort(key=lambda r: (sum(r[d] for d in DIRECTIONS), [not r[d] for d in DIRECTIONS]))
        places = range(len(of))
        for line, (metric, label, scale, log) in enumerate(METRICS):
            ax = axes[line, column]
            values = [scale * r[metric] for r in of]
            least = min(values)
            bottom = least / 2 if log else 0
            bars = ax.bar(places, [v - bottom for v in values], bottom=bottom, width=0.72, color=PLAIN)
            bars[values.index(least)].set_color(BEST)
            ax.set_yscale("log" if log else "linear")
            ax.set_ylim(bottom, max(values) * (1.9 if log else 1.2))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            if log:
                ax.yaxis.set_minor_formatter(NullFormatter())
            for x, value, row in zip(places, values, of, strict=True):
                shown = f"{value:.3g}" if value < 100 else f"{value:.0f}"
                ax.annotate(
                    shown,
                    (x, value),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=6.5,
                    rotation=90,
                )
                if metric == "tpot" and row["chips"] > 0:
                    ax.annotate(
                        f"{row['chips']}",
                        (x, bottom),
                        (0, 2),
                        textcoords="offset points",
                        ha="center",
                        fontsize=7,
                        color="white",
                        weight="bold",
                    )
            if column == 0:
                ax.set_ylabel(label)
            ax.tick_params(bottom=False, labelbottom=False)
            ax.grid(True, axis="y", color="0.9", lw=0.6)
            ax.set_axisbelow(True)
            ax.spines[["top", "right", "bottom"]].set_visible(False)
        title = f"{workload}: {about['model']}, batch {about['batch']}"
        if about.get("retrieved"):
            title += f", {about['retrieved'] // 1000}k cached"
        axes[0, column].set_title(title, fontsize=10.5)
        matrix = axes[-1, column]
        for y, direction in enumerate(DIRECTIONS):
            matrix.axhspan(y - 0.5, y + 0.5, color="0.96" if y % 2 else "white", lw=0)
            for x, row in zip(places, of, strict=True):
                matrix.plot(x, y, "o", ms=6, color="0.2" if row[direction] else "0.88")
        matrix.set_yticks(
            range(len(DIRECTIONS)), list(DIRECTIONS.values()) if column == 0 else [""] * 4, fontsize=9
        )
        matrix.invert_yaxis()
        matrix.tick_params(left=False, bottom=False, labelbottom=False)
        matrix.spines[["top", "right", "left", "bottom"]].set_visible(False)
        matrix.xaxis.set_major_locator(MaxNLocator(1))
        matrix.set_xlim(-0.7, len(of) - 0.3)
    figure.suptitle(
        f"Four directions on a {manifest['chip']} with eight sites, every design on the fewest chips that hold it "
        "(white numbers); best in blue",
        fontsize=12,
    )
    (HERE / "out").mkdir(exist_ok=True)
    for ending in ("svg", "png"):
        figure.savefig(HERE / "out" / f"04_directions.{ending}", dpi=150)


if __name__ == "__main__":
    main()
