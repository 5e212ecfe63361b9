"""What weights were trained on, written into their notes, so that scores on them can be told apart."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch

from drive_unet import __version__
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.models import learned_from


def trained_on(
    photographs: DRIVEDataset, source: str = "", before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The record that belongs into ``model.notes["trained_on"]``.

    Args:
        photographs: all that weights, checkpoint or threshold were learned from or chosen on.
        source: "DRIVE", "embedded", or the name of one's own folder, where it is known.
        before: the record of the weights that the training started from, if there is one.

    Returns:
        "source", "names", "fingerprints" (see `DRIVEDataset.marks`) and "before"; JSON types.
    """
    marks = photographs.marks
    return {
        "source": source,
        "names": list(marks),
        "fingerprints": list(marks.values()),
        "before": dict(before) if before else None,
    }


def versions() -> dict[str, str]:
    """The versions that a training depends on, by package."""
    import torchvision  # here: it takes as long to import as PyTorch, and `seen` needs none of it

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "drive_unet": __version__,
    }


def seen(notes: Mapping[str, Any], photographs: DRIVEDataset) -> list[str] | None:
    """The names of those photographs that weights with these notes were trained on; None if not recorded."""
    known = learned_from(notes)
    if known is None:
        return None
    return [
        name for name, mark in zip(photographs.names, photographs.fingerprints, strict=True) if mark in known
    ]
