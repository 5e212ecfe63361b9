"""The repository around the package: what is written in two places says the same in both."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from argparse import Namespace

import check_versions
import pytest
import yaml
from check_large_files import too_large
from hatchling.builders.sdist import SdistBuilder
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from repository import MACHINE_PATH, ROOT, broken_links, files
from rewrite_addresses import BADGE, NOTEBOOKS, TEXTS, badge, repository
from rewrite_addresses import main as rewrite_addresses

import drive_unet
from drive_unet import PRESETS, UNet
from drive_unet.commands.main import main

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
START = (
    'python3 -m venv .venv && .venv/bin/python -m pip install -e ".[lab]"'
    " && .venv/bin/jupyter lab --ServerApp.root_dir=. notebooks/00_the_article.ipynb"
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


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("browser", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_continuous_integration_ends_with_a_banner_where_there_was_no_browser(tmp_path, browser, fails):
    stub = f"""#!/bin/sh
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *browser*) exit {1 - browser} ;;
  *pytest*) echo tests; exit {int(fails)} ;;
esac
"""
    for path, text in ((".ci/run", text_of(".ci/run")), ("bin/python3", stub), ("bin/chromium", "#!/bin/sh")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(["bash", tmp_path / ".ci" / "run"], env=environment, capture_output=True, text=True)
    assert ran.returncode == fails
    assert ("NO BROWSER" in ran.stdout.split("tests\n")[1]) == (not browser)


def test_continuous_integration_runs_the_readme_line_as_it_stands():
    script = ROOT / ".ci" / "run"
    assert TEST in script.read_text(encoding="utf-8").splitlines()
    assert os.name == "nt" or os.access(script, os.X_OK)
    workflow = yaml.safe_load(text_of(".github/workflows/tests.yml"))
    assert any(step.get("run") == "./.ci/run" for step in workflow["jobs"]["notebooks"]["steps"])


def test_every_set_of_releases_is_tested_every_week():
    workflow = yaml.safe_load(text_of(".github/workflows/tests.yml"))
    job = workflow["jobs"]["releases"]
    assert "schedule" in job["if"]
    pythons = {row["versions"]: row["python"] for row in job["strategy"]["matrix"]["include"]}
    oldest = check_versions.oldest_python(PROJECT)
    assert pythons == {"lowest": oldest, "newest": oldest, "colab": check_versions.COLAB_PYTHON}
    assert pythons.keys() == set(check_versions.SETS)
    runs = [step.get("run", "") for step in job["steps"]]
    assert "python scripts/check_versions.py ${{ matrix.versions }}" in runs
    for line in PROJECT["dependencies"]:
        assert re.search(r">=\s*\d", line), f"{line}: no lower bound, so no release is the oldest"


def test_the_sets_of_releases_are_what_they_are_called(tmp_path):
    by_set = {
        versions: check_versions.commands("uv", versions, PROJECT, tmp_path / "venv")
        for versions in check_versions.SETS
    }
    assert "lowest-direct" in by_set["lowest"][1] and "lowest-direct" not in by_set["newest"][1]
    assert f"torch=={check_versions.COLAB['torch']}" in by_set["colab"][1]
    assert by_set["colab"][0][by_set["colab"][0].index("--python") + 1] == check_versions.COLAB_PYTHON
    python = check_versions.interpreter_of(tmp_path / "venv")
    python.parent.mkdir(parents=True)
    python.touch()
    assert check_versions.commands("uv", "lowest", PROJECT, tmp_path / "venv", keep=True) == []


def test_what_follows_two_dashes_goes_to_pytest(monkeypatch):
    ran = []
    monkeypatch.setattr(check_versions.shutil, "which", lambda name: name)
    monkeypatch.setattr(
        check_versions.subprocess, "run", lambda command, **_: ran.append(command) or Namespace(returncode=0)
    )
    assert check_versions.main(["lowest", "--keep", "--", "tests/test_losses.py", "-x"]) == 0
    assert ran[-1][1:] == ["-m", "pytest", "tests/test_losses.py", "-x", "-W", "default"]


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


def test_module_map_names_the_rooms_that_exist_in_the_order_of_the_floors():
    section = text_of("README.md").partition("\n## Layout\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```text\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    first, *lines = block.splitlines()
    assert first == "drive_unet/"
    described = [re.fullmatch(r"  (\w+(?:/|\.py)) +\S.*", line).group(1) for line in lines]
    rooms = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "drive_unet").iterdir()
        if not path.name.startswith("__") and any(file.is_relative_to(path) for file in files())
    }
    assert set(described) == rooms - {"__init__.pyi", "py.typed"}
    assert len(described) == len(set(described))


def test_readme_names_files_that_exist_for_what_one_would_add():
    section = text_of("README.md").partition("\n## Contributing\n")[2].partition("\n## ")[0]
    table = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| a")]
    assert len(table) == 4
    for what, where in table:
        names = re.findall(r"`([\w./]+\.py)`", where)
        assert names, what
        for name in names:
            assert (ROOT / "drive_unet" / name).is_file(), f"{what.strip()}: {name}"


def test_readme_leads_to_the_repository_from_a_package_index():
    command = [sys.executable, "-m", "hatchling", "metadata"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    text = json.loads(run.stdout)["readme"]["text"]
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    assert f"({repository()}/raw/main/docs/hero.jpg)" in text
    prefix = f"{repository()}/blob/main/"
    beside = [target.removeprefix(prefix) for target in targets if target.startswith(prefix)]
    assert "benchmarks/RESULTS.md" in beside
    assert [name for name in beside if not (ROOT / name).is_file()] == []


def test_source_distribution_holds_every_file_and_no_other():
    packed = {file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    packed = {name.replace(os.sep, "/") for name in packed}
    assert packed - {"PKG-INFO"} == {path.relative_to(ROOT).as_posix() for path in files()}


def test_licences_are_named_and_their_texts_are_there():
    expression = PROJECT["license"]
    assert expression == "MIT AND LicenseRef-DRIVE-research-and-education"
    text = text_of("LICENSES/LicenseRef-DRIVE-research-and-education.txt")
    card = text_of("drive_unet/weights/README.md")
    weights = {path.stem for path in (ROOT / "drive_unet" / "weights").glob("*.safetensors")}
    restricted = set(re.findall(r"weights/([\w-]+)\.safetensors", text))
    assert restricted <= weights
    rows = dict(re.findall(r"^\| `([\w-]+)` \|.*\| ([^|]+) \|$", card, re.MULTILINE))
    assert set(rows) == weights
    for name, terms in rows.items():
        assert ("research and education" in terms) == (name in restricted), name
        assert ("MIT" in terms) != (name in restricted), name


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


def test_pre_commit_uses_the_tools_of_the_test_extra():
    (wanted,) = [
        line for line in PROJECT["optional-dependencies"]["test"] if Requirement(line).name == "ruff"
    ]
    (repo,) = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repo["hooks"]}
    assert hooks["ruff-check"]["additional_dependencies"] == [wanted]
    assert hooks["ruff-format"]["additional_dependencies"] == [wanted]
    (wanted,) = [
        line for line in PROJECT["optional-dependencies"]["test"] if Requirement(line).name == "import-linter"
    ]
    assert hooks["import-linter"]["additional_dependencies"] == [wanted]


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


@pytest.mark.slow  # half a minute: it reads PyTorch's types, too
def test_types_of_the_package_are_right():
    run = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_users_get_the_types_of_the_package():
    assert (ROOT / "drive_unet" / "py.typed").is_file()
    hooks = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert "mypy" in {hook["entry"] for hook in hooks}


def test_files_are_of_a_size_to_commit_and_none_is_of_drive():
    assert [sentence for path in files() if (sentence := too_large(path))] == []
    drive = re.compile(r"\d\d_(?:training|test)(?:_mask)?\.(?:tif|gif|png)$|\d\d_manual[12]\.(?:gif|png)$")
    assert [path.name for path in files() if drive.search(path.name)] == []


def test_no_file_names_a_machine():
    for path in files():
        if path.suffix in {".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".cff", ".cfg", ""}:
            match = MACHINE_PATH.search(path.read_text(encoding="utf-8"))
            assert match is None, f"{path}: {match}"


def test_constraints_hold_a_release_that_pyproject_allows_of_each_dependency():
    pinned = {}
    for line in text_of("constraints.txt").splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            pinned.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["lab"] + extras["test"] + extras["dicom"]
    for wish in map(Requirement, wanted):
        if wish.name == PROJECT["name"]:  # one of its own extras, which is listed itself
            continue
        assert canonicalize_name(wish.name) in pinned, wish.name
        for requirement in pinned[canonicalize_name(wish.name)]:
            (exact,) = requirement.specifier
            assert exact.operator == "==", requirement
            assert wish.specifier.contains(exact.version), f"{requirement} is not {wish}"


def test_model_card_presets_and_weights_name_the_same_first_weights():
    card = text_of("drive_unet/weights/README.md")
    row = re.search(r"^\| `fast` \| (.*?) \|", card, re.MULTILINE).group(1)
    notes = UNet.from_pretrained("fast").notes
    assert notes["training"]["preset"] == "laptop"
    assert f"`{PRESETS['laptop'].start}`" in row
    assert f'first weights "{PRESETS["laptop"].start}"' in notes["data"]


def resolves(name):
    """Whether a dotted name leads to a module or to something in it."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for part in parts[depth:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


def test_dotted_names_of_the_package_lead_somewhere_in_every_text():
    names = {}
    for path in files():
        if path.suffix in {".py", ".pyi", ".md", ".toml", ".ipynb", ".cff"}:
            for name in re.findall(r"\bdrive_unet(?:\.[A-Za-z_]\w*)+(?![\w{])", path.read_text("utf-8")):
                names.setdefault(name, path.relative_to(ROOT).as_posix())
    assert len(names) > 30
    assert {name: path for name, path in names.items() if not resolves(name)} == {}


@pytest.mark.slow
def test_readme_tells_what_the_command_prints_for_painted_photographs(capsys):
    row = next(
        line for line in text_of("README.md").splitlines() if "--data embedded --weights synthetic" in line
    )
    told = [float(cell) for cell in row.split("|")[3:8]]
    main(["evaluate", "--data", "embedded", "--weights", "synthetic", "--tta", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert told == [round(printed[score], 3) for score in ("auc", "ap", "dice", "mcc", "cldice")]
