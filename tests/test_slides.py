"""The slides of Part I have the notebooks' pictures and players, and no exercise."""

import pytest
from bs4 import BeautifulSoup

from notebooks import ROOT, find, read
from slides import NUMBERS, exporter, slides


@pytest.mark.parametrize("number", NUMBERS)
def test_slides_have_each_picture_with_its_text_and_no_exercise(number):
    (path,) = find(ROOT, [number])
    texts = [
        output["metadata"]["image/png"]["alt"]
        for cell in read(path).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    page, _ = exporter().from_notebook_node(slides(read(path)))
    seen = BeautifulSoup(page, "html.parser").select("img, figure svg[role=img]")
    assert [one.get("alt") or one.get("aria-label") for one in seen] == texts
    assert page.count("<section") >= 8
    assert "check(" not in page and "Exercises</h2>" not in page
