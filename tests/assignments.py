"""Build what students get, and an nbgrader course: `make assignment`.

    python tests/assignments.py [--course FOLDER] [--student FOLDER] [NUMBER ...]

For reading: a copy of the series without outputs, so that a guess is a guess. It holds
neither solutions nor the teacher's guide, and no link to them.

For grading: a course of nbgrader, from the notebooks and the solutions.

An exercise stands in its notebook, its solution in notebooks/solutions, its check in
gossiplib. This puts the three together in the form that nbgrader asks for, so none of
them is written twice. Each notebook becomes an assignment that is called by its number:

    FOLDER/nbgrader_config.py
    FOLDER/source/02/02_the_graph_of_clients.ipynb

An exercise's cell gets its solution between nbgrader's markers, and a locked cell
behind it gives one point if the check says "right!". `nbgrader generate_assignment`
takes both out again. What students get is the notebook of the series, without outputs,
with one comment more for each exercise.
"""

import argparse
import ast
import shutil
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from notebooks import ROOT, find, read, teaching, unanswered, write

COURSE, STUDENT = ROOT / "out" / "course", ROOT / "out" / "student"
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "gossip-learning"
# The notebooks have placeholders of their own: nothing takes a solution's place.
c.ClearSolutions.code_stub = dict(python="")
c.Execute.timeout = 300  # seconds that a cell may take
# What a learning platform hands out: "Ada Lovelace_4711_..._02_the_graph.ipynb".
c.FileNameCollectorPlugin.named_regexp = (
    "^(?:.*/)?(?P<student_id>[^/_]+)_[^/]*?(?P<file_id>{names})[^/]*[.]ipynb$"
)
"""
TEST = """\
# One point if the check above says "right!".
### BEGIN HIDDEN TESTS
from gossiplib.classroom import verdict

said = verdict({call})
assert said.startswith("right!"), said
### END HIDDEN TESTS"""


class Exercise(NamedTuple):
    """An exercise as its cell in the notebook tells it.

    Attributes
    ----------
    number : str
        Such as "02.1".
    arguments : list of str
        What stands in `check(...)` behind the number, as source.
    blanks : set of str
        Names that hold a placeholder.
    line : int
        Lines of the cell before `check(...)`.
    """

    number: str
    arguments: list[str]
    blanks: set[str]
    line: int


def blanks(source: str) -> set[str]:
    """Return the names to which a cell assigns a placeholder, None or `...`."""
    found: set[str] = set()
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a cell with magics
        return found
    for node in statements:
        if not isinstance(node, ast.Assign):
            continue
        values = getattr(node.value, "elts", [node.value])
        if all(isinstance(v, ast.Constant) and v.value in (None, ...) for v in values):
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found


def exercise(source: str, earlier: str = "") -> Exercise | None:
    """Return the exercise that a cell checks; None if it checks none.

    The placeholder may stand in the code cell before it, `earlier`.
    """
    if 'check("' not in source:
        return None
    for node in ast.parse(source).body:
        match node:
            case ast.Expr(ast.Call(ast.Name("check"), [number, *arguments])):
                texts = [ast.unparse(a) for a in arguments]
                empty = (blanks(source) | blanks(earlier)) & set(texts)
                number = ast.literal_eval(number)
                if not empty:
                    raise ValueError(f"exercise {number} has no placeholder to fill")
                return Exercise(number, texts, empty, node.lineno - 1)
    raise ValueError(f"`check` must be a line of its own in {source!r}")


def names(node: ast.AST, context: type) -> set[str]:
    """Return the names that code loads or stores."""
    every = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return {n.id for n in every if isinstance(n.ctx, context)}


def defined(node: ast.stmt) -> set[str]:
    """Return the names that a statement of a module defines."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return {a.asname or a.name.split(".")[0] for a in node.names}
        case ast.FunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Assign():
            return names(node, ast.Store)
    return set()


def needed(module: ast.Module, answer: ast.expr) -> list[ast.stmt]:
    """Return the statements of a module that an expression needs, in their order."""
    wanted, taken = names(answer, ast.Load), set()
    while more := {
        k
        for k, node in enumerate(module.body)
        if k not in taken and defined(node) & wanted
    }:
        taken |= more
        wanted |= set().union(*(names(module.body[k], ast.Load) for k in more))
    return [module.body[k] for k in sorted(taken)]


def joined(source: str, nodes: list[ast.stmt]) -> str:
    """Return the source of statements, with the empty lines that style asks for."""
    text, before = "", None
    for node in nodes:
        gap = 1
        if before is not None:
            either = (ast.FunctionDef, ast.ClassDef)
            imports = (ast.Import, ast.ImportFrom)
            if isinstance(node, either) or isinstance(before, either):
                gap = 3
            elif isinstance(before, imports) and not isinstance(node, imports):
                gap = 2
        text += ("\n" * gap if text else "") + ast.get_source_segment(source, node)
        before = node
    return text


def solution(source: str, asked: Exercise) -> str:
    """Return code that answers an exercise, from the source of a solutions' module.

    It holds what the answer needs of the module, and no more.
    """
    module = ast.parse(source)
    (table,) = (n.value for n in module.body if defined(n) == {"ANSWERS"})
    answers = dict(zip(map(ast.literal_eval, table.keys), table.values, strict=True))
    if asked.number not in answers:
        raise ValueError(f"exercise {asked.number} has no solution")
    answer = answers[asked.number]
    code = joined(source, needed(module, answer))
    targets = [a if a in asked.blanks else "_" for a in asked.arguments]
    if isinstance(answer, ast.Lambda):
        given = ast.unparse(answer.body)
        if [ast.unparse(e) for e in getattr(answer.body, "elts", [])] == targets:
            return code  # the definitions have the names that are asked for
    else:
        given = f"{ast.unparse(answer)}()"
    left = ", ".join(targets) if len(targets) > 1 else f"({targets[0]},)"
    return f"{code}\n\n\n{left} = {given}"


def with_solution(source: str, asked: Exercise, code: str) -> str:
    """Return an exercise's cell with a solution between nbgrader's markers."""
    lines = source.splitlines()
    region = ["### BEGIN SOLUTION", code, "### END SOLUTION"]
    return "\n".join([*lines[: asked.line], *region, *lines[asked.line :]])


def marked(cell: NotebookNode, grade_id: str, points: int = 0) -> NotebookNode:
    """Return a cell with nbgrader's metadata: a test with points, or a solution."""
    cell.metadata["nbgrader"] = {
        "cell_type": "code",
        "grade": points > 0,
        "grade_id": grade_id,
        "locked": points > 0,
        "schema_version": 3,
        "solution": points == 0,
        "task": False,
    } | ({"points": points} if points else {})
    return cell


def assignment(path: Path) -> NotebookNode:
    """Return the notebook at `path` as nbgrader's source of an assignment.

    Raises
    ------
    ValueError
        If an exercise has no placeholder or no solution.
    """
    notebook = read(path)
    solutions = (path.parent / "solutions" / f"{path.stem}.py").read_text("utf-8")
    cells, earlier = [], ""
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if asked := exercise(cell.source, earlier):
            grade_id = asked.number.replace(".", "-")
            code = solution(solutions, asked)
            cell.source = with_solution(cell.source, asked, code)
            marked(cell, f"{grade_id}-answer")
            call = ", ".join([f'"{asked.number}"', *asked.arguments])
            test = nbformat.v4.new_code_cell(TEST.format(call=call), id=grade_id)
            cells.append(marked(test, grade_id, points=1))
        earlier = cell.source
    notebook.cells = cells
    return notebook


def build(course: Path, paths: list[Path]) -> list[str]:
    """Write a course folder; return the names of its assignments.

    A notebook without exercises becomes none.
    """
    course.mkdir(parents=True, exist_ok=True)
    config = CONFIG.format(names="|".join(path.stem for path in find(ROOT)))
    (course / "nbgrader_config.py").write_text(config, "utf-8")
    made = []
    for path in paths:
        notebook = assignment(path)
        if any("nbgrader" in cell.metadata for cell in notebook.cells):
            made.append(path.stem[:2])
            folder = course / "source" / made[-1]
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, folder / path.name)
    return made


def copy(folder: Path, paths: list[Path]) -> None:
    """Write the students' copy: notebooks without outputs, T2 and the glossary.

    A link to what is not in it becomes plain text.
    """
    folder = folder.resolve()
    detective, glossary = teaching(ROOT, ["T2"])[0], ROOT / "notebooks" / "glossary.md"
    files = {p: folder / p.relative_to(ROOT / "notebooks") for p in (*paths, detective)}
    (folder / "teaching").mkdir(parents=True, exist_ok=True)
    shutil.copy(glossary, folder)
    there = {folder / glossary.name, *files.values()}
    for path, target in files.items():

        def known(link: str, here: Path = target.parent) -> bool:
            return (here / link).resolve() in there

        write(unanswered(read(path), known), target)


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--course", type=Path, default=COURSE, help="its folder")
    parser.add_argument("--student", type=Path, default=STUDENT, help="their copy")
    parser.add_argument("numbers", nargs="*", help="for example 02 03; default: all")
    given = parser.parse_args()
    if not (paths := find(ROOT, given.numbers)):
        parser.error("no such notebook")
    copy(given.student, paths)
    print(f"{given.student} has the notebooks without outputs, for students.")
    made = build(given.course, paths)
    print(f"{given.course / 'source'} has the assignments {', '.join(made)}.")
    print("What students hand in comes next, without solutions:\n")
    print("source .venv/bin/activate")
    print(f"cd {given.course}")
    print(f"nbgrader generate_assignment {made[0]}    # release/{made[0]}")


if __name__ == "__main__":
    main()
