"""The models of space files: axes, tied axes, samples and knobs.

Numbers stay as they are written: their units follow from the dotted paths, which the reader knows.
"""

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.validation import StrictModel, as_list, known_name, whole_number
from jaxcost.explore.space import MAX_POINTS, SAMPLING_METHODS
from jaxcost.explore.sweep import METRICS

__all__ = [
    "AxisSection",
    "Bounds",
    "Interval",
    "KnobSection",
    "Knobs",
    "SampleSection",
    "Seed",
    "SpaceFile",
    "SpaceSections",
    "TiedSection",
    "ValueList",
    "ValuesSection",
]

_MAX_VALUES = 1_000_000
_RANGE = "{log: [low, high]} or {linear: [low, high]}"
_STEPS = "a list of values, {log: [low, high, count]} or {linear: [low, high, count]}"
_VALUES = f"{_STEPS}, {{choose: ...}} or {{scale: ...}}"
_KNOB = f"{_RANGE}, {{stacks: [low, high]}} of a memory tier, {_VALUES}"


def _check_numbers(value: Any) -> tuple[Any, ...]:
    """Check [low, high] or [low, high, count]."""
    if not isinstance(value, list) or len(value) not in (2, 3):
        raise InputError("[low, high] or [low, high, count]", given=value)
    count = value[2] if len(value) == 3 else 2
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= _MAX_VALUES:
        raise InputError(f"a whole count from 2 to {_MAX_VALUES:,}", given=value)
    return tuple(value)


def _check_clause(value: Any) -> Any:
    return Bounds.model_validate(value) if isinstance(value, dict) else value


def _need_knob(knobs: dict[str, Any]) -> dict[str, Any]:
    if not knobs:
        raise InputError("at least one knob")
    return knobs


Seed = Annotated[int, whole_number(0, (1 << 32) - 1)]
_Numbers = Annotated[tuple[Any, ...], BeforeValidator(_check_numbers)]
_List = Annotated[list[Any], Field(min_length=1, max_length=_MAX_VALUES)]


class Bounds(StrictModel):
    """Bounds of a number, either or both."""

    expected: ClassVar[str] = "{at_least: ..., at_most: ...}, either or both"
    at_least: Any = None
    at_most: Any = None

    @model_validator(mode="after")
    def _need_one(self) -> "Bounds":
        if self.at_least is None and self.at_most is None:
            raise InputError(self.expected)
        return self


class Interval(StrictModel):
    """Numbers between two ends: a range, or a count of values at equal ratios (log) or distances (linear)."""

    expected: ClassVar[str] = _STEPS
    forms: ClassVar[tuple[str, ...]] = ("log", "linear")  # keys of which a section has exactly one
    log: _Numbers | None = None
    linear: _Numbers | None = None

    @model_validator(mode="after")
    def _need_one_form(self) -> "Interval":
        if sum(getattr(self, name) is not None for name in self.forms) != 1:
            raise InputError(
                self.expected, given={name: getattr(self, name) for name in self.model_fields_set}
            )
        return self

    @property
    def numbers(self) -> tuple[Any, ...]:
        """The low end, the high end, and the count if there is one; empty in another form."""
        return self.log or self.linear or ()


class Range(Interval):
    """A range of a knob."""

    expected: ClassVar[str] = _RANGE
    whole: bool = False


def _list_or(model: type[Interval]) -> BeforeValidator:
    return BeforeValidator(lambda value: value if isinstance(value, list) else model.model_validate(value))


ValueList = Annotated[_List | Interval, _list_or(Interval)]


class ValuesSection(Interval):
    """Values of a number, factors on it, or names to choose among. A list alone stands for `values`."""

    expected: ClassVar[str] = _VALUES
    forms: ClassVar[tuple[str, ...]] = ("log", "linear", "values", "choose", "scale")
    values: ValueList | None = None
    choose: _List | None = None
    scale: ValueList | None = None

    @model_validator(mode="before")
    @classmethod
    def _wrap_list(cls, data: Any) -> Any:
        return {"values": data} if isinstance(data, list) else data


class AxisSection(ValuesSection):
    """An axis, under `when` only for some values of earlier axes."""

    when: dict[str, Annotated[Any, BeforeValidator(_check_clause)]] = Field({})


class KnobSection(ValuesSection):
    """A knob: a range, a number of stacks, or values."""

    expected: ClassVar[str] = _KNOB
    forms: ClassVar[tuple[str, ...]] = (*ValuesSection.forms, "stacks")
    scale: Annotated[_List | Range, _list_or(Range)] | None = None  # type: ignore[assignment]  # a range as well
    stacks: _Numbers | None = None
    whole: bool | None = None
    together: Annotated[list[str], Field(min_length=1)] | None = None

    @property
    def range(self) -> Interval | None:
        """The range of the number, or of the factor on it; None in another form."""
        interval = self.scale if isinstance(self.scale, Interval) else self
        return interval if len(interval.numbers) == 2 else None

    @model_validator(mode="after")
    def _check_options(self) -> "KnobSection":
        if self.together is not None and (self.scale is None or self.range is None):
            raise InputError("{scale: {log: [low, high]}, together: [other paths]}", path="together")
        if self.whole is not None and self.range is None and self.stacks is None:
            raise InputError(
                "{log: [low, high], whole: ...} or {stacks: [low, high], whole: ...}", path="whole"
            )
        return self


class TiedSection(StrictModel):
    """Axes of one length that move together: values by path."""

    expected: ClassVar[str] = "a mapping from dotted paths to values, or a list of them"
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ValuesSection]  # type: ignore[misc]
    when: dict[str, Annotated[Any, BeforeValidator(_check_clause)]] = Field({})


Knobs = Annotated[dict[str, KnobSection], AfterValidator(_need_knob)]


class SampleSection(StrictModel):
    """Points in the box of several knobs."""

    method: Annotated[str, known_name(SAMPLING_METHODS)] = SAMPLING_METHODS[0]
    count: Annotated[int, whole_number(1, MAX_POINTS)]
    seed: Seed = 0
    knobs: Knobs = Field(description="a mapping from dotted paths to ranges")
    when: dict[str, Annotated[Any, BeforeValidator(_check_clause)]] = Field({})


class SpaceSections(StrictModel):
    """The sections that spaces and studies share."""

    title: str = ""
    models: Annotated[list[str], Field(min_length=1), BeforeValidator(as_list)]
    systems: Annotated[list[str], Field(min_length=1), BeforeValidator(as_list)]
    efficiency: str = "ideal"
    by_parts: bool = False
    prices: str = "default"
    traffic: dict[str, Any] = Field({})
    plan: dict[str, Any] = Field({})
    axes: dict[str, AxisSection] = Field({})
    tied: Annotated[list[TiedSection], BeforeValidator(as_list)] = Field([])


class SpaceFile(SpaceSections):
    """configs/spaces: a space of designs, and what a sweep over it keeps."""

    sample: Annotated[list[SampleSection], BeforeValidator(as_list)] = Field([])
    objective: Annotated[str, known_name(METRICS)] = "usd_per_mtok"
    reduce: Any = None
