"""Price, area, yield and carbon of a package in plain Python, written from the published formulas alone."""

import math


def package(chip, fabric):
    """Areas, yield and price of a chip with main memory alone."""
    p, process = chip.package, chip.process
    links = (fabric.package, fabric.scale_up, fabric.scale_out)
    area = {
        "engines": p.area_per_flop * chip.compute.flops_16,
        "on_chip_memory": p.area_per_byte * p.cache,
        "memory_interfaces": chip.memory.stacks * chip.memory.interface_area,
        "link_interfaces": math.fsum(x.bandwidth * x.interface_area for x in links),
    }
    area["other"] = chip.die_area - math.fsum(area.values()) if chip.die_area else p.other_area
    whole = math.fsum(area.values())
    die, d = whole / p.dies, process.wafer_diameter
    count = math.pi * (d / 2) ** 2 / die - math.pi * d / math.sqrt(2 * die)
    x = p.critical * die * process.defect_density
    good = [
        (1 + x / process.clustering) ** -process.clustering,
        math.exp(-x),
        ((1 - math.exp(-x)) / x) ** 2,
        1 / (1 + x),
    ][int(process.yield_model)]
    dies = p.dies * process.wafer_price / (count * good) * (1 + p.die_test)
    made = chip.memory.capacity + chip.memory.withheld
    memory = made * chip.memory.price_per_byte
    carrier = p.base_price + p.price_per_area * (whole + chip.memory.stacks * chip.memory.footprint)
    packed = (dies + memory + carrier) / p.assembly_yield
    price = {
        "dies": dies,
        "memory": memory,
        "package": packed - dies - memory,
        "margin": chip.price - packed if chip.price else p.margin,
    }
    wafer = process.fab_energy * process.fab_grid + process.fab_gases + process.fab_materials
    carbon = {
        "dies": whole * wafer / good / p.assembly_yield,
        "memory": made * chip.memory.carbon_per_byte / p.assembly_yield,
        "package": p.carbon / p.assembly_yield,
    }
    return area, price, carbon


def economics(system, prices, paid, metered):
    """Dollars and grams a million tokens, of `paid` chip-seconds and `metered` joules a token."""
    chip, host = system.chip, system.host
    _, price, carbon = package(chip, system.fabric)
    owned = 1e6 * paid / prices.utilization
    price |= {"hosts": host.price, "network": host.network_price, "racks": host.rack_price}
    bought = math.fsum(price.values())
    # The building is built for the server's nameplate; energy is what the server draws.
    watts = chip.tdp + (host.provisioned or host.power + host.overhead * chip.tdp)
    usd = {name: owned * value / prices.lifetime for name, value in price.items()}
    r = prices.interest

    def yearly(value, life):
        return value * r / (1 - math.exp(-r * life)) - value / life if r else 0.0

    usd |= {
        "maintenance": owned * bought * prices.maintenance,
        "datacenter": owned * watts * prices.datacenter / prices.datacenter_lifetime,
        "interest": owned
        * (yearly(bought, prices.lifetime) + yearly(watts * prices.datacenter, prices.datacenter_lifetime)),
        "electricity": 1e6 * metered * prices.electricity,
        "water": 1e6 * metered / prices.pue * prices.site_water * prices.water,
    }
    # The day in a thousand parts: energy follows the traffic, the grid its own swing.
    day = [(i + 0.5) / 1000 for i in range(1000)]
    grid = math.fsum(
        (1 + prices.load_swing * math.cos(2 * math.pi * (h - prices.load_peak)))
        * (1 + prices.grid_swing * math.cos(2 * math.pi * (h - prices.grid_peak)))
        for h in day
    ) / len(day)
    made = {name: 1e3 * owned / prices.lifetime * kg for name, kg in carbon.items()}
    grams = {
        "operation": 1e9 * metered * prices.grid_carbon * grid,
        **made,
        "hosts": 1e3 * owned * host.carbon / prices.lifetime,
        "building": 1e3 * owned * watts * prices.building_carbon / prices.datacenter_lifetime,
    }
    return usd, grams
