"""Verdicts on photographs: sound ones pass, spoiled ones are told why, other pictures are no fundus."""

import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from drive_unet import DataError, assess
from drive_unet.painter.painting import paint
from drive_unet.preprocessing.quality import NO_FUNDUS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from quality import spoiled

RETINA = np.asarray(Image.fromarray(skimage.data.retina()).reduce(3))


@pytest.mark.parametrize("eye", ["retina", "painted"])
def test_sound_photographs_pass_and_spoiled_ones_are_told_why(eye):
    image = RETINA if eye == "retina" else paint(3, (292, 283)).image
    for what, reason, picture in spoiled(image):
        verdict = assess(picture)
        assert (reason in verdict.reasons) if reason else verdict.good, (what, verdict, verdict.values)


def test_a_photograph_without_colour_is_a_fundus_still():
    red_free = np.repeat(RETINA[..., 1:2], 3, axis=2)
    assert NO_FUNDUS not in assess(red_free).reasons


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "page", "rocket", "colorwheel"])
def test_other_pictures_are_no_fundus_photographs(name):
    picture = getattr(skimage.data, name)()
    picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    verdict = assess(np.ascontiguousarray(picture[..., :3]))
    assert verdict.reasons == (NO_FUNDUS,) and str(verdict) == "poor: not a fundus photograph"


def test_frames_of_one_colour():
    assert assess(np.zeros((60, 80, 3), np.uint8)).reasons == (NO_FUNDUS, "too dark")
    assert assess(np.full((60, 80, 3), 255, np.uint8)).reasons == (NO_FUNDUS, "too bright")
    assert assess(np.full((1, 1, 3), 128, np.uint8)).reasons == (NO_FUNDUS,)
    with pytest.raises(DataError, match="assess needs"):
        assess(np.zeros((60, 80, 3)))


def test_the_size_of_a_photograph_does_not_matter():
    for width in (200, 1500):
        image = Image.fromarray(RETINA).resize((width, width))
        assert assess(np.asarray(image)).good
