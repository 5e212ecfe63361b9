"""Behind ``drive-unet demo``: the whole trip."""

from __future__ import annotations

import argparse
from pathlib import Path

from drive_unet.data.drive import load_drive
from drive_unet.evaluation.evaluator import compare, evaluate, evaluate_second_observer
from drive_unet.inference import predict_all, segment
from drive_unet.models import UNet
from drive_unet.training.loop import fit


def run(options: argparse.Namespace) -> None:
    """Make the whole trip: data, a short training, scores, figures."""
    import matplotlib
    import torch

    matplotlib.use("Agg")
    from skimage.data import retina

    from drive_unet import plots

    out: Path = options.out
    drive = load_drive(options.data, seed=options.seed)
    print(drive.describe())
    out.mkdir(parents=True, exist_ok=True)
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
    )
    print(run)

    scored = drive.held_out
    probabilities = predict_all(model, scored, progress=True)
    result = evaluate(probabilities, scored, threshold=model.threshold, name="U-Net, this run")
    rows = [result]
    if (observer := evaluate_second_observer(scored)) is not None:
        rows.append(observer)
    print(compare(rows))
    result.to_csv(out / "scores.csv")

    order = sorted(range(len(scored)), key=lambda index: result.per_image[index]["Dice"])
    figures = {"data": plots.show_sample(drive.training[0]), "training": run.plot()}
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
