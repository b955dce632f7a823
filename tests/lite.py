"""The notebooks without Flower and torch, as JupyterLite: they run in a browser.

    python tests/lite.py FOLDER

What `make site` puts beside its pages: JupyterLab, a wheel of gossiplib and copies of
those notebooks, as files that any web server can give. Python for browsers, Pyodide,
comes from its usual address when a reader starts a notebook, and with it numpy and the
like; gossiplib comes from here, without its dependencies, since neither Flower nor
torch runs there.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

import gossiplib
from links import WITHOUT_FLOWER, install_cell, put, tagged
from notebooks import ROOT, find, read, teaching, unanswered

#: What a notebook needs beside gossiplib: Pyodide's own, and ipywidgets from PyPI.
PACKAGES = ("ipywidgets", "lazy_loader", "matplotlib", "networkx", "pandas")
#: JupyterLab's extensions that go along: the kernel, and what draws widgets.
EXTENSIONS = (
    "@jupyterlite/pyodide-kernel-extension",
    "@jupyter-widgets/jupyterlab-manager",
)


def light() -> list[Path]:
    """Return the notebooks that need neither Flower nor torch."""
    return find(ROOT, WITHOUT_FLOWER) + teaching(ROOT, WITHOUT_FLOWER)


def copy_of(path: Path) -> NotebookNode:
    """Return a notebook as it runs there: it installs, and nothing is answered yet."""
    notebook = read(path)
    put(notebook, "badges", "", 1)
    put(notebook, "links", "", 1)
    (cell,) = tagged(notebook, "install")
    cell.metadata.pop("jupyter", None)
    cell.source = f"""\
%pip install --quiet {" ".join(PACKAGES)}
%pip install --quiet --no-deps gossiplib

{install_cell("", gossiplib.__version__, flower=False)}"""
    return unanswered(notebook, lambda link: False)


def build(folder: Path) -> None:
    """Write JupyterLite, the wheel and the notebooks into a folder."""
    shared = Path(sys.prefix) / "share" / "jupyter" / "labextensions"
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        (home / "notebooks").mkdir()
        for path in light():
            nbformat.write(copy_of(path), home / "notebooks" / path.name)
        wheel = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
        run([*wheel, "--directory", home / "pypi"], ROOT)  # where JupyterLite looks
        lite = [sys.executable, "-m", "jupyterlite_core", "build", "--output-dir"]
        choices = ["--contents=notebooks", "--apps=lab", "--no-unused-shared-packages"]
        choices += ["--no-sourcemaps", "--ignore-sys-prefix"]
        wanted = [shared / name for name in EXTENSIONS]
        choices += [f"--LiteBuildConfig.federated_extensions={w}" for w in wanted]
        run([*lite, folder.resolve(), *choices], home)


def run(command: list[object], folder: Path) -> None:
    """Run a command in a folder; say what it said if it fails."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
