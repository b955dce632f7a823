"""The notebooks that run in a browser: what they import is there, and all is served.

Pyodide, and so the run itself, needs a network: it is not tested here.
"""

import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gossiplib
from lite import PACKAGES, build, copy_of, light
from notebooks import read

#: Refuses to import what the browser lacks, then runs cells as a notebook would.
PROGRAM = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in lacking:
            raise ModuleNotFoundError(f"{name} is not in the browser")
cells, lacking = json.load(sys.stdin)
sys.meta_path.insert(0, Refuse())
for cell in cells:
    exec(cell, globals())
"""


def needed(names):
    """Return distributions and all that they need, by what is installed here."""
    found, left = set(), [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            asked = [Requirement(line) for line in requires(name) or []]
            here = [r for r in asked if not r.marker or r.marker.evaluate()]
            left += [canonicalize_name(r.name) for r in here]
    return found


@pytest.fixture(scope="module")
def lacking():
    """The modules installed here that neither PACKAGES nor IPython bring along."""
    there = needed([*PACKAGES, "ipython"]) | {"gossiplib"}
    return [
        module
        for module, names in packages_distributions().items()
        if not there & {canonicalize_name(name) for name in names}
    ]


@pytest.mark.parametrize("path", light(), ids=lambda path: path.stem)
def test_a_notebook_imports_only_what_the_browser_has(path, lacking):
    assert {"flwr", "ray", "scipy", "sklearn", "torch"} <= set(lacking)
    cells = [c.source for c in read(path).cells if c.cell_type == "code"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([cells, lacking]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder that a web server gives."""
    folder = tmp_path_factory.mktemp("lite") / "out"
    build(folder)
    return folder


def test_the_wheel_is_served_with_what_imports_need(served):
    index = json.loads((served / "pypi" / "all.json").read_text("utf-8"))
    (release,) = index["gossiplib"]["releases"][gossiplib.__version__]
    with zipfile.ZipFile(served / "pypi" / release["filename"]) as wheel:
        held = set(wheel.namelist())
    assert {"gossiplib/__init__.py", "gossiplib/classroom/exercises/nb09.py"} <= held
    settings = json.loads((served / "jupyter-lite.json").read_text("utf-8"))
    plugins = settings["jupyter-config-data"]["litePluginSettings"]
    urls = plugins["@jupyterlite/pyodide-kernel-extension:kernel"]["pipliteUrls"]
    assert any(url.startswith("./pypi/all.json") for url in urls)
    named = settings["jupyter-config-data"]["federated_extensions"]
    assert len(named) == 2 and (served / "lab" / "index.html").is_file()


def test_the_notebooks_are_served_without_answers(served):
    contents = json.loads((served / "api/contents/all.json").read_text("utf-8"))
    listed = {one["name"] for one in contents["content"]}
    assert listed == {path.name for path in light()}
    for path in light():
        notebook = read(served / "files" / path.name)
        assert notebook.cells == copy_of(path).cells
        assert not any(cell.get("outputs") for cell in notebook.cells)
        text = " ".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        assert re.findall(r"\]\((?!https?://)(?!#)", text) == []
        first = next(c.source for c in notebook.cells if c.cell_type == "code")
        assert first.startswith("%pip install") and "--no-deps gossiplib" in first
