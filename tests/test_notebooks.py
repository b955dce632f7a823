"""The state in which the notebooks are kept.

nbval runs them; this reads them. It never compares a cell that was not executed, and
passes a failing %pip, so what it cannot see is held here.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from gossiplib import __version__
from links import install_cell, links, tagged
from moving import MOVING, ROUNDS
from notebooks import (
    READING_TIME,
    ROOT,
    RUN_TIME,
    execute,
    find,
    limits,
    question,
    read,
    stated,
    table,
    teaching,
)
from processes import HEAVY, private_environment

CHECKED = 3
AROUND = ("README.md", "CITATION.cff", "pyproject.toml")
LINES = 20
SHOWN = ("show", "play", "recolour")
BYTES = 1_000_000
MACHINE = re.compile(r"/(root|work|home|tmp|Users)/|site-packages|[A-Z]:\\Users")
WARNING = re.compile(r"warning", re.IGNORECASE)
NOTEBOOKS = find(ROOT)


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return read(path)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def outputs(code):
    return [output for cell in code for output in cell.outputs]


def text_of(output):
    """Return all that an output says, pictures aside."""
    data = output.get("data", {})
    return "\n".join(
        [output.get("text", ""), *(str(data[k]) for k in data if "image/" not in k)]
    )


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_badges_links_and_install_cells_are_up_to_date():
    assert links(ROOT, check=True) == [], "run `make links`"


@pytest.fixture
def series(tmp_path):
    """A copy of what `make links` writes, and of the address it writes it from."""
    for folder in ("notebooks", "notebooks/teaching"):
        (tmp_path / folder).mkdir()
    for path in (*find(ROOT)[:3], *teaching(ROOT), *map(ROOT.joinpath, AROUND)):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    return tmp_path


def test_no_reader_meets_an_address_before_there_is_one(series):
    project, address = series / "pyproject.toml", "https://github.com/some/one"
    text = re.sub("(?m)^Repository = .*\n", "", project.read_text())
    project.write_text(text)
    links(series)
    files = [p for p in series.rglob("*") if p.is_file()]
    without = {path: path.read_text() for path in files}
    for path in files:
        assert not re.search("OWNER|google.colab|mybinder|git clone", without[path]), (
            path
        )
    line = f'[project.urls]\nRepository = "{address}"'
    project.write_text(text.replace("[project.urls]", line))
    changed = set(links(series))
    assert changed == {p.name for p in files if p != project}
    for path in set(files) - {project}:
        assert "some/one" in path.read_text(), path
    project.write_text(text)
    links(series)
    assert {path: path.read_text() for path in files} == without


def run_on_colab(number, there, comes):
    """Run an install cell as on Colab, where pip brings what `comes`; what it prints.

    `there` are the packages that can be found before.
    """
    found, printed = set(there), []

    def line_magic(name, line):
        assert name == "pip" and "https://github.com/some/one/archive" in line
        found.update(comes)

    cell = install_cell("https://github.com/some/one", __version__, number == "04")
    source = TransformerManager().transform_cell(cell)
    stub = SimpleNamespace(run_line_magic=line_magic)
    space = {"get_ipython": lambda: stub, "print": printed.append}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
        patch.setattr("importlib.util.find_spec", lambda n: n in found or None)
        exec(source, space)
    return printed


@pytest.mark.parametrize("there", [(), ("flwr",), ("gossiplib",)])
def test_on_colab_it_says_installed_only_when_it_is(there):
    both = ("flwr", "gossiplib")
    (said,) = run_on_colab("04", there, both)
    assert said.startswith("Installed.")
    assert run_on_colab("04", both, ()) == []
    assert run_on_colab("02", there, both) == []
    for missing in ((), ("flwr",)):  # pip fails, and raises nothing
        if "gossiplib" not in there:
            with pytest.raises(AssertionError, match="not installed"):
                run_on_colab("02", there, missing)
            with pytest.raises(AssertionError, match="not installed"):
                run_on_colab("04", there, missing)


def test_begins_with_its_question_and_ends_with_links(notebook, code):
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert question(notebook)
    assert stated(notebook, READING_TIME)
    assert code[0] in tagged(notebook, "install")
    assert "assert gossiplib.__version__ ==" in code[0].source
    assert last in tagged(notebook, "links")


def test_was_executed_in_order(code):
    counts = [cell.execution_count for cell in code if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"


def test_has_no_error_warning_or_path_in_its_outputs(outputs):
    assert [o for o in outputs if o.output_type == "error"] == []
    assert [o.text for o in outputs if o.get("name") == "stderr"] == []
    texts = [text_of(output) for output in outputs]
    assert [t for t in texts if MACHINE.search(t) or WARNING.search(t)] == []


def test_compares_enough_outputs(notebook):
    checked = [c for c in tagged(notebook, "nbval-check-output") if c.outputs]
    assert len(checked) >= CHECKED


def test_pictures_have_alt_text(outputs):
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    alt = [o.metadata.get("image/png", {}).get("alt", "").strip() for o in pictures]
    assert all(alt)


def test_what_is_stored_is_of_the_code_above_it(code):
    for cell in code:
        calls = ast.walk(ast.parse(TransformerManager().transform_cell(cell.source)))
        texts = [
            argument.value
            for call in calls
            if isinstance(call, ast.Call)
            and getattr(call.func, "attr", getattr(call.func, "id", "")) in SHOWN
            for argument in call.args
            if isinstance(getattr(argument, "value", None), str)
        ]
        shown = [o.metadata for o in cell.outputs if "data" in o]
        stored = [metadata.get("image/png", {}).get("alt") for metadata in shown]
        assert set(texts) <= set(stored), "run `make notebooks`"


def test_a_cell_is_folded_in_the_notebook_and_on_pages(code):
    for cell in code:
        tags = cell.metadata.get("tags", ())
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert hidden == ("hide-input" in tags) or "install" in tags, cell.source[:80]


@pytest.mark.parametrize("template", ["lab", "classic"])
def test_pictures_have_their_text_in_nbconverts_pages(template, tmp_path):
    (path,) = find(ROOT, ["02"])
    configured = {"JUPYTER_CONFIG_DIR": str(ROOT / "gossiplib" / "viz")}
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--template", template]
        + ["--output-dir", tmp_path, path],
        check=True,
        env=os.environ | configured | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    outputs = [o for cell in read(path).cells for o in cell.get("outputs", ())]
    texts = [
        o["metadata"].get("image/png", {}).get("alt") for o in outputs if "data" in o
    ]
    page = BeautifulSoup((tmp_path / f"{path.stem}.html").read_bytes(), "html.parser")
    seen = page.select(".output img, .jp-OutputArea img, figure svg[role=img]")
    shown = [image.get("alt") or image["aria-label"] for image in seen]
    assert shown == list(filter(None, texts)) != []


def test_the_picture_of_the_readme_moves():
    with Image.open(MOVING) as picture:
        assert picture.n_frames == len(ROUNDS) and MOVING.stat().st_size < BYTES
    assert f"({MOVING.relative_to(ROOT)})" in (ROOT / "README.md").read_text()


def test_a_progress_bar_leaves_no_red_strip(tmp_path):
    source = """
import time
from gossiplib.system.runs import updates_bar
with updates_bar(1, 3) as bar:
    for _ in range(3):
        time.sleep(1.1)  # it shows after 2 seconds
        bar.update()"""
    notebook = new_notebook(cells=[new_code_cell(source)])
    with private_environment() as env:
        env |= {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": ""}
        execute(notebook, tmp_path, env)
    assert [(o.name, o.text.strip()) for o in notebook.cells[0].outputs] == [
        ("stdout", "")
    ]


def test_is_small(path, notebook, code):
    assert path.stat().st_size < BYTES
    assert "widgets" not in notebook.metadata
    long = [c.source for c in code if len(c.source.splitlines()) > LINES]
    assert long == [], f"code cells of more than {LINES} lines"


@pytest.mark.parametrize("number", ["02", "03", "09"])
def test_notebooks_without_flower_run_without_it(number):
    (path,) = find(ROOT, [number])
    code = [c.source for c in read(path).cells if c.cell_type == "code"]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({(*HEAVY, 'tqdm')}))"
    program = "\n".join([blocked, *code[1:]])  # the first cell is for Colab
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"MPLBACKEND": "agg"},
    )


def test_the_client_of_notebook_05_is_the_one_that_04_wrote():
    def functions(number):
        (path,) = find(ROOT, [number])
        code = [c.source for c in read(path).cells if c.cell_type == "code"][1:]
        nodes = [node for one in code for node in ast.parse(one).body]
        return {n.name: ast.unparse(n) for n in nodes if isinstance(n, ast.FunctionDef)}

    first, again = functions("04"), functions("05")
    client = ["join", "discover", "train", "average", "show_model", "my_gossip"]
    client.append("weighted_mean")
    assert [first[name] for name in client] == [again[name] for name in client]
    for names in (client, ["send", "meet", "gossip_round", "models_of", "my_server"]):
        assert sum(len(again[name].splitlines()) for name in names) <= 60


def test_took_no_more_than_it_may(path, notebook):
    seconds, megabytes = stated(notebook, RUN_TIME)
    most_seconds, most = limits(path.name)
    assert seconds <= most_seconds and megabytes <= most


def test_the_table_of_the_readme_is_that_of_the_notebooks():
    readme = (ROOT / "README.md").read_text()
    begin, end = "<!-- budget:begin -->", "<!-- budget:end -->"
    shown = readme.split(begin)[1].split(end)[0].strip()
    assert shown == table(ROOT), "run `make budget`"
