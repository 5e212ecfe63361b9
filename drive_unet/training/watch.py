"""What can be told early of a training that goes wrong, in words."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from drive_unet.data.pairing import listed
from drive_unet.data.sample import Sample
from drive_unet.errors import DataError

FIRST = 20  # steps whose labels are looked at
FROM = 60  # step from which predictions are looked at
EVERY = 10  # steps from one look to the next
LOOKS = 5  # in a row that must agree
PHOTOGRAPHS = "the photographs themselves"  # as where numbers that are not finite come from
_GAP = 0.05  # mean probability of vessels above that of all else; less is no distinction
_RISE = 2.0  # of the loss over its best, which is no noise any more


class Watch:
    """Looks at the steps of a training as they go, and warns once of each thing.

    Args:
        model: the network.
        lr: peak of the learning rate, for the words.
        names: the names of the photographs whose patches a step takes.
        accelerator: of the training, whose first process speaks.
    """

    def __init__(
        self, model: nn.Module, lr: float, names: Callable[[int], list[str]], accelerator: Accelerator
    ) -> None:
        self.model, self.lr, self.names, self.accelerator = model, lr, names, accelerator
        self.shares: list[float] = []
        self.looks: list[str] = []
        self.best = math.inf
        self.said: set[str] = set()

    def batch(self, batch: Sample, step: int) -> None:
        """Look at the patches of the first steps: at their shapes, and at what their labels hold.

        Raises:
            DataError: if they are empty, or have no labels; if labels or fields of view are not (B, 1, H, W)
                of the images (B, C, H, W), or labels not {0, 1}.
        """
        if step > FIRST:
            return
        image, vessels, sides = batch.image, batch.vessels, tuple(batch.image.shape[-2:])
        if vessels is None:
            raise DataError(f"the patches of step {step} have no labels: the transform must keep them")
        masks = [mask for mask in batch[1:3] if mask is not None]
        if 0 in sides or any(tuple(mask.shape[-2:]) != sides for mask in masks):
            shapes = [None if part is None else tuple(part.shape) for part in batch[:3]]
            raise DataError(
                f"the patches of step {step} have images {shapes[0]}, labels {shapes[1]} and fields of view "
                f"{shapes[2]}, empty or not of one size: the transform must cut and turn all alike"
            )
        for name, mask in (("labels", vessels), ("fields of view", batch.fov)):
            if mask is not None and (mask.ndim != 4 or mask.shape[1] != 1):
                raise DataError(
                    f"the {name} of step {step} are {tuple(mask.shape)}, not {(len(image), 1, *sides)}: keep "
                    "their one channel, and the transforms of colour images off them"
                )
        low, high = float(vessels.min()), float(vessels.max())
        if not bool(((vessels == 0) | (vessels == 1)).all()):
            blurred = "no transform may normalise or blur them"
            remedy = "divide them by 255" if (low, high) == (0, 255) else blurred
            raise DataError(
                f"the labels of step {step} ({listed(self.names(step))}) lie in {low:g} to {high:g} "
                f"instead of {{0, 1}}, with which losses turn negative and scores exceed 1: {remedy}"
            )
        self.shares.append(float(vessels.float().mean()))
        if len(self.shares) == FIRST and min(self.shares) == max(self.shares) in (0.0, 1.0):
            what = "vessel" if self.shares[0] else "background"
            self.say(
                "labels",
                f"the labels of the first {FIRST} steps are {what} at every pixel: look at them with "
                "drive_unet.check_data(FOLDER)",
            )

    def loss(self, value: Tensor, image: Tensor, step: int) -> float:
        """The mean loss of all processes, which so fail together.

        Raises:
            FloatingPointError: if it is not finite, with the first layer and the photographs of the step.
        """
        own = value.detach()
        shown = self.accelerator.reduce(own, "mean").item()
        if not math.isfinite(shown):
            place = (
                first_not_finite(self.model, image) if not math.isfinite(own.item()) else "another process"
            )
            remedy = f"try a lower lr than {self.lr:g} or mixed_precision='no'"
            if place == PHOTOGRAPHS:  # which are integers as they are stored
                remedy = "look at what the transform makes of them"
            raise FloatingPointError(
                f"the loss is {shown} at step {step}, first in {place}, with patches of "
                f"{listed(self.names(step))}; {remedy}"
            )
        return shown

    def progress(self, recent: float, step: int) -> None:
        """Look at the mean loss of the last twenty steps."""
        if step < FIRST:
            return
        if recent > _RISE * self.best and recent > self.best + 0.1:
            self.say(
                "diverges",
                f"the loss diverges: it was {self.best:.3g} and is {recent:.3g} at step {step}; the "
                f"learning rate {self.lr:g} is too high for this network, so try {self.lr / 10:g}",
            )
        self.best = min(self.best, recent)

    def predictions(self, logits: Tensor, batch: Sample, step: int) -> None:
        """Look at what the network calls vessel."""
        if step < FROM or step % EVERY or "predictions" in self.said:
            return
        with torch.no_grad():
            fov = torch.ones_like(batch.vessels, dtype=torch.bool) if batch.fov is None else batch.fov > 0
            inside = torch.sigmoid(logits.detach().float())[fov]
            truth = batch.vessels[fov] > 0
            called = (inside >= 0.5).float().mean().item()
            share = truth.float().mean().item() if len(truth) else 0.0
            if not 0.01 < share < 1:
                return  # patches that tell nothing
            gap = (inside[truth].mean() - inside[~truth].mean()).item()
        constant = "background" if called == 0 else "vessel" if called > 0.98 > share else ""
        self.looks.append(constant if not abs(gap) > _GAP else "")
        recent = self.looks[-LOOKS:]
        if len(recent) == LOOKS and recent[0] and len(set(recent)) == 1:
            self.say("predictions", f"after {step} steps {in_words(recent[0], gap, self.causes(logits))}")

    def causes(self, logits: Tensor) -> list[str]:
        """Why a network calls everything the same, the likeliest first."""
        flat = float(logits.detach().float().std()) < 1e-3
        return likely_causes(self.lr, flat, diverged="diverges" in self.said)

    def say(self, what: str, words: str) -> None:
        """Warn once of one thing."""
        if what not in self.said and self.accelerator.is_main_process:
            self.said.add(what)
            warnings.warn(words, stacklevel=4)


def in_words(constant: str, gap: float, causes: list[str]) -> str:
    """That everything is called the same, and why it may be so."""
    numbered = "; ".join(f"{number}. {cause}" for number, cause in enumerate(causes, start=1))
    return (
        f"the network calls everything {constant}, and vessels hardly differ from the rest (by {gap:+.3f} "
        f"in mean probability); likely causes, in this order: {numbered}; "
        "drive_unet.diagnose(model, dataset) looks closer"
    )


def likely_causes(lr: float | None, flat: bool, diverged: bool = False) -> list[str]:
    """What makes a network call everything the same, the likeliest first.

    Args:
        lr: the learning rate, where it is known.
        flat: whether its logits hardly differ from pixel to pixel.
        diverged: whether its loss rose far above the best one.
    """
    labels = (
        "labels that belong to other photographs, or show the field of view (drive_unet.check_data tells)"
    )
    rate = f"a learning rate that is too high{f', {lr:g}' if lr else ''}: "
    rate += "the loss diverged" if diverged else "units that died give one logit"
    few = "too few steps" + ("" if diverged else ", or a learning rate that is too low for them")
    scale = "photographs that the network is not given as it expects them (prepare and standardise them)"
    small = (
        "a network that sees too few pixels at once, or a loss in which the few vessel pixels weigh nothing"
    )
    return [rate, scale, labels, few, small] if flat or diverged else [few, labels, scale, rate, small]


def first_not_finite(model: nn.Module, image: Tensor) -> str:
    """Where numbers that are not finite come from first: the photographs, a weight, a layer, or the loss."""
    if not bool(torch.isfinite(image).all()):
        return PHOTOGRAPHS
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            return f"the weights {name}, which an earlier step spoiled"
    places: list[str] = []

    def look(name: str) -> Callable:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                places.append(f"the layer {name} ({type(module).__name__})")

        return hook

    layers = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look(name)) for name, module in layers]
    kept = {name: value.clone() for name, value in model.named_buffers()}
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
        for name, value in model.named_buffers():
            value.copy_(kept[name])
    return places[0] if places else "the loss itself, for every layer's output is finite"
