"""Which files belong to one photograph: pairing by number, and refusals that name what is missing."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from drive_unet.data.archives import is_image, is_junk
from drive_unet.errors import DataError

# Folder names, lower case: DRIVE's own first, then those of common copies.
IMAGES = ("images", "image")
VESSELS = ("1st_manual", "1st_manuals")
FOV = ("mask", "masks")
SECOND = ("2nd_manual", "2nd_manuals")
# Those of somebody's own photographs, beside `images`.
LABELS = ("labels", "label")
OWN_FOV = ("fov", "fovs", *FOV)
OWN_SECOND = ("second_observer", *SECOND)

# What masks are called in messages, in the order in which `Pair` has them.
KINDS = {"vessels": "vessel labels", "fov": "field-of-view masks", "second": "second labels"}

# By what files belong together: their names, or number and side of the eye.
Key = TypeVar("Key", str, tuple[int, str])

AGAIN = "copy the missing files from the official archive, or download it again"


@dataclass(frozen=True)
class Pair:
    """The files of one photograph.

    Attributes:
        name: the number as the photograph's file has it, "21", with the side of the eye if it says that,
            "12_left"; where the file says more, "01_dr", and in folders without numbers, what the file names
            have in common.
        image: the photograph.
        vessels: the first observer's vessel labels; None where there are none.
        fov: the mask of the field of view; None where there is none.
        second: the second observer's vessel labels; None where there are none.
        coloured: the vessel labels are drawn in colours, arteries and veins, see `read_mask`.
    """

    name: str
    image: Path
    vessels: Path | None = None
    fov: Path | None = None
    second: Path | None = None
    coloured: bool = False


def folders(folder: Path) -> list[Path]:
    """The subfolders, sorted by name, without litter."""
    return sorted(child for child in folder.iterdir() if not is_junk(child.name) and child.is_dir())


def images(folder: Path) -> list[Path]:
    """The image files in a folder, sorted by name, without litter."""
    return sorted(child for child in folder.iterdir() if is_image(child.name) and child.is_file())


def child(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The subfolder that has one of these lower-case names in any case; earlier names win."""
    by_name = {entry.name.lower(): entry for entry in folders(folder)}
    return next((by_name[name] for name in names if name in by_name), None)


def listed(names: Iterable[object], most: int = 8) -> str:
    """File names as a phrase: "a, b and c", or the first few "and 12 more"."""
    texts = [name.name if isinstance(name, Path) else str(name) for name in names]
    if len(texts) > most:
        return f"{', '.join(texts[:most])} and {len(texts) - most} more"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def pair_folders(
    image_dir: Path,
    vessel_dir: Path | None = None,
    fov_dir: Path | None = None,
    second_dir: Path | None = None,
    remedy: str = AGAIN,
) -> tuple[Pair, ...]:
    """Pair the images of any folder with their labels: by number if every image has one, else by name.

    The number is what a file's name begins with; where the side of the eye follows it (left, right, OS, OD,
    L, R, sin, dex, ...), both must agree, and so must other words if both have any, as 12_a and 12_b have,
    but not 21_training and 21_manual1. Names agree if they are equal without endings such as `_mask`,
    `_vessels` or `_manual1`, in any letter case and Unicode form, unless files of one folder differ in these
    alone. The remedy is what errors advise where a file is missing.

    Raises:
        DataError: if a folder or a file is missing, or two files claim the same place.
    """
    for folder in (image_dir, vessel_dir, fov_dir, second_dir):
        if folder is not None and not folder.is_dir():
            labels = image_dir.parent / VESSELS[0]
            hint = f", such as {labels}" if folder == vessel_dir and labels.is_dir() else ""
            fault = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {fault}: name the folder that holds the image files{hint}")
        if folder is not None and not images(folder):
            raise DataError(f"{folder} holds no images: name the folder that holds the files themselves")
    keys = [_leading(file.stem) for file in images(image_dir)]
    label_dirs = [each for each in (vessel_dir, fov_dir, second_dir) if each is not None]
    if None not in keys and len(set(keys)) == len(keys) and _agree(image_dir, label_dirs):
        return pair_by(number_of, _numbered_name, image_dir, vessel_dir, fov_dir, second_dir, remedy)
    key = _names_in([image_dir, *label_dirs])
    pairs = pair_by(key, _stem, image_dir, vessel_dir, fov_dir, second_dir, remedy)
    return tuple(sorted(pairs, key=lambda pair: pair.name))


def match(names: Iterable[str], files: Iterable[Path]) -> dict[str, Path]:
    """Which file belongs to which photograph, for those that have one.

    Args:
        names: of the photographs, such as "21", "21_training" or "left eye".
        files: each belongs to the name that its own is without an ending such as `_mask` or `_vessels`, else
            to the one name without such a file that differs in letter case or Unicode form alone, else to the
            one name that is the same number of the same eye, as "21" and "21_training" are, but "01_h" and
            "01_dr" are not; others are left out.

    Raises:
        DataError: if two files belong to one photograph.
    """
    names = dict.fromkeys(names)  # in their order, and quick to look up
    files = list(files)
    keys = [_leading(name) for name in names]
    count = Counter(keys)
    numbered = {key: name for key, name in zip(keys, names, strict=True) if key and count[key] == 1}
    exact = {stem for file in files for stem in (file.stem, _stem(file)) if stem in names}
    alike = Counter(map(folded, names))
    near = {key: name for name in names if alike[key := folded(name)] == 1 and name not in exact}
    matched: dict[str, Path] = {}
    for file in files:
        stems = (file.stem, _stem(file))
        name = next((stem for stem in stems if stem in names), None)
        name = name or next((near[stem] for stem in map(folded, stems) if stem in near), None)
        leading = _leading(file.stem)
        if not name and leading in numbered and not _differ(numbered[leading], file.stem):
            name = numbered[leading]
        if name in matched:
            raise DataError(
                f"{matched[name]} and {file.name} both belong to photograph {name}: move one of them "
                "elsewhere"
            )
        if name is not None:
            matched[name] = file
    return matched


def pair_by(
    key: Callable[[Path], Key],
    name: Callable[[Path], str],
    image_dir: Path,
    vessel_dir: Path | None,
    fov_dir: Path | None,
    second_dir: Path | None,
    remedy: str,
) -> tuple[Pair, ...]:
    """Pair four folders, of which all but the first may be None, by a key of the file's name."""

    def indexed(folder: Path | None) -> dict[Key, Path]:
        return {} if folder is None else unique(folder, ((key(file), file) for file in images(folder)))

    masks = [indexed(folder) for folder in (vessel_dir, fov_dir, second_dir)]
    return pair_up(image_dir, indexed(image_dir), masks, name, remedy)


def pair_up(
    image_dir: Path,
    photographs: Mapping[Key, Path],
    masks: Sequence[Mapping[Key, Path]],
    name: Callable[[Path], str],
    remedy: str = AGAIN,
) -> tuple[Pair, ...]:
    """Pair photographs with their files of three kinds, after a check that each kind is complete.

    Args:
        image_dir: where the photographs lie, for the errors.
        photographs: by key.
        masks: vessels, fields of view and second labels by key; empty for a kind of which there is none.
        name: makes a photograph's name of its file.
        remedy: what errors advise where a file is missing.

    Raises:
        DataError: if a photograph lacks a file of a kind that others have, or a file its photograph.
    """
    for what, files in zip(KINDS.values(), masks, strict=True):
        folder = next((file.parent for file in files.values()), None)
        lacking = sorted(photographs.keys() - files.keys()) if files else []
        if lacking:
            raise DataError(
                f"{folder} lacks the {what} of {listed(photographs[key] for key in lacking)} "
                f"({len(lacking)} of {len(photographs)}): {remedy}"
            )
        surplus = sorted(files.keys() - photographs.keys())
        if surplus:
            raise DataError(
                f"{image_dir} lacks the photographs that belong to {listed(files[key] for key in surplus)} "
                f"in {folder}: {remedy}"
            )
    vessels, fov, second = masks
    return tuple(
        Pair(name(file), file, vessels.get(key), fov.get(key), second.get(key))
        for key, file in sorted(photographs.items())
    )


def unique(folder: Path, files: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
    """Files by key, each key once.

    Raises:
        DataError: if two files have the same key.
    """
    indexed: dict[Key, Path] = {}
    for key, file in files:
        if key in indexed:
            name = key if isinstance(key, str) else " ".join(map(str, key)).strip()
            raise DataError(
                f"{folder} holds picture {name} twice, as {indexed[key].name} and {file.name}: "
                "move one of them elsewhere"
            )
        indexed[key] = file
    return indexed


_SIDE = re.compile(
    r"(?<![a-z])(?:(left|links|gauche|sin|os|og|l)|(right|rechts|droite?|dex|od|r))(?:[-_ ]?eye)?(?![a-z])",
    re.IGNORECASE,
)
# Words that say what a file is, not of which photograph.
_KIND = re.compile(
    r"train(ing)?|test(ing)?|images?|img|photo(graph)?s?|fundus|eye|retina|orig(inal)?|colou?r|rgb|manual\d?"
    r"|1st|2nd|first|second|observer\d?|1stho|2ndho|ah|vk|masks?|fov|vessels?|labels?|gt|ground|truth"
    r"|groundtruth|anno(tations?)?|binary|seg(mentation)?|prob(ability)?|pred(iction)?"
)


def _leading(stem: str) -> tuple[int, str] | None:
    """The number that a file's name starts with, as in 21_training, 21-mask, 21, and the side of the eye.

    The side is "left" or "right" for 12_left, 12-OS, 12_R and the like, and "" for names that tell none.
    """
    match = re.match(r"(\d{1,6})(?![A-Za-z0-9])", stem)
    if match is None:
        return None
    side = _SIDE.search(stem, match.end())
    return int(match[1]), "" if side is None else "left" if side[1] else "right"


def _words(stem: str) -> list[str]:
    """What a name says besides number, side and kind of file: "a" of 12_a_mask, of 21_test nothing."""
    words = re.split(r"[\W_]+", _SIDE.sub(" ", re.sub(r"^\d+", "", folded(stem))))
    return [word for word in words if word and not _KIND.fullmatch(word)]


def _differ(stem: str, other: str) -> bool:
    """Whether names of one number have different words, as 12_a and 12_b_mask, but not 12_a and 12_mask."""
    words, others = _words(stem), _words(other)
    return bool(words and others and words != others)


def _agree(image_dir: Path, label_dirs: Iterable[Path]) -> bool:
    """Whether no file has the number of a photograph, but other words."""
    stems = {_leading(file.stem): file.stem for file in images(image_dir)}
    files = (file.stem for folder in label_dirs for file in images(folder))
    return not any(_differ(stems.get(_leading(stem), ""), stem) for stem in files)


def keys_of(image_dir: Path, label_dirs: Iterable[Path]) -> Callable[[Path], str | tuple[int, str]]:
    """What the files of one photograph have in common: number and side of the eye, else their name.

    It is the name for all where photographs of one number differ by words, as 01_h and 01_dr do.
    """
    named = _names_in([image_dir, *label_dirs])
    earlier: dict[str | tuple[int, str], Path] = {}

    def key(file: Path) -> str | tuple[int, str]:
        return _leading(file.stem) or named(file)

    differ = [
        _words(earlier.setdefault(key(file), file).stem) != _words(file.stem) for file in images(image_dir)
    ]
    return named if any(differ) else key


def folded(name: str) -> str:
    """A name without letter case, and in one Unicode form: file systems and archives change both."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _names_in(places: Iterable[Path]) -> Callable[[Path], str]:
    """By what files are paired by name: `folded`, but as it is where files of a folder are alike in that."""
    alike: set[str] = set()
    for folder in places:
        stems = {_stem(file) for file in images(folder)}
        count = Counter(map(folded, stems))
        alike |= {stem for stem in stems if count[folded(stem)] > 1}

    def name(file: Path) -> str:
        stem = _stem(file)
        return stem if stem in alike else folded(stem)

    return name


def person(name: str) -> str:
    """Whose photograph it is, as far as its name says: the name without the side of the eye.

    Image_01L and Image_01R are of one person, and so are 12_left and 12_right; 21 and 01_h tell no side.
    """
    without = _SIDE.sub("", re.sub(r"(?<=\d)[LR]$", "", name)).strip("-_ ")
    return without or name


def number_of(file: Path) -> tuple[int, str]:
    """The number that a file's name starts with, and the side of the eye, see `_leading`.

    Raises:
        DataError: if it has none.
    """
    key = _leading(file.stem)
    if key is None:
        raise DataError(
            f"{file} has no number at the start of its name, as 21_training.tif has: give it its number "
            "back, or move it elsewhere"
        )
    return key


def _numbered_name(file: Path) -> str:
    """A photograph's number and side, as its file's name has them, and its words: 000001, 12_OD, 01_dr."""
    if _words(file.stem):
        return _stem(file)
    number, side = re.findall(r"^\d+", file.stem)[0], _SIDE.search(file.stem)
    return number if side is None else f"{number}_{side[0]}"


def _stem(file: Path) -> str:
    return re.sub(
        r"[-_ .](manual\d?|masks?|fov|vessels?|labels?|gt|seg(mentation)?|prob(ability)?|pred(iction)?"
        r"|1stho|2ndho|ah|vk)$",
        "",
        file.stem,
        flags=re.IGNORECASE,
    )
