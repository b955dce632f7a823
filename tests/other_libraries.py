"""Other libraries' functions, which are oracles of ours."""

import importlib
import importlib.util
import sys
import types


def byzfl(part):
    """Return a module of byzfl, such as `byzfl.aggregators`, without its benchmark.

    Its __init__ imports the benchmark, which needs torchvision.
    """
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        assert spec, "byzfl is not installed: pip install --no-deps byzfl"
        package = types.ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = package
    return importlib.import_module(f"byzfl.{part}")
