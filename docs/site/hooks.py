"""What the site adds to docs/: the pages of the repository's root, links to the repository, objects of the API.

The README, CONTRIBUTING.md and CHANGELOG.md are pages of the site as they are. A relative link to a file that is no
page of the site leads to the repository. `::: jaxcost.NAME` in docs/api names the public object; mkdocstrings reads
files without importing them, so it is given the module that defines the object.
"""

import posixpath
import re
import sys
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
DIRECTIVE = re.compile(r"^::: jaxcost\.(\w+)$", re.M)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root, and import the package from there."""
    sys.path.insert(0, str(ROOT))  # here, because MkDocs restores the path after it has loaded the hooks
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Resolve links and objects of the API."""
    name = page.file.src_uri
    source = PAGES.get(name, f"docs/{name}")

    def resolve(link: re.Match) -> str:
        start, target, anchor, end = link.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        of_root = {path: page for page, path in PAGES.items()}
        uri = of_root.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri) is not None:
            target = posixpath.relpath(uri, posixpath.dirname(name) or ".")
        elif (ROOT / path).exists():
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            target = f"{config.repo_url}/{kind}/main/{path}"
        return f"{start}{target}{anchor or ''}{end}"

    return DIRECTIVE.sub(lambda match: _object(match[1]), LINK.sub(resolve, markdown))


def _object(name: str) -> str:
    """Return the directive of a public object, under its public name."""
    import jaxcost

    path = _defined_at(name, getattr(jaxcost, name))
    return f"::: {path}\n    options:\n      heading: {name}\n      toc_label: {name}\n"


def _defined_at(name: str, value: object) -> str:
    """Return the path of the definition of a public object."""
    if getattr(value, "__qualname__", None):
        return f"{value.__module__}.{value.__qualname__}"
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType) and m.__name__ != "jaxcost"]
    where = [m for m in modules if m.__name__.startswith("jaxcost.") and getattr(m, name, None) is value]
    defined = [m for m in where if re.search(rf"^{name}\b.*=", Path(m.__file__ or "").read_text(), re.M)]
    return f"{defined[0].__name__}.{name}"
