"""The layouts in which published datasets lie on disk, one row each: to add a dataset, add a row here."""

from __future__ import annotations

import re
from dataclasses import dataclass

EMBEDDED = "embedded"
OWN = "own"

_PICTURE = r"\.(?:tiff?|png|jpe?g|ppm|gif|bmp)"


@dataclass(frozen=True)
class Layout:
    """How the files of a dataset are named, and on which terms it may be used.

    The patterns are regular expressions for whole paths below the dataset's folder, with "/" between folders,
    in any case; group 1 is what the files of one photograph have in common. A folder named train, training,
    test or testing may stand in front of every path and tells the split. A layout is taken for found where a
    photograph and a label of the same name match.

    Attributes:
        name: as in papers.
        terms: licence and whom to name, one phrase; printed once when the dataset is found.
        image: pattern of the photographs. Empty where file names say nothing and folders everything.
        vessels: pattern of the first observer's labels.
        colours: pattern of artery/vein labels, in which every colour but black is vessel; they serve where
            there are no other labels.
        fov: pattern of the masks of the field of view.
        second: pattern of the second observer's labels.
        archive: pattern of what its zip archives are called, without the ending; browsers add " (1)", and
            Google Drive "-20240131T090000Z-001".
        photographs: how many were published; 0 where nobody knows.
        size: of each (height, width) as published; None where they differ.
    """

    name: str
    terms: str = ""
    image: str = ""
    vessels: str = ""
    colours: str = ""
    fov: str = ""
    second: str = ""
    archive: str = ""
    photographs: int = 0
    size: tuple[int, int] | None = None


LAYOUTS = (
    # training and test, each with images, 1st_manual, mask and 2nd_manual; see `drive_copies`.
    Layout(
        "DRIVE",
        "for research and education, not to be passed on (Staal et al. 2004)",
        archive=r"(?:drive[-_ ]?)?(?:train(?:ing)?|test(?:ing)?)|archive"
        r"|drive(?:[-_ ]*(?:master|main|db|data(?:base|set)?|digital.*|retina.*))?",
        photographs=40,
        size=(584, 565),
    ),
    Layout(
        "HRF",
        "CC BY 4.0 (Budai et al. 2013); artery/vein labels: MIT (Galdran et al. 2020)",
        image=rf"images/(\d\d_(?:h|dr|g)){_PICTURE}",
        vessels=rf"manual1/(\d\d_(?:h|dr|g)){_PICTURE}",
        colours=r"(?:[^/]+/)?(\d\d_(?:h|dr|g))_avmanual\.png",
        fov=rf"masks?/(\d\d_(?:h|dr|g))_mask{_PICTURE}",
        archive=r"all|hrf.*",
        photographs=45,
        size=(2336, 3504),
    ),
    Layout(
        "CHASE_DB1",
        "a public reference set (Fraz et al. 2012)",
        image=rf"(?:images?/)?(image_\d\d[lr]){_PICTURE}",
        vessels=rf"(?:[^/]+/)?(image_\d\d[lr])_1stho{_PICTURE}",
        second=rf"(?:[^/]+/)?(image_\d\d[lr])_2ndho{_PICTURE}",
        archive=r"chase.*",
        photographs=28,
        size=(960, 999),
    ),
    Layout(
        "STARE",
        "public (Hoover et al. 2000)",
        image=rf"(?:(?:stare-)?images/)?(im\d{{4}}){_PICTURE}",
        vessels=rf"(?:[^/]+/)?(im\d{{4}})\.ah{_PICTURE}",
        second=rf"(?:[^/]+/)?(im\d{{4}})\.vk{_PICTURE}",
        archive=r"stare.*",
        photographs=20,
        size=(605, 700),
    ),
    Layout(
        "FIVES",
        "CC BY 4.0 (Jin et al. 2022)",
        image=rf"original/(\d+_[a-z]){_PICTURE}",
        vessels=rf"gro(?:un|u|n)d[ _]?truth/(\d+_[a-z]){_PICTURE}",
        archive=r"fives.*",
        photographs=800,
        size=(2048, 2048),
    ),
    Layout(
        "LES-AV",
        "CC BY 4.0 (Orlando et al. 2018); its own readme asks for scientific use only",
        image=rf"images/(\d+){_PICTURE}",
        vessels=rf"vessel[-_]segmentations?/(\d+){_PICTURE}",
        colours=rf"arteries[-_]and[-_]veins/(\d+){_PICTURE}",
        fov=rf"masks?/(\d+){_PICTURE}",
        archive=r"les[-_]?av.*",
        photographs=22,
    ),
    Layout(OWN),  # images, labels and perhaps fov or mask; see `pairing.pair_folders`
    Layout(EMBEDDED),  # painted by `drive_unet.painter` in DRIVE's layout
)
PUBLISHED = tuple(layout for layout in LAYOUTS if layout.terms)
NAMED = tuple(layout for layout in LAYOUTS if layout.image)  # recognised by the names of their files


def is_archive(stem: str, layouts: tuple[Layout, ...] = PUBLISHED) -> bool:
    """Whether a zip file of this name, without its ending, may be an archive of one of these layouts."""
    patterns = "|".join(layout.archive for layout in layouts if layout.archive)
    return bool(
        re.fullmatch(
            rf"(?:{patterns})(?:-\d{{8}}t\d{{6}}z(?:-\d+)*)?(?:[ _-]*(?:\(\d+\)|\d+|copy))?", stem.lower()
        )
    )
