"""jaxcost: latency, capacity, energy, cost and carbon of LLM inference, as one differentiable JAX function."""

from jaxcost.core.pytree import canonical, replace, replace_at, rows
from jaxcost.edge.catalog.loaders import (
    load_chip,
    load_efficiency,
    load_memory,
    load_model,
    load_prices,
    load_system,
)
from jaxcost.edge.catalog.loaders import names as list_names
from jaxcost.edge.catalog.tiers import add_near, add_tier, load_near
from jaxcost.edge.catalog.uncertain import intervals
from jaxcost.edge.io.errors import InputError, RunError
from jaxcost.edge.jobs.long_run import Outcome, Progress, run_sweep
from jaxcost.edge.measured.files import read_measured
from jaxcost.edge.studies.space_file import load_space
from jaxcost.explore.analysis import (
    Choice,
    Finding,
    Intervals,
    best_plan,
    diagnose,
    elasticities,
    evaluate,
    gradient,
)
from jaxcost.explore.calibrate import Fitted, calibrate
from jaxcost.explore.codesign import (
    Along,
    BreakEven,
    Codesign,
    Elasticities,
    Front,
    Problem,
    break_even,
    codesign,
    codesign_along,
    codesign_front,
    elasticity_table,
)
from jaxcost.explore.serve import ClosedLoop, Service, best_service, closed_loop, largest_batch, serve
from jaxcost.explore.space import (
    Axis,
    Design,
    Range,
    Sample,
    Space,
    Tied,
    choice,
    coordinates,
    design_at,
    linear_range,
    log_range,
    sample,
    stack,
    stacks,
)
from jaxcost.explore.sweep import Best, Constraint, Distribution, Feasibility, Pareto, Sweep, TopK, sweep
from jaxcost.physics.compute.shards import parameter_count
from jaxcost.physics.economics.area import by_parts, stack_price, stack_yield
from jaxcost.physics.memory.capacity import kv_bytes_per_token
from jaxcost.report import Report
from jaxcost.spec.chip import Chip, Compute, Cooling, Efficiency, Stacking
from jaxcost.spec.fabric import Fabric, Link
from jaxcost.spec.kernels import Kernels
from jaxcost.spec.measurement import Measurements
from jaxcost.spec.memory import TIERS, Memory, NearMemory
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Placement, Plan, Split
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.silicon import YIELD_MODELS, Package, Process
from jaxcost.spec.system import Host, System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "TIERS",
    "YIELD_MODELS",
    "Along",
    "Axis",
    "Best",
    "BreakEven",
    "Chip",
    "Choice",
    "ClosedLoop",
    "Codesign",
    "Compute",
    "Constraint",
    "Cooling",
    "Design",
    "Distribution",
    "Efficiency",
    "Elasticities",
    "Fabric",
    "Feasibility",
    "Finding",
    "Fitted",
    "Front",
    "Host",
    "InputError",
    "Intervals",
    "Kernels",
    "Knobs",
    "Link",
    "Measurements",
    "Memory",
    "Model",
    "NearMemory",
    "Outcome",
    "Package",
    "Pareto",
    "Placement",
    "Plan",
    "Prices",
    "Problem",
    "Process",
    "Progress",
    "Range",
    "Report",
    "RunError",
    "Sample",
    "Service",
    "Space",
    "Split",
    "Stacking",
    "Sweep",
    "System",
    "Tied",
    "TopK",
    "Traffic",
    "add_near",
    "add_tier",
    "best_plan",
    "best_service",
    "break_even",
    "by_parts",
    "calibrate",
    "canonical",
    "choice",
    "closed_loop",
    "codesign",
    "codesign_along",
    "codesign_front",
    "coordinates",
    "design_at",
    "diagnose",
    "elasticities",
    "elasticity_table",
    "evaluate",
    "gradient",
    "intervals",
    "kv_bytes_per_token",
    "largest_batch",
    "linear_range",
    "list_names",
    "load_chip",
    "load_efficiency",
    "load_memory",
    "load_model",
    "load_near",
    "load_prices",
    "load_space",
    "load_system",
    "log_range",
    "parameter_count",
    "read_measured",
    "replace",
    "replace_at",
    "rows",
    "run_sweep",
    "sample",
    "serve",
    "stack",
    "stack_price",
    "stack_yield",
    "stacks",
    "sweep",
]
