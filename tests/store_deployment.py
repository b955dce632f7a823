"""Store what notebook 11 finds, for where no processes can be started.

    python tests/store_deployment.py

runs the notebook, which needs Flower's commands, and writes what its `found` holds to
gossiplib/data/deployment.records. Where the commands are missing, it shows this.
"""

from nbformat.v4 import new_code_cell

from notebooks import ROOT, execute, find, read
from processes import private_environment

STORED = ROOT / "gossiplib" / "data" / "deployment.records"


def main() -> None:
    """Run the notebook with a cell more, which writes the file."""
    (path,) = find(ROOT, ["11"])
    notebook = read(path)
    store = f"assert deployment\n_ = Path({str(STORED)!r}).write_bytes(dump(found))"
    notebook.cells.append(new_code_cell(store))
    with private_environment() as env:
        execute(notebook, path.parent, env)
    print(f"{STORED.relative_to(ROOT)}: {STORED.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
