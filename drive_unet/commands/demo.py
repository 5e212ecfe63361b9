"""Behind ``drive-unet demo``: the whole trip."""

from __future__ import annotations

import argparse
from pathlib import Path

from drive_unet import __version__
from drive_unet.commands.threads import choose
from drive_unet.data.drive import load_drive
from drive_unet.evaluation.evaluator import compare, evaluate, evaluate_second_observer
from drive_unet.inference import predict_all, segment
from drive_unet.models import UNet
from drive_unet.outputs import Outputs
from drive_unet.training.checkpoints import BEFORE, BEST, LAST, written_into
from drive_unet.training.history import LOG
from drive_unet.training.loop import fit

SCORES = "scores.csv"
FIGURES = ("data", "training", "worst", "best", "another_camera")


def run(options: argparse.Namespace) -> None:
    """Make the whole trip: data, a short training, scores, figures."""
    import matplotlib
    import torch

    matplotlib.use("Agg")
    from skimage.data import retina

    from drive_unet import plots

    choose()
    out: Path = options.out
    outputs = Outputs(out, options.overwrite)
    drive = load_drive(options.data, seed=options.seed)
    made_of = {"steps": options.steps, "seed": options.seed, "version": __version__}
    made_of["data"] = [drive.training.identity, drive.validation.identity, drive.held_out.identity]
    outputs.check([BEST, LAST, BEFORE, LOG, SCORES, *(f"{name}.png" for name in FIGURES)], made_of)
    print(drive.describe())
    if options.overwrite:
        for name in (BEST, LAST, BEFORE, LOG):
            (out / name).unlink(missing_ok=True)
    with written_into(out):
        for name in (BEST, LAST, BEFORE, LOG):  # written by `fit`, more than once
            outputs.note(name, made_of)
    plots.use_style()

    torch.manual_seed(options.seed)
    model = UNet()
    run = fit(
        model,
        drive.training,
        drive.validation,
        steps=options.steps,
        validate_every=60,
        seed=options.seed,
        out=out,
        resume=True,  # the same demo, if it was interrupted or is asked for again; `check` refused any other
    )
    print(run)

    scored = drive.held_out
    probabilities = predict_all(model, scored, progress=True)
    threshold_from = "chosen on the validation photographs"
    result = evaluate(
        probabilities,
        scored,
        threshold=model.threshold_single,
        threshold_from=threshold_from,
        name="U-Net, this run",
    )
    rows = [result]
    if (observer := evaluate_second_observer(scored)) is not None:
        rows.append(observer)
    print(compare(rows))
    outputs.save(SCORES, made_of, lambda file: result.to_csv(file.name))

    order = sorted(range(len(scored)), key=lambda index: result.per_image[index]["Dice"])
    figures = {"data": plots.show_sample(drive.training[0]), "training": run.plot()}
    for name, index in (("worst", order[0]), ("best", order[-1])):
        sample = scored[index]
        figures[name] = plots.visualize_segmentation(
            sample.image, sample.vessels, probabilities[index], threshold=model.threshold_single
        )
    photograph = retina()
    figures["another_camera"] = plots.hero(photograph, segment(model, photograph).vessels)
    for name in FIGURES:
        outputs.save(f"{name}.png", made_of, figures[name].savefig)
    print(f"{len(figures)} figures, {SCORES} and the checkpoint are in {out}")
