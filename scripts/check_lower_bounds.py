"""Run the tests with the oldest releases that pyproject.toml allows, on the oldest Python.

`python scripts/check_lower_bounds.py` makes the environment `.venv-lowest` with uv (`pip install uv`), each
direct dependency at its lower bound, and runs all tests but the notebooks in it. What stands after `--`
goes to pytest instead: `python scripts/check_lower_bounds.py -- tests/test_losses.py -x`. With `--keep`, an
environment that is there is used as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-lowest"
TESTS = ("tests", "-q")


def oldest_python(project: dict) -> str:
    """Return the lower bound of `requires-python` in pyproject.toml's [project] table, such as "3.11"."""
    bound = re.fullmatch(r">=\s*(\d+\.\d+)", project["requires-python"])
    if bound is None:
        raise SystemExit(
            f"pyproject.toml: requires-python is {project['requires-python']!r}; expected one lower bound, "
            "such as '>=3.11'."
        )
    return bound.group(1)


def commands(uv: str, python: str, folder: Path, keep: bool = False) -> list[list[str]]:
    """Return the command lines that make the environment `folder`: none with `keep`, if it is there."""
    interpreter = str(interpreter_of(folder))
    if keep and Path(interpreter).exists():
        return []
    make = [uv, "venv", "--quiet", "--clear", "--python", python, str(folder)]
    lowest = ["--python", interpreter, "--resolution", "lowest-direct"]
    return [make, [uv, "pip", "install", *lowest, "--editable", f"{ROOT}[test]"]]


def interpreter_of(folder: Path) -> Path:
    """Return the path of the Python in the virtual environment `folder`."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def main(arguments: list[str] | None = None) -> int:
    """Make the environment and run the tests in it; return pytest's exit status, or that of what failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="use the environment that is there as it is")
    parser.add_argument("tests", nargs="*", metavar="ARGUMENT", help="for pytest, after `--`")
    options = parser.parse_args(arguments)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    uv = shutil.which("uv")
    if uv is None:
        parser.error("it needs uv, which resolves to lowest releases; install it with `pip install uv`")
    environment = {
        key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}
    }
    test = [str(interpreter_of(FOLDER)), "-m", "pytest", *(options.tests or TESTS)]
    for command in [*commands(uv, oldest_python(project), FOLDER, options.keep), test]:
        print("$", *command, flush=True)
        status = subprocess.run(command, cwd=ROOT, env=environment).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
