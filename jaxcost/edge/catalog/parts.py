"""The files of configs/, or a user's own: found by name, read, checked, and their numbers turned into SI units."""

import functools
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jaxcost.edge.catalog import schema
from jaxcost.edge.catalog.kernels import EfficiencyFile
from jaxcost.edge.catalog.reading import configs_root, shown
from jaxcost.edge.catalog.schema import Entry, quantity_of
from jaxcost.edge.io.config import read_yaml
from jaxcost.edge.io.errors import InputError, nearest
from jaxcost.edge.io.validation import validate

__all__ = [
    "KINDS",
    "LONGEST_NAME",
    "aliases",
    "chip_of_alias",
    "expanded",
    "find",
    "known",
    "list_names",
    "load_part",
    "looks_like_path",
    "model_of_alias",
    "provenance",
    "read_part",
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
LONGEST_NAME = 200  # longer ones a file system may refuse
_ALIASES = re.compile(r"^aliases: *\[([^\]]*)\]", re.MULTILINE)


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
    """List (path, value, unit, source, date, kind, low, high) of every number of a part."""
    if kind in {"models", "spaces", "studies"}:
        data = read_part(find(kind, name))
        source, date, basis = (str(data.get(key, "")) for key in ("source", "date", "kind"))
        config = data.get("config", {})
        return [(f"config.{k}", v, "1", source, date, basis, None, None) for k, v in config.items()]
    part, _ = load_part(kind, name)
    return list(_entries(part, ""))


def _entries(part: BaseModel, prefix: str) -> Any:
    for field in type(part).model_fields:
        value = getattr(part, field)
        if isinstance(value, Entry):
            quantity = quantity_of(type(part), field)
            unit = "" if quantity is None else quantity.unit
            yield (
                f"{prefix}{field}",
                value.value,
                unit,
                value.source,
                str(value.date),
                value.kind,
                value.low,
                value.high,
            )
        elif isinstance(value, BaseModel):
            yield from _entries(value, f"{prefix}{field}.")
        elif isinstance(value, dict):
            for name, section in value.items():
                if isinstance(section, BaseModel):
                    yield from _entries(section, f"{prefix}{field}.{name}.")
        elif field == "by_memory":
            for limits in value:
                yield from _entries(limits, f"{prefix}from {limits.at_least}: ")
