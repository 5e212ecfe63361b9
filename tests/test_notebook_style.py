"""The conventions that all six notebooks keep, so that a reader of one can read the next."""

from __future__ import annotations

import json
import re

import pytest
from check_large_files import too_large
from refresh_notebooks import WIDGET, is_executed
from repository import MACHINE_PATH, NOTEBOOK_PATHS, broken_links, read_notebook
from rewrite_addresses import NOTEBOOKS, badge, links, repository, setup_cell

# nbval ignores a tag that it does not know, and so would a reader's eye: every tag in use is listed.
KNOWN_TAGS = {"nbval-ignore-output", "exercise", "solution"}
LONGEST_CELL = 20  # lines

notebooks = pytest.mark.parametrize("path", NOTEBOOK_PATHS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]


def prose(path):
    return "\n\n".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown")


def texts(cell):
    """Yield every text that a code cell shows."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (value for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


def test_there_are_the_six_notebooks():
    assert [path.stem for path in NOTEBOOK_PATHS] == list(NOTEBOOKS)


@notebooks
def test_kernel_and_metadata_are_the_common_ones(path):
    metadata = read_notebook(path).metadata
    assert metadata.kernelspec.name == "python3"
    assert metadata.language_info == {"name": "python"}
    assert set(metadata) <= {"kernelspec", "language_info", "drive_unet"}, (
        "python scripts/refresh_notebooks.py"
    )


@notebooks
def test_is_executed_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@notebooks
def test_no_cell_changed_since_it_was_executed(path):
    assert is_executed(read_notebook(path)), f"python scripts/refresh_notebooks.py {path.stem[:2]}"


@notebooks
def test_tags_are_known_and_nbval_is_told_by_tags_only(path):
    for cell in read_notebook(path).cells:
        assert set(cell.metadata.get("tags", [])) <= KNOWN_TAGS
        assert not re.search(r"#\s*(?:NBVAL|PYTEST)_", cell.source)


@notebooks
def test_outputs_hold_no_error_no_stderr_and_nothing_that_always_differs(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.get("text")
            assert not {"image/svg+xml", WIDGET} & set(output.get("data", {})), cell.source


@notebooks
def test_a_measured_number_is_asserted_in_its_cell(path):
    for cell in code_cells(path):
        if any("≈" in text for text in texts(cell)):
            assert re.search(r"^\s*assert |\bmeasured\(", cell.source, re.MULTILINE), cell.source


@notebooks
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


@notebooks
def test_code_comes_in_small_cells_with_prose_between(path):
    cells = read_notebook(path).cells
    setup = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    for i, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        assert cell.source.strip()
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source
        if i > 0 and i - 1 != setup:
            assert cells[i - 1].cell_type == "markdown", f"two code cells meet:\n{cell.source}"


@notebooks
def test_has_every_part_of_a_lesson(path):
    text = prose(path)
    for heading in ("Exercise", "Quiz", "What you learned"):
        assert re.search(rf"^#+ .*{heading}", text, re.MULTILINE | re.IGNORECASE), heading
    assert sum(len(re.findall(r"\bcheck\(", cell.source)) for cell in code_cells(path)) >= 2, (
        "exercises check themselves"
    )
    start = read_notebook(path).cells[0].source
    assert re.search(r"\blaptop\b", start), "the first cell tells the run time on a laptop"
    assert re.search(r"\bGPU\b", start), "the first cell tells the run time on a GPU"


@notebooks
def test_links_lead_somewhere(path):
    text = prose(path)
    assert broken_links(text, path.parent) == []
    headings = {match.strip().replace(" ", "-") for match in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    anchors = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert anchors <= headings


@notebooks
def test_names_no_machine(path):
    found = MACHINE_PATH.search(json.dumps(read_notebook(path), ensure_ascii=False))
    assert found is None, found
