"""The networks: shapes, sizes, gradients, skips, weights in one file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from drive_unet import models
from drive_unet.models import SkiplessNet, UNet


@pytest.fixture(params=[UNet, SkiplessNet])
def model(request):
    torch.manual_seed(0)
    return request.param()


@pytest.mark.parametrize("size", [(584, 565), (1, 1), (17, 31), (64, 64), (255, 3)])
def test_logits_have_the_size_of_the_input(model, size):
    with torch.inference_mode():
        logits = model.eval()(torch.rand(2, 3, *size))
    assert logits.shape == (2, 1, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("stem", "widths"), [(1, (8, 16)), (2, (8, 16, 24)), (4, (8, 8, 8, 8))])
def test_other_depths_stems_and_channels(stem, widths):
    model = UNet(in_channels=1, num_classes=3, widths=widths, stem=stem).eval()
    assert model(torch.rand(1, 1, 50, 33)).shape == (1, 3, 50, 33)
    assert model.multiple == stem * 2 ** (len(widths) - 1)


def test_every_parameter_receives_a_gradient(model):
    model.train()(torch.rand(2, 3, 64, 64)).square().mean().backward()
    silent = [
        name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum()
    ]
    assert silent == []


def test_skips_carry_what_the_bottleneck_loses():
    """With the bottleneck silenced a change of one pixel still reaches the output of the U-Net."""
    torch.manual_seed(0)
    model = UNet().eval()
    for parameter in model.bottleneck.parameters():
        parameter.data.zero_()
    image = torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 32, 32] = 1 - changed[..., 32, 32]
    assert not torch.allclose(model(image), model(changed), atol=1e-5)


def test_brightness_and_contrast_make_no_difference():
    torch.manual_seed(0)
    model, image = UNet().eval(), torch.rand(1, 3, 64, 64) * 0.5 + 0.4
    dimmer = image * torch.tensor([0.9, 0.8, 0.7])[:, None, None]
    assert torch.allclose(model(image), model(dimmer), atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 64, 1)])
def test_another_shape_is_refused_with_its_numbers(model, shape):
    with pytest.raises(ValueError, match="takes \\(B, 3, H, W\\)"):
        model(torch.rand(shape))


def test_weights_make_the_round_trip(model, tmp_path):
    model.threshold, model.threshold_single, model.fov_width = 0.375, 0.25, 300
    model.notes = {"data": "made up"}
    path = model.save_pretrained(tmp_path / "run" / "best.safetensors")
    for source in (path, path.parent, str(path)):
        loaded = type(model).from_pretrained(source)
        assert (loaded.notes, loaded.training, loaded.fov_width) == ({"data": "made up"}, False, 300)
        assert (loaded.threshold_for(tta=True), loaded.threshold_for(tta=False)) == (0.375, 0.25)
        image = torch.rand(1, 3, 40, 40)
        assert torch.equal(model.eval()(image), loaded(image))
    assert [entry.name for entry in path.parent.iterdir()] == ["best.safetensors"]


PACKAGED = ("default", "fast", "synthetic", "synthetic-2")


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_bring_all_that_is_needed_to_use_them(name):
    model = UNet.from_pretrained(name)
    for threshold in (model.threshold, model.threshold_single):
        assert type(threshold) is float and 0.2 < threshold < 0.7
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_000_000
    assert model.fov_width == 540
    assert {"data", "threshold", "training", "terms", "limits", "versions", "trained_on"} <= set(model.notes)
    with torch.inference_mode():
        assert model(torch.rand(2, 3, 61, 45)).isfinite().all()


def test_packaged_weights_know_what_they_learned_from():
    for name in ("synthetic", "synthetic-2"):
        painted = UNet.from_pretrained(name).notes["trained_on"]
        assert not any(photograph.isdigit() for photograph in painted["names"])
    for name in ("default", "fast"):
        record = UNet.from_pretrained(name).notes["trained_on"]
        assert record["source"] == "DRIVE" and record["names"] == [str(number) for number in range(21, 41)]
        assert record["before"]["fingerprints"] == painted["fingerprints"]


def test_packaged_weights_are_small_and_the_default_is_taken_without_a_name():
    folder = Path(models.__file__).parent / "weights"
    assert {path.stem for path in folder.glob("*.safetensors")} == set(PACKAGED)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    default, named = UNet.from_pretrained().state_dict(), UNet.from_pretrained("default").state_dict()
    assert all(torch.equal(default[name], named[name]) for name in named)


def test_half_precision_halves_the_file_and_hardly_moves_the_answer(tmp_path):
    model = UNet.from_pretrained("synthetic")
    whole, half = (
        model.save_pretrained(tmp_path / f"{half}.safetensors", half=half) for half in (False, True)
    )
    sizes = [path.stat().st_size - 2 * len(json.dumps(model.notes)) for path in (half, whole)]
    assert sizes[0] < 0.65 * sizes[1]
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        one, other = (torch.sigmoid(UNet.from_pretrained(path)(image)) for path in (whole, half))
    assert 0 <= (one - other).abs().max() < 0.01


@pytest.mark.parametrize("size", [(64, 64), (61, 45)])
def test_folded_normalisation_gives_the_same_logits(size):
    torch.manual_seed(0)
    model = UNet(widths=(6, 8))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if trained
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    image = torch.rand(1, 3, *size)
    with torch.inference_mode():
        folded = model.eval()(image)
        for module in model.modules():
            if isinstance(module, models.ConvBlock):
                module.training = True  # the block takes its layers one by one, which are in evaluation mode
        assert torch.allclose(model(image), folded, atol=1e-4)


def test_weights_that_cannot_be_used_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="packaged name: .*synthetic"):
        UNet.from_pretrained(tmp_path / "nothing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="broken.safetensors is damaged"):
        UNet.from_pretrained(broken)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(1)}, foreign, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="foreign.safetensors is damaged or was not written by"):
        UNet.from_pretrained(foreign)
    config = {"model": "UNet", "arguments": {"in_channels": 3, "num_classes": 1, "widths": [8, 8], "stem": 2}}
    save_file(
        {"weight": torch.zeros(1)},
        foreign,
        metadata={"config": json.dumps(config | {"threshold": 0.5, "notes": {}})},
    )
    with pytest.raises(ValueError, match=r"foreign.safetensors.*weights.*do not fit"):
        UNet.from_pretrained(foreign)
    other = SkiplessNet().save_pretrained(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds a SkiplessNet, not a UNet"):
        UNet.from_pretrained(other)
