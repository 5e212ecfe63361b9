"""Devices without a GPU: fake tensors have a device and no numbers, and refuse to be mixed."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from drive_unet import losses
from drive_unet.inference import Segmenter
from drive_unet.models import ArticleNet, UNet
from drive_unet.preprocessing.prepare import Prepared, standardise
from drive_unet.training.averages import moving_average

# PyTorch 2.6 aborts in a convolution of such tensors, the whole process with it; 2.11 does not.
pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 11),
    reason="fake convolutions abort in PyTorch 2.6",
)
DEVICES = ("cuda",)  # of "mps" PyTorch aborts where there is no Metal
NETWORKS = {"UNet": UNet(widths=(4, 8, 8)), "ArticleNet": ArticleNet()}  # genuine ones, on the CPU
AVERAGE = moving_average(torch.nn.Linear(2, 2), 0.9).avg_fn


class OnDevice(torch.nn.Module):
    """A network whose parameters are fake tensors on a device that need not be there."""

    multiple = 8

    def __init__(self, model, device):
        super().__init__()
        self.hidden = [model]  # where Module.to does not look
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.state = {
            name: torch.empty(value.shape, dtype=value.dtype, device=device).requires_grad_(
                value.requires_grad
            )
            for name, value in state.items()
        }

    def train(self, mode=True):
        self.hidden[0].train(mode)
        return self

    def forward(self, image):
        return functional_call(self.hidden[0], self.state, (image,))


@pytest.fixture(params=DEVICES)
def device(request):
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            torch.empty(1, device=request.param) + 1
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            pytest.skip(f"fake tensors cannot be on {request.param} here: {error}")
        yield request.param


def batch(device, size=32):
    """Image, vessels and FOV on the CPU, as a loader gives them, and the same image on the device."""
    image = torch.rand(2, 3, size, size)
    vessels, fov = (torch.ones(2, 1, size, size, dtype=torch.uint8) for _ in range(2))
    return image, vessels, fov, torch.empty(2, 3, size, size, device=device)


def test_a_forgotten_move_is_noticed(device):
    network = OnDevice(NETWORKS["UNet"], device)
    with pytest.raises(RuntimeError, match="device"):
        network(torch.rand(1, 3, 32, 32))


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
    model = OnDevice(NETWORKS[network], device).train()
    _, vessels, fov, image = batch(device)
    levels = torch.rand(2, 3, 256, 2)
    logits = model(standardise(image, fov, levels))
    value = losses.combine(bce=1, dice=0.5)(logits, vessels, fov)
    assert value.device.type == device  # its way back needs the device itself


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


@pytest.mark.parametrize("moved", [True, False])
def test_a_device_without_float64_standardises_patches(device, moved):
    _, _, fov, image = batch(device)
    levels = torch.rand(2, 3, 256, 2)
    with NoDouble():
        patches = standardise(image, fov, levels.to(device) if moved else levels)
    assert patches.device.type == device and patches.dtype == torch.float32


@pytest.mark.parametrize("tile", [None, 32])
def test_flips_and_tiles(device, tile):
    model = OnDevice(NETWORKS["UNet"], device).eval()
    run = Segmenter(model, tta=True, tile=tile, overlap=8, device=device)
    run.model = model  # not a copy, which fake tensors do not allow
    prepared = Prepared(torch.rand(3, 56, 48), torch.ones(1, 56, 48, dtype=torch.uint8), None)
    maps = run.flips([prepared, prepared])
    assert maps.shape == (4, 2, 56, 48) and maps.device.type == "cpu"


def test_an_average_stays_on_its_device(device):
    mean, value = (torch.empty(2, 2, device=device) for _ in range(2))
    assert AVERAGE(mean, value, 3).device.type == device


def test_states_go_back_to_the_device_they_came_from():
    model = UNet(widths=(4, 4))
    kept = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
    model.load_state_dict(copy.deepcopy(kept))
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
