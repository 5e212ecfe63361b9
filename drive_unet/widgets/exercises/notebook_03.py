"""The exercises of notebook 03, the model."""

from __future__ import annotations

import torch
from torch import nn

from drive_unet.models import UNet
from drive_unet.widgets.exercises.checking import Exercise, answered, near


def _residual(build) -> bool | str:
    for channels in ((4, 4), (3, 8)):
        torch.manual_seed(0)
        module = answered(build(*channels))
        if not isinstance(module, nn.Module):
            return f"it gives a {type(module).__name__} instead of a module"
        image = torch.randn(2, channels[0], 12, 9)
        shape = (2, channels[1], 12, 9)
        out = answered(module.eval()(image))
        if tuple(out.shape) != shape:
            return (
                f"with {channels} channels it makes {tuple(out.shape)} of {tuple(image.shape)}, not {shape}"
            )
        convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
        wide = [layer for layer in convolutions if layer.kernel_size == (3, 3)]
        if len(wide) < 2:
            return "it has fewer than two 3x3 convolutions"
        with torch.no_grad():
            for (
                layer
            ) in wide:  # silenced; what is left is the way around them, a normalisation on it included
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.zero_()
        left = module(image)
        if not left.abs().sum() > 0:
            return "with its 3x3 convolutions silenced nothing comes out: there is no way around them"
        if channels[0] == channels[1] and not torch.allclose(
            left.clamp(min=0), image.clamp(min=0), atol=1e-5
        ):
            return "with its 3x3 convolutions silenced it does not hand the input on as it is"
    return True


def _light(network, multiply_adds) -> bool | str:
    if not isinstance(network, UNet):
        return f"it is a {type(network).__name__}, not a UNet"
    if list(network.arguments["widths"]) != [16, 24, 32, 48, 64]:
        return "its widths are others than those of UNet()"
    cost = multiply_adds(UNet(**network.arguments))
    return cost < 1e9 or f"it needs {cost / 1e9:.2f} billion"


EXERCISES = {
    "03-1": Exercise(
        near(3 * 3 * 24 * 32 + 3 * 3 * 32 * 32 + 2 * 2 * 32),
        "3 * 3 * inputs * outputs for each convolution, the second one has 32 inputs; and each "
        "normalisation has a scale and a shift for every channel",
    ),
    "03-2": Exercise(near(3), "the side is high - low + 1; try 1, 2, 3 and 4 poolings"),
    "03-3": Exercise(
        _residual,
        "add the input to what the block makes of it, through a 1x1 convolution where the channels change",
    ),
    "03-4": Exercise(_light, "the stem may be larger than 2"),
}
