"""The scripts that keep the notebooks: addresses, outputs, and what a comparison masks."""

from __future__ import annotations

import base64
import copy
import importlib
import io
import re

import nbformat
import numpy as np
import pytest
import refresh_notebooks as refresh
import rewrite_addresses as addresses
from check_large_files import main as check_large_files
from nbval.plugin import get_sanitize_patterns
from PIL import Image

ELSEWHERE = "https://github.com/somebody/vessels"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dice ≈ 0.812", "Dice ≈ 0.799"),
        ("≈ .81", "≈ .8"),
        ("loss ≈ 1.2e-05.", "loss ≈ 9e-06."),
        ("≈ -0.5 and ≈ 12,345 pixels", "≈ 0.25 and ≈ 9,876 pixels"),
        ("AUC ≈ 0.98 ± 0.01", "AUC ≈ 0.97 ± 0.002"),
        ("| U-Net |  ≈ 9.5 |", "| U-Net | ≈ 10.5 |"),
        ("<td>≈ 81.2 %</td>", "<td>≈ 79.9 %</td>"),
        ("≈ nan", "≈ .5"),
        ("trained in 12 s", "trained in 1 min 5 s"),
        ("58 ms a photograph", "61.5 ms a photograph"),
        ("≈ 12 s", "≈ 1 min 2 s"),
        ("<td>.969 1</td><td>0.97 (+.0043)</td>", "<td>.971 .998</td><td>0.98 (-.0001)</td>"),
        ("Your .9872 is .9811:", "Your .9871 is .9812:"),
        ("Your AUC is .9811, and", "Your AUC is .9812, and"),
        ("an accuracy of 0.9724 is above 0.960", "an accuracy of 0.9731 is above 0.960"),
        ("and a Dice of 0.8855 is above 0.840", "and a Dice of 0.8861 is above 0.840"),
        ("best threshold on the test, 0.369 (!)", "best threshold on the test, 0.370 (!)"),
    ],
)
def test_measured_numbers_and_durations_are_masked(one, other):
    assert refresh.sanitise(one) == refresh.sanitise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("565 x 584", "584 x 565"),
        ("torch.Size([8, 3, 256, 256])", "torch.Size([8, 1, 256, 256])"),
        ("124,225 parameters", "124,226 parameters"),
        ("20 images", "19 images"),
        ("Dice 0.812", "Dice 0.799"),
        ("≈ 0.812 on 4 images", "≈ 0.812 on 5 images"),
        ("≈ 3, exactly 5", "≈ 3, exactly 6"),
        ("≈ 0.5 %", "≈ 0.5"),
        ("labels {0, 255}", "labels {3, 253}"),
        ("12 samples", "13 samples"),
        ("3 steps", "4 steps"),
        ("≈ 0.8\n21", "≈ 0.8\n22"),
        ("uint8", "bool"),
        ("Your AUC is .9811, and", "Your Dice is .9811, and"),
        ("a Dice of 0.8855 is above 0.840", "a Dice of 0.8855 is above 0.850"),
    ],
)
def test_exact_facts_are_not_masked(one, other):
    assert refresh.sanitise(one) != refresh.sanitise(other)


def test_sanitiser_is_plain_ascii_with_patterns_in_pairs():
    text = refresh.SANITISER.read_bytes().decode("ascii")
    pairs = get_sanitize_patterns(text)
    assert (
        len(pairs)
        == len(re.findall("^regex:", text, re.MULTILINE))
        == len(re.findall("^replace:", text, re.MULTILINE))
    )


def toy(*sources, title="# A title\n\nWhat it asks."):
    cells = [nbformat.v4.new_markdown_cell(title), *(nbformat.v4.new_code_cell(source) for source in sources)]
    return nbformat.v4.new_notebook(cells=cells)


def test_addresses_are_written_once_and_again():
    notebook = toy("print(1)")
    addresses.rewrite_notebook(notebook, "03_model", addresses.repository())
    once = copy.deepcopy(notebook)
    for address in (ELSEWHERE, ELSEWHERE, addresses.repository()):
        addresses.rewrite_notebook(notebook, "03_model", address)
    assert notebook == once
    addresses.rewrite_notebook(notebook, "03_model", ELSEWHERE)
    title, setup, own = ("".join(cell["source"]) for cell in notebook["cells"])
    assert title.split("\n")[0] == "# A title"
    assert title.endswith("What it asks.")
    assert f"({addresses.COLAB}/github/somebody/vessels/blob/main/notebooks/03_model.ipynb)" in title
    assert "[previous](02_preprocessing.ipynb) · [index](../README.md) · [next](04_training.ipynb)" in title
    assert setup == addresses.setup_cell(ELSEWHERE)
    assert own == "print(1)"


def test_first_and_last_notebook_have_one_neighbour():
    assert addresses.links("00_the_article").startswith("previous ·")
    assert addresses.links("A_painted_eyes").endswith("· next")


def test_set_up_cell_installs_from_an_address_only_where_there_is_one():
    assert "git+" not in addresses.setup_cell("https://github.com/OWNER/drive-unet")
    assert "OWNER" not in addresses.setup_cell(ELSEWHERE)
    assert f"git+{ELSEWHERE}" in addresses.setup_cell(ELSEWHERE)


def test_addresses_in_text_follow_to_a_new_name_and_back():
    text = (
        f"{addresses.badge('01_data_exploration', 'https://github.com/OWNER/drive-unet')}\n"
        "git clone https://github.com/OWNER/drive-unet.git\n"
        "[another](https://github.com/OWNER/drive-unet-extra) [lwnet](https://github.com/agaldran/lwnet)\n"
    )
    moved = addresses.rewrite_text(text, "https://github.com/somebody/drive-unet")
    assert moved == text.replace("OWNER/drive-unet/", "somebody/drive-unet/").replace(
        "OWNER/drive-unet.git", "somebody/drive-unet.git"
    )
    assert addresses.rewrite_text(moved, "https://github.com/OWNER/drive-unet") == text


def test_notebook_without_title_is_refused():
    with pytest.raises(SystemExit, match="03_model.ipynb: its first cell"):
        addresses.rewrite_notebook(toy(title="No heading"), "03_model", ELSEWHERE)


def test_refresh_executes_and_leaves_what_says_the_same(tmp_path):
    path = tmp_path / "toy.ipynb"
    (tmp_path / "answer.txt").write_text("the one")
    cells = "import os, time", "print(f'≈ {time.time()}')", "print(os.environ['DRIVE_UNET_DATA'])"
    notebook = toy(*cells, "print(open('answer.txt').read())")
    nbformat.write(notebook, path)
    assert not refresh.is_executed(nbformat.read(path, as_version=4))
    refresh.refresh(path, timeout=60, fresh=False)
    first = nbformat.read(path, as_version=4)
    assert refresh.is_executed(first)
    assert [cell.get("execution_count") for cell in first.cells] == [None, 1, 2, 3, 4]
    assert first.cells[3].outputs[0].text == "embedded\n"
    assert set(first.metadata) == {"kernelspec", "language_info", "drive_unet"}

    assert "the same as before" in refresh.refresh(path, timeout=60, fresh=False)
    assert nbformat.read(path, as_version=4) == first

    (tmp_path / "answer.txt").write_text("another")
    assert "1 of 4 cells say something else" in refresh.refresh(path, timeout=60, fresh=False)
    second = nbformat.read(path, as_version=4)
    assert second.cells[4].outputs[0].text == "another\n"
    assert second.cells[2].outputs != first.cells[2].outputs, "all outputs come from one run"

    second.cells[2].source += "  # changed"
    assert not refresh.is_executed(second)
    nbformat.write(second, path)
    assert "4 of 4 cells" in refresh.refresh(path, timeout=60, fresh=False), "no number of former code"


def test_a_notebook_is_out_of_date_when_weights_that_it_names_change(tmp_path, monkeypatch):
    weights = [tmp_path / "default.safetensors", tmp_path / "fast.safetensors"]
    for path in weights:
        path.write_bytes(b"former")
    monkeypatch.setattr(refresh, "WEIGHTS", weights)
    implied, named = toy("UNet.from_pretrained()"), toy('UNet.from_pretrained("fast")')
    before = refresh.digest(implied), refresh.digest(named)
    weights[0].write_bytes(b"new")
    assert refresh.digest(implied) != before[0] and refresh.digest(named) == before[1]


@pytest.mark.parametrize("source", ["1 / 0", "import sys; print('careful', file=sys.stderr)"])
def test_refresh_leaves_a_failing_notebook_as_it_was(tmp_path, source):
    path = tmp_path / "toy.ipynb"
    nbformat.write(toy("2 + 2", source), path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="toy.ipynb: left as it was"):
        refresh.refresh(path, timeout=60, fresh=False)
    assert path.read_bytes() == before


def test_cleaning_keeps_tags_and_drops_widgets():
    widget = {refresh.WIDGET: {"model_id": "1"}, "text/plain": "HBox()"}
    notebook = toy("a", "b")
    notebook.metadata.widgets = {"state": {}}
    for cell, tags in zip(notebook.cells[1:], (["nbval-ignore-output"], []), strict=True):
        cell.metadata = nbformat.from_dict({"tags": tags, "collapsed": True})
        cell.outputs = [nbformat.v4.new_output("display_data", data=dict(widget))]
    refresh.clean(notebook)
    assert "widgets" not in notebook.metadata
    ignored, compared = notebook.cells[1:]
    assert ignored.metadata == {"tags": ["nbval-ignore-output"]}
    assert ignored.outputs == []
    assert compared.metadata == {}
    assert compared.outputs[0].data == {"text/plain": "HBox()"}


def test_pictures_are_the_same_within_a_few_levels():
    def encode(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    grey = np.full((8, 8), 100, dtype=np.uint8)
    other = grey.copy()
    other[3, 3] = 200
    assert refresh.same_picture(encode(grey), encode(grey + np.uint8(3)))
    assert not refresh.same_picture(encode(grey), encode(other))
    assert not refresh.same_picture(encode(grey), encode(grey[:4]))


def test_large_files_are_named(tmp_path, capsys):
    small, large = tmp_path / "small.py", tmp_path / "large.ipynb"
    small.write_bytes(b"x" * 600_000)
    large.write_bytes(b"x" * 700_000)
    assert check_large_files([str(small)]) == 0
    assert check_large_files([str(small), str(large)]) == 1
    assert "large.ipynb: 700 kB, at most 600 kB" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(path.stem for path in (addresses.ROOT / "scripts").glob("*.py")))
def test_every_script_finds_what_it_imports(name):
    assert callable(importlib.import_module(name).main)
