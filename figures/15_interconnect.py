"""Time per token by number of chips, hop latency and topology; gain of in-network reduction; share of messages."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from style import BLACK, COLOURS, GREY, WIDE, Data, Table, looks, plain, run

HOP = 500e-9
CHIPS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
FULL = {"ls": "", "marker": "o", "ms": 8, "mfc": "white", "mec": BLACK, "zorder": 5}
TIMES = [0.5, 1, 2, 5, 10, 20, 50, 100]


def fabric_looks(table: Table) -> dict[str, dict]:
    """A look each; the ninth and tenth are drawn without a mark."""
    more = (
        {"color": BLACK, "ls": (0, (1, 2))},
        {"color": GREY, "ls": "-", "lw": 3, "alpha": 0.6, "zorder": 1},
    )
    return dict(zip(table.kinds("fabric"), [*looks(), *more], strict=False))


def by_chips(axes: Axes, rows: list[dict], column: str, scale: float, look: dict, label: str = "") -> None:
    axes.plot([r["chips"] for r in rows], [r[column] * scale for r in rows], label=label, **look)
    full = [r for r in rows if not r["fits"]]
    axes.plot([r["chips"] for r in full], [r[column] * scale for r in full], **FULL)


def draw(data: Data) -> Figure:
    tokens, experts = data["tokens"], data["experts"]
    figure, ((first, second, third), (fourth, fifth, sixth)) = plt.subplots(
        2, 3, figsize=(WIDE, 6.4), layout="constrained"
    )
    by_fabric = fabric_looks(tokens)
    for name, look in by_fabric.items():
        rows = tokens.where(fabric=name, in_network=False, hop=HOP, batch=1)
        by_chips(first, rows, "tpot", 1e3, look, name)
        by_chips(second, rows, "share", 100, look)
        by_chips(sixth, experts.where(fabric=name), "tpot", 1e3, look)
    many = max(n for n in tokens.kinds("chips") if n <= 64)
    for name, look in by_fabric.items():
        rows = tokens.where(fabric=name, in_network=False, chips=many, batch=1)
        third.plot([r["hop"] * 1e6 for r in rows], [r["tpot"] * 1e3 for r in rows], **look)
    shown = [n for n in (4, 16, 64, 256) if n in tokens.kinds("chips")]
    for look, chips in zip(looks(), shown, strict=False):
        for name, dash in (("switch", "-"), ("ring", ":")):
            rows = tokens.where(fabric=name, in_network=False, chips=chips, batch=1)
            fourth.plot(
                [r["hop"] * 1e6 for r in rows], [r["tpot"] * 1e3 for r in rows],
                **(look | {"linestyle": dash}), label=f"{chips} chips" if name == "switch" else None,
            )  # fmt: skip
    adding = list(dict.fromkeys(tokens.values("fabric", in_network=True)))
    hops = tokens.kinds("hop")
    for name, dash in zip(adding, (":", "--", "-"), strict=False):
        for colour, mark, hop in zip(COLOURS, "os^", (hops[0], HOP, hops[-1]), strict=False):
            with_sums = tokens.where(fabric=name, in_network=True, hop=hop, batch=1)
            without = tokens.where(fabric=name, in_network=False, hop=hop, batch=1)
            fifth.plot(
                [r["chips"] for r in with_sums],
                [a["tpot"] / b["tpot"] for a, b in zip(without, with_sums, strict=True)],
                color=colour, marker=mark, ls=dash, ms=4,
            )  # fmt: skip
    for colour, mark, hop in zip(COLOURS, "os^", (hops[0], HOP, hops[-1]), strict=False):
        fifth.plot([], [], color=colour, marker=mark, ls="", label=f"{hop * 1e6:g} µs per hop")
    for name, dash in zip(adding, (":", "--", "-"), strict=False):
        fifth.plot([], [], color=BLACK, ls=dash, label=name)
    for axes, title in (
        (first, "TPOT falls until messages dominate"),
        (second, "Share of messages in TPOT"),
        (third, f"Hop latency, {many} chips"),
        (fourth, "Hop latency: switch (ring: dotted)"),
        (fifth, "Gain of in-network reduction"),
        (sixth, "MoE with all-to-all"),
    ):
        axes.set_title(title, fontsize=9)
    for axes in (first, second, fifth, sixth):
        axes.set_xscale("log", base=2)
        axes.set_xlabel(tokens.label("chips", "chips"))
        plain(
            axes, "x", {"x": [n for n in CHIPS if n in (experts if axes is sixth else tokens).kinds("chips")]}
        )
    for axes in (third, fourth):
        axes.set_xscale("log")
        axes.set_xlabel(tokens.label("hop", "hop latency", "µ"))
        plain(axes, "x", {"x": [0.05, 0.1, 0.2, 0.5, 1, 2, 5]})
    for axes in (first, third, fourth, sixth):
        axes.set_yscale("log")
        axes.set_ylabel(tokens.label("tpot", "TPOT", "m"))
        low, high = axes.get_ylim()
        plain(axes, "y", {"y": [t for t in TIMES if low <= t <= high]})
        axes.set_ylim(low, high)
    second.set(ylabel="share of TPOT (%)", ylim=(0, 100))
    fifth.set(ylabel="TPOT without / with", ylim=(0.95, None))
    fourth.legend()
    fifth.legend(ncols=1, fontsize=7)
    first.plot([], [], label="does not fit", **FULL)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


if __name__ == "__main__":
    run(draw)
