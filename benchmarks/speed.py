"""Speed and memory beside three well-known networks, in one run: one pass and one training step.

    pip install monai segmentation-models-pytorch
    python benchmarks/speed.py

Budget: about four minutes on two cores. Every round times every network once, so that a busy moment hits all
of them; the table holds medians over the rounds and the ratio to each rival. The input is one photograph of
DRIVE's size (584x565; the first two rivals get 608x576, the next size they take), a training step is eight
256x256 patches with forward, loss, backward and AdamW. Memory is the peak of a process of its own that does
nothing else, PyTorch included. No training and no data are needed: speed does not depend on the weights.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from records import hardware
from rival import WNet
from torch import nn

from drive_unet import UNet
from drive_unet.losses import combine
from drive_unet.models import SegmentationModel
from drive_unet.training.provenance import versions

RIVALS = ("BasicUNet", "Unet-resnet34", "little W-Net")
OURS = ("default", "fast")


def build(name: str) -> nn.Module:
    """A network with packaged weights, or a rival as its own project builds it for one class."""
    if name == "BasicUNet":
        from monai.networks.nets import BasicUNet

        return BasicUNet(spatial_dims=2, in_channels=3, out_channels=1)
    if name == "Unet-resnet34":
        from segmentation_models_pytorch import Unet

        return Unet("resnet34", encoder_weights=None)
    if name == "little W-Net":
        return WNet()
    return UNet.from_pretrained(name)


def one_pass(name: str, device: str) -> Callable[[], None]:
    model = build(name).eval().to(device)
    size = (584, 565) if isinstance(model, SegmentationModel) else (608, 576)
    image = torch.rand(1, 3, *size, device=device)

    def work() -> None:
        with torch.inference_mode():
            model(image).sigmoid().cpu()

    return work


def training_step(name: str, device: str) -> Callable[[], None]:
    model = build(name).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss = combine(bce=1.0, dice=0.5)
    images = torch.rand(8, 3, 256, 256, device=device)
    vessels = (torch.rand(8, 1, 256, 256, device=device) > 0.88).to(torch.uint8)

    def work() -> None:
        optimizer.zero_grad()
        value = loss(model(images), vessels, None)
        value.backward()
        optimizer.step()
        value.item()

    return work


WORK = {"one pass": one_pass, "training step": training_step}


def measure(kind: str, rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each network, timed in turn."""
    works = {name: WORK[kind](name, device) for name in (*OURS, *RIVALS)}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def peak_memory(kind: str, name: str) -> float:
    """Peak memory in GB of a process that does this work three times."""
    code = [sys.executable, __file__, "--memory-of", kind, name]
    return float(subprocess.run(code, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        kind, name = options.memory_of
        work = WORK[kind](name, "cpu")
        for _ in range(3):
            work()
        # not ru_maxrss: that remembers the process which this one was started from
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1e6)
        return
    record = {"hardware": hardware(), "versions": versions()}
    for kind in WORK:
        seconds = measure(kind, options.rounds, options.device)
        print(f"\n{kind}: ms, times as fast as each rival, peak memory")
        for name, own in seconds.items():
            row = {"ms": round(1000 * own, 1)}
            if name in OURS:
                row |= {f"vs {rival}": round(seconds[rival] / own, 1) for rival in RIVALS}
            if options.device == "cpu" and sys.platform == "linux":
                row["GB"] = round(peak_memory(kind, name), 2)
            record[f"{name}, {kind}"] = row
            print(f"  {name:14} {row}", flush=True)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
