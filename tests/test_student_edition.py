"""What a class gets holds everything it needs, and nothing that it should find by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import nbformat
import pytest
import student_edition
from repository import broken_links
from rewrite_addresses import COLAB, NOTEBOOKS


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    out = tmp_path_factory.mktemp("class") / "course"
    assert student_edition.main([str(out)]) == 0
    return out


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_keeps_its_questions_and_loses_outputs_answers_and_solutions(edition, name):
    path = edition / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    whole = student_edition.ROOT / "notebooks" / path.name
    before = [cell for cell in nbformat.read(whole, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.source for cell in code] == [
        cell.source for cell in before if "solution" not in cell.metadata.get("tags", [])
    ]
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not re.search(r"<summary>|solutions/", prose, re.IGNORECASE)
    assert COLAB not in prose, "the badge opens the executed notebook"
    for heading in ("Exercise", "Quiz"):
        assert re.search(rf"^#+ .*{heading}", prose, re.MULTILINE)
    assert broken_links(prose, path.parent) == []


def test_folder_holds_what_a_class_needs_and_no_more(edition):
    assert {path.name for path in (edition / "notebooks").iterdir()} == {f"{n}.ipynb" for n in NOTEBOOKS}
    assert not [path for path in edition.rglob("*") if path.name in {"tests", "solutions", "__pycache__"}]
    for path in edition.rglob("*.md"):
        assert broken_links(path.read_text(encoding="utf-8"), path.parent) == [], path
    readme = (edition / "README.md").read_text(encoding="utf-8")
    assert "not a medical device" in readme
    assert f"notebooks/{NOTEBOOKS[0]}.ipynb" in readme


def test_package_in_it_works_and_exercises_wait_for_an_answer(edition):
    notebook = nbformat.read(edition / "notebooks" / "03_model.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if 'check("03-1"' in cell.source]
    code = f"from drive_unet import UNet, check\n{cell.source}\nUNet.from_pretrained()"
    environment = os.environ | {"PYTHONPATH": str(edition)}
    command = [sys.executable, "-c", f"import drive_unet; print(drive_unet.__file__)\n{code}"]
    run = subprocess.run(command, cwd=edition, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(edition))
    assert "Not answered yet." in run.stdout


@pytest.mark.slow
def test_package_in_it_can_be_installed(edition, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(edition)], check=True)
    assert len(list(tmp_path.glob("drive_unet-*.whl"))) == 1


def test_what_is_in_the_way_is_left_alone(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert student_edition.main([str(tmp_path)]) == 1
    assert "name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
