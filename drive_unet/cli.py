"""The command line: ``drive-unet demo`` makes the whole trip in the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from drive_unet import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"drive-unet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndrive-unet: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drive-unet", description="Segment blood vessels in retinal photographs with a U-Net."
    )
    parser.add_argument("--version", action="version", version=f"drive-unet {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="data, a short training, scores and figures, in about two minutes on two cores",
        description="Make the whole trip: data, a short training, scores as a table, a folder with figures.",
    )
    demo.add_argument(
        "--data",
        metavar="DIR",
        help="DRIVE as downloaded (folder or zips), or 'embedded'; by default $DRIVE_UNET_DATA, "
        "then data/DRIVE, then the embedded synthetic photographs",
    )
    demo.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("drive-unet-demo"), help="default: %(default)s"
    )
    demo.add_argument(
        "--steps", metavar="N", type=int, default=240, help="training steps (default: %(default)s)"
    )
    demo.add_argument("--seed", metavar="N", type=int, default=0, help="default: %(default)s")
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> None:
    # Imported here, so that --help and a typing error answer at once.
    import matplotlib
    import torch

    matplotlib.use("Agg")
    from skimage.data import retina

    from drive_unet import UNet, compare, evaluate, evaluate_second_observer, fit, load_drive, plots, segment
    from drive_unet.inference import predict_all

    if options.steps < 1:
        raise ValueError(f"--steps {options.steps}: at least one step is needed")
    out: Path = options.out
    drive = load_drive(options.data, seed=options.seed)
    print(drive.describe())
    out.mkdir(parents=True, exist_ok=True)
    plots.use_style()

    torch.manual_seed(options.seed)
    model = UNet()
    run = fit(
        model,
        drive.train,
        drive.validation,
        steps=options.steps,
        validate_every=60,
        seed=options.seed,
        out=out,
    )
    print(run)

    scored = drive.evaluation
    probabilities = predict_all(model, scored, progress=True)
    result = evaluate(probabilities, scored, threshold=model.threshold, name="U-Net, this run")
    rows = [result]
    if (observer := evaluate_second_observer(scored)) is not None:
        rows.append(observer)
    print(compare(rows))
    result.to_csv(out / "scores.csv")

    order = sorted(range(len(scored)), key=lambda index: result.per_image[index]["Dice"])
    figures = {"data": plots.show_sample(drive.train[0]), "training": run.plot()}
    for name, index in (("worst", order[0]), ("best", order[-1])):
        sample = scored[index]
        inside = probabilities[index] * sample.fov[0].numpy()  # the network was never trained outside
        figures[name] = plots.visualize_segmentation(
            sample.image, sample.vessels, inside, threshold=model.threshold
        )
    photograph = retina()
    found = segment(model, photograph)
    figures["another_camera"] = plots.hero(photograph, found.vessels)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png")
    print(f"{len(figures)} figures, scores.csv and the checkpoint are in {out}")
