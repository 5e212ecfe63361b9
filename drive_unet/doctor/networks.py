"""The training doctor: a page on a network and the data that it is to learn from."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.reading import solidity
from drive_unet.data.sample import Sample
from drive_unet.doctor.inspection import ERROR, NOTE, WARNING, Finding, worst_first
from drive_unet.errors import DataError
from drive_unet.losses import bce_loss
from drive_unet.metrics.exact import count
from drive_unet.models import copied, evaluating, logits_of, refuse_no_network
from drive_unet.preprocessing.prepare import standardise
from drive_unet.training.processes import callers_generators
from drive_unet.training.watch import first_not_finite, likely_causes

PHOTOGRAPHS = 4  # that are looked at
STEPS, SIDE = 60, 128  # of the attempt to learn one picture by heart, and of that picture, in pixels
BINS = 10
_SEES = 16  # pixels; a thick vessel and what is beside it take as many in DRIVE
_UPDATES = 200  # fewer are too few for any network here: the smallest useful budget is 240
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass
class Diagnosis:
    """What `diagnose` found: it prints itself as a page, and shows itself in a notebook.

    Attributes:
        findings: what is wrong, the worst first, and what to do.
        labels: how often each value, or range of values, is in the labels, as shares.
        label_share: of each photograph looked at, the share of its field of view that is vessel.
        probabilities: shares of vessel pixels and of all others in ten bins of probability, two rows.
        called: share of the pixels that is called vessel at the network's threshold.
        heart: Dice on one picture before and after it was to be learned by heart, the two losses, the steps.
        gradients: of each layer's weights the gradient's size over the weights' own.
        sweep: thresholds and the Dice that each gives, two rows.
        sees: how many pixels wide the square is that an output pixel depends on; None where it is larger
            than the picture tried.
        updates: training steps that the network has had, where it knows.
    """

    findings: list[Finding] = field(default_factory=list)
    labels: dict[str, float] = field(default_factory=dict)
    label_share: list[float] = field(default_factory=list)
    probabilities: np.ndarray | None = None
    called: float | None = None
    heart: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    sweep: np.ndarray | None = None
    sees: int | None = None
    updates: int | None = None

    def add(self, level: str, code: str, what: str, do: str) -> None:
        self.findings.append(Finding(level, code, what, do))

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong that was looked for."""
        return all(finding.level == NOTE for finding in self.findings)

    def __str__(self) -> str:
        lines = ["What is wrong" if not self.healthy else "Nothing is wrong that was looked for"]
        for number, finding in enumerate(self.findings, start=1):
            lines.append(f" {number}. {finding.level}: {finding.what}")
            if finding.do:
                lines.append(f"    to do: {finding.do}")
        if self.labels:
            parts = [f"{value} {share:.1%}" for value, share in list(self.labels.items())[:6]]
            lines.append(f"\nLabels: {', '.join(parts)}")
        if self.label_share:
            shares = ", ".join(f"{share:.1%}" for share in self.label_share)
            lines.append(f"Vessels in the field of view, by photograph: {shares}")
        if self.probabilities is not None:
            lines.append("\nProbabilities, from 0 on the left to 1 on the right")
            for name, row in zip(("vessels", "the rest"), self.probabilities, strict=True):
                lines.append(f"  {name:9} |{_bars(row)}|  mean {_mean(row):.2f}")
            lines.append(f"  called vessel at the network's threshold: {self.called:.1%} of the pixels")
        if self.sweep is not None:
            best = int(np.argmax(self.sweep[1]))
            lines.append(
                f"\nDice by threshold 0.05 to 0.95 |{_bars(self.sweep[1], 1.0)}|  best "
                f"{self.sweep[1, best]:.3f} at {self.sweep[0, best]:.2f}"
            )
        if self.heart:
            lines.append(
                f"\nOne picture by heart, {self.heart['steps']:g} steps: loss "
                f"{self.heart['loss before']:.3f} to {self.heart['loss after']:.3f}, Dice "
                f"{self.heart['before']:.2f} to {self.heart['after']:.2f}"
            )
        sees = "more pixels than were tried" if self.sees is None else f"{self.sees}x{self.sees} pixels"
        updates = "" if self.updates is None else f"; training steps so far: {self.updates}"
        lines.append(f"\nAn output pixel sees {sees}{updates}")
        if self.gradients:
            lines.append("Gradient over weight, by layer")
            for name, ratio in self.gradients.items():
                size = "none" if ratio != ratio else "0" if ratio == 0 else f"1e{np.log10(ratio):+.0f}"
                lines.append(f"  {size:6} {name}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def diagnose(model: nn.Module, dataset: Any, *, steps: int = STEPS, seed: int = 0) -> Diagnosis:
    """Look at a network and at the data that it is to learn from, and say what is wrong, and what to do.

    The labels and their values; the probabilities that the network gives to vessels and to all else; which
    threshold would serve; whether a copy of it can learn one picture by heart; the gradient that reaches each
    layer; how many pixels an output pixel depends on. Four photographs are looked at. Neither the network nor
    the caller's random generators are changed.

    Args:
        model: a network that maps (B, C, H, W) float to logits (B, 1, H, W).
        dataset: a `DRIVEDataset`, whose photographs are prepared and standardised as the network expects; or
            anything with length and index whose items are (image, vessels) or (image, vessels, fov), tensors
            (C, H, W) that are given to the network as they are.
        steps: of the attempt to learn one picture by heart; 0 leaves it out.
        seed: of that attempt.

    Returns:
        The page.

    Raises:
        DataError: if the dataset is empty, has no labels, its items are something else, or the network does
            not answer with logits of their size.
    """
    refuse_no_network(model)
    result = Diagnosis()
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    items = [_item(item, device) for item in _items(model, dataset)]
    with callers_generators():
        torch.manual_seed(seed)
        usable, probability = _labels(result, items), None
        with evaluating(model), torch.enable_grad():
            if _answers(result, model, items):
                _sees(result, model, items[0][0])
                probability = _predictions(result, model, items) if usable else None
                if usable and _learns(result, model):
                    _gradients(result, model, items[0])
                    if steps:
                        _by_heart(result, model, items[0], steps)
    notes = getattr(model, "notes", {}).get("training", {})
    if (words := str(notes.get("run", ""))).split(" steps")[0].isdigit():
        result.updates = int(words.split(" steps")[0])
    _judge(result, model, probability)
    result.findings = worst_first(result.findings)
    return result


# Image (1, C, H, W) as the network gets it, vessels and fov (1, 1, H, W).
Item = tuple[Tensor, Tensor, Tensor]


def _items(model: nn.Module, dataset: Any) -> list[Any]:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"the dataset is a {type(dataset).__name__}: give a DRIVEDataset, or pairs of tensors"
        )
    if not len(dataset):
        raise DataError("the dataset is empty: name the folder that holds the photographs")
    if isinstance(dataset, DRIVEDataset) and hasattr(model, "preprocessing"):
        dataset = dataset.subset(range(min(len(dataset), PHOTOGRAPHS)), dataset.transform)
        dataset = dataset.prepared(model.preprocessing)
    return [dataset[index] for index in range(min(len(dataset), PHOTOGRAPHS))]


def _item(item: Any, device: torch.device) -> Item:
    if not isinstance(item, Sequence) or not all(
        part is None or isinstance(part, Tensor) for part in item[:3]
    ):
        raise DataError(
            f"the dataset's items are {type(item).__name__}, not (image, vessels) or (image, vessels, fov) "
            "of tensors: give it a DRIVEDataset, or such items"
        )
    image, vessels, fov = (*item[:3], None, None)[:3]
    if vessels is None:
        raise DataError("the dataset has no vessel labels, without which nothing can be learned: add them")
    if image.ndim != 3 or vessels.ndim != 3 or image.shape[1:] != vessels.shape[1:]:
        raise DataError(
            f"image {tuple(image.shape)} and vessels {tuple(vessels.shape)} are not (C, H, W) of one size: "
            "transform both alike"
        )
    if any(part is not None and part.is_complex() for part in (image, vessels, fov)) or not image.numel():
        raise DataError(f"image {tuple(image.shape)}, vessels or fov are complex or empty: give real numbers")
    if fov is not None and fov.shape != (1, *image.shape[1:]):
        raise DataError(
            f"fov {tuple(fov.shape)} has not the form (1, H, W) of image {tuple(image.shape)}: transform "
            "both alike"
        )
    image, vessels = image.as_subclass(Tensor).to(device), vessels.as_subclass(Tensor).to(device)
    fov = torch.ones_like(image[:1]) if fov is None else fov.as_subclass(Tensor).to(device)
    if isinstance(item, Sample):
        image = standardise(image, fov, item.levels)
    return image[None].float(), vessels[None].float(), (fov[None] > 0).float()


def _answers(result: Diagnosis, model: nn.Module, items: list[Item]) -> bool:
    """Whether the network answers as it is asked to, with numbers; where not, nothing follows from them."""
    if not any(bool((part[2] > 0).any()) for part in items):
        raise DataError("the field of view is empty in each photograph, so nothing is learned: look at them")
    for number, (image, _, _) in enumerate(items):
        with torch.set_grad_enabled(number == 0):  # one tells whether there is a gradient
            logits = logits_of(model, image)
        if not bool(torch.isfinite(image).all() and torch.isfinite(logits).all()):
            what = f"numbers that are not finite come from {first_not_finite(model, image)}"
            result.add(ERROR, "not-finite", what, "look there; nothing else can be told before that")
            return False
    return True


def _learns(result: Diagnosis, model: nn.Module) -> bool:
    """Whether a training would change any weight."""
    if any(weight.requires_grad for weight in model.parameters()):
        return True
    what = "no weight of the network is to be trained: it has none, or requires_grad is False for all"
    result.add(ERROR, "frozen", what, "model.requires_grad_(True) thaws them")
    return False


def _labels(result: Diagnosis, items: list[Item]) -> bool:
    """Look at the labels; whether they are labels at all."""
    values = torch.cat([vessels.flatten() for _, vessels, _ in items]).cpu().numpy()
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) <= 6:
        for level, count in zip(levels.tolist(), counts.tolist(), strict=True):
            result.labels[f"{level:g}"] = count / len(values)
    else:
        counts, edges = np.histogram(values, bins=6)
        for count, low, high in zip(counts, edges, edges[1:], strict=False):
            result.labels[f"{low:.2f}..{high:.2f}"] = float(count / len(values))
    channels = items[0][1].shape[1]
    if channels != 1:
        what = f"the labels have {channels} channels, so a colour image's transform was done to them"
        do = "give them one channel, 1 where there is vessel, and normalise the photograph alone"
        result.add(ERROR, "label-channels", what, do)
    binary = set(levels.tolist()) <= {0.0, 1.0}
    if not binary:
        low, high = float(levels[0]), float(levels[-1])
        what = f"the labels lie in {low:.3g} to {high:.3g} instead of {{0, 1}}: no prediction can equal them"
        blurred = "leave normalising, resizing with smoothing and blurring off them"
        do = "divide them by 255" if (low, high) == (0.0, 255.0) else blurred
        result.add(ERROR, "label-values", what, do)
    if len(levels) == 1:
        what = f"the labels are {levels[0]:g} at every pixel"
        do = "look at the files with drive_unet.check_data(FOLDER)"
        result.add(ERROR, "label-constant", what, do)
    middle = (float(levels[0]) + float(levels[-1])) / 2
    if len(levels) > 1 and all(_solid(label[0, 0].cpu().numpy() > middle) for _, label, _ in items):
        corners = [label[0, 0, row, column] for _, label, _ in items for row in (0, -1) for column in (0, -1)]
        if all(corner > middle for corner in corners):
            code = "label-inverted"
            what = "the labels are 1 where there is no vessel, outside the eye as well"
            do = "turn them round: vessels are 1, and the background is 0"
        else:
            code = "label-is-fov"
            what = "the labels are one filled disc each: field-of-view masks, not vessels"
            do = "read DRIVE's 1st_manual, not mask (drive_unet.check_data tells which is which)"
        result.findings.insert(0, Finding(ERROR, code, what, do))
    vessel = middle if len(levels) > 1 else 0  # where there is one level, it is vessel if it is not 0
    result.label_share = [float((v[:, :1] > vessel)[f > 0].float().mean()) for _, v, f in items]
    return binary and channels == 1 and len(levels) == 2


def _solid(mask: np.ndarray) -> bool:
    """Whether a mask fills most of its bounding box and much of the frame, as a field of view does."""
    return bool(mask.mean() >= 0.3) and solidity(mask) > 0.6


def _predictions(result: Diagnosis, model: nn.Module, items: list[Item]) -> tuple[np.ndarray, np.ndarray]:
    """Histograms, what is called vessel, the sweep of thresholds; probabilities and truth of all pixels."""
    values, truth = [], []
    for image, vessels, fov in items:
        with torch.no_grad():
            probability = torch.sigmoid(model(image).float())
        values.append(probability[fov > 0].cpu().numpy())
        truth.append((vessels[fov > 0] > 0).cpu().numpy())
    value, true = np.concatenate(values), np.concatenate(truth)
    rows = [np.histogram(value[part], bins=BINS, range=(0, 1))[0] for part in (true, ~true)]
    result.probabilities = np.array([row / max(1, row.sum()) for row in rows])
    threshold = getattr(model, "threshold_single", 0.5)
    result.called = float((value >= threshold).mean())
    thresholds = np.linspace(0.05, 0.95, 19)
    result.sweep = np.array([thresholds, [_dice(value >= level, true) for level in thresholds]])
    return value, true


def _dice(called: np.ndarray, truth: np.ndarray) -> float:
    """Of pixels (N,) bool; 0 where there is no vessel at all."""
    dice = count(called, truth).dice
    return 0.0 if np.isnan(dice) else dice


def _gradients(result: Diagnosis, model: nn.Module, item: Item) -> None:
    """What reaches each layer's weights of one loss, over their own size."""
    image, vessels, fov = _crop(item)
    trained = copied(model).train()
    bce_loss(trained(image), vessels, fov).backward()
    for name, weight in trained.named_parameters():
        if weight.ndim > 1:  # layers, without their biases and normalisations
            grad = float("nan") if weight.grad is None else float(weight.grad.norm())
            result.gradients[name.removesuffix(".weight")] = grad / max(float(weight.detach().norm()), 1e-12)


def _by_heart(result: Diagnosis, model: nn.Module, item: Item, steps: int) -> None:
    """Train a copy on one picture, which any network that can learn at all learns by heart."""
    image, vessels, fov = _crop(item)
    pupil = copied(model).train()
    optimizer = torch.optim.Adam(pupil.parameters(), lr=3e-3)
    result.heart["steps"] = steps
    for step in range(steps + 1):
        logits = pupil(image).float()
        loss = bce_loss(logits, vessels, fov)
        if step in (0, steps):
            called, truth = (logits.detach() >= 0) & (fov > 0), vessels * fov > 0
            when = "after" if step else "before"
            result.heart[f"loss {when}"] = float(loss.detach())
            result.heart[when] = _dice(called.cpu().numpy(), truth.cpu().numpy())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _crop(item: Item) -> Item:
    """The square of the photograph that has most vessels in it, roughly."""
    image, vessels, fov = item
    high, wide = (min(SIDE, side) for side in vessels.shape[-2:])
    crowd = F.avg_pool2d(vessels * fov, (high, wide), stride=(max(1, high // 2), max(1, wide // 2)))
    row, column = divmod(int(crowd.flatten().argmax()), crowd.shape[-1])
    top, left = row * max(1, high // 2), column * max(1, wide // 2)
    window = (..., slice(top, top + high), slice(left, left + wide))
    return image[window], vessels[window], fov[window]


def _sees(result: Diagnosis, model: nn.Module, image: Tensor) -> None:
    """How large the square is that one output pixel depends on: where its gradient is not 0."""
    high, wide = (min(2 * SIDE, side) for side in image.shape[-2:])
    picture = torch.rand_like(image[..., :high, :wide]).requires_grad_()
    with torch.enable_grad():
        logits = model(picture)
    widths = []
    for shift in (0, 1):  # poolings look further to one side than to the other
        (grad,) = torch.autograd.grad(
            logits[0, 0, high // 2 + shift, wide // 2 + shift].sum(), picture, retain_graph=True
        )
        seen = (grad != 0).any(dim=1)[0]
        rows, columns = seen.any(dim=1).nonzero(), seen.any(dim=0).nonzero()
        if len(rows):
            widths.append(int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1)
    width = max(widths, default=0)
    result.sees = width if width < min(high, wide) else None


def _judge(result: Diagnosis, model: nn.Module, predicted: tuple[np.ndarray, np.ndarray] | None) -> None:
    """What follows from the numbers, the likeliest cause first."""
    add = result.add
    if result.sees is not None and result.sees < _SEES:
        what = f"an output pixel sees {result.sees}x{result.sees} pixels only, too few to tell a vessel from"
        add(WARNING, "sees-little", f"{what} an edge", "take a network with more poolings, such as UNet")
    if result.updates is not None and result.updates < _UPDATES:
        what = f"the network had {result.updates} training steps, where even a short one needs {_UPDATES}"
        do = "train longer; patches instead of whole photographs give more steps"
        add(WARNING, "few-steps", what, do)
    do = "look for units that died (a lower learning rate), layers out of use, or a cut graph"
    if bad := [name for name, ratio in result.gradients.items() if not ratio > 0]:
        add(ERROR, "no-gradient", f"no gradient reaches {', '.join(bad[:6])}", do)
    if bad := [name for name, ratio in result.gradients.items() if ratio > 1e3]:
        add(WARNING, "exploding", f"gradients explode in {', '.join(bad[:6])}", do)
    if predicted is None:
        return
    value, truth = predicted
    threshold = getattr(model, "threshold_single", 0.5)
    called = value >= threshold
    gap = float(value[truth].mean() - value[~truth].mean()) if truth.any() and not truth.all() else 0.0
    constant = "background" if not called.any() else "vessel" if called.mean() > 0.98 else ""
    best = int(np.argmax(result.sweep[1]))
    now, reached, level = _dice(called, truth), float(result.sweep[1, best]), float(result.sweep[0, best])
    learned = reached > 1.5 * _dice(np.ones_like(truth), truth)  # better than calling everything vessel
    if constant and not learned:
        causes = likely_causes(None, bool(value.std() < 1e-3))
        do = "; ".join(f"{number}. {cause}" for number, cause in enumerate(causes, start=1))
        what = f"everything is called {constant}, and vessels differ from the rest by {gap:+.3f} in mean"
        add(ERROR, f"all-{constant}", f"{what} probability", f"look, in this order, for {do}")
    elif learned and reached > now + 0.05:
        what = f"the threshold {threshold:.2f} gives a Dice of {now:.3f}, where {level:.2f} would give"
        do = "choose it on validation photographs (fit does, and drive_unet.training.best_threshold)"
        add(WARNING, "threshold", f"{what} {reached:.3f}", do)
    elif not learned:
        what = f"it has hardly learned: the best Dice at any threshold is {reached:.3f}"
        add(WARNING, "unlearned", what, "train it, or see what else is wrong")
    heart = result.heart
    if heart and heart["after"] < 0.6 and heart["loss after"] > 0.5 * heart["loss before"]:
        what = f"it cannot learn even one picture by heart (Dice {heart['after']:.2f})"
        do = "see whether labels and photograph belong together, then whether the network is large enough"
        add(WARNING, "cannot-learn", what, do)


def _bars(row: np.ndarray, top: float | None = None) -> str:
    top = top or max(float(np.max(row)), 1e-12)
    return "".join(_BARS[int(np.ceil(min(1.0, value / top) * (len(_BARS) - 1)))] for value in row)


def _mean(row: np.ndarray) -> float:
    return float((row * (np.arange(len(row)) + 0.5)).sum() / len(row))
