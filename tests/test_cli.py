"""The command line: help and errors at once, and the whole trip on a tiny budget."""

import csv
import subprocess
import sys

import pytest

from drive_unet import UNet, __version__
from drive_unet.cli import main


def test_version_and_help(capsys):
    for argument, expected in (("--version", __version__), ("--help", "demo"), ("demo --help", "--steps N")):
        with pytest.raises(SystemExit) as stopped:
            main(argument.split())
        assert stopped.value.code == 0
        assert expected in capsys.readouterr().out


def test_help_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, drive_unet.cli as cli\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_without_or_with_an_unknown_command_usage_is_shown(capsys):
    for arguments in ([], ["segment"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert "usage: drive-unet" in capsys.readouterr().err


def test_errors_are_one_line_and_a_code_and_leave_nothing_behind(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["demo", "--data", str(tmp_path / "nowhere"), "--out", str(out)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("drive-unet: ")
    assert "nowhere" in message
    assert message.count("\n") == 1
    assert main(["demo", "--steps", "0", "--out", str(out)]) == 1
    assert "--steps 0" in capsys.readouterr().err
    assert not out.exists()


def test_demo_makes_the_whole_trip(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["demo", "--data", "embedded", "--steps", "2", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Scores are computed on the 20 test photographs" in shown
    assert "U-Net, this run" in shown
    assert "econd observer" in shown
    assert {path.name for path in out.iterdir()} == {
        "best.safetensors",
        "last.pt",
        "scores.csv",
        *(f"{name}.png" for name in ("data", "training", "worst", "best", "another_camera")),
    }
    with (out / "scores.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 20
    assert UNet.from_pretrained(out).notes["training"]["steps"] == 2
