"""Execute and measure the notebooks: `make notebooks` and `make budget`.

    python tests/notebooks.py execute|budget [NUMBER ...]

`execute` runs notebooks in place. `budget` runs copies, states in their first cells
what they took, writes the table of README.md from the first cells of all, and fails
when a notebook takes too long or too much memory.
"""

import argparse
import ast
import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from processes import marked, private_environment

ROOT = Path(__file__).resolve().parents[1]
#: Seconds and megabytes that a notebook may take; more where it starts processes.
LIMITS = {"05": (60, 1500), "16": (120, 2000), "17": (120, 2000)}
LIMIT = (60, 900)
READING_TIME = re.compile(r"Reading time\W*(\d+) min")
RUN_TIME = re.compile(r"Run time: (\d+) s, (\d+) MB")
WIDGET = "application/vnd.jupyter.widget-view+json"


def find(root: Path, numbers: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks in order, or those that begin with a number given."""
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    return [p for p in paths if not numbers or p.name.startswith(tuple(numbers))]


def teaching(root: Path, numbers: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks for teachers, T1, T2, ..., as `find`."""
    paths = sorted((root / "notebooks" / "teaching").glob("*.ipynb"))
    return [p for p in paths if not numbers or p.name.startswith(tuple(numbers))]


def read(path: Path) -> NotebookNode:
    """Read a notebook."""
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook without what differs between runs, readers and machines."""
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:03d}"
        cell.metadata = {
            k: cell.metadata[k] for k in ("jupyter", "tags") if k in cell.metadata
        }
        if cell.cell_type == "code":  # without its kernel a widget is a still
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.write(notebook, path)


def unanswered(notebook: NotebookNode, there: Callable[[str], bool]) -> NotebookNode:
    """Return a notebook without outputs, and with links to what is `there` alone.

    Of a link to what is not there, the words stay.
    """

    def link(found: re.Match[str]) -> str:
        elsewhere = found[2].startswith(("http://", "https://", "#"))
        return found[0] if elsewhere or there(found[2]) else found[1]

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = re.sub(r"(?<!!)\[([^][]*)\]\(([^)]+)\)", link, cell.source)
    return notebook


def function(notebook: NotebookNode, name: str) -> str:
    """Return the source of a function that a notebook's code cells define."""
    for text in (c.source for c in notebook.cells if c.cell_type == "code"):
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return ast.get_source_segment(text, node) or ""
    raise ValueError(f"no cell defines {name}")


def question(notebook: NotebookNode) -> str:
    """Return the title of a notebook without its number."""
    title = notebook.cells[0].source.splitlines()[0]
    return re.sub(r"^#\s+(\d+\s*[-:.–]\s*)?", "", title)


def stated(notebook: NotebookNode, what: re.Pattern[str]) -> tuple[int, ...]:
    """Return the numbers in a notebook's first cell: READING_TIME or RUN_TIME."""
    found = what.search(notebook.cells[0].source)
    if not found:
        raise ValueError(f"the first cell lacks {what.pattern!r}: run `make budget`")
    return tuple(map(int, found.groups()))


def name(path: Path) -> str:
    """Return what a link to a notebook is called."""
    return path.stem.replace("_", " ")


def execute(
    notebook: NotebookNode,
    directory: Path,
    env: dict[str, str],
    kernel: str = "python3",
) -> None:
    """Run a notebook's cells in a fresh kernel; raise a cell's error."""
    client = NotebookClient(
        notebook,
        kernel_name=kernel,
        timeout=600,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(directory)}},
    )
    client.execute(env=env)


@contextlib.contextmanager
def peak_memory(home: str) -> Iterator[list[int]]:
    """Sample the bytes that the processes marked by `home` hold; give their peak."""
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.2):
            held = 0
            for process in marked(home):
                with contextlib.suppress(Exception):  # it may end while we look
                    memory = process.memory_full_info()
                    held += getattr(memory, "pss", memory.uss)
            peak[0] = max(peak[0], held)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def measure(path: Path) -> tuple[float, float]:
    """Run a copy of a notebook; return its seconds and the megabytes of its peak."""
    with private_environment() as env, peak_memory(env["FLWR_HOME"]) as peak:
        start = time.perf_counter()
        execute(read(path), path.parent, env)
        return time.perf_counter() - start, peak[0] / 1e6


def limits(name: str) -> tuple[int, int]:
    """Return the seconds and megabytes that a notebook may take, by its file's name."""
    return LIMITS.get(name[:2], LIMIT)


def with_run_time(nb: NotebookNode, seconds: float, megabytes: float) -> NotebookNode:
    """State in a notebook's first cell what it was measured to take."""
    told = rf"\1 Run time: {seconds:.0f} s, {megabytes:.0f} MB of memory (measured)."
    nb.cells[0].source = re.sub(
        r"(Reading time: \d+ min\.).*", told, nb.cells[0].source
    )
    return nb


def table(root: Path) -> str:
    """Return the table of README.md: what the notebooks' first cells state."""
    rows = [
        "| notebook | question | reading time | run time | peak memory |",
        "|---|---|--:|--:|--:|",
    ]
    for path in find(root):
        notebook = read(path)
        (minutes,) = stated(notebook, READING_TIME)
        seconds, megabytes = stated(notebook, RUN_TIME)
        rows.append(
            f"| [{name(path)}](notebooks/{path.name}) | {question(notebook)} "
            f"| {minutes} min | {seconds} s | {megabytes} MB |"
        )
    return "\n".join(rows)


def budget(root: Path, paths: list[Path]) -> list[str]:
    """Measure notebooks, write the table of README.md, return what is over budget."""
    over = []
    for path in paths:
        seconds, megabytes = measure(path)
        most_seconds, most = limits(path.name)
        print(f"{path.name:36} {seconds:4.0f} s {megabytes:5.0f} MB", flush=True)
        write(with_run_time(read(path), seconds, megabytes), path)
        if seconds > most_seconds or megabytes > most:
            over.append(f"{path.name}: over its {most_seconds} s or {most} MB")
    readme = root / "README.md"
    readme.write_text(replace_block(readme.read_text(), "budget", table(root)))
    return over


def replace_block(text: str, block: str, content: str) -> str:
    """Replace what stands between <!-- block:begin --> and <!-- block:end -->."""
    begin, end = f"<!-- {block}:begin -->", f"<!-- {block}:end -->"
    if not (begin in text and end in text):
        raise ValueError(f"README.md lacks {begin} ... {end}")
    return f"{text.split(begin)[0]}{begin}\n{content}\n{end}{text.split(end)[1]}"


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["execute", "budget"])
    parser.add_argument("numbers", nargs="*", help="for example 02 03; default: all")
    given = parser.parse_args()
    paths = find(ROOT, given.numbers)
    if given.action == "execute":
        paths += teaching(ROOT, given.numbers)
    if not paths:
        sys.exit("no such notebook")
    try:
        if given.action == "budget":
            sys.exit("\n".join(budget(ROOT, paths)) or None)
        for path in paths:
            print(path.name, flush=True)
            notebook = read(path)
            with private_environment() as env:
                execute(notebook, path.parent, env)
            write(notebook, path)
    except (CellExecutionError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
