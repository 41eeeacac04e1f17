"""Show the unit and the meaning of every leaf: `x: Scalar = field("B/s", "bytes a second")` has this docstring."""

import ast
from typing import Any

import griffe


class FieldDocs(griffe.Extension):
    """Give attributes that are declared by `field(unit, doc)` a docstring."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Read the call."""
        call = getattr(node, "value", None)
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "field"):
            return
        named = dict(zip(("unit", "doc"), call.args, strict=False)) | {k.arg: k.value for k in call.keywords}
        unit, doc = (
            str(named[key].value) if isinstance(named.get(key), ast.Constant) else ""
            for key in ("unit", "doc")
        )
        if doc:
            attr.docstring = griffe.Docstring(f"{doc} [{unit}]" if unit else doc, parent=attr)
        attr.value = None
        attr.labels.clear()
