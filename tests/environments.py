"""Run the notebooks where their readers do: `make colab` and `make binder`.

    python3.13 tests/environments.py colab [NUMBER ...]
    python3.12 tests/environments.py binder [NUMBER ...]

`make` starts it with the Python of .venv and names the other one with --python.

colab: a fresh environment with the versions of Colab (colab.txt). The install cell of
each notebook runs as it is, but that it finds gossiplib here; then the kernel starts
anew and the notebook runs.
binder: an environment of what environment.yml names, from PyPI instead of conda-forge,
then postBuild. The notebooks run beside a JupyterLab, with one processor's time and
2 GiB for all of it, held by a control group of Linux where we may make one.

Told for each notebook: seconds, peak memory, and how many of the outputs that nbval
compares are those of the notebook, under these versions. What can not be seen here: the
web pages of Colab and Binder, Colab's other packages, conda-forge's builds, a network.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode, v4

import gossiplib
from links import WITHOUT_FLOWER, install_cell, tagged
from notebooks import ROOT, execute, find, peak_memory, read
from processes import private_environment

HOME = ROOT / "out" / "environments"
KEPT = ("numpy", "torch", "ipywidgets", "ipython", "ipykernel")
#: What conda-forge calls otherwise than PyPI; None is no library.
ON_PYPI = {
    "python": None,
    "pip": None,
    "matplotlib-base": "matplotlib",
    "pytorch-cpu": "torch",
}
COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('colab')"
GIB = 2**30


def binder_requirements() -> list[str]:
    """Return what environment.yml asks for, as pip says it."""
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (line["pip"] for line in conda if isinstance(line, dict))
    names = [line for line in conda if isinstance(line, str)]
    wanted = []
    for line in names:
        conda_name = line.split(">")[0].split("=")[0]
        pip_name = ON_PYPI.get(conda_name, conda_name)
        if pip_name:
            wanted.append(line.replace(conda_name, pip_name))
    return wanted + pip


class Environment:
    """A virtual environment with a kernel that nbclient can start.

    Parameters
    ----------
    name : str
        "colab" or "binder"; also the kernel's name.
    python : str
        The Python that it is made with.
    requirements : list of str
        What is installed at first.
    """

    def __init__(self, name: str, python: str, requirements: list[str]) -> None:
        self.name, self.folder = name, HOME / name
        self.python = self.folder / "bin" / "python"
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", self.folder], check=True)
        self.pip("install", "--quiet", *requirements)
        self.first = self.versions()
        kernel = HOME / "kernels" / name
        kernel.mkdir(parents=True, exist_ok=True)
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": name, "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))

    def pip(self, *arguments: str) -> str:
        """Run this environment's pip."""
        command = [self.python, "-m", "pip", "--disable-pip-version-check", *arguments]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def versions(self) -> dict[str, str]:
        """Return the version of each package that is installed."""
        listed = json.loads(self.pip("list", "--format", "json"))
        return {line["name"].lower(): line["version"] for line in listed}

    def check_kept(self) -> None:
        """Tell what installing changed; end if it is one of those to be kept."""
        now = self.versions()
        for name, version in self.first.items():
            if now.get(name) != version:
                print(f"  changed: {name} {version} -> {now.get(name)}")
        new = sorted(set(now) - set(self.first))
        print(f"  new: {len(new)} packages")
        if broken := [n for n in KEPT if now.get(n) != self.first.get(n)]:
            sys.exit(f"{self.name}: installing changed {', '.join(broken)}")

    def run(self, notebook: NotebookNode, folder: Path, env: dict[str, str]) -> None:
        """Run a notebook in a fresh kernel of this environment."""
        paths = os.environ.get("PATH", "")
        env = env | {
            "PATH": f"{self.python.parent}:{paths}",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        execute(notebook, folder, env, kernel=self.name)


def on_colab(path: Path) -> str:
    """Return an install cell that takes itself to be on Colab, and finds us here."""
    flower = not path.name.startswith(WITHOUT_FLOWER)
    cell = install_cell("https://github.com/any/one", gossiplib.__version__, flower)
    return re.sub(r"https://\S+\.zip", str(ROOT), f"{COLAB}\n{cell}")


def installed_by_its_own_cell(environment: Environment, path: Path) -> None:
    """Run a notebook's install cell as on Colab, with gossiplib from here."""
    notebook = v4.new_notebook(cells=[v4.new_code_cell(on_colab(path))])
    with private_environment() as env:
        environment.run(notebook, path.parent, env)


def agreement(before: NotebookNode, after: NotebookNode) -> str:
    """Return how many of the compared outputs are the same, and those that are not."""

    def texts(notebook: NotebookNode) -> list[str]:
        return [
            "".join(o.get("text", o.get("data", {}).get("text/plain", "")) for o in c)
            for c in (cell.outputs for cell in tagged(notebook, "nbval-check-output"))
        ]

    pairs = list(zip(texts(before), texts(after), strict=True))
    others = [f"\n  here: {b}\n  kept: {a}" for a, b in pairs if a != b]
    return f"{len(pairs) - len(others)} of {len(pairs)} outputs the same" + "".join(
        others
    )


@contextlib.contextmanager
def group(memory: int, processors: float) -> Iterator[str]:
    """Hold this process and its children to some memory and processor time.

    Gives what the limit is held by.
    """
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/gossiplib")
    quota = str(int(processors * 100_000))
    settings = {new: {"memory.max": str(memory), "cpu.max": f"{quota} 100000"}}
    if old.exists():  # version 1: a folder for each of memory and time
        settings = {
            old / "gossiplib": {"memory.limit_in_bytes": str(memory)},
            old.parent / "cpu" / "gossiplib": {"cpu.cfs_quota_us": quota},
        }
    made = []
    try:
        for folder, values in settings.items():
            folder.mkdir(exist_ok=True)
            made.append(folder)
            for name, value in values.items():
                (folder / name).write_text(value)
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        held = "a control group"
    except OSError:
        held = "nothing (no right to make a control group): memory is measured only"
    try:
        yield held
    finally:
        for folder in made:
            (folder.parent / "cgroup.procs").write_text(str(os.getpid()))
            with contextlib.suppress(OSError):  # a process may still be ending
                folder.rmdir()


def told(environment: Environment, paths: list[Path], install=None) -> int:
    """Run notebooks, print a line for each; return how many failed.

    `install` gives another install cell for the notebook at a path.
    """
    failed = 0
    for path in paths:
        before, after = read(path), read(path)
        if install:
            (cell,) = tagged(after, "install")
            cell.source = install(path)
        with private_environment() as env, peak_memory(env["FLWR_HOME"]) as peak:
            start = time.perf_counter()
            try:
                environment.run(after, path.parent, env)
                result = agreement(before, after)
            except (CellExecutionError, RuntimeError) as error:
                failed += 1
                result = f"FAILED: {str(error)[-1500:]}"
            seconds = time.perf_counter() - start
        print(f"{path.stem:32} {seconds:4.0f} s {peak[0] / 1e6:5.0f} MB  {result}")
        sys.stdout.flush()
    return failed


def colab(python: str, numbers: list[str]) -> int:
    """Install and run as on Colab; return how many notebooks failed."""
    pins = (ROOT / "tests" / "colab.txt").read_text().splitlines()
    environment = Environment(
        "colab", python, [p for p in pins if not p.startswith("#")]
    )
    failed = 0
    light = [p for p in find(ROOT, ["02", "03", "09"]) if p in find(ROOT, numbers)]
    heavy = [p for p in find(ROOT, numbers) if p not in light]
    for paths in (light, heavy):  # first without Flower
        if paths:
            print(f"install cell of {paths[0].stem}")
            installed_by_its_own_cell(environment, paths[0])
            environment.check_kept()
            failed += told(environment, paths, on_colab)
    return failed


def binder(python: str, numbers: list[str]) -> int:
    """Install and run as on Binder; return how many notebooks failed."""
    environment = Environment("binder", python, binder_requirements())
    path = f"{environment.python.parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", ROOT / "postBuild"], cwd=ROOT, env=os.environ | {"PATH": path}
    )
    environment.check_kept()
    with group(2 * GIB, 1) as held, lab(environment):
        print(f"2 GiB and one processor's time held by {held}")
        return told(environment, find(ROOT, numbers))


@contextlib.contextmanager
def lab(environment: Environment) -> Iterator[None]:
    """Have a JupyterLab beside, as on Binder: it takes its part of the memory."""
    command = [environment.python, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    server = subprocess.Popen(
        [*command, "--ip=127.0.0.1", "--port=0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", choices=["colab", "binder"])
    parser.add_argument("numbers", nargs="*", help="for example 02 03; default: all")
    parser.add_argument("--python", required=True, help="the Python to start from")
    given = parser.parse_args()
    os.environ["JUPYTER_PATH"] = str(HOME)
    run = {"colab": colab, "binder": binder}[given.place]
    if failed := run(given.python, given.numbers):
        sys.exit(f"{failed} notebooks failed")


if __name__ == "__main__":
    main()
