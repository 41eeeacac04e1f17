"""Checkpoints as commands and Python take them: the precision of the file, flags, recipes, notes, sizes on disk."""

import json
import math
import warnings
from pathlib import Path

import pytest

import jaxcost as jc
from jaxcost.edge.commands.cli import main
from jaxcost.physics.compute.precision import precision_of

GIB = 2**30
SHARED = Path(jc.__file__).parents[1].parent / "shared" / "data" / "configs"
BLOCK = 8 + 32 / 128**2  # 8 bits and a 32-bit scale for every block of 128 x 128
EXPERTS = {
    "model_type": "deepseek_v3",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "moe_intermediate_size": 512,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": 256,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "n_routed_experts": 32,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "vocab_size": 32000,
}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


@pytest.fixture
def folder(tmp_path):
    """A folder with a checkpoint in FP8."""
    (tmp_path / "config.json").write_text(json.dumps({**EXPERTS, "quantization_config": FP8}))
    return tmp_path


def run(capsys, *argv):
    status = main(list(argv))
    return status, *capsys.readouterr()


def evaluated(capsys, model, *options):
    status, out, err = run(
        capsys, "evaluate", "--model", str(model), "--system", "h200-sxm-x8", "--tp", "8", *options, "--json"
    )
    assert status == 0, err
    return json.loads(out)


def released(name):
    path = SHARED / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def test_the_precision_of_the_file_is_taken_and_said(capsys, folder):
    document = evaluated(capsys, folder)
    bits = {name: entry["value"] for name, entry in document["precision"].items()}
    assert bits["weight_bits"] == bits["mixer_bits"] == bits["expert_bits"] == pytest.approx(BLOCK)
    assert (bits["wide_bits"], bits["kv_bits"], bits["matmul_bits"], bits["message_bits"]) == (16, 16, 8, 16)
    assert document["precision"]["expert_bits"]["source"] == "quantization_config: FP8 in blocks of 128x128"
    assert document["plan"]["expert_bits"] == pytest.approx(BLOCK)
    status, out, _ = run(capsys, "evaluate", "--model", str(folder), "--system", "h200-sxm", "--batch", "4")
    words = " ".join(out.split())
    assert status == 0
    assert "Precision: weights 8.002, experts 8.002, embedding and head 16, KV 16, matmul inputs 8" in words
    assert "residual stream 16, messages 16 bits (checkpoint: fp8)" in words


def test_flags_come_before_the_file(capsys, folder):
    document = evaluated(capsys, folder, "--weight-bits", "4", "--kv-bits", "fp8", "--activation-bits", "16")
    found = {name: (e["value"], e["source"]) for name, e in document["precision"].items()}
    assert found["weight_bits"] == (4, "--weight-bits")
    assert found["mixer_bits"] == (4, "as weight_bits")
    assert found["wide_bits"] == (4, "as weight_bits")
    assert found["expert_bits"][0] == pytest.approx(BLOCK)
    assert found["kv_bits"] == (8, "--kv-bits")
    assert found["matmul_bits"] == (16, "as activation_bits")


def test_a_recipe_leaves_embedding_and_head_wide(capsys):
    # vLLM's boot log of llama-3.1-8b with --quantization fp8: 8.49 GiB (memory.csv, m012).
    args = ("evaluate", "--model", "llama-3.1-8b", "--system", "h100-sxm", "--json", "--quantization", "fp8")
    status, out, _ = run(capsys, *args)
    weights = json.loads(out)["results"]["memory.weights"]["value"] / GIB
    assert status == 0
    assert weights == pytest.approx(8.49, rel=0.005)


def test_an_unknown_recipe_or_method_is_named_and_refused(capsys, tmp_path):
    design = ("evaluate", "--model", "llama-3.1-8b", "--system", "h100-sxm")
    status, _, err = run(capsys, *design, "--quantization", "fp7")
    assert status == 2
    assert "'fp7'" in err
    assert "nvfp4" in err
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**EXPERTS, "quantization_config": {"quant_method": "zip"}}))
    status, _, err = run(capsys, "evaluate", "--model", str(path), "--system", "h100-sxm")
    assert status == 2
    assert "quantization_config.quant_method: got 'zip'" in err


def test_an_id_of_a_quantized_checkpoint_has_its_precision(capsys):
    document = evaluated(capsys, "openai/gpt-oss-120b")
    assert document["precision"]["expert_bits"]["value"] == 4.25
    assert evaluated(capsys, "gpt-oss-120b")["precision"]["expert_bits"]["value"] == 16


def test_python_gets_the_precision_with_the_checkpoint(folder):
    checkpoint = jc.load_checkpoint(str(folder))
    plan = checkpoint.plan(tp=8)
    assert plan.expert_bits == pytest.approx(BLOCK)
    assert (plan.tp, plan.wide_bits) == (8, 16)
    assert precision_of(checkpoint.plan(weight_bits=4.0), checkpoint.model).wide == 4
    with pytest.warns(UserWarning, match="the checkpoint is quantized"):
        model = jc.load_model(str(folder))
    assert float(jc.parameter_count(model)[0]) == float(jc.parameter_count(checkpoint.model)[0])


def test_a_size_on_disk_that_differs_is_said(capsys, folder):
    checkpoint = jc.load_checkpoint(str(folder))
    assert checkpoint.notes == ()
    expected = 8_002  # any: the note gives both sizes
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": expected}, "weight_map": {}})
    )
    (note,) = jc.load_checkpoint(str(folder)).notes
    assert "total" in note or "states" in note
    _, out, _ = run(capsys, "evaluate", "--model", str(folder), "--system", "h200-sxm", "--batch", "4")
    assert "Note: " in out


def test_the_size_on_disk_of_a_true_file_agrees(folder):
    c = EXPERTS
    d, v, heads, inner = (
        c["hidden_size"],
        c["vocab_size"],
        c["num_attention_heads"],
        c["moe_intermediate_size"],
    )
    qk, r = c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["kv_lora_rank"]
    attention = d * c["q_lora_rank"] + c["q_lora_rank"] * heads * qk + d * (r + c["qk_rope_head_dim"])
    attention += r * heads * (c["qk_nope_head_dim"] + c["v_head_dim"]) + heads * c["v_head_dim"] * d
    matrices = 4 * attention + 3 * d * c["intermediate_size"] + 3 * 33 * 3 * d * inner
    wide = 2 * v * d + 3 * 32 * d
    size = int(matrices * BLOCK / 8 + wide * 2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}}))
    assert jc.load_checkpoint(str(folder)).notes == ()


@pytest.mark.parametrize(
    ("name", "system", "plan", "gib"),
    [
        # Of 671 billion weights at 8 bits and 1.9 more for table and head at 16, a rank has an eighth; the compressions
        # of queries and latents, 61 x 7168 x (1536 + 576), and routers at 16 bits, 58 x 7168 x 256, are on every rank.
        (
            "deepseek-r1-fp8",
            "h200-sxm-x8",
            {"tp": 8},
            ((671.03e9 + 2 * 129280 * 7168) / 8 + 7 / 8 * (61 * 7168 * 2112 + 2 * 58 * 7168 * 256)) / GIB,
        ),
        # Experts in MXFP4, the rest in 16 bits (memory.csv, m046: 60.8 GiB by a plain count).
        ("gpt-oss-120b-mxfp4", "h100-sxm", {}, 60.77),
        # The same under Marlin's kernels, which pad 2,880 to 2,944 and 3,072: 65.97 GiB measured (m046).
        (
            "gpt-oss-120b-mxfp4",
            "h100-sxm",
            {"expert_width_multiple": 128, "expert_input_multiple": 256},
            65.9651,
        ),
    ],
)
def test_weights_of_released_checkpoints(name, system, plan, gib):
    checkpoint = jc.load_checkpoint(str(released(name)))
    traffic = jc.Traffic(prompt=128, output=8, batch=1)
    memory = jc.evaluate(jc.load_system(system), checkpoint.model, traffic, checkpoint.plan(**plan)).memory
    assert float(memory.weights + memory.experts) / GIB == pytest.approx(gib, rel=0.003)


def test_eight_bit_matmuls_with_sixteen_bit_messages():
    """W8A8: prefill runs at the 8-bit rate, and all-reduces and norms stay as they are."""
    system, model = jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-70b")
    traffic = jc.Traffic(prompt=8192, output=16, batch=8)

    def step(**bits):
        return jc.evaluate(system, model, traffic, jc.Plan(tp=8, weight_bits=8, wide_bits=16, **bits)).prefill

    weight_only, both, all_narrow = step(), step(matmul_bits=8), step(matmul_bits=8, message_bits=8)
    rows = {
        name: tuple(float(s.rows[s.names.index(name)].seconds) for s in (weight_only, both, all_narrow))
        for name in ("feed_forward", "attention_qkv", "output_head", "norms", "tensor_all_reduce")
    }
    assert rows["feed_forward"][1] == pytest.approx(rows["feed_forward"][0] / 2, rel=0.01)
    assert rows["attention_qkv"][1] == pytest.approx(rows["attention_qkv"][0] / 2, rel=0.01)
    for name in ("output_head", "norms", "tensor_all_reduce"):
        assert rows[name][1] == rows[name][0]
    assert rows["tensor_all_reduce"][2] < 0.6 * rows["tensor_all_reduce"][1]


@pytest.mark.parametrize(
    ("traffic", "plan", "valid"),
    [
        ({"prefix_hit": 1.0}, {"tp": 8}, True),
        ({"prompt": 0}, {"tp": 8}, True),
        ({"output": 0}, {"tp": 8}, True),
        ({"prompt": 0, "output": 0}, {"tp": 8}, True),
        ({}, {"tp": 0}, False),
        ({}, {"tp": 8, "pp": 0, "dp": 0, "cp": 0, "ep": 0}, False),
        ({"batch": 0}, {"tp": 8}, False),
        ({}, {"tp": 6}, False),
    ],
)
def test_requests_and_plans_at_the_edge_are_finite_and_flagged(traffic, plan, valid):
    traffic = jc.Traffic(**{"prompt": 2048, "output": 512, "batch": 32, **traffic})
    report = jc.evaluate(
        jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-70b"), traffic, jc.Plan(**plan)
    )
    assert all(math.isfinite(float(value)) for _, _, value in jc.rows(report))
    assert float(report.margins.plan) == (1 if valid else -1)


def test_requests_without_output_cost_by_the_prompt():
    system, model, plan = jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-70b"), jc.Plan(tp=8)
    report = jc.evaluate(system, model, jc.Traffic(prompt=2048, output=0, batch=32), plan)
    assert float(report.usd_per_output_mtok) == 0
    assert float(report.usd_per_mtok) == pytest.approx(float(report.usd_per_input_mtok))
    # The chips of a batch for the time of its prefill, over its prompt tokens.
    long = jc.evaluate(system, model, jc.Traffic(prompt=2048, output=1, batch=32), plan)
    assert float(report.usd_per_query) == pytest.approx(float(long.usd_per_query), rel=1e-5)


def test_a_file_with_infinity_loads():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = jc.load_model(str(released("nemotron-h-56b")))
    assert float(jc.parameter_count(model)[0]) == pytest.approx(56_324_350_464, rel=1e-3)
