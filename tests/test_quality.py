"""Verdicts on photographs: sound ones pass, spoiled ones are told why, other pictures are no fundus."""

import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy import ndimage

from drive_unet import DataError, assess, detect_fov
from drive_unet.painter.painting import paint
from drive_unet.preprocessing.quality import BLURRED, BRIGHT, CUT_OFF, DARK, NO_FUNDUS, Quality

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from quality import Judged, chosen, cut, limit, spoiled

RETINA = np.asarray(Image.fromarray(skimage.data.retina()).reduce(3))


@pytest.mark.parametrize("eye", ["retina", "painted"])
def test_sound_photographs_pass_and_spoiled_ones_are_told_why(eye):
    image = RETINA if eye == "retina" else paint(3, (292, 283)).image
    for what, reason, picture in spoiled(image):
        verdict = assess(picture)
        assert (reason in verdict.reasons) if reason else verdict.good, (what, verdict, verdict.values)


@pytest.mark.parametrize("seed", [1, 5, 9])
def test_a_dark_photograph_without_colour_has_no_cover(seed):
    dark = {
        what: picture for what, _, picture in spoiled(paint(seed, (292, 283)).image) if "a quarter" in what
    }
    for what, picture in dark.items():
        assert assess(picture).reasons == (DARK,), what


@pytest.mark.parametrize("level", [20, 64])
def test_a_dull_cover_cuts_the_field_of_view_off(level):
    assert CUT_OFF in assess(cut(RETINA, "right", level)).reasons


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_white_that_reaches_the_edge_of_the_frame_cuts_the_field_of_view_off(side):
    assert assess(cut(RETINA, side, 255)).reasons == (CUT_OFF,)


@pytest.mark.parametrize("level", [128, 255])
def test_a_surround_that_was_filled_in_spoils_nothing(level):
    fov = detect_fov(RETINA)
    assert assess(np.where(fov[..., None], RETINA, np.uint8(level))).good


def test_a_map_of_vessels_is_no_fundus_photograph():
    eye = paint(3, (292, 283))
    soft = ndimage.gaussian_filter(eye.vessels.astype(float), 0.7)
    fov = eye.fov
    for map_, given in ((soft, fov), (soft, None), (0.05 * fov + 0.95 * soft, None)):
        grey = np.repeat(np.round(255 * map_).astype(np.uint8)[..., None], 3, axis=2)
        assert assess(grey, given).reasons == (NO_FUNDUS,)


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


def test_a_limit_lies_amid_the_widest_gap_with_fewest_errors():
    sound, bad = np.array([0.5, 0.6, 0.9]), np.array([0.1, 0.3])
    assert limit(sound, bad) == pytest.approx(0.4) == -limit(-sound, -bad)
    assert limit(np.array([0.2, 0.5, 0.6]), np.array([0.1, 0.3])) == pytest.approx(
        0.4
    )  # one on the wrong side


def test_limits_are_chosen_on_the_first_half_alone():
    sound = {"complete": 0.8, "sharpness": 0.6, "highlights": 0.9, "glare": 0.4, "full": 0.1}
    spoiled_by = {"complete": (CUT_OFF, "left half missing", 0.4), "sharpness": (BLURRED, "blurred", 0.2)}
    spoiled_by |= {"highlights": (DARK, "a quarter of the light", 0.5)}
    spoiled_by |= {
        "glare": (BRIGHT, "four times the light", 0.6),
        "full": (BRIGHT, "four times the values", 1.0),
    }
    records = [Judged(0, "eye", "as it is", "", Quality((), sound))]
    for measure, (reason, what, value) in spoiled_by.items():
        records.append(Judged(0, "eye", what, reason, Quality((reason,), sound | {measure: value})))
    expected = {"complete": 0.6, "sharpness": 0.4, "highlights": 0.7, "glare": 0.5, "full": 0.55}
    grey = Quality((), {"grey_highlights": 0.4})
    records.append(Judged(0, "eye", "green alone", "", grey))
    expected["grey_highlights"] = 0.4
    assert chosen(records) == pytest.approx(expected)
    others = [row._replace(half=1, verdict=Quality((), dict.fromkeys(sound, 9.0))) for row in records]
    assert chosen(records + others) == chosen(records)
