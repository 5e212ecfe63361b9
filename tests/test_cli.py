"""The command line: help and errors at once, whole trips on tiny budgets, and nothing ever written over."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import SIZE, disc, grey, photograph, tree, write_drive, write_files
from PIL import Image

from drive_unet import PRESETS, DRIVEDataset, UNet, __version__, evaluate, find_dataset, folds, segment
from drive_unet.commands import audit as auditing
from drive_unet.commands import evaluate as evaluating
from drive_unet.commands import main as command_line
from drive_unet.commands.main import main
from drive_unet.data.pairing import match
from drive_unet.inference import Segmenter
from drive_unet.outputs import RECORD, Outputs
from drive_unet.painter import painting
from drive_unet.painter.painting import make_dataset, paint
from drive_unet.painter.store import PLAIN, image_seed
from drive_unet.presets import Preset
from drive_unet.training import loop

COMMANDS = ("demo", "train", "evaluate", "audit", "submit", "predict", "synthesize")
TINY = Preset("for tests", network={"widths": (8, 8)}, steps=3, batch_size=2, patch_size=32)
LETTERS = "abcd"


@pytest.fixture(scope="module", autouse=True)
def tiny_preset():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", TINY)
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The command line takes as many threads as are free, and sums differ by their number."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(before)


def write_own(root, *, size=SIZE, encode=grey(255), suffix=".png"):  # noqa: B008 (a constant)
    """Four labelled photographs, named by letters: the pixels of 21 to 24 of `write_drive`."""
    for number, letter in enumerate(LETTERS, start=21):
        for folder, picture in (
            ("images", Image.fromarray(photograph(number, size))),
            ("labels", encode(tree(number, size))),
        ):
            path = root / folder / f"eye {letter}{'.png' if folder == 'images' else suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return write_own(tmp_path_factory.mktemp("own") / "mine")


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp("drive") / "DRIVE", test_labels=True)


@pytest.fixture(scope="module")
def run(own, tmp_path_factory):
    """The folder of a network trained on all four photographs."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert done("train", "--preset", "tiny", "--data", own, "--out", folder, "--seed", 3) == 0
    return folder


@pytest.fixture(scope="module")
def crossed(own, tmp_path_factory):
    """The folder of two networks, each trained on two of the four photographs."""
    folder = tmp_path_factory.mktemp("runs") / "crossed"
    assert done("train", "--preset", "tiny", "--data", own, "--out", folder, "--folds", 2) == 0
    return folder


def done(*arguments):
    return main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    """The one line that a command says before it returns 1; terms of use are shown once a process."""
    capsys.readouterr()
    assert done(*arguments) == 1
    lines = capsys.readouterr().err.splitlines(keepends=True)
    message = "".join(line for line in lines if ", terms of use: " not in line)
    assert message.startswith("drive-unet: ") and message.count("\n") == 1, message
    return message


def evaluated(capsys, *arguments):
    capsys.readouterr()
    assert done("evaluate", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def guard(scored, name="in training and test"):
    """What a guard says; None where it is silent."""
    return next((entry["sentence"] for entry in scored["guards"] if entry["name"] == name), None)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summary(folder):
    """The rows of what predict tells of the photographs in a folder."""
    with (folder / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pictures(folder):
    return {name: content for name, content in contents(folder).items() if name.suffix == ".png"}


# ---------------------------------------------------------------------- help and usage


def test_version_and_help(capsys):
    cases = [("--version", __version__), ("--help", "predict"), ("demo --help", "--steps N")]
    cases += [("train --help", preset) for preset in ("laptop", "gpu", "best")]
    cases += [(f"{command} --help", "HRF") for command in ("demo", "train", "evaluate")]
    cases += [("--help", f"\n    {command}") for command in COMMANDS]
    cases += [(f"{command} --help", f"usage: drive-unet {command}") for command in COMMANDS]
    for argument, expected in cases:
        with pytest.raises(SystemExit) as stopped:
            main(argument.split())
        assert stopped.value.code == 0
        assert expected in capsys.readouterr().out
    assert {"laptop", "gpu", "best"} <= set(PRESETS)


def test_help_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, drive_unet.commands.main as cli\n"
        f"for words in (['--version'], *([command, '--help'] for command in {COMMANDS})):\n"
        "    try: cli.main(words)\n"
        "    except SystemExit: pass\n"
        "print(sorted({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_predicting_loads_nothing_that_only_training_needs(run, tmp_path):
    Image.fromarray(photograph(3, (290, 300))).save(tmp_path / "eye.png")
    arguments = [str(each) for each in ("predict", tmp_path, "--out", tmp_path / "out", "--weights", run)]
    code = f"import sys, drive_unet.commands.main as cli; cli.main({arguments}); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = shown.splitlines()[-1].split()
    assert "drive_unet.inference" in loaded
    rooms = {f"drive_unet.{room}" for room in ("training", "evaluation", "painter", "augmentation", "plots")}
    needless = {"accelerate", "torchvision", "matplotlib", "sympy", "skimage"} | rooms
    if torch.__version__ < (2, 11):
        needless.remove("sympy")  # PyTorch 2.6 loads it to compute
    assert needless & set(loaded) == set()


def test_scoring_files_loads_nothing_that_only_training_needs():
    code = "import sys, drive_unet.commands.evaluate, drive_unet.commands.audit; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "drive_unet.evaluation" in shown.split()
    assert not {"accelerate", "torchvision", "matplotlib", "torch._dynamo"} & set(shown.split())


def test_python_m_drive_unet_is_the_same():
    shown = subprocess.run(
        [sys.executable, "-m", "drive_unet", "train", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("usage: drive-unet train")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "segment",
        "demo --steps 0",
        "train",
        "train --out x --steps 0",
        "train --out x --seed -1",
        "train --out x --folds 1",
        "train --out x --resume --overwrite",
        "train --out x --workers two",
        "train --out x --mixed-precision fp8",
        "evaluate --split validation",
        "evaluate --threshold 1.5",
        "evaluate --threshold nan",
        "predict --out x",
        "predict x.png",
        "predict x.png --out x --threshold half",
        "synthesize",
        "synthesize x --images 0",
        "synthesize x --images many",
        "synthesize x --seed -1",
        "synthesize x --workers 0",
    ],
)
def test_wrong_usage_is_shown(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    assert "usage: drive-unet" in capsys.readouterr().err


def test_errors_are_one_line_and_a_code_and_leave_nothing_behind(tmp_path, capsys):
    out = tmp_path / "out"
    for command in ("demo", "train"):
        assert "nowhere" in refused(capsys, command, "--data", tmp_path / "nowhere", "--out", out)
    assert not out.exists()


def test_an_interruption_is_told_as_such(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_later", lambda *names: interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "\ndrive-unet: interrupted\n"


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_training_says_how_to_go_on(own, run, tmp_path, monkeypatch, capsys):
    calls, standardise = [], loop.standardise

    def pressed(*arguments):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return standardise(*arguments)

    monkeypatch.setattr(loop, "standardise", pressed)
    out = tmp_path / "my run"
    train = ("train", "--preset", "tiny", "--data", own, "--seed", 3, "--out", out)
    assert done(*train) == 130
    words, command = capsys.readouterr().err.splitlines()[-1].split(" - go on: ")
    assert words == f"drive-unet: interrupted after 2 of 3 steps, 2 of them kept in {out / 'last.pt'}"
    program, *arguments = shlex.split(command)
    assert program == "drive-unet" and main(arguments) == 0
    weights, unbroken = (UNet.from_pretrained(folder).state_dict() for folder in (out, run))
    assert all(torch.equal(value, unbroken[name]) for name, value in weights.items())


def test_demo_tells_of_a_folder_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(Outputs, "note", full)
    assert main(["demo", "--out", str(tmp_path / "out"), "--data", "embedded"]) == 1
    assert "out cannot be written (No space left on device)" in capsys.readouterr().err.splitlines()[-1]


def test_demo_makes_the_whole_trip(tmp_path, capsys):
    out = tmp_path / "out"
    painted = make_dataset(tmp_path / "painted", training=5, test=2, progress=False)
    assert done("demo", "--data", painted, "--steps", 2, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "Scores are computed on the 2 test photographs" in shown
    assert "U-Net, this run" in shown
    assert "econd observer" in shown
    assert "threshold" in shown and "chosen on the validation photographs" in shown and "given" not in shown
    assert {path.name for path in out.iterdir()} == {
        RECORD,
        "train.log",
        "best.safetensors",
        "last.pt",
        "scores.csv",
        *(f"{name}.png" for name in ("data", "training", "worst", "best", "another_camera")),
    }
    with (out / "scores.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert UNet.from_pretrained(out).notes["training"]["steps"] == 2

    before = contents(out)
    again = ("demo", "--data", painted, "--out", out, "--steps")
    assert "best.safetensors exists, from a run that differs in steps" in refused(capsys, *again, 1)
    assert done(*again, 2) == 0
    assert contents(out)[Path("scores.csv")] == before[Path("scores.csv")]
    (out / RECORD).unlink()  # as if by another program
    assert "nothing says that this command wrote it" in refused(capsys, *again, 2)
    assert pictures(out) == {name: before[name] for name in pictures(out)}
    assert done(*again, 1, "--overwrite") == 0
    assert UNet.from_pretrained(out).notes["training"]["steps"] == 1


# ---------------------------------------------------------------------- train

RUN = {"train.log", "best.safetensors", "last.pt", "history.csv", "history.png"}


def test_train_writes_weights_that_know_what_they_learned_from(own, run):
    assert set(contents(run)) == {run.relative_to(run) / name for name in RUN}
    notes = UNet.from_pretrained(run).notes
    record = notes["trained_on"]
    assert record["source"] == "mine"
    assert record["names"] == [f"eye {letter}" for letter in LETTERS]
    assert record["fingerprints"] == DRIVEDataset(own / "images").fingerprints
    assert len(set(record["fingerprints"])) == 4
    assert (notes["preset"], notes["seed"], notes["training"]["steps"]) == ("tiny", 3, 3)
    assert notes["versions"]["drive_unet"] == __version__
    assert set(notes["versions"]) == {"python", "torch", "torchvision", "drive_unet"}


def test_train_says_where_the_weights_are_and_how_to_use_them(own, tmp_path, capsys):
    out = tmp_path / "my run"
    assert done("train", "--preset", "tiny", "--data", own, "--out", out, "--steps", 1, "--resume") == 0
    shown = capsys.readouterr().out
    assert "trained on 4 photographs, mine: eye a, eye b, eye c and eye d" in shown
    assert f"weights: {out / 'best.safetensors'}" in shown
    assert f"drive-unet predict PHOTOGRAPHS --weights '{out}' --out predictions" in shown
    assert UNet.from_pretrained(out).notes["training"]["steps"] == 1


def test_train_starts_from_packaged_weights_and_keeps_their_record(own, tmp_path, monkeypatch):
    start = UNet(widths=(8, 8))
    start.notes = {"trained_on": {"source": "elsewhere", "names": ["1"], "fingerprints": ["f" * 16]}}
    start.notes |= {"data": "one eye", "terms": "theirs"}
    monkeypatch.setattr(Preset, "model", lambda preset, seed: start)
    assert done("train", "--preset", "tiny", "--data", own, "--out", tmp_path, "--steps", 1) == 0
    notes = UNet.from_pretrained(tmp_path).notes
    record = notes["trained_on"]
    assert record["source"] == "mine" and record["before"]["fingerprints"] == ["f" * 16]
    assert notes["data"] == "4 photographs, mine" and "terms" not in notes


def test_train_goes_on_from_weights_of_ones_own(own, run, tmp_path, capsys):
    train = ("train", "--preset", "tiny", "--data", own, "--steps", 1)
    assert done(*train, "--out", tmp_path / "tuned", "--start", run, "--device", "cpu") == 0
    tuned, start = UNet.from_pretrained(tmp_path / "tuned"), UNet.from_pretrained(run)
    assert tuned.notes["trained_on"]["before"] == start.notes["trained_on"]
    assert tuned.preprocessing == start.preprocessing and "ACCELERATE_USE_CPU" not in os.environ
    assert "no weights at nowhere" in refused(capsys, *train, "--out", tmp_path / "new", "--start", "nowhere")
    assert "--device tpu" in refused(capsys, *train, "--out", tmp_path / "new", "--device", "tpu")
    assert "seed 9223372036854775808 is" in refused(
        capsys, *train, "--out", tmp_path / "new", "--seed", 2**63
    )
    assert not (tmp_path / "new").exists()


def test_train_leaves_a_table_of_its_steps_and_a_curve(run):
    with (run / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["loss"]) > 0 and float(row["lr"]) > 0 and row["dice"] == "" for row in rows)
    with Image.open(run / "history.png") as curve:
        assert curve.format == "PNG" and len(np.unique(np.asarray(curve.convert("L")))) > 10


def test_train_never_writes_over_a_run(own, run, tmp_path, capsys):
    train = ("train", "--preset", "tiny", "--data", own)
    before = contents(run)
    assert "--resume" in refused(capsys, *train, "--out", run)
    assert "steps was 3" in refused(capsys, *train, "--out", run, "--resume", "--steps", 2, "--seed", 3)
    assert contents(run) == before

    (tmp_path / "best.safetensors").write_bytes(before[run.relative_to(run) / "best.safetensors"])
    assert "no last.pt to go on from" in refused(capsys, *train, "--out", tmp_path, "--resume")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "history.png").write_bytes(b"my own")
    for more in ((), ("--resume",)):
        message = refused(capsys, *train, "--out", tmp_path / "mine", *more)
        assert (
            "holds history.png, but no last.pt" in message and "--overwrite, or name another --out" in message
        )
    assert (tmp_path / "mine" / "history.png").read_bytes() == b"my own"
    file = tmp_path / "best.safetensors"
    for place in (file, file / "run"):
        assert f"{file} is a file" in refused(capsys, *train, "--out", place)
        assert f"{file} is a file" in refused(capsys, "predict", own, "--out", place, "--weights", run)
    assert file.read_bytes() == before[run.relative_to(run) / "best.safetensors"]


def test_train_replaces_a_run_if_told_to(own, tmp_path, capsys):
    train = ("train", "--preset", "tiny", "--data", own, "--out", tmp_path)
    assert done(*train, "--steps", 1) == 0
    before = contents(tmp_path)
    assert "--overwrite" in refused(capsys, *train, "--steps", 2)
    assert contents(tmp_path) == before
    assert done(*train, "--steps", 2, "--overwrite") == 0
    assert UNet.from_pretrained(tmp_path).notes["training"]["steps"] == 2
    assert {path.name for path in tmp_path.iterdir()} == RUN
    (tmp_path / "last.pt").unlink()  # weights alone
    assert done(*train, "--steps", 1, "--overwrite") == 0
    assert UNet.from_pretrained(tmp_path).notes["training"]["steps"] == 1


def test_train_mixes_no_folds_with_others_nor_with_a_run_on_all(own, tmp_path, capsys):
    train = ("train", "--preset", "tiny", "--data", own, "--steps", 1, "--out", tmp_path)
    kinds = [((), {*RUN}), (("--folds", 4), {f"fold-{fold}" for fold in range(4)})]
    kinds += [(("--folds", 2), {"fold-0", "fold-1"}), ((), {*RUN})]
    assert done(*train) == 0
    for (_, held), (kind, left) in pairwise(kinds):
        before = contents(tmp_path)
        for more in ((), ("--resume",)):
            message = refused(capsys, *train, *kind, *more)
            assert "--overwrite, or name another --out" in message or "belongs to another run" in message
        assert contents(tmp_path) == before and {path.name for path in tmp_path.iterdir()} == held
        assert done(*train, *kind, "--overwrite") == 0
        assert {path.name for path in tmp_path.iterdir()} == left
        assert done("evaluate", "--weights", tmp_path, "--data", own, "--split", "train") == 0
    (tmp_path / "last.pt").unlink()  # weights of one's own
    assert "move it elsewhere" in refused(capsys, *train, "--folds", 2, "--overwrite")


def test_a_finished_run_resumed_stays_as_it_is(own, run, capsys):
    before = UNet.from_pretrained(run)
    train = ("train", "--preset", "tiny", "--data", own, "--out", run, "--seed", 3, "--resume")
    assert done(*train) == 0
    after = UNet.from_pretrained(run)
    assert after.notes["trained_on"] == before.notes["trained_on"]
    assert all((after.state_dict()[name] == value).all() for name, value in before.state_dict().items())


def test_one_fold_is_held_out_and_scored(drive, tmp_path, capsys):
    train = ("train", "--preset", "tiny", "--data", drive, "--out", tmp_path / "run", "--steps", 1)
    assert done(*train, "--folds", 5, "--fold", 1) == 0
    shown = capsys.readouterr().out
    assert "pooled over 4 images (22, 27, 32, 37)" in shown
    assert "These weights were not trained on these photographs." in shown
    record = UNet.from_pretrained(tmp_path / "run").notes["trained_on"]
    assert record["source"] == "DRIVE"
    assert len(record["names"]) == 16 and not {"22", "27", "32", "37"} & set(record["names"])
    for fold in ([], ["--folds", 5]):
        message = refused(capsys, *train[:-4], "--out", tmp_path / "other", *fold, "--fold", 5)
        assert "--fold 5 needs --folds" in message
    assert "choose from laptop" in refused(capsys, "train", "--preset", "huge", "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_of_several_processes_only_the_main_one_speaks(own, tmp_path, monkeypatch, capsys):
    from drive_unet.commands import train as command

    class Second:
        is_main_process = False
        main_process_first = staticmethod(nullcontext)

    monkeypatch.setattr(command, "processes", Second)
    assert done("train", "--preset", "tiny", "--data", own, "--out", tmp_path, "--folds", 2, "--fold", 0) == 0
    assert capsys.readouterr().out == ""
    assert "preset" not in UNet.from_pretrained(tmp_path).notes  # which `fit` wrote, the main process here


# ---------------------------------------------------------------------- photographs of one's own


def smoothed(mask):
    height, width = mask.shape
    picture = Image.fromarray((mask * 255).astype(np.uint8))
    return (
        picture.resize((2 * width, 2 * height), 0)
        .resize((width - 1, height - 1), 2)
        .resize((width, height), 2)
    )


def test_labels_of_ones_own_may_have_smoothed_edges(tmp_path, capsys):
    size = (232, 240)

    def thick(mask):
        return np.asarray(Image.fromarray(mask).resize(size[::-1], 0))

    for letter, number in zip(LETTERS, range(21, 25), strict=True):
        for folder, picture in (
            ("images", Image.fromarray(photograph(number)).resize(size[::-1])),
            ("labels", smoothed(thick(tree(number)))),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{letter}.png")
    weights = tmp_path / "weights.safetensors"
    UNet(widths=(8, 8)).save_pretrained(weights)
    score = ("evaluate", "--data", tmp_path, "--weights", weights)
    assert done(*score) == 0
    with pytest.raises(ValueError, match="resized with smoothing"):  # DRIVE's own labels are two-valued
        DRIVEDataset(tmp_path / "images", tmp_path / "labels")

    classes = thick(tree(21)) * np.where(np.arange(size[1]) < 90, 128, 255)
    Image.fromarray(classes.astype(np.uint8)).save(tmp_path / "labels" / "a.png")
    assert "a.png holds 3 grey levels" in refused(capsys, *score)
    Image.fromarray(photograph(21)).convert("L").resize(size[::-1]).save(tmp_path / "labels" / "a.png")
    assert "vessels white" in refused(capsys, *score)


def test_labels_of_published_sets_may_have_smoothed_edges_too(tmp_path, capsys):
    size = (232, 240)
    thick = np.kron(tree(1), np.ones((4, 4), bool))
    picture = Image.fromarray(photograph(1)).resize(size[::-1])
    write_files(tmp_path, {"images/01_h.jpg": picture, "manual1/01_h.tif": smoothed(thick)})
    weights = tmp_path / "weights.safetensors"
    UNet(widths=(8, 8)).save_pretrained(weights)
    scored = evaluated(capsys, "--data", tmp_path, "--weights", weights)
    protocol = scored["protocols"]["inside_fov"]
    assert (protocol["data"], protocol["photographs"]) == ("HRF", ["01_h"])


def test_what_is_missing_among_ones_own_is_named(tmp_path, capsys):
    own = write_own(tmp_path / "mine")
    train = ("train", "--preset", "tiny", "--data", own, "--out", tmp_path / "run")
    (own / "labels" / "eye b.png").rename(tmp_path / "eye b.png")
    assert "lacks the vessel labels of eye b.png (1 of 4): add" in refused(capsys, *train)
    (tmp_path / "eye b.png").rename(own / "labels" / "eye b.png")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(own / "labels" / "eye c.png")
    assert "eye c.png is 5x5" in refused(capsys, *train)
    (own / "labels").rename(own / "other")
    assert "no folder named labels" in refused(capsys, *train)
    assert not (tmp_path / "run").exists()


def test_fov_masks_of_ones_own_are_used(tmp_path, run, capsys):
    own = write_own(tmp_path / "mine")
    whole = evaluated(capsys, "--data", own, "--weights", run)
    (own / "fov").mkdir()
    half = disc() & (np.arange(SIZE[1]) < 40)
    for letter in LETTERS:
        grey(255)(half).save(own / "fov" / f"eye {letter}_fov.png")
    cut = evaluated(capsys, "--data", own, "--weights", run)
    assert cut["accuracy"] != whole["accuracy"]


# ---------------------------------------------------------------------- evaluate


def test_scores_on_photographs_trained_on_are_called_so(own, run, drive, capsys):
    assert done("evaluate", "--data", own, "--weights", run) == 0
    shown = capsys.readouterr().out
    assert f"{run}, trained on these" in shown
    assert "These weights were trained on eye a, eye b, eye c and eye d: scores there say nothing" in shown
    assert "trained on eye a, eye b, eye c and eye d" in guard(
        evaluated(capsys, "--data", own, "--weights", run)
    )

    # By their pixels, whatever their names: 21 to 24 of this DRIVE are the same photographs.
    scored = evaluated(capsys, "--data", drive, "--split", "train", "--weights", run)
    assert "trained on 21, 22, 23 and 24" in guard(scored)
    scored = evaluated(capsys, "--data", drive, "--weights", run)  # the test photographs
    assert guard(scored) is None and scored["per_image"][0]["name"] == "01"


def test_weights_without_a_record_are_called_so(own, tmp_path, capsys):
    UNet(widths=(8, 8)).save_pretrained(tmp_path / "mute.safetensors")
    score = ("--data", own, "--weights", tmp_path / "mute.safetensors")
    assert guard(evaluated(capsys, *score)) is None
    assert done("evaluate", *score) == 0
    assert "is not recorded" in capsys.readouterr().out


def test_the_table_has_the_second_observer_and_the_protocol(drive, run, capsys):
    assert done("evaluate", "--data", drive, "--weights", run, "--threshold", 0.25, "--tta") == 0
    shown = capsys.readouterr().out
    assert f"{run}, 4 flips averaged" in shown and "second observer" in shown
    assert "0.250" in shown and "Inside the field of view, at native size" in shown


def test_without_test_labels_the_remedy_is_one_line(run, tmp_path, capsys):
    official = write_drive(tmp_path / "DRIVE")
    message = refused(capsys, "evaluate", "--data", official, "--weights", run, "--split", "test")
    assert "have no vessel labels" in message and "--split train --folds 5" in message
    scored = evaluated(capsys, "--data", official, "--weights", run, "--folds", 5)
    assert scored["protocols"]["inside_fov"]["split"] == "train"
    parts = [held_out for _, held_out in folds([f"{n}" for n in range(21, 41)], 5)]
    assert [part["photographs"] for part in scored["protocols"]["folds"]] == parts


def test_each_photograph_is_scored_by_the_network_that_has_not_seen_it(own, crossed, run, capsys):
    scored = evaluated(capsys, "--data", own, "--weights", crossed)
    parts = scored["protocols"]["folds"]
    assert [part["photographs"] for part in parts] == [["eye a", "eye c"], ["eye b", "eye d"]]
    assert [part["trained_on_these"] for part in parts] == [False, False]
    for fold, part in enumerate(parts):
        learned = UNet.from_pretrained(crossed / f"fold-{fold}").notes["trained_on"]["names"]
        assert not set(learned) & set(part["photographs"])
    assert [row["name"] for row in scored["per_image"]] == ["eye a", "eye b", "eye c", "eye d"]
    counts = [sum(row[kind] for row in scored["per_image"]) for kind in ("tp", "fp", "fn")]
    assert scored["dice"] == pytest.approx(2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]))
    thresholds = {row["name"]: row["threshold"] for row in scored["per_image"]}
    assert [thresholds["eye a"], thresholds["eye b"]] == [part["threshold"] for part in parts]
    assert done("evaluate", "--data", own, "--weights", crossed) == 0
    shown = capsys.readouterr().out
    assert "fold 1: eye b and eye d" in shown and "± sd over folds" in shown
    assert "by networks that have not seen it" in shown

    assert done("evaluate", "--data", own, "--weights", run, "--folds", 2) == 0  # one network saw it all
    assert "fold 1: eye b and eye d, trained on these" in capsys.readouterr().out


def test_a_cross_validation_scores_what_none_of_it_has_seen_with_every_network(drive, crossed, capsys):
    scored = evaluated(capsys, "--data", drive, "--weights", crossed)
    parts = scored["protocols"]["folds"]
    assert [len(part["photographs"]) for part in parts] == [20, 20]
    assert parts[0]["auc"] != parts[1]["auc"]
    assert scored["auc"] == pytest.approx((parts[0]["auc"] + parts[1]["auc"]) / 2)


def test_a_cross_validation_that_does_not_fit_is_refused(own, drive, crossed, capsys):
    score = ("evaluate", "--weights", crossed, "--data")
    assert "holds 2 folds, not the 3" in refused(capsys, *score, own, "--folds", 3)
    assert "each was held out once" in refused(capsys, *score, drive, "--split", "train")
    (crossed / "fold-1").rename(crossed / "away")
    try:
        assert "each was held out once" in refused(capsys, *score, own)
    finally:
        (crossed / "away").rename(crossed / "fold-1")


# ---------------------------------------------------------------------- finished predictions


@pytest.mark.parametrize("size", [SIZE, (116, 120)])  # of the scale that the network knows, and of another
def test_what_predict_writes_scores_as_the_weights_do(size, run, tmp_path, capsys):
    own, tmp_path = write_own(tmp_path / "mine", size=size), tmp_path / "out"
    photographs = DRIVEDataset.from_pairs(find_dataset(own).training, smooth=True)
    assert done("predict", own / "images", "--out", tmp_path, "--weights", run) == 0
    weights = evaluated(capsys, "--data", own, "--weights", run)
    both = evaluated(capsys, tmp_path, "--data", own)
    assert both["dice"] == pytest.approx(weights["dice"], abs=1e-9)
    assert both["auc"] == pytest.approx(weights["auc"], abs=1e-3)
    assert both["threshold"] == weights["threshold"]
    inside = both["protocols"]["inside_fov"]
    for folder in (tmp_path, str(tmp_path)):  # in Python the very same
        scored = evaluate(folder, photographs)
        assert (scored.pooled["Dice"], scored.pooled["AUC"]) == (both["dice"], both["auc"])
        assert (scored.threshold, scored.threshold_from) == (both["threshold"], inside["threshold_from"])
        assert scored.name == str(tmp_path)
    for path in tmp_path.glob("*_vessels.png"):
        path.unlink()
    probability = evaluated(capsys, tmp_path, "--data", own)  # cut where the weights have frozen it
    assert probability["dice"] == pytest.approx(weights["dice"], abs=1e-3)
    assert probability["threshold"] == weights["threshold"] == evaluate(tmp_path, photographs).threshold
    assert evaluate(tmp_path, photographs).pooled["Dice"] == probability["dice"]
    assert "recorded by drive-unet predict" in probability["protocols"]["inside_fov"]["threshold_from"]
    assert evaluated(capsys, tmp_path, "--data", own, "--threshold", 0.25)["threshold"] == 0.25
    (tmp_path / RECORD).unlink()
    assert evaluated(capsys, tmp_path, "--data", own)["threshold"] == 0.5


def test_predictions_of_photographs_that_were_learned_from_say_so(own, run, tmp_path, capsys):
    out = tmp_path / "out"
    assert done("predict", own / "images", "--out", out, "--weights", run) == 0
    assert "trained on eye a, eye b, eye c and eye d" in guard(evaluated(capsys, out, "--data", own))
    assert done("audit", out, "--data", own) == 0
    shown = capsys.readouterr().out
    assert (
        "came with weights that had learned from these" in shown and "before these photographs" not in shown
    )
    others = tmp_path / "others"
    for number, letter in enumerate(LETTERS, start=31):
        write_files(
            others, {f"images/eye {letter}.png": photograph(number), f"labels/eye {letter}.png": tree(number)}
        )
    assert done("predict", others / "images", "--out", tmp_path / "new", "--weights", run) == 0
    assert guard(evaluated(capsys, tmp_path / "new", "--data", others)) is None
    assert done("evaluate", tmp_path / "new", "--data", others) == 0
    assert "were not trained on these photographs" in capsys.readouterr().out
    assert done("audit", tmp_path / "new", "--data", others) == 0
    assert "chosen before these photographs were seen, and frozen" in capsys.readouterr().out
    assert done("audit", tmp_path / "new", "--data", others, "--threshold", ".4") == 0
    shown = capsys.readouterr().out
    assert "threshold given, 0.400" in shown and "only who gave it knows" in shown
    assert "and frozen" not in shown


def test_predictions_in_a_tree_keep_their_threshold(own, run, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        done("predict", own, "--recursive", "--out", out, "--weights", run, "--outputs", "probability") == 0
    )
    scored = evaluated(capsys, out / "images", "--data", own)
    assert "recorded by drive-unet predict" in scored["protocols"]["inside_fov"]["threshold_from"]
    message = refused(capsys, "evaluate", out, "--data", own)
    assert "holds no predictions" in message and f"{out / 'images'} has files of their names" in message


def test_predictions_on_another_scale_or_inverted_are_suspicious(own, tmp_path, capsys):
    for name, levels in (("faint", (0, 100)), ("inverted", (255, 0))):
        for number, letter in enumerate(LETTERS, start=21):
            mask = np.where(tree(number), *map(np.uint8, reversed(levels)))
            write_files(tmp_path / name, {f"eye {letter}.png": mask})
        scored = evaluated(capsys, tmp_path / name, "--data", own)
        assert (guard(scored, "nothing is called vessel") is not None) == (name == "faint")
        assert (guard(scored, "inverted") is not None) == (name == "inverted")


@pytest.mark.parametrize(
    ("encode", "kind"),
    [(grey(255), bool), (grey(1), bool), (grey(200), float), (grey(40000, np.uint16), float)],
)
def test_predictions_in_any_grey(own, tmp_path, capsys, encode, kind):
    for number, letter in enumerate(LETTERS, start=21):
        picture = np.array(encode(tree(number)))
        if kind is float:
            picture[0, 0] = 1  # a third level: a map of probability
        Image.fromarray(picture).save(tmp_path / f"eye {letter}_seg.png")
    scored = evaluated(capsys, tmp_path, "--data", own)
    assert scored["dice"] == 1
    assert (scored["auc"] is None) == (scored["threshold"] is None) == (kind is bool)


def test_predictions_pair_by_number_and_need_not_be_of_this_split_alone(drive, tmp_path, capsys):
    for number in range(1, 41):
        grey(255)(tree(number)).save(tmp_path / f"{number}_anything.png")
    scored = evaluated(capsys, tmp_path, "--data", drive)
    assert scored["dice"] == 1
    assert scored["second_observer"]["dice"] < 1
    parts = evaluated(capsys, tmp_path, "--data", drive, "--folds", 2)["protocols"]["folds"]
    assert [part["dice"] for part in parts] == [1, 1]


def test_a_number_pairs_only_where_it_stands_for_one_photograph():
    assert match(["07_test", "8"], [Path("7.png"), Path("08_vessels.png")]) == {
        "07_test": Path("7.png"),
        "8": Path("08_vessels.png"),
    }
    assert match(["7 a", "7 b"], [Path("7 a_pred.png"), Path("7 c.png")]) == {"7 a": Path("7 a_pred.png")}


def test_files_that_could_not_be_written_are_refused_before_anything_is_scored(own, tmp_path, capsys):
    (tmp_path / "file").touch()
    for command, option in (("evaluate", "--csv"), ("evaluate", "--report"), ("audit", "--report")):
        for path, words in (
            (tmp_path / "file" / "x", f"{tmp_path / 'file'} is no folder: name another file"),
            (tmp_path, "it is a folder: name another file"),
        ):
            shown = refused(capsys, command, "nowhere", "--data", "nowhere", option, path)
            assert f"{path} cannot be written, {words}" in shown
    scores = tmp_path / "new" / "folder" / "scores.csv"
    evaluated(capsys, own / "labels", "--data", own, "--csv", scores)
    assert scores.is_file()


def test_a_second_observer_of_one_s_own_photographs_is_compared(own, tmp_path, capsys):
    copy = Path(shutil.copytree(own, tmp_path / "mine"))
    assert evaluated(capsys, own / "labels", "--data", own)["second_observer"] is None
    for folder in ("2nd_manual", "second_observer"):
        (copy / folder).mkdir()
        for letter, number in zip(LETTERS[:3], (21, 22, 23), strict=True):  # not of all
            second = np.roll(tree(number), 1, axis=0)
            grey(255)(second).save(copy / folder / f"eye {letter}.png")
        scored = evaluated(capsys, copy / "labels", "--data", copy)
        assert 0 < scored["second_observer"]["dice"] < 1
        shutil.rmtree(copy / folder)


def test_predictions_that_do_not_fit_are_refused(own, tmp_path, capsys):
    def score(*more):
        return refused(capsys, "evaluate", tmp_path, "--data", own, *more)

    assert "such as eye a_vessels.png" in score()
    for letter in LETTERS:
        grey(255)(tree(21)).save(tmp_path / f"eye {letter}_vessels.png")
    assert "take neither --weights nor --tta" in score("--tta")
    grey(255)(tree(21)).save(tmp_path / "eye a.png")
    assert "both belong to photograph eye a" in score()
    (tmp_path / "eye a.png").unlink()
    grey(255)(tree(21, (20, 20))).save(tmp_path / "eye a_vessels.png")
    assert "is 20x20, the photograph 58x60" in score()
    Image.fromarray(photograph(21)).save(tmp_path / "eye a_vessels.png")
    assert "is in colour" in score()
    (tmp_path / "eye a_vessels.png").unlink()
    assert "lacks the predictions of eye a (1 of 4)" in score()
    assert "is no folder" in refused(capsys, "evaluate", tmp_path / "none", "--data", own)


@pytest.mark.parametrize(
    "name", ["{:02d}_test.png", "{:02d}.png", "{}_vessels.png", "pred_{:02d}_test.png", "{:02d}_manual1.png"]
)
def test_predictions_of_any_program_find_their_photographs(name, drive, tmp_path, capsys):
    for number in range(1, 21):
        grey(255)(tree(number)).save(tmp_path / name.format(number))
        grey(255)(disc()).save(tmp_path / f"{number:02d}_fov.png")  # no prediction
    assert evaluated(capsys, tmp_path, "--data", drive)["dice"] == 1


def test_an_audit_has_its_verdict_first_and_a_report(drive, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(1, 21):
        values = 0.6 * tree(number) + 0.4 * rng.random(SIZE)
        picture = (disc() * values * 65535).astype(np.uint16)
        Image.fromarray(picture).save(tmp_path / f"{number:02d}_test_probability.png")
    assert done("audit", tmp_path, "--data", drive, "--report", tmp_path / "r.html") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].startswith("Your ") and "second observer as reference" in "".join(shown)
    assert "<h2>The same predictions by every habit" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert done("audit", tmp_path, "--data", drive, "--json", "--threshold", 0.3) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["auc"] == evaluated(capsys, tmp_path, "--data", drive)["auc"]
    assert any(row["selection_on_the_test"] for row in found["rows"])

    out = tmp_path / "s.zip"
    assert done("submit", tmp_path, "--data", drive, "--threshold", 0.5, "--out", out) == 0
    assert "read back and checked" in (told := capsys.readouterr().out) and "Not certain" in told
    assert "exists: move it" in refused(capsys, "submit", tmp_path, "--data", drive, "--out", out)


def test_two_predictors_are_told_apart_and_scores_written_as_csv(drive, tmp_path, capsys):
    for folder, shift in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        for number in range(1, 21):
            grey(255)(np.roll(tree(number), shift, axis=0)).save(tmp_path / folder / f"{number:02d}.png")
    settings = ("--data", drive, "--against", tmp_path / "b", "--csv", tmp_path / "scores.csv")
    gap = evaluated(capsys, tmp_path / "a", *settings)["intervals"]["difference"]
    assert gap["photographs"] == 20 and 0 < gap["dice"]["low"] <= gap["dice"]["difference"]
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        assert [float(row["Dice"]) for row in csv.DictReader(file)] == [1.0] * 20


@pytest.mark.parametrize(
    ("command", "option"), [("evaluate", "--csv"), ("evaluate", "--report"), ("audit", "--report")]
)
def test_files_that_are_there_are_kept_unless_told_otherwise(
    drive, tmp_path, monkeypatch, capsys, command, option
):
    for number in range(1, 21):
        write_files(tmp_path / "done", {f"{number:02d}.png": tree(number)})
    file, settings = tmp_path / "mine.txt", (command, tmp_path / "done", "--data", drive)
    file.write_text("by hand")
    with monkeypatch.context() as patched:
        for module in (evaluating, auditing):
            patched.setattr(module, "find_dataset", lambda *places: pytest.fail("it was computed"))
        said = refused(capsys, *settings, option, file)
        assert f"{file} exists: name another file, or replace it with --overwrite" in said
        assert "is a folder" in refused(capsys, *settings, option, tmp_path, "--overwrite")
        assert f"{file} is no folder" in refused(capsys, *settings, option, file / "x", "--overwrite")
    assert file.read_text() == "by hand"
    assert done(*settings, option, file, "--overwrite") == 0 and file.stat().st_size > 100
    assert done(*settings, option, tmp_path / "new" / "folder" / "x") == 0


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are UTF-16 or UTF-8 there")
def test_names_that_are_no_utf_8_are_told_and_written(run, tmp_path, capsys):
    for folder, picture in (("images", photograph(1)), ("labels", tree(1))):
        write_files(tmp_path / "own" / folder, {"eye.png": picture})
        (tmp_path / "own" / folder / "eye.png").rename(tmp_path / "own" / folder / "\udcffeye.png")
    own, out, told = tmp_path / "own", tmp_path / "out", "\\udcffeye"
    assert done("predict", own / "images", "--out", out, "--weights", run) == 0
    assert f"{told}.png: " in capsys.readouterr().out
    assert summary(out)[0]["photograph"].endswith(f"{told}.png")
    files = ("--csv", tmp_path / "scores.csv", "--report", tmp_path / "scores.html")
    assert done("evaluate", out, "--data", own, *files) == 0
    assert told in capsys.readouterr().out
    assert all(told in file.read_text(encoding="utf-8") for file in files[1::2])
    assert evaluated(capsys, "--data", own, "--weights", run)["per_image"][0]["name"] == "\udcffeye"
    assert done("check-data", own) == 0
    (own / "labels" / "\udcffeye.png").write_bytes(b"")
    assert done("check-data", own) == 2
    assert told in capsys.readouterr().out


def test_where_test_labels_are_missing_networks_are_trained_fold_by_fold(tmp_path, capsys, monkeypatch):
    own = write_own(tmp_path / "mine")
    score = ("--data", own, "--folds", 2, "--preset", "tiny", "--runs", tmp_path / "runs")
    first = evaluated(capsys, *score)
    assert [part["trained_on_these"] for part in first["protocols"]["folds"]] == [False, False]
    assert [row["name"] for row in first["per_image"]] == ["eye a", "eye b", "eye c", "eye d"]
    before = contents(tmp_path / "runs")
    load, loaded = UNet.from_pretrained, []
    monkeypatch.setattr(UNet, "from_pretrained", lambda place: (loaded.append(place), load(place))[1])
    assert evaluated(capsys, *score) == first  # what is finished is not trained again
    assert [place.name for place in loaded] == ["fold-0", "fold-1"], "each network is loaded once"
    assert contents(tmp_path / "runs") == before
    others = tmp_path / "elsewhere" / "mine"  # of the same name
    for number, letter in enumerate(LETTERS, start=31):
        files = {f"images/eye {letter}.png": photograph(number), f"labels/eye {letter}.png": tree(number)}
        write_files(others, files)
    message = refused(capsys, "evaluate", "--data", others, *score[2:])
    assert "were trained on other photographs" in message and "--runs" in message
    assert "k=9" in refused(capsys, "evaluate", "--data", own, "--folds", 9, *score[4:])
    assert "networks are trained" not in capsys.readouterr().err


# ---------------------------------------------------------------------- predict


def test_predict_writes_maps_of_the_photographs_own_size(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    wide = photograph(5, (80, 90))
    Image.fromarray(photograph(3)).save(tmp_path / "in" / "left.PNG")
    Image.fromarray(wide).save(tmp_path / "right.tif")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    paths = (tmp_path / "in", tmp_path / "right.tif", tmp_path / "in" / "left.PNG")  # one of them twice
    assert done("predict", *paths, "--out", tmp_path / "out", "--weights", run, "--tta") == 0
    names = {f"{name}_{kind}.png" for name in ("left", "right") for kind in ("vessels", "probability")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {RECORD, "summary.csv"}

    expected = segment(UNet.from_pretrained(run), wide, tta=True)
    vessels = np.asarray(Image.open(tmp_path / "out" / "right_vessels.png"))
    assert vessels.dtype == np.uint8
    np.testing.assert_array_equal(vessels, expected.vessels * np.uint8(255))
    probability = np.asarray(Image.open(tmp_path / "out" / "right_probability.png"))
    assert probability.shape == (80, 90) and probability.max() > 255
    np.testing.assert_allclose(probability / 65535, expected.probability, atol=1e-5)
    shown = capsys.readouterr().out
    share = expected.vessels.sum() / expected.fov.sum()
    assert shown.count("\n") == 3 + shown.count(": poor: ") and "2 of 2 photographs are predicted" in shown
    assert f"right.tif: {share:.1%} of the field of view is vessel" in shown


def test_a_threshold_given_is_the_one_used(own, run, tmp_path):
    for threshold in (0, 1):
        out = tmp_path / f"{threshold}"
        predict = ("predict", own / "images" / "eye a.png", "--out", out, "--weights", run)
        assert done(*predict, "--threshold", threshold) == 0
        assert np.asarray(Image.open(out / "eye a_vessels.png")).any() == (threshold == 0)


def test_what_cannot_be_read_is_named_and_the_others_go_on(own, run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(photograph(3)).save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "in" / "black.png")
    (tmp_path / "empty").mkdir()
    paths = (tmp_path / "in", tmp_path / "empty", tmp_path / "nowhere.png")
    assert done("predict", *paths, "--out", tmp_path / "out", "--weights", run) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("drive-unet: ") for line in lines)
    for name in ("bad.png", "black.png", "empty", "nowhere.png"):
        assert sum(name in line for line in lines) == 1, lines
    assert len(lines) == 4
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert "nowhere" in refused(capsys, "predict", tmp_path / "nowhere", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_predict_never_writes_over_an_input_or_its_own_output(run, tmp_path, capsys):
    for folder, names in (("one", ["eye", "left"]), ("two", ["Eye", "right"])):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(photograph(3)).save(tmp_path / folder / f"{name}.bmp")
    out = tmp_path / "out"
    assert done("predict", tmp_path / "one", tmp_path / "two", "--out", out, "--weights", run) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("would both be written" in line and "neither" in line for line in lines)
    assert {path.name for path in pictures(out)} == {
        f"{name}_{kind}.png" for name in ("left", "right") for kind in ("vessels", "probability")
    }
    rows = summary(out)
    assert [row["status"] for row in rows] == ["failed", "failed", "done", "done"]
    assert "would both" in rows[0]["reason"] and rows[0]["photograph"].endswith("one/eye.bmp")

    predict = ("predict", tmp_path / "one", "--out", tmp_path / "one", "--weights", run)
    assert done(*predict) == 0
    before = pictures(tmp_path / "one")
    capsys.readouterr()
    assert done(*predict) == 0  # the first run's files are known as such
    assert "eye_vessels.png, left_probability.png" in (shown := capsys.readouterr().err)
    assert shown.count("\n") == 1 and "written by this command before" in shown
    assert pictures(tmp_path / "one") == before
    photographed = tmp_path / "one" / "left_vessels.png"
    photographed.unlink()
    Image.fromarray(photograph(3)).save(photographed)  # a photograph of this name, named as such
    capsys.readouterr()
    assert done(*predict[:2], photographed, *predict[2:]) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert "left.bmp would be predicted into" in shown and "which is a photograph" in shown
    file = tmp_path / "two" / "right.bmp"
    assert "is a file" in refused(capsys, "predict", file, "--out", file, "--weights", run)


def test_hand_labels_named_as_predictions_are_never_replaced(own, run, tmp_path, capsys):
    labels = tmp_path / "labels"
    labels.mkdir()
    grey(255)(tree(21)).save(labels / "eye b_vessels.png")  # not of the first photograph
    before = contents(labels)
    predict = ("predict", own / "images", "--weights", run, "--out", labels)
    assert "eye b_vessels.png exists, and nothing says that this command wrote" in refused(capsys, *predict)
    assert contents(labels) == before
    assert done(*predict, "--overwrite") == 0
    assert len(pictures(labels)) == 8 and contents(labels) != before
    assert done(*predict) == 0  # the same again is no loss


def test_predictions_are_replaced_only_for_the_same_photograph_weights_and_settings(run, tmp_path, capsys):
    photographs, out, other = tmp_path / "in", tmp_path / "out", tmp_path / "other.safetensors"
    photographs.mkdir()
    Image.fromarray(photograph(3)).save(photographs / "eye.png")
    UNet(widths=(8, 8)).save_pretrained(other)
    predict = ("predict", photographs, "--out", out)
    assert done(*predict, "--weights", run) == 0
    before = contents(out)
    assert done(*predict, "--weights", run) == 0
    assert contents(out) == before
    assert "differs in weights:" in refused(capsys, *predict, "--weights", other)
    assert "differs in flips:" in refused(capsys, *predict, "--weights", run, "--tta")
    assert "differs in threshold:" in refused(capsys, *predict, "--weights", run, "--threshold", 0.1)
    Image.fromarray(photograph(4)).save(photographs / "eye.png")
    assert "differs in photograph:" in refused(capsys, *predict, "--weights", run)
    Image.fromarray(photograph(3)).save(photographs / "eye.png")
    grey(255)(tree(3)).save(out / "eye_vessels.png")  # corrected by hand
    assert "eye_vessels.png exists, and was changed" in refused(capsys, *predict, "--weights", run)
    assert contents(out)[Path("eye_probability.png")] == before[Path("eye_probability.png")]

    (out / "eye_vessels.png").unlink()
    with (out / RECORD).open("a") as record:
        record.write('{"file": "eye_')  # the computer was switched off
    assert done(*predict, "--weights", run) == 0
    assert pictures(out) == {name: before[name] for name in pictures(out)}
    (out / RECORD).write_text("my notes")
    assert f"{RECORD} is no record" in refused(capsys, *predict, "--weights", run)


def test_labels_in_a_folder_named_mask_are_taken_for_no_field_of_view(run, tmp_path, capsys):
    files = {"images/a.png": photograph(3), "mask/a.png": tree(3)}
    write_files(tmp_path, files)
    assert done("predict", tmp_path / "images", "--out", tmp_path / "out", "--weights", run) == 0
    assert "(found in it, for " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("[enforce fail at alloc] DefaultCPUAllocator:\n can't allocate memory"), "not enough"),
        (MemoryError(), "not enough memory"),
        (KeyError("surprise"), "KeyError: 'surprise' (--debug"),
    ],
)
def test_a_photograph_that_breaks_is_a_line_and_the_others_go_on(
    own, run, tmp_path, monkeypatch, capsys, error, told
):
    prepare = Segmenter.prepare

    def breaks(self, image, fov=None):
        if (image == photograph(22)).all():
            raise error
        return prepare(self, image, fov)

    monkeypatch.setattr(Segmenter, "prepare", breaks)
    predict = ("predict", own / "images", "--weights", run, "--out")
    assert f"eye b.png: {told}" in refused(capsys, *predict, tmp_path / "out")
    assert len(pictures(tmp_path / "out")) == 6
    assert done(*predict, tmp_path / "again", "--debug") == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "in breaks" in shown and "eye b.png" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_any_error_is_a_line_and_debug_shows_where(command, monkeypatch, capsys):
    def breaks(options):
        raise AssertionError

    monkeypatch.setattr(command_line, "_later", lambda *names: breaks)
    needed = {"train": ["--out", "x"], "predict": ["x", "--out", "y"], "synthesize": ["x"]}
    needed = (needed | {"audit": ["x"], "submit": ["x"]}).get(command, [])
    assert "AssertionError (--debug shows where)" in refused(capsys, command, *needed)
    assert done(command, *needed, "--debug") == 1
    shown = capsys.readouterr().err
    assert "in breaks" in shown and shown.splitlines()[-1].startswith("drive-unet: ")


def test_masks_are_used_and_checked(drive, run, tmp_path, capsys):
    photographs, masks = drive / "test" / "images", drive / "test" / "mask"
    out = tmp_path / "out"
    predict = ("predict", photographs / "01_test.tif", photographs / "02_test.tif", "--weights", run)
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    inside = disc() & (np.arange(SIZE[1]) < 30)
    for name in ("01_test_mask", "2"):
        grey(255)(inside).save(narrow / f"{name}.png")
    assert done(*predict, "--out", out, "--mask", narrow) == 0
    for name in ("01", "02"):
        probability = np.asarray(Image.open(out / f"{name}_test_probability.png"))
        assert probability[inside].any() and not probability[~inside].any()
    assert "differs in mask" in refused(capsys, *predict, "--out", out, "--mask", masks)
    assert done(*predict, "--out", out, "--mask", masks, "--overwrite") == 0
    assert done(*predict, "--out", tmp_path / "beside") == 0  # the masks beside them
    assert pictures(tmp_path / "beside") == pictures(out)

    capsys.readouterr()
    grey(255)(disc((30, 30))).save(narrow / "2.png")
    assert "2.png is 30x30" in refused(capsys, *predict, "--out", tmp_path / "half", "--mask", narrow)
    assert len(pictures(tmp_path / "half")) == 2  # the other one's
    (narrow / "2.png").unlink()
    assert "lacks the masks of 02_test.tif" in refused(capsys, *predict, "--out", out, "--mask", narrow)
    assert "is no folder" in refused(capsys, *predict, "--out", out, "--mask", tmp_path / "none")


def test_unknown_weights_and_devices(own, run, tmp_path, capsys):
    predict = ("predict", own / "images", "--out", tmp_path / "out")
    assert "a packaged name" in refused(capsys, *predict, "--weights", "nonsense")
    assert "--device warp cannot be used" in refused(capsys, *predict, "--weights", run, "--device", "warp")
    assert not (tmp_path / "out").exists()


def test_default_is_a_name_of_weights(own, tmp_path):
    predict = ("predict", own / "images" / "eye a.png")
    for number, weights in enumerate(([], ["--weights", "default"])):
        assert done(*predict, "--out", tmp_path / f"{number}", *weights) == 0
    assert pictures(tmp_path / "0") == pictures(tmp_path / "1")


# ---------------------------------------------------------------------- synthesize


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthesized") / "two eyes"
    assert done("synthesize", folder, "--images", 2, "--seed", 1, "--workers", 2) == 0
    return folder


def test_synthesize_paints_what_the_seed_says(synthesized):
    names = {path.relative_to(synthesized).as_posix() for path in synthesized.rglob("*.*")}
    folders = "images labels fov second_observer arteries_veins centreline calibre".split()
    pictures = {f"{folder}/{number:06d}.png" for folder in folders for number in (1, 2)}
    assert names == pictures | {"eyes/000001.json", "eyes/000002.json", "manifest.json"}
    eye = paint(image_seed(1, PLAIN + 2))
    assert np.array_equal(np.asarray(Image.open(synthesized / "images" / "000002.png")), eye.image)
    assert np.array_equal(np.asarray(Image.open(synthesized / "labels" / "000002.png")) > 0, eye.vessels)


def test_synthesize_says_where_the_photographs_are_and_what_to_do_with_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(painting, "paint", lambda seed: paint(seed, (73, 71)))
    folder = tmp_path / "my eyes"
    folder.mkdir()  # empty
    assert done("synthesize", folder, "--images", 3) == 0
    shown = capsys.readouterr().out
    assert f"3 painted photographs with labels are in {folder}" in shown
    assert f"drive-unet train --data '{folder}' --out RUN" in shown
    assert len(list((folder / "labels").iterdir())) == 3


def test_an_interrupted_synthesize_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    painted = []

    def interrupted(seed):
        if len(painted) == 2:
            raise KeyboardInterrupt
        painted.append(seed)
        return paint(seed, (73, 71))

    monkeypatch.setattr(painting, "paint", interrupted)
    synthesize = ("synthesize", tmp_path / "eyes", "--images", 3, "--workers", 1)
    assert done(*synthesize) == 130
    assert "The same command goes on with the eyes that are finished" in capsys.readouterr().err
    assert "not of seed 1" in refused(capsys, *synthesize, "--seed", 1)
    painted.clear()
    assert done(*synthesize) == 0
    assert len(painted) == 1 and len(list((tmp_path / "eyes" / "labels").iterdir())) == 3
    painted.clear()
    assert "--overwrite" in refused(capsys, *synthesize[:2], "--images", 1, "--seed", 1)
    assert done(*synthesize[:2], "--images", 1, "--seed", 1, "--overwrite") == 0
    assert [path.name for path in (tmp_path / "eyes" / "labels").iterdir()] == ["000001.png"]


def test_synthesize_never_writes_over_anything(synthesized, capsys):
    before = contents(synthesized)
    for arguments in ((synthesized,), (synthesized, "--images", 1, "--seed", 2)):
        message = refused(capsys, "synthesize", *arguments)
        assert "two eyes exists and is not an empty folder; name a new folder" in message
    assert contents(synthesized) == before
    assert [path.name for path in synthesized.parent.iterdir()] == [synthesized.name]


def test_what_was_synthesized_can_be_scored_and_learned_from(synthesized, run, tmp_path, capsys):
    scored = evaluated(capsys, "--data", synthesized, "--weights", run)
    assert [row["name"] for row in scored["per_image"]] == ["000001", "000002"]
    assert guard(scored) is None
    assert 0 < scored["auc"] <= 1
    assert 0 <= scored["protocols"]["inside_fov"]["vessels"]["sensitivity, arteries"] <= 1
    train = ("train", "--preset", "tiny", "--data", synthesized, "--out", tmp_path / "run", "--steps", 1)
    assert done(*train) == 0
    assert "trained on 2 photographs, two eyes: 000001 and 000002" in capsys.readouterr().out
    for name in ("labels", "second_observer"):  # as if predicted
        assert done("evaluate", synthesized / name, "--data", synthesized, "--json") == 0
        scored = json.loads(capsys.readouterr().out)
        assert (scored["dice"] == 1) == (name == "labels")
