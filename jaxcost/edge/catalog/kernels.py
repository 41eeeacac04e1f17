"""The sections of calibrated kernels in the files of configs/efficiency: their schema, and the trees they become."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BaseModel, Field, create_model, field_validator, model_validator

from jaxcost.core.pytree import current_name, former_names, leaf_fields, replace
from jaxcost.edge.catalog.kernel_entry import KernelEntry
from jaxcost.edge.catalog.reading import quantities
from jaxcost.edge.catalog.schema import Quantity, Titled, section
from jaxcost.edge.io.errors import InputError, nearest
from jaxcost.edge.io.validation import StrictModel
from jaxcost.spec.chip import Efficiency
from jaxcost.spec.kernels import EngineOverheads, InternodeKernel, Kernels

__all__ = [
    "CIRCUMSTANCES",
    "NEAREST",
    "Circumstance",
    "EfficiencyFile",
    "FitSection",
    "ServingSection",
    "check_keys",
    "kernels_of",
    "near_places",
]

# A kernel that was not measured takes the numbers of the nearest that was, in this order.
NEAREST = {
    "bits_16": ("bits_8", "bits_8_block", "bits_4"),
    "bits_8": ("bits_8_block", "bits_16", "bits_4"),
    "bits_8_block": ("bits_8", "bits_16", "bits_4"),
    "weights_8": ("bits_16", "bits_8"),
    "weights_4": ("weights_8", "bits_16", "bits_8"),
    "bits_4": ("bits_4_group", "bits_8", "bits_8_block", "bits_16"),
    "bits_4_group": ("bits_4", "bits_8", "bits_8_block", "bits_16"),
    "compute_8": ("bits_8", "bits_16"),
}
# Kernels of messages that are absent are the same as these.
_SAME = {
    "collective_shared_bus": "collective",
    "all_reduce_shared_bus": "all_reduce",
    "dispatch_low_latency": "dispatch",
    "combine_low_latency": "combine",
}

# What was measured where a file is used: the chip itself (then the error is that of other shapes), a chip of its
# architecture, or neither.
Circumstance = Literal["shapes", "chip", "generation"]
CIRCUMSTANCES: tuple[Circumstance, ...] = ("shapes", "chip", "generation")
Ends = tuple[float, float]

_EXCHANGES = ("dispatch", "combine", "dispatch_low_latency", "combine_low_latency")

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
        number = Annotated[KernelEntry | None, Quantity(f.metadata["unit"], f.metadata["bounds"])]
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

    `shapes`, `chip` and `generation` hold 80% of ln(measured / predicted) of rows that were held out by shape, by chip
    and by architecture of chips; `medians`, `ninths` and `covers` have the median, the 90th percentile and the share of
    rows in an interval that was made without them, by the same names. A file of one chip has `low`, `high`, `median`,
    `ninth` and `covered` of its held-out axis alone.
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
    low: float | None = None
    high: float | None = None
    covered: float | None = None
    chips: list[str] = Field(default_factory=list)  # measured; those of the file where empty
    generations: list[str] = Field(default_factory=list)  # their architectures
    shapes: Ends | None = None
    chip: Ends | None = None
    generation: Ends | None = None
    medians: dict[str, float] = Field(default_factory=dict)
    ninths: dict[str, float] = Field(default_factory=dict)
    covers: dict[str, float] = Field(default_factory=dict)
    ranks: list[int] = Field(default_factory=list)  # of collectives and exchanges of experts
    source: str
    date: str | int

    @field_validator("shapes", "chip", "generation", mode="before")
    @classmethod
    def _two_ends(cls, ends: Any) -> Any:
        if ends is not None and not (isinstance(ends, list | tuple) and len(ends) == 2):
            raise InputError("[low, high]", given=ends)
        return None if ends is None else tuple(map(float, ends))

    @model_validator(mode="after")
    def _some_interval(self) -> "FitSection":
        if self.interval("generation") is None:
            raise InputError("low and high, or an interval among shapes, chip and generation")
        return self

    def interval(self, circumstance: Circumstance) -> Ends | None:
        """Return (low, high) of ln(measured / predicted): of the circumstance, else of the nearest that has one."""
        at = CIRCUMSTANCES.index(circumstance)
        order = (*CIRCUMSTANCES[at:], *reversed(CIRCUMSTANCES[:at]))
        found = (getattr(self, name) for name in order)
        old = None if self.low is None or self.high is None else (self.low, self.high)
        return next((ends for ends in found if ends is not None), old)

    def circumstance(
        self, keys: Sequence[str], chips: Sequence[str] = (), generations: Sequence[str] = ()
    ) -> Circumstance:
        """Tell whether a chip was measured, a chip of its architecture, or neither.

        Args:
            keys: the chip and its architecture, as `chip_keys` returns them.
            chips: chips of the file, for a fit that names none.
            generations: architectures of these chips, likewise.
        """
        if set(keys) & set(self.chips or chips):
            return "shapes"
        return "chip" if set(keys) & set(self.generations or generations) else "generation"


class ServingSection(StrictModel):
    """How far served times are off: 80% of ln(measured / predicted) of points of models that were left out."""

    metric: Literal["tpot", "ttft"]
    low: float
    high: float
    median: float
    ninth: float
    rows: int
    models: int
    covered: float | None = None
    source: str = ""


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
    serving: list[ServingSection] = Field(default_factory=list)


def kernels_of(section: Any, path: Path, keys: Sequence[str] = ()) -> Kernels:
    """Read a `kernels` section; what it lacks is ideal.

    Exchanges of experts that were measured within a node only send between nodes as rings do.

    Args:
        section: the section.
        path: the file.
        keys: a chip and its architecture: an entry's number of the first that it has one of, else its value.
    """
    kernels = _tree(Kernels, section, path, "kernels.", keys)
    rings = kernels.internode
    return kernels if rings is None else _as_rings_between_nodes(kernels, section, rings)


def _as_rings_between_nodes(kernels: Kernels, section: Any, rings: InternodeKernel) -> Kernels:
    """Give exchanges without numbers of their own between nodes the round and the share of rings."""
    filled: dict[str, Any] = {}
    for name in _EXCHANGES:
        found, kernel = getattr(section, name), getattr(kernels, name)
        if found is not None and found.internode_round is None and found.internode_share is None:
            filled[name] = replace(kernel, internode_round=rings.round, internode_share=rings.share)
    return replace(kernels, **filled)


def _tree(kernel: Any, section: BaseModel, path: Path, prefix: str, keys: Sequence[str]) -> Any:
    given: dict[str, Any] = dict(quantities(section, path, prefix, keys))
    nested = _nested(kernel)
    for name, inner in nested.items():
        found = getattr(section, name)
        if found is not None:
            given[name] = _tree(inner, found, path, f"{prefix}{name}.", keys)
    close = {
        name: next((given[other] for other in NEAREST.get(name, ()) if other in given), None)
        for name in nested
        if name not in given
    }
    return kernel(**given, **{name: other for name, other in close.items() if other is not None})


def near_places(place: tuple[str, str]) -> list[tuple[str, str]]:
    """Return a place of a kernel (its field of `Kernels` and of its precision), and those that stand in for it."""
    field, bits = place
    if bits:
        return [place, *((field, other) for other in NEAREST.get(bits, ()))]
    return [place, *([(_SAME[field], "")] if field in _SAME else [])]


def check_keys(section: BaseModel, known: Sequence[str], file: str) -> None:
    """Check that every key of `by` in a `kernels` section is a known chip or architecture.

    Raises:
        InputError: one is not, with its dotted path.
    """
    for path, key in _keys(section, "kernels."):
        if key not in known:
            raise InputError(
                "a chip of `jaxcost list chips`, or an architecture of one",
                file=file,
                path=path,
                given=key,
                suggestion=nearest(key, known),
            )


def _keys(section: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, KernelEntry):
            yield from ((f"{prefix}{name}.by", key) for key in value.by)
        elif isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}{name}.")
