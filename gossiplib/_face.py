"""The face of a package: names that are loaded when they are asked for."""

import ast
from collections.abc import Callable
from pkgutil import get_data

import lazy_loader


def face(
    package: str,
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    The names are those that its ``__init__.py`` imports under ``TYPE_CHECKING``: so
    they stand in one place, type checkers see what they are, and importing the package
    imports none of them. (`lazy_loader.attach_stub` reads them from a ``.pyi`` file,
    which a bundle of Flower's cannot hold.)

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    """
    modules: set[str] = set()
    names: dict[str, list[str]] = {}
    source = get_data(package, "__init__.py") or b""  # from a zip file too
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found = [alias.name for alias in node.names]
            if node.module:
                names.setdefault(node.module, []).extend(found)
            else:
                modules.update(found)
    return lazy_loader.attach(package, modules, names)
