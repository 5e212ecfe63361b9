"""Losses: values by hand, blindness outside the FOV, gradients."""

import math

import pytest
import torch
from monai.losses import SoftclDiceLoss
from torch.nn import functional as F

from drive_unet.losses import LOSSES, cldice_loss, combine, soft_skeleton


@pytest.fixture
def vessel():
    """A horizontal bar of three pixels in a 32x32 frame: (1, 1, 32, 32)."""
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    mask[..., 14:17, 4:28] = 1
    return mask


def test_bce_by_hand():
    logits = torch.tensor([[[[0.0, 2.0]]]])
    vessels = torch.tensor([[[[1, 0]]]])
    assert LOSSES["bce"](logits, vessels).item() == pytest.approx(
        (math.log(2) + math.log(1 + math.exp(2))) / 2
    )
    assert LOSSES["bce"](logits, vessels, torch.tensor([[[[1, 0]]]])).item() == pytest.approx(math.log(2))


def test_soft_dice_by_hand():
    logits = torch.tensor([[[[0.0, 0.0, 0.0, 0.0]]]])  # probability one half everywhere
    vessels = torch.tensor([[[[1, 1, 0, 0]]]])
    assert LOSSES["dice"](logits, vessels).item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))


@pytest.mark.parametrize("name", LOSSES)
def test_right_is_near_zero_and_wrong_is_not(name, vessel):
    fov = torch.ones_like(vessel)
    right = (vessel.float() * 2 - 1) * 20
    assert LOSSES[name](right, vessel, fov).item() < 0.05
    assert LOSSES[name](-right, vessel, fov).item() > 0.8


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_outside_the_fov_do_not_count(name, vessel):
    fov = torch.zeros_like(vessel)
    fov[..., 8:24, 8:24] = 1
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 32, 32)
    changed = torch.where(fov.bool(), logits, torch.randn_like(logits) * 9)
    assert LOSSES[name](logits, vessel, fov).item() == LOSSES[name](changed, vessel, fov).item()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("label", [0, 1])
def test_gradients_are_finite_even_without_vessels_or_fov(name, label):
    logits = torch.randn(2, 1, 16, 16, requires_grad=True)
    vessels = torch.full((2, 1, 16, 16), label)
    LOSSES[name](logits, vessels, torch.zeros_like(vessels)).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() == 0
    LOSSES[name](logits, vessels, torch.ones_like(vessels)).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_the_gradient_lowers_the_loss(name, vessel):
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 32, 32, requires_grad=True)
    before = LOSSES[name](logits, vessel)
    before.backward()
    after = LOSSES[name](logits - 10 * logits.grad, vessel)
    assert after.item() < before.item()


def test_cldice_minds_a_gap_more_than_a_thin_wall(vessel):
    gap, thin = vessel.float().clone(), vessel.float().clone()
    gap[..., 14:17, 14:17] = 0  # nine pixels away, the vessel is cut in two
    thin[..., 14, 8:17] = 0  # nine pixels away, the vessel is whole
    loss = {
        name: LOSSES["cldice"]((mask * 2 - 1) * 20, vessel).item()
        for name, mask in (("gap", gap), ("thin", thin))
    }
    assert loss["gap"] > loss["thin"] + 0.02


def test_soft_skeleton_of_a_bar_is_its_middle_line(vessel):
    skeleton = soft_skeleton(vessel.float())
    assert skeleton[0, 0, 15, 6:26].min() == 1
    assert skeleton[0, 0, [14, 16], 8:24].max() == 0


@pytest.mark.parametrize("iterations", [1, 6])
def test_cldice_is_monais(vessel, iterations):
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 32, 32) + 4 * (vessel.float() - 0.5)
    # Releases before 1.6 leave the first channel out, later ones do not: it is empty here.
    pair = [F.pad(part, (0, 0, 0, 0, 1, 0)) for part in (torch.sigmoid(logits), vessel.float())]
    theirs = SoftclDiceLoss(iter_=iterations)(*pair)
    ours = cldice_loss(logits, vessel, iterations=iterations)
    assert ours.item() == pytest.approx(theirs.item(), abs=3e-4)  # theirs adds 1e-4 to one denominator more


def test_combine_weighs_and_refuses_unknown_names(vessel):
    logits = torch.randn(1, 1, 32, 32)
    both = combine(bce=2, dice=0.5)(logits, vessel).item()
    assert both == pytest.approx(
        2 * LOSSES["bce"](logits, vessel).item() + 0.5 * LOSSES["dice"](logits, vessel).item()
    )
    with pytest.raises(ValueError, match="unknown loss focal; choose from bce, dice, cldice"):
        combine(focal=1)
    with pytest.raises(ValueError, match="none given"):
        combine()


@pytest.mark.parametrize("name", LOSSES)
def test_masks_of_another_shape_are_refused(name, vessel):
    logits = torch.zeros(2, 1, 32, 32)
    both = vessel.expand(2, 1, 32, 32)
    for vessels, fov in ((both[:, 0], None), (vessel, None), (both, both[:, 0])):
        with pytest.raises(ValueError, match=r"of shape .* do not belong to logits of \(2, 1, 32, 32\)"):
            LOSSES[name](logits, vessels, fov)
