"""The conventions that all notebooks keep, so that a reader of one can read the next."""

from __future__ import annotations

import json
import re
import statistics
from importlib import import_module

import pytest
from check_large_files import too_large
from refresh_notebooks import WIDGET, is_executed
from repository import MACHINE_PATH, NOTEBOOK_PATHS, ROOT, SOLUTION_PATHS, broken_links, read_notebook
from rewrite_addresses import NOTEBOOKS, badge, links, repository, setup_cell

# nbval ignores a tag that it does not know, and so would a reader's eye: every tag in use is listed.
KNOWN_TAGS = {"nbval-ignore-output", "exercise", "solution"}
LONGEST_CELL = 24  # lines
MEDIAN_CELL, LONG_CELL = 6, 20  # lines that half and nine in ten of the cells do not exceed
EXERCISE = re.compile(r"^(#+ .*\bExercise\b.*)$", re.MULTILINE)
ENDING = ["What you can do now", "Quiz", "References", "Where it goes next"]

# Notebooks that do not keep a convention yet. Whoever brings one up to it takes it off the list (a test that
# passes unexpectedly fails, so that no list is longer than it need be); in the end all are empty.
REST = {"04_training", "05_evaluation", "06_visualization"}
NOT_YET: dict[str, set[str]] = {
    "executed": set(),
    "parts": set(),
    "exercises": set(),
    "lengths": set(),
    "measured": set(),
    "solved": set(),
}


def by_path(paths, unfinished=()):
    """Run a test for each notebook; those named in `unfinished` are expected to fail."""
    mark = pytest.mark.xfail(strict=True, reason="listed in NOT_YET")
    cases = [
        pytest.param(path, id=path.stem, marks=[mark] if path.stem in unfinished else []) for path in paths
    ]
    return pytest.mark.parametrize("path", cases)


notebooks = by_path(NOTEBOOK_PATHS)
executed = by_path(NOTEBOOK_PATHS + SOLUTION_PATHS)


def code_cells(path):
    return [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]


def prose(path):
    return "\n\n".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown")


def texts(cell):
    """Yield every text that a code cell shows."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (value for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


def test_there_are_the_notebooks_of_the_walk():
    assert [path.stem for path in NOTEBOOK_PATHS] == list(NOTEBOOKS)


@executed
def test_kernel_and_metadata_are_the_common_ones(path):
    metadata = read_notebook(path).metadata
    assert metadata.kernelspec.name == "python3"
    assert metadata.language_info == {"name": "python"}
    assert set(metadata) <= {"kernelspec", "language_info", "drive_unet"}, (
        "python scripts/refresh_notebooks.py"
    )


@executed
def test_is_executed_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@by_path(NOTEBOOK_PATHS + SOLUTION_PATHS, NOT_YET["executed"])
def test_no_cell_changed_since_it_was_executed(path):
    assert is_executed(read_notebook(path)), f"python scripts/refresh_notebooks.py {path.stem}"


@executed
def test_tags_are_known_and_nbval_is_told_by_tags_only(path):
    for cell in read_notebook(path).cells:
        assert set(cell.metadata.get("tags", [])) <= KNOWN_TAGS
        assert not re.search(r"#\s*(?:NBVAL|PYTEST)_", cell.source)


@executed
def test_outputs_hold_no_error_no_stderr_and_nothing_that_always_differs(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.get("text")
            assert not {"image/svg+xml", WIDGET} & set(output.get("data", {})), cell.source


@by_path(NOTEBOOK_PATHS + SOLUTION_PATHS, NOT_YET["measured"])
def test_measured_numbers_are_printed_and_compared_by_measured(path):
    for cell in code_cells(path):
        assert not re.search(r"^ *assert .*[<>]=? *[-+]?[\d.]", cell.source, re.MULTILINE), cell.source
        printed = [output.get("text", "") for output in cell.outputs]  # a table of scores prints its own ≈
        if any("≈" in text for text in printed) and not re.search(
            r"\bprint\(run\)|print\(tuning\)", cell.source
        ):
            assert re.search(r"\bmeasured\(", cell.source), cell.source


@executed
def test_is_small_enough_for_a_browser(path):
    assert too_large(path) is None


@notebooks
def test_begins_with_title_badge_and_links(path):
    first = read_notebook(path).cells[0]
    assert first.cell_type == "markdown"
    lines = first.source.split("\n")
    assert re.match(r"# \S", lines[0])
    expected = [badge(path.stem, repository()), "", links(path.stem)]
    assert lines[2:5] == expected, "python scripts/rewrite_addresses.py"


@notebooks
def test_set_up_cell_is_the_common_one(path):
    cells = code_cells(path)
    assert cells[0].source == setup_cell(repository()), "python scripts/rewrite_addresses.py"
    assert not any("google.colab" in cell.source and "%pip" in cell.source for cell in cells[1:])


@executed
def test_code_comes_in_small_cells_with_prose_between(path):
    cells = read_notebook(path).cells
    for before, cell in zip([None, *cells], cells, strict=False):
        if cell.cell_type != "code":
            continue
        assert cell.source.strip()
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source
        if before is not None and "google.colab" not in before.source:
            assert before.cell_type == "markdown", f"two code cells meet:\n{cell.source}"


@by_path(NOTEBOOK_PATHS, NOT_YET["lengths"])
def test_most_cells_are_short(path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)[1:]]
    assert statistics.median(lengths) <= MEDIAN_CELL
    assert statistics.quantiles(lengths, n=10, method="inclusive")[-1] <= LONG_CELL


@notebooks
def test_first_cell_tells_the_run_time(path):
    start = read_notebook(path).cells[0].source
    assert re.search(r"\blaptop\b", start)
    assert re.search(r"\bGPU\b", start)
    stated = re.search(r"\*\*Run time\S*\*\* [Aa]bout (\d+ s) ", start)
    row = re.search(
        rf"^\|.*\(notebooks/{path.name}\).*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert f"| {stated[1]} |" in row[0], "the README says another time"


@by_path(NOTEBOOK_PATHS, NOT_YET["parts"])
def test_has_every_part_of_a_lesson(path):
    text = prose(path)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[-len(ENDING) :] == ENDING
    quiz = text.split("## Quiz\n")[1].split("\n## ")[0]
    assert re.findall(r"^\*\*(\d)\.\*\* ", quiz, re.MULTILINE) == ["1", "2", "3"]
    assert quiz.count("<details><summary>Answer</summary>") == 3


@by_path(NOTEBOOK_PATHS, NOT_YET["exercises"])
def test_exercises_have_one_form_wait_for_an_answer_and_ask_for_code(path):
    number = path.stem[:2].rstrip("_")
    headings = EXERCISE.findall(prose(path))
    numbers = [f"{number}-{i}" for i in range(1, len(headings) + 1)]
    assert headings
    for i, heading in enumerate(headings, 1):
        assert re.fullmatch(rf"### Exercise {i}: [a-z0-9].*", heading), heading
    cells = [cell for cell in code_cells(path) if "exercise" in cell.metadata.get("tags", [])]
    asked = [re.findall(r'^check\("([^"]+)", ', cell.source, re.MULTILINE) for cell in cells]
    assert asked == [[name] for name in numbers]
    assert list(import_module(f"drive_unet.widgets.exercises.notebook_{number}").EXERCISES) == numbers
    for cell in cells:
        assert list(texts(cell)) == ["Not answered yet.\n"], cell.source
    assert any(re.search(r"^(?:def|class) ", cell.source, re.MULTILINE) for cell in cells), (
        "none asks for code"
    )
    assert not re.search(r"<summary>\s*Solution", prose(path)), "solutions have notebooks of their own"


@by_path(NOTEBOOK_PATHS, NOT_YET["solved"])
def test_solutions_are_executed_and_right(path):
    number = path.stem[:2].rstrip("_")
    solved = path.parent / "solutions" / f"{number}_solutions.ipynb"
    assert solved in SOLUTION_PATHS
    assert f"](solutions/{solved.name})" in prose(path)
    assert re.match(rf"# {number} · Solutions: \S", prose(solved))
    assert f"](../{path.name})" in read_notebook(solved).cells[0].source
    assert EXERCISE.findall(prose(solved)) == EXERCISE.findall(prose(path))
    names = list(import_module(f"drive_unet.widgets.exercises.notebook_{number}").EXERCISES)
    cells = [cell for cell in code_cells(solved) if re.search(r"^check\(", cell.source, re.MULTILINE)]
    assert [re.findall(r'^check\("([^"]+)", ', cell.source, re.MULTILINE) for cell in cells] == [
        [name] for name in names
    ]
    for cell in cells:
        assert "".join(texts(cell)).endswith("Right.\n"), cell.source


def test_every_solution_belongs_to_a_notebook():
    assert {path.stem.split("_")[0] for path in SOLUTION_PATHS} <= {name.split("_")[0] for name in NOTEBOOKS}


@executed
def test_links_lead_somewhere(path):
    text = prose(path)
    assert broken_links(text, path.parent) == []
    headings = {match.strip().replace(" ", "-") for match in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    anchors = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert anchors <= headings


@executed
def test_names_no_machine(path):
    found = MACHINE_PATH.search(json.dumps(read_notebook(path), ensure_ascii=False))
    assert found is None, found
