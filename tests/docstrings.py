"""Public names say what they take, give and raise: `python tests/docstrings.py`.

Wings can be named: `python tests/docstrings.py core viz`.

Public are the names on the packages' faces (`__init__.py`), those in `__all__` of the
modules that are on a face, and the public methods of their classes. In numpydoc's form,
each describes all its parameters (a few may be named in its text); has a section
Returns or Yields, or begins with "Return", "Yield" or "Tell whether"; and has a section
Raises, or begins with "Raise", where its own body raises. A method that overrides one
of a class of Flower's is described there; one that implements a method of our
`PROTOCOLS`, in the Protocol.

Ruff finds sections that are too long (DOC102), and what is raised or yielded in silence
(DOC501, DOC402). It does not ask for a section Parameters, takes no first line for a
Returns, and does not look at how a class is made: that is done here.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Public classes that describe the methods of all that have these methods.
PROTOCOLS = {"Average", "Codec", "TokenAccount"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def wing(path: Path) -> str:
    """Return the package of gossiplib that a file belongs to, or its own name."""
    return path.relative_to(ROOT / "gossiplib").with_suffix("").parts[0]


@cache
def public_names() -> set[tuple[Path, str]]:
    """Return file and name of all that is on a face, or in a module that is on one."""
    found = set()
    for face in (ROOT / "gossiplib").rglob("__init__.py"):
        for line in ast.walk(tree(face)):
            if not isinstance(line, ast.ImportFrom) or not line.level:
                continue
            for name in (alias.name for alias in line.names):
                module = line.module or name
                path = face.parent.joinpath(*module.split(".")).with_suffix(".py")
                if path.exists():  # else another face
                    named = {name} if line.module else offered(tree(path))
                    found |= {(path, each) for each in named}
    return found


def offered(module: ast.Module) -> set[str]:
    """Return the names in a module's `__all__`, or all that have no underscore."""
    for line in module.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__":
            return set(ast.literal_eval(line.value))
    names = {node.name for node in module.body if isinstance(node, Definition)}
    return {name for name in names if not name.startswith("_")}


def definitions() -> Iterator[tuple[Path, str, Definition]]:
    """Yield file, full name and definition of each public function, class, method."""
    for path, name in sorted(public_names()):
        for node in tree(path).body:
            if not isinstance(node, Definition) or node.name != name:
                continue
            yield path, name, node
            for one in node.body if isinstance(node, ast.ClassDef) else []:
                public = isinstance(one, Function) and not one.name.startswith("_")
                if public and not described_elsewhere(path, name, one.name):
                    yield path, f"{name}.{one.name}", one


def described_elsewhere(path: Path, name: str, method: str) -> bool:
    """Tell whether a class from elsewhere, or a Protocol, has this method too."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    this, *bases, _ = getattr(importlib.import_module(module), name).__mro__
    others = (b for b in bases if not b.__module__.startswith("gossiplib"))
    if any(hasattr(base, method) for base in others):
        return True
    has = set().union(*map(vars, [this, *bases]))
    return name not in PROTOCOLS and any(
        needed <= has and method in needed | shown for needed, shown in protocols()
    )


@cache
def protocols() -> list[tuple[set[str], set[str]]]:
    """Return the methods of each of `PROTOCOLS`, and those that its text shows."""
    found = []
    for path, name in public_names():
        for node in tree(path).body if name in PROTOCOLS else []:
            if isinstance(node, ast.ClassDef) and node.name == name:
                needed = {one.name for one in node.body if isinstance(one, Function)}
                text = ast.get_docstring(node) or ""
                found.append((needed, set(re.findall(r"(?m)^ +(\w+)\(.*\) ->", text))))
    return found


def sections(node: Definition) -> dict[str, str]:
    """Return title -> text of a docstring's sections; the first has no title."""
    parts = re.split(r"(?m)^(\w[\w ]*)\n-{3,}$", ast.get_docstring(node) or "")
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def parameters(node: Definition) -> set[str]:
    """Return what one may pass to a function, or to a class when it is made."""
    if isinstance(node, Function):
        a = node.args
        every = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
        names = {p.arg for p in every if p} - {"self", "cls"}
    elif init := [n for n in node.body if getattr(n, "name", "") == "__init__"]:
        names = parameters(init[0])
    elif any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        fields = [f for f in node.body if isinstance(f, ast.AnnAssign)]
        made = [
            f for f in fields if not re.search("ClassVar|init=False", ast.unparse(f))
        ]
        names = {ast.unparse(f.target) for f in made}
    else:
        names = set()
    return {name for name in names if not name.startswith("_")}


def lacks(node: Definition) -> Iterator[str]:
    """Yield what a docstring leaves out, but for what ruff finds."""
    said = sections(node)
    heads = said.get("Parameters", "") + "\n" + said.get("Attributes", "")
    heads = re.findall(r"(?m)^([*\w][^:\n]*)", heads)  # a, b : int
    known = {name.strip(" *") for head in heads for name in head.split(",")}
    taken = parameters(node)
    if len(taken) == 1:  # one that the text names needs no section
        known |= set(re.findall(r"\w+", said[""]))
    elif len(taken) <= 3:  # nor do a few that it names as code
        known |= set(re.findall(r"`(\w+)`", said[""]))
    if missing := taken - known:
        yield "no word on " + ", ".join(sorted(missing))
    if isinstance(node, ast.ClassDef):
        names = ("__init__", "__post_init__")
        made = [n for n in node.body if getattr(n, "name", "") in names]
        raised = any(isinstance(n, ast.Raise) for one in made for n in ast.walk(one))
        if raised and "Raises" not in said:
            yield "raises when it is made, and has no Raises"
    elif node.returns and ast.unparse(node.returns) not in ("None", "NoReturn"):
        told = {"Returns", "Yields"} & said.keys()
        told = told or said[""].startswith(("Return", "Yield", "Tell whether"))
        if not told and not any(
            "property" in ast.unparse(d) for d in node.decorator_list
        ):
            yield "no Returns"


@cache
def found_by_ruff() -> list[tuple[Path, int, str]]:
    """Return file, line and text of what ruff finds."""
    command = [sys.executable, "-m", "ruff", "check", "--preview", "--no-cache"]
    command += ["--select", "DOC102,DOC402,DOC501", "--output-format", "json"]
    command += ["--exit-zero", "gossiplib"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return [
        (Path(one["filename"]), one["location"]["row"], one["message"])
        for one in json.loads(found.stdout)
    ]


def failures(wings: set[str]) -> list[str]:
    """Return what is wrong in some wings: where, whose, and what."""
    found = []
    for path, name, node in definitions():
        if wing(path) in wings:
            docstring = range(node.lineno, node.body[0].end_lineno + 1)
            first = (ast.get_docstring(node) or "").lower()
            texts = [
                text
                for file, line, text in found_by_ruff()
                if file == path
                and line in docstring
                and not ("Raised" in text and first.startswith("raise"))
                and not ("yield" in text and first.startswith("yield"))
            ]
            where = f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
            found += [f"{where}: {text}" for text in [*lacks(node), *texts]]
    return found


def all_wings() -> set[str]:
    return {wing(path) for path, _ in public_names()}


def main(wings: set[str]) -> int:
    """Print the failures in some wings, and how many names fail in each wing."""
    wrong = failures(wings)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    for one in sorted(wings):
        fail = {line.split(": ")[1] for line in failures({one})}
        names = sum(wing(path) == one for path, _, _ in definitions())
        print(f"{one}: {len(fail)} of {names} names lack something")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(set(sys.argv[1:]) or all_wings()))
