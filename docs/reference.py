"""Write what the code says of itself: knobs.md, every number with its unit; equations.md; the README's list of studies.

python docs/reference.py
"""

import ast
import dataclasses
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

import jaxcost as jc
from jaxcost.core.pytree import leaf_fields
from jaxcost.edge.catalog.set_option import settable

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PARAGRAPH = "\n\n"
MARKS = ("<!-- studies -->", "<!-- end studies -->")
PACKAGE = HERE.parent / "jaxcost"
# Folders whose files are pages of equations, in the order of the argument.
FOLDERS = (
    "physics/compute",
    "physics/kernels",
    "physics/memory",
    "physics/network",
    "physics/economics",
    "explore/serve",
)
ROOTS = {"system": jc.System, "model": jc.Model, "traffic": jc.Traffic, "plan": jc.Plan, "prices": jc.Prices}
KNOBS = """# Knobs

Every number that a design is made of: what `--set PATH=VALUE`, a space's axes and a study's knobs move, and what
`jax.grad` differentiates by. `jaxcost list leaves TEXT` finds a path; [the model](model.md) and
[its equations](equations.md) say what each does. Units are SI; files and the command line take any unit of the same
kind ("3.35 TB/s"). A default of 0 mostly means that there is none of it; `prices.grid` takes a grid by its name.
This page is written by `python docs/reference.py`.
"""
EQUATIONS = """# Equations

Every equation with its symbols and its source, as the docstrings of the files that compute it have them;
[the model](model.md) says how they fit together. Where no source is named, the equation is a definition or is derived
in place; forms of kernels are fitted, and [calibration](calibration.md) says how well. This page is written by
`python docs/reference.py`.
"""


def trees(tree: type, paths: tuple[str, ...], seen: dict[type, list[str]]) -> None:
    """Collect every kind of tree below one, and the paths at which it stands."""
    seen.setdefault(tree, []).extend(paths)
    hints = typing.get_type_hints(tree)
    for f in leaf_fields(tree):
        below = hints[f.name]
        if dataclasses.is_dataclass(below):
            trees(below, tuple(f"{path}.{f.name}" for path in paths), seen)


def lines(tree: type, paths: list[str], known: set[str]) -> Iterator[str]:
    """One kind of tree: its numbers."""
    rows = [f for f in leaf_fields(tree) if f.metadata["unit"]]
    settled = [f for f in rows if any(f"{path}.{f.name}" in known for path in paths)]
    if not settled:
        return
    where = ", ".join(f"`{path}`" for path in paths)
    yield from ("", f"## {tree.__name__}", "", f"{tree.__doc__.splitlines()[0]} At {where}.", "")
    yield from ("| number | unit | meaning | default | bounds |", "|---|---|---|---|---|")
    for f in settled:
        given = "" if f.default is dataclasses.MISSING else f"{f.default:g}"
        yield f"| `{f.name}` | {f.metadata['unit']} | {f.metadata['doc']} | {given} | {f.metadata['bounds']} |"


def knobs() -> str:
    """The page of numbers."""
    seen: dict[type, list[str]] = {}
    for name, tree in ROOTS.items():
        trees(tree, (name,), seen)
    known = set(settable())
    return (
        KNOBS + "\n".join(line for tree, paths in seen.items() for line in lines(tree, paths, known)) + "\n"
    )


def family(path: Path) -> Iterator[str]:
    """One file of equations: what its docstrings say, formulas as they stand there."""
    module = ast.parse(path.read_text())
    said = ast.get_docstring(module) or ""
    functions = [f for f in module.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]
    told = {f.name: (ast.get_docstring(f) or "").split("\nArgs:")[0].strip() for f in functions}
    told = {name: text for name, text in told.items() if re.search("[=^]", text)}
    if "=" not in said and not told:
        return
    title, _, rest = said.partition("\n")
    yield from ("", f"### {path.stem.replace('_', ' ')}: {title[0].lower()}{title[1:]}", "")
    yield f"`{path.relative_to(PACKAGE.parent)}`"
    if rest.strip():
        yield from ("", "```text", rest.strip("\n"), "```")
    for name, text in told.items():
        yield from ("", f"`{name}`", "", "```text", textwrap.dedent(text), "```")


def equations() -> str:
    """The page of equations."""
    text = [EQUATIONS.rstrip("\n")]
    for folder in FOLDERS:
        about = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
        text += ["", f"## {folder.split('/')[1].capitalize()}", "", about or ""]
        text += [line for path in sorted((PACKAGE / folder).glob("[a-z]*.py")) for line in family(path)]
    return "\n".join(text) + "\n"


def readme() -> str:
    """The README, with one line a study."""
    text = README.read_text()
    scripts = sorted((HERE.parent / "experiments").glob("[0-9][0-9]_*.py"))
    about = {path.stem: ast.get_docstring(ast.parse(path.read_text())) for path in scripts}
    rows = [
        f"| `{name}` | {' '.join(said.partition(PARAGRAPH)[0].split())} |" for name, said in about.items()
    ]
    before, _, rest = text.partition(MARKS[0])
    return (
        before
        + "\n".join((MARKS[0], "| study | what it shows |", "|---|---|", *rows, MARKS[1]))
        + rest.partition(MARKS[1])[2]
    )


PAGES = {HERE / "knobs.md": knobs, HERE / "equations.md": equations, README: readme}


if __name__ == "__main__":
    for page, text in PAGES.items():
        page.write_text(text())
