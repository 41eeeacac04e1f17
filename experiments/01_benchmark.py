"""Rates and compile times of `evaluate` and its gradient, the cost of reducers, and other tools on the same question.

`python experiments/01_benchmark.py` prints tables and writes experiments/out/01_benchmark.json, data and manifest.
`--readme` also writes the tables into the README. `--against REV` measures an older commit in alternation with the
present code and prints the ratios. Every cell is measured in a process of its own (`benchmark/cells.py`), with a time
limit. `--only equations,trace` selects cells (%(names)s); `--quick` measures each once and leaves out the longest. On
an accelerator, `--profile DIR` writes a trace for TensorBoard or Perfetto and reports what bounds the sweep.

The designs of the table of rates differ in model, chip, batch and parallelism, with every leaf traced. Values are all
metrics of a sweep. Gradients are summed over every leaf, so that the compiler can leave nothing out.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
OUT = ROOT / "experiments" / "out"
BENCHMARK = ROOT / "experiments" / "benchmark"
LIMIT = 150  # seconds for a process
NOW = "now"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing that is measured: its arguments, how often, and whether of an older commit and in a hurry too."""

    kind: str
    title: str
    arguments: tuple[str, ...]
    rounds: int = 1
    older: bool = True
    quick: bool = True


CELLS = (
    Cell("equations", "", ("count_equations",)),
    Cell("trace", "value, chunk 512", ("trace", "value")),
    Cell("trace", "gradient, chunk 512", ("trace", "gradient")),
    Cell("first", "`jc.evaluate`", ("first_evaluate",), rounds=3),
    Cell("first", "gradient of TPOT in the system", ("first_gradient",)),
    Cell("first", "`jax.jit(jax.grad(...))` of TPOT in the system", ("compiled_gradient",)),
    Cell("first", '`jc.serve(..., "auto")`', ("serve_auto",)),
    Cell("first", "co-design, 4 starts", ("codesign",)),
    Cell("rates", "value", ("value", "64")),
    Cell("rates", "value", ("value", "256"), quick=False),
    Cell("rates", "gradient", ("gradient", "256")),
    Cell("million", "space `million`, all that `jaxcost sweep` keeps", ("million",)),
    Cell("reducers", "", ("reducers",), older=False),
)
PEERS = "peers"
HEADS = {
    "equations": ("program of one design", "equations", "trace s"),
    "trace": ("program", "equations", "trace s", "lower s"),
    "rates": (
        "what",
        "equations",
        "trace s",
        "lower s",
        "compile s",
        "CPU s",
        "loop s",
        "million/s",
        "ns a design, one core",
    ),
    "first": ("in a fresh process", "first s", "CPU s", "again s", "import s", "load s"),
    "million": ("whole call", "million/s", "first s", "again s"),
    "reducers": ("the space `million`", "million/s", "CPU ns each", "over bare"),
    PEERS: ("tool", "calls/s", "prefill ms", "decode ms", "one call gives"),
    "profile": ("what", "million/s"),
}
KEYS = {
    "equations": ("equations", "trace"),
    "trace": ("equations", "trace", "lower"),
    "rates": ("equations", "trace", "lower", "compile", "compile cpu", "loop", "rate", "nanoseconds"),
    "first": ("first", "cpu", "again", "import", "load"),
    "million": ("rate", "first", "again"),
    "reducers": ("rate", "nanoseconds", "over bare"),
}


def run(tree: Path, script: str, arguments: tuple[str, ...], limit: float) -> dict[str, Any]:
    """Run one process against the package in `tree`; what it had printed when its time was over counts too."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    process = subprocess.Popen(
        [sys.executable, str(BENCHMARK / script), *arguments],
        env=environment,
        cwd=tree,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    start = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        out, err = process.communicate(timeout=limit)
        if process.returncode:
            found["error"] = (err.strip().splitlines() or ["no message"])[-1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        found["error"] = f"> {limit:.0f} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    for line in out.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            result = json.loads(line)
            found = found | result if isinstance(result, dict) else {"rows": result}
    return found | {"wall": time.perf_counter() - start}


def better(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """The best of two measurements of one cell, number by number: noise only slows."""
    out = a | b
    for key in a.keys() & b.keys():
        if isinstance(a[key], int | float):
            out[key] = (max if key.endswith("rate") else min)(a[key], b[key])
    return out


def measure(cells: list[Cell], trees: dict[str, Path], args: argparse.Namespace, say) -> dict[str, list[Any]]:
    """Measure every cell in every tree, by turns; a row is the cell and what was found by tree."""
    found: dict[str, list[Any]] = {}
    left = dict.fromkeys(
        trees, 60 * args.minutes
    )  # of each its own: an older commit may take most of its time
    for cell in cells:
        row: dict[str, dict[str, Any]] = {}
        for number in range(args.rounds or (1 if args.quick else cell.rounds)):
            for name, tree in trees.items():
                if (name != NOW and not cell.older) or "error" in row.get(name, ()):
                    continue
                result = run(tree, "cells.py", cell.arguments, max(min(args.limit, left[name]), 1))
                left[name] -= result["wall"]
                row[name] = better(row[name], result) if name in row else result
                say(f"{cell.kind} {' '.join(cell.arguments)} {name} {number + 1}: {row[name]}")
        found.setdefault(cell.kind, []).append((cell, row))
    return found


@contextlib.contextmanager
def older(revision: str | None) -> Iterator[dict[str, Path]]:
    """The trees to measure: this one, and an older commit checked out for as long as it takes."""
    if revision is None:
        yield {NOW: ROOT}
        return
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", revision], check=True, text=True, capture_output=True
    )
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "older"
        subprocess.run([*git, "worktree", "add", "--detach", "-q", str(tree), revision], check=True)
        try:
            yield {commit.stdout.strip(): tree, NOW: ROOT}
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


# --- tables ---

FORMATS = {
    "equations": "{:,.0f}",
    "nanoseconds": "{:,.0f}",
    "over bare": "{:+.1%}",
    "rate": "{:.2f}",
}


def shown(key: str, value: float | None) -> str:
    if value is None:
        return ""
    value = value / 1e6 if key == "rate" else value
    return FORMATS.get(key, "{:.3f}" if value < 0.1 else "{:.2f}").format(value)


def title(cell: Cell) -> str:
    return f"{cell.title}, chunk {cell.arguments[1]}" if cell.kind == "rates" else cell.title


def entries(cell: Cell, row: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Rows of one cell: its own, or one a program where it measures several ("program: number")."""
    if cell.title:
        yield title(cell), row
        return
    names = dict.fromkeys(key.split(": ")[0] for result in row.values() for key in result if ": " in key)
    for name in names:
        yield (
            name,
            {
                side: {key.removeprefix(f"{name}: "): value for key, value in result.items()}
                for side, result in row.items()
            },
        )


def lines(kind: str, cells: list[Any]) -> list[list[str]]:
    """Rows of a table as text; with an older commit three of each: it, now, and the ratio."""
    out, keys = [], KEYS[kind]
    for cell, row in cells:
        for name, sides in entries(cell, row):
            for side, result in sides.items():
                text = [shown(key, result.get(key)) for key in keys]
                if "error" in result and "" in text:
                    text[text.index("")] = result["error"]
                out.append([f"{name}, {side}" if len(row) > 1 else name, *text])
            if len(row) > 1:
                before, after = sides.values()
                ratios = [
                    f"{after[key] / before[key]:.2f}" if after.get(key) and before.get(key) else ""
                    for key in keys
                ]
                out.append([f"{name}, ratio", *ratios])
        for side, result in row.items():
            if not cell.title and "error" in result:
                out.append([f"the rest, {side}", result["error"], *[""] * (len(keys) - 1)])
    return out


def peers(sweep_rate: float, found: dict[str, Any]) -> list[list[str]]:
    out = [["jaxcost, a sweep", f"{sweep_rate:,.0f}", "", "", "the same for mixed models and chips"]]
    for name, row in found.items():
        if isinstance(row, dict):
            numbers = ["not installed", "", ""]
            if row["calls"] is not None:
                numbers = [f"{row['calls']:,.0f}", f"{row['prefill']:.1f}", f"{row['decode']:.2f}"]
            out.append([name, *numbers, row["gives"]])
    return out


def markdown(tables: dict[str, list[list[str]]], about: str) -> str:
    """The tables as they stand in the README."""
    blocks = [about]
    for name, rows in tables.items():
        table = ["| " + " | ".join(row) + " |" for row in (HEADS[name], *rows)]
        table.insert(1, "|" + "---|" * len(HEADS[name]))
        blocks.append("\n".join(table))
    return "\n\n".join(blocks)


def machine() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def describe(found: dict[str, list[Any]], load: float) -> str:
    from importlib.metadata import version

    rates = [row[NOW] for _, row in found.get("rates", []) if "designs" in row.get(NOW, ())]
    text = f"On {os.cpu_count()} cores of {machine()}, jax {version('jax')}, load {load:.1f} when it began. Tracing and lowering are CPU seconds of their one thread, all else is wall time. "
    if rates:
        text += f"Rates: {rates[0]['designs']:,} mixed designs, {rates[0]['devices']} device(s), best of "
        text += f"{rates[0]['repeats']}. "
    return text + (
        "First answers: the best of a few fresh processes, nothing cached. The peers answer for llama-3.1-8b on one "
        "h100-sxm, 2048 + 512 tokens, latencies at batch 32, every peak reached."
    )


def main() -> None:
    kinds = (*dict.fromkeys(cell.kind for cell in CELLS), PEERS)
    parser = argparse.ArgumentParser(
        description=__doc__ % {"names": ", ".join(kinds)},
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--against", metavar="REV", help="an older commit to measure by turns")
    parser.add_argument("--only", metavar="CELL,..", help="measure some: " + ", ".join(kinds))
    parser.add_argument("--quick", action="store_true", help="every cell once, without the longest")
    parser.add_argument("--rounds", type=int, help="processes for every cell")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a process may take")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all cells of a commit together")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    parser.add_argument("--profile", metavar="DIR", help="trace a sweep, and say what bounds it")
    parser.add_argument("--designs", type=int, default=1 << 24, help="designs of a sweep that is profiled")
    args = parser.parse_args()
    chosen = set(kinds if args.only is None else args.only.split(","))
    if chosen - set(kinds):
        parser.error(f"--only takes {', '.join(kinds)}, not {', '.join(sorted(chosen - set(kinds)))}")
    cells = [cell for cell in CELLS if cell.kind in chosen and (cell.quick or not args.quick)]
    console, load = Console(), os.getloadavg()[0]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the older tree goes
    with older(args.against) as trees:
        found = measure(cells, trees, args, lambda text: print(text, file=sys.stderr, flush=True))
    tables = {kind: lines(kind, rows) for kind, rows in found.items()}
    data: dict[str, Any] = {
        kind: [{"cell": title(cell), **row} for cell, row in rows] for kind, rows in found.items()
    }
    if PEERS in chosen:
        data[PEERS] = run(ROOT, "peers.py", (), args.limit)
        rate = max((row[NOW].get("rate", 0.0) for _, row in found.get("rates", [])), default=0.0)
        tables[PEERS] = peers(rate, data[PEERS])
    if args.profile:
        data["profile"] = run(ROOT, "roof.py", (args.profile, str(args.designs)), 4 * args.limit)
        tables["profile"] = data["profile"].get("rows", [[data["profile"].get("error", ""), ""]])
    about = describe(found, load)
    OUT.mkdir(parents=True, exist_ok=True)
    manifest = {"command": sys.argv[1:], "about": about, "python": platform.python_version()}
    (OUT / "01_benchmark.json").write_text(json.dumps({"manifest": manifest, **data}, indent=1) + "\n")
    console.print(about)
    for name, rows in tables.items():
        table = Table(*HEADS[name])
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if args.readme:
        readme = ROOT / "README.md"
        before, _, rest = readme.read_text().partition("<!-- rates -->")
        _, _, after = rest.partition("<!-- end -->")
        readme.write_text(f"{before}<!-- rates -->\n{markdown(tables, about)}\n<!-- end -->{after}")


if __name__ == "__main__":
    main()
