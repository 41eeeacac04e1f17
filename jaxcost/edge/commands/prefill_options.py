"""Options of a separate prefill pool."""

import argparse

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.check import check_plan, check_traffic
from jaxcost.edge.commands.engine_options import set_engine
from jaxcost.edge.commands.request import Request, read_number, with_efficiency
from jaxcost.edge.io.errors import InputError
from jaxcost.explore.analysis import DEGREES
from jaxcost.physics.compute.shards import microbatches
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System

__all__ = ["add_prefill_arguments", "read_prefill_pool"]


def add_prefill_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of the system and the degrees of the pool, and return their group."""
    group = parser.add_argument_group("disaggregated prefill")
    group.add_argument(
        "--prefill-system", metavar="NAME", help="system of the prefill pool: catalogue name or YAML file"
    )
    for degree in DEGREES:
        group.add_argument(
            f"--prefill-{degree}",
            type=read_number,
            metavar="N",
            help=f"{degree} of the prefill pool (default 1)",
        )
    return group


def read_prefill_pool(args: argparse.Namespace, request: Request) -> tuple[System, Plan] | None:
    """Return the system and the plan of the pool, None where no system is named.

    Raises:
        InputError: degrees without a system, or degrees that the model or the system cannot have.
    """
    degrees_set = {d: getattr(args, f"prefill_{d}") for d in DEGREES}
    degrees_set = {d: value for d, value in degrees_set.items() if value is not None}
    if args.prefill_system is None:
        for degree, value in degrees_set.items():
            raise InputError("--prefill-system as well", path=f"--prefill-{degree}", given=value)
        return None
    system = with_efficiency(catalog.load_system(args.prefill_system), args.efficiency, args.prefill_system)
    plan = replace(request.plan, **(dict.fromkeys(DEGREES, 1.0) | degrees_set), chunk=0.0)
    plan = set_engine(plan, request.engine, args.prefill_system)
    check_traffic(request.traffic, request.model)
    fullest = replace(request.traffic, batch=plan.dp * float(microbatches(plan)))
    check_plan(system, request.model, plan, fullest)
    return system, plan
