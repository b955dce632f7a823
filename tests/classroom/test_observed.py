"""What was seen on one machine is what a reader sees on another."""

import numpy as np
import pandas as pd

from gossiplib.classroom import Observed, observed


def a_run():
    events = pd.DataFrame({"time": [0.25, 1.5], "other": [1, np.nan], "a": ["b", "c"]})
    return {"events": events, "ends": {"0": [1, 2]}, "mean": np.float64(0.5)}


def test_what_is_stored_is_what_was_seen(tmp_path, monkeypatch):
    here = Observed("file", live=True)
    seen = here(a_run)
    (tmp_path / "data").mkdir()
    here.store(tmp_path / "data" / "file")
    monkeypatch.setattr(observed.resources, "files", lambda name: tmp_path)
    there = Observed("file", live=False)(a_run)
    for one in (seen, there):
        pd.testing.assert_frame_equal(one.pop("events"), a_run()["events"])
        assert one == {"ends": {"0": [1, 2]}, "mean": 0.5}
