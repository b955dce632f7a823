"""Make slides of the notebooks, into out/slides: `make slides`.

    python tests/slides.py [--to FOLDER] [NUMBER ...]

`lecture.html` is for 90 minutes: the sections of Part I that the teacher's guide goes
through. The others, one a notebook, are for a day or a term. A heading begins a slide,
a picture a slide below it. Of the text there is the first paragraph, of the code what a
reader writes; guesses are asked for, exercises left out. The pages hold their pictures
and players; reveal.js comes from the network when a page is opened.
"""

import argparse
import re
from pathlib import Path
from typing import Any

from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from traitlets.config import Config

from notebooks import ROOT, find, read, teaching

OUT = ROOT / "out" / "slides"
#: Notebook -> the headings of its sections in the lecture.
LECTURE = {
    "00": ["00 - What is gossip learning?", "A two arrives"],
    "02": ["From a graph to W", "The spectral gap", "Why one number: the slow wave"],
    "03": ["A rumour", "Theory's line", "A graph that changes"],
    "05": [
        "From FedAvg to Gossip: one line",
        "Training pulls apart, averaging pulls together",
    ],
    "T1": ["A liar"],
}
#: What ends a lecture, and stays in the notebook.
END = re.compile(r"^## (Exercises|References)", re.MULTILINE)
#: Cells without a place on a slide.
NOT_SHOWN = re.compile(
    r"^(import|from) |assert gossiplib|^my_\w+ = None|^check\(", re.M
)
MOST_LINES = 16
FOLDED = "hide-input"


def parted(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Return cells in which each heading begins a cell of its own."""
    made = []
    for cell in cells:
        if cell.cell_type != "markdown":
            made.append(cell)
            continue
        for part in re.split(r"^(?=##+ )", cell.source, flags=re.MULTILINE):
            if part.strip():
                made.append(new_markdown_cell(part.strip()))
    return made


def height(cell: NotebookNode) -> float:
    """Return about how much of a slide a cell takes; 1 is all of it."""
    if cell.cell_type == "markdown":
        rows = sum(1 + len(line) / 100 for line in cell.source.splitlines())
        return 0.04 * rows
    lines = (
        0 if FOLDED in cell.metadata.get("tags", []) else cell.source.count("\n") + 2
    )
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            return 0.7
        lines += output.get("text", data.get("text/plain", "")).count("\n") + 2
    return 0.03 * lines


def slides(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook of slides."""
    made, full = [], 0.0
    for cell in parted(notebook.cells):
        if cell.cell_type == "markdown" and END.search(cell.source):
            break
        kind, folded = "-", FOLDED in cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            paragraphs = re.sub(r"<details>.*?</details>", "", cell.source, flags=re.S)
            parts = [part for part in paragraphs.split("\n\n") if part.strip()]
            heading = parts and parts[0].startswith("#")
            asks = [part for part in parts[1:] if "uess first" in part]
            cell.source = "\n\n".join(parts[: 2 if heading else 1] + asks)
            kind = "slide" if heading else "fragment"
        elif any("image/png" in o.get("data", {}) for o in cell.outputs):
            folded, kind = True, "subslide"
        elif NOT_SHOWN.search(cell.source) and not cell.outputs:
            continue
        if cell.cell_type == "code" and (
            folded or cell.source.count("\n") >= MOST_LINES
        ):
            cell.metadata["tags"] = [FOLDED]
        full = height(cell) + (0 if kind in ("slide", "subslide") else full)
        if full > 1 and kind in ("-", "fragment"):  # there is no room for it
            kind, full = "subslide", height(cell)
        cell.metadata["slideshow"] = {"slide_type": kind}
        made.append(cell)
    notebook.cells = made
    return notebook


def lecture() -> NotebookNode:
    """Return the slides of the lecture: the sections of `LECTURE`.

    Raises
    ------
    ValueError
        If a notebook has no such heading.
    """
    made = []
    for number, wanted in LECTURE.items():
        (path,) = find(ROOT, [number]) or teaching(ROOT, [number])
        shown, missing = False, set(wanted)
        for cell in slides(read(path)).cells:
            if heading := re.match(r"##? (.+)", cell.source):
                shown = heading[1] in wanted
                missing.discard(heading[1])
            cell.id = f"{number}-{cell.id}"  # each once
            made += [cell] if shown else []
        if missing:
            raise ValueError(f"{path.name} has no section {', '.join(missing)}")
    return new_notebook(cells=made)


def exporter() -> SlidesExporter:
    """Return what makes a page of a notebook of slides."""
    folded = {"enabled": True, "remove_input_tags": [FOLDED]}
    texts: dict[str, Any] = {"preprocessors": ["gossiplib.viz._alt.AltText"]}
    texts["reveal_scroll"] = True  # where one cell is longer than a slide
    settings = {"TagRemovePreprocessor": folded, "SlidesExporter": texts}
    made = SlidesExporter(config=Config(settings))
    made.exclude_input_prompt = made.exclude_output_prompt = True
    return made


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=OUT, help="the folder")
    parser.add_argument("numbers", nargs="*", help="for example 02 T1; default: all")
    given = parser.parse_args()
    made = {
        path.stem: slides(read(path))
        for path in find(ROOT, given.numbers) + teaching(ROOT, given.numbers)
    }
    if not given.numbers:
        made["lecture"] = lecture()
    given.to.mkdir(parents=True, exist_ok=True)
    for name, notebook in made.items():
        page, _ = exporter().from_notebook_node(notebook)
        (given.to / f"{name}.html").write_text(page, "utf-8")
    print(f"Slides are in {given.to}: open one with a network.")


if __name__ == "__main__":
    main()
