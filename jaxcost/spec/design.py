"""Everything that one evaluation takes, as one tree."""

from jaxcost.core.pytree import field, pytree
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["Design"]


@pytree
class Design:
    """A model on a system, under a traffic and a plan, with prices: the arguments of `evaluate`."""

    system: System = field(doc="chips, links and hosts")
    model: Model = field(doc="the language model")
    traffic: Traffic = field(doc="what the users ask for", default=Traffic)
    plan: Plan = field(doc="how the model is laid out", default=Plan)
    prices: Prices = field(doc="costs of energy, building and carbon", default=Prices)
    knobs: Knobs = field(doc="numerical softness", default=Knobs)
