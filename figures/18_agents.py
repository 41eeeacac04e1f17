"""Operational intensity and capacity footprint of agentic requests; width of latents; what limits a full system."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from style import BLACK, BLUE, GREEN, GREY, MARKS, ORANGE, PALE, WIDE, Data, looks, plain, run

PHASES = {"decode": BLUE, "turn": ORANGE, "prompt": BLACK}
NAMES = {"decode": "decoding", "turn": "a turn with a cached context", "prompt": "a whole prompt"}
BINDS = {"does not fit": GREY, "capacity": ORANGE, "bandwidth": BLUE, "compute": GREEN}


def map_of(axes: Axes, data: Data, model: str) -> None:
    """OI against CF; marks are workloads, colours phases, bars from low to high."""
    points, (chip,) = data["points"], data["chip"].rows
    for mark, workload in zip(MARKS, points.kinds("workload"), strict=False):
        for phase, colour in PHASES.items():
            of = {"model": model, "workload": workload, "phase": phase, "batch": 1}
            rows = points.where(**of)
            mid = next(r for r in rows if r["end"] == "mid")
            axes.plot(
                [r["oi"] for r in rows], [r["cf"] / 1e9 for r in rows], "-", color=colour, lw=1, alpha=0.5
            )
            axes.plot(mid["oi"], mid["cf"] / 1e9, mark, color=colour)
            many = [r for r in points.where(**(of | {"batch": 16})) if r["end"] == "mid"]
            axes.plot([r["oi"] for r in many], [r["cf"] / 1e9 for r in many], mark, mfc="white", mec=colour)
    axes.axvline(chip["ridge"], color=BLACK, ls="--", lw=1)
    axes.axhline(chip["capacity"] / 1e9, color=BLACK, ls=":", lw=1.2)
    axes.set(xscale="log", yscale="log", xlabel=points.label("oi", "operational intensity"), title=model)
    axes.set_ylabel(points.label("cf", "capacity footprint per request", "G"))
    axes.set_xlim(0.7, 1e5)
    axes.set_ylim(8, 3000)
    plain(axes, "xy", {"x": [1, 10, 100, 1000, 1e4, 1e5], "y": [10, 30, 100, 300, 1000, 3000]})
    for x, y, text in (
        (0.02, 0.02, "bandwidth"), (0.98, 0.02, "compute"),
        (0.02, 0.975, "capacity, then bandwidth"), (0.98, 0.975, "capacity, then compute"),
    ):  # fmt: skip
        axes.text(
            x, y, text, transform=axes.transAxes, ha="left" if x < 0.5 else "right", va="bottom" if y < 0.5 else "top",
            fontsize=7.5, style="italic", color=BLACK,
        )  # fmt: skip


def grid_of(axes: Axes, data: Data) -> None:
    """Largest batch and what binds, workloads by systems."""
    fits = data["fits"]
    pools, pairs = fits.kinds("chips"), [(m, w) for m in fits.kinds("model") for w in fits.kinds("workload")]
    for y, (model, workload) in enumerate(pairs):
        for x, chips in enumerate(pools):
            (row,) = fits.where(model=model, workload=workload, chips=chips)
            axes.barh(y, 0.94, left=x - 0.47, height=0.9, color=BINDS[row["binds"]], alpha=0.4)
            text = "does not fit" if row["batch"] < 1 else f"{row['batch']:,.0f}: {row['binds']}"
            axes.text(x, y, text, ha="center", va="center", fontsize=7.5)
    axes.set(xticks=range(len(pools)), yticks=range(len(pairs)), xlim=(-0.5, len(pools) - 0.5))
    axes.set_xticklabels([f"{n} chip" + "s" * (n > 1) for n in pools])
    axes.set_yticklabels([f"{model.split('-')[0]}, {workload}" for model, workload in pairs])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_title("Largest batch that fits, and what limits it")


def draw(data: Data) -> Figure:
    latents = data["latents"]
    figure = plt.figure(figsize=(WIDE, 7.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    first, second = upper.subplots(1, 2)
    third, fourth = lower.subplots(1, 2)
    models = data["points"].kinds("model")
    map_of(first, data, models[0])
    map_of(second, data, models[-1])
    beside = third.twinx()
    for look, context in zip(looks(), latents.kinds("context"), strict=False):
        rows = latents.where(context=context)
        ranks = [r["latent"] for r in rows]
        third.plot(ranks, [r["oi"] for r in rows], **look, label=f"{context:,} tokens")
        beside.plot(
            ranks,
            [r["cache"] / 1e9 for r in rows],
            **(look | {"linestyle": ":"}),
            mfc="white",
            lw=1,
            alpha=0.9,
        )
    rows = latents.where(context=latents.kinds("context")[-1])
    third.plot([r["latent"] for r in rows], [r["oi_by_hand"] for r in rows], "-", color=PALE, lw=5, zorder=1)
    third.plot([], [], "-", color=PALE, lw=5, label="latents alone, by hand")
    third.plot([], [], ":", marker="o", mfc="white", color=BLACK, label="cache, right axis")
    third.set_xscale("log", base=2)
    third.set(ylim=(0, 300), title="Effect of the width of the latent")
    third.set_xlabel(latents.label("latent", "width of the latent"))
    third.set_ylabel(latents.label("oi", "intensity of decoding a large batch"))
    beside.set_yscale("log")
    beside.set_ylabel(latents.label("cache", "cache of a request", "G"))
    beside.set_ylim(0.3, 1000)
    beside.grid(visible=False)
    beside.spines["right"].set_visible(True)
    plain(third, "x", {"x": latents.kinds("latent")})
    plain(beside, "y", {"y": [1, 10, 100, 1000]})
    third.legend(fontsize=7.5, ncols=2, loc="upper left")
    grid_of(fourth, data)
    (chip,) = data["chip"].rows
    handles = [plt.Line2D([], [], ls="", marker="o", color=c, label=NAMES[p]) for p, c in PHASES.items()]
    handles += [
        plt.Line2D([], [], ls="", marker=m, color=GREY, label=w)
        for m, w in zip(MARKS, data["points"].kinds("workload"), strict=False)
    ]
    handles += [
        plt.Line2D([], [], ls="", marker="o", mfc="white", mec=BLACK, label="batch 16"),
        plt.Line2D([], [], color=BLACK, ls="--", lw=1, label=f"ridge point of {chip['chip']}"),
        plt.Line2D([], [], color=BLACK, ls=":", lw=1.2, label="its capacity"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


if __name__ == "__main__":
    run(draw)
