"""Slides have the notebooks' pictures and players, and no exercise."""

import re

import pytest
from bs4 import BeautifulSoup

from notebooks import ROOT, find, read, teaching
from slides import END, LECTURE, exporter, lecture, slides

NOTEBOOKS = find(ROOT) + teaching(ROOT)


def texts_of(notebook):
    return [
        output["metadata"]["image/png"]["alt"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])
def test_slides_have_each_picture_with_its_text_and_no_exercise(path):
    notebook = slides(read(path))
    page, _ = exporter().from_notebook_node(notebook)
    seen = BeautifulSoup(page, "html.parser").select("img, figure svg[role=img]")
    assert [one.get("alt") or one.get("aria-label") for one in seen] == texts_of(
        notebook
    )
    source = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    sections = re.findall(r"(?m)^##+ (.+)$", END.split(source)[0])
    told = "\n".join(cell.source for cell in notebook.cells)
    assert re.findall(r"(?m)^##+ (.+)$", told) == sections
    assert "check(" not in page and "Exercises</h2>" not in page


def test_the_lecture_has_its_sections_and_what_moves_in_them():
    cells = lecture().cells
    headings = [
        cell.source.splitlines()[0].lstrip("# ")
        for cell in cells
        if cell.source.startswith("#")
    ]
    assert headings == [heading for some in LECTURE.values() for heading in some]
    pages = [
        o.data["text/html"]
        for c in cells
        for o in c.get("outputs", ())
        if "data" in o and "text/html" in o.data
    ]
    assert sum("view.src" in page or "view.query" in page for page in pages) >= 3


def test_a_section_that_is_gone_is_named(monkeypatch):
    monkeypatch.setitem(LECTURE, "02", ["A section of yore"])
    with pytest.raises(ValueError, match="no section A section of yore"):
        lecture()
