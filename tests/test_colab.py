"""The set-up cell on Google Colab, without Colab: its branch works, and its install changes nothing there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from check_versions import COLAB, COLAB_PYTHON
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from repository import ROOT, fresh_environment
from rewrite_addresses import setup_cell

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Small packages that an install may bring along: no other package depends on their version there.
MAY_BE_NEW = {"platformdirs", "lazy-loader"}
THERE_WITH_TORCH = {"filelock"}  # of a release far above the lower bound


def test_requirements_accept_what_colab_has():
    installed = {canonicalize_name(name): version for name, version in COLAB.items()}
    assert SpecifierSet(PROJECT["requires-python"]).contains(COLAB_PYTHON)
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name in installed:
            assert requirement.specifier.contains(installed[name]), f"{line} would replace {installed[name]}"
        else:
            assert name in MAY_BE_NEW | THERE_WITH_TORCH, (
                f"{line}: Colab has none, so say here that it may be installed"
            )


# Runs the cell in the file named by its argument as a notebook would. With "record" after it, no %pip is run:
# what was asked of it is printed. With "hidden" nobody can import the package until %pip was asked for it.
RUN_CELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
asked, hidden = [], []

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "drive_unet" and hidden:
            raise ModuleNotFoundError(name)
        return None

def pip(line):
    asked.append(line)
    hidden.clear()

if "hidden" in sys.argv[2:]:
    hidden.append(True)
    from importlib import util
    find_spec = util.find_spec
    util.find_spec = lambda name: None if hidden and name == "drive_unet" else find_spec(name)
    sys.meta_path.insert(0, Hide())
if "record" in sys.argv[2:]:
    shell.register_magic_function(pip, "line", "pip")
result = shell.run_cell(open(sys.argv[1], encoding="utf-8").read())
print("asked:", asked)
result.raise_error()
print("package:", shell.run_cell("import drive_unet; drive_unet.__file__").result)
"""


@pytest.fixture
def colab(tmp_path):
    """An environment in which google.colab is imported before the first cell, as on Colab."""
    package = tmp_path / "stub" / "google" / "colab"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (tmp_path / "stub" / "sitecustomize.py").write_text("import google.colab\n", encoding="utf-8")
    (tmp_path / "run_cell.py").write_text(RUN_CELL, encoding="utf-8")
    # With VIRTUAL_ENV, IPython would add the packages of the environment that runs the tests.
    dropped = {"PYTHONPATH", "VIRTUAL_ENV"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    return environment | {"PYTHONPATH": str(tmp_path / "stub"), "IPYTHONDIR": str(tmp_path / "ipython")}


def run_cell(python, source, folder, environment, *arguments, status=0):
    cell = folder / "cell.py"
    cell.write_text(source, encoding="utf-8")
    command = [str(python), str(folder / "run_cell.py"), str(cell), *arguments]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == status, run.stdout + run.stderr
    return run.stdout + run.stderr


PUBLISHED = setup_cell("https://github.com/somebody/vessels")
UNPUBLISHED = setup_cell("https://github.com/OWNER/drive-unet")


@pytest.mark.parametrize("source", [PUBLISHED, UNPUBLISHED])
def test_colab_branch_leaves_an_installed_package_alone(tmp_path, colab, source):
    (tmp_path / "drive_unet-9.9-py3-none-any.whl").touch()
    shown = run_cell(sys.executable, source, tmp_path, colab, "record")
    assert "asked: []" in shown
    assert "package: " in shown


def test_colab_branch_installs_from_the_address(tmp_path, colab):
    shown = run_cell(sys.executable, PUBLISHED, tmp_path, colab, "record", "hidden")
    assert """asked: ['install --quiet "git+https://github.com/somebody/vessels"']""" in shown
    assert "package: " in shown


@pytest.mark.parametrize("source", [PUBLISHED, UNPUBLISHED])
def test_colab_branch_takes_a_wheel_from_drive_and_rather_from_the_session(tmp_path, colab, source):
    wheel = "drive_unet-9.9-py3-none-any.whl"
    mounted = tmp_path / "drive" / "MyDrive"
    mounted.mkdir(parents=True)
    (mounted / wheel).touch()
    shown = run_cell(sys.executable, source, tmp_path, colab, "record", "hidden")
    assert f"""asked: ['install --quiet "{Path("drive/MyDrive") / wheel}"']""" in shown
    (tmp_path / wheel).touch()
    shown = run_cell(sys.executable, source, tmp_path, colab, "record", "hidden")
    assert f"""asked: ['install --quiet "{wheel}"']""" in shown
    assert "package: " in shown


def test_colab_branch_installs_nothing_from_the_placeholder_and_says_what_is_missing(tmp_path, colab):
    shown = run_cell(sys.executable, UNPUBLISHED, tmp_path, colab, "record", "hidden", status=1)
    assert "asked: []" in shown
    assert "no wheel of it here. Put drive_unet-*.whl" in shown


@pytest.mark.parametrize("source", [PUBLISHED, UNPUBLISHED])
def test_elsewhere_nothing_is_installed(tmp_path, colab, source):
    del colab["PYTHONPATH"]
    (tmp_path / "drive_unet-9.9-py3-none-any.whl").touch()
    assert "asked: []" in run_cell(sys.executable, source, tmp_path, colab, "record")


def test_set_up_cell_can_be_read_at_a_glance():
    assert max(len(PUBLISHED.splitlines()), len(UNPUBLISHED.splitlines())) < 20


@pytest.mark.slow
@pytest.mark.skipif(
    os.name == "nt", reason="links packages into a new environment, which Windows lets few users do"
)
def test_colab_branch_installs_from_git(tmp_path, colab):
    published = tmp_path / "published"
    published.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, published)
    shutil.copytree(ROOT / "LICENSES", published / "LICENSES")
    shutil.copytree(
        ROOT / "drive_unet", published / "drive_unet", ignore=shutil.ignore_patterns("__pycache__")
    )
    git = [
        "git",
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.org",
        "-c",
        "init.defaultBranch=main",
    ]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "published"]):
        subprocess.run([*git, *command], cwd=published, check=True)
    colab |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/somebody/vessels",
    }
    python = fresh_environment(tmp_path)
    before = installed(python, colab)
    shown = run_cell(python, PUBLISHED, tmp_path, colab)
    assert f"package: {python.parent.parent}" in shown
    after = installed(python, colab)
    assert after.pop("drive-unet")
    assert after == before


def installed(python, environment):
    """Return name and version of every package that `python` sees."""
    command = [str(python), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(line.split("==") for line in listed.splitlines())
