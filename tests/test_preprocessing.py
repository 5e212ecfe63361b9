from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage import data
from torchvision import tv_tensors
from torchvision.transforms import v2

from drive_unet.data import Sample
from drive_unet.errors import DataError
from drive_unet.preprocessing import (
    Levels,
    Prepared,
    Preprocessing,
    clahe,
    detect_fov,
    extract_patches,
    green_channel,
    levels,
    prepare,
    rescale,
    sample_patch_corners,
    squash,
    standardise,
    vanished_fraction,
)
from drive_unet.preprocessing.prepare import as_photograph, rescale_mask


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def disc(height: int, width: int, radius: float, *, cut: float = 1.0) -> np.ndarray:
    """A disc in the middle of the frame, cut off above and below at `cut` of its radius."""
    rows, columns = np.mgrid[:height, :width]
    rows, columns = rows - (height - 1) / 2, columns - (width - 1) / 2
    return (np.hypot(rows, columns) <= radius) & (np.abs(rows) <= cut * radius)


def photograph(fov: np.ndarray, *, light: float = 1.0, falloff: float = 0.4, seed: int = 0) -> np.ndarray:
    """A fundus-like frame: orange, darker towards the rim, with dark vessels and a noisy dark surround."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: fov.shape[0], : fov.shape[1]]
    centre = np.array(fov.shape) / 2
    radius = np.hypot(rows - centre[0], columns - centre[1]) / np.hypot(*centre)
    shades = 220 * (1 - falloff * radius**2), 120 * (1 - radius**2 / 2), np.full(fov.shape, 45.0)
    retina = np.stack(shades, axis=-1)
    retina[np.abs(columns - centre[1] - 20 * np.sin(rows / 25)) < 4] *= 0.6
    noise = generator.normal(0, 1.5, (*fov.shape, 1))
    return np.clip(light * retina * fov[..., None] + 6 + noise, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------- field of view


@pytest.mark.parametrize(
    ("height", "width", "radius", "cut", "light"),
    [
        (584, 565, 270, 1.0, 1.0),
        (584, 565, 270, 0.9, 0.12),
        (200, 300, 140, 0.7, 0.3),
        (200, 300, 140, 0.7, 0.12),
        (96, 96, 45, 1.0, 1.0),
        (1168, 1752, 700, 0.8, 0.3),
    ],
)
def test_fov_of_painted_frames(height, width, radius, cut, light):
    fov = disc(height, width, radius, cut=cut)
    found = detect_fov(photograph(fov, light=light))
    assert found.dtype == bool
    assert found.shape == fov.shape
    assert dice(found, fov) > 0.985
    assert ndimage.label(found)[1] == 1
    assert (ndimage.binary_fill_holes(found) == found).all()


def test_fov_of_the_cc0_photograph_keeps_its_notch_and_survives_its_surroundings():
    image = data.retina()
    fov = detect_fov(image)
    assert 0.76 < fov.mean() < 0.775  # a disc of 1394 px in a frame of 1411 px
    assert fov[140:150, 1165:1175].all()  # the notch on the upper right stands out of the disc
    assert not fov[:100, :100].any()
    assert ndimage.label(fov)[1] == 1
    assert (ndimage.binary_fill_holes(fov) == fov).all()

    small = np.asarray(Image.fromarray(image).resize((353, 353)))
    assert dice(detect_fov(small), squash(fov, (353, 353))) > 0.995
    captioned = image.copy()
    captioned[40:90, 20:200:4] = 255
    assert dice(detect_fov(captioned), fov) > 0.998
    beside = np.pad(image, ((0, 0), (600, 20), (0, 0)))
    assert dice(detect_fov(beside), np.pad(fov, ((0, 0), (600, 20)))) > 0.995
    assert dice(detect_fov(image[..., 1]), fov) > 0.995  # one channel will do


def test_fov_with_an_indentation_is_not_rounded_over():
    fov = disc(584, 565, 270)
    fov[280:310, :40] = False
    found = detect_fov(photograph(fov))
    assert dice(found, fov) > 0.99
    assert not found[295, 20]


@pytest.mark.parametrize("value", [30, 128, 255])
def test_frame_without_dark_surround_is_all_field_of_view(value):
    assert detect_fov(np.full((70, 90, 3), value, np.uint8)).all()
    assert detect_fov(data.retina()[500:900, 500:900]).all()


@pytest.mark.parametrize("level", [128, 255])
def test_a_surround_that_was_filled_in_is_none_of_the_field_of_view(level):
    image = data.retina()
    fov = detect_fov(image)
    filled = np.where(fov[..., None], image, np.uint8(level))
    assert dice(detect_fov(filled), fov) > 0.998
    kept = io.BytesIO()
    Image.fromarray(filled).save(kept, "JPEG", quality=85)
    assert dice(detect_fov(np.asarray(Image.open(kept))), fov) > 0.998
    two_corners = np.where(fov[..., None] | (np.arange(1411) < 700)[:, None], image, np.uint8(level))
    assert not detect_fov(two_corners)[:100, :100].any()  # the darkest corner counts, as ever


def test_a_surround_as_bright_as_a_retina_without_colour_cannot_be_told_from_it():
    grey = np.asarray(Image.fromarray(data.retina()).convert("L"))
    fov = detect_fov(grey)
    assert dice(detect_fov(np.where(fov, grey, np.uint8(255))), fov) > 0.995
    assert detect_fov(np.where(fov, grey, np.uint8(np.median(grey[fov])))).all()


def test_unusable_frames_say_why():
    with pytest.raises(DataError, match="black"):
        detect_fov(np.zeros((60, 60, 3), np.uint8))
    speck = np.zeros((400, 400, 3), np.uint8)
    speck[100:150, 100:150] = 200
    with pytest.raises(DataError, match=r"1\.6%"):
        detect_fov(speck)
    for wrong in (np.zeros((5, 5)), np.zeros((5, 5, 4), np.uint8), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(DataError, match="detect_fov"):
            detect_fov(wrong)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_fov_of_noise_is_a_mask_or_a_data_error(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    try:
        found = detect_fov(image)
    except DataError:
        return
    assert found.shape == (height, width)
    assert found.dtype == bool


# ---------------------------------------------------------------------- intensity


def test_green_channel_is_a_copy():
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    channel = green_channel(image)
    assert (channel == image[..., 1]).all()
    channel[:] = 0
    assert image[..., 1].any()
    with pytest.raises(DataError, match=r"\(H, W, 3\)"):
        green_channel(image[..., 0])


def test_clahe_spreads_contrast_and_leaves_constants():
    generator = np.random.default_rng(0)
    channel = generator.integers(100, 120, (90, 83), dtype=np.uint8)
    out = clahe(channel)
    assert out.dtype == np.uint8
    assert out.shape == channel.shape
    assert out.std() > 3 * channel.std()
    assert (clahe(np.full((9, 9), 7, np.uint8)) == 7).all()
    assert clahe(channel[:3, :4], tiles=8).shape == (3, 4)
    with pytest.raises(ValueError, match="tiles=0"):
        clahe(channel, tiles=0)


# ---------------------------------------------------------------------- standardise


def test_standardise_gives_each_channel_mean_0_and_std_1_in_the_fov():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 40, 50) * torch.tensor([0.9, 0.3, 0.01])[:, None, None] + 0.05
    fov = torch.rand(2, 1, 40, 50) > 0.4
    out = standardise(image, fov)
    for number in range(2):
        inside = out[number][:, fov[number, 0]]
        assert inside.mean(dim=1).abs().max() < 1e-5
        assert (inside.std(dim=1, correction=0) - 1).abs().max() < 1e-4
        assert (out[number][:, ~fov[number, 0]] == 0).all()
        # images are standardised one by one, and the FOV may come in any dtype
        assert torch.equal(standardise(image[number], fov[number, 0].to(torch.uint8)), out[number])
    # neither light nor what lies outside the FOV matters
    changed = torch.where(fov, 0.5 * image + 0.1, torch.tensor(torch.nan))
    assert torch.allclose(standardise(changed, fov), out, atol=1e-3)


def test_without_a_fov_every_pixel_counts():
    image = torch.rand(1, 3, 20, 20)
    assert torch.equal(standardise(image), standardise(image, torch.ones(20, 20)))


def test_levels_stand_for_the_whole_photograph():
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 200, (60, 70, 3), np.uint8)
    fov = rng.random((60, 70)) > 0.3
    described = levels(photograph, fov)
    assert described.shape == (3, 256, 2)
    assert torch.allclose(described[..., 0].sum(dim=1), torch.ones(3))
    pixels = torch.from_numpy(photograph).permute(2, 0, 1) / 255
    mask = torch.from_numpy(fov)
    whole = standardise(pixels, mask)
    patch = standardise(pixels[:, 10:30, 5:25], mask[10:30, 5:25], described)
    assert torch.allclose(patch, whole[:, 10:30, 5:25], atol=1e-5)
    # a change of colour maps image and levels alike, and the statistics are those of the changed photograph
    changed = described.clone()
    changed[..., 1] = 0.8 * changed[..., 1] ** 1.3
    recoloured = 0.8 * pixels**1.3
    patch = standardise(recoloured[:, 10:30, 5:25], mask[10:30, 5:25], changed)
    assert torch.allclose(patch, standardise(recoloured, mask)[:, 10:30, 5:25], atol=1e-5)
    # batches, each item by its own photograph
    batch = standardise(torch.stack([pixels, recoloured]), mask, torch.stack([described, changed]))
    assert torch.allclose(batch[1], standardise(recoloured, mask), atol=1e-5)
    assert (standardise(pixels, mask, torch.zeros(3, 256, 2)) == 0).all(), "of nothing nothing is known"


def test_transforms_pass_levels_on():
    sample = (tv_tensors.Image(torch.rand(3, 40, 40)), Levels(torch.rand(3, 256, 2)))
    image, described = v2.Compose([v2.RandomCrop(16), v2.RandomHorizontalFlip(1), v2.ColorJitter(0.5)])(
        sample
    )
    assert image.shape == (3, 16, 16)
    assert isinstance(described, Levels) and torch.equal(described, sample[1])


# ---------------------------------------------------------------------- prepare


def fundus(size, rng=None):
    """A photograph of (H, W) with a bright noisy disc that nearly fills it, and the disc."""
    rng = rng or np.random.default_rng(0)
    rows, columns = np.ogrid[: size[0], : size[1]]
    disc = np.hypot(rows - size[0] / 2, columns - size[1] / 2) < 0.48 * min(size)
    light = rng.integers(60, 200, (*size, 3))
    return np.where(disc[..., None], light, 2).astype(np.uint8), disc


@pytest.mark.parametrize("width", [270, 460, 495, 540, 590, 1080])
def test_nothing_is_resampled_within_the_tolerance(width):
    photograph, fov = fundus((width + 20, width + 40))
    true = np.flatnonzero(fov.any(axis=0))
    prepared = prepare(photograph, fov)
    near = abs(540 / (true[-1] - true[0] + 1) - 1) <= 0.1
    assert near == (495 <= width <= 590)
    if near:
        assert prepared.image.shape[-2:] == photograph.shape[:2]
        pixels = torch.from_numpy(photograph).permute(2, 0, 1) / 255
        assert torch.allclose(prepared.image, standardise(pixels, torch.from_numpy(fov)), atol=1e-6)
    else:
        columns = np.flatnonzero(prepared.fov[0].numpy().any(axis=0))
        assert abs(columns[-1] - columns[0] + 1 - 540) <= 2
    inside = prepared.image[:, prepared.fov[0] > 0]
    assert inside.mean(dim=1).abs().max() < 1e-4 and (inside.std(dim=1) - 1).abs().max() < 1e-3
    assert (prepared.image[:, prepared.fov[0] == 0] == 0).all()


@pytest.mark.parametrize(
    ("width", "brought_to"), [(300, 540), (540, 540), (700, 700), (860, 860), (1600, 810)]
)
def test_between_its_width_and_the_finest_a_photograph_keeps_its_own_pixels(width, brought_to):
    fov = np.zeros((100, width + 20), bool)
    fov[:, 10 : 10 + width] = True
    scale = Preprocessing(fov_width=540, finest=810).scale(fov)
    assert scale == pytest.approx(brought_to / width) and (scale == 1) == (width == brought_to)


@pytest.mark.parametrize("size", [(291, 283), (584, 565), (1168, 1130), (77, 1001)])
def test_the_way_back_is_exact_in_size(size):
    photograph, fov = fundus(size)
    prepared = prepare(photograph, fov)
    probability = torch.full((2, *prepared.fov.shape[-2:]), 0.25)
    restored = prepared.restore(probability)
    assert restored.shape == (2, *size) and restored.dtype == np.float32
    np.testing.assert_allclose(restored[:, fov], 0.25, atol=1e-6)
    assert (restored[:, ~fov] == 0).all()
    assert prepared.restore(probability[0]).shape == size


@pytest.mark.parametrize("width", [1.5, 2.0, 3.0, 5.0])
def test_an_enlarged_vessel_is_as_wide_as_the_network_says(width):
    """Its log odds fall evenly from the middle, so that the width at any threshold is known."""
    fall, threshold, times = 3.0, 0.3, 6
    odds = fall * (width / 2 - np.abs(np.arange(40) + 0.5 - 20.3))
    probability = np.tile(1 / (1 + np.exp(-odds)), (40, 1)).astype(np.float32)
    fov = np.ones((40 * times, 40 * times), bool)
    restored = Prepared(torch.zeros(3, 40, 40), torch.ones(1, 40, 40), fov).restore(probability)
    truth = times * (width + 2 * np.log((1 - threshold) / threshold) / fall)
    assert abs((restored >= threshold).sum(axis=1).mean() - truth) < 0.5


def test_large_photographs_are_antialiased():
    photograph, fov = fundus((2336, 2400))
    photograph[::2] = np.where(fov[::2, :, None], 255, 0)  # a grating too fine for the network's scale
    photograph[1::2] = np.where(fov[1::2, :, None], 55, 0)
    small = rescale(photograph, Preprocessing().scale(fov))
    middle = small[len(small) // 2 - 50 : len(small) // 2 + 50, small.shape[1] // 2 - 50 :][:, :100]
    assert abs(middle.mean() - 155) < 2 and middle.std() < 12


def test_weights_that_were_taught_so_are_given_what_is_brighter_than_the_surround():
    photograph, fov = fundus((560, 560))
    photograph[:, :200] = 20
    photograph[:5] = 90  # light outside the mask
    prepared = prepare(photograph, fov, Preprocessing(surround=0.12))
    lit = torch.from_numpy(photograph.max(axis=2) > 0.12 * 255)
    assert (prepared.image[:, ~lit] == 0).all()
    assert prepared.image[:, lit].mean(dim=1).abs().max() < 1e-4
    assert np.array_equal(prepared.native_fov, fov)


def test_every_kind_of_photograph_is_prepared_alike():
    photograph, fov = fundus((300, 310))
    tensor = torch.from_numpy(photograph).permute(2, 0, 1)
    sample = Sample(tv_tensors.Image(tensor / 255), None, tv_tensors.Mask(torch.from_numpy(fov)[None]))
    expected = prepare(photograph, fov).image
    for kind in (Image.fromarray(photograph), tensor, tensor / 255):
        assert torch.equal(prepare(kind, fov).image, expected)
    assert torch.equal(prepare(sample).image, expected)  # a sample brings its field of view
    detected = prepare(photograph)
    assert np.array_equal(detected.native_fov, detect_fov(photograph))
    with pytest.raises(ValueError, match=r"the field of view is \(9, 9\) and the photograph \(300, 310\)"):
        prepare(photograph, np.ones((9, 9), bool))
    with pytest.raises(ValueError, match="divide 0..255 by 255"):
        prepare(tensor.float(), fov)
    with pytest.raises(ValueError, match="lies in 0..1"):
        prepare(torch.full((3, 8, 8), torch.nan))


def test_standardise_of_nothing_or_constants_is_zero():
    assert (standardise(torch.zeros(2, 3, 8, 8)) == 0).all()
    assert (standardise(torch.full((2, 3, 8, 8), 0.7)).abs() < 1e-2).all()
    assert (standardise(torch.rand(3, 8, 8), torch.zeros(8, 8)) == 0).all()
    with pytest.raises(DataError, match="uint8"):
        standardise(torch.zeros(3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_standardise_is_stable_in_every_float(dtype):
    torch.manual_seed(0)
    image = (0.8 + 0.05 * torch.rand(1, 3, 584, 565)).to(dtype)  # summed naively, float16 would overflow
    out = standardise(image)
    assert out.dtype == dtype
    assert abs(out.double().mean()) < 0.01
    assert abs(out.double().std() - 1) < 0.01


def test_standardise_has_gradients_and_no_branch_on_the_data():
    torch.manual_seed(0)
    image = torch.rand(1, 2, 5, 5, dtype=torch.float64) * 0.5 + 0.3
    fov = torch.rand(1, 1, 5, 5) > 0.3
    assert torch.autograd.gradcheck(lambda x: standardise(x, fov), (image.requires_grad_(),))
    dark = torch.zeros(1, 3, 8, 8, requires_grad=True)
    standardise(dark).sum().backward()
    assert torch.isfinite(dark.grad).all()

    # a tensor without data cannot be branched on: what calls this can be traced and exported
    assert standardise(torch.rand(1, 3, 16, 16, device="meta")).shape == (1, 3, 16, 16)


# ---------------------------------------------------------------------- patches


@pytest.mark.parametrize("size", [32, 33, (16, 40)])
def test_patches_lie_in_the_frame_with_their_centre_in_the_fov(size):
    fov = disc(100, 90, 40)
    corners = sample_patch_corners(fov, size, 200, np.random.default_rng(0))
    height, width = (size, size) if isinstance(size, int) else size
    assert corners.shape == (200, 2)
    assert (corners >= 0).all()
    assert (corners <= (100 - height, 90 - width)).all()
    assert fov[corners[:, 0] + height // 2, corners[:, 1] + width // 2].all()
    assert (corners == sample_patch_corners(fov, size, 200, 0)).all()  # a seed will do

    image = np.random.default_rng(1).integers(0, 256, (100, 90, 3), dtype=np.uint8)
    patches = extract_patches(image, corners, size)
    assert patches.shape == (200, height, width, 3)
    for patch, (row, column) in zip(patches[:5], corners, strict=False):
        assert (patch == image[row : row + height, column : column + width]).all()
    assert extract_patches(fov, corners, size).shape == (200, height, width)


def test_patches_that_do_not_fit_say_so():
    fov = np.zeros((50, 50), bool)
    fov[:3, :3] = True
    with pytest.raises(DataError, match="does not fit"):
        sample_patch_corners(fov, 51, 1, 0)
    with pytest.raises(DataError, match="No patch"):
        sample_patch_corners(np.zeros((50, 50), bool), 8, 1, 0)
    with pytest.raises(DataError, match="No patch"):
        sample_patch_corners(fov, 32, 1, 0)
    with pytest.raises(DataError, match="leaves the frame"):
        extract_patches(fov, np.array([[45, 0]]), 8)
    with pytest.raises(DataError, match="0 and 1"):
        sample_patch_corners(fov * np.uint8(255), 8, 1, 0)


# ---------------------------------------------------------------------- squash


def test_squash_keeps_the_kind_of_its_input():
    image = data.retina()[::4, ::4]
    assert squash(image).shape == (256, 256, 3)
    assert squash(image[..., 1], (20, 30)).shape == (20, 30)
    mask = squash(disc(584, 565, 270), (100, 200))
    assert mask.dtype == bool
    assert mask.shape == (100, 200)
    assert mask.mean() == pytest.approx(disc(584, 565, 270).mean(), abs=0.01)


def test_thin_vessels_vanish_and_thick_ones_stay():
    thin, thick = np.zeros((584, 565), bool), np.zeros((584, 565), bool)
    thin[100, 50:500] = True
    thick[300:312, 50:500] = True
    for of in ("pixels", "centreline", "segments"):
        assert vanished_fraction(thin, of=of) == 1
        assert vanished_fraction(thick, of=of) < 0.1
        assert np.isnan(vanished_fraction(np.zeros((20, 20), bool), of=of))
    assert vanished_fraction(thin | thick, of="segments") == 0.5
    assert vanished_fraction(thin | thick, (584, 565)) == 0
    with pytest.raises(ValueError, match="voxels"):
        vanished_fraction(thin, of="voxels")


def test_a_record_cannot_change_and_an_empty_field_is_left_at_its_scale():
    record = Preprocessing()
    with pytest.raises(AttributeError):
        record.fov_width = 100
    assert record.scale(np.zeros((50, 60), bool)) == 1.0


def test_floats_that_were_bytes_are_the_same_bytes():
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    np.testing.assert_array_equal(as_photograph(grey / 255), as_photograph(grey))
    assert (as_photograph(torch.full((3, 4, 5), 1.005)) == 255).all(), "a hair's breadth too bright is white"
    for shape in ((1, 4, 5), (3, 4)):
        with pytest.raises(ValueError, match="expected one photograph"):
            as_photograph(torch.zeros(shape))


def test_half_of_a_pixel_is_enough_for_a_mask():
    stripes = np.zeros((40, 40), bool)
    stripes[:, ::2] = True
    assert rescale_mask(stripes, 0.5)[1:-1, 1:-1].all()
    assert not rescale_mask(stripes & (np.arange(40) % 4 == 0), 0.5)[1:-1, 1:-1].all()
