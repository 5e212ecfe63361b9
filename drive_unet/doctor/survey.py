"""What belongs together in a copy that the loaders refuse, as far as names tell, so that all is checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from drive_unet.data.archives import is_image, is_junk
from drive_unet.data.by_names import SPLITS
from drive_unet.data.pairing import (
    AGAIN,
    FOV,
    IMAGES,
    LABELS,
    OWN_FOV,
    SECOND,
    VESSELS,
    Pair,
    child,
    images,
    key_of,
)
from drive_unet.doctor.inspection import ERROR, Finding

_DEPTH = 6
_MOST = 5000  # photographs that are checked of a copy that cannot be used


def survey(trees: Iterable[Path]) -> tuple[list[tuple[Pair, str]], list[Finding]]:
    """The photographs with their splits, "training" or "test", and what is missing or exists twice."""
    jobs: list[tuple[Pair, str]] = []
    findings: list[Finding] = []
    for tree in trees:
        for folder in _holders(tree, _DEPTH):
            pairs, missing = _paired(folder)
            split = "test" if folder.name.lower() in SPLITS["test"] else "training"
            jobs += [(pair, split) for pair in pairs]
            findings += missing
    return jobs[:_MOST], findings


def _holders(folder: Path, depth: int) -> Iterator[Path]:
    """The folders that hold one called `images` with images in it."""
    image_dir = child(folder, IMAGES)
    if image_dir is not None:
        yield folder
        return
    if depth:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink() and not is_junk(entry.name):
                yield from _holders(entry, depth - 1)


def _paired(folder: Path) -> tuple[list[Pair], list[Finding]]:
    """The photographs of a folder with `images`, and what their labels and masks lack."""
    findings: list[Finding] = []
    photographs = _by_key(child(folder, IMAGES), findings)
    own = child(folder, VESSELS) is None
    kinds = {
        "vessels": ("vessel labels", child(folder, LABELS if own else VESSELS)),
        "fov": ("field-of-view masks", child(folder, OWN_FOV if own else FOV)),
        "second": ("second labels", child(folder, SECOND)),
    }
    masks: dict[str, dict[object, Path]] = {}
    for kind, (words, place) in kinds.items():
        if place is None or not images(place):
            continue
        masks[kind] = _by_key(place, findings)
        lacking = [file for key, file in photographs.items() if key not in masks[kind]]
        surplus = [file for key, file in masks[kind].items() if key not in photographs]
        if lacking:
            what = f"have no {words} in {place.name}"
            findings.append(Finding(ERROR, f"lacks-{kind}", what, AGAIN, lacking))
        if surplus:
            what = "belong to no photograph"
            findings.append(
                Finding(ERROR, "surplus", what, "add the photographs, or move these away", surplus)
            )
    vessels, fov, second = (masks.get(kind, {}) for kind in kinds)
    pairs = [
        Pair(file.stem, file, vessels.get(key), fov.get(key), second.get(key))
        for key, file in photographs.items()
    ]
    return pairs, findings


def _by_key(folder: Path, findings: list[Finding]) -> dict[object, Path]:
    """The images of a folder by number or name, each once."""
    files: dict[object, Path] = {}
    for file in images(folder):
        if not is_image(file.name):
            continue
        earlier = files.setdefault(key_of(file), file)
        if earlier is not file:
            findings.append(
                Finding(
                    ERROR, "twice-named", "have one number or name", "move one elsewhere", [earlier, file]
                )
            )
    return files
