"""Serving engines: their policies by hand, pages and groups by independent arithmetic, and their options."""

import json
import math

import jax
import pytest

import jaxcost as jc
from jaxcost.core.pytree import replace, replace_at
from jaxcost.edge.catalog.engines import engine_file
from jaxcost.edge.commands.cli import main
from jaxcost.edge.commands.engine_options import _FLAGS, _GRAPH_FLAGS, CONTEXT_FLAGS
from jaxcost.physics.memory.allocation import allotted_kinds

GIB = 2**30
# Llama-3.1-8B at 16 bits: parameters, hidden 4096, feed-forward 14336, vocabulary 128256, 32 layers, 8 heads of 128.
WEIGHTS = 8_030_261_248 * 2
TOKEN = 32 * 2 * 8 * 128 * 2
STREAM = 8192 * 4096 * 2
HIDDEN = 8192 * 3 * 14336 * 2
VOCABULARY = 128256
CARD = 80 * GIB

POOLS = {
    # 95% of the card, less weights, two copies of the stream and the hidden layer.
    "typical": 0.95 * CARD - WEIGHTS - 2 * STREAM - HIDDEN,
    "none": CARD - WEIGHTS - 2 * STREAM - HIDDEN,
    "static": 0.95 * CARD - WEIGHTS - 2 * STREAM - HIDDEN,
    # 1,024 sampled rows of logits at 14.5 bytes and one copy of the stream; 0.25 GiB outside of torch.
    "vllm-0.19": 0.9 * CARD - WEIGHTS - (STREAM + 1024 * VOCABULARY * 14.5) - 0.25 * GIB,
    "vllm-0.10": 0.9 * CARD - WEIGHTS - (STREAM + 1024 * VOCABULARY * 38) - 0.25 * GIB,
    # Graphs of 32 layers, 30 MiB each, are inside of the share.
    "vllm-0.33": 0.92 * CARD - WEIGHTS - (STREAM + 1024 * VOCABULARY * 18.6) - 0.25 * GIB - 32 * 30 * 2**20,
    "vllm-0.6": 0.9 * CARD - WEIGHTS - (STREAM + 256 * VOCABULARY * 38) - 0.45 * GIB,
    # 0.5 GiB runtime; 1.5 GiB, 1.5 MiB per token of a chunk and 128 MiB per rank are kept for buffers and graphs.
    "sglang-0.5": CARD - 0.5 * GIB - (1.5 + 12 + 0.125) * GIB - WEIGHTS,
    # 90% of what weights, buffers, runtime (0.55 GiB) and graphs (10 MiB a layer) leave.
    "trtllm-1": 0.9 * (CARD - WEIGHTS - (4 * STREAM + HIDDEN + 0.15 * GIB) - 0.55 * GIB - 32 * 10 * 2**20),
    # A margin of 1 GiB, and the buffers of 512 tokens.
    "llamacpp": CARD - GIB - WEIGHTS - (4 * STREAM + HIDDEN) / 16 - 0.25 * GIB,
}


def system(chips=1):
    return replace_at(jc.load_system(f"h100-sxm-x{chips}"), "chip.memory.capacity", float(CARD))


def engine(name, **changes):
    return jc.load_engine(name, "h100-sxm", **changes)


def run(capsys, *argv):
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def test_every_engine_is_checked_by_hand():
    assert set(POOLS) == set(jc.list_names("engines"))


@pytest.mark.parametrize("name", POOLS)
def test_the_pool_of_every_engine_by_hand(name):
    with jax.enable_x64(True):
        fit = jc.fit(system(), jc.load_model("llama-3.1-8b"), jc.Plan(engine=engine(name)))
        assert float(fit.kv_bytes) == pytest.approx(POOLS[name], rel=1e-6)
        each = 8192 * TOKEN  # whole pages of 1, 16, 32 and 256 tokens
        assert float(fit.request_bytes) == each
        assert float(fit.kv_tokens) == pytest.approx(POOLS[name] / TOKEN, rel=1e-6)


def pages(tokens, block):
    return math.ceil(tokens / block) * block


def near(tokens, window, extra, block, pages_more):
    return min(pages(min(tokens, window + extra), block) + pages_more * block, pages(tokens, block))


CONTEXT = 32768


@pytest.mark.parametrize(
    ("name", "extra", "block", "more", "padded"),
    [
        ("typical", 0, 1, 0, (10, 52)),
        ("vllm-0.19", 8192, 16, 1, (10, 60)),  # 52 window layers in groups of 10
        ("vllm-0.33", 16384, 16, 1, (10, 60)),  # two steps are in flight
        ("trtllm-1", 8192, 32, 1, (10, 52)),
        ("llamacpp", 512, 256, 0, (10, 52)),
    ],
)
def test_windows_of_gemma_3(name, extra, block, more, padded):
    """10 full layers, 52 with a window of 1,024; 16 heads of 128 with keys and values of 16 bits."""
    fit = jc.fit(system(), jc.load_model("gemma-3-27b"), jc.Plan(engine=engine(name)), context=CONTEXT)
    layers = padded[0] * pages(CONTEXT, block) + padded[1] * near(CONTEXT, 1024, extra, block, more)
    assert float(fit.request_bytes) == pytest.approx(layers * 2 * 16 * 128 * 2, rel=1e-6)


def test_windows_of_sglang_are_a_share_of_full_layers():
    fit = jc.fit(
        system(), jc.load_model("gemma-3-27b"), jc.Plan(engine=engine("sglang-0.5")), context=CONTEXT
    )
    assert float(fit.request_bytes) == pytest.approx((10 + 0.8 * 52) * CONTEXT * 2 * 16 * 128 * 2, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "extra", "block", "more"), [("vllm-0.19", 8192, 16, 1), ("llamacpp", 512, 256, 0)]
)
def test_windows_of_gpt_oss(name, extra, block, more):
    """12 full layers and 12 with a window of 128: groups are equal without padding."""
    model = jc.load_model("gpt-oss-20b")
    fit = jc.fit(system(), model, jc.Plan(engine=engine(name)), context=CONTEXT)
    layers = 12 * pages(CONTEXT, block) + 12 * near(CONTEXT, 128, extra, block, more)
    assert float(fit.request_bytes) == pytest.approx(layers * 2 * 8 * 64 * 2, rel=1e-6)


def test_states_of_qwen3_next():
    """A page of vLLM holds a state: 544 tokens at tp 2 with states of 16 bits, as a log of vLLM 0.10.2 says."""
    model = jc.load_model("qwen3-next-80b-a3b")
    model = replace(model, recurrence=replace(model.recurrence, state_bits=16.0))
    plan = jc.Plan(tp=2.0, engine=engine("vllm-0.19"))
    kinds = jax.tree.map(float, allotted_kinds(*jc.canonical((model, plan, 8192.0))))
    state = (32 * 128 * 128 + 3 * 8192) / 2 * 2  # bytes at tp 2: heads of 128 x 128, a convolution of 4
    assert kinds.page_tokens == 16 * math.ceil(state / (16 * 2 * 256 * 2)) == 544
    assert (kinds.full_allotted, kinds.state_allotted) == (12, 36)
    page = 544 * 2 * 256 * 2
    fit = jc.fit(system(2), model, plan, context=8192.0)
    assert float(fit.request_bytes) == pytest.approx((12 * math.ceil(8192 / 544) + 36) * page, rel=1e-6)


def test_states_of_sglang_have_a_pool_of_their_own():
    """Three states a request; whichever pool is short, the larger share of both counts."""
    model, plan = jc.load_model("qwen3-next-80b-a3b"), jc.Plan(tp=2.0, engine=engine("sglang-0.5"))
    bits = float(model.recurrence.state_bits)
    state = 3 * 36 * (32 * 128 * 128 * bits / 8 + 3 * 8192 * 2) / 2
    for context in (1024.0, 65536.0):
        kv = 12 * context * 2 * 256 * 2
        needed = max(1.9 * kv, 1.9 / 0.9 * state)
        fit = jc.fit(system(2), model, plan, context=context)
        assert float(fit.request_bytes) == pytest.approx(needed, rel=1e-5)


def test_every_option_of_the_catalogue_is_an_option_of_the_commands():
    flags = {leaf: set(names) for leaf, (names, _) in _FLAGS.items()}
    flags |= {"without_graphs": set(_GRAPH_FLAGS), "context": set(CONTEXT_FLAGS)}
    for name in jc.list_names("engines"):
        for leaf, option in dict(engine_file(name)[1].options or ()).items():
            assert option is None or option in flags[leaf], (name, leaf)


LLAMA = ("--model", "llama-3.1-8b", "--system", "h100-sxm-x1")


@pytest.mark.parametrize(
    ("options", "leaves"),
    [
        (
            ("vllm", "--gpu-memory-utilization", "0.8", "--max-num-seqs", "64"),
            {"memory_share": 0.8, "sequences": 64},
        ),
        (
            ("sglang", "--mem-fraction-static", "0.8"),
            {"memory_share": 0.8, "kept_bytes": 0, "kept_step_bytes": 0},
        ),
        (
            ("sglang", "--chunked-prefill-size", "4096", "--page-size", "64"),
            {"step_tokens": 4096, "block": 64},
        ),
        (("trtllm", "--kv-cache-free-gpu-memory-fraction", "0.5"), {"cache_share": 0.5}),
        (
            ("trtllm", "--max-num-tokens", "2048", "--tokens-per-block", "64"),
            {"step_tokens": 2048, "block": 64},
        ),
        (("llamacpp", "--ubatch-size", "1024", "--parallel", "4"), {"step_tokens": 1024, "sequences": 4}),
        (("vllm", "--enforce-eager"), {"graph_bytes": 0, "graph_layer_bytes": 0}),
        (("none", "--max-num-batched-tokens", "2048"), {"step_tokens": 2048, "memory_share": 1}),
    ],
)
def test_options_set_numbers_of_the_engine(options, leaves, capsys):
    status, out, _ = run(capsys, "fit", *LLAMA, "--json", "--engine", *options)
    assert status == 0
    shown = json.loads(out)["engine"]
    assert {leaf: shown[leaf] for leaf in leaves} == pytest.approx(leaves)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "vlm"), "did you mean 'vllm'?"),
        (
            ("--engine", "sglang", "--gpu-memory-utilization", "0.9"),
            "--mem-fraction-static, the option of sglang-0.5",
        ),
        (("--engine", "vllm", "--ubatch-size", "512"), "--max-num-batched-tokens, the option of vllm-0.19"),
        (("--engine", "vllm", "--ctx-size", "512"), "--max-model-len, the option of vllm-0.19"),
        (("--engine", "llamacpp", "--enforce-eager"), "an option of llamacpp: --ubatch-size"),
        (("--engine", "llamacpp", "--page-size", "16"), "an option of llamacpp"),
        (("--parallel", "4"), "--max-num-seqs, the option of typical"),
        (("--gpu-memory-utilization", "1.5"), "a share in (0, 1]"),
        (("--max-num-batched-tokens", "0"), "a whole number of at least 1"),
        (("--block-size", "1.5"), "a whole number of at least 1"),
        (("--kv-cache-dtype", "fp7"), "did you mean"),
        (("--kv-cache-dtype", "fp8", "--kv-bits", "8"), "either --kv-cache-dtype or --kv-bits"),
        (("--engine", "vllm", "--moe-backend", "cutlass"), "one of marlin, triton, none"),
        (("--moe-backend", "marlin"), "no kernel of experts with typical"),
        (("--context", "0"), "a whole number of tokens"),
        (("--context", "10", "--prompt", "10"), "the context once"),
        (("--users", "0"), "a whole number of at least 1"),
        (("--batch", "8"), "--users"),
        (("--weights-bytes", "15"), "a quantity in B"),
    ],
)
def test_refusals_are_one_line_that_names_the_right_option(options, message, capsys):
    status, out, err = run(capsys, "fit", *LLAMA, *options)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "bits"), [("fp8_e4m3", 8), ("nvfp4", 4.5), ("q8_0", 8.5), ("bf16", 16), ("auto", 16)]
)
def test_types_of_the_cache(name, bits, capsys):
    status, out, _ = run(capsys, "fit", *LLAMA, "--kv-cache-dtype", name, "--json")
    document = json.loads(out)
    assert status == 0
    assert document["request_bytes"] == pytest.approx(8192 * TOKEN * bits / 16)
    source = document["precision"]["kv_bits"]["source"]
    assert (source == "--kv-cache-dtype") == (name != "auto")


@pytest.mark.parametrize(
    ("options", "gib"),
    [
        (("--engine", "vllm"), 65.89),  # measured 65.97, vllm-project/vllm issue 23278
        (("--engine", "vllm", "--moe-backend", "triton"), 64.55),  # measured 64.38, issue 33155
        (("--engine", "vllm", "--moe-backend", "none"), 60.77),
        (("--engine", "sglang"), 60.77),
        (("--engine", "vllm", "--expert-width-multiple", "1"), 60.77),
    ],
)
def test_padding_of_mxfp4_experts(options, gib, capsys):
    words = ("--model", "gpt-oss-120b", "--quantization", "mxfp4", "--system", "h100-sxm-x1", "--json")
    _, out, _ = run(capsys, "fit", *words, *options)
    document = json.loads(out)
    assert document["weights_bytes"] / GIB == pytest.approx(gib, abs=0.01)
    assert any("pads MXFP4" in note for note in document["notes"]) == (gib > 61)


def test_the_keys_of_the_document(capsys):
    status, out, _ = run(capsys, "fit", *LLAMA, "--engine", "vllm", "--users", "20", "--json")
    document = json.loads(out)
    names = "weights_bytes activation_bytes reserved_bytes graph_bytes kv_bytes kv_tokens requests longest_context"
    assert status == 0
    assert all(isinstance(document[name], float) for name in names.split())
    assert document["fits"] is True
    assert (document["users"], document["chips_needed"], document["context"]) == (20, 1, 8192)
    assert document["engine"]["name"] == "vllm-0.19"
    assert 0 < document["memory_share"] < 0.9


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ((), 0, "requests of 8,192 tokens fit on 1 x h100-sxm"),
        (("--users", "20"), 0, "20 requests fit"),
        (("--users", "500"), 3, "500 requests of 8,192 tokens do not fit on 1 x h100-sxm"),
        (("--max-model-len", "2000000"), 3, "no request of 2,000,000 tokens fits on 1 x h100-sxm"),
        (("--weights-bytes", "90GiB"), 3, "does not fit on 1 x h100-sxm: weights take"),
    ],
)
def test_verdicts_and_exit_statuses(options, status, text, capsys):
    words = ("fit", *LLAMA, "--engine", "vllm", *options)
    assert run(capsys, *words)[0] == 0
    required, out, err = run(capsys, *words, "--require-fit")
    assert (required, err) == (status, "")
    assert text in out.splitlines()[0]
    assert "KV cache and states" in out


def test_hybrid_models_say_how_engines_differ(capsys):
    out = run(capsys, "fit", "--model", "gemma-3-27b", "--system", "h200-sxm-x1", "--engine", "sglang")[1]
    assert "10 full, 52 with a window" in out
    assert "vllm: the window + 1 step" in out
    assert "Engines differ" not in run(capsys, "fit", *LLAMA)[1]


def test_every_command_says_the_engine(capsys):
    sizes = ("--model", "llama-3.1-8b", "--engine", "sglang", "--prompt", "1024", "--output", "64")
    out = run(capsys, "evaluate", *sizes, "--system", "h100-sxm-x1")[1]
    assert (
        "Engine: sglang-0.5: all of the memory that the runtime leaves less 13.6 GiB, steps of 8,192" in out
    )
    document = json.loads(run(capsys, "evaluate", *sizes, "--system", "h100-sxm-x1", "--json")[1])
    assert document["engine"]["step_tokens"] == 8192
    out = " ".join(run(capsys, "compare", *sizes, "--systems", "h100-sxm-x1,b200-x1")[1].split())
    assert "Engine, h100-sxm-x1: sglang-0.5" in out
    assert "steps of 16,384 tokens" in out


def test_engines_are_listed(capsys):
    status, out, _ = run(capsys, "list", "engines")
    assert status == 0
    assert all(name in out for name in POOLS)
    status, out, _ = run(capsys, "list", "engines", "vllm")
    assert status == 0
    assert "vLLM 0.19 (engines vllm)" in out
    assert "gpu_memory_utilization" in out
