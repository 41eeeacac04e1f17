"""Draw experiments/out/02_scaling.json: time per token against chips, and how much of it messages are."""

import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator, PercentFormatter

HERE = Path(__file__).parent
DATA = HERE.parent / "experiments" / "out" / "02_scaling.json"
# Okabe and Ito's colours; fabrics are told apart by dashes, so that grey suffices.
COLOURS = {"llama-2-13b": "#0072B2", "qwen3-32b": "#D55E00", "llama-3.1-70b": "#009E73"}
MARKERS = {"llama-2-13b": "o", "qwen3-32b": "s", "llama-3.1-70b": "^"}


def main() -> None:
    data = json.loads(DATA.read_text())
    rows, manifest = data["rows"], data["manifest"]
    latencies = sorted({row["latency"] for row in rows}, reverse=True)
    batches = sorted({row["batch"] for row in rows})
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 1 + len(batches))
    axes[1].sharey(axes[0])
    for ax, batch in zip(axes, batches, strict=False):
        for model, colour in COLOURS.items():
            for latency, dash in zip(latencies, ("-", "--"), strict=True):
                chosen = [
                    r
                    for r in rows
                    if (r["model"], r["latency"], r["batch"]) == (model, latency, batch) and r["chips"] <= 8
                ]
                x, y = [r["chips"] for r in chosen], [1e3 * r["tpot"] for r in chosen]
                ax.plot(x, y, dash, color=colour, lw=1.6)
                fits = [r["memory_margin"] >= 0 for r in chosen]
                for full in (True, False):
                    here = [(a, b) for a, b, fit in zip(x, y, fits, strict=True) if fit == full]
                    face = colour if full else "white"
                    ax.plot(
                        *zip(*here, strict=True), MARKERS[model], color=colour, mfc=face, ms=6
                    ) if here else None
        ax.set(xscale="log", yscale="log", xlabel="chips (tensor parallel)", title=f"batch {batch}")
        ax.set_ylabel("time per output token (ms)")
        ax.set_yticks([1, 2, 5, 10, 20, 50])
    share = axes[-1]
    for batch, colour in zip(batches, ("black", "0.55"), strict=True):
        for latency, dash in zip(latencies, ("-", "--"), strict=True):
            chosen = [
                r for r in rows if (r["model"], r["latency"], r["batch"]) == ("llama-3.1-70b", latency, batch)
            ]
            share.plot(
                [r["chips"] for r in chosen],
                [r["message_share"] for r in chosen],
                dash,
                color=colour,
                marker="^",
            )
    share.set(
        xscale="log",
        xlabel="chips (tensor parallel)",
        ylabel="share of a token that is messages",
        ylim=(0, 1),
    )
    share.set_title("llama-3.1-70b")
    share.yaxis.set_major_formatter(PercentFormatter(1.0))
    for ax in axes:
        ticks = (1, 2, 4, 8) if ax is not share else (1, 2, 4, 8, 16, 32, 64)
        ax.set_xticks(ticks)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        if ax is not share:
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.grid(True, color="0.9", lw=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    line = lambda **style: Figure().subplots().plot([], [], **style)[0]  # noqa: E731
    handles = [line(color=c, marker=MARKERS[m], label=m) for m, c in COLOURS.items()]
    handles.append(line(color="0.3", marker="o", mfc="white", ls="", label="does not fit"))
    handles += [
        line(color="0.3", ls=dash, label=f"{1e6 * t:.1f} µs a message")
        for t, dash in zip(latencies, ("-", "--"), strict=True)
    ]
    handles += [
        line(color=c, marker="^", label=f"batch {b}") for b, c in zip(batches, ("black", "0.55"), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=8, frameon=False, fontsize=8.5)
    figure.suptitle(
        f"Tensor parallelism over {manifest['chip']}, {manifest['bits']} bits, prompt {manifest['prompt']}: two fabrics"
    )
    (HERE / "out").mkdir(exist_ok=True)
    for ending in ("svg", "png"):
        figure.savefig(HERE / "out" / f"02_scaling.{ending}", dpi=150)


if __name__ == "__main__":
    main()
