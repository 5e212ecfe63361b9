"""The command line: its commands, their options and help, and how errors are told."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from drive_unet import __version__
from drive_unet.commands import threads  # noqa: F401 (before PyTorch: it looks what is idle)
from drive_unet.commands.faults import complain, in_a_line
from drive_unet.data.layouts import PUBLISHED

_PUBLISHED = [layout.name for layout in PUBLISHED]
DATA = (
    f"{', '.join(_PUBLISHED[:-1])} or {_PUBLISHED[-1]} as downloaded (folder or zips; other archives "
    "unpacked), 'embedded', or a folder of your own with images/ and labels/, and fov/ or mask/ and "
    "second_observer/ if you have any; by default $DRIVE_UNET_DATA, then data/DRIVE, then the embedded "
    "painted photographs"
)
WEIGHTS = "packaged weights by name, a .safetensors file, or the folder of a run (default: default)"
DEVICE = "such as cpu, cuda, cuda:1 or mps; by default cuda where there is one, else cpu"
FLIPS = "average over four flips, the two mirror images a quarter larger: better, up to five times the work"
OVERWRITE = "replace files in --out that were not written by this command for the same input and settings"
OUTPUTS = ("vessels", "probability", "overlay", "fov", "centreline")
THRESHOLD = "probability at and above which a pixel is vessel, 0 to 1; by default the network's own"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that no encoding knows is told as well as it can be
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _told  # type: ignore[assignment]  # it needs less than it is given
            return options.run(options) or 0
    except KeyboardInterrupt as stopped:
        print(f"\n{' '.join(['drive-unet: interrupted', *map(str, stopped.args)])}", file=sys.stderr)
        return 130
    except Exception as error:
        complain(in_a_line(error), error, options.debug)
        return 1


def _told(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Show a warning of the package as a line of its own, and others as Python does."""
    text = " ".join(str(message).split())
    if category is UserWarning:
        complain(text)
    else:
        print(warnings.formatwarning(message, category, *where[:2]), file=sys.stderr, end="")


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="drive-unet",
        description="Segment blood vessels in retinal photographs with a U-Net. Not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"drive-unet {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    adders = (_add_demo, _add_check_data, _add_train, _add_evaluate, _add_audit, _add_submit, _add_predict)
    for add in (*adders, _add_synthesize):
        add(commands)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def _add_demo(commands: argparse._SubParsersAction) -> None:
    demo = commands.add_parser(
        "demo",
        help="data, a short training, scores and figures, in about two minutes on two cores",
        description="Make the whole trip: data, a short training, scores as a table, a folder with figures.",
    )
    demo.add_argument("--data", metavar="DIR", help=DATA)
    demo.add_argument(
        "--out", metavar="DIR", type=_path, default=Path("drive-unet-demo"), help="default: %(default)s"
    )
    demo.add_argument(
        "--steps", metavar="N", type=_from(1), default=240, help="training steps (default: %(default)s)"
    )
    demo.add_argument("--seed", metavar="N", type=_from(0), default=0, help="default: %(default)s")
    demo.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    demo.set_defaults(run=_later("demo"))


def _add_check_data(commands: argparse._SubParsersAction) -> None:
    check = commands.add_parser(
        "check-data",
        help="say what a copy of a dataset is, what is wrong with it, and what to do",
        description="Recognise a copy of a dataset by counts, names, sizes and checksums of decoded pixels, "
        "and check it file by file. Exit code: 0 fine, 1 usable with warnings, 2 unusable.",
    )
    check.add_argument("folder", metavar="DIR", nargs="?", help=DATA)
    check.add_argument("--json", action="store_true", help="print JSON instead of a page")
    check.set_defaults(run=_later("check_data"))


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train",
        help="train on DRIVE or on labelled photographs of your own",
        description="Train by a preset on all labelled training photographs, or on all but one fold of them.",
    )
    train.add_argument("--data", metavar="DIR", help=DATA)
    train.add_argument(
        "--preset",
        metavar="NAME",
        default="laptop",
        help="laptop (ten minutes on two CPU cores), gpu (meant for a minute on one GPU) or best (two "
        "trainings, their weights averaged); default: %(default)s",
    )
    train.add_argument(
        "--out",
        metavar="RUN",
        type=_path,
        required=True,
        help="folder for weights, checkpoint, log, table and curve; a run that is there is kept unless you "
        "say otherwise; after Ctrl-C it holds every step that was done",
    )
    earlier = train.add_mutually_exclusive_group()
    earlier.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, if there is one; with more --steps, also after its end",
    )
    earlier.add_argument("--overwrite", action="store_true", help="replace the run in --out, and begin anew")
    train.add_argument(
        "--start",
        metavar="W",
        help="fine-tuning: go on from these weights in place of the preset's; a packaged name, a file or a "
        "run's folder",
    )
    train.add_argument("--device", metavar="D", help=DEVICE)
    train.add_argument("--seed", metavar="N", type=_from(0), default=0, help="default: %(default)s")
    train.add_argument("--steps", metavar="N", type=_from(1), help="training steps; by default the preset's")
    train.add_argument(
        "--folds",
        metavar="K",
        type=_from(2),
        help="cross-validation: train K networks one after another, in RUN/fold-0, RUN/fold-1, ..., each "
        "without one fold, which it is scored on",
    )
    train.add_argument(
        "--fold",
        metavar="I",
        type=_from(0),
        help="of the --folds, hold out only this one, 0 to K - 1; in RUN itself",
    )
    train.add_argument(
        "--workers",
        metavar="N",
        type=_from(0),
        help="processes that prepare patches (default: up to 8 where there is a GPU, else 0)",
    )
    train.add_argument(
        "--mixed-precision", choices=("no", "fp16", "bf16"), help="by default what the device does best"
    )
    train.set_defaults(run=_later("train"))


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="score weights, or predictions made with any program, against the labels",
        description="Score weights, or a folder of predictions, inside the field of view, at native size, "
        "pixels pooled over the photographs.",
    )
    evaluate.add_argument(
        "predictions",
        metavar="PREDICTIONS",
        nargs="?",
        type=_path,
        help="folder of finished predictions, paired with the photographs by number or name: vessels white "
        "on black, or probabilities in grey of 8 or 16 bits; without it --weights are scored",
    )
    evaluate.add_argument("--data", metavar="DIR", help=DATA)
    evaluate.add_argument(
        "--weights",
        metavar="W",
        help=f"{WEIGHTS}; of a run of train --folds, each network is scored on its fold",
    )
    evaluate.add_argument(
        "--split", choices=("train", "test"), help="by default test if it has labels, else train"
    )
    evaluate.add_argument(
        "--threshold", metavar="T", type=_share, help=f"{THRESHOLD}, 0.5 for finished probabilities"
    )
    evaluate.add_argument(
        "--folds",
        metavar="K",
        type=_from(2),
        help="a row for each of K folds, and all photographs out of fold; without --weights, K networks are "
        "trained for it. This is the default where the test has no labels and the default weights were "
        "trained on all there is",
    )
    evaluate.add_argument(
        "--runs",
        metavar="DIR",
        type=_path,
        default=Path("drive-unet-folds"),
        help="where networks trained for --folds are kept, so that the same command goes on where it was "
        "stopped (default: %(default)s)",
    )
    evaluate.add_argument(
        "--preset",
        metavar="NAME",
        default="laptop",
        help="of the trainings for --folds; default: %(default)s",
    )
    evaluate.add_argument("--tta", action="store_true", help=FLIPS)
    evaluate.add_argument(
        "--against",
        metavar="B",
        help="other predictions or weights, scored on the same photographs; tells the difference, paired",
    )
    evaluate.add_argument("--device", metavar="D", help=DEVICE)
    evaluate.add_argument(
        "--report",
        metavar="FILE",
        type=_path,
        help="write a report as one HTML file that opens offline; a file that is there is kept, and nothing "
        "is computed, unless you say --overwrite",
    )
    evaluate.add_argument(
        "--csv",
        metavar="FILE",
        type=_path,
        help="write the scores photograph by photograph as CSV; as for --report",
    )
    evaluate.add_argument(
        "--overwrite", action="store_true", help="replace the files of --report and --csv, if there are any"
    )
    evaluate.add_argument(
        "--json",
        action="store_true",
        help="print JSON alone: dice, auc, ap, accuracy, sensitivity, specificity, mcc, cldice, iou and "
        "threshold as plain numbers; intervals, per_image, protocols, second_observer and guards beside them",
    )
    evaluate.set_defaults(run=_later("evaluate"))


def _add_audit(commands: argparse._SubParsersAction) -> None:
    audit = commands.add_parser(
        "audit",
        help="score predictions made with any program by the usual habits, and say what each adds",
        description="Score one set of predictions inside the field of view and by the other ways that papers "
        "and repositories use: a verdict first, then a row each, what it adds to each score and why.",
    )
    audit.add_argument(
        "predictions", metavar="PREDICTIONS", type=_path, help="folder of predictions, as for evaluate"
    )
    audit.add_argument("--data", metavar="DIR", help=DATA)
    audit.add_argument(
        "--split", choices=("train", "test"), help="by default test if it has labels, else train"
    )
    audit.add_argument(
        "--threshold",
        metavar="T",
        type=_share,
        help="where probabilities are cut; choose it before these photographs are seen. By default the one "
        "that drive-unet predict recorded, else 0.5",
    )
    audit.add_argument(
        "--report",
        metavar="FILE",
        type=_path,
        help="write a report as one HTML file that opens offline; a file that is there is kept, and nothing "
        "is computed, unless you say --overwrite",
    )
    audit.add_argument(
        "--overwrite", action="store_true", help="replace the file of --report, if there is one"
    )
    audit.add_argument("--json", action="store_true", help="print JSON instead of a table")
    audit.set_defaults(run=_later("audit"))


def _add_submit(commands: argparse._SubParsersAction) -> None:
    submit = commands.add_parser(
        "submit",
        help="pack predictions of the test photographs as a challenge takes them",
        description="Write a zip of black-and-white PNGs, named and sized as the test photographs, for the "
        "Grand Challenge of DRIVE; checked before it is written, and read back.",
    )
    submit.add_argument(
        "predictions", metavar="PREDICTIONS", type=_path, help="folder of predictions, as for evaluate"
    )
    submit.add_argument("--data", metavar="DIR", help=DATA)
    submit.add_argument("--threshold", metavar="T", type=_share, help="cut the probabilities here")
    submit.add_argument(
        "--out", metavar="FILE", type=_path, default=Path("submission.zip"), help="default: %(default)s"
    )
    submit.set_defaults(run=_later("submit"))


def _add_predict(commands: argparse._SubParsersAction) -> None:
    predict = commands.add_parser(
        "predict",
        help="segment photographs of any camera",
        description="Write NAME_vessels.png (0 and 255) and NAME_probability.png (16-bit grey, 0 to 65535) "
        "for every photograph, at its own size, and summary.csv with a row for each, also for those that "
        "failed. Reads what Pillow reads, 8 and 16 bits, and DICOM where pydicom is installed. "
        "Not a medical device: no diagnosis should rest on it.",
    )
    predict.add_argument(
        "paths", metavar="PATH", nargs="+", type=_path, help="photographs, or folders of them"
    )
    predict.add_argument("--out", metavar="DIR", type=_path, required=True, help="folder to write to")
    predict.add_argument(
        "--recursive",
        action="store_true",
        help="look into the folders inside folders too, and keep their tree in --out",
    )
    predict.add_argument("--weights", metavar="W", help=WEIGHTS)
    predict.add_argument("--tta", action="store_true", help=FLIPS)
    predict.add_argument("--threshold", metavar="T", type=_share, help=THRESHOLD)
    predict.add_argument(
        "--mask",
        metavar="DIR",
        type=_path,
        help="masks of the field of view, paired with the photographs by name or number; by default those in "
        "fov/ or mask/ beside images/, else the field of view is found in the photograph",
    )
    predict.add_argument(
        "--field-of-view",
        metavar="DEGREES",
        type=_positive,
        help="angle of the camera, 5 to 200, by which the scale is chosen; by default it is taken for 45, as "
        "DRIVE's",
    )
    predict.add_argument(
        "--outputs",
        metavar="KIND,...",
        type=_kinds,
        default="vessels,probability",
        help=f"what to write of each photograph: {', '.join(OUTPUTS)} (default: %(default)s)",
    )
    predict.add_argument(
        "--overlay", action="store_true", help="write NAME_overlay.png too: the photograph, vessels outlined"
    )
    predict.add_argument(
        "--measure",
        action="store_true",
        help="measure density, calibre, branching, tortuosity and fractal dimension, in summary.csv, in "
        "pixels and (_fov) in widths of the field of view; the 90 %% interval of the true number (_low, "
        "_high; the measured one may lie outside, where networks are biased), seven times the work, needs "
        "--tta and packaged weights",
    )
    predict.add_argument(
        "--micrometres-per-pixel",
        metavar="X",
        type=_positive,
        help="of the photographs, where it is known: noted beside the measurements, which are in pixels",
    )
    predict.add_argument("--device", metavar="D", help=DEVICE)
    predict.add_argument(
        "--batch",
        metavar="N",
        type=_from(1),
        default=1,
        help="photographs of one size that go through the network together; helps on a GPU (default: 1)",
    )
    again = predict.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="leave out what is in --out already, made of the same photograph by the same settings",
    )
    again.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    predict.set_defaults(run=_later("predict"))


def _add_synthesize(commands: argparse._SubParsersAction) -> None:
    synthesize = commands.add_parser(
        "synthesize",
        help="paint fundus photographs with exact labels, as many as you like",
        description="Write painted photographs into DIR: images, labels, fov, second_observer, arteries_veins"
        " (red, blue), centreline and calibre as PNG, eyes as JSON. train and evaluate take DIR as --data.",
    )
    synthesize.add_argument(
        "folder",
        metavar="DIR",
        type=_path,
        help="folder to write to; new or empty, filled completely or not; "
        "after an interruption the same command goes on",
    )
    synthesize.add_argument("--images", metavar="N", type=_from(1), default=40, help="default: %(default)s")
    synthesize.add_argument(
        "--seed",
        metavar="S",
        type=_from(0),
        default=0,
        help="the same seed gives the same photographs, and more of them go on from there; default: "
        "%(default)s",
    )
    synthesize.add_argument(
        "--workers",
        metavar="W",
        type=_from(1),
        help="threads that paint; no pixel depends on it (default: as many as cores, at most 8)",
    )
    synthesize.add_argument(
        "--overwrite",
        action="store_true",
        help="replace another painted set in DIR, or one left unfinished; never any other file",
    )
    synthesize.set_defaults(run=_later("synthesize"))


def _later(command: str) -> Callable[[argparse.Namespace], int | None]:
    """A command, imported when it runs, so that --help and a typing error answer at once."""
    return lambda options: import_module(f"drive_unet.commands.{command}").run(options)


def _from(least: int) -> Callable[[str], int]:
    """The type of whole numbers of at least this."""

    def number(text: str) -> int:
        if not text.strip().lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return int(text)

    return number


def _kinds(text: str) -> list[str]:
    """The type of kinds of outputs, with commas in between."""
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    if not kinds or (wrong := [kind for kind in kinds if kind not in OUTPUTS]):
        raise argparse.ArgumentTypeError(f"{', '.join(wrong) if kinds else 'nothing'} is none of {OUTPUTS}")
    return kinds


def _path(text: str) -> Path:
    """The type of paths, in which "~" stands for the home folder where the shell has left it."""
    if not text:
        raise argparse.ArgumentTypeError("a path is empty: is a variable of the shell unset?")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is in the home folder of nobody") from error


def _positive(text: str) -> float:
    """The type of numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _share(text: str) -> float:
    """The type of numbers in 0..1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value
