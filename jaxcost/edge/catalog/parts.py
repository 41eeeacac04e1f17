"""The files of configs/, or a user's own: found by name, read, checked, and their numbers turned into SI units."""

import functools
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jaxcost.edge.catalog import schema
from jaxcost.edge.catalog.kernel_entry import listed_entries
from jaxcost.edge.catalog.kernels import EfficiencyFile
from jaxcost.edge.catalog.reading import configs_root, shown
from jaxcost.edge.catalog.schema import Entry, quantity_of
from jaxcost.edge.io.config import read_yaml
from jaxcost.edge.io.errors import InputError, nearest
from jaxcost.edge.io.validation import validate

__all__ = [
    "GENERAL",
    "KINDS",
    "LONGEST_NAME",
    "aliases",
    "architecture_of",
    "architectures",
    "chip_keys",
    "chip_of_alias",
    "chip_of_system",
    "expanded",
    "find",
    "known",
    "libraries",
    "list_names",
    "load_part",
    "looks_like_path",
    "model_of_alias",
    "provenance",
    "read_part",
    "scope_of_library",
    "title",
]

KINDS: dict[str, type[BaseModel] | None] = {
    "models": None,
    "chips": schema.ChipFile,
    "memories": schema.MemoryFile,
    "near": schema.NearFile,
    "fabrics": schema.FabricFile,
    "systems": schema.SystemFile,
    "hosts": schema.HostFile,
    "silicon": schema.SiliconFile,
    "packages": schema.PackageFile,
    "efficiency": EfficiencyFile,
    "engines": schema.EngineFile,
    "prices": schema.PricesFile,
    "grids": schema.GridFile,
    "acceptance": schema.AcceptanceFile,
    "spaces": None,
    "studies": None,
}
GENERAL = "gpu"  # first word of the names of efficiency files for any chip
LONGEST_NAME = 200  # longer ones a file system may refuse
_ALIASES = re.compile(r"^aliases: *\[([^\]]*)\]", re.MULTILINE)
_ARCHITECTURE = re.compile(r"^architecture: *[\"']?([^\s\"'#]+)", re.MULTILINE)
_LIBRARY = re.compile(r"^library: *\S", re.MULTILINE)


def list_names(kind: str) -> list[str]:
    """List the names of one kind, such as "chips", in order."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError("one of " + ", ".join(KINDS), given=kind, suggestion=nearest(kind, KINDS))
    return sorted(p.stem for p in (configs_root() / kind).glob("*.yaml"))


@functools.lru_cache(maxsize=1024)
def _parsed(path: Path, modified: int) -> dict[str, Any]:
    return read_yaml(path)


def read_part(path: Path) -> dict[str, Any]:
    """Read a file once, and again when it has changed."""
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except (OSError, ValueError):  # read_yaml tells what is wrong with the path
        return read_yaml(path)


def find(kind: str, name: str) -> Path:
    """Return the file of a catalogue name or of a path a user gave."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a name among {kind}, or a path", given=name)
    folder = configs_root() / kind
    if kind == "models":
        if os.path.exists(own := expanded(name)) and (looks_like_path(name) or own.is_dir()):
            return own
        name = model_of_alias(name) or name  # some aliases, Hugging Face ids, look like paths
    if looks_like_path(name):
        return expanded(name)
    path = folder / f"{name}.yaml"
    if kind in ("chips", "engines") and len(name) <= LONGEST_NAME and not path.exists():
        path = folder / f"{_aliases(folder).get(name, name)}.yaml"
    if kind == "efficiency" and len(name) <= LONGEST_NAME and not path.exists():
        path = folder / f"{(_library_alias(name) or ('', name))[1]}.yaml"
    if len(name) > LONGEST_NAME or not path.exists():
        raise InputError(
            f"a name listed by `jaxcost list {kind}`, or a path",
            given=name,
            suggestion=nearest(name, known(kind)),
        )
    return path


def known(kind: str) -> list[str]:
    """List the names of one kind and their aliases."""
    own = list_names(kind)
    if kind == "efficiency":
        return own + [f"{scope}-{library}" for library in libraries() for scope in _scopes()]
    return own + list(_aliases(configs_root() / kind)) if kind in ("chips", "engines", "models") else own


def expanded(name: str) -> Path:
    """Return the path a user gave, its home folder put in."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise InputError("a path whose home folder exists", given=name) from None


def looks_like_path(name: str) -> bool:
    """Tell whether a name is meant as a path."""
    return "/" in name or "\\" in name or bool(re.search(r"\.(ya?ml|json|safetensors|bin|gguf|txt)$", name))


def chip_of_alias(name: str) -> str:
    """Return the name of the chip that has this other name; a name that is no alias as it is."""
    return _aliases(configs_root() / "chips").get(name, name)


def chip_of_system(name: str) -> str:
    """Return the catalogue name, or the path, of the chip of a system."""
    if looks_like_path(name) or name in list_names("systems"):
        return chip_of_alias(load_part("systems", name)[0].chip)
    return chip_of_alias(re.sub(r"-x\d+$", "", name))


def architecture_of(chip: str) -> str:
    """Return the architecture of a chip by its catalogue name, alias or path, "" where its file names none."""
    return str(read_part(find("chips", chip)).get("architecture") or "")


def architectures() -> list[str]:
    """List the architectures of the chips of the catalogue, in order."""
    return sorted(set(_architectures(configs_root() / "chips")))


def chip_keys(chip: str) -> tuple[str, ...]:
    """Return the keys by which a file holds numbers of a chip, the nearest first: the chip, and its architecture.

    The key of a chip of a user's own file is the stem of that file.
    """
    return tuple(key for key in (find("chips", chip).stem, architecture_of(chip)) if key)


def libraries() -> list[str]:
    """List the calibrated files of the catalogue that are of a library, not of one chip or of `GENERAL` chips."""
    scopes = tuple(f"{scope}-" for scope in _scopes())
    return [name for name in _calibrated(configs_root() / "efficiency") if not name.startswith(scopes)]


def scope_of_library(name: str) -> tuple[str, ...] | None:
    """Return the keys of the chip that an alias such as `h100-sxm-vllm` or `hopper-vllm` names.

    None for `gpu-vllm`, for the name of a file and for a path, whose numbers are those of the system's chip.
    """
    folder = configs_root() / "efficiency"
    if looks_like_path(name) or (folder / f"{name}.yaml").exists():
        return None
    alias = _library_alias(name)
    if alias is None or alias[0] == GENERAL:
        return None
    scope = alias[0]
    return chip_keys(scope) if scope in known("chips") else (scope,)


def _library_alias(name: str) -> tuple[str, str] | None:
    """Return the scope and the library of `<chip, architecture or gpu>-<library>`, None for another name."""
    for library in libraries():
        scope = name.removesuffix(f"-{library}")
        if scope != name and scope in _scopes():
            return scope, library
    return None


def _scopes() -> list[str]:
    return [GENERAL, *known("chips"), *architectures()]


@functools.cache
def _architectures(folder: Path) -> list[str]:
    texts = (p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.yaml")))
    return [found[1] for found in map(_ARCHITECTURE.search, texts) if found]


def _calibrated(folder: Path) -> list[str]:
    """List the efficiency files that name a library, without parsing them."""
    return [p.stem for p in sorted(folder.glob("*.yaml")) if _names_library(p, p.stat().st_mtime_ns)]


@functools.lru_cache(maxsize=256)
def _names_library(path: Path, modified: int) -> bool:
    with path.open(encoding="utf-8") as file:
        return bool(_LIBRARY.search(file.read(4096)))


def model_of_alias(name: str) -> str | None:
    """Return the model of the catalogue that has this name or Hugging Face id in any case, None without one."""
    folder = configs_root() / "models"
    if len(name) > LONGEST_NAME:
        return None
    if not looks_like_path(name) and (folder / f"{name}.yaml").exists():
        return name  # without reading the aliases of all files
    return _names_in_lower_case(folder).get(name.lower())


@functools.cache
def _names_in_lower_case(folder: Path) -> dict[str, str]:
    names = {p.stem: p.stem for p in folder.glob("*.yaml")} | _aliases(folder)
    return {name.lower(): stem for name, stem in names.items()}


@functools.cache
def _aliases(folder: Path) -> dict[str, str]:
    """Map the other names of parts to the names of their files, without parsing the rest of each file."""
    lists = ((p.stem, _ALIASES.search(p.read_text(encoding="utf-8"))) for p in sorted(folder.glob("*.yaml")))
    return {alias: name for name, found in lists if found for alias in re.findall(r"[^\s,]+", found[1])}


def load_part(kind: str, name: str) -> tuple[Any, Path]:
    """Read and check the file of a name or path; return it with where it stands."""
    path = find(kind, name)
    file_type = KINDS[kind]
    assert file_type is not None
    return validate(file_type, read_part(path), file=shown(path)), path


def aliases(kind: str, name: str) -> list[str]:
    """List the other names of a part."""
    return [str(alias) for alias in read_part(find(kind, name)).get("aliases") or ()]


def title(kind: str, name: str) -> str:
    """Return the full name of a part."""
    return str(read_part(find(kind, name)).get("title", name))


def provenance(kind: str, name: str) -> list[tuple[str, Any, str, str, str, str, Any, Any]]:
    """List (path, value, unit, source, date, kind, low, high) of every number of a part.

    A library's numbers on chips and architectures follow its own; `h100-sxm-vllm` has those of that chip alone.
    """
    if kind in {"models", "spaces", "studies"}:
        data = read_part(find(kind, name))
        source, date, basis = (str(data.get(key, "")) for key in ("source", "date", "kind"))
        config = data.get("config", {})
        return [(f"config.{k}", v, "1", source, date, basis, None, None) for k, v in config.items()]
    part, _ = load_part(kind, name)
    return list(_entries(part, "", scope_of_library(name) if kind == "efficiency" else None))


def _entries(part: BaseModel, prefix: str, keys: tuple[str, ...] | None = None) -> Any:
    for field in type(part).model_fields:
        value = getattr(part, field)
        if isinstance(value, Entry):
            quantity = quantity_of(type(part), field)
            unit = "" if quantity is None else quantity.unit
            for path, entry in listed_entries(value, f"{prefix}{field}", keys):
                yield (
                    path,
                    entry.value,
                    unit,
                    entry.source,
                    str(entry.date),
                    entry.kind,
                    entry.low,
                    entry.high,
                )
        elif isinstance(value, BaseModel):
            yield from _entries(value, f"{prefix}{field}.", keys)
        elif isinstance(value, dict):
            for name, section in value.items():
                if isinstance(section, BaseModel):
                    yield from _entries(section, f"{prefix}{field}.{name}.")
        elif field == "by_memory":
            for limits in value:
                yield from _entries(limits, f"{prefix}from {limits.at_least}: ")
