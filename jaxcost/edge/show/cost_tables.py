"""Tables of energy, cost and CO2e by part, of power, and of the package."""

from rich.table import Table
from rich.text import Text

from jaxcost.core.units import engineering
from jaxcost.edge.catalog.loaders import load_system
from jaxcost.edge.catalog.reading import reading
from jaxcost.edge.show.tables import CONSTRAINTS, SideBySide, Values, plain_table, unwrapped
from jaxcost.spec.memory import TIERS
from jaxcost.spec.system import Host, System

__all__ = ["breakdown_tables", "package_table", "power_table", "server_lines", "token_table"]

_ENERGY = {
    "precision.bits_32": "matmul, 32 bits",
    "precision.bits_16": "matmul, 16 bits",
    "precision.bits_8": "matmul, 8 bits",
    "precision.bits_6": "matmul, 6 bits",
    "precision.bits_4": "matmul, 4 bits",
    "elementwise": "element-wise",
    "exponential": "exponentials",
    "near": "near memory",
    "wires": "memory to compute",
    "links.package": "links, package",
    "links.scale_up": "links, scale-up",
    "links.scale_out": "links, scale-out",
    "idle": "idle chips",
    "host": "servers",
    "fans": "fans, power supplies",
}
_TIERS = {tier: CONSTRAINTS[tier] for tier in TIERS} | {"memory": "main memory"}
_USD = {
    "dies": "logic dies",
    "memory": "memory",
    "package": "package",
    "margin": "vendor's margin",
    "hosts": "servers",
    "network": "network",
    "racks": "racks",
    "maintenance": "maintenance",
    "datacenter": "datacenter",
    "interest": "interest",
    "electricity": "electricity",
    "water": "water",
}
_CARBON = {
    "operation": "operation",
    "dies": "logic dies",
    "memory": "memory",
    "package": "package, board",
    "hosts": "servers",
    "building": "datacenter",
}
_UNITS = {"usd": "USD", "gco2e": "g", "joules": "J"}


def breakdown_tables(values: Values) -> SideBySide:
    """Show energy, cost and CO2e of tokens by part, side by side; parts below 0.05% are omitted."""
    energy = dict(_ENERGY)
    for way in ("read", "write"):
        energy |= {f"{way}.{tier}": f"{name}, {way}" for tier, name in _TIERS.items()}
    return SideBySide(
        _parts(values, "Energy per output token, all in", "energy", energy),
        _parts(values, "Cost per Mtok output, all in", "usd", _USD),
        _parts(values, "CO2e per Mtok output, all in", "carbon", _CARBON),
    )


def _parts(values: Values, title: str, branch: str, names: dict[str, str]) -> Table:
    unit, total = values[f"{branch}.total"]
    parts = [(name, values[f"{branch}.{path}"][1]) for path, name in names.items()]
    rows = [
        (name, engineering(value, unit.split("/")[0]), f"{value / total:.1%}")
        for name, value in sorted(parts, key=lambda pair: -pair[1])
        if abs(value) > 5e-4 * total
    ]
    rows.append(("total", engineering(total, unit.split("/")[0]), ""))
    return unwrapped(plain_table(title, ("", "", ""), rows))


def server_lines(name: str, system: System) -> list[Text]:
    """Say what the power of the servers of a system is: its numbers with the kind and range of their source.

    Args:
        name: name or file of the system, as for `load_system`.
        system: the system evaluated; a number that differs from that of its files is said to be set.
    """
    with reading() as read:
        host = load_system(name).host
    file = next((file for file, path in read.entries if path == "power"), None)

    def text(leaf: str, of: str) -> str:
        found, value = read.entries.get((file, leaf)) if file else None, float(getattr(system.host, leaf))
        unit = Host.__dataclass_fields__[leaf].metadata["unit"]
        show = lambda x: engineering(x, unit) if unit != "1" else f"{x:.0%}"  # noqa: E731
        if value != float(getattr(host, leaf)):
            return f"{show(value)} {of} (set)"
        if found is None:
            return f"{show(value)} {of}"
        span = "" if found.low is None or found.high is None else f", {show(found.low)} to {show(found.high)}"
        return f"{show(value)} {of} ({found.entry.kind}{span})"

    lines = [f"Servers draw {text('power', 'a chip')}"]
    if float(system.host.overhead) > 0:
        lines[0] += f" and {text('overhead', 'of what the chips draw')}"
    if float(system.host.provisioned) > 0:
        lines.append(f"They are provisioned for a nameplate of {text('provisioned', 'a chip')}")
    return [Text(f"{line}.") for line in lines] + [Text("")]


def token_table(values: Values) -> Table:
    """Show cost, CO2e and energy of tokens, all in and apart for input and output, and of a request."""
    at = lambda path: values[path][1]  # noqa: E731
    all_in = (at("usd_per_mtok"), at("gco2e_per_mtok"), 1e6 * at("joules_per_token"))
    shown = (engineering(x, unit) for x, unit in zip(all_in, _UNITS.values(), strict=True))
    rows = [("million output tokens, all in", *shown)]
    rows += [
        (
            name,
            engineering(at(f"usd_per_{kind}_mtok"), "USD"),
            engineering(at(f"gco2e_per_{kind}_mtok"), "g"),
            engineering(1e6 * at(f"joules_per_{kind}_token"), "J"),
        )
        for kind, name in (
            ("input", "million input tokens: prefill"),
            ("output", "million output tokens: decode"),
        )
    ]
    usd, grams, joules = (engineering(at(f"{what}_per_query"), unit) for what, unit in _UNITS.items())
    rows.append(("request", usd, grams, joules))
    return unwrapped(plain_table("Tokens: all in, input, output", ("Per", "Dollars", "CO2e", "Energy"), rows))


def power_table(values: Values) -> Table:
    """Show the power of a chip in both steps, and that of the installation."""
    rows = []
    for phase in ("prefill", "decode"):
        clock = values[f"power.{phase}_clock"][1]
        slow = f"  (clock at {clock:.0%})" if clock < 1 else ""
        rows.append((f"chip, {phase}", engineering(values[f"power.{phase}"][1], "W") + slow))
    for path, name in (
        ("chips", "all chips, average"),
        ("hosts", "servers and network"),
        ("cooling", "cooling and losses"),
        ("facility", "facility, average"),
        ("provisioned", "facility, provisioned"),
    ):
        rows.append((name, engineering(values[f"power.{path}"][1], "W")))
    rows.append(("racks", f"{values['power.racks'][1]:.2f}"))
    water = values["water.total"][1]
    rows.append(("water per Mtok output", f"{1e3 * water:.3g} L"))
    rent = values["rent"][1]
    if rent > 0:
        rows.append(("rent per Mtok output", engineering(rent, "USD")))
    battery = values["battery_share"][1]
    if battery > 0:
        rows.append(("battery charge per request", f"{battery:.3%}"))
    return unwrapped(plain_table("Power", ("", ""), rows))


def package_table(values: Values) -> Table:
    """Show area, yield and price of one package by part, and the CO2e of its manufacture."""
    at = lambda path: values[f"build.{path}"][1]  # noqa: E731
    area = at("die_area")
    rows = [
        (name, f"{1e6 * at(path):,.0f} mm²", f"{at(path) / area:.0%}")
        for path, name in (
            ("engines", "matmul engines"),
            ("on_chip_memory", "on-chip memory"),
            ("memory_interfaces", "memory interfaces"),
            ("link_interfaces", "link interfaces"),
            ("other", "other logic"),
        )
        if area > 0 and abs(at(path)) > 1e-3 * area
    ]
    rows.append(("all dies", f"{1e6 * area:,.0f} mm²", f"yield {at('good_share'):.0%}"))
    price = at("price")
    rows += [
        (name, engineering(at(path), "USD"), f"{at(path) / price:.0%}" if price else "")
        for path, name in (
            ("dies", "dies"),
            ("memory", "memory"),
            ("package", "package"),
            ("margin", "vendor's margin"),
        )
    ]
    rows.append(("price", engineering(price, "USD"), ""))
    rows.append(("CO2e of manufacture", engineering(1e3 * values["embodied.total"][1], "g"), ""))
    return unwrapped(plain_table("One package", ("", "", ""), rows))
