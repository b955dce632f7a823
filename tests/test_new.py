"""A new app by `python -m gossiplib.new`: whole, and run by `flwr run .`."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from flwr.app import ArrayRecord, Context, RecordDict
from flwr.serverapp.strategy import FedAvg

from gossiplib.core.grid import LocalGrid
from gossiplib.deployment.superlink import SuperLink
from gossiplib.new import new
from run_app import settings


@pytest.fixture
def app(tmp_path, monkeypatch):
    """The folder of a new app, whose package can be imported."""
    folder = tmp_path / "my-Own-app"
    new(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith("my_own_app")]:
        del sys.modules[name]


def picture_and_table(folder):
    """Return whether there is a picture, and the table beside it."""
    drawn = (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    return drawn, pd.read_csv(folder / "accuracy.csv")


def test_a_folder_whose_name_no_text_can_hold_is_not_begun(tmp_path):
    with pytest.raises(ValueError, match="is no text: choose another"):
        new(tmp_path / os.fsdecode(b"\xff") / "my-app")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_an_app_and_overwrites_nothing(tmp_path):
    command = [sys.executable, "-m", "gossiplib.new", "my-project"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "README.md" in done.stdout
    folder = tmp_path / "my-project"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")}
    three = ("client_app", "server_app", "task")
    parts = {f"my_project/{name}.py" for name in ("__init__", *three)}
    assert files == {"README.md", "pyproject.toml"} | parts
    (folder / "README.md").write_text("mine")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1 and "there already" in again.stderr
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_project", "letters, digits and hyphens"),
        ("2-fast", "begins with a letter"),
        ("my project", "letters, digits and hyphens"),
        ("a" * 33, "at most 32"),
        ("Class", "a word of Python"),
        ("torch", "would hide the package torch"),
        ("flwr-datasets", "would hide the package flwr_datasets"),
    ],
)
def test_a_name_that_would_not_do_is_refused(tmp_path, name, says):
    with pytest.raises(ValueError, match=says):
        new(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_its_folder_may_have_any_name_above(tmp_path):
    folder = tmp_path / 'a "quoted"\n\\ é 😀\x7f' / "my-project"
    new(folder)
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    assert project["tool"]["flwr"]["app"]["config"]["output"] == str(folder)


def test_where_the_disk_is_full_nothing_is_left(tmp_path, monkeypatch):
    write = Path.write_text

    def full(path, *args):
        if path.name == "client_app.py":
            raise OSError("No space left on device")
        return write(path, *args)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        new(tmp_path / "my-project")
    assert list(tmp_path.iterdir()) == []


def test_it_names_itself_and_is_valid(app):
    project = tomllib.loads((app / "pyproject.toml").read_text())
    assert project["project"]["name"] == "my-Own-app"
    assert project["tool"]["flwr"]["app"]["config"]["output"] == app.as_posix()
    text = "".join(path.read_text() for path in app.rglob("*.*"))
    assert "my-project" not in text and "my_project" not in text


def test_it_gossips_here_and_without_its_last_line_it_is_an_app_for_fedavg(app, capsys):
    server, client, task = (
        importlib.import_module(f"my_own_app.{name}")
        for name in ("server_app", "client_app", "task")
    )
    config = settings(app)
    grid = LocalGrid(client.app, 5, run_config=config)
    server.app(grid, Context(0, 0, {}, RecordDict(), config))
    drawn, table = picture_and_table(app)
    assert drawn and len(table) == 5 * config["num-rounds"] and not table.lost.any()
    last = table.query(f"round == {config['num-rounds']}").evaluate_accuracy
    assert last.mean() > 0.8
    assert "Accuracy of 5 clients" in capsys.readouterr().out
    result = FedAvg().start(
        LocalGrid(client.client, 5, run_config=config),
        ArrayRecord(task.Net().state_dict()),
        num_rounds=2,
    )
    assert result.evaluate_metrics_clientapp[2]["accuracy"] > 0.3


def test_flwr_run_ends_with_a_picture(app):
    with SuperLink() as superlink:
        printed = superlink.run(app, {"num-rounds": 2})
    drawn, table = picture_and_table(app)
    assert drawn and set(table["round"]) == {1, 2}
    assert "accuracy.csv and accuracy.png are in" in printed
