"""The app of `flwr run`: what it says, and before what it says so."""

import pandas as pd
import pytest
from flwr.app import Context, RecordDict

from gossiplib.app import client, main
from gossiplib.core.grid import LocalGrid
from notebooks import ROOT
from run_app import settings

FEW = {"num-clients": 4, "num-rounds": 2, "every": 1, "topology": "ring"}


def run(num_nodes=4, **changed):
    """Run the app in this process."""
    config = settings(ROOT) | FEW | changed
    grid = LocalGrid(client, num_nodes, run_config=config)
    main(grid, Context(0, 0, {}, RecordDict(), config))


def test_it_says_in_80_columns_what_its_numbers_are_and_where_its_files(
    tmp_path, capsys
):
    run(output=str(tmp_path / "out"))
    told = capsys.readouterr().out
    assert max(map(len, told.replace(str(tmp_path), "").splitlines())) <= 80
    assert f"{tmp_path}/out:\naccuracy.csv, accuracy.png" in told
    assert (tmp_path / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "out" / "accuracy.csv", index_col=0, header=[0, 1])
    assert list(table.index) == [1, 2]
    pd.testing.assert_frame_equal(table["ring"], table["ring (local)"])


@pytest.mark.parametrize(
    ("nodes", "changed", "said"),
    [
        (2, {}, '(?s)4 clients, and there are 2 SuperNodes.*"num-supernodes=4"'),
        (5, {}, "there are 5 SuperNodes"),
        (4, {"topology": "cube"}, "cube"),
        (6, {"topology": "hypercube", "num-clients": 6}, "power of 2"),
    ],
)
def test_what_cannot_be_run_is_said_before_the_first_round(
    nodes, changed, said, capsys
):
    with pytest.raises(ValueError, match=said):
        run(nodes, **changed)
    assert "FedAvg" not in capsys.readouterr().out
