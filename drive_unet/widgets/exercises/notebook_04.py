"""The exercises of notebook 04, training."""

from __future__ import annotations

import math

import torch

from drive_unet.losses import bce_loss
from drive_unet.widgets.exercises.checking import Exercise, answered, near


def _focal(function) -> bool | str:
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 1, 5, 4), (2, 1, 6, 6)):
        logits = (3 * torch.randn(shape, generator=generator)).requires_grad_()
        vessels = (torch.rand(shape, generator=generator) < 0.3).to(torch.uint8)
        fov = (torch.rand(shape, generator=generator) < 0.7).to(torch.uint8)
        given = answered(function(logits, vessels, fov))
        right = torch.where(vessels == 1, torch.sigmoid(logits), torch.sigmoid(-logits))
        charge = -(1 - right).square() * right.log()
        expected = (charge * fov).sum() / fov.sum()
        if given.shape != ():
            return f"it gives a tensor of shape {tuple(given.shape)} instead of one number"
        if torch.isclose(given, charge.mean(), rtol=1e-4):
            return "it counts pixels outside the field of view"
        if torch.isclose(given, bce_loss(logits, vessels, fov), rtol=1e-4):
            return "that is cross-entropy itself"
        if not torch.isclose(given, expected, rtol=1e-4):
            return f"it gives {given.item():.4f} where {expected.item():.4f} was expected"
        given.backward()
        if logits.grad is None or not logits.grad.abs().sum() > 0:
            return "no gradient reaches the logits"
    return True


EXERCISES = {
    "04-1": Exercise(
        near(-(math.log(0.25) + 3 * math.log(0.75)) / 4, 0.002),
        "the charge is -log of what the right answer was given: p for vessel, 1 - p elsewhere; then the mean",
    ),
    "04-2": Exercise(_focal, "q is sigmoid(logits) where there is a vessel, sigmoid(-logits) elsewhere"),
    "04-3": Exercise(
        lambda rate: 4e-2 <= rate <= 0.8,
        "plot the losses over the rates, with plt.semilogx; where do they turn?",
    ),
}
