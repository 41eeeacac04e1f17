"""Where --model finds a checkpoint: files, folders, the local Hugging Face cache, downloads and the catalogue."""

import dataclasses
import json
import re
import sys
import types
import warnings
from pathlib import Path

import jax
import pytest

import jaxcost as jc
from jaxcost.edge.catalog import loaders as catalog, parts
from jaxcost.edge.commands.cli import main
from jaxcost.edge.hf.source import CheckpointFiles, find_checkpoint, is_hub_id, size_difference
from jaxcost.edge.io.config import read_json
from jaxcost.edge.io.errors import InputError

DATA = Path(jc.__file__).parents[1].parent / "shared" / "data" / "configs"
MODELS = catalog.configs_root() / "models"
LLAMA = parts.read_part(MODELS / "llama-3.1-8b.yaml")["config"]
MIXTRAL = parts.read_part(MODELS / "mixtral-8x7b.yaml")["config"]
ID = "acme/Llama-9B-Instruct"
PARAMS = {
    "dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
    "norm_eps": 1e-5, "vocab_size": 32000,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Set an empty Hugging Face cache."""
    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_snapshot(hub, name=ID, commit="abc", config=LLAMA, main_revision=True):
    """Write a config as huggingface_hub does: a link in a snapshot to a blob."""
    repository = hub / f"models--{name.replace('/', '--')}"
    blob = write(repository / "blobs" / commit, config)
    link = repository / "snapshots" / commit / "config.json"
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("../..") / "blobs" / blob.name)
    if main_revision:
        write(repository / "refs" / "main", commit)
    return link


def refused(call, *arguments, shows=(), **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text and "expected" in text
    for part in shows:
        assert part in text, text
    return text


def same(a, b):
    return jax.tree.leaves(a) == jax.tree.leaves(b)


# Files and folders


def test_folder_with_all_files(tmp_path):
    path = write(tmp_path / "m" / "config.json", LLAMA)
    write(tmp_path / "m" / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    index = {"metadata": {"total_size": 16060522496}, "weight_map": {"lm_head.weight": "1.safetensors"}}
    write(tmp_path / "m" / "model.safetensors.index.json", index)
    wanted = CheckpointFiles(LLAMA, str(path), {"quantization": {"quant_algo": "FP8"}}, 16060522496)
    assert find_checkpoint(str(tmp_path / "m")) == wanted
    assert find_checkpoint(str(path)) == wanted
    with pytest.warns(UserWarning, match="quantized"):
        assert same(jc.load_model(str(tmp_path / "m")), jc.load_model("llama-3.1-8b"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        wanted.total_size = 1


def test_files_of_a_config_of_another_name_are_not_read(tmp_path):
    write(tmp_path / "hf_quant_config.json", {"quantization": {}})
    path = write(tmp_path / "llama.json", LLAMA)
    assert find_checkpoint(str(path)) == CheckpointFiles(LLAMA, str(path))


def test_yaml_with_a_config(tmp_path):
    path = MODELS / "llama-3.1-8b.yaml"
    assert find_checkpoint(str(path)) == CheckpointFiles(LLAMA, str(path))
    assert same(jc.load_model(str(path)), jc.load_model("llama-3.1-8b"))
    own = write(tmp_path / "own.yaml", path.read_text().split("config:\n")[1].replace("\n  ", "\n").strip())
    assert same(jc.load_model(str(own)), jc.load_model("llama-3.1-8b"))


@pytest.mark.parametrize("index", [{}, {"metadata": {}}, {"metadata": None}, {"weight_map": {}}])
def test_an_index_need_not_state_the_size(tmp_path, index):
    write(tmp_path / "config.json", LLAMA)
    write(tmp_path / "model.safetensors.index.json", index)
    assert find_checkpoint(str(tmp_path)).total_size is None


def test_size_written_as_a_float(tmp_path):
    write(tmp_path / "config.json", LLAMA)
    write(tmp_path / "model.safetensors.index.json", '{"metadata": {"total_size": 1.6060522496e10}}')
    assert find_checkpoint(str(tmp_path)).total_size == 16060522496


def test_index_of_many_tensors(tmp_path):
    """An index may be larger than other files."""
    write(tmp_path / "config.json", LLAMA)
    names = {
        f"model.layers.{i}.mlp.experts.gate_proj.weight": "model-00001.safetensors" for i in range(70_000)
    }
    path = tmp_path / "model.safetensors.index.json"
    write(path, {"metadata": {"total_size": 5}, "weight_map": names})
    assert path.stat().st_size > 4 << 20
    assert find_checkpoint(str(tmp_path)).total_size == 5


@pytest.mark.parametrize("size", ["5", -5, True, [5]])
def test_size_that_is_none(tmp_path, size):
    write(tmp_path / "config.json", LLAMA)
    write(tmp_path / "model.safetensors.index.json", {"metadata": {"total_size": size}})
    refused(find_checkpoint, str(tmp_path), shows=("index.json: metadata.total_size", "bytes"))


BROKEN = {
    "empty": b"",
    "white": b" \n",
    "cut": b'{"metadata": {"total_size": 5}, "wei',
    "list": b"[1]",
    "number": b"3",
    "null": b"null",
    "binary": b"\0\1\2",
    "latin": b'{"a": "\xff\xfe"}',
    "twice": b'{"a": 1, "a": 2}',
    "digits": b'{"a": ' + b"1" * 5000 + b"}",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize(
    "name", ["config.json", "hf_quant_config.json", "model.safetensors.index.json", "params.json"]
)
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_file_of_a_folder(tmp_path, name, content):
    if name != "params.json":
        write(tmp_path / "config.json", LLAMA)
    write(tmp_path / name, content)
    text = refused(jc.load_model, str(tmp_path))
    assert text.startswith(f"{tmp_path / name}: ")


def test_folder_without_a_config(tmp_path):
    write(tmp_path / "m" / "tokenizer.json", {})
    refused(jc.load_model, str(tmp_path / "m"), shows=(str(tmp_path / "m"), "config.json", "params.json"))


def test_missing_file():
    refused(jc.load_model, "/no/config.json", shows=("/no/config.json: ", "exists"))
    refused(jc.load_model, "no/config.json", shows=("no/config.json: ", "exists"))
    refused(jc.load_model, "a/b/c", shows=("a/b/c: ", "exists"))


# Numbers that are not finite


def test_infinity_in_a_field_that_no_reader_uses(tmp_path):
    config = {**LLAMA, "time_step_limit": [0.0, float("inf")], "a": float("-inf"), "b": float("nan")}
    path = write(tmp_path / "config.json", config)
    assert "Infinity" in path.read_text() and "NaN" in path.read_text()
    assert same(jc.load_model(str(path)), jc.load_model("llama-3.1-8b"))
    refused(read_json, path, shows=("finite",))


@pytest.mark.parametrize("literal", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_infinity_in_a_size(tmp_path, literal):
    text = json.dumps({**LLAMA, "hidden_size": 0}).replace('"hidden_size": 0', f'"hidden_size": {literal}')
    path = write(tmp_path / "config.json", text)
    refused(jc.load_model, str(path), shows=("config.json: hidden_size: got",))


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real config.json files is absent")
def test_nemotron_h():
    assert same(jc.load_model(str(DATA / "nemotron-h-56b.json")), jc.load_model("nemotron-h-56b"))


# params.json


def test_mistral_params(tmp_path):
    write(tmp_path / "params.json", {**PARAMS, "sliding_window": 4096})
    assert same(jc.load_model(str(tmp_path)), jc.load_model("mistral-7b"))
    write(tmp_path / "config.json", LLAMA)
    assert same(jc.load_model(str(tmp_path)), jc.load_model("llama-3.1-8b")), "config.json comes first"
    assert same(jc.load_model(str(tmp_path / "params.json")), jc.load_model("mistral-7b"))


def test_mixtral_params(tmp_path):
    write(tmp_path / "params.json", {**PARAMS, "moe": {"num_experts_per_tok": 2, "num_experts": 8}})
    assert same(jc.load_model(str(tmp_path)), jc.load_model("mixtral-8x7b"))


def test_params_without_a_window(tmp_path):
    write(tmp_path / "params.json", PARAMS)
    model = jc.load_model(str(tmp_path))
    assert (model.attention.layers, model.window_attention.layers) == (32, 0)


def test_params_with_windows_by_layer(tmp_path):
    write(tmp_path / "params.json", {**PARAMS, "sliding_window": [None, 1024, 1024, 1024]})
    model = jc.load_model(str(tmp_path))
    near = model.window_attention
    assert (model.attention.layers, near.layers, near.window) == (8, 24, 1024)


def test_params_with_tied_embeddings(tmp_path):
    write(
        tmp_path / "params.json",
        {**PARAMS, "tied_embeddings": True, "vision_encoder": None, "use_biases": False},
    )
    assert jc.load_model(str(tmp_path)).tied == 1


@pytest.mark.parametrize(
    ("quantization", "wanted"),
    [
        (
            {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"},
            {"quant_method": "fp8", "activation_scheme": "static"},
        ),
        (
            {"qformat_weight": "fp8_e4m3", "qscheme_act": "NO_SCALES"},
            {"quant_method": "fp8", "activation_scheme": "dynamic"},
        ),
        (
            {"quant_method": "compressed_tensors", "config_groups": {}},
            {"quant_method": "compressed-tensors", "config_groups": {}},
        ),
        (None, None),
        ({}, None),
    ],
)
def test_params_with_quantization(tmp_path, quantization, wanted):
    write(tmp_path / "params.json", {**PARAMS, "quantization": quantization})
    assert find_checkpoint(str(tmp_path)).config.get("quantization_config") == wanted


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"dim": None}, "dim", "missing"),
        ({"hidden_dim": "4"}, "hidden_dim", "got '4'"),
        ({"n_layers": True}, "n_layers", "got True"),
        ({"n_heads": 0}, "n_heads", "got 0"),
        ({"ffn_dim_multiplier": 1.3}, "ffn_dim_multiplier", "Mistral"),
        ({"vision_encoder": {"hidden_size": 1024}}, "vision_encoder", "text model"),
        ({"q_lora_rank": 1536}, "q_lora_rank", "text model"),
        ({"slidingwindow": 1024}, "slidingwindow", "'sliding_window'"),
        ({"model_type": "mamba"}, "model_type", "'transformer'"),
        ({"moe": [8]}, "moe", "mapping"),
        ({"moe": {"num_experts": 8}}, "moe.num_experts_per_tok", "missing"),
        ({"moe": {"num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1}}, "moe.num_shared_experts", "0"),
        ({"moe": {"num_experts": 8, "num_experts_per_tok": 2, "expert_hidden_dim": 4096}}, "moe.expert_hidden_dim", ""),
        ({"sliding_window": [1024, None, None]}, "sliding_window", "divides the 32 layers"),
        ({"sliding_window": [1024, 2048]}, "sliding_window", "one size"),
        ({"sliding_window": []}, "sliding_window", "one size"),
        ({"sliding_window": [[1], [2]]}, "sliding_window", "one size"),
        ({"sliding_window": ["x", None]}, "sliding_window", "got 'x'"),
        ({"causal": False}, "causal", "True"),
        ({"sliding_window": "x"}, "sliding_window", "got 'x'"),
        ({"quantization": "fp8"}, "quantization", "mapping"),
        ({"quantization": {"qformat_weight": "int4"}}, "quantization.qformat_weight", "got 'int4'"),
        ({"quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "X"}}, "quantization.qscheme_act", "TENSOR"),
    ],
)  # fmt: skip
def test_params_that_cannot_be_expressed(tmp_path, changes, field, words):
    write(tmp_path / "params.json", {**PARAMS, **changes})
    text = refused(jc.load_model, str(tmp_path), shows=(words,))
    assert text.startswith(f"{tmp_path / 'params.json'}: {field}: ")


# Hugging Face ids


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        (ID, True),
        ("Qwen/Qwen3-0.6B", True),
        ("01-ai/Yi-34B", True),
        ("llama-3.1-8b", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("./a", False),
        ("../a", False),
        ("~/a", False),
        ("a/", False),
        ("a/config.json", False),
        ("a/model.safetensors", False),
        ("a b/c", False),
        ("ä/c", False),
        ("a" * 200 + "/b", False),
    ],
)
def test_form_of_an_id(name, is_id):
    assert is_hub_id(name) is is_id


VARIABLES = [
    {"HF_HUB_CACHE": "{}", "HF_HOME": "/no"},
    {"HUGGINGFACE_HUB_CACHE": "{}"},
    {"HF_HOME": "{}/.."},
    {"HF_HOME": "", "XDG_CACHE_HOME": "{}/../x"},
    {"HF_HOME": "$WHERE/.."},
    {},
]


@pytest.mark.parametrize("variables", VARIABLES, ids=str)
def test_cached_id(tmp_path, monkeypatch, variables):
    hub = tmp_path / "x" / "huggingface" / "hub" if "XDG_CACHE_HOME" in variables else tmp_path / "hub"
    if not variables:
        hub = tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir(exist_ok=True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path / "hub"))
    write_snapshot(hub)
    assert same(jc.load_model(ID), jc.load_model("llama-3.1-8b"))


def test_cached_id_has_the_files_of_its_snapshot(cache):
    link = write_snapshot(cache)
    write(link.with_name("hf_quant_config.json"), {"quantization": {}})
    write(link.with_name("model.safetensors.index.json"), {"metadata": {"total_size": 7}})
    assert find_checkpoint(ID) == CheckpointFiles(LLAMA, str(link), {"quantization": {}}, 7)


def test_revision_of_a_cached_id(cache):
    """The main revision is read, else the only one."""
    write_snapshot(cache, commit="old", config=MIXTRAL, main_revision=False)
    assert same(jc.load_model(ID), jc.load_model("mixtral-8x7b"))
    write_snapshot(cache, commit="new", main_revision=False)
    refused(jc.load_model, ID, shows=(ID, "one revision", "snapshots"))
    write(cache / f"models--{ID.replace('/', '--')}" / "refs" / "main", "new\n")
    assert same(jc.load_model(ID), jc.load_model("llama-3.1-8b"))


def test_broken_file_of_the_cache(cache):
    write_snapshot(cache, config='{"hidden')
    refused(jc.load_model, ID, shows=("snapshots/abc/config.json: ", "valid JSON"))


@pytest.mark.parametrize("fault", ["no cache", "blob gone", "no snapshot", "tokenizer only"])
def test_id_that_is_not_cached(cache, fault):
    if fault != "no cache":
        link = write_snapshot(cache)
        link.resolve().unlink()
        if fault != "blob gone":
            link.unlink()
        if fault == "tokenizer only":
            write(link.with_name("tokenizer.json"), {})
        if fault == "no snapshot":
            link.parent.rmdir()
    refused(jc.load_model, ID, shows=(ID, "not downloaded", "--download", str(cache)))


def test_id_near_one_of_the_catalogue():
    name = "meta-llama/Llama-3.1-70B-Instruc"
    refused(jc.load_model, name, shows=("not downloaded", "'meta-llama/Llama-3.1-70B-Instruct'"))


def test_order(tmp_path, monkeypatch, cache):
    """An existing path comes before the cache, which comes before the catalogue."""
    monkeypatch.chdir(tmp_path)
    name = "meta-llama/Llama-3.1-70B"
    assert same(jc.load_model(name), jc.load_model("llama-3.1-70b"))
    write_snapshot(cache, name, config=MIXTRAL)
    assert same(jc.load_model(name), jc.load_model("mixtral-8x7b"))
    write(tmp_path / name / "config.json", LLAMA)
    assert same(jc.load_model(name), jc.load_model("llama-3.1-8b"))
    write(tmp_path / "llama-3.1-70b" / "config.json", LLAMA)
    assert same(jc.load_model("llama-3.1-70b"), jc.load_model("llama-3.1-8b"))


def test_file_with_the_name_of_a_model(tmp_path, monkeypatch):
    """A name without a folder or a suffix is a path only where it is a folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "llama-3.1-8b", "results")
    assert jc.load_model("llama-3.1-8b").hidden == 4096


# Downloads


@pytest.fixture
def hub(cache, monkeypatch):
    """A huggingface_hub whose repository has the files of `hub.files`; `hub.fetched` lists the calls."""

    class EntryNotFoundError(Exception):
        pass

    class LocalEntryNotFoundError(EntryNotFoundError):
        pass

    def hf_hub_download(repo_id, filename):
        module.fetched.append(filename)
        if module.error is not None:
            raise module.error
        if filename not in module.files:
            raise EntryNotFoundError(filename)
        return str(write(cache / "snapshot" / filename, module.files[filename]))

    module = types.ModuleType("huggingface_hub")
    module.utils = types.ModuleType("huggingface_hub.utils")
    module.utils.EntryNotFoundError = EntryNotFoundError
    module.utils.LocalEntryNotFoundError = LocalEntryNotFoundError
    module.hf_hub_download, module.fetched, module.error = hf_hub_download, [], None
    module.files = {"config.json": LLAMA}
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", module.utils)
    return module


def test_download_fetches_configuration_files_only(hub):
    hub.files |= {"model.safetensors.index.json": {"metadata": {"total_size": 9}}, "model.safetensors": {}}
    hub.files["hf_quant_config.json"] = {"quantization": {}}
    files = find_checkpoint(ID, download=True)
    assert (files.config, files.hf_quant_config, files.total_size) == (LLAMA, {"quantization": {}}, 9)
    assert hub.fetched == ["config.json", "hf_quant_config.json", "model.safetensors.index.json"]
    with pytest.warns(UserWarning, match="quantized"):
        assert same(jc.load_model(ID, download=True), jc.load_model("llama-3.1-8b"))


def test_download_of_params(hub):
    hub.files = {"params.json": {**PARAMS, "sliding_window": 4096}}
    assert same(jc.load_model(ID, download=True), jc.load_model("mistral-7b"))
    assert "params.json" in hub.fetched


def test_nothing_is_downloaded_unasked(hub, cache):
    refused(jc.load_model, ID, shows=("not downloaded",))
    write_snapshot(cache)
    jc.load_model(ID, download=True)
    jc.load_model("meta-llama/Llama-3.1-70B", download=True)
    assert hub.fetched == []


def test_download_that_fails(hub):
    hub.error = hub.utils.LocalEntryNotFoundError("no connection\nand more")
    refused(
        jc.load_model, ID, download=True, shows=("--download", ID, "LocalEntryNotFoundError: no connection)")
    )
    hub.error = OSError("401 Client Error\n\nAccess is restricted")
    refused(jc.load_model, ID, download=True, shows=("--download", ID, "OSError: 401 Client Error"))
    hub.error = ValueError()
    refused(jc.load_model, ID, download=True, shows=("(ValueError)",))
    hub.error, hub.files = None, {}
    refused(jc.load_model, ID, download=True, shows=(ID, "config.json or params.json"))


def test_download_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(jc.load_model, ID, download=True, shows=("--download", ID, "jaxcost[hub]"))


def test_option(hub, capsys):
    argv = ["evaluate", "--model", ID, "--system", "h100-sxm", "--json"]
    assert main(argv) == 2
    assert "--download" in capsys.readouterr().err
    assert main([*argv, "--download"]) == 0
    assert main(["evaluate", "--model", "llama-3.1-8b", "--system", "h100-sxm", "--json"]) == 0


# Aliases


ALIASES = {path.stem: parts.read_part(path).get("aliases", []) for path in sorted(MODELS.glob("*.yaml"))}
PAPERS = {"gpt-3-175b", "opt-175b", "palm-540b"}  # not on Hugging Face


def test_every_model_on_hugging_face_has_aliases():
    assert {name for name, aliases in ALIASES.items() if not aliases} <= PAPERS
    for name in ALIASES.keys() - PAPERS:
        source_id = re.match(
            r"https://huggingface.co/([^/]+/[^/]+)/", parts.read_part(MODELS / f"{name}.yaml")["source"]
        )
        assert source_id is None or source_id[1] in ALIASES[name], name


def test_an_alias_names_one_model():
    names = [alias.lower() for aliases in ALIASES.values() for alias in aliases]
    assert len(names) == len(set(names))
    assert not {name.lower() for name in ALIASES} & set(names)
    others = ("gpt2-xl", "deepseek-r1-distill-qwen-14b")  # names of their own
    assert all(is_hub_id(alias) or alias in others for aliases in ALIASES.values() for alias in aliases)


@pytest.mark.parametrize("name", [n for n, aliases in ALIASES.items() if aliases])
def test_aliases_are_found_in_any_case(name):
    for alias in ALIASES[name]:
        for text in (alias, alias.lower(), alias.upper()):
            assert parts.find("models", text) == MODELS / f"{name}.yaml"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.1-70b"),
        ("meta-llama/Llama-3.1-70B", "llama-3.1-70b"),
        ("meta-llama/llama-3.1-8b-instruct", "llama-3.1-8b"),
        ("Qwen/Qwen3-32B", "qwen3-32b"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("google/gemma-3-27b-it", "gemma-3-27b"),
        ("gpt2-xl", "gpt-2-xl"),
        ("LLaMA-3.1-8B", "llama-3.1-8b"),
    ],
)
def test_model_of_an_alias(alias, name):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*the checkpoint is quantized")
        assert same(jc.load_model(alias), jc.load_model(name))
    assert catalog.title("models", alias) == catalog.title("models", name)


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real config.json files is absent")
@pytest.mark.parametrize(
    ("file", "alias"),
    [
        ("deepseek-r1-fp8", "deepseek-ai/DeepSeek-R1"),
        ("deepseek-v2-lite", "deepseek-ai/DeepSeek-V2-Lite"),
        ("gpt-oss-120b-mxfp4", "openai/gpt-oss-120b"),
        ("llama-3.1-70b-fp8-modelopt", "meta-llama/Llama-3.1-70B-Instruct"),
        ("llama-4-scout-fp8-dynamic", "meta-llama/Llama-4-Scout-17B-16E-Instruct"),
        ("minimax-m2.5-fp8", "MiniMaxAI/MiniMax-M2.5"),
        ("qwen3-8b-fp8", "Qwen/Qwen3-8B"),
        ("qwen3-next-80b-a3b", "Qwen/Qwen3-Next-80B-A3B-Instruct"),
    ],
)
def test_aliases_have_the_shape_of_released_files(file, alias):
    """Apart from precision, which the catalogue does not state."""
    named = find_checkpoint(str(DATA / f"{file}.json")).config
    listed = catalog.find_model(alias).config
    named, listed = (config.get("text_config", config) for config in (named, listed))
    shared = [field for field in listed if field in named and field not in ("architectures", "model_type")]
    assert {"hidden_size", "num_hidden_layers", "vocab_size"} <= set(shared)
    assert {field: listed[field] for field in shared} == {field: named[field] for field in shared}


def test_list_shows_aliases(capsys):
    assert main(["list", "models", "qwen3-32b"]) == 0
    assert "Also named Qwen/Qwen3-32B" in capsys.readouterr().out
    assert main(["list", "models", "qwen/qwen3-32b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["aliases"] == ["Qwen/Qwen3-32B"]


# Sizes


def test_size_difference():
    assert size_difference(16_060_522_496, 16_060_522_496) is None
    assert size_difference(1009, 1000) is None and size_difference(991, 1000) is None
    text = size_difference(8_030_000_000, 16_060_522_496)
    assert "8.03 GB" in text and "16.06 GB" in text and "-50.0%" in text
    assert "+1.1%" in size_difference(1011, 1000) and "-1.1%" in size_difference(989, 1000)
    assert "0 GB" in size_difference(5, 0)
