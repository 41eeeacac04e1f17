"""Write docs/memory.md from published measurements of memory.

    python experiments/memory_page.py --cases FILE.csv

The columns of the file are described in `experiments/memory_cases.py`.
"""

import argparse
import re
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

import jaxcost as jc
from jaxcost.edge.catalog.engines import engine_file
from jaxcost.edge.show.allotment import describe_states, describe_window
from memory_cases import (
    ACTIVATIONS,
    BARS,
    COUNT,
    DEFAULTS,
    GIVEN,
    MISSES,
    REQUEST,
    RESERVE,
    SETUPS,
    WEIGHTS,
    Case,
    compute,
    read_rows,
)

PAGE = Path(__file__).parents[1] / "docs" / "memory.md"
ENGINES = ("typical", "vllm-0.19", "vllm-0.33", "vllm-0.10", "vllm-0.6", "sglang-0.5", "trtllm-1", "llamacpp")
RESTS_ON = {
    WEIGHTS: "parameters and bits of the checkpoint, stages that hold a table, padding of MXFP4 kernels",
    ACTIVATIONS: "the engine's buffers of a step and its logits",
    RESERVE: "constants of the engine, taken from these rows: no test of the model",
    GIVEN: "the engine's policy and the cache of a token; weights, buffers and runtime as measured",
    DEFAULTS: "everything computed, from the name of the engine and its options alone",
    REQUEST: "the cache of a token, windows and pages of the engine",
    COUNT: "the sizes of the checkpoint",
}
INTRO = """
# How much fits: measured and computed

`jaxcost fit` and `jc.fit` divide the memory of a chip as a serving engine does: weights, working buffers of the
largest step, runtime and communicators, CUDA graphs, and the pool of the KV cache. This page compares them with what
engines report, one row for each published number. It is written by `python experiments/memory_page.py --cases FILE`.
An error is computed / measured - 1.
"""
ABOUT_ENGINES = """
## Where engines differ

An engine is a file of `configs/engines/` (`jaxcost list engines NAME` shows the source of every number). With C the
memory that the driver reports, W weights, A working buffers, R runtime and communicators, G graphs, and the shares m
and f, the pool of the cache is:

- vLLM: m C - W - A - R, since 0.21 also less G. It measures A itself, with a step of the whole token budget and the
  logits of as many sequences as may run, whatever the traffic is.
- SGLang: C - R - K - W. A rule keeps K for A and G: 0.5 GiB, 1.5 MiB per token of the chunk, 2 MiB per captured size.
  With `--mem-fraction-static` the pool is m (C - R) - W.
- TensorRT-LLM: f (C - W - A - R - G).
- llama.cpp: C - W - A - 1 GiB.
- `typical`, the default of every command: 0.95 C - W - A, with the buffers of the traffic. `none` takes all of C, and
  `static` computes all prompts of a batch in one step.

Layers with a window and recurrent layers are allotted by these rules (L a page of the cache):
"""
READING = """
## From a boot log to options

The first command is the model's view; where a log exists, its numbers replace computed ones, and the pool follows by
the policy of the engine.

| line of a log | option |
|---|---|
| vLLM: model weights take, Model loading took | `--weights-bytes 14.99GiB` |
| vLLM: PyTorch activation peak memory | `--activation-bytes 1.89GiB` |
| vLLM: non_torch_memory, non-torch forward increase | `--reserved-bytes 0.25GiB` |
| vLLM: Graph capturing finished ... took | `--graph-bytes 0.67GiB` |
| vLLM: total_gpu_memory; SGLang: total of nvidia-smi | `--set system.chip.memory.capacity='79.19 GiB'` |
| vLLM: gpu_memory_utilization, max_num_batched_tokens, max_num_seqs | the options of these names |
| SGLang: mem_fraction_static, chunked_prefill_size | `--engine sglang` and the options of these names |
| TensorRT-LLM: kv_cache_free_gpu_memory_fraction | `--engine trtllm` and the option of this name |
| llama.cpp: n_ctx, n_ubatch, n_parallel | `--engine llamacpp --ctx-size N --ubatch-size N --parallel N` |

```console
$ jaxcost fit --model llama-3.1-8b --system h100-sxm-x1 --engine vllm --gpu-memory-utilization 0.95 \\
    --weights-bytes 14.99GiB --activation-bytes 1.89GiB --reserved-bytes 0.25GiB \\
    --set system.chip.memory.capacity='79.19 GiB'
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=Path, required=True, help="table of measurements")
    args = parser.parse_args()
    cases = compute(read_rows(args.cases))
    PAGE.write_text(page(cases), encoding="utf-8")


def page(cases: Sequence[Case]) -> str:
    """Return the page as Markdown."""
    kinds = [kind for kind in RESTS_ON if any(case.kind == kind for case in cases)]
    parts = [
        INTRO.strip(),
        "## Errors by kind",
        wrapped(
            "*Bar* is the largest error wanted of a row, for working buffers of the median; a number that is exact "
            "must agree to the last digit that is stated."
        ),
        table(("kind", "rows", "median", "largest", "bar", "rests on"), [summary(cases, k) for k in kinds]),
    ]
    missed = [case for case in cases if case.name in MISSES and not case.within]
    if missed:
        parts += ["Rows beyond the bar:", "\n".join(map(miss, missed))]
    for kind in kinds:
        rows = [described(case) for case in cases if case.kind == kind]
        parts += [f"## {kind}", table(("row", "model", "engine", "measured", "computed", "error"), rows)]
    parts += [sources(cases), ABOUT_ENGINES.strip(), engines(), READING.strip()]
    return "\n\n".join(parts) + "\n"


def miss(case: Case) -> str:
    text = f"- {case.name}, {case.error:+.1%}: {MISSES[case.name]}."
    return "\n".join(textwrap.wrap(text, 118, subsequent_indent="  "))


def summary(cases: Sequence[Case], kind: str) -> tuple[str, ...]:
    errors = [abs(case.error) for case in cases if case.kind == kind]
    bar = BARS.get(kind)
    wanted = "" if bar is None else f"{bar:.1%}" if bar else "exact"
    middle = f"{statistics.median(errors):.2%}"
    return kind, str(len(errors)), middle, f"{max(errors):.1%}", wanted, RESTS_ON[kind]


def described(case: Case) -> tuple[str, ...]:
    row = case.row
    degrees = [f"{name} {row[name]}" for name in ("tp", "pp") if row[name] != "1"]
    model = " ".join([row["model"], *([row["chip"]] if row["chip"] else []), *degrees])
    bits = [
        f"{row[f'{name}_bits']}-bit {name}"
        for name in ("weight", "kv")
        if row[f"{name}_bits"] not in ("", "16")
    ]
    what = f"{case.name} ({row['quantity'].partition(',')[0]}{', ' if bits else ''}{', '.join(bits)})"
    digits = 0 if case.measured >= 1000 else case.decimals
    numbers = (
        f"{value:,.{digits}f} {case.unit if case.unit != '1' else ''}".strip() for value in values(case)
    )
    return what, model, case.engine, *numbers, f"{case.error:+.2%}"


def values(case: Case) -> tuple[float, float]:
    return case.measured, case.computed


def sources(cases: Sequence[Case]) -> str:
    """Return the source of every row, those of one source together."""
    by_source: dict[str, list[str]] = {}
    for case in cases:
        names = by_source.setdefault(case.row["source"], [])
        if case.name not in names:
            names.append(case.name)
    lines = []
    for source, names in by_source.items():
        address = re.match(r"https://\S+", source)
        text = f"<{address[0]}>" if address else source.partition(",")[0]
        lines.append(
            "\n".join(
                textwrap.wrap(
                    f"- {', '.join(names)}: {text}",
                    118,
                    subsequent_indent="  ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
        )
    setups = [
        f"- {engine}: "
        + (", ".join(f"`{name}` {value:g}" for name, value in changes.items()) or "its defaults")
        + f", on {memory / 2**30:.2f} GiB"
        for _, engine, changes, memory in SETUPS
    ]
    return "\n\n".join(
        ("## Sources", "\n".join(lines), "Engines of the rows:", "\n".join(dict.fromkeys(setups)))
    )


def engines() -> str:
    rows = []
    for name in ENGINES:
        engine = jc.load_engine(name)
        version = engine_file(name)[1].version or "-"
        block = float(engine.block)
        rows.append((name, version, f"{block:g}", describe_window(engine), describe_states(engine)))
    return table(("engine", "version", "L, tokens", "tokens of a window layer", "recurrent states"), rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wrapped(text: str) -> str:
    return textwrap.fill(text, 118)


if __name__ == "__main__":
    main()
