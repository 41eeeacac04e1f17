"""Build one page with all figures: findings, data, assumptions and sources of each, and an explorer.

    python figures/report.py [--data DIR] [--pictures DIR] [--out FILE]

The page is one file and needs no server: it contains the pictures, the numbers and the tables of the explorer.
"""

import argparse
import base64
import html
import json
import re
from pathlib import Path
from string import Template

from style import ROOT, Data, read

PARTS = Path(__file__).parent / "page"
EXPLORER = "23_explorer"
# The last validation against measured rows, which are no part of a checkout.
VALIDATION, VALIDATED = "07_calibration", ROOT / "docs" / "validation.svg"


def section(name: str, data: Data, picture: Path | None) -> str:
    """One study: title, picture, findings, numbers, assumptions and sources."""
    drawn = image(picture, alternative(data)) if picture else ""
    buttons = "".join(
        f'<button data-study="{name}" data-table="{key}">{html.escape(key)}.csv, {len(table.rows):,} rows</button>'
        for key, table in data.tables.items()
    )
    return f"""<section id="{name}">
<h2><a href="#{name}">{html.escape(data.title)}</a></h2>
{drawn}
{listed(data.findings, "findings")}
<details data-study="{name}"><summary>Numbers</summary><div class="buttons">{buttons}</div><div class="tables"></div></details>
<details><summary>Assumptions and sources</summary>{listed(data.assumptions)}<h3>Sources</h3>{listed(data.sources)}</details>
</section>"""


def image(picture: Path, said: str) -> str:
    """A picture inside the page, that a narrow screen moves sideways."""
    uri = "data:image/svg+xml;base64," + base64.b64encode(picture.read_bytes()).decode()
    return f'<div class="picture"><img src="{uri}" alt="{html.escape(said)}"></div>'


def alternative(data: Data) -> str:
    """What the picture says, in words."""
    return " ".join((f"{data.title}.", *data.findings))


def listed(sentences: tuple[str, ...], kind: str = "") -> str:
    """Sentences as a list, with links to papers."""
    items = "".join(f"<li>{linked(sentence)}</li>" for sentence in sentences)
    return f'<ul class="{kind}">{items}</ul>' if sentences else ""


def linked(text: str) -> str:
    """Text with its papers as links."""
    escaped = html.escape(text)
    escaped = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', escaped)
    return re.sub(
        r"doi[: ](10\.\d{4,}/[^\s,;)]+)", r'<a href="https://doi.org/\1">doi:\1</a>', escaped, flags=re.I
    )


def as_rows(data: Data) -> dict:
    """The numbers of a study as the page's script takes them."""
    return {
        key: {
            "about": table.about,
            "units": table.units,
            "rows": [list(row.values()) for row in table.rows],
        }
        for key, table in data.tables.items()
    }


def validation() -> str:
    """The last validation against measured rows, where this run has none of its own."""
    return f"""<section id="{VALIDATION}">
<h2><a href="#{VALIDATION}">Calibrated kernels against measurements</a></h2>
{image(VALIDATED, "Predicted over measured time of kernels and served models that no fit has seen")}
<p>Measured rows are no part of a checkout; this is the picture of docs/validation.md, which has the numbers and says how
they were made. <code>jaxcost figures --measured DIR</code> makes it anew.</p>
</section>"""


def page(data: Path, pictures: Path) -> str:
    """The whole page."""
    studies = {path.stem: read(path) for path in sorted(data.glob("[0-9][0-9]_*.json")) if is_data(path)}
    manifests = {name: json.loads((data / f"{name}.manifest.json").read_text()) for name in studies}
    sections = []
    for name, study in studies.items():
        picture = pictures / f"{name}.svg"
        if name != EXPLORER:
            sections.append((name, study.title, section(name, study, picture if picture.exists() else None)))
    if VALIDATION not in studies:
        sections.append((VALIDATION, "Calibrated kernels against measurements", validation()))
    sections.sort()
    explorer, tables = studies.get(EXPLORER), data / f"{EXPLORER}.tables.bin"
    versions = next(iter(manifests.values()))["versions"]
    script = (PARTS / "report.js").read_text()
    return Template((PARTS / "report.html").read_text()).substitute(
        style=(PARTS / "report.css").read_text(),
        links="".join(f'<li><a href="#{name}">{html.escape(title)}</a></li>' for name, title, _ in sections),
        sections="\n".join(text for *_, text in sections),
        explorer_notes=listed((*explorer.findings, *explorer.assumptions)) if explorer else "",
        explorer_hidden="" if explorer else "hidden",
        numbers=json.dumps({name: as_rows(study) for name, study in studies.items()}).replace("</", "<\\/"),
        tables=base64.b64encode(tables.read_bytes()).decode() if explorer else "",
        script=script,
        versions=", ".join(f"{package} {version}" for package, version in versions.items()),
        small=" Coarse versions, made to test the page."
        if any(m["small"] for m in manifests.values())
        else "",
    )


def is_data(path: Path) -> bool:
    """Whether a file is an experiment's data, not what stands beside them, such as its manifest."""
    return "." not in path.stem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "experiments" / "out", help="folder of the data")
    parser.add_argument(
        "--pictures", type=Path, default=ROOT / "figures" / "out", help="folder of the pictures"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "out" / "report.html", help="the page")
    args = parser.parse_args()
    text = page(args.data, args.pictures)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)


if __name__ == "__main__":
    main()
