"""The public names, for type checkers and for `__init__`, which imports each when it is first used."""

from .core.pytree import (
    canonical as canonical,
)
from .core.pytree import (
    replace as replace,
)
from .core.pytree import (
    replace_at as replace_at,
)
from .core.pytree import (
    rows as rows,
)
from .edge.catalog.loaders import (
    list_names as list_names,
)
from .edge.catalog.loaders import (
    load_chip as load_chip,
)
from .edge.catalog.loaders import (
    load_efficiency as load_efficiency,
)
from .edge.catalog.loaders import (
    load_memory as load_memory,
)
from .edge.catalog.loaders import (
    load_model as load_model,
)
from .edge.catalog.loaders import (
    load_prices as load_prices,
)
from .edge.catalog.loaders import (
    load_system as load_system,
)
from .edge.catalog.tiers import (
    add_near as add_near,
)
from .edge.catalog.tiers import (
    add_tier as add_tier,
)
from .edge.catalog.tiers import (
    load_near as load_near,
)
from .edge.catalog.uncertain import (
    intervals as intervals,
)
from .edge.io.errors import (
    InputError as InputError,
)
from .edge.io.errors import (
    RunError as RunError,
)
from .edge.jobs.long_run import (
    Outcome as Outcome,
)
from .edge.jobs.long_run import (
    Progress as Progress,
)
from .edge.jobs.long_run import (
    run_sweep as run_sweep,
)
from .edge.measured.files import (
    read_measured as read_measured,
)
from .edge.studies.space_file import (
    load_space as load_space,
)
from .explore.analysis import (
    Choice as Choice,
)
from .explore.analysis import (
    Finding as Finding,
)
from .explore.analysis import (
    Intervals as Intervals,
)
from .explore.analysis import (
    best_plan as best_plan,
)
from .explore.analysis import (
    diagnose as diagnose,
)
from .explore.analysis import (
    elasticities as elasticities,
)
from .explore.analysis import (
    evaluate as evaluate,
)
from .explore.analysis import (
    gradient as gradient,
)
from .explore.calibrate import (
    Fitted as Fitted,
)
from .explore.calibrate import (
    calibrate as calibrate,
)
from .explore.codesign import (
    Along as Along,
)
from .explore.codesign import (
    BreakEven as BreakEven,
)
from .explore.codesign import (
    Codesign as Codesign,
)
from .explore.codesign import (
    Elasticities as Elasticities,
)
from .explore.codesign import (
    Front as Front,
)
from .explore.codesign import (
    break_even as break_even,
)
from .explore.codesign import (
    codesign as codesign,
)
from .explore.codesign import (
    codesign_along as codesign_along,
)
from .explore.codesign import (
    codesign_front as codesign_front,
)
from .explore.codesign import (
    elasticity_table as elasticity_table,
)
from .explore.serve import (
    ClosedLoop as ClosedLoop,
)
from .explore.serve import (
    Service as Service,
)
from .explore.serve import (
    best_service as best_service,
)
from .explore.serve import (
    closed_loop as closed_loop,
)
from .explore.serve import (
    largest_batch as largest_batch,
)
from .explore.serve import (
    serve as serve,
)
from .explore.space import (
    Axis as Axis,
)
from .explore.space import (
    Design as Design,
)
from .explore.space import (
    Range as Range,
)
from .explore.space import (
    Sample as Sample,
)
from .explore.space import (
    Space as Space,
)
from .explore.space import (
    Tied as Tied,
)
from .explore.space import (
    choice as choice,
)
from .explore.space import (
    coordinates as coordinates,
)
from .explore.space import (
    design_at as design_at,
)
from .explore.space import (
    linear_range as linear_range,
)
from .explore.space import (
    log_range as log_range,
)
from .explore.space import (
    sample as sample,
)
from .explore.space import (
    stack as stack,
)
from .explore.space import (
    stacks as stacks,
)
from .explore.sweep import (
    Best as Best,
)
from .explore.sweep import (
    Constraint as Constraint,
)
from .explore.sweep import (
    Distribution as Distribution,
)
from .explore.sweep import (
    Feasibility as Feasibility,
)
from .explore.sweep import (
    Pareto as Pareto,
)
from .explore.sweep import (
    Sweep as Sweep,
)
from .explore.sweep import (
    TopK as TopK,
)
from .explore.sweep import (
    sweep as sweep,
)
from .physics.compute.shards import (
    parameter_count as parameter_count,
)
from .physics.economics.area import (
    by_parts as by_parts,
)
from .physics.economics.area import (
    stack_price as stack_price,
)
from .physics.economics.area import (
    stack_yield as stack_yield,
)
from .physics.memory.capacity import (
    kv_bytes_per_token as kv_bytes_per_token,
)
from .report import (
    Report as Report,
)
from .spec.chip import (
    Chip as Chip,
)
from .spec.chip import (
    Compute as Compute,
)
from .spec.chip import (
    Cooling as Cooling,
)
from .spec.chip import (
    Efficiency as Efficiency,
)
from .spec.chip import (
    Stacking as Stacking,
)
from .spec.fabric import (
    Fabric as Fabric,
)
from .spec.fabric import (
    Link as Link,
)
from .spec.kernels import (
    Kernels as Kernels,
)
from .spec.measurement import (
    Measurements as Measurements,
)
from .spec.memory import (
    TIERS as TIERS,
)
from .spec.memory import (
    Memory as Memory,
)
from .spec.memory import (
    NearMemory as NearMemory,
)
from .spec.model import (
    Model as Model,
)
from .spec.plan import (
    Placement as Placement,
)
from .spec.plan import (
    Plan as Plan,
)
from .spec.plan import (
    Split as Split,
)
from .spec.prices import (
    Knobs as Knobs,
)
from .spec.prices import (
    Prices as Prices,
)
from .spec.silicon import (
    YIELD_MODELS as YIELD_MODELS,
)
from .spec.silicon import (
    Package as Package,
)
from .spec.silicon import (
    Process as Process,
)
from .spec.system import (
    Host as Host,
)
from .spec.system import (
    System as System,
)
from .spec.traffic import (
    Traffic as Traffic,
)
