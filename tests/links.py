"""Write badges, links and install cells from pyproject.toml's address: `make links`.

The notebooks' cells tagged `badges`, `install` and `links` belong to this file, and so
do the blocks `badges` and `clone` of README.md, and a line of CITATION.cff. A notebook
that lacks one gets it. Where pyproject.toml has no address, nothing is left that would
lead to it.
"""

import copy
import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbformat import NotebookNode

from notebooks import ROOT, find, name, read, replace_block, teaching, write

BRANCH = "main"
WITHOUT_FLOWER = ("02", "03", "09", "T1")


def badges(address: str, path: Path) -> str:
    """Return the badges that open a notebook, by its path here, in Colab and Binder."""
    if not address:
        return ""
    repository = address.removeprefix("https://github.com/")
    file = path.as_posix()
    colab = (
        f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/{file}"
    )
    binder = (
        f"https://mybinder.org/v2/gh/{repository}/{BRANCH}?labpath={quote(file, '')}"
    )
    return (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"({colab})\n"
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def install_cell(address: str, version: str, flower: bool) -> str:
    """Return the cell that installs on Colab, and everywhere checks the version."""
    check = f"""\
import gossiplib

assert gossiplib.__version__ == "{version}", "this notebook needs gossiplib {version}"
"""
    if not address:
        return check.strip()
    archive = f"{address}/archive/{BRANCH}.zip"
    if not flower:
        return f"""\
import sys
from importlib.util import find_spec

if "google.colab" in sys.modules and not find_spec("gossiplib"):
    %pip install --quiet --no-deps lazy_loader {archive}
    assert find_spec("gossiplib"), "not installed: pip tells above why"

{check}""".strip()
    return f"""\
import sys
from importlib.metadata import version
from importlib.util import find_spec

needed = ("flwr", "gossiplib")
if "google.colab" in sys.modules and not all(map(find_spec, needed)):
    keep = f"numpy=={{version('numpy')}} torch=={{version('torch')}}"
    %pip install --quiet {{keep}} {archive}
    assert all(map(find_spec, needed)), "not installed: pip tells above why"
    print("Installed. Now choose Runtime > Restart session, then run on from here.")

{check}""".strip()


def neighbours(paths: list[Path], path: Path) -> str:
    """Return the links to the notebook before and after."""
    here = paths.index(path)
    before = [f"Previous: [{name(p)}]({p.name})" for p in paths[:here][-1:]]
    after = [f"Next: [{name(p)}]({p.name})" for p in paths[here + 1 :][:1]]
    middle = "[All notebooks](../README.md)"
    if path.parent.name == "teaching":
        middle = "[Teacher's guide](../teachers_guide.md)"
    return " | ".join([*before, middle, *after])


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """Return the cells that carry a tag."""
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


def put(notebook: NotebookNode, tag: str, source: str, index: int) -> None:
    """Set the source of the cell with a tag: add it, or take it out if empty."""
    if not source:
        notebook.cells = [c for c in notebook.cells if c not in tagged(notebook, tag)]
        return
    if not tagged(notebook, tag):
        kind = "code" if tag == "install" else "markdown"
        cell = getattr(nbformat.v4, f"new_{kind}_cell")(metadata={"tags": [tag]})
        notebook.cells.insert(index, cell)
    (cell,) = tagged(notebook, tag)
    cell.source = source


def hosted(address: str, first: Path) -> str:
    """Return what README.md says of Colab and Binder."""
    if not address:
        return ""
    return f"""\
{badges(address, first)}

In Colab, the first code cell installs what is missing and leaves numpy and PyTorch as
they are; where it says so, restart the session and run on. Binder needs nothing."""


def links(root: Path, check: bool = False) -> list[str]:
    """Bring badges, links and install cells up to date; return the files that differ.

    With `check`, nothing is written.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    address = project.get("urls", {}).get("Repository", "")
    version = project["version"]
    if address and not address.startswith("https://github.com/"):
        raise ValueError("Colab and the archive's name need an address on GitHub")
    paths, stale = find(root), []
    for path in [*paths, *teaching(root)]:
        old = read(path)
        new = copy.deepcopy(old)
        flower = not path.name.startswith(WITHOUT_FLOWER)
        put(new, "badges", badges(address, path.relative_to(root)), 1)
        put(new, "install", install_cell(address, version, flower), 1 + bool(address))
        (cell,) = tagged(new, "install")
        cell.metadata.pop("jupyter", None)
        if address:  # Colab shows it; who reads elsewhere has no use for it
            cell.metadata["jupyter"] = {"source_hidden": True}
        series = paths if path in paths else teaching(root)
        put(new, "links", neighbours(series, path), len(new.cells))
        if new != old:
            stale.append(path.name)
            if not check:
                write(new, path)
    readme, cited = root / "README.md", root / "CITATION.cff"
    text, citation = readme.read_text(), cited.read_text()
    clone = f"git clone {address}\ncd {address.rsplit('/', 1)[1]}\n" if address else ""
    new = replace_block(text, "badges", hosted(address, paths[0].relative_to(root)))
    new = replace_block(new, "clone", f"```sh\n{clone}make lab\n```")
    plain = re.sub("(?m)^repository-code: .*\n", "", citation)
    line = f'repository-code: "{address}"\n' if address else ""
    for file, before, after in (
        (readme, text, new),
        (cited, citation, plain.replace("keywords:\n", f"{line}keywords:\n")),
    ):
        if after != before:
            stale.append(file.name)
            if not check:
                file.write_text(after)
    return stale


if __name__ == "__main__":
    print("\n".join(links(ROOT)) or "nothing to do")
