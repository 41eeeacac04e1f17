"""Rules that several families share: the kinds of layers, and sizes that follow from other fields."""

from collections.abc import Callable
from typing import Any

from jaxcost.edge.hf.fields import Fields
from jaxcost.edge.hf.rules import layers as plan

__all__ = [
    "any_shared",
    "first_of_period",
    "half",
    "hidden_over_heads",
    "latent_layers",
    "neo_layers",
    "parallel_norms",
    "patterned_windows",
    "stated_channels",
    "times_hidden",
    "windowed_layers",
]

_CHANNELS = {"dense": "dense", "mlp": "dense", "sparse": "experts", "moe": "experts"}


# Token mixers of every layer -------------------------------------------------------------------------


def _windows(is_full: Callable[[Fields], Callable[[int], bool]]) -> Callable[[Fields], list[str]]:
    """Make a function that returns the layers' kinds: of `layer_types`, or a window except where `is_full`."""

    def mixers(f: Fields) -> list[str]:
        layers = f.layers()
        if f.given("layer_types") is not None or _without_window(f):
            return plan.full_layers(f)
        full = is_full(f)
        return ["full" if full(i) else "window" for i in range(layers)]

    return mixers


def _without_window(f: Fields) -> bool:
    """Return whether the window is null; where it is missing, the default of the class counts."""
    name = f.name("sliding_window")
    return (name in f.config and f.config[name] is None) or f.optional_size("sliding_window") is None


def _pattern(f: Fields) -> Callable[[int], bool]:
    """Return whether the last layer of every period, or a G among letters L and G, is full."""
    pattern = f.given("sliding_window_pattern")
    if isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}:
        return lambda i: pattern[i % len(pattern)] == "G"
    period = f.size("sliding_window_pattern")
    return lambda i: (i + 1) % period == 0


def first_of_period(period: int) -> Callable[[Fields], list[str]]:
    """Make a function that returns full attention for the first layer of every period, a window for others."""
    return _windows(lambda f: lambda i: i % period == 0)


patterned_windows = _windows(_pattern)
windowed_layers = _windows(lambda f: lambda i: False)


def latent_layers(f: Fields) -> list[str]:
    """Return latent attention for all layers, or full attention where `use_mla` is false."""
    kind = "full" if f.given("use_mla") is not None and not f.flag("use_mla") else "latent"
    return [kind] * f.layers()


def neo_layers(f: Fields) -> list[str]:
    """Return the kinds by `attention_layers`, or by pairs of names and repetitions in `attention_types`."""
    kinds, layers = {"global": "full", "local": "window"}, f.layers()
    if f.given("attention_layers") is not None:
        return f.entries("attention_layers", kinds, length=layers)
    names: list[str] = []
    for group in f.sequence("attention_types"):
        pair = isinstance(group, list | tuple) and len(group) == 2
        if not pair or not isinstance(group[0], list | tuple) or not isinstance(group[1], int):
            raise f.error("attention_types", "pairs of a list of names and a number", group)
        names += list(group[0]) * group[1]
    if len(names) != layers or set(names) - set(kinds):
        raise f.error("attention_types", f"{layers} layers, each global or local", f.given("attention_types"))
    return [kinds[name] for name in names]


# Channel mixers of every layer -----------------------------------------------------------------------


def _flags(f: Fields, field: str, layers: int) -> list[str]:
    values = f.sequence(field, length=layers)
    if any(value not in (0, 1) for value in values):
        raise f.error(field, "0 or 1 for every layer", values)
    return ["experts" if value else "dense" for value in values]


def _first(f: Fields, field: str) -> Any:
    """Return a number; of a list, the first, which is that of text where images have experts of their own."""
    value = f.given(field)
    return value[0] if isinstance(value, list | tuple) and value else value


def stated_channels(f: Fields) -> list[str]:
    """Return experts in the layers where all fields that a config states put them, dense layers elsewhere."""
    layers = f.layers()
    if _first(f, "num_experts") in (None, 0, 1):
        return ["dense"] * layers
    if f.given("mlp_layer_types") is not None:
        return f.entries("mlp_layer_types", _CHANNELS, length=layers)
    if isinstance(f.given("moe_layer_freq"), list | tuple):
        return _flags(f, "moe_layer_freq", layers)
    dense = f.positions("mlp_only_layers", layers)
    first = f.size("first_k_dense_replace", least=0) if f.given("first_k_dense_replace") is not None else 0
    freq, step = f.size("moe_layer_freq"), f.size("decoder_sparse_step")
    start, end = _first(f, "moe_layer_start_index"), _first(f, "moe_layer_end_index")
    for field, value in (("moe_layer_start_index", start), ("moe_layer_end_index", end)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < -1):
            raise f.error(field, f"a layer number from 0 to {layers - 1}", value)
    first = max(first, start or 0)
    last = layers - 1 if end in (None, -1) else end

    def is_sparse(i: int) -> bool:
        return first <= i <= last and i % freq == 0 and (i + 1) % step == 0 and i not in dense

    return ["experts" if is_sparse(i) else "dense" for i in range(layers)]


def any_shared(f: Fields) -> int:
    """Return the stated width of a shared expert, or that of a routed one, times their number."""
    count = f.even_size("n_shared_experts", least=0) if f.given("n_shared_experts") is not None else None
    if f.given("shared_expert_intermediate_size") is not None:
        return f.size("shared_expert_intermediate_size", least=0) * (1 if count is None else count)
    return count * f.even_size("moe_intermediate_size") if count else 0


# Sizes and norms that follow from other fields -------------------------------------------------------


def times_hidden(factor: int | str) -> Callable[[Fields], int]:
    """Make a function that returns a multiple of the hidden size: a number, or that of a field."""
    return lambda f: (f.size(factor) if isinstance(factor, str) else factor) * f.size("hidden_size")


def half(name: str) -> Callable[[Fields], int]:
    """Make a function that returns half of what the config has under a name."""

    def derive(f: Fields) -> int:
        value = f.value(name)
        if value is None:
            raise f.missing(name, "an even number, twice the width of the gate")
        if isinstance(value, bool) or not isinstance(value, int) or value < 2 or value % 2:
            raise f.error(name, "an even number, twice the width of the gate", value)
        return value // 2

    return derive


def hidden_over_heads(f: Fields) -> int:
    """Return hidden_size / heads."""
    return f.size("hidden_size") // f.size("num_attention_heads")


def parallel_norms(f: Fields) -> int:
    """Return one norm where attention and feed-forward run in parallel on it, two otherwise."""
    return 1 if f.flag("use_parallel_residual") else 2
