"""How a result is shown by `print` and in a notebook: by functions of a layer above, named here until they are used."""

import importlib
from typing import Any

import numpy as np

__all__ = ["RENDERERS", "Displayed"]

# By class name, the module of its `as_text` and `as_html`. The package's own `__init__` fills it.
RENDERERS: dict[str, str] = {}


class Displayed:
    """A tree that `print` shows as tables, where each of its leaves is one number, and by its `repr` elsewhere."""

    def __str__(self) -> str:
        """Return the tables that the command line prints."""
        return self._rendered("as_text") or repr(self)

    def _repr_html_(self) -> str | None:
        return self._rendered("as_html")

    def _rendered(self, form: str) -> str | None:
        module = RENDERERS.get(type(self).__name__)
        if module is None or not _is_one_result(self):
            return None
        return getattr(importlib.import_module(module), form)(self)


def _is_one_result(tree: Any) -> bool:
    """Tell whether every number of a tree is known and there is one of each: no tracer, and no batch."""
    import jax
    from jax.core import Tracer

    from jaxcost.core.pytree import rows

    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree)):
        return False
    return all(np.ndim(value) == 0 for _, _, value in rows(tree))
