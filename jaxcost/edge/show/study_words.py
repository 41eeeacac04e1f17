"""Words of co-design: names of metrics and knobs for people, amounts in units they use, and what one more is worth."""

from collections.abc import Mapping

from jaxcost.core.units import engineering, number
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.show.tables import CONSTRAINTS, HEADLINE
from jaxcost.explore.sweep import report_metrics

__all__ = ["Goal", "amount", "followed", "label", "one_more"]

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
# Units that people use, where they are no power of a thousand away.
_OTHER = {
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
    """Name a metric or a number of a design: "scale-up latency"."""
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


def followed(path: str) -> str:
    """Name what designs are found along: a number of a design, or the bound of a limit."""
    return f"bound on {label(path)}" if path in report_metrics() else label(path)


def amount(value: float, unit: str) -> str:
    """Write a value in a unit people use."""
    if unit in _OTHER:
        return f"{number(value / parse_quantity(f'1 {_OTHER[unit]}', unit))} {_OTHER[unit]}"
    return engineering(value, unit)


def one_more(value: float, unit: str) -> tuple[float, str]:
    """Return the step in which people count at the size of a value: (0.001, "ms") at 50 ms."""
    if unit in _OTHER:
        return parse_quantity(f"1 {_OTHER[unit]}", unit), _OTHER[unit]
    written = engineering(value, unit).partition(" ")[2]
    prefix = written.removesuffix(unit)
    if written.endswith(unit) and prefix in _PREFIXES:
        return _PREFIXES[prefix], written
    return 1.0, "" if unit == "1" else unit


class Goal:
    """What a study lowers or raises, and how its value is said.

    The engine lowers the product of m^w over metrics m; of one metric with w = -1 that is 1 / m.
    """

    def __init__(self, objective: Mapping[str, float]) -> None:
        """Take the exponents of the metrics."""
        self.objective = dict(objective)
        self.metric = next(iter(objective)) if len(objective) == 1 else ""
        self.weight = objective[self.metric] if self.metric else 1.0
        self.unit = report_metrics().get(self.metric, "1") if self.metric else "1"

    @property
    def name(self) -> str:
        """What it is called."""
        if self.metric:
            return label(self.metric)
        return " x ".join(label(m) + ("" if w == 1 else f"^{w:g}") for m, w in self.objective.items())

    @property
    def verb(self) -> str:
        """What an improvement does to it."""
        return "raises" if self.weight < 0 else "lowers"

    def own(self, value: float) -> float:
        """Return the metric, of the value that the engine lowers."""
        return value ** (1 / self.weight)

    def says(self, value: float) -> str:
        """Write the value that the engine lowers, as its metric."""
        return amount(self.own(value), self.unit)

    def change(self, value: float, price: float) -> str:
        """Write a small change of what the engine lowers, as one of its metric, without sign."""
        return amount(abs(price / self.weight * value ** (1 / self.weight - 1)), self.unit)
