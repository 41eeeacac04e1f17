"""The configuration files of a checkpoint: found in a folder, in the local Hugging Face cache or by a download."""

import importlib
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxcost.edge.io.config import read_json, read_yaml
from jaxcost.edge.io.errors import InputError, nearest

__all__ = ["CheckpointFiles", "find_cached", "find_checkpoint", "is_hub_id", "size_difference"]

_CONFIG, _PARAMS = "config.json", "params.json"
_QUANTIZATION, _INDEX = "hf_quant_config.json", "model.safetensors.index.json"
_MAX_INDEX_BYTES = 128 << 20  # an index has a line of about 100 bytes for each tensor, 10 MB for DeepSeek-V3
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_FILE_SUFFIX = re.compile(r"\.(ya?ml|json|safetensors|bin|gguf|pth?|npz|txt)$")
_SIZE_TOLERANCE = 0.01


@dataclass(frozen=True)
class CheckpointFiles:
    """The parsed configuration files of one checkpoint.

    Attributes:
        config: fields of `config.json`. The fields of a `params.json` have the names of a `config.json`.
        file: path of the file of `config`, for errors.
        hf_quant_config: fields of `hf_quant_config.json`, None without that file.
        total_size: size of all tensors by `model.safetensors.index.json`, in bytes, None where it is not stated.
    """

    config: Mapping[str, Any]
    file: str
    hf_quant_config: Mapping[str, Any] | None = None
    total_size: int | None = None


def find_checkpoint(name: str, *, download: bool = False, known: Iterable[str] = ()) -> CheckpointFiles:
    """Read the configuration files of a checkpoint.

    Args:
        name: path of a config.json, of a YAML file with a `config` mapping, or of a folder with a config.json or a
            params.json; or a Hugging Face id `org/name`. An existing path comes before an id.
        download: whether to fetch the configuration files of an id that is not in the local cache. Weights are never
            fetched.
        known: names that an error may suggest.

    Raises:
        InputError: there is no such file or id, or a file cannot be read.
    """
    path = _expand(name)
    if os.path.isdir(path):
        return _read_folder(path)
    if os.path.exists(path) or not is_hub_id(name):
        return _read_file(path)
    folder = _cached_snapshot(name) or (_download(name) if download else None)
    if folder is None:
        raise InputError(
            "a path that exists, a name of `jaxcost list models`, or a Hugging Face id in the local cache "
            f"{_cache_folder()} (ids are not downloaded without --download, in Python download=True)",
            given=name,
            suggestion=nearest(name, known),
        )
    return _read_folder(folder)


def find_cached(name: str) -> CheckpointFiles | None:
    """Read the configuration files of a Hugging Face id in the local cache; None where it is not there."""
    folder = _cached_snapshot(name)
    return None if folder is None else _read_folder(folder)


def is_hub_id(name: str) -> bool:
    """Tell whether a name has the form `org/name` of a Hugging Face id."""
    return bool(_HUB_ID.fullmatch(name)) and not _FILE_SUFFIX.search(name)


def size_difference(total_size: int, expected_bytes: float) -> str | None:
    """Return a sentence where the size of a checkpoint differs by more than 1% from that of its parameters.

    Args:
        total_size: `CheckpointFiles.total_size`, in bytes.
        expected_bytes: bytes of the model's parameters at the precision they are stored in.

    Returns:
        The sentence, None where the sizes agree.
    """
    if abs(total_size - expected_bytes) <= _SIZE_TOLERANCE * expected_bytes:
        return None
    change = f"{total_size / expected_bytes - 1:+.1%}" if expected_bytes else "which differs"
    return (
        f"{_INDEX} states {total_size / 1e9:.4g} GB of tensors; the parameters of the model at their bits are "
        f"{expected_bytes / 1e9:.4g} GB ({change})."
    )


def _expand(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise InputError("a path whose home folder exists", given=name) from None


def _read_folder(folder: Path) -> CheckpointFiles:
    for name in (_CONFIG, _PARAMS):
        if os.path.exists(folder / name):
            return _read_file(folder / name)
    raise InputError(f"a folder with {_CONFIG}, or with the {_PARAMS} of a Mistral checkpoint", file=folder)


def _read_file(path: Path) -> CheckpointFiles:
    if path.suffix in {".yaml", ".yml"}:
        data = read_yaml(path)
    else:
        # Fields that no reader uses may hold Infinity, such as Nemotron's time_step_limit.
        data = read_json(path, finite=False)
    if path.name == _PARAMS:
        return CheckpointFiles(_rename_params(data, str(path)), str(path), total_size=_total_size(path))
    config = data["config"] if isinstance(data.get("config"), dict) else data
    if path.name != _CONFIG:  # files of other names may lie together, one for each checkpoint
        return CheckpointFiles(config, str(path))
    return CheckpointFiles(config, str(path), _quantization(path), _total_size(path))


def _quantization(config: Path) -> Mapping[str, Any] | None:
    path = config.with_name(_QUANTIZATION)
    return read_json(path, f"an {_QUANTIZATION}", finite=False) if os.path.exists(path) else None


def _total_size(config: Path) -> int | None:
    path = config.with_name(_INDEX)
    if not os.path.exists(path):
        return None
    index = read_json(path, f"a {_INDEX}", finite=False, max_bytes=_MAX_INDEX_BYTES)
    metadata = index.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < 1e18:
        raise InputError("a number of bytes", file=path, path="metadata.total_size", given=size)
    return int(size)  # some writers store it as 1.6e10


def _cache_folder() -> Path:
    """Return the cache of huggingface_hub, by its environment variables and their order."""
    variables = os.environ
    if folder := variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE"):
        return _expand(os.path.expandvars(folder))
    home = variables.get("HF_HOME")
    if not home:
        home = os.path.join(variables.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return _expand(os.path.expandvars(home)) / "hub"


def _cached_snapshot(name: str) -> Path | None:
    """Return the cached folder of the main revision of an id, None where it has no configuration."""
    repository = _cache_folder() / f"models--{name.replace('/', '--')}"
    snapshots = repository / "snapshots"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        folders = [snapshots / revision] if revision else []
    except (OSError, UnicodeDecodeError):  # fetched by a commit, or by another revision
        folders = sorted(snapshots.glob("*"))
    complete = [f for f in folders if any(os.path.exists(f / file) for file in (_CONFIG, _PARAMS))]
    if len(complete) > 1:
        expected = f"one revision, or a main one, in {snapshots}; a folder of it is a model too"
        raise InputError(expected, given=name)
    return complete[0] if complete else None


def _download(name: str) -> Path:
    """Fetch the configuration files of an id into the local cache and return their folder."""
    try:
        hub = importlib.import_module("huggingface_hub")
        utils = importlib.import_module("huggingface_hub.utils")
    except ImportError:
        expected = "huggingface_hub to be installed for downloads: pip install 'jaxcost[hub]'"
        raise InputError(expected, path="--download", given=name) from None

    def fetch(file: str) -> Path | None:
        try:
            return Path(hub.hf_hub_download(name, file))
        except utils.LocalEntryNotFoundError as error:  # no connection
            raise _failure(name, error) from None
        except utils.EntryNotFoundError:
            return None
        except Exception as error:  # of the network, its client and the hub: no common class
            raise _failure(name, error) from None

    config = fetch(_CONFIG) or fetch(_PARAMS)
    if config is None:
        raise InputError(f"a Hugging Face repository with {_CONFIG} or {_PARAMS}", given=name)
    fetch(_QUANTIZATION)
    fetch(_INDEX)
    return config.parent


def _failure(name: str, error: Exception) -> InputError:
    lines = str(error).strip().splitlines()
    text = textwrap.shorten(lines[0], 160, placeholder="...") if lines else ""
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return InputError(f"a Hugging Face id that can be downloaded ({reason})", path="--download", given=name)


# Fields of Mistral's params.json and their names in a config.json.
_REQUIRED_PARAMS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "head_dim": "head_dim",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
}
_OPTIONAL_PARAMS = {
    "tied_embeddings": "tie_word_embeddings",
    "activation": "hidden_act",
    "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "max_position_embeddings": "max_position_embeddings",
}
_EXPERT_PARAMS = {"num_experts": "num_local_experts", "num_experts_per_tok": "num_experts_per_tok"}
# Fields with one value in a model of the families mistral and mixtral, and fields that change no size.
_NEUTRAL_PARAMS = {
    "model_type": "transformer",
    "causal": True,
    "moe.route_every_n": 1,
    "moe.first_k_dense_replace": 0,
    "moe.num_shared_experts": 0,
}
_IGNORED_PARAMS = {
    "dtype", "llama_4_scaling", "max_batch_size", "max_seq_len", "moe.expert_model_parallel", "moe.expert_parallel",
    "moe.num_expert_groups", "moe.num_expert_groups_per_tok", "moe.routed_scale", "use_cache", "yarn",
}  # fmt: skip


def _rename_params(params: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the config.json of a Mistral `params.json`.

    Raises:
        InputError: a size is missing, or a field has no counterpart in the families mistral and mixtral.
    """
    moe = params.get("moe")
    if moe is not None and not isinstance(moe, Mapping):
        raise InputError("a mapping", file=file, path="moe", given=moe)
    renamed = {"moe." + field: name for field, name in _EXPERT_PARAMS.items()} if moe else {}
    required = _REQUIRED_PARAMS | renamed
    optional = _OPTIONAL_PARAMS.keys() | {"moe", "quantization", "sliding_window"}
    values = {**params, **{f"moe.{field}": value for field, value in (moe or {}).items()}}
    for field, value in values.items():
        if value is None or field in required or field in optional or field in _IGNORED_PARAMS:
            continue
        if field in _NEUTRAL_PARAMS and value != _NEUTRAL_PARAMS[field]:
            raise InputError(f"{_NEUTRAL_PARAMS[field]!r}", file=file, path=field, given=value)
        if field not in _NEUTRAL_PARAMS and value:
            near = nearest(field, [*required, *optional, *_NEUTRAL_PARAMS])
            expected = f"no such field in the {_PARAMS} of a text model of Mistral"
            raise InputError(expected, file=file, path=field, suggestion=near)
    config: dict[str, Any] = {"model_type": "mixtral" if moe else "mistral", "sliding_window": None}
    for field, name in required.items():
        value = values.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            missing = ", but the field is missing" if value is None else ""
            raise InputError(f"a whole number of at least 1{missing}", file=file, path=field, given=value)
        config[name] = value
    config |= {
        name: params[field] for field, name in _OPTIONAL_PARAMS.items() if params.get(field) is not None
    }
    config |= _window(params.get("sliding_window"), config["num_hidden_layers"], file)
    if params.get("quantization"):
        config["quantization_config"] = _quantization_config(params["quantization"], file)
    return config


def _window(window: Any, layers: int, file: str) -> dict[str, Any]:
    """Return the fields of a window of all layers, or of a list of windows that repeats over the layers."""
    if not isinstance(window, list):
        return {"sliding_window": window}
    sizes = [size for size in window if size is not None]
    if any(size != sizes[0] for size in sizes) or not window or layers % len(window):
        expected = f"null and one size in a list whose length divides the {layers} layers"
        raise InputError(expected, file=file, path="sliding_window", given=window)
    kinds = ["full_attention" if size is None else "sliding_attention" for size in window]
    return {"sliding_window": sizes[0] if sizes else None, "layer_types": kinds * (layers // len(window))}


def _quantization_config(quantization: Any, file: str) -> dict[str, Any]:
    """Return the `quantization_config` of a config.json for the `quantization` of a params.json."""
    if not isinstance(quantization, Mapping):
        raise InputError("a mapping", file=file, path="quantization", given=quantization)
    method = quantization.get("quant_method")
    if isinstance(method, str) and method.lower().replace("_", "-") == "compressed-tensors":
        return {**quantization, "quant_method": "compressed-tensors"}
    weights, inputs = quantization.get("qformat_weight"), quantization.get("qscheme_act")
    if weights != "fp8_e4m3":
        path = "quantization.qformat_weight"
        raise InputError("fp8_e4m3, or quant_method compressed-tensors", file=file, path=path, given=weights)
    if inputs not in (None, "TENSOR", "NO_SCALES"):
        raise InputError("TENSOR or NO_SCALES", file=file, path="quantization.qscheme_act", given=inputs)
    return {"quant_method": "fp8", "activation_scheme": "dynamic" if inputs == "NO_SCALES" else "static"}
