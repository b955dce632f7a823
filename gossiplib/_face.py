"""The face of a package: names that are loaded when they are asked for."""

import ast
from collections.abc import Callable
from pathlib import Path

import lazy_loader


def face(
    package: str, file: str
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    The names are those that its ``__init__.py`` imports under ``TYPE_CHECKING``: so
    they stand in one place, type checkers see what they are, and importing the package
    imports none of them. (`lazy_loader.attach_stub` reads them from a ``.pyi`` file,
    which a bundle of Flower's cannot hold.)

    Parameters
    ----------
    package, file : str
        The package's ``__name__`` and ``__file__``.
    """
    modules: set[str] = set()
    names: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(Path(file).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found = [alias.name for alias in node.names]
            if node.module:
                names.setdefault(node.module, []).extend(found)
            else:
                modules.update(found)
    return lazy_loader.attach(package, modules, names)
