"""The site: README, notebooks, guide, glossary and API, as pages. `make site`.

Sphinx reads them where they are, from the root of the repository, and runs none of
them: the outputs on the pages are those stored in the notebooks.
"""

import json
import re
import shutil
import tomllib
from pathlib import Path

import latex2mathml.converter
from docutils import nodes

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ADDRESS = PROJECT.get("urls", {}).get("Repository", "")
GUESS = re.compile(r"(my_\w+) = None(  #.*)?")
LIGHT = ("02", "03", "09", "T1")  # as in tests/links.py
PROMPTS = "Show the {type}", "Hide the {type}"
PAGES = """

```{toctree}
:hidden:
:caption: The series
:glob:

notebooks/[0-9]*
```

```{toctree}
:hidden:
:caption: Beside it

notebooks/glossary
notebooks/protocols
notebooks/failures
notebooks/house
notebooks/speed
notebooks/teachers_guide
notebooks/teaching/T1_unplugged
notebooks/teaching/T2_fault_detective
notebooks/site/api
```
"""

project = PROJECT["description"]
version = release = PROJECT["version"]
author = "its contributors"
html_title = "Gossip learning"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
root_doc = "README"
include_patterns = ["README.md", "notebooks/**"]
exclude_patterns = [".*", "gossiplib", "out", "tests", "notebooks/site/templates"]
templates_path = [str(ROOT / "notebooks/site/templates")]  # autosummary reads from ROOT

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = PROMPTS
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
myst_heading_anchors = 4  # the guide and the README link to their own headings
suppress_warnings = ["ref.python"]  # a class that two modules offer
autodoc_typehints = "none"  # numpydoc's sections tell types, with shapes and units
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
default_role = "py:obj"  # `name` in a docstring: code, and a link where it is known

html_theme = "sphinx_book_theme"
html_static_path = ["custom.css"]
html_css_files = ["custom.css"]
html_favicon = "icon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_copy_source = False
html_domain_indices = False  # the page of the API lists all modules
html_theme_options = {
    "use_download_button": False,
    "show_toc_level": 2,
    "max_navbar_depth": 1,  # what unfolds has no name that a screen reader could say
    "navbar_persistent": [],  # the search has its field in the menu
}
if ADDRESS:  # or else no button would lead anywhere
    html_theme_options |= {
        "repository_url": ADDRESS,
        "repository_branch": "main",
        "use_repository_button": True,
        "use_edit_page_button": True,
        "use_issues_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }


def add_pages(app, docname, source):
    """Let the README, which is the first page, list the others."""
    if docname == root_doc:
        source[0] += PAGES


def link_to_lite(app, docname, source):
    """Lead from a notebook's first lines to where it runs in the browser.

    `tests/lite.py` puts it there. Whoever reads the pages as files has no such place:
    a browser runs it only from a web server.
    """
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".ipynb" and path.name.startswith(LIGHT):
        notebook = json.loads(source[0])
        there = f"{'../' * docname.count('/')}lite/lab/index.html?path={path.name}"
        first = notebook["cells"][0]
        first["source"] = f"""{"".join(first["source"])}

<a href="{there}">Run this notebook in your browser</a>, with nothing to install. Its
first cell fetches Python's packages from the network, and takes its time.
"""
        source[0] = json.dumps(notebook)


def link_elsewhere(app, docname, source):
    """Link to the repository where a page links to a file that is no page here.

    Where the repository has no address yet, the words stay without a link.
    """
    folder = Path(app.env.doc2path(docname)).parent

    def link(found):
        path = (folder / found[2]).resolve()
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else None
        if not name or not path.exists() or path.suffix in (".gif", ".png", ".svg"):
            return found[0]
        if app.env.path2doc(str(path)) in app.env.found_docs and path.is_file():
            return found[0]
        there = f"({ADDRESS}/blob/main/{name.as_posix()})"
        return f"[{found[1]}]{there}" if ADDRESS else found[1]

    source[0] = re.sub(r"\[([^][]*)\]\(([\w./-]+)\)", link, source[0])


def describe_pictures(app, doctree):
    """Give each picture of a notebook the words that stand in its output.

    A picture from elsewhere, a badge, becomes its words: it is not there offline.
    """
    path = Path(app.env.doc2path(app.env.docname))
    pictures = list(doctree.findall(nodes.image))
    for image in pictures:
        if "://" in image["uri"]:
            image.replace_self(nodes.Text(image["alt"]))
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text("utf-8"))["cells"]
        outputs = [o for cell in cells for o in cell.get("outputs", [])]
        words = [
            o["metadata"]["image/png"]["alt"]
            for o in outputs
            if "image/png" in o.get("data", {})
        ]
        drawn = [image for image in pictures if "jupyter_execute" in image["uri"]]
        for image, alt in zip(drawn, words, strict=True):
            image["alt"] = alt


def keep_guesses(app, doctree):
    """Fold the outputs that answer a guess: nobody guesses what is in view.

    They are those of the cells below it, until the next words, and of all that use it.
    """
    names = set()
    for cell in filter(is_code, doctree.findall(nodes.container)):
        before = cell.parent[max(0, cell.parent.index(cell) - 1)]
        source = cell[0].astext()
        asked = [GUESS.fullmatch(line) for line in source.splitlines()]
        if asked and all(asked):
            names |= {found[1] for found in asked}
            cell["guessed"] = True
        elif before.get("guessed") or names & set(re.findall(r"\w+", source)):
            cell["guessed"] = before.get("guessed", False)
            code = "input+" if cell.get("hide_mode") == "input" else ""
            cell["hide_mode"] = f"{code}output"
            cell["prompt_show"], cell["prompt_hide"] = PROMPTS


def is_code(node):
    """Tell whether a node of a page is a code cell of its notebook."""
    return node.get("nb_element") == "cell_code"


def formula(display):
    """Return a renderer of formulas as MathML, which browsers draw offline."""

    def visit(self, node):
        drawn = latex2mathml.converter.convert(node.astext(), display=display)
        # A long one scrolls, also by keyboard: the theme's script looks for this class.
        box = '<div class="pst-scrollable-table-container">{}</div>'
        self.body.append(box.format(drawn) if display == "block" else drawn)
        raise nodes.SkipNode

    return visit, None


def write_index(app, exception):
    """Put the first page where a server, and a reader, look for it."""
    if exception is None:
        shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app):
    """Connect the functions above."""
    app.connect("source-read", add_pages)
    app.connect("source-read", link_elsewhere)
    app.connect("source-read", link_to_lite)
    app.connect("doctree-read", describe_pictures, priority=100)
    app.connect("doctree-read", keep_guesses)
    app.add_html_math_renderer("mathml", formula("inline"), formula("block"))
    app.connect("build-finished", write_index)
