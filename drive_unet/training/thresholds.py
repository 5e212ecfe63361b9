"""The threshold that gives the best Dice on some photographs, of one pass or of four flips."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.inference import predict_each
from drive_unet.metrics.exact import choose_threshold, confusion


def best_threshold(
    model: nn.Module,
    photographs: DRIVEDataset,
    *,
    tta: bool,
    device: str | torch.device | None = None,
) -> tuple[float, float]:
    """Choose a threshold for a network on whole photographs.

    Args:
        model: the network.
        photographs: with labels; nothing is to be scored on them afterwards.
        tta: whether four flips are averaged. Their probabilities are more certain than those of one pass, so
            the threshold of one does not do for the other.
        device: where to compute; by default where the model is.

    Returns:
        The pooled Dice inside the field of view, and the threshold that gives it.
    """
    values, truth = [], []
    for index, probability in enumerate(predict_each(model, photographs, tta=tta, device=device)):
        inside = photographs.fovs[index]
        values.append(probability[inside])
        truth.append(photographs.vessels[index][inside])
    pooled = np.concatenate(values)[None], np.concatenate(truth)[None]
    threshold = choose_threshold(*pooled)
    return confusion(pooled[0] >= threshold, pooled[1]).dice, threshold
