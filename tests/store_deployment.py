"""Store what notebooks 16 and 17 find, for where no processes can be started.

    python tests/store_deployment.py [16] [17]

runs the notebooks, which start processes, and writes to gossiplib/data what they show
where they cannot.
"""

import sys

from nbformat.v4 import new_code_cell

from notebooks import ROOT, execute, find, read
from processes import private_environment

#: Notebook -> the file of its `Observed`.
STORES = {"16": "deployment.json.gz", "17": "peers.json.gz"}


def store(number: str) -> None:
    """Run a notebook with a cell more, which writes the file."""
    file = ROOT / "gossiplib" / "data" / STORES[number]
    (path,) = find(ROOT, [number])
    notebook = read(path)
    cell = f"assert seen.live\nseen.store(Path({str(file)!r}))"
    notebook.cells.append(new_code_cell(cell))
    with private_environment() as env:
        execute(notebook, path.parent, env)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    for number in sys.argv[1:] or STORES:
        store(number)
