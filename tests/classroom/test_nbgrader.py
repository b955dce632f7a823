"""Exercises and solutions become an nbgrader course, which students' work goes through.

The course is built from what stands in the notebooks, the solutions and the checks.
Most tests execute nothing; one lets nbgrader's own commands grade three students.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest

from assignments import assignment, build, copy, exercise, solution
from gossiplib.classroom.checking import checks_of
from notebooks import ROOT, find, read

NOTEBOOKS = find(ROOT)
GRADED = ["02"]  # it runs in seconds
TESTS = ROOT / "tests"
COMMENT = '# One point if the check above says "right!".'


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def path(request):
    return request.param


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def without_solutions(source):
    """Return a cell without what stands between nbgrader's markers."""
    kept, inside = [], False
    for line in source.splitlines():
        inside |= "### BEGIN " in line
        if not inside:
            kept.append(line)
        inside &= "### END " not in line
    return "\n".join(kept)


def test_each_exercise_is_in_its_notebooks_assignment(path):
    wanted = {e.replace(".", "-") for e in checks_of(path.stem[:2])}
    cells = [c.metadata.get("nbgrader") for c in assignment(path).cells]
    cells = [c for c in cells if c]
    assert {c.grade_id for c in cells if c.grade} == wanted
    assert {c.grade_id for c in cells if c.solution} == {f"{w}-answer" for w in wanted}


def test_an_assignment_is_the_notebook_with_solutions_and_tests(path):
    theirs, ours = assignment(path), read(path)
    tests = [c for c in theirs.cells if c.metadata.get("nbgrader", {}).get("grade")]
    rest = [c for c in theirs.cells if c not in tests]
    assert [without_solutions(c.source) for c in rest] == [c.source for c in ours.cells]
    assert {without_solutions(c.source) for c in tests} <= {COMMENT}
    nbformat.validate(theirs)
    for cell in theirs.cells:
        if "nbgrader" in cell.metadata:
            compile(cell.source, path.name, "exec")


def test_a_check_is_called_with_what_it_takes(path):
    earlier = ""
    for source in code_of(read(path)):
        if asked := exercise(source, earlier):
            properties = checks_of(path.stem[:2])[asked.number]
            inspect.signature(properties).bind(*asked.arguments)
        earlier = source


def test_a_solution_that_is_missing_is_named():
    asked = exercise('x = None\ncheck("02.9", x)')
    with pytest.raises(ValueError, match="02.9 has no solution"):
        solution('ANSWERS = {"02.1": lambda: (1,)}', asked)


def test_an_exercise_without_a_placeholder_is_named():
    with pytest.raises(ValueError, match="02.1 has no placeholder"):
        exercise('x = 3\ncheck("02.1", x)')


def test_a_solution_holds_what_it_needs_and_no_more():
    module = '"""Solutions."""\nimport a, b\nc = b.c\n\ndef f():\n    return c,\n\n'
    module += 'def g():\n    return 1,\n\nANSWERS = {"02.1": f, "02.2": g}\n'
    asked = exercise('x = None\ncheck("02.1", x)')
    wanted = "import a, b\n\nc = b.c\n\n\ndef f():\n    return c,\n\n\n(x,) = f()"
    assert solution(module, asked) == wanted


def test_solutions_need_nothing_else(tmp_path):
    for path in NOTEBOOKS:
        for k, cell in enumerate(assignment(path).cells):
            if "BEGIN SOLUTION" in cell.source:
                code = cell.source.split("### BEGIN SOLUTION")[1].split("### END")[0]
                (tmp_path / f"{path.stem}_{k}.py").write_text(code, "utf-8")
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821"]
    found = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True)
    assert len(list(tmp_path.iterdir())) == len(checks_of())
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("handed_out", "student"),
    [
        ("Ada Lovelace_47_assignsubmission_file_02_the_graph_of_clients.ipynb", "Ada"),
        ("all/Ada B. Lovelace_02_the_graph_of_clients (1).ipynb", "Ada"),
        ("a_b/ada_02_the_graph_of_clients-copy.ipynb", "ada"),
    ],
)
def test_what_a_platform_hands_out_is_found(handed_out, student, tmp_path):
    build(tmp_path, [])
    config = SimpleNamespace()
    for name in ("CourseDirectory", "ClearSolutions", "Execute"):
        setattr(config, name, SimpleNamespace())
    config.FileNameCollectorPlugin = SimpleNamespace()
    text = (tmp_path / "nbgrader_config.py").read_text("utf-8")
    exec(text, {"get_config": lambda: config})
    found = re.match(config.FileNameCollectorPlugin.named_regexp, handed_out)
    assert found["student_id"].startswith(student)
    assert found["file_id"] == "02_the_graph_of_clients"


def test_the_students_copy_has_no_outputs_no_solutions_and_no_dead_link(tmp_path):
    copy(tmp_path, NOTEBOOKS)
    theirs = sorted(tmp_path.rglob("*.ipynb"))
    assert [p.name for p in theirs if p.parent == tmp_path] == [
        p.name for p in NOTEBOOKS
    ]
    assert {p.name for p in tmp_path.iterdir()} - {p.name for p in theirs} == {
        "glossary.md",
        "teaching",
    }
    for path in theirs:
        for cell in read(path).cells:
            assert not cell.get("outputs") and not cell.get("execution_count")
            if cell.cell_type == "markdown":
                for target in re.findall(r"\]\(([^)]+)\)", cell.source):
                    away = target.startswith(("http", "#"))
                    assert away or (path.parent / target).exists(), target


# What nbgrader does with it.


def nbgrader(course, *arguments):
    """Run a command of nbgrader in a course, as a teacher does."""
    # It calls alembic by name: a teacher's environment is activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    home = dict.fromkeys(["HOME", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"], str(course))
    one_thread = {"OMP_NUM_THREADS": "1"}  # threads that wait for work take time
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env=os.environ | home | one_thread | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def mistakes(exercise_number, targets):
    """Return code that gives the first wrong answer of test_solutions."""
    return f"""\
import sys
sys.path[:0] = {[str(TESTS), str(TESTS / "classroom")]!r}
from test_solutions import WRONG
{targets} = next(a for e, _, a in WRONG if e == {exercise_number!r})()"""


def submit(course, student, number, answer):
    """Hand in a released notebook; `answer` is a function (exercise) -> code."""
    folder = course / "submitted" / student / number
    shutil.copytree(course / "release" / number, folder)
    (file,) = folder.glob("*.ipynb")
    notebook, earlier = read(file), ""
    for cell in notebook.cells:
        if cell.cell_type == "code" and (asked := exercise(cell.source, earlier)):
            lines = cell.source.splitlines()
            lines.insert(asked.line, answer(asked))
            cell.source = "\n".join(lines)
        if cell.cell_type == "code":
            earlier = cell.source
    nbformat.write(notebook, file)


def by_solution(asked):
    (path,) = find(ROOT, [asked.number[:2]])
    file = path.parent / "solutions" / f"{path.stem}.py"
    return solution(file.read_text("utf-8"), asked)


def by_mistake(asked):
    targets = [a if a in asked.blanks else "_" for a in asked.arguments]
    return mistakes(asked.number, "".join(f"{t}, " for t in targets))


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Return a course in which three students handed in and nbgrader graded."""
    course = tmp_path_factory.mktemp("course")
    build(course, find(ROOT, GRADED))
    for number in GRADED:
        nbgrader(course, "generate_assignment", number)
        submit(course, "solves-all", number, by_solution)
        submit(course, "errs", number, by_mistake)
        submit(course, "leaves-blank", number, lambda asked: "")
        nbgrader(course, "autograde", number)
    nbgrader(course, "export")
    return course


@pytest.mark.parametrize("number", GRADED)
def test_students_get_the_notebook_of_the_series(course, number):
    (path,) = find(ROOT, [number])
    theirs = read(course / "release" / number / path.name)
    comments = [c for c in theirs.cells if c.source.strip() == COMMENT]
    rest = [c.source.split("\n") for c in theirs.cells if c not in comments]
    ours = [c.source.split("\n") for c in read(path).cells]
    # A solution leaves an empty line behind.
    assert [[x for x in c if x] for c in rest] == [[x for x in c if x] for c in ours]
    assert len(comments) == len(checks_of(number))
    assert "BEGIN" not in json.dumps(theirs) and "verdict" not in json.dumps(theirs)


def test_grades(course):
    table = pd.read_csv(course / "grades.csv", dtype={"assignment": str})
    rows = table.set_index(["student_id", "assignment"])
    for number in GRADED:
        most = len(checks_of(number))
        assert (rows.max_score[:, number] == most).all()
        assert rows.score["solves-all", number] == most
        assert rows.score["errs", number] == 0
        assert rows.score["leaves-blank", number] == 0


@pytest.mark.parametrize("student", ["errs", "leaves-blank"])
@pytest.mark.parametrize("number", GRADED)
def test_nothing_but_the_tests_fails_and_they_tell_the_hint(course, student, number):
    (file,) = (course / "autograded" / student / number).glob("*.ipynb")
    said = []
    for cell in read(file).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                assert cell.metadata.nbgrader.grade
                said.append(output.evalue)
    assert len(said) == len(checks_of(number))
    begins = "not yet. " if student == "errs" else "not answered yet."
    assert all(text.startswith(begins) for text in said)
