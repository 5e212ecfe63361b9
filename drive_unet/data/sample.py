"""One photograph as a network gets it, and a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from drive_unet.errors import DataError

if TYPE_CHECKING:  # torchvision takes as long to import as PyTorch, and scoring files needs none of it
    from torchvision import tv_tensors

    from drive_unet.preprocessing.levels import Levels


class Sample(NamedTuple):
    """One photograph as a network gets it.

    Attributes:
        image: (3, H, W) float32 in 0..1, RGB.
        vessels: (1, H, W) uint8 in {0, 1}; None where there are no labels.
        fov: (1, H, W) uint8 in {0, 1}, 1 inside the field of view.
        levels: the grey levels of the whole photograph inside its field of view, by which patches are
            standardised; None where they are not known.
    """

    image: tv_tensors.Image
    vessels: tv_tensors.Mask | None
    fov: tv_tensors.Mask
    levels: Levels | None = None


def collate(samples: Sequence[Sample]) -> Sample:
    """The batch of some samples, for a data loader's `collate_fn`; what none of them has is None there too.

    Raises:
        DataError: if their sizes differ, only some have vessel labels, or one is no `Sample`.
    """
    for sample in samples:
        if not isinstance(sample, Sample):
            raise DataError(
                f"a transform returned {type(sample).__name__}, no Sample: let it return one, as "
                "sample._replace(image=...) does"
            )
    parts = []
    for name, values in zip(Sample._fields, zip(*samples, strict=True), strict=True):
        present = [value for value in values if value is not None]
        shapes = sorted({tuple(value.shape) for value in present})
        if len(shapes) > 1:
            raise DataError(
                f"{name} of {shapes[0]} and of {shapes[-1]} do not fit into one batch: take batches of one "
                "photograph, or patches of one size, as augmentation.RandomPatch cuts them"
            )
        if present and len(present) < len(values):
            raise DataError(f"only {len(present)} of the {len(values)} samples of this batch have {name}")
        parts.append(default_collate(present) if present else None)
    return Sample(*parts)


def finished(sample: Sample, stored: list[Tensor]) -> Sample:
    """A sample whose image is float32 in 0..1, and which has no memory in common with what is stored."""
    from torchvision import tv_tensors

    for name, part in zip(Sample._fields[:3], sample[:3], strict=True):
        if part is not None and not isinstance(part, Tensor):
            raise DataError(
                f"a transform made {type(part).__name__} of the sample's {name}: let it keep tensors, as "
                "torch.from_numpy makes them"
            )
    own = {part.untyped_storage().data_ptr() for part in stored}

    def apart(part: Tensor | None) -> Tensor | None:
        if part is None or part.untyped_storage().data_ptr() not in own:
            return part
        return tv_tensors.wrap(part.as_subclass(Tensor).clone(), like=part)

    image = sample.image
    if image.dtype == torch.uint8:
        # By NumPy: where cores are shared, PyTorch's threads wait for each other longer than that takes.
        pixels = np.divide(image.as_subclass(Tensor).numpy(), np.float32(255), dtype=np.float32)
        image = tv_tensors.Image(torch.from_numpy(pixels))
    return sample._replace(image=image, vessels=apart(sample.vessels), fov=apart(sample.fov))
