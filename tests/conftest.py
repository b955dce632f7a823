"""Settings for all tests: Flower and Ray send nothing home and stay quiet."""

import logging
import os

import pytest

from budgets import Budgets
from processes import QUIET

os.environ |= QUIET


def pytest_configure(config):
    """Measure the notebooks: a plugin, as this file's hooks see its folder alone."""
    config.pluginmanager.register(Budgets())


@pytest.fixture(autouse=True)
def quiet_flwr():
    """Let Flower log errors alone: a strategy logs each of its rounds."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
