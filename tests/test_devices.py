"""Devices without a GPU: fake tensors have a device and no numbers, and refuse to be mixed.

So the networks, the losses, standardising, prediction, the watch of a training, validation and averages
run here as on a GPU. What cannot: the way back of the gradients and the optimiser, which need the device
itself; accelerate's wrapping and autocast; the move of a whole network (`Module.to`), which is left out;
copies of weights, which are new ones; and whatever decides by numbers, which are made up, one for all
(`Answers`). Maps that have come back to the CPU are made up as well, and go on to a threshold in earnest.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import write_split
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from drive_unet import losses
from drive_unet.data import DRIVEDataset
from drive_unet.data.sample import Sample
from drive_unet.inference import Segmenter
from drive_unet.models import ArticleNet, UNet
from drive_unet.preprocessing.prepare import Prepared, standardise
from drive_unet.training.loop import TrainingRun, _Keeper
from drive_unet.training.watch import FROM, Watch, first_not_finite

# PyTorch 2.6 aborts in a convolution of such tensors, the whole process with it; 2.11 does not.
pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 11),
    reason="fake convolutions abort in PyTorch 2.6",
)
DEVICES = ("cuda",)  # of "mps" PyTorch aborts where there is no Metal
NETWORKS = {"UNet": lambda: UNet(widths=(4, 8, 8)), "ArticleNet": ArticleNet}


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)  # no weights to move
    monkeypatch.setattr(FakeTensor, "__deepcopy__", copied, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            torch.empty(1, device=request.param) + 1
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            pytest.skip(f"fake tensors cannot be on {request.param} here: {error}")
        yield request.param


def on(device, name="UNet"):
    """A network whose weights are fake tensors on a device that need not be there."""
    with torch.device(device):
        return NETWORKS[name]()


def copied(weight, memo):
    """A new fake tensor like this one; Python's own way reads numbers that are not there, and aborts."""
    with weight.fake_mode:
        new = torch.empty_like(weight)
        return (
            torch.nn.Parameter(new, weight.requires_grad) if isinstance(weight, torch.nn.Parameter) else new
        )


def batch(device, size=32):
    """Image, vessels and FOV on the CPU, as a loader gives them, and the same image on the device."""
    image = torch.rand(2, 3, size, size)
    vessels, fov = (torch.ones(2, 1, size, size, dtype=torch.uint8) for _ in range(2))
    return image, vessels, fov, torch.empty(2, 3, size, size, device=device)


class NoDouble(TorchDispatchMode):
    """Refuses float64 off the CPU, as MPS does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for value in tree_leaves(result):
            if (
                isinstance(value, torch.Tensor)
                and value.dtype == torch.float64
                and value.device.type != "cpu"
            ):
                raise TypeError(f"{function} makes float64 on {value.device}, which MPS does not have")
        return result


class Answers(NoDouble):
    """Answers whoever reads a number of a fake tensor, or cuts out what a mask marks, which is 7 elements."""

    def __init__(self, truth):
        super().__init__()
        self.truth = truth

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            return {torch.bool: self.truth, torch.int64: 1}.get(args[0].dtype, 0.5)
        if function is torch.ops.aten.index.Tensor and args[1][0].dtype == torch.bool:
            assert {args[0].device} == {mask.device for mask in args[1]}
            return args[0].new_empty(7)
        return super().__torch_dispatch__(function, types, args, kwargs)


def test_a_forgotten_move_is_noticed(device):
    with pytest.raises(RuntimeError, match="device"):
        on(device)(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses_take_labels_from_the_cpu(device, name):
    _, vessels, fov, _ = batch(device)
    logits = torch.empty(2, 1, 32, 32, device=device, requires_grad=True)
    for mask in (fov, None):
        value = losses.LOSSES[name](logits, vessels, mask)
        assert value.device.type == device and value.shape == ()
    assert losses.combine(bce=1, dice=0.5, cldice=0.2)(logits, vessels, fov).device.type == device


@pytest.mark.parametrize("network", NETWORKS)
def test_the_way_forward_of_a_training_step(device, network):
    model = on(device, network).train()
    _, vessels, fov, image = batch(device)
    levels = torch.rand(2, 3, 256, 2)
    logits = model(standardise(image, fov, levels))
    value = losses.combine(bce=1, dice=0.5)(logits, vessels, fov)
    assert value.device.type == device  # its way back needs the device itself


@pytest.mark.parametrize("moved", [True, False])
def test_a_device_without_float64_standardises_patches(device, moved):
    _, _, fov, image = batch(device)
    levels = torch.rand(2, 3, 256, 2)
    with NoDouble():
        patches = standardise(image, fov, levels.to(device) if moved else levels)
    assert patches.device.type == device and patches.dtype == torch.float32


def test_a_photograph_is_standardised_on_its_device(device):
    _, _, fov, image = batch(device)
    for mask in (fov, None):
        assert standardise(image, mask).device.type == device


@pytest.mark.parametrize("tile", [None, 32])
def test_flips_and_tiles(device, tile):
    run = Segmenter(on(device), tta=True, tile=tile, overlap=8)
    fov = np.ones((56, 48), bool)
    prepared = Prepared(torch.rand(3, 56, 48), torch.ones(1, 56, 48, dtype=torch.uint8), fov)
    with NoDouble():
        maps = run.flips([prepared, prepared])
    assert run.device.type == device
    assert maps.shape == (4, 2, 56, 48) and maps.device.type == "cpu"


@pytest.mark.parametrize("truth", [True, False])
def test_a_training_is_watched_on_its_device(device, truth):
    accelerator = SimpleNamespace(reduce=lambda value, how: value, is_main_process=True)
    model, (_, vessels, fov, image) = on(device), batch(device)
    watch = Watch(model, 1e-2, lambda step: ["21"], accelerator)
    moved = Sample(image, vessels.to(device), fov.to(device), None)
    with Answers(truth):
        if truth:  # whether labels are {0, 1}
            watch.batch(moved, 1)
        logits = model(image)
        assert watch.loss(logits.mean(), image, 1) == 0.5
        watch.predictions(logits, moved, FROM)
        assert len(watch.causes(logits)) == 5
        assert first_not_finite(model, image).startswith("the loss" if truth else "the photographs")
    assert watch.looks == [""]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_validation_and_averages_stay_on_their_device(device, decay, tmp_path, monkeypatch):
    """What `fit` keeps goes into the average, through `best_threshold`, and back into the network."""
    model = on(device)
    fake, flips, passes = next(model.parameters()).fake_mode, Segmenter.flips, []

    def elsewhere(self, photographs):
        with fake, Answers(True):
            maps = flips(self, photographs)
        assert self.device.type == device and maps.device.type == "cpu"
        passes.append(len(maps))
        return torch.linspace(0, 1, maps.numel()).reshape(maps.shape)

    monkeypatch.setattr(Segmenter, "flips", elsewhere)
    accelerator = SimpleNamespace(device=torch.device(device), is_main_process=True)
    with unset_fake_temporarily():
        folder = write_split(tmp_path, "training", [21, 22])
        photographs = DRIVEDataset(folder / "images", folder / "1st_manual")
    keeper = _Keeper(model, decay, photographs, photographs, None, None, accelerator)
    for first in (True, False):
        with Answers(first):
            keeper.update()
    run, row = TrainingRun(history=[{"step": 1}]), {"step": 1}
    with unset_fake_temporarily():
        keeper.validate(run, row)
    assert passes == [1, 1, 4, 4] and 0 < run.best_dice == row["dice"]
    assert {value.device.type for value in keeper.state["best"].values()} == {"cpu"}
    keeper.finish(run)
    for network in (model, keeper.current()):
        assert {value.device.type for value in network.parameters()} == {device}
    assert model.threshold_single == run.threshold == keeper.state["thresholds"][1]


def test_states_go_back_to_the_device_they_came_from():
    model = UNet(widths=(4, 4))
    kept = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
    model.load_state_dict(copy.deepcopy(kept))
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
