"""Make a lecture's slides of notebooks: `make slides`, 00 to 05, into out/slides.

    python tests/slides.py [NUMBER ...]

A heading begins a slide, a picture a slide below it. Of the text there is the first
paragraph, of the code what a reader writes; guesses are asked for, exercises left out.
The pages hold their pictures and players; reveal.js comes from the network when a page
is opened.
"""

import re
import sys

from nbconvert import SlidesExporter
from nbformat import NotebookNode
from traitlets.config import Config

from notebooks import ROOT, find, read

OUT = ROOT / "out" / "slides"
NUMBERS = [f"{k:02d}" for k in range(6)]
#: What ends a lecture, and stays in the notebook.
END = re.compile(r"^## (Exercises|References)", re.MULTILINE)
#: Cells without a place on a slide.
NOT_SHOWN = re.compile(
    r"^(import|from) |assert gossiplib|^my_\w+ = None|^check\(", re.M
)
MOST_LINES = 16
FOLDED = "hide-input"


def slides(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook of slides."""
    made = []
    for cell in notebook.cells:
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
        cell.metadata["slideshow"] = {"slide_type": kind}
        made.append(cell)
    notebook.cells = made
    return notebook


def exporter() -> SlidesExporter:
    """Return what makes a page of a notebook of slides."""
    folded = {"enabled": True, "remove_input_tags": [FOLDED]}
    texts = {"preprocessors": ["gossiplib.viz._alt.AltText"]}
    settings = {"TagRemovePreprocessor": folded, "SlidesExporter": texts}
    made = SlidesExporter(config=Config(settings))
    made.exclude_input_prompt = made.exclude_output_prompt = True
    return made


def main(*numbers: str) -> None:
    """Write a page of slides for each notebook."""
    OUT.mkdir(parents=True, exist_ok=True)
    for path in find(ROOT, numbers or NUMBERS):
        page, _ = exporter().from_notebook_node(slides(read(path)))
        (OUT / f"{path.stem}.html").write_text(page)
    print(f"Slides are in {OUT.relative_to(ROOT)}: open one with a network.")


if __name__ == "__main__":
    main(*sys.argv[1:])
