"""The rival of benchmarks/rival.py: its size, its two answers, and a run that can be stopped."""

from __future__ import annotations

import json

import pytest
import torch
from builders import write_drive
from repository import ROOT

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the source archive has no benchmarks")


@pytest.fixture(scope="module")
def rival():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import rival

        patch.setattr(rival, "SIZE", 64)
        patch.setattr(rival, "EPOCHS", 1)
        yield rival


def test_it_has_the_parameters_of_the_paper_and_two_answers(rival):
    model = rival.WNet().eval()
    assert sum(value.numel() for value in model.parameters()) == 68_482
    image = torch.randn(1, 3, 30, 41)
    assert model(image).shape == (1, 1, 30, 41)
    image = torch.randn(1, 3, 32, 40)
    first, second = model.both(image)
    assert torch.equal(model(image), second) and not torch.equal(first, second)


def test_every_parameter_learns(rival):
    model = rival.WNet().train()
    sum(answer.square().mean() for answer in model.both(torch.randn(2, 3, 16, 16))).backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_the_command_goes_on_and_reports(rival, tmp_path, capsys):
    copy = write_drive(tmp_path / "DRIVE")
    line = ["--data", str(copy), "--folds", "1", "--recipes", "its own", "--out", str(tmp_path / "runs")]
    rival.main([*line, "--cycles", "1"])
    (record,) = (tmp_path / "runs").rglob("record-1.json")
    assert json.loads(record.read_text())["recipe"] == "its own, 1 cycles"
    record.unlink()
    capsys.readouterr()
    rival.main([*line, "--cycles", "2"])
    printed = capsys.readouterr().out
    assert "cycle 2 of 2" in printed and "cycle 1" not in printed
    row = printed.strip().splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["its own, 2 cycles", "1", "four flips", "1"] and 0 <= float(cells[4]) <= 1
