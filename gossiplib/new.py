"""Begin an app of your own: `python -m gossiplib.new my-project`.

It writes a Flower app that gossips, small and whole: `client_app.py`, `server_app.py`
and `task.py`, with a pyproject.toml and a README that says how `flwr run .` runs it.
"""

import argparse
import keyword
import re
import shutil
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from gossiplib.system.runs import toml

__all__ = ["new"]

#: As Flower wants the names of apps, and of their folders.
NAME = re.compile("[A-Za-z][A-Za-z0-9-]{0,31}")
#: Where the app stands, as "my-project" and its package `my_project`.
TEMPLATE = resources.files("gossiplib") / "data" / "new"
FILES = (
    "README.md",
    "pyproject.toml",
    "my_project/__init__.py",
    "my_project/client_app.py",
    "my_project/server_app.py",
    "my_project/task.py",
)


def new(folder: str | Path) -> list[Path]:
    """Write a Flower app that gossips into a new folder.

    Parameters
    ----------
    folder : str or Path
        Where, such as "my-project". Its last part is the name of the app; with
        underscores for hyphens, in small letters, that of its package.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    FileExistsError
        If there is such a folder, or a file: nothing is overwritten.
    ValueError
        If Flower would refuse the name, or the app's package could not be imported by
        it.
    """
    folder = Path(folder).absolute()
    name = folder.name
    package = name.lower().replace("-", "_")
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be the name of a Flower app: it has at most 32 letters, "
            "digits and hyphens, and begins with a letter, as my-project does"
        )
    if keyword.iskeyword(package):
        raise ValueError(f"{name!r} is a word of Python: choose another name")
    if find_spec(package):
        raise ValueError(
            f"{name!r} would hide the package {package}, which is installed here: "
            "choose another name"
        )
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{str(folder)!r} is no text: choose another folder"
        ) from error
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: choose another name")
    words = {"my-project": name, "my_project": package}
    words['"OUTPUT"'] = toml(folder.as_posix())
    written = []
    try:
        for file in FILES:
            text = TEMPLATE.joinpath(file).read_text("utf-8")
            text = re.sub("|".join(words), lambda m: words[m[0]], text)
            path = folder / file.replace("my_project", package)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            written.append(path)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)  # it is whole, or not there
        raise
    return written


def main() -> None:
    """Write the app that the command line names, and say what to do next."""
    parser = argparse.ArgumentParser("gossiplib.new", description=__doc__)
    parser.add_argument("folder", help="a new folder, such as my-project")
    folder = parser.parse_args().folder
    try:
        written = new(folder)
    except (ValueError, OSError) as error:
        sys.exit(f"Nothing was written: {error}.")
    print("Written:", *(path.relative_to(Path(folder).absolute()) for path in written))
    print(f"Now read {written[0]}: it says how `flwr run .` runs it.")


if __name__ == "__main__":
    main()
