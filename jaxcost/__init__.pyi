"""The public names, for type checkers and for `__init__`, which imports each when it is first used."""

from ._version import __version__ as __version__
from .core.pytree import (
    canonical as canonical,
    replace as replace,
    replace_at as replace_at,
    rows as rows,
)
from .edge.catalog.checkpoints import (
    Checkpoint as Checkpoint,
    load_checkpoint as load_checkpoint,
)
from .edge.catalog.drafts import (
    with_draft as with_draft,
)
from .edge.catalog.engines import (
    load_engine as load_engine,
)
from .edge.catalog.loaders import (
    list_names as list_names,
    load_chip as load_chip,
    load_efficiency as load_efficiency,
    load_memory as load_memory,
    load_model as load_model,
    load_prices as load_prices,
    load_system as load_system,
)
from .edge.catalog.tiers import (
    add_near as add_near,
    add_tier as add_tier,
    load_near as load_near,
)
from .edge.catalog.uncertain import (
    intervals as intervals,
)
from .edge.io.errors import (
    InputError as InputError,
    RunError as RunError,
)
from .edge.jobs.long_run import (
    Outcome as Outcome,
    Progress as Progress,
    run_sweep as run_sweep,
)
from .edge.measured.files import (
    read_measured as read_measured,
)
from .edge.studies.space_file import (
    load_space as load_space,
)
from .edge.traces.reader import (
    load_trace as load_trace,
)
from .edge.traces.writer import (
    save_trace as save_trace,
)
from .explore.analysis import (
    Choice as Choice,
    Finding as Finding,
    Intervals as Intervals,
    Remedy as Remedy,
    best_plan as best_plan,
    diagnose as diagnose,
    elasticities as elasticities,
    evaluate as evaluate,
    find_remedies as find_remedies,
    gradient as gradient,
    ttft_alone as ttft_alone,
)
from .explore.calibrate import (
    Fitted as Fitted,
    HeldOut as HeldOut,
    Pooled as Pooled,
    calibrate as calibrate,
    held_out as held_out,
    pool_chips as pool_chips,
)
from .explore.codesign import (
    Along as Along,
    BreakEven as BreakEven,
    Codesign as Codesign,
    Elasticities as Elasticities,
    Front as Front,
    Problem as Problem,
    break_even as break_even,
    codesign as codesign,
    codesign_along as codesign_along,
    codesign_front as codesign_front,
    elasticity_table as elasticity_table,
)
from .explore.recommend import (
    Candidate as Candidate,
    Recommendation as Recommendation,
    Verification as Verification,
    recommend as recommend,
)
from .explore.replay import (
    Bench as Bench,
    Latencies as Latencies,
    PrefixCache as PrefixCache,
    Replay as Replay,
    agent_trace as agent_trace,
    bench as bench,
    hit_curve as hit_curve,
    replay as replay,
    retime as retime,
    synthetic_trace as synthetic_trace,
)
from .explore.serve import (
    ChipCount as ChipCount,
    ClosedLoop as ClosedLoop,
    MemoryFit as MemoryFit,
    Service as Service,
    ServingFront as ServingFront,
    best_service as best_service,
    closed_loop as closed_loop,
    count_chips as count_chips,
    fit as fit,
    largest_batch as largest_batch,
    serve as serve,
    serving_front as serving_front,
    serving_plans as serving_plans,
)
from .explore.space import (
    Axis as Axis,
    Range as Range,
    Sample as Sample,
    Space as Space,
    Tied as Tied,
    choice as choice,
    coordinates as coordinates,
    design_at as design_at,
    linear_range as linear_range,
    log_range as log_range,
    sample as sample,
    stack as stack,
    stacks as stacks,
)
from .explore.sweep import (
    Best as Best,
    Constraint as Constraint,
    Distribution as Distribution,
    Feasibility as Feasibility,
    Pareto as Pareto,
    Sweep as Sweep,
    TopK as TopK,
    sweep as sweep,
)
from .physics.compute.shards import (
    parameter_count as parameter_count,
)
from .physics.economics.area import (
    by_parts as by_parts,
    stack_price as stack_price,
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
    Compute as Compute,
    Cooling as Cooling,
    Efficiency as Efficiency,
    Stacking as Stacking,
)
from .spec.design import (
    Design as Design,
)
from .spec.engine import (
    Engine as Engine,
)
from .spec.fabric import (
    Fabric as Fabric,
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
    Memory as Memory,
    NearMemory as NearMemory,
)
from .spec.model import (
    Model as Model,
)
from .spec.plan import (
    Placement as Placement,
    Plan as Plan,
    Split as Split,
)
from .spec.prices import (
    Knobs as Knobs,
    Prices as Prices,
)
from .spec.silicon import (
    YIELD_MODELS as YIELD_MODELS,
    Package as Package,
    Process as Process,
)
from .spec.system import (
    Host as Host,
    System as System,
)
from .spec.trace import (
    Trace as Trace,
)
from .spec.traffic import (
    Traffic as Traffic,
)
