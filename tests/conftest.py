"""Settings for all tests: Flower and Ray send nothing home and stay quiet."""

import logging
import os

import pytest

from processes import QUIET

os.environ |= QUIET


@pytest.fixture(autouse=True)
def quiet_flwr():
    """Let Flower log errors alone: a strategy logs each of its rounds."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
