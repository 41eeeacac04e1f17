"""Draw experiments/out/05_phones.json: speed and battery of an answer on phones, by direction."""

import json
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
DATA = HERE.parent / "experiments" / "out" / "05_phones.json"
COLOURS = {"today": "#9AA5B1", "flash": "#E69F00", "in memory": "#0072B2", "stacked": "#009E73"}
HATCHES = {"today": "", "flash": "//", "in memory": "..", "stacked": "\\\\"}
METRICS = (
    ("output tokens a second", lambda r: 1 / r["tpot"]),
    ("battery an answer (%)", lambda r: 100 * r["battery_share"]),
)


def main() -> None:
    """Write figures/out/05_phones.svg."""
    rows = json.loads(DATA.read_text())["rows"]
    phones, models = (list(dict.fromkeys(r[key] for r in rows)) for key in ("phone", "model"))
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(len(METRICS), len(phones), sharex=True, sharey="row", squeeze=False)
    for column, phone in enumerate(phones):
        for line, (label, of) in enumerate(METRICS):
            ax = axes[line, column]
            for k, arm in enumerate(COLOURS):
                found = {r["model"]: r for r in rows if (r["phone"], r["arm"]) == (phone, arm)}
                places = [i + 0.2 * (k - 1.5) for i in range(len(models))]
                values = [of(found[m]) if found[m]["fits"] else 0.0 for m in models]
                ax.bar(
                    places,
                    values,
                    0.18,
                    color=COLOURS[arm],
                    hatch=HATCHES[arm],
                    edgecolor="white",
                    label=arm if arm != "today" else "LPDDR5X, as today",
                )
                for x, value in zip(places, values, strict=True):
                    if value == 0:
                        ax.annotate(
                            "does not fit",
                            (x, ax.get_ylim()[0]),
                            (0, 3),
                            textcoords="offset points",
                            rotation=90,
                            ha="center",
                            va="bottom",
                            fontsize=6.5,
                            color="#555555",
                        )
            ax.set_xticks(range(len(models)), models, fontsize=8)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            ax.set_axisbelow(True)
            if column == 0:
                ax.set_ylabel(label)
            if line == 0:
                ax.set_title(phone)
    axes[0, 0].legend(frameon=False, fontsize=8)
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    for suffix in ("svg", "png"):
        figure.savefig(out / f"05_phones.{suffix}", dpi=150)


if __name__ == "__main__":
    main()
