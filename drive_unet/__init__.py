"""Retinal vessel segmentation with a U-Net: the package that the notebooks import.

The names below are the public surface; every module can be imported for more. They are loaded when first
used, so that `import drive_unet` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "DataError": "errors",
    "find_drive": "locate",
    "Sample": "data",
    "DRIVEDataset": "data",
    "folds": "data",
    "load_drive": "data",
    "detect_fov": "preprocessing",
    "standardise": "preprocessing",
    "training_transform": "augmentation",
    "UNet": "models",
    "SkiplessNet": "models",
    "combine": "losses",
    "PaintedStream": "streaming",
    "fit": "training",
    "PRESETS": "presets",
    "train": "presets",
    "predict": "inference",
    "predict_all": "inference",
    "segment": "inference",
    "scores": "metrics",
    "choose_threshold": "metrics",
    "evaluate": "evaluation",
    "evaluate_second_observer": "evaluation",
    "compare": "evaluation",
    "visualize_segmentation": "plots",
    "explore": "explorer",
    "explore_eye": "eye_explorer",
    "check": "exercises",
}
_MODULES = {*_HOME.values(), "synthetic", "augmentation", "losses", "training"}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"drive_unet.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"drive_unet.{name}")
    raise AttributeError(f"module 'drive_unet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
