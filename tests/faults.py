"""What happens when something fails: a table of faults and places, made from the tests.

    python tests/faults.py

writes the table of notebooks/failures.md. A test that shows what happens says so by
`@shows(fault, place, "what happens")`. `test_fault_table` fails where a fault has no
test at a place and no reason in `CANNOT` either, or where that page says something
else.
"""

import ast

from notebooks import ROOT, replace_block

PAGE = ROOT / "notebooks" / "failures.md"

PLACES = ("LocalGrid", "Ray", "deployment", "peers")
FAULTS = {
    "raises": "client raises",
    "hangs": "client hangs",
    "none": "client returns None",
    "nan": "model has NaN",
    "shape": "model has another shape",
    "killed": "client killed",
    "restarted": "client restarted",
    "lost": "message lost",
    "memory": "message lost, protocol with memory",
    "repeated": "message repeated",
    "delayed": "message delayed",
    "reordered": "messages reordered",
    "partition": "graph falls apart, and heals",
    "server": "server killed, and resumed",
    "disk": "disk full at a checkpoint",
    "port": "port taken",
    "expired": "certificate expired",
    "unknown": "unknown client",
    "malformed": "oversized or malformed message",
}
_FLOWER = "Flower's own queue: it can not be made to happen"
_SAME = "as on LocalGrid: all of it is the clients' code"
#: (fault, place) -> why there is nothing to test.
CANNOT = {
    ("port", "LocalGrid"): "has no port",
    ("port", "Ray"): "Ray chooses its ports",
    ("expired", "LocalGrid"): "has no certificates",
    ("expired", "Ray"): "has no certificates",
    ("memory", "Ray"): _SAME,
    ("memory", "deployment"): _SAME,
    ("repeated", "Ray"): _FLOWER,
    ("repeated", "deployment"): _FLOWER,
    ("server", "peers"): "there is no server",
}


def shows(fault: str, place: str, happens: str):
    """Mark a test that shows what happens when something fails at a place."""
    if fault not in FAULTS or place not in PLACES:
        raise ValueError(f"no such fault or place: {fault}, {place}")
    return lambda test: test


def found() -> dict[tuple[str, str], str]:
    """Return (fault, place) -> what happens, from the source of all tests."""
    cells = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for call in getattr(node, "decorator_list", ()):
                name = getattr(getattr(call, "func", None), "id", "")
                if name == "shows":
                    fault, place, happens = map(ast.literal_eval, call.args)
                    if (fault, place) in cells:
                        raise ValueError(f"two tests show {fault} on {place}")
                    cells[fault, place] = happens
    return cells


def table() -> str:
    """Return the table in Markdown."""
    cells = CANNOT | found()
    missing = [at for f in FAULTS for p in PLACES if (at := (f, p)) not in cells]
    if missing:
        raise ValueError(f"no test shows what happens here: {missing}")
    rows = [f"| fault | {' | '.join(PLACES)} |", "|---|---|---|---|---|"]
    for fault, name in FAULTS.items():
        happens = " | ".join(cells[fault, place] for place in PLACES)
        rows.append(f"| {name} | {happens} |")
    return "\n".join(rows)


def with_table() -> str:
    """Return the text of the page with the table of now."""
    return replace_block(PAGE.read_text(), "faults", table())


if __name__ == "__main__":
    PAGE.write_text(with_table())
