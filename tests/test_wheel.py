"""A wheel built from the tree, installed as a user would, is complete."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest
from repository import ROOT, fresh_environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("drive_unet-*.whl")
    return built


def test_wheel_holds_modules_weights_and_licence_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"drive_unet/{path.name}" for path in (ROOT / "drive_unet").glob("*.py")}
    weights = {
        f"drive_unet/weights/{path.name}" for path in (ROOT / "drive_unet" / "weights").glob("*.safetensors")
    }
    assert weights
    assert modules | weights <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"drive_unet"}
    assert wheel.stat().st_size < 4_000_000


@pytest.mark.skipif(
    os.name == "nt", reason="links packages into a new environment, which Windows lets few users do"
)
def test_installed_wheel_runs_the_demo(wheel, tmp_path):
    python = fresh_environment(tmp_path)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-index", str(wheel)], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    where = "import drive_unet as d; print(d.__file__); d.UNet.from_pretrained()"
    run = subprocess.run(
        [str(python), "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(python.parent.parent))

    demo = [str(python.parent / "drive-unet"), "demo", "--steps", "10", "--out", "trip"]
    run = subprocess.run(demo, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Dice" in run.stdout
    assert list((tmp_path / "trip").glob("*.png"))
