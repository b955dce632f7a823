"""A notebook that takes more than it may fails the run that measures it."""

import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import notebooks
from notebooks import ROOT, budget, write

PLUGIN = """
from budgets import Budgets

def pytest_configure(config):
    config.pluginmanager.register(Budgets())
"""


def nbval(folder):
    """Run the notebooks of a folder, with its own conftest, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--nbval-lax", "--nbval-current-env"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("megabytes", "fails"), [(10, False), (1000, True)])
def test_nbval_fails_where_memory_is_over_the_limit(tmp_path, megabytes, fails):
    source = f"import time\nheld = b'x' * {megabytes}_000_000\ntime.sleep(1)"
    write(new_notebook(cells=[new_code_cell(source)]), tmp_path / "00_big.ipynb")
    (tmp_path / "conftest.py").write_text(PLUGIN)
    done = nbval(tmp_path)
    assert done.returncode == int(fails), done.stdout
    assert ("00_big.ipynb took" in done.stdout) is fails
    assert "limits 60 s and 900 MB" in done.stdout


@pytest.mark.parametrize(("times", "fails"), [(0.01, True), (3, False)])
def test_nbval_fails_where_processors_work_for_too_long(tmp_path, times, fails):
    source = "import time\nwhile time.process_time() < 2: pass"
    write(new_notebook(cells=[new_code_cell(source)]), tmp_path / "00_busy.ipynb")
    limit = f"{PLUGIN}\nimport budgets\nbudgets.TIMES = {times}\n"
    (tmp_path / "conftest.py").write_text(limit)
    done = nbval(tmp_path)
    assert done.returncode == int(fails), done.stdout


@pytest.mark.parametrize("measured", [(61, 100), (1, 901), (60, 900)])
def test_make_budget_writes_the_table_and_names_what_is_over(
    tmp_path, monkeypatch, measured
):
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "00_slow.ipynb"
    cell = nbformat.v4.new_markdown_cell("# 00 - Slow?\n\nReading time: 3 min.")
    write(new_notebook(cells=[cell]), path)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- budget:begin -->\n<!-- budget:end -->")
    monkeypatch.setattr(notebooks, "measure", lambda path: measured)
    over = budget(tmp_path, [path])
    assert [line.split(":")[0] for line in over] == (
        [] if measured == (60, 900) else ["00_slow.ipynb"]
    )
    seconds, megabytes = measured
    assert f"| Slow? | 3 min | {seconds} s | {megabytes} MB |" in readme.read_text()
