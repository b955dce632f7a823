"""What tests of core share."""

import pytest


@pytest.fixture
def clock(monkeypatch):
    """Let time pass by sleeping alone: on a busy machine nobody else is late."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now
