"""The networks: a U-Net that works at half resolution inside, and the article's network without skips.

Both take RGB photographs in 0..1 of any size and standardise them inside, so that no caller can mismatch
the preprocessing; both give logits of the photograph's own size. Weights travel in one safetensors file
whose metadata holds everything needed to rebuild the network and to use it: arguments, threshold, notes.

Source of the U-Net: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015 (arXiv 1505.04597).
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from drive_unet.preprocessing.photographs import standardise


class ConvBlock(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU; height and width stay.

    In evaluation mode a normalisation is a fixed scale and shift: it is folded into the convolution before
    it, which gives the same numbers in about six sevenths of the time.

    Args:
        in_channels: channels of the input, (B, in_channels, H, W).
        out_channels: channels of the output, (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        layers = list(self)
        for conv, norm, relu in zip(layers[0::3], layers[1::3], layers[2::3], strict=True):
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight, bias = conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
            x = relu(F.conv2d(x, weight, bias, padding=1))
        return x


class SegmentationModel(nn.Module):
    """What both networks share: any input size, standardisation inside, a threshold, weights in one file.

    Attributes:
        threshold: probability at and above which a pixel is called vessel where four flips are averaged;
            chosen on validation images.
        threshold_single: the same for one pass, whose probabilities are a little less certain.
        fov_width: pixels across the FOV of the photographs that it learned from, the scale that it knows.
        notes: whatever should travel with the weights (training data, protocol, versions); JSON types.
        arguments: the constructor's arguments, as stored with the weights.
    """

    multiple = 1  # height and width are padded to a multiple of this inside

    def __init__(self, in_channels: int, num_classes: int, **arguments: Any) -> None:
        super().__init__()
        self.arguments = {"in_channels": in_channels, "num_classes": num_classes, **arguments}
        self.threshold = self.threshold_single = 0.5
        self.fov_width = 540  # DRIVE's
        self.notes: dict[str, Any] = {}

    def forward(self, image: Tensor) -> Tensor:
        """Logits of vessel for photographs of any size.

        Args:
            image: (B, in_channels, H, W) float, 0..1.

        Returns:
            (B, num_classes, H, W) float logits; ``sigmoid`` makes them probabilities.

        Raises:
            ValueError: for an input of another shape or channel count.
        """
        channels = self.arguments["in_channels"]
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(
                f"the network takes (B, {channels}, H, W), this input is {tuple(image.shape)}; "
                "add the batch dimension with image[None]"
            )
        return self.logits(standardise(image))

    def logits(self, standardised: Tensor) -> Tensor:
        """Logits from an already standardised (B, in_channels, H, W) batch; pads inside and crops after."""
        height, width = standardised.shape[-2:]
        padding = (0, -width % self.multiple, 0, -height % self.multiple)  # right and bottom
        padded = F.pad(standardised, padding, mode="replicate") if any(padding) else standardised
        return self.network(padded)[..., :height, :width]

    def network(self, x: Tensor) -> Tensor:
        """Logits for a batch whose height and width are multiples of ``multiple``."""
        raise NotImplementedError

    def threshold_for(self, tta: bool) -> float:
        """``threshold`` where four flips are averaged, ``threshold_single`` for one pass."""
        return self.threshold if tta else self.threshold_single

    def save_pretrained(self, path: str | Path, *, half: bool = False) -> Path:
        """Write weights, arguments, thresholds and notes to one ``.safetensors`` file and return its path.

        Args:
            path: the file; its folder is made.
            half: store the convolutions in float16, half the size; they are used as float32 again.
        """
        path = Path(path)
        config = {
            "model": type(self).__name__,
            "arguments": self.arguments,
            "threshold": self.threshold,
            "threshold_single": self.threshold_single,
            "fov_width": self.fov_width,
            "notes": self.notes,
        }
        state = {
            name: (value.half() if half and value.ndim == 4 else value).contiguous()
            for name, value in self.state_dict().items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".part")
        unfinished.write_bytes(save(state, {"config": json.dumps(config)}))
        unfinished.replace(path)  # a run that is stopped here leaves the older file whole
        return path

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path = "default") -> Self:
        """The network with trained weights, in evaluation mode, on the CPU.

        Args:
            name_or_path: name of weights that come with the package (``"default"`` and ``"fast"``, trained
                on DRIVE; ``"synthetic"``, trained on painted photographs alone; ``"synthetic-2"``, what the
                presets start from), a ``.safetensors`` file, or a run's folder, of which
                ``best.safetensors`` is taken.

        Raises:
            FileNotFoundError: neither packaged weights nor a file; the message lists the names.
            ValueError: a file without this package's config, damaged, or of another network.
        """
        path = _weights_file(name_or_path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {key: file.get_tensor(key) for key in file.keys()}
            config = json.loads(metadata["config"])
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is damaged or was not written by save_pretrained of drive_unet; save it again"
            ) from error
        if config["model"] != cls.__name__:
            raise ValueError(
                f"{path} holds a {config['model']}, not a {cls.__name__}; load it with that class"
            )
        try:
            model = cls(**config["arguments"])
            model.load_state_dict(state)
        except (RuntimeError, TypeError) as error:  # TypeError: arguments of another version
            raise ValueError(
                f"{path}: its weights do not fit the {cls.__name__} that its config describes"
            ) from error
        model.threshold, model.notes = float(config["threshold"]), config["notes"]
        model.threshold_single = float(config.get("threshold_single", model.threshold))
        model.fov_width = config.get("fov_width", model.fov_width)
        return model.eval()


def _weights_file(name_or_path: str | Path) -> Path:
    packaged = {
        Path(entry.name).stem: entry
        for entry in resources.files("drive_unet").joinpath("weights").iterdir()
        if entry.name.endswith(".safetensors")
    }
    if str(name_or_path) in packaged:
        return Path(str(packaged[str(name_or_path)]))
    path = Path(name_or_path)
    path = path / "best.safetensors" if path.is_dir() else path
    if not path.is_file():
        names = ", ".join(sorted(packaged)) or "none"
        raise FileNotFoundError(
            f"no weights at {path}; give a file, a run's folder, or a packaged name: {names}"
        )
    return path


class UNet(SegmentationModel):
    """A U-Net: encoder, bottleneck, decoder, and a skip connection at every level.

    The first step folds each ``stem`` x ``stem`` square of pixels into channels (space to depth), the last
    one unfolds them again (depth to space). All convolutions in between see a picture of half the height
    and width: a quarter of the work, and no pixel is averaged away.

    Args:
        in_channels: channels of the photograph, 3 for RGB.
        num_classes: channels of the output, 1 for vessel against background.
        widths: channels at each level, from the finest to the bottleneck.
        stem: side of the folded square; 1 gives the classical U-Net at full resolution.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        *,
        widths: tuple[int, ...] = (16, 24, 32, 48, 64),
        stem: int = 2,
    ) -> None:
        super().__init__(in_channels, num_classes, widths=list(widths), stem=stem)
        self.multiple = stem * 2 ** (len(widths) - 1)
        self.fold = nn.PixelUnshuffle(stem)
        inputs = (in_channels * stem**2, *widths[:-2])
        self.encoder = nn.ModuleList(ConvBlock(i, o) for i, o in zip(inputs, widths[:-1], strict=True))
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = ConvBlock(widths[-2], widths[-1])
        deeper = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (from, to), bottom to top
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in deeper)
        self.decoder = nn.ModuleList(ConvBlock(2 * o, o) for _, o in deeper)
        self.head = nn.Conv2d(widths[0], num_classes * stem**2, 1)
        self.unfold = nn.PixelShuffle(stem)
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU, here

    def network(self, x: Tensor) -> Tensor:
        x = self.fold(x)  # (B, 4C, H/2, W/2)
        skips = []
        for block in self.encoder:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.bottleneck(x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        return self.unfold(self.head(x))  # (B, num_classes, H, W)


class SkiplessNet(SegmentationModel):
    """The article's network for comparison: one pooling, no skip connection, no normalisation.

    Called a U-Net there; without skips the decoder has to guess every fine detail from a pooled picture.

    Args:
        in_channels: channels of the photograph, 3 for RGB.
        num_classes: channels of the output.
        width: channels of the first level; the second has twice as many.
    """

    multiple = 2

    def __init__(self, in_channels: int = 3, num_classes: int = 1, *, width: int = 64) -> None:
        super().__init__(in_channels, num_classes, width=width)
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * width, width, 2, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, num_classes, 1),
        )

    def network(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
