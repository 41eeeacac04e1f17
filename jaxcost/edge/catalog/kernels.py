"""The sections of calibrated kernels in the files of configs/efficiency: their schema, and the trees they become."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, Field, create_model, model_validator

from jaxcost.core.pytree import current_name, former_names, leaf_fields
from jaxcost.edge.catalog.reading import quantities
from jaxcost.edge.catalog.schema import Entry, Quantity, Titled, section
from jaxcost.edge.io.validation import StrictModel
from jaxcost.spec.chip import Efficiency
from jaxcost.spec.kernels import EngineOverheads, Kernels

__all__ = ["EfficiencyFile", "FitSection", "kernels_of"]

# A precision that was not measured takes the numbers of the nearest that was.
_NEAREST = {
    "bits_16": ("bits_8", "bits_4"),
    "bits_8": ("bits_16", "bits_4"),
    "bits_4": ("bits_8", "bits_16"),
}

# Keys that files may still have and that no longer mean anything, with the reason.
_RETIRED: dict[type, dict[str, str]] = {
    EngineOverheads: {"kv_share": "the memory policy of an engine is in configs/engines"},
}


def _nested(kernel: Any) -> dict[str, Any]:
    """Return the fields of a tree of kernels that are trees themselves, those included that are absent by default."""
    hints = get_type_hints(kernel)
    inner = {f.name: (hints[f.name], *get_args(hints[f.name])) for f in leaf_fields(kernel)}
    found = {
        name: [kind for kind in kinds if dataclasses.is_dataclass(kind)] for name, kinds in inner.items()
    }
    return {name: kinds[0] for name, kinds in found.items() if kinds}


def _section(kernel: Any) -> Any:
    """Make the schema of a tree of kernels: an optional entry per number, in its unit; deprecated keys are accepted."""
    nested = _nested(kernel)
    fields: dict[str, Any] = {}
    for f in leaf_fields(kernel):
        number = Annotated[Entry | None, Quantity(f.metadata["unit"], f.metadata["bounds"])]
        fields[f.name] = (_section(nested[f.name]) | None if f.name in nested else number, None)
    options: dict[str, Any] = {"__base__": StrictModel, "__doc__": kernel.__doc__}
    if former_names(kernel) or kernel in _RETIRED:
        options["__validators__"] = {"_current": model_validator(mode="before")(_current_keys(kernel))}
    return create_model(f"{kernel.__name__}Section", **options, **fields)


def _current_keys(kernel: type) -> Callable[[Any], Any]:
    """Make the function that replaces deprecated keys of a section by the current ones."""

    def replaced(section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        retired = _RETIRED.get(kernel, {})
        for key in retired.keys() & section.keys():
            message = f"{kernel.__name__}.{key} is ignored: {retired[key]}"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
        return {current_name(kernel, k): value for k, value in section.items() if k not in retired}

    return replaced


class FitSection(StrictModel):
    """What a kernel's numbers rest on: rows, and |ln(predicted / measured)| of those held out.

    `low` and `high` hold 80% of ln(measured / predicted) of held-out rows, `covered` is the share of rows in an
    interval made without them, where there are folds enough to tell.
    """

    kernels: str
    bits: str
    library: str
    kernel: str = ""
    rows: int
    held_out: str
    folds: int
    median: float
    ninth: float
    low: float
    high: float
    covered: float | None = None
    ranks: list[int] = Field(default_factory=list)  # of collectives and exchanges of experts
    source: str
    date: str | int


class EfficiencyFile(
    Titled,
    section(
        Efficiency,
        required="matmul vector memory link operator_overhead",
        positive="matmul vector memory link",
    ),
):
    """configs/efficiency: achieved shares of the peaks, and kernels where they are calibrated."""

    library: str = ""
    chips: list[str] = Field(default_factory=list)  # whose rows the kernels are fitted to
    kernels: _section(Kernels) | None = None  # type: ignore[valid-type]
    fits: list[FitSection] = Field(default_factory=list)


def kernels_of(section: Any, path: Path) -> Kernels:
    """Read a `kernels` section; what it lacks is ideal."""
    return _tree(Kernels, section, path, "kernels.")


def _tree(kernel: Any, section: BaseModel, path: Path, prefix: str) -> Any:
    given: dict[str, Any] = dict(quantities(section, path, prefix))
    nested = _nested(kernel)
    for name, inner in nested.items():
        found = getattr(section, name)
        if found is not None:
            given[name] = _tree(inner, found, path, f"{prefix}{name}.")
    for name in nested:
        others = [given[other] for other in _NEAREST.get(name, ()) if other in given]
        if name not in given and others:
            given[name] = others[0]
    return kernel(**given)
