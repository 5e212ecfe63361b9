"""Several processes, on CPUs: they learn what one learns, agree, write once, and fail together.

`launch` runs this file again as the script of two processes; `main` is what they do.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from builders import write_drive
from torch.nn import functional as F

from drive_unet import progress
from drive_unet.augmentation import training_transform
from drive_unet.data import DRIVEDataset
from drive_unet.losses import bce_loss
from drive_unet.models import SegmentationModel, UNet
from drive_unet.preprocessing import Preprocessing
from drive_unet.training.loop import fit
from drive_unet.training.processes import batches, processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by POSIX signals")

STEPS, EACH = 8, 2  # optimiser steps; patches that each of the two processes takes in one
SETTINGS = {"steps": STEPS, "validate_every": 2, "patch_size": 32, "average": 0.5, "mixed_precision": "no"}
RANK = int(os.environ.get("RANK", "0"))


# ---------------------------------------------------------------------------- what each of the processes does


def photographs(folder):
    images, vessels = folder / "training" / "images", folder / "training" / "1st_manual"
    everything = DRIVEDataset(images, vessels)
    return everything.subset(everything.names[:3]), everything.subset(everything.names[3:])


SMALL_EYES = Preprocessing(tolerance=100)  # taken as they are


class Plain(SegmentationModel):
    """Two convolutions and no normalisation."""

    def __init__(self):
        super().__init__(3, 1)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 3, padding=1)
        )

    def network(self, x):
        return self.layers(x)


def plain(folder, batch_size=EACH):
    """Train a network and a loss that pool nothing, so that the share-out should not matter at all."""

    def loss(logits, vessels, fov):
        return F.binary_cross_entropy_with_logits(logits, vessels.float())

    torch.manual_seed(RANK)  # the first process's weights count
    model = Plain()
    model.preprocessing = SMALL_EYES
    train, _ = photographs(folder)
    return model, fit(model, train, loss=loss, batch_size=batch_size, **SETTINGS | {"average": 0.0})


def usual(folder, batch_size=EACH, train=None, **options):
    torch.manual_seed(RANK)
    model = UNet(widths=(4, 6))
    model.preprocessing = SMALL_EYES
    known, validation = photographs(folder)
    options = {**SETTINGS, "out": folder / "run", **options}
    return model, fit(model, train or known, validation, batch_size=batch_size, **options)


def dying(folder):
    """As `usual`, but the second process is killed when it cuts its patches for step 4."""
    train, _ = photographs(folder)
    cut, calls = training_transform(32), iter(range(1, 1000))

    def transform(sample):
        if next(calls) > 3 * EACH and RANK == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return cut(sample)

    transform.description = None  # as if there were none, so that the run goes on without it
    train.transform = transform
    return usual(folder, train=train, out=folder / "killed")


def spoiled(folder):
    """As `usual`, but the second process's loss is not a number in step 4."""
    calls = iter(range(1, 1000))

    def loss(logits, vessels, fov):
        return bce_loss(logits, vessels, fov) * (float("nan") if next(calls) == 4 and RANK == 1 else 1)

    with pytest.raises(FloatingPointError) as caught:
        usual(folder, loss=loss, out=None)
    return str(caught.value)


def seen(model, run):
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "history": run.history,
        "threshold": model.threshold,
        "best_step": run.best_step,
        "stopped_early": run.stopped_early,
    }


def main(task, folder):
    if task == "dying":
        result = {"usual": seen(*dying(folder))}
    elif task == "resume":
        result = {"usual": seen(*usual(folder, out=folder / "killed", resume=True))}
    else:
        progress.SECONDS = 0.0  # between two lines in a log
        with contextlib.redirect_stderr(io.StringIO()) as shown:
            result = {"plain": seen(*plain(folder))}
        result["bar"] = shown.getvalue()
        result["usual"] = seen(*usual(folder))
        result["stopped"] = seen(*usual(folder, steps=40, lr=1e-9, validate_every=1, patience=2, out=None))
        result["error"] = spoiled(folder)
    torch.save(result, folder / f"{task}-{RANK}.pt")


# -------------------------------------------------------------------------------------------- the tests of it


def launch(task, folder, seconds=100):
    """Two processes started as on a machine with two GPUs, which are hidden; returns exit code and output."""
    launcher = [
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    ]
    started = subprocess.Popen(
        [sys.executable, "-m", *launcher, __file__, task, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        output, _ = started.communicate()
        pytest.fail(f"{task} hung for {seconds} s:\n{output}")
    return started.returncode, output


def results(task, folder):
    return [torch.load(folder / f"{task}-{rank}.pt", weights_only=True) for rank in (0, 1)]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def both(folder):
    """What the two processes found."""
    code, output = launch("train", folder)
    assert code == 0, output
    return results("train", folder)


def test_the_processes_share_out_the_stream_of_one(folder):
    train, _ = photographs(folder)
    train.transform = training_transform(32)

    def share(done, index, processes, batch_size):
        accelerator = SimpleNamespace(process_index=index, num_processes=processes, device="cpu")
        return [batch.image for batch in batches(train, batch_size, 4, done, 0, 0, accelerator)]

    for done in (0, 3):
        alone = share(done, 0, 1, 6)
        shares = [share(done, index, 3, 2) for index in range(3)]
        assert len(alone) == 4 - done
        assert all(torch.equal(whole, torch.cat(parts)) for whole, *parts in zip(alone, *shares, strict=True))


def test_two_processes_learn_what_one_learns_from_all_patches(both, folder):
    model, run = plain(folder, 2 * EACH)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(both[0]["plain"]["weights"][name], value, rtol=1e-3, atol=1e-5)
    losses = [row["loss"] for row in both[0]["plain"]["history"]]
    assert losses == pytest.approx([row["loss"] for row in run.history], rel=1e-4)


def test_with_statistics_of_their_own_they_learn_nearly_the_same(both, folder):
    # Batch normalisation sees 2 patches here where one process sees 4, and both losses pool over them: the
    # network's output differs a little from the first step on, and Adam lets the weights drift apart.
    _, run = usual(folder, 2 * EACH, out=None)
    losses = [row["loss"] for row in both[0]["usual"]["history"]]
    assert losses == pytest.approx([row["loss"] for row in run.history], rel=0.1)


def test_all_processes_agree_at_the_end(both):
    first, second = both
    for task in ("plain", "usual", "stopped"):
        for key, value in first[task].items():
            assert same(value, second[task][key]) if key == "weights" else value == second[task][key]
    assert first["stopped"]["stopped_early"]
    assert len(first["stopped"]["history"]) < 40


def test_the_first_process_alone_writes_and_shows(both, folder):
    written = sorted(path.name for path in (folder / "run").iterdir())
    assert written == ["best.safetensors", "last.pt", "previous.pt", "train.log"]
    assert same(UNet.from_pretrained(folder / "run").state_dict(), both[1]["usual"]["weights"])
    assert "training: " in both[0]["bar"]
    assert both[1]["bar"] == ""


def test_a_loss_that_is_no_number_in_one_process_ends_both(both):
    for result in both:
        assert result["error"].startswith("the loss is nan at step 4")


@pytest.mark.slow
def test_after_one_was_killed_the_checkpoint_goes_on(both, folder, tmp_path):
    code, output = launch("dying", folder)
    assert code != 0, output
    assert not list(folder.glob("dying-*.pt"))
    assert sorted(path.name for path in (folder / "killed").iterdir()) == ["best.safetensors", "last.pt"]
    unbroken = both[0]["usual"]["history"]

    shutil.copytree(folder / "killed", tmp_path / "alone")
    with pytest.raises(ValueError, match="belongs to another run \\(patches a step was 4"):
        usual(folder, EACH, resume=True, out=tmp_path / "alone")
    _, alone = usual(folder, 2 * EACH, resume=True, out=tmp_path / "alone")
    assert alone.history[:2] == unbroken[:2]
    assert [row["step"] for row in alone.history] == [row["step"] for row in unbroken]

    code, output = launch("resume", folder)
    assert code == 0, output
    for result in results("resume", folder):
        assert same(result["usual"]["weights"], both[0]["usual"]["weights"])
        assert result["usual"]["history"] == unbroken


def test_processes_that_were_not_joined_are_refused(monkeypatch):
    processes()
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were launched and 1 joined; call"):
        processes()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
