"""What belongs together in a copy that the loaders refuse, as far as names tell, so that all is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from drive_unet.data.archives import is_junk
from drive_unet.data.by_names import SPLITS, Kinds, files_by_kind, image_files, labels_of
from drive_unet.data.drive_copies import DEPTH, files_by_name, inner_folder, mixed_splits
from drive_unet.data.layouts import NAMED, Layout
from drive_unet.data.pairing import (
    AGAIN,
    FOV,
    IMAGES,
    KINDS,
    LABELS,
    OWN_FOV,
    SECOND,
    VESSELS,
    Pair,
    child,
    images,
    keys_of,
    number_of,
)
from drive_unet.doctor.inspection import ERROR, Finding
from drive_unet.errors import DataError

_DEPTH = 6
_MOST = 5000  # photographs that are checked of a copy that cannot be used


def survey(trees: Iterable[Path]) -> tuple[list[tuple[Pair, str]], list[Finding], str | None]:
    """The photographs with their splits, "training" or "test"; what is missing or exists twice; and which
    published dataset it is by the names of its files, if any.
    """
    jobs: list[tuple[Pair, str]] = []
    findings: list[Finding] = []
    name = None
    for tree in trees:
        published = _published(tree)
        if published is not None:
            name, parts, missing = published
            jobs += parts
            findings += missing
            continue
        for folder in _holders(tree, _DEPTH):
            own = next((split for split, names in SPLITS.items() if folder.name.lower() in names), None)
            if child(folder, IMAGES) is None:
                parts, missing = _side_by_side(folder, None if folder == tree else own)
                jobs += parts
            else:
                pairs, missing = _paired(folder)
                jobs += [(pair, own or "training") for pair in pairs]
            findings += missing
    return jobs[:_MOST], findings, name


def _published(tree: Path) -> tuple[str, list[tuple[Pair, str]], list[Finding]] | None:
    """What there is of a dataset that is known by the names of its files; None if it is none."""
    folder: Path | None = tree
    try:
        for _ in range(DEPTH):
            files = image_files(folder)
            for layout in NAMED:
                kinds = files_by_kind(layout, folder, files)
                if kinds is not None:
                    return _incomplete(layout, kinds)
            folder = inner_folder(folder)
            if folder is None:
                break
    except DataError:  # of files that exist twice and datasets side by side; the loaders say it
        pass
    return None


def _incomplete(layout: Layout, kinds: Kinds) -> tuple[str, list[tuple[Pair, str]], list[Finding]]:
    """The photographs of a published dataset, and what their labels and masks lack."""
    jobs: list[tuple[Pair, str]] = []
    findings: list[Finding] = []
    for split in SPLITS:
        vessels, coloured = labels_of(kinds, split)
        masks = {"vessels": vessels, "fov": kinds["fov"][split], "second": kinds["second"][split]}
        jobs += [(pair, split) for pair in _joined(kinds["image"][split], masks, findings, coloured)]
    return layout.name, jobs, findings


def _holders(folder: Path, depth: int) -> Iterator[Path]:
    """The folders that hold one called `images`, or DRIVE's files side by side."""
    if child(folder, IMAGES) is not None or mixed_splits(folder):
        yield folder
        return
    if depth:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink() and not is_junk(entry.name):
                yield from _holders(entry, depth - 1)


def _side_by_side(folder: Path, own: str | None) -> tuple[list[tuple[Pair, str]], list[Finding]]:
    """The photographs of a folder where DRIVE's files lie side by side, with their splits: the folder's own,
    or else those that names tell; and what their labels and masks lack.
    """
    jobs: list[tuple[Pair, str]] = []
    findings: list[Finding] = []
    kinds = files_by_name(folder)
    for split in mixed_splits(folder):
        files = {kind: _by_key(parts[split], number_of, findings) for kind, parts in kinds.items()}
        photographs = files.pop("image")
        jobs += [(pair, own or split) for pair in _joined(photographs, files, findings)]
    return jobs, findings


def _paired(folder: Path) -> tuple[list[Pair], list[Finding]]:
    """The photographs of a folder with `images`, and what their labels and masks lack."""
    findings: list[Finding] = []
    image_dir = child(folder, IMAGES)
    own = child(folder, VESSELS) is None
    places = {
        "vessels": child(folder, LABELS if own else VESSELS),
        "fov": child(folder, OWN_FOV if own else FOV),
        "second": child(folder, SECOND),
    }
    key = keys_of(image_dir, filter(None, places.values()))
    photographs = _by_key(images(image_dir), key, findings)
    masks = {
        kind: {} if place is None else _by_key(images(place), key, findings) for kind, place in places.items()
    }
    return _joined(photographs, masks, findings), findings


def _joined(
    photographs: Mapping[Any, Path],
    masks: Mapping[str, Mapping[Any, Path]],
    findings: list[Finding],
    coloured: bool = False,
) -> list[Pair]:
    """The photographs with the labels and masks that there are; what lacks is added to the findings."""
    for kind, files in masks.items():
        if files:
            findings += _unmatched(photographs, files, kind)
    vessels, fov, second = (masks[kind] for kind in KINDS)
    return [
        Pair(file.stem, file, vessels.get(key), fov.get(key), second.get(key), coloured)
        for key, file in photographs.items()
    ]


def _unmatched(photographs: Mapping[Any, Path], files: Mapping[Any, Path], kind: str) -> list[Finding]:
    """Photographs without a file of a kind, and files without a photograph."""
    findings = []
    lacking = [file for key, file in photographs.items() if key not in files]
    surplus = [file for key, file in files.items() if key not in photographs]
    if lacking:
        what = f"have no {KINDS[kind]} in {next(iter(files.values())).parent.name}"
        findings.append(Finding(ERROR, f"lacks-{kind}", what, AGAIN, lacking))
    if surplus:
        do = "add the photographs, or move these away"
        findings.append(Finding(ERROR, "surplus", "belong to no photograph", do, surplus))
    return findings


def _by_key(
    pictures: Iterable[Path], key: Callable[[Path], object], findings: list[Finding]
) -> dict[object, Path]:
    """Image files by number or name, each once."""
    files: dict[object, Path] = {}
    for file in pictures:
        earlier = files.setdefault(key(file), file)
        if earlier is not file:
            findings.append(
                Finding(
                    ERROR, "twice-named", "have one number or name", "move one elsewhere", [earlier, file]
                )
            )
    return files
