"""Labels of metrics and knobs, and amounts in customary units, as tables and figures of co-design show them."""

from collections.abc import Mapping

from jaxcost.core.units import engineering, number
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.show.tables import CONSTRAINTS, HEADLINE
from jaxcost.explore.sweep import report_metrics

__all__ = ["DisplayedObjective", "customary_unit", "format_amount", "label", "parameter_label"]

_TITLES = {path: name for path, name, _ in HEADLINE} | {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "latency": "latency of a request",
    "tokens_per_second": "output tokens a second",
    "joules_per_token": "energy of a token",
    "usd_per_mtok": "cost",
    "gco2e_per_mtok": "carbon",
    "average_power": "average power",
    "power.decode": "power of a chip in decode",
    "power.prefill": "power of a chip in prefill",
    "power.provisioned": "power to provision",
    "build.price": "price of a package",
    "build.die_area": "die area of a package",
}
_HEADS = {
    "compute": "",
    "chip": "",
    "system": "",
    "hbf": "flash",
    "memory": "memory",
    "scale_up": "scale-up",
    "scale_out": "scale-out",
    "near": "near-memory",
    "process": "process",
}
_TAILS = {
    "flops_32": "32-bit matmul rate",
    "flops_16": "16-bit matmul rate",
    "flops_8": "8-bit matmul rate",
    "flops_6": "6-bit matmul rate",
    "flops_4": "4-bit matmul rate",
    "vector_flops": "element-wise rate",
    "exponentials": "exponential rate",
    "price_per_byte": "price",
    "energy_per_byte": "energy of a byte",
    "tdp": "power limit (TDP)",
    "tpot_target": "TPOT target",
    "ttft_target": "TTFT target",
    "tp": "tensor-parallel degree",
    "pp": "pipeline stages",
    "ep": "expert-parallel degree",
    "dp": "data-parallel replicas",
}
# Customary units that are not the SI unit with a prefix.
_CUSTOMARY = {
    "USD/B": "USD/GB",
    "J/B": "pJ/bit",
    "USD/J": "USD/kWh",
    "kg/J": "g/kWh",
    "m": "mm",
    "m^2": "mm^2",
    "kg/B": "kg/GB",
}
_PREFIXES = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def label(path: str) -> str:
    """Return the label of a metric or a leaf of a design, such as "scale-up latency"."""
    if path in _TITLES:
        return _TITLES[path]
    parts = path.split(".")
    if parts[0] == "margins":
        return f"margin of {CONSTRAINTS.get(parts[-1], parts[-1])}"
    head = _HEADS.get(parts[-2], parts[-2]) if len(parts) > 2 else ""
    if path in report_metrics():
        head = parts[-2] if len(parts) > 1 else ""
    tail = _TAILS.get(parts[-1], _HEADS.get(parts[-1]) or parts[-1])
    return f"{head} {tail}".replace("_", " ").strip()


def parameter_label(path: str) -> str:
    """Return the label of a parameter: a leaf of a design, or the bound on a metric."""
    return f"bound on {label(path)}" if path in report_metrics() else label(path)


def format_amount(value: float, unit: str) -> str:
    """Write a value in SI units in its customary unit."""
    if unit in _CUSTOMARY:
        return f"{number(value / parse_quantity(f'1 {_CUSTOMARY[unit]}', unit))} {_CUSTOMARY[unit]}"
    return engineering(value, unit)


def customary_unit(value: float, unit: str) -> tuple[float, str]:
    """Return the size and the name of the customary unit at the magnitude of a value: (0.001, "ms") at 0.05 s."""
    if unit in _CUSTOMARY:
        return parse_quantity(f"1 {_CUSTOMARY[unit]}", unit), _CUSTOMARY[unit]
    written = engineering(value, unit).partition(" ")[2]
    prefix = written.removesuffix(unit)
    if written.endswith(unit) and prefix in _PREFIXES:
        return _PREFIXES[prefix], written
    return 1.0, "" if unit == "1" else unit


class DisplayedObjective:
    """The objective of a study as it is shown.

    The solver minimises the product of m^w over metrics m; of one metric with w = -1 that is 1 / m, and the metric
    itself is shown.
    """

    def __init__(self, objective: Mapping[str, float]) -> None:
        """Take the exponents of the metrics."""
        self.objective = dict(objective)
        self.metric = next(iter(objective)) if len(objective) == 1 else ""
        self.weight = objective[self.metric] if self.metric else 1.0
        self.unit = report_metrics().get(self.metric, "1") if self.metric else "1"

    @property
    def name(self) -> str:
        """Label of the metric, or of the product."""
        if self.metric:
            return label(self.metric)
        return " x ".join(label(m) + ("" if w == 1 else f"^{w:g}") for m, w in self.objective.items())

    @property
    def verb(self) -> str:
        """Effect of an improvement: "raises" or "lowers"."""
        return "raises" if self.weight < 0 else "lowers"

    def metric_value(self, value: float) -> float:
        """Return the metric of a value of the product."""
        return value ** (1 / self.weight)

    def format(self, value: float) -> str:
        """Write the metric of a value of the product."""
        return format_amount(self.metric_value(value), self.unit)

    def format_change(self, value: float, change: float) -> str:
        """Write the change of the metric, without sign, for a small change of the product at a value."""
        return format_amount(abs(change / self.weight * value ** (1 / self.weight - 1)), self.unit)
