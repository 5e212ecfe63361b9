"""A wheel and a source distribution built from the tree, used as a user would, are complete."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
from repository import ROOT, files, fresh_environment

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
    package = {path.relative_to(ROOT).as_posix() for path in files() if ROOT / "drive_unet" in path.parents}
    assert any(name.endswith(".safetensors") for name in package)
    assert any(name.endswith("/__init__.pyi") for name in package), "the doors that editors read"
    assert package <= names
    texts = [ROOT / "LICENSE", *(ROOT / "LICENSES").iterdir()]
    for text in texts:
        assert any(name.endswith(f"licenses/{text.relative_to(ROOT).as_posix()}") for name in names), text
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


def test_tests_of_the_source_distribution_pass_in_it(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("drive_unet-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-m", "pytest", "tests", "--quiet", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
