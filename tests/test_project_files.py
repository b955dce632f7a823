"""What stands around the code: citation, changelog, contributing, forms, workflow.

The schemas themselves were checked with cffconvert and check-jsonschema; here is what
can drift.
"""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from docstrings import offered, tree, wing
from environments import binder_requirements
from gossiplib import protocols
from house import files, from_the_ground, written
from notebooks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text("utf-8"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
TEXTS = ["CONTRIBUTING.md", "README.md", "notebooks/teachers_guide.md"]
README = (ROOT / "README.md").read_text("utf-8")
HOUSE = (ROOT / "notebooks/house.md").read_text("utf-8")
SNIPPETS = re.findall(r"(?s)```python\n(.+?)```", README + HOUSE)


def test_the_table_of_protocols_has_all_of_the_face():
    table = (ROOT / "notebooks/protocols.md").read_text("utf-8")
    kinds = {"Codec"}  # what the codecs are, and no protocol
    named = set(re.findall(r"\w+", table))
    assert set(protocols.__all__) - kinds <= named


def test_the_citation_is_that_of_the_project():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["title"] == PROJECT["description"]
    assert CITATION.get("repository-code") == PROJECT["urls"].get("Repository")


def test_the_changelog_tells_of_this_version():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"(?m)^## \[(.+?)\]", text)[0] == "Unreleased"
    assert PROJECT["version"] in text


def test_the_workflow_has_the_oldest_and_newest_that_the_project_admits():
    rows = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["include"]
    (flower,) = (d for d in PROJECT["dependencies"] if d.startswith("flwr["))
    oldest = re.search(r">=([\d.]+)", flower)[1]
    assert f"flwr=={oldest}.0" in {row["pins"] for row in rows}
    (python,) = re.findall(r"Python (3\.\d+ to 3\.\d+)", README)
    pythons = {row["python"] for row in rows}
    assert set(python.split(" to ")) <= pythons
    assert PROJECT["requires-python"] == f">={python.split(' to ')[0]}"
    assert any("macos" in row["os"] for row in rows)
    assert "windows" in WORKFLOW["jobs"]["windows"]["runs-on"]


def test_the_workflow_runs_make_test_weekly_and_on_push():
    when = WORKFLOW[True]  # YAML 1.1 reads `on` so
    assert {"push", "pull_request", "schedule"} <= set(when)
    assert len(when["schedule"][0]["cron"].split()) == 5
    jobs = dict(WORKFLOW["jobs"])
    for name, command in {
        "test": "make test",
        "windows": "make test",
        "portable": "make portable",
        "places": "make ${{ matrix.place }}",
    }.items():
        runs = [step.get("run", "") for step in jobs.pop(name)["steps"]]
        assert any(command in run for run in runs)
    assert jobs == {}


@pytest.mark.parametrize("form", [f for f in FORMS if f.stem != "config"])
def test_a_form_asks_something(form):
    asked = yaml.safe_load(form.read_text("utf-8"))
    assert {"name", "description", "body"} <= set(asked)
    fields = [f for f in asked["body"] if f["type"] != "markdown"]
    ids = [f["id"] for f in fields]
    assert len(ids) == len(set(ids)) and all(f["attributes"]["label"] for f in fields)
    assert any(f.get("validations", {}).get("required") for f in fields)


def test_conda_asks_for_what_the_project_asks():
    assert set(PROJECT["dependencies"]) <= set(binder_requirements())


def test_every_pin_admits_every_python_that_is_stated():
    text = (ROOT / "constraints.txt").read_text()
    pins = {canonicalize_name(n): v for n, v in re.findall(r"(?m)^(.+)==(.+)$", text)}
    first, last = map(int, re.search(r"3\.(\d+) to 3\.(\d+)", README).groups())
    pythons = [f"3.{minor}.0" for minor in range(first, last + 1)]
    asks = {
        dist.name: SpecifierSet(dist.metadata["Requires-Python"] or "")
        for dist in distributions()
        if pins.get(canonicalize_name(dist.name)) == dist.version.split("+")[0]
    }
    assert asks, "nothing of constraints.txt is installed"
    refused = {n: s for n, s in asks.items() if not all(map(s.contains, pythons))}
    assert refused == {}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_readmes_snippets_run_as_they_stand(snippet, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and " rows x " in done.stdout, done.stderr


@pytest.mark.parametrize("name", TEXTS)
def test_commands_that_are_told_exist(name):
    text = (ROOT / name).read_text("utf-8")
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    told = re.findall(r"(?m)(?:^|`)make ([a-z]+)", text)
    assert told and set(told) <= targets


@pytest.mark.parametrize(
    ("target", "extras"), [("lab", "lab"), ("site", "site"), ("test", "lab,site,test")]
)
def test_make_installs_what_a_target_needs_and_shows_it(target, extras):
    env = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
    make = ["make", "--dry-run", "--always-make", target]
    told = subprocess.check_output(make, cwd=ROOT, env=env, text=True)
    assert re.findall(r"--editable '\.\[(.+)\]'", told) == [extras]
    assert "GB on disk" in told and "install --quiet" not in told
    assert ("byzfl" in told) == ("test" in extras)


def test_files_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`((?:tests|notebooks|gossiplib)/[\w./]*)`", text)
    assert named
    missing = [n for n in named if "NN" not in n and not (ROOT / n).exists()]
    assert missing == []


def test_the_house_is_drawn_as_it_stands():
    # How many lines a room has is told "about": it may change by a tenth.
    lines = re.compile(r"(?<=\| )[\d,]+(?= \|$)", re.MULTILINE)
    for path, text in written().items():
        drawn = path.read_text("utf-8")
        assert lines.sub("", drawn) == lines.sub("", text), "run `make house`"
        told, counted = (
            [int(number.replace(",", "")) for number in lines.findall(page)]
            for page in (drawn, text)
        )
        assert told == pytest.approx(counted, rel=0.1, abs=100), "run `make house`"


def test_names_that_readme_and_pages_tell_exist():
    names, homes = set(), set(from_the_ground())
    for path in (path for room in from_the_ground() for path in files(room)):
        homes.add(path.stem)
        for name in offered(tree(path)):
            names |= {name, f"{path.stem}.{name}", f"{wing(path)}.{name}"}
    pages = [f"notebooks/{name}.md" for name in ("failures", "house", "protocols")]
    reference = "\n".join((ROOT / page).read_text("utf-8") for page in pages)
    told = re.findall(r"`([a-z_]+\.[A-Za-z_]+)[`(]", README + reference)
    ours = {name for name in told if name.split(".")[0] in homes}
    variables = {"context.state", "peers.refused", "result.lost", "task.client_app"}
    assert len(ours) > 20 and ours - names == variables
    # The table of protocols also names modules, and goes on after a comma.
    rows = reference.split("| protocol |")[1].split("\n\n")[0].splitlines()[2:]
    built = {n for row in rows for n in re.findall(r"`(\w+)[`(]", row.split("|")[3])}
    assert built - names - homes == {"LocalDpMod"}
