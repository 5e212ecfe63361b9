"""The repository around the package: what is written in two places says the same in both."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from check_large_files import too_large
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from repository import MACHINE_PATH, ROOT, broken_links, files
from rewrite_addresses import BADGE, NOTEBOOKS, TEXTS, badge, repository
from rewrite_addresses import main as rewrite_addresses

import drive_unet

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
START = (
    'python3 -m venv .venv && .venv/bin/python -m pip install -e ".[lab]"'
    " && .venv/bin/jupyter lab notebooks/01_data_exploration.ipynb"
)
TEST = (
    'python3 -m venv .venv && .venv/bin/python -m pip install -e ".[test]"'
    " && .venv/bin/python -m pytest --nbval"
)


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def bash_lines(markdown):
    """Return the lines of the ```bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def test_readme_has_the_two_commands_each_on_one_line():
    lines = bash_lines(text_of("README.md"))
    assert START in lines
    assert TEST in lines
    assert not any(line.startswith("$ ") for line in lines)


def test_continuous_integration_runs_the_readme_line_as_it_stands():
    script = ROOT / ".ci" / "run"
    assert TEST in script.read_text(encoding="utf-8").splitlines()
    assert os.name == "nt" or os.access(script, os.X_OK)
    workflow = yaml.safe_load(text_of(".github/workflows/tests.yml"))
    assert any(step.get("run") == "./.ci/run" for step in workflow["jobs"]["notebooks"]["steps"])


def test_rooms_import_one_way(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports() == 0, "lint-imports shows which import breaks which contract of pyproject.toml"


def test_readme_leads_everywhere():
    readme = text_of("README.md")
    address = repository()
    for name in NOTEBOOKS:
        assert f"notebooks/{name}.ipynb" in readme
        assert badge(name, address) in readme
    assert "not a medical device" in readme.lower()
    assert "drive-unet demo" in readme
    assert "python -m pytest -m slow" in readme


@pytest.mark.parametrize(
    "name", [path.relative_to(ROOT).as_posix() for path in files() if path.suffix == ".md"]
)
def test_links_lead_somewhere(name):
    assert broken_links(text_of(name), (ROOT / name).parent) == []


def test_address_stands_in_one_place_and_is_copied_by_the_script(capsys):
    assert rewrite_addresses(["--check"]) == 0, capsys.readouterr().out
    copies = {ROOT / name for name in ("pyproject.toml", *TEXTS)}
    slug = repository().removeprefix("https://github.com/")
    for path in files():
        if path in copies or path.suffix not in {".py", ".yml", ".yaml", ".toml", ".md", ".cff"}:
            continue
        if path.parent == ROOT / "tests":  # they hold addresses to rewrite
            continue
        text = path.read_text(encoding="utf-8").replace("such as https://github.com/OWNER/drive-unet", "")
        assert f"github.com/{slug}" not in text, path
        assert not BADGE.search(text), path


def test_environment_yml_takes_everything_from_pyproject():
    environment = yaml.safe_load(text_of("environment.yml"))
    assert environment["name"] == PROJECT["name"]
    assert environment["channels"][0] == "conda-forge"
    assert "defaults" not in environment["channels"]
    python, pip, rest = environment["dependencies"]
    assert python == "python=3.12"
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.12")
    assert pip == "pip"
    (line,) = rest["pip"]
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", line).group(1).split(",")
    assert set(extras) == {"lab", "test"}
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_version_is_one():
    assert yaml.safe_load(text_of("CITATION.cff"))["version"] == drive_unet.__version__
    newest = re.search(r"^## (\S+)", text_of("CHANGELOG.md"), re.MULTILINE).group(1)
    assert newest == drive_unet.__version__


def test_pre_commit_uses_the_ruff_of_the_test_extra():
    (wanted,) = [
        line for line in PROJECT["optional-dependencies"]["test"] if Requirement(line).name == "ruff"
    ]
    (repo,) = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repo["hooks"]}
    assert hooks["ruff-check"]["additional_dependencies"] == [wanted]
    assert hooks["ruff-format"]["additional_dependencies"] == [wanted]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_is_content(command):
    names = [str(path) for path in files() if path.suffix in {".py", ".ipynb"}]
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_files_are_of_a_size_to_commit_and_none_is_of_drive():
    assert [sentence for path in files() if (sentence := too_large(path))] == []
    drive = re.compile(r"\d\d_(?:training|test)(?:_mask)?\.(?:tif|gif|png)$|\d\d_manual[12]\.(?:gif|png)$")
    assert [path.name for path in files() if drive.search(path.name)] == []


def test_no_file_names_a_machine():
    for path in files():
        if path.suffix in {".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".cff", ".cfg", ""}:
            found = MACHINE_PATH.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path}: {found}"
