"""Draw the house from its rules: `make house`.

The floors are the layers that pyproject.toml gives to import-linter, the rooms are
gossiplib's packages, and what a room is for is the first line of its docstring. This
writes the picture notebooks/house.svg, the table of notebooks/house.md, and the page of
the API, notebooks/site/api.md.
"""

import ast
import re
import tomllib
from pathlib import Path

from notebooks import ROOT, find, read, replace_block, teaching

PICTURE = ROOT / "notebooks" / "house.svg"
PAGE = ROOT / "notebooks" / "house.md"
API = ROOT / "notebooks" / "site" / "api.md"
#: What is written on each floor, and its colours: of its rooms, and of their borders.
FLOORS = [
    ("roof: may use all that is below", "#fdeee3", "#d55e00"),
    ("wings: one idea each, and none imports another", "#e3f0f9", "#0072b2"),
    ("ground floor: gossip, and what is learned", "#e0f4ed", "#009e73"),
    ("cellar: what any program could use", "#eeeeee", "#777777"),
]
WIDTH, MARGIN, COLUMNS, LINE = 700, 10, 6, 16
#: What starts a room that is one file.
COMMANDS = {"app": ["make run"], "new": ["python -m"]}


def layers() -> list[list[str]]:
    """Return the rooms of each floor, from the roof down."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (floors,) = (
        contract["layers"]
        for contract in rules["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    return [re.findall(r"gossiplib\.(\w+)", floor) for floor in floors]


def from_the_ground() -> list[str]:
    """Return all rooms in the order in which a reader needs them: the cellar last."""
    cellar, *others = reversed(layers())
    return [room for floor in [*others, cellar] for room in floor]


def files(room: str) -> list[Path]:
    """Return the files of a room, its face first."""
    folder = ROOT / "gossiplib" / room
    return sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


def modules(room: str) -> list[str]:
    """Return a room's modules: in `core` those of the first evening first."""
    names = {path.stem for path in (ROOT / "gossiplib" / room).glob("[!_]*.py")}
    first = [name for name in first_evening() if room == "core"]
    return first + sorted(names - set(first))


def shown(room: str) -> list[str]:
    """Return what is written into a room: modules, then folders, or how to run it."""
    inner = (ROOT / "gossiplib" / room).glob("*/__init__.py")
    return modules(room) + sorted(path.parent.name for path in inner) or COMMANDS[room]


def first_evening() -> list[str]:
    """Return the modules that gossiplib's own docstring says to read first."""
    text = docstring(ROOT / "gossiplib" / "__init__.py")
    found = re.search(r"First evening: ([^;]+);", text)
    return re.findall(r"\w+", found[1])


def picture() -> str:
    """Return the house as SVG, with its words as text, the same wherever it is made."""
    y, drawn = 16, []
    for number, rooms in enumerate(layers()):
        y = draw_floor(drawn, y, number, rooms)
    note = "In bold: the first evening's reading. Every import points down."
    drawn.append(text(WIDTH / 2, y + 12, note, 'text-anchor="middle" fill="#444444"'))
    size = f'width="{WIDTH}" height="{y + 24}" viewBox="0 0 {WIDTH} {y + 24}"'
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#222222"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">',
            f"<title>{in_words()}</title>",
            '<rect width="100%" height="100%" rx="6" fill="#ffffff"/>',
            *drawn,
            "</svg>\n",
        ]
    )


def draw_floor(drawn: list[str], y: int, number: int, rooms: list[str]) -> int:
    """Draw a floor, its name above its rooms; return where the next one begins."""
    name, colour, border = FLOORS[number]
    is_roof = number == 0  # where it slopes there are no rooms
    columns = dict.fromkeys(rooms, 1)
    for _ in range(COLUMNS - 2 * is_roof - len(rooms)):
        fullest = max(rooms, key=lambda room: len(shown(room)) / columns[room])
        columns[fullest] += 1
    lines = max(-(-len(shown(room)) // columns[room]) for room in rooms)
    top, height = y + 18, 30 + LINE * lines
    if is_roof:
        low, right = top + height + 6, WIDTH - 2
        points = f"2,{low} 118,{y - 8} {right - 116},{y - 8} {right},{low}"
        drawn.append(f'<polygon points="{points}" fill="#f9d9c3"/>')
    if number == len(FLOORS) - 1:  # in the ground
        soil = f'x="2" y="{y - 6}" width="{WIDTH - 4}" height="{height + 32}"'
        drawn.append(f'<rect {soil} fill="#eae4da"/>')
    unit = (WIDTH - 2 * MARGIN) / COLUMNS
    x = MARGIN + unit * is_roof
    drawn.append(text(x + 4, y + 11, name, 'font-size="11" fill="#444444"'))
    for room in rooms:
        place = f'x="{x + 3:.0f}" y="{top}" width="{unit * columns[room] - 6:.0f}"'
        look = f'height="{height}" rx="3" fill="{colour}" stroke="{border}"'
        drawn.append(f"<rect {place} {look}/>")
        drawn.append(text(x + 10, top + 18, room, 'font-size="13" font-weight="bold"'))
        for k, module in enumerate(shown(room)):
            column, line = divmod(k, lines)
            first = room == "core" and module in first_evening()
            at = x + 10 + column * unit, top + 36 + LINE * line
            drawn.append(text(*at, module, 'font-weight="bold"' if first else ""))
        x += unit * columns[room]
    return top + height + 14


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y}" {style}>{words}</text>'.replace(" >", ">")


def in_words() -> str:
    """Return what the picture shows, in words."""
    floors = "; ".join(", ".join(rooms) for rooms in layers())
    return f"The house of gossiplib, from roof to cellar: {floors}. Imports point down."


def notebooks_with() -> dict[str, list[str]]:
    """Return room -> numbers of the notebooks that import from it."""
    face = (ROOT / "gossiplib" / "__init__.py").read_text("utf-8")
    imports = [n for n in ast.walk(ast.parse(face)) if isinstance(n, ast.ImportFrom)]
    imports = [n for n in imports if n.level]
    offers = {name.name: line.module for line in imports for name in line.names}
    found: dict[str, list[str]] = {room: [] for room in from_the_ground()}
    for path in find(ROOT) + teaching(ROOT):
        source = "\n".join(c.source for c in read(path).cells if c.cell_type == "code")
        rooms = set(re.findall(r"(?m)^\s*from gossiplib\.(\w+)", source))
        names = re.findall(r"(?m)^\s*from gossiplib import (\([^)]+\)|.+)$", source)
        for name in re.findall(r"\w+", " ".join(names)):
            rooms.add(offers.get(name) or name)
        for room in rooms & found.keys():
            found[room].append(path.name[:2])
    return found


def spans(numbers: list[str]) -> str:
    """Return 00, 01, 02, 05, T1 as "00 to 02, 05, T1"."""
    series = [path.name[:2] for path in find(ROOT)]
    if len(numbers) == len(find(ROOT) + teaching(ROOT)):
        return "all"
    runs: list[list[str]] = []
    for number in numbers:
        before = series[series.index(number) - 1] if number in series[1:] else ""
        if runs and runs[-1][-1] == before:
            runs[-1].append(number)
        else:
            runs.append([number])
    ends = [run if len(run) < 3 else [f"{run[0]} to {run[-1]}"] for run in runs]
    return ", ".join(number for run in ends for number in run) or "none"


def table() -> str:
    """Return the picture and the table of notebooks/house.md, in Markdown."""
    rows = ["| package | what it is | notebooks | lines, about |", "|---|---|---|--:|"]
    used = notebooks_with()
    for room in from_the_ground():
        lines = sum(len(path.read_text("utf-8").splitlines()) for path in files(room))
        where = files(room)[0] if len(files(room)) == 1 else files(room)[0].parent
        link = f"[`{room}`](../{where.relative_to(ROOT).as_posix()})"
        about = f"{max(100, round(lines, -2)):,}"
        idea = docstring(files(room)[0]).splitlines()[0]
        rows.append(f"| {link} | {idea} | {spans(used[room])} | {about} |")
    return f"![{in_words()}](house.svg)\n\n" + "\n".join(rows)


def api() -> str:
    """Return the page that lists all modules, for Sphinx."""
    page = """\
# API of gossiplib

Each package holds one idea, each module one topic. What it offers is written here from
its own text. The checks of the exercises are left out: they would give answers away.
"""
    for room in from_the_ground():
        idea = docstring(files(room)[0]).splitlines()[0]
        names = [f"gossiplib.{room}.{name}" for name in sorted(modules(room))]
        listed = "\n".join(f"   {name}" for name in names or [f"gossiplib.{room}"])
        page += f"""
## `gossiplib.{room}`

{idea}

```{{eval-rst}}
.. autosummary::
   :toctree: api

{listed}
```
"""
    return page


def written() -> dict[Path, str]:
    """Return path -> text of all that is made from the house."""
    page = replace_block(PAGE.read_text("utf-8"), "house", table())
    return {PICTURE: picture(), PAGE: page, API: api()}


if __name__ == "__main__":
    for path, content in written().items():
        path.write_text(content, "utf-8")
