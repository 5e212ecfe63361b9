"""The exercises of notebook 02, preprocessing."""

from __future__ import annotations

import torch

from drive_unet.preprocessing import vanished_fraction
from drive_unet.widgets.exercises.checking import Exercise, answered, near


def _shifted(part: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    height, width = part.shape[-2:]
    moved = torch.zeros_like(part)
    for row in range(height):
        for column in range(width):
            if 0 <= row - rows < height and 0 <= column - columns < width:
                moved[..., row, column] = part[..., row - rows, column - columns]
    return moved


def _shift(function) -> bool | str:
    torch.manual_seed(0)
    image, vessels = torch.rand(3, 7, 6) + 0.1, torch.randint(0, 2, (1, 7, 6), dtype=torch.uint8)
    for rows, columns in ((2, 1), (0, 3), (-1, 2), (3, -2)):
        moved = answered(function(image.clone(), vessels.clone(), rows, columns))
        for name, part, given in zip(("image", "label"), (image, vessels), moved, strict=True):
            expected = _shifted(part, rows, columns)
            if tuple(given.shape) != tuple(expected.shape):
                return f"the {name} comes back as {tuple(given.shape)}"
            if torch.equal(given, part):
                return f"the {name} has not moved"
            if torch.equal(given, torch.roll(part, (rows, columns), (-2, -1))) and not torch.equal(
                given, expected
            ):
                return f"what leaves the {name} on one side comes in on the other"
            if not torch.allclose(given.float(), expected.float()):
                return f"moved by {rows} and {columns} the {name} is not where it should be"
    return True


def _framed(numbers, sample) -> bool | str:
    deviation, mean = torch.std_mean(sample.image, dim=(1, 2), keepdim=True)
    framed, inside = (sample.image - mean) / deviation, sample.fov[0] > 0
    surround, retina = framed[:, ~inside].mean().item(), framed[:, inside].mean().item()
    if not isinstance(numbers, (tuple, list)) or len(numbers) != 2:
        return "two numbers are wanted: (surround, retina)"
    right = near(surround, 0.01)(numbers[0]), near(retina, 0.01)(numbers[1])
    if all(right):
        return True
    if near((retina, surround), 0.01)(numbers):
        return "the surround comes first"
    if near((0, 0), 0.01)(numbers):
        return "that is what standardising inside the field of view gives"
    parts = ("the surround", "the retina")
    return any(right) and f"{parts[right.index(True)]} is right, {parts[right.index(False)]} is not"


EXERCISES = {
    "02-1": Exercise(
        _framed,
        "one mean and one deviation a channel, of the whole frame; then one number of all three channels",
    ),
    "02-2": Exercise(_shift, "torch.roll moves; then set to 0 what it brought round from the other side"),
    "02-3": Exercise(
        lambda share, vessels: abs(share - vanished_fraction(vessels, (512, 512), of="centreline")) <= 0.001,
        'vanished_fraction takes the label, a size (height, width), and of="centreline"',
    ),
}
