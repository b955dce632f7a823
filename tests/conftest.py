"""Settings for all tests: Flower and Ray send nothing home and stay quiet."""

import logging
import os

import pytest

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@pytest.fixture(autouse=True)
def quiet_flwr():
    """Let Flower log errors alone: a strategy logs each of its rounds."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
