"""Store what notebooks 16 and 17 find, for where no processes can be started.

    python tests/store_deployment.py [11] [12]

runs the notebooks, which start processes, and writes to gossiplib/data what they show
where they cannot: `found` of 16, and the events of the peers in 17, of which two die.
"""

import sys

from nbformat.v4 import new_code_cell

from notebooks import ROOT, execute, find, read
from processes import private_environment

DATA = ROOT / "gossiplib" / "data"
#: Notebook -> the file, and the cell that writes it.
STORES = {
    "16": (
        DATA / "deployment.records",
        """
assert deployment
_ = Path({file!r}).write_bytes(dump(found))
""",
    ),
    "17": (
        DATA / "peers.csv.gz",
        """
assert here
whole = ["round", "other", "bytes", "start", "count"]
stored = hit_events[["time", "peer", "event", *whole]].round({{"time": 4}})
stored.astype(dict.fromkeys(whole, "Int64")).to_csv({file!r}, index=False)
""",
    ),
}


def store(number: str) -> None:
    """Run a notebook with a cell more, which writes the file."""
    file, cell = STORES[number]
    (path,) = find(ROOT, [number])
    notebook = read(path)
    notebook.cells.append(new_code_cell(cell.format(file=str(file))))
    with private_environment() as env:
        execute(notebook, path.parent, env)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    for number in sys.argv[1:] or STORES:
        store(number)
