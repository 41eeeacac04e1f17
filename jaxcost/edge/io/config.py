"""Read YAML and JSON files into dictionaries; a broken file raises an error of one line."""

import functools
import json
import math
import re
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from jaxcost.edge.io.errors import InputError

__all__ = ["read_json", "read_yaml"]

_MAX_BYTES = 4 << 20


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a mapping in the core schema of YAML 1.2.

    Raises:
        InputError: the file is missing, not text, empty or broken, has a key twice, or is not a mapping.
    """
    import yaml

    text = _read_text(Path(path), "a YAML file")
    try:
        data = yaml.load(text, _core_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context or "").split())
        raise InputError(f"valid YAML ({problem})", file=path, path=where) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"valid YAML ({type(error).__name__})", file=path) from None
    return _check_mapping(data, path)


# Plain scalars of the core schema (YAML 1.2.2, 10.3.2) by their tag and the characters that they may begin with.
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)


@functools.cache
def _core_loader() -> Any:
    """Make the loader: libyaml's parser, which takes a twentieth of the time of one in Python, where it is built."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class CoreLoader(base):
        """A loader of the core schema that refuses a key that stands twice."""

        yaml_implicit_resolvers: ClassVar[
            dict[str, Any]
        ] = {}  # PyYAML's own are of YAML 1.1: `on` is true, 010 is 8

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        problem = f'found duplicate key "{key.value}"'
                        raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

        def construct_yaml_int(self, node: Any) -> int:
            digits = self.construct_scalar(node)
            return int(digits, 0 if digits.startswith(("0o", "0x")) else 10)

    for tag, pattern, first in _SCALARS:
        CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first)
    CoreLoader.add_constructor("tag:yaml.org,2002:int", CoreLoader.construct_yaml_int)
    return CoreLoader


def read_json(
    path: Path | str,
    expected: str = "a Hugging Face config.json",
    *,
    finite: bool = True,
    max_bytes: int = _MAX_BYTES,
) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        expected: noun phrase for the file in errors.
        finite: whether to refuse numbers that are not finite. Python's json module, and so Hugging Face's libraries,
            write these as Infinity, -Infinity and NaN.
        max_bytes: the largest file that is read, in bytes.

    Raises:
        InputError: the file is missing, too large, not text, empty or broken, has a key twice, or is not an object.
    """
    text = _read_text(Path(path), expected, max_bytes)
    refuse = {
        "parse_constant": lambda name: _refuse(name, path),
        "parse_float": lambda digits: _finite(digits, path),
    }
    try:
        data = json.loads(text, object_pairs_hook=_unique_keys(path), **(refuse if finite else {}))
    except json.JSONDecodeError as error:
        raise InputError(f"valid JSON ({error.msg})", file=path, path=f"line {error.lineno}") from None
    except InputError:
        raise
    except ValueError:
        raise InputError("valid JSON (a number has too many digits)", file=path) from None
    except RecursionError:
        raise InputError("valid JSON (nested too deeply)", file=path) from None
    return _check_mapping(data, path)


def _refuse(name: str, path: object) -> NoReturn:
    raise InputError("finite numbers", file=path, given=name)


def _finite(digits: str, path: object) -> float:
    return float(digits) if math.isfinite(float(digits)) else _refuse(digits, path)


def _unique_keys(path: object) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in pairs:
            if key in mapping:
                raise InputError("every key once", file=path, path=key)
            mapping[key] = value
        return mapping

    return build


def _read_text(path: Path, expected: str, max_bytes: int = _MAX_BYTES) -> str:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name too long
        raise InputError(f"{expected} that can be read ({error.strerror})", file=str(path)[:200]) from None
    if is_folder:
        raise InputError(f"{expected}, not a folder", file=path)
    if not exists:
        raise InputError(f"{expected} that exists", file=path)
    if path.suffix in {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".npz"}:
        raise InputError(f"{expected}; this file has weights; the config is another file", file=path)
    try:
        if path.stat().st_size > max_bytes:
            raise InputError(f"{expected} of at most {max_bytes >> 20} MiB", file=path)
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{expected} in UTF-8 text", file=path) from None
    except OSError as error:
        raise InputError(f"{expected} that can be read ({error.strerror})", file=path) from None
    if "\0" in text:
        raise InputError(f"{expected} in text, not binary", file=path)
    if not text.strip():
        raise InputError(f"{expected} that is not empty", file=path)
    return text


def _check_mapping(data: object, path: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError("a mapping of names to values at the top", file=path, given=type(data).__name__)
    for key in data:
        if not isinstance(key, str):
            raise InputError("names as keys", file=path, given=repr(key))
    return data
