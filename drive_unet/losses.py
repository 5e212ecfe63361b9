"""What training makes small: each loss counts only pixels inside the field of view.

Every loss is called as ``loss(logits, vessels, fov)``:

- ``logits``: (B, 1, H, W) float;
- ``vessels``: (B, 1, H, W), exactly {0, 1}, any dtype;
- ``fov``: (B, 1, H, W), exactly {0, 1}, any dtype; None counts every pixel;

and returns a scalar float tensor. Other shapes raise a ValueError: without their channel labels would be
spread over the whole batch, and the loss be another one without a word.

Ours rather than MONAI's, which know no field of view; that of clDice is tested against it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drive_unet.errors import MISFITS, DataError, in_one_line, is_out_of_memory

Loss = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


def bce_loss(logits: Tensor, vessels: Tensor, fov: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with logits, averaged over the pixels of the FOV; 0 where there is none.

    Example:
        >>> logits, vessels = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
        >>> round(float(bce_loss(logits, vessels)), 4)  # log 2: half sure of everything
        0.6931
    """
    fov = _weights(logits, vessels, fov)
    pixelwise = F.binary_cross_entropy_with_logits(
        logits.float(), vessels.to(logits.device).float(), reduction="none"
    )
    return (pixelwise * fov).sum() / fov.sum().clamp(min=1)


def dice_loss(logits: Tensor, vessels: Tensor, fov: Tensor | None = None, smooth: float = 1.0) -> Tensor:
    """One minus the soft Dice coefficient, pooled over the batch.

    Args:
        smooth: added to numerator and denominator (pixels), so that a batch without vessels has a loss.

    Source: Milletari, Navab, Ahmadi, "V-Net", 3DV 2016 (arXiv 1606.04797), here with a plain denominator.

    Example:
        >>> vessels = torch.tensor([[[[1.0, 0.0]]]])
        >>> round(float(dice_loss(100 * (2 * vessels - 1), vessels)), 4)
        0.0
    """
    fov = _weights(logits, vessels, fov)
    probability, vessels = torch.sigmoid(logits.float()) * fov, vessels.to(logits.device) * fov
    intersection = (probability * vessels).sum()
    return 1 - (2 * intersection + smooth) / (probability.sum() + vessels.sum() + smooth)


def cldice_loss(
    logits: Tensor, vessels: Tensor, fov: Tensor | None = None, iterations: int = 6, smooth: float = 1.0
) -> Tensor:
    """One minus the soft centreline Dice: does each skeleton lie inside the other's vessels?

    Args:
        iterations: erosions of the soft skeleton; at least the radius of the widest vessel, in pixels.
        smooth: added to numerators and denominators, in pixels.

    Source: Shit et al., "clDice, a novel topology-preserving loss function for tubular structure
    segmentation", CVPR 2021 (arXiv 2003.07311).

    Example:
        >>> vessels = torch.zeros(1, 1, 9, 9)
        >>> vessels[..., 4, :] = 1
        >>> round(float(cldice_loss(100 * (2 * vessels - 1), vessels)), 4)
        0.0
    """
    fov = _weights(logits, vessels, fov)
    probability, vessels = torch.sigmoid(logits.float()) * fov, vessels.to(logits.device) * fov
    predicted_skeleton = soft_skeleton(probability, iterations)
    with torch.no_grad():
        skeleton = soft_skeleton(vessels, iterations)
    precision = ((predicted_skeleton * vessels).sum() + smooth) / (predicted_skeleton.sum() + smooth)
    sensitivity = ((skeleton * probability).sum() + smooth) / (skeleton.sum() + smooth)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def soft_skeleton(image: Tensor, iterations: int = 6) -> Tensor:
    """A differentiable skeleton by repeated minimum and maximum pooling.

    Args:
        image: (B, 1, H, W) float, 0..1; on exact masks the result is a skeleton of about one pixel.
        iterations: erosions, in pixels.

    Returns:
        (B, 1, H, W) float, 0..1.
    """
    skeleton = F.relu(image - _open(image))
    for _ in range(iterations):
        image = _erode(image)
        ridge = F.relu(image - _open(image))
        skeleton = skeleton + F.relu(ridge - skeleton * ridge)
    return skeleton


def combine(**weights: float) -> Loss:
    """A weighted sum of losses by name: ``combine(bce=1, dice=0.5, cldice=0.2)``.

    Raises:
        ValueError: for a name that is none of ``bce``, ``dice``, ``cldice``, if none is given, or for a
            weight that is not 0 or more.

    Example:
        >>> loss = combine(bce=1, dice=0.5)
        >>> loss.description
        '1 bce + 0.5 dice'
        >>> loss(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)).shape
        torch.Size([])
    """
    unknown = sorted(set(weights) - set(LOSSES))
    if unknown or not weights:
        raise ValueError(
            f"unknown loss {', '.join(unknown) or '(none given)'}; choose from {', '.join(LOSSES)}"
        )
    if not all(0 <= weight < float("inf") for weight in weights.values()):
        raise ValueError(f"weights of losses are numbers of 0 or more: {weights}")

    def combined(logits: Tensor, vessels: Tensor, fov: Tensor | None = None) -> Tensor:
        parts = (weight * LOSSES[name](logits, vessels, fov) for name, weight in weights.items())
        return reduce(torch.add, parts)

    words = " + ".join(f"{weight:g} {name}" for name, weight in sorted(weights.items()))
    combined.description = words  # type: ignore[attr-defined]  # mypy knows no notes on functions
    return combined


LOSSES: dict[str, Loss] = {"bce": bce_loss, "dice": dice_loss, "cldice": cldice_loss}


def refuse_no_loss(loss: object) -> None:
    """Raise a DataError for what cannot be called as ``loss(logits, vessels, fov)``."""
    if not callable(loss) or isinstance(loss, type):
        what = f"the class {loss.__name__}" if isinstance(loss, type) else repr(loss)
        raise DataError(
            f"{what} is no loss: give a function of logits, vessels and fov, such as combine(bce=1, dice=0.5)"
        )
    try:
        signature = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)
    except (TypeError, ValueError):  # of what is not written in Python
        return
    try:
        signature.bind(None, None, None)
    except TypeError as error:
        raise DataError(
            f"the loss takes {signature}, not logits, vessels and fov ({error}): wrap it, as in lambda "
            "logits, vessels, fov: own(logits, vessels.float())"
        ) from error


def loss_of(loss: Loss, logits: Tensor, vessels: Tensor, fov: Tensor | None) -> Tensor:
    """What a loss gives, of which it is made sure that a network can learn by it.

    Raises:
        DataError: if it is no single number with a gradient, or the loss fails.
    """
    try:
        value = loss(logits, vessels, fov)
    except DataError:
        raise
    except MISFITS as error:
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"the loss fails on logits {tuple(logits.shape)} of {logits.dtype} and vessels "
            f"{tuple(vessels.shape)} of {vessels.dtype} ({in_one_line(error)}): see what it expects; "
            "vessels.float() makes floats of {0, 1}"
        ) from error
    if not isinstance(value, Tensor):
        fault, remedy = type(value).__name__, "return the tensor that it is computed as, without item()"
    elif value.numel() != 1:
        fault, remedy = f"a tensor {tuple(value.shape)}", "take its mean inside the field of view"
    elif not value.is_floating_point():
        fault, remedy = f"a tensor of {value.dtype}", "compute it in floats"
    elif not value.requires_grad:
        fault, remedy = "a number without a gradient", "leave detach(), no_grad() and thresholds out of it"
    else:
        return value
    raise DataError(f"the loss gives {fault}, not one number that depends on the logits: {remedy}")


def _weights(logits: Tensor, vessels: Tensor, fov: Tensor | None) -> Tensor:
    """The field of view as weights; ValueError where labels or field of view are shaped otherwise."""
    for name, mask in (("vessels", vessels), ("fov", fov)):
        if mask is not None and mask.shape != logits.shape:
            raise ValueError(
                f"{name} of shape {tuple(mask.shape)} do not belong to logits of {tuple(logits.shape)}: all "
                "are (B, 1, H, W), so give a mask that is (B, H, W) its channel by mask[:, None]"
            )
    return torch.ones_like(logits, dtype=torch.float32) if fov is None else fov.to(logits.device).float()


def _erode(image: Tensor) -> Tensor:  # by a plus-shaped neighbourhood
    vertical = -F.max_pool2d(-image, (3, 1), stride=1, padding=(1, 0))
    horizontal = -F.max_pool2d(-image, (1, 3), stride=1, padding=(0, 1))
    return torch.minimum(vertical, horizontal)


def _open(image: Tensor) -> Tensor:
    return F.max_pool2d(_erode(image), 3, stride=1, padding=1)
