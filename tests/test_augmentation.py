"""Augmentation moves image, vessels and FOV together, and draws from the seed alone."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision import tv_tensors

from drive_unet.augmentation import RandomColour, RandomFocus, RandomLight, RandomPatch, training_transform
from drive_unet.data import Sample
from drive_unet.preprocessing import levels, standardise


@pytest.fixture
def sample():
    """Smooth blobs in the first channel, the same blobs thresholded as vessels, an off-centre disc as FOV."""
    row, column = torch.meshgrid(torch.arange(120.0), torch.arange(100.0), indexing="ij")
    blobs = (torch.sin(row / 7) * torch.cos(column / 9) + 1) / 2
    fov = ((row - 55) ** 2 + (column - 45) ** 2 < 40**2)[None]
    image = blobs.expand(3, -1, -1) * fov
    return Sample(
        tv_tensors.Image(image),
        tv_tensors.Mask(((blobs > 0.5)[None] & fov).to(torch.uint8)),
        tv_tensors.Mask(fov.to(torch.uint8)),
    )


@pytest.mark.parametrize("seed", range(5))
def test_image_and_masks_move_together(sample, seed):
    torch.manual_seed(seed)
    patch = RandomPatch(64)(sample)
    assert isinstance(patch, Sample)
    assert [tuple(part.shape) for part in patch[:3]] == [(3, 64, 64), (1, 64, 64), (1, 64, 64)]
    assert (patch.image.dtype, patch.vessels.dtype, patch.fov.dtype) == (
        torch.float32,
        torch.uint8,
        torch.uint8,
    )
    # Nearest and bilinear differ where the blobs cross the level and at the rim; elsewhere they must agree.
    certain = ((patch.image[:1] - 0.5).abs() > 0.15) & patch.fov.bool()
    assert certain.float().mean() > 0.1
    agreeing = (patch.image[:1] > 0.5)[certain] == patch.vessels.bool()[certain]
    assert agreeing.float().mean() > 0.98


def test_masks_stay_exactly_binary(sample):
    torch.manual_seed(0)
    for _ in range(10):
        patch = RandomPatch(48)(sample)
        assert set(torch.cat([patch.vessels, patch.fov]).unique().tolist()) <= {0, 1}


def test_centres_lie_inside_the_fov(sample):
    torch.manual_seed(0)
    centres = [
        RandomPatch(9, exact=0, rotate=0, scale=(1, 1), flip=False)(sample).fov[0, 4, 4].item()
        for _ in range(50)
    ]
    assert all(centres)


@pytest.mark.parametrize("size", [15, 16])
def test_without_turn_scale_and_flip_the_pixels_are_the_photographs_own(sample, size):
    torch.manual_seed(3)
    patch = RandomPatch(size, exact=0, rotate=0, scale=(1, 1), flip=False)(sample)
    windows = sample.image[0].unfold(0, size, 1).unfold(1, size, 1)
    assert (windows - patch.image[0]).abs().amax(dim=(2, 3)).min() < 1e-4


@pytest.mark.parametrize("size", [15, 16])
def test_exact_patches_are_the_photographs_own_pixels_turned_by_right_angles_and_mirrored(sample, size):
    torch.manual_seed(0)
    windows = {
        (turn, mirror): (turned.flip(-1) if mirror else turned)
        for turn in range(4)
        for turned in [
            sample.image[0]
            .unfold(0, size, 1)
            .unfold(1, size, 1)
            .as_subclass(torch.Tensor)
            .rot90(turn, (2, 3))
        ]
        for mirror in (False, True)
    }
    seen = set()
    for _ in range(60):
        patch = RandomPatch(size, exact=1)(sample)
        if patch.fov.all():  # all of it eye, so that no two windows are alike
            distance = {key: (w - patch.image[0]).abs().amax(dim=(2, 3)).min() for key, w in windows.items()}
            seen.add(min(distance, key=distance.get))
            assert min(distance.values()) < 1e-3
    assert len(seen) == 8


def test_as_many_patches_are_exact_as_asked_for(sample):
    torch.manual_seed(0)
    grids = [RandomPatch(8, exact=0.3).make_params(list(sample))["grid"] for _ in range(300)]
    steps = torch.stack([grid[0, 0, 1] - grid[0, 0, 0] for grid in grids]).abs()
    assert 0.2 < (steps.amin(dim=1) < 1e-6).float().mean() < 0.4


def test_beyond_the_photograph_is_black_unlabelled_and_outside(sample):
    torch.manual_seed(0)
    patch = RandomPatch(400, exact=0, rotate=0, scale=(1, 1))(sample)
    assert patch.image[:, 0, 0].eq(0).all() and not patch.vessels[0, 0, 0] and not patch.fov[0, 0, 0]
    assert patch.vessels.sum() == pytest.approx(int(sample.vessels.sum()), rel=0.02)


def test_half_the_patches_are_mirrored(sample):
    left_right = []
    for seed in range(60):
        torch.manual_seed(seed)
        grid = RandomPatch(8, exact=0, rotate=0).make_params(list(sample))["grid"]
        left_right.append(bool(grid[0, 0, -1, 0] > grid[0, 0, 0, 0]))
    assert 15 < sum(left_right) < 45


def test_colour_leaves_masks_and_darkness_alone(sample):
    torch.manual_seed(0)
    changed = RandomColour()(sample)
    assert torch.equal(changed.vessels, sample.vessels) and torch.equal(changed.fov, sample.fov)
    assert not torch.equal(changed.image, sample.image)
    assert changed.image.min() >= 0 and changed.image.max() <= 1
    assert changed.image[:, ~sample.fov[0].bool()].max() < 0.01


def test_the_seed_decides(sample):
    def draw(seed):
        torch.manual_seed(seed)
        return training_transform(32)(sample).image

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_a_sample_without_labels_is_cut_too(sample):
    patch = RandomPatch(32)(sample._replace(vessels=None))
    assert patch.vessels is None and patch.image.shape == (3, 32, 32)


def whole(sample, size, seed, options):
    """The patch that the same drawn numbers give by resampling the whole photograph at once."""
    torch.manual_seed(seed)
    height, width = sample.image.shape[-2:]
    while True:
        row, column = int(torch.randint(height, ())), int(torch.randint(width, ()))
        if sample.fov[0, row, column]:
            break
    if torch.rand(()) < options["exact"]:
        angle, step = math.pi / 2 * int(torch.randint(4, ())), 1.0
    else:
        angle = math.radians(-180 + 360 * torch.rand(()).item())
        step = math.exp(-(math.log(0.8) + (math.log(1.25) - math.log(0.8)) * torch.rand(()).item()))
    mirror = -1.0 if torch.rand(()) < 0.5 else 1.0
    reach, odd = step * size, size % 2
    cosine, sine = math.cos(angle), math.sin(angle)
    theta = torch.tensor(
        [
            [mirror * reach * cosine / width, -reach * sine / width, (2 * column + odd) / width - 1],
            [mirror * reach * sine / height, reach * cosine / height, (2 * row + odd) / height - 1],
        ]
    )
    grid = F.affine_grid(theta[None], [1, 1, size, size], align_corners=False)
    image = sample.image.as_subclass(torch.Tensor)[None] / 255
    return F.grid_sample(image, grid, align_corners=False)[0]


@pytest.mark.parametrize("size", [33, 64, 250])
@pytest.mark.parametrize("exact", [0, 1])
def test_a_patch_cut_from_bytes_is_that_of_the_whole_photograph(sample, size, exact):
    """Sizes reach from well inside the photograph to beyond it on all sides."""
    stored = sample._replace(image=tv_tensors.Image((sample.image * 255).to(torch.uint8)))
    for seed in range(20):
        torch.manual_seed(seed)
        patch = RandomPatch(size, exact=exact)(stored)
        assert patch.image.dtype == torch.float32
        expected = whole(stored, size, seed, {"exact": exact})
        torch.testing.assert_close(patch.image.as_subclass(torch.Tensor), expected, atol=2e-3, rtol=0)


def test_a_patch_needs_few_pixels_of_a_large_photograph():
    image = tv_tensors.Image(torch.zeros(3, 3000, 2000, dtype=torch.uint8))
    for seed in range(20):
        torch.manual_seed(seed)
        rows, columns = RandomPatch(64, exact=0.5).make_params([image])["window"]
        assert 0 <= rows.start < rows.stop <= 3000 and 0 <= columns.start < columns.stop <= 2000
        assert max(rows.stop - rows.start, columns.stop - columns.start) <= 64 * 1.25 * 2**0.5 + 4


def test_a_patch_is_standardised_by_the_whole_of_its_changed_photograph(sample):
    stored = (sample.image * 255).to(torch.uint8)
    fov = sample.fov[0].bool().numpy()
    known = levels(stored.numpy().transpose(1, 2, 0), fov)
    photograph = sample._replace(image=tv_tensors.Image(stored), levels=known)
    before = known.clone()
    for seed in range(5):
        torch.manual_seed(seed)
        changed = RandomColour(noise=0)(photograph)
        assert not torch.equal(changed.levels, before) and torch.equal(known, before)
        by_levels = standardise(changed.image, changed.fov, changed.levels)
        torch.testing.assert_close(by_levels, standardise(changed.image, changed.fov), atol=1e-3, rtol=1e-3)
        torch.manual_seed(seed)
        patch = training_transform(32)(photograph)
        assert patch.levels.shape == (3, 256, 2)
        torch.testing.assert_close(patch.levels[..., 0], before[..., 0])


def test_widths_bring_every_photograph_to_the_same_size():
    """Two photographs of one eye, one twice as large: their patches show the same."""
    row, column = torch.meshgrid(torch.arange(400.0), torch.arange(400.0), indexing="ij")
    fov = ((row - 199.5) ** 2 + (column - 199.5) ** 2 < 100**2)[None]
    large = ((row - 199.5) ** 2 + (column - 199.5) ** 2 < 200**2)[None]
    transform = RandomPatch(150, exact=0, widths=(120, 120))
    for mask in (fov, large):
        part = Sample(tv_tensors.Image(mask.expand(3, -1, -1).float()), None, tv_tensors.Mask(mask.byte()))
        widths = []
        for seed in range(20):
            torch.manual_seed(seed)
            patch = transform(part)
            full = patch.fov[0].amax(dim=0).sum().item(), patch.fov[0].amax(dim=1).sum().item()
            widths.append(max(full))
        assert max(widths) == pytest.approx(120, abs=2)


@pytest.mark.parametrize("change", [RandomFocus(share=1), RandomLight()])
def test_focus_and_light_change_the_image_alone(sample, change):
    torch.manual_seed(0)
    changed = change(sample)
    assert changed.vessels is sample.vessels and changed.fov is sample.fov
    assert changed.image.shape == sample.image.shape and not torch.equal(changed.image, sample.image)
    assert changed.image.min() >= 0 and changed.image.max() <= 1
    stored = Sample(tv_tensors.Image((sample.image * 255).round().byte()), sample.vessels, sample.fov)
    torch.manual_seed(0)
    assert torch.allclose(change(stored).image, changed.image, atol=0.02)


def test_focus_blurs_or_sharpens(sample):
    detail = sample.image[:, 1:].sub(sample.image[:, :-1]).square().sum()
    kinds = set()
    for seed in range(12):
        torch.manual_seed(seed)
        image = RandomFocus(share=1)(sample).image
        kinds.add(bool(image[:, 1:].sub(image[:, :-1]).square().sum() > detail))
    assert kinds == {False, True}
    torch.manual_seed(0)
    assert RandomFocus(share=0)(sample).image is sample.image


def test_light_is_smooth_and_bounded():
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.full((3, 64, 64), 0.5))
    for _ in range(10):
        factor = RandomLight(contrast=0.3)(image) / 0.5
        assert 1 / 1.31 <= factor.min() and factor.max() <= 1.31
        assert factor.diff(dim=-1).abs().max() < 0.03
