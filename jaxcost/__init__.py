"""jaxcost: latency, capacity, energy, cost and carbon of LLM inference, as one differentiable JAX function."""

from jaxcost.core.pytree import canonical, replace, replace_at, rows
from jaxcost.evaluate import evaluate
from jaxcost.physics.capacity import kv_bytes_per_token
from jaxcost.report import Report
from jaxcost.spec.chip import Chip
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic
