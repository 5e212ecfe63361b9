"""Averages of networks: over the steps of a training, and over trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Model = TypeVar("Model", bound=nn.Module)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a network's weights and statistics, of which the network is the
    first.

    The first steps decay faster, so that the random start is soon forgotten.

    Args:
        model: the network; it is copied.
        decay: 0 to below 1, what a step leaves of the average before.
    """

    def average(mean: Tensor, value: Tensor, steps: Tensor | int) -> Tensor:
        keep = min(decay, (1 + float(steps)) / (10 + float(steps)))
        return torch.lerp(mean, value, 1 - keep) if mean.is_floating_point() else value

    return AveragedModel(model, avg_fn=average, use_buffers=True)


def mean_weights(models: Sequence[Model]) -> Model:
    """The first network with the mean of all networks' weights and statistics in it.

    Example:
        >>> first, second = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> expected = (first.weight + second.weight) / 2
        >>> bool(torch.isclose(mean_weights([first, second]).weight, expected))
        True
    """

    def average(mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        return mean + (value - mean) / (count + 1) if mean.is_floating_point() else mean

    mean = AveragedModel(models[0], avg_fn=average, use_buffers=True)
    for model in models:
        mean.update_parameters(model)
    models[0].load_state_dict(mean.module.state_dict())
    return models[0]
