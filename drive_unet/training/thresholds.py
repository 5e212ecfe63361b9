"""The threshold that gives the best Dice on some photographs, of one pass or of four flips."""

from __future__ import annotations

from torch import nn

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.inference import predict_each
from drive_unet.metrics.streaming import Pool


def best_threshold(model: nn.Module, photographs: DRIVEDataset, *, tta: bool) -> tuple[float, float]:
    """Choose a threshold for a network on whole photographs.

    Args:
        model: the network.
        photographs: with labels; nothing is to be scored on them afterwards.
        tta: whether four flips are averaged. Their probabilities are more certain than those of one pass, so
            the threshold of one does not do for the other.

    Returns:
        The pooled Dice inside the field of view, and the threshold that gives it.
    """
    pixels = Pool()
    for index, probability in enumerate(predict_each(model, photographs, tta=tta)):
        pixels.update(probability, photographs.vessels[index], photographs.fovs[index])
    return pixels.best()
