"""Runs that are killed, interrupted, damaged or short of room go on, and end as if nothing had happened."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import kills
import pytest
import torch
from builders import write_split, zipped
from filelock import FileLock

from drive_unet import files
from drive_unet.augmentation import training_transform
from drive_unet.data import DRIVEDataset, archives, unpack
from drive_unet.errors import DataError
from drive_unet.losses import combine
from drive_unet.models import UNet
from drive_unet.preprocessing import Preprocessing
from drive_unet.training import checkpoints, fit
from drive_unet.training.checkpoints import BEFORE, BEST, LAST, alone_in
from drive_unet.training.history import CURVE, LOG, TABLE, make_way

SMALL = {"steps": 6, "batch_size": 2, "patch_size": 32, "validate_every": 2, "progress": False}
needs_fork = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="processes are forked")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_split(tmp_path_factory.mktemp("data"), "training", range(21, 25))
    everything = DRIVEDataset(folder / "images", folder / "1st_manual")
    return everything.subset([0, 1, 2]), everything.subset([3])


@pytest.fixture(scope="module")
def unbroken(data):
    model = network()
    return model, fit(model, *data, **SMALL)


@pytest.fixture
def run(data, tmp_path):
    """The folder of a run that broke off in its last step, after two checkpoints."""
    loss = combine(bce=1.0, dice=0.5)

    def breaks(logits, vessels, fov):
        if len(calls) == 4:
            raise Stop
        calls.append(1)
        return loss(logits, vessels, fov)

    calls, breaks.description = [], loss.description
    with pytest.raises(Stop):
        fit(network(), *data, out=tmp_path / "run", loss=breaks, **SMALL)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LAST, BEFORE, BEST, LOG}
    return tmp_path / "run"


class Stop(Exception):
    pass


def network():
    torch.manual_seed(0)
    model = UNet(widths=(4, 6))
    model.preprocessing = Preprocessing(tolerance=100)
    return model


def same(model, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def goes_on(data, out, unbroken):
    model = network()
    run = fit(model, *data, out=out, resume=True, **SMALL)
    assert run.history == unbroken[1].history
    assert same(model, unbroken[0])
    assert (model.threshold, model.threshold_single) == (unbroken[0].threshold, unbroken[0].threshold_single)
    return model


# ---------------------------------------------------------------------------------------------- kills


@needs_fork
@pytest.mark.parametrize(("processes", "workers", "count"), [(1, 0, 3), (1, 2, 1)])
def test_a_killed_run_ends_bit_for_bit_as_the_unbroken_one(tmp_path, processes, workers, count):
    counts = kills.campaign(tmp_path, count, workers, processes)
    assert counts["kills"] == count and counts["runs"] >= 1
    assert counts["identical"] == counts["runs"]


def test_a_campaign_of_kills_that_is_stopped_goes_on(tmp_path, monkeypatch):
    moments = []

    def start(data, out, workers, processes, moment=(), dying=0):
        moments.append(moment)
        if len(moments) == 4:
            raise KeyboardInterrupt
        out.mkdir(exist_ok=True)
        torch.save({"weights": {}}, out / "result.pt")
        return not moment

    monkeypatch.setattr(kills, "photographs", lambda folder: None)
    monkeypatch.setattr(kills, "start", start)
    with pytest.raises(KeyboardInterrupt):
        kills.campaign(tmp_path, 3, 2, 2)
    assert kills.done(tmp_path) == 2
    counts = kills.campaign(tmp_path, 3, 2, 2)
    assert (counts["kills"], counts["runs"], counts["identical"]) == (3, 1, 1)
    assert moments[0] == moments[-1] == () and moments[4] == moments[3], (
        "the one that was stopped is repeated"
    )


@needs_fork
@pytest.mark.parametrize("dies", [True, False])
def test_a_process_may_fail_for_the_one_that_was_killed_and_for_nothing_else(tmp_path, monkeypatch, dies):
    def child(data, out, workers, rank, processes, port, moment):
        if rank == 1:
            os._exit(1)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL if dies else signal.SIGSTOP)

    monkeypatch.setattr(kills, "child", child)
    if dies:
        assert not kills.start(tmp_path, tmp_path, 0, 2, ("in a step", 0, 0.0))
    else:
        with pytest.raises(RuntimeError, match="neither done nor killed"):
            kills.start(tmp_path, tmp_path, 0, 2, ("in a step", 0, 0.0))


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_fifty_kills(tmp_path, processes, workers):
    counts = kills.campaign(tmp_path, 50, workers, processes, seed=1)
    assert all(counts[stage] == 10 for stage in kills.STAGES)
    assert counts["identical"] == counts["runs"] >= 1


# --------------------------------------------------------------------------------------------- damage


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_bit(path):
    """Within the numbers of a weight, where nothing but the checksum tells it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


class _Code:
    def __reduce__(self):
        return os.mkdir, (os.environ["WOULD_BE_MADE"],)


def code(path):
    torch.save({"run": _Code(), "settings": "{}"}, path)


def other_contents(path):
    torch.save({"model": {}, "settings": "[]", "run": "3"}, path)


@pytest.mark.parametrize("damage", [cut_off, one_bit, emptied, code, other_contents])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    data, run, unbroken, damage, monkeypatch, tmp_path
):
    monkeypatch.setenv("WOULD_BE_MADE", str(tmp_path / "made"))
    damage(run / LAST)
    with pytest.warns(
        UserWarning, match="last.pt cannot be read .*; training goes on from .*previous.pt, at step 2"
    ):
        goes_on(data, run, unbroken)
    assert not (tmp_path / "made").exists()
    goes_on(data, run, unbroken)  # the damaged one was replaced


def test_a_kill_between_two_names_leaves_the_one_before(data, run, unbroken):
    (run / LAST).unlink()
    goes_on(data, run, unbroken)


def test_a_damaged_checkpoint_never_takes_the_place_of_a_good_one(data, run, monkeypatch):
    cut_off(run / LAST)
    good = (run / BEFORE).read_bytes()
    written = []
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda *paths: (written.append(paths[1].name), replace(*paths)))
    with pytest.warns(UserWarning, match="previous"):
        fit(network(), *data, out=run, resume=True, **SMALL)
    assert written.index(LAST) < written.index(BEFORE)
    assert (run / BEFORE).read_bytes() != good


def test_where_both_are_damaged_nothing_is_touched(data, run):
    for name in (LAST, BEFORE):
        cut_off(run / name)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    words = (
        r"last.pt cannot be read \(\w+\), nor can previous.pt: replace the run with overwrite, or name anoth"
    )
    with pytest.raises(ValueError, match=words):
        fit(network(), *data, out=run, resume=True, **SMALL)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    fit(network(), *data, out=run, overwrite=True, **SMALL)  # as it says


def test_a_checkpoint_that_does_not_fit_is_refused_in_words(data, run):
    saved = torch.load(run / LAST, weights_only=True)
    saved["model"] = {"weights": torch.zeros(3)}
    torch.save(saved, run / LAST)
    with pytest.raises(ValueError, match="last.pt does not fit this network or optimiser"):
        fit(network(), *data, out=run, resume=True, **SMALL)


@pytest.mark.parametrize(
    ("part", "value"),
    {
        "run": [{"history": [1, 2]}, {"history": []}, {"history": [{"step": 1, "loss": 1, "lr": 1}], "x": 1}],
        "state": [{"stale": None}, {"best": None}, {"thresholds": [0.5]}],
        "notes": [{"trained_on": 3}, {"training": 3}],
    }.items(),
)
def test_a_checkpoint_with_other_contents_is_damaged(data, run, part, value):
    (run / BEFORE).unlink()
    saved = torch.load(run / LAST, weights_only=True)
    for contents in value:
        before = saved[part] if part == "state" else json.loads(saved[part])
        doctored = [contents, before | contents] if part != "notes" else [contents]
        for record in doctored:
            torch.save(saved | {part: record if part == "state" else json.dumps(record)}, run / LAST)
            with pytest.raises(ValueError, match=r"last.pt cannot be read \(\w+\): replace the run"):
                fit(network(), *data, out=run, resume=True, **SMALL)


def test_a_checkpoint_of_another_version_or_without_an_optimiser_is_told(data, run):
    saved = torch.load(run / LAST, weights_only=True)
    settings = {key: value for key, value in json.loads(saved["settings"]).items() if "fovs" not in key}
    for changed, words in {
        "settings": "does not tell fields of view, .* another version of drive_unet wrote it",
        "optimizer": "last.pt does not fit this network or optimiser .*: replace the run with overwrite",
    }.items():
        kept = {name: part for name, part in saved.items() if name != changed}
        kept |= {"settings": json.dumps(settings)} if changed == "settings" else {}
        torch.save(kept, run / LAST)
        with pytest.raises(ValueError, match=words):
            fit(network(), *data, out=run, resume=True, **SMALL)


def test_other_versions_are_told(data, run, unbroken, monkeypatch):
    monkeypatch.setattr(checkpoints, "versions", lambda: {"torch": "99.0"})
    with pytest.warns(UserWarning, match="last.pt was written with torch .*; training goes on"):
        goes_on(data, run, unbroken)


def test_a_checkpoint_holds_all_that_is_needed(data, run):
    saved = torch.load(run / LAST, weights_only=True)
    assert {"model", "optimizer", "schedule", "state", "run", "settings", "notes", "versions"} <= saved.keys()
    assert saved["schedule"]["last_epoch"] == 4


# -------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("validated", [True, False])
def test_an_interruption_leaves_a_usable_model_that_can_be_trained_on(data, tmp_path, validated):
    train, validation = data[0], data[1] if validated else None
    loss, calls = combine(bce=1.0, dice=0.5), []

    def interrupted(logits, vessels, fov):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(logits, vessels, fov)

    interrupted.description = loss.description
    model, whole = network(), network()
    unbroken = fit(whole, train, validation, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        fit(model, train, validation, out=tmp_path, loss=interrupted, **SMALL)
    assert not model.training
    assert set(model.notes["trained_on"]["names"]) <= {"21", "22", "23", "24"}
    assert model.notes["training"]["run"].startswith("3 steps")
    if validated:
        best = UNet.from_pretrained(tmp_path)
        assert same(model, best)
        assert (model.threshold, model.threshold_single) == (best.threshold, best.threshold_single)
    run = fit(model, train, validation, out=tmp_path, resume=True, **SMALL)  # the very same object
    assert run.history == unbroken.history and same(model, whole)
    assert model.notes == UNet.from_pretrained(tmp_path).notes
    record = model.notes["trained_on"]
    assert (record["before"]["before"] if validated else record["before"]) is None


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize(("presses", "in_data", "kept"), [(1, False, 3), (1, True, 3), (2, False, 2)])
def test_ctrl_c_keeps_every_step_that_was_done(data, tmp_path, presses, in_data, kept, validated):
    """In a step it waits for the end, unless pressed again; while patches are cut nothing is half done."""
    train, validation = data[0], data[1] if validated else None
    loss, cut, calls = combine(bce=1.0, dice=0.5), training_transform(32), []

    def pressed(at):
        calls.append(1)
        for _ in range(presses if len(calls) == at else 0):
            signal.raise_signal(signal.SIGINT)

    def interrupted(logits, vessels, fov):
        if not in_data:
            pressed(3)
        return loss(logits, vessels, fov)

    def transform(sample):
        if in_data:
            pressed(2 * 3 + 1)
        return cut(sample)

    interrupted.description, transform.description = loss.description, None
    whole = network()
    unbroken = fit(whole, train, validation, average=0.9, **SMALL)
    words = f"after {2 + (presses == 1)} of 6 steps, {kept} of them kept in .*{LAST}"
    with pytest.raises(KeyboardInterrupt, match=words):
        fit(
            network(),
            train.subset(train.names, transform),
            validation,
            average=0.9,
            out=tmp_path,
            loss=interrupted,
            **SMALL,
        )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = network()
    run = fit(model, train, validation, average=0.9, out=tmp_path, resume=True, **SMALL)
    assert run.history == unbroken.history and same(model, whole)


def test_a_log_tells_the_run_as_it_goes(data, tmp_path):
    fit(network(), *data, out=tmp_path, **SMALL | {"steps": 4})
    fit(network(), *data, out=tmp_path, resume=True, **SMALL)
    lines = [line.split("  ", 1)[1] for line in (tmp_path / LOG).read_text().splitlines()]
    begun = lines.index("goes on after step 4")
    assert lines[0] == "begins" and lines[1] == "learns from 3 photographs: 21, 22 and 23"
    assert lines[2].startswith("settings: steps 4, patches_a_step 2, lr 0.01")
    assert f"torch {torch.__version__}" in lines[3] and "on cpu" in lines[3]
    assert lines[4].startswith("step 2 of 4 in ") and "validation Dice" in lines[4]
    assert lines[begun - 1].startswith("ended: 4 steps in ") and lines[-1].startswith("ended: 6 steps in ")
    fit(network(), *data, out=tmp_path, overwrite=True, **SMALL | {"steps": 2})
    assert (tmp_path / LOG).read_text().count("begins") == 1, "the replaced run is not in it"


def test_a_finished_model_may_be_resumed_and_stays_as_it_is(data, unbroken, tmp_path):
    model = network()
    fit(model, *data, out=tmp_path / "a", **SMALL)
    notes = dict(model.notes)
    for _ in range(2):
        run = fit(model, *data, out=tmp_path / "a", resume=True, **SMALL)
        assert run.history == unbroken[1].history and same(model, unbroken[0])
        assert model.notes["trained_on"] == notes["trained_on"]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    more, fresh = SMALL | {"steps": 8}, network()
    whole = fit(fresh, *data, out=tmp_path / "b", resume=True, **more)
    for _ in range(2):  # for more steps, as another object does, and when they are done
        run = fit(model, *data, out=tmp_path / "a", resume=True, **more)
        assert run.history == whole.history and same(model, fresh)
        assert (model.threshold, model.threshold_single) == (fresh.threshold, fresh.threshold_single)
        assert model.notes["trained_on"] == fresh.notes["trained_on"]
    model.notes["training"]["lr"] = 1.0  # of another run, which is not gone on with
    with pytest.raises(ValueError, match=r"weights that it started from was .*; use its settings"):
        fit(model, *data, out=tmp_path / "a", resume=True, **SMALL | {"steps": 10})


# -------------------------------------------------------------------------------------------- no room


@pytest.fixture
def full(monkeypatch):
    """A disk that is full after so many bytes a file."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_the_older_checkpoint_is_whole(data, run, unbroken, full):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.name != LOG}
    full(10_000)
    with pytest.raises(DataError, match="run cannot be written .*: make room .*, then go on with resume"):
        fit(network(), *data, out=run, resume=True, **SMALL)
    full(-1)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name != LOG} == before
    assert "stopped by DataError" in (run / LOG).read_text().splitlines()[-1]
    goes_on(data, run, unbroken)


def test_no_checkpoint_is_called_whole_where_there_is_none(data, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_atomically", full)
    with pytest.raises(DataError) as caught:
        fit(network(), *data, out=tmp_path / "run", **SMALL)
    assert str(caught.value).endswith("give yourself permission there, then begin again")


def test_an_unfinished_file_of_a_killed_run_is_swept(data, run, unbroken):
    (run / ".0a1b.part").write_bytes(b"half")
    os.utime(run / ".0a1b.part", (0, 0))
    goes_on(data, run, unbroken)
    assert {path.name for path in run.iterdir()} == {LAST, BEFORE, BEST, LOG}


def test_an_overwritten_run_leaves_nothing_to_go_on_from(data, run):
    def interrupted(logits, vessels, fov):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), *data, out=run, overwrite=True, loss=interrupted, **SMALL)
    assert {path.name for path in run.iterdir()} == {LOG}, "nor weights that would be taken for the new run's"


def test_what_no_run_wrote_is_not_removed_with_a_run(data, run):
    for name, words in ((TABLE, "day,mood\n"), (CURVE, "a picture"), ("notes.txt", "mine")):
        (run / name).write_text(words)
    make_way(run, overwrite=True)
    assert {path.name for path in run.iterdir()} == {TABLE, CURVE, "notes.txt"}
    (run / BEST).write_text("weights of one's own")
    make_way(run, overwrite=True)
    assert (run / BEST).exists()


def test_of_two_runs_into_one_folder_the_second_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PATIENCE", 0)
    loss, refusals = combine(bce=1.0, dice=0.5), []

    def second():
        for more in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(DataError) as caught:
                fit(network(), *data, out=tmp_path / "run", **more, **SMALL)
            refusals.append(str(caught.value))

    def meanwhile(logits, vessels, fov):
        if not refusals:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        return loss(logits, vessels, fov)

    meanwhile.description = loss.description
    fit(network(), *data, out=tmp_path / "run", loss=meanwhile, **SMALL)
    words = f"another training writes into {tmp_path / 'run'}: wait until it is done, or name another folder"
    assert refusals == [words] * 3
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LAST, BEFORE, BEST, LOG}
    assert (tmp_path / "run" / LOG).read_text().count("begins") == 1
    with alone_in(tmp_path / "run"):
        fit(network(), *data, out=tmp_path / "run", resume=True, **SMALL)
        assert (tmp_path / "run" / ".lock").exists(), "still held by whoever called"


def test_a_folder_that_workers_of_a_killed_run_still_hold_is_waited_for(tmp_path):
    held = FileLock(tmp_path / ".lock", thread_local=False)
    held.acquire()
    threading.Timer(0.3, held.release).start()
    with alone_in(tmp_path):
        assert not held.is_locked


@needs_fork
def test_a_file_is_whole_or_not_there(tmp_path):
    path, keep = tmp_path / "file", tmp_path / "kept"
    files.write_atomically(path, lambda file: file.write(b"first"), durable=True, keep=keep)
    files.write_atomically(path, lambda file: file.write(b"second"), durable=True, keep=keep)
    assert (path.read_bytes(), keep.read_bytes()) == (b"second", b"first")

    def breaks(file):
        file.write(b"third")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, breaks, keep=keep)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {
        "file": b"second",
        "kept": b"first",
    }
    if os.name == "posix":
        mask = os.umask(0o022)
        files.write_atomically(path, lambda file: file.write(b"shared"))
        assert path.stat().st_mode & 0o777 == 0o644  # others of the group may read weights
        os.umask(mask)


# --------------------------------------------------------------------------------------------- caches


def _unpacks(archive, stops, answers):
    """Unpack an archive; or be killed as soon as its first file is written."""
    if stops:
        archives._blocks = lambda source: os.kill(os.getpid(), signal.SIGKILL)
    answers.put(str(unpack(archive)))


@needs_fork
def test_an_archive_unpacked_by_two_processes_at_once_and_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setenv("DRIVE_UNET_CACHE", str(tmp_path / "cache"))
    archive = zipped(write_split(tmp_path / "training", "training", range(21, 25)), tmp_path / "training.zip")
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()

    def run(*stops):
        started = [fork.Process(target=_unpacks, args=(archive, stop, answers)) for stop in stops]
        for process in started:
            process.start()
        for process in started:
            process.join()
        return [process.exitcode for process in started]

    assert run(True) == [-signal.SIGKILL]
    (left,) = (tmp_path / "cache" / "archives").iterdir()  # half of it, hidden
    assert left.name.startswith(".")
    os.utime(left, (0, 0))
    assert run(False, False, False) == [0, 0, 0]
    (target,) = {answers.get() for _ in range(3)}
    assert len([file for file in Path(target).rglob("*") if file.is_file()]) == 12
    assert [entry.name for entry in Path(target).parent.iterdir()] == [Path(target).name]
