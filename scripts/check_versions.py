"""Run the tests with one of the sets of releases that the package promises to work with.

`python scripts/check_versions.py lowest` makes the environment `.venv-lowest` with uv (`pip install uv`),
each direct dependency at the lower bound of pyproject.toml, on the oldest Python, and runs all tests but
the notebooks in it; `newest` takes the newest releases, `colab` what Google Colab ships, on its Python.
What stands after `--` goes to pytest instead: `python scripts/check_versions.py lowest --
tests/test_losses.py -x`. With `--keep`, an environment that is there is used as it is.
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
TESTS = ("tests", "-q")
OLDER = ("-W", "default")  # what older releases warn of each other's newer ones is no error of ours
SETS = ("lowest", "newest", "colab")

# What Colab had installed in August 2026, as its public image listed it; `pip list` there tells the present.
COLAB_PYTHON = "3.13"
COLAB = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.1.3",
    "pillow": "11.3.0",
    "matplotlib": "3.10.0",
    "scikit-image": "0.25.2",
    "scikit-learn": "1.6.1",
    "scipy": "1.16.3",
    "ipywidgets": "7.7.1",
    "ipykernel": "6.17.1",
    "ipython": "7.34.0",
    "accelerate": "1.14.0",
    "safetensors": "0.8.0",
    "huggingface_hub": "1.27.0",
    "pooch": "1.9.0",
    "tqdm": "4.67.3",
}
# The tests themselves run in Jupyter's present kernel, which Colab's own is too old for.
TESTS_BRING = ("ipykernel", "ipython")


def oldest_python(project: dict) -> str:
    """Return the lower bound of `requires-python` in pyproject.toml's [project] table, such as "3.11"."""
    bound = re.fullmatch(r">=\s*(\d+\.\d+)", project["requires-python"])
    if bound is None:
        raise SystemExit(
            f"pyproject.toml: requires-python is {project['requires-python']!r}; expected one lower bound, "
            "such as '>=3.11'."
        )
    return bound.group(1)


def commands(uv: str, versions: str, project: dict, folder: Path, keep: bool = False) -> list[list[str]]:
    """Return the command lines that make the environment of a set: none with `keep`, if it is there."""
    interpreter = str(interpreter_of(folder))
    if keep and Path(interpreter).exists():
        return []
    python = COLAB_PYTHON if versions == "colab" else oldest_python(project)
    make = [uv, "venv", "--quiet", "--clear", "--python", python, str(folder)]
    install = [uv, "pip", "install", "--python", interpreter]
    if versions == "lowest":
        install += ["--resolution", "lowest-direct"]
    install += ["--editable", f"{ROOT}[test]"]
    if versions == "colab":
        install += [f"{name}=={version}" for name, version in COLAB.items() if name not in TESTS_BRING]
    return [make, install]


def interpreter_of(folder: Path) -> Path:
    """Return the path of the Python in the virtual environment `folder`."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def main(arguments: list[str] | None = None) -> int:
    """Make the environment and run the tests in it; return pytest's exit status, or that of what failed."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        usage="%(prog)s [-h] [--keep] {lowest,newest,colab} [-- ARGUMENT OF PYTEST ...]",
        description=__doc__,
        formatter_class=form,
    )
    parser.add_argument("versions", choices=SETS, help="which releases")
    parser.add_argument("--keep", action="store_true", help="use the environment that is there as it is")
    arguments = sys.argv[1:] if arguments is None else arguments
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:cut])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    uv = shutil.which("uv")
    if uv is None:
        parser.error("it needs uv, which resolves to lowest releases; install it with `pip install uv`")
    environment = {
        key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}
    }
    folder = ROOT / f".venv-{options.versions}"
    tests = [*(arguments[cut + 1 :] or TESTS), *(() if options.versions == "newest" else OLDER)]
    test = [str(interpreter_of(folder)), "-m", "pytest", *tests]
    for command in [*commands(uv, options.versions, project, folder, options.keep), test]:
        print("$", *command, flush=True)
        status = subprocess.run(command, cwd=ROOT, env=environment).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
