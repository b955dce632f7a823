"""The slides of Part I have the notebooks' pictures and players, and no exercise."""

import re

import pytest
from nbconvert import SlidesExporter

from notebooks import ROOT, find, read
from slides import NUMBERS, slides


@pytest.mark.parametrize("number", NUMBERS)
def test_slides_have_each_picture_and_no_exercise(number):
    (path,) = find(ROOT, [number])
    pictures = sum(
        "image/png" in output.get("data", {})
        for cell in read(path).cells
        for output in cell.get("outputs", [])
    )
    page, _ = SlidesExporter().from_notebook_node(slides(read(path)))
    assert page.count("<section") >= 8
    assert len(re.findall(r'<img alt="[^"]', page)) == pictures
    assert "check(" not in page and "Exercises</h2>" not in page
