"""jaxcost: latency, capacity, energy, cost and carbon of LLM inference, as one differentiable JAX function.

Every name of `__init__.pyi` is imported when it is first used, so that `import jaxcost` costs next to nothing.
"""

import lazy_loader

from jaxcost.core.display import RENDERERS

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

RENDERERS["Report"] = "jaxcost.edge.show.report_view"
