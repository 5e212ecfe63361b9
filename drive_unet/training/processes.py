"""Devices, precision and processes, by accelerate; and the stream of patches that they share."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from operator import index

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Dataset

from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.sample import Sample, collate

TIMEOUT = timedelta(minutes=30)  # of waiting for another process, which may be validating


def processes() -> PartialState:
    """The processes that a launcher started, joined; this one alone where there was no launcher.

    Whoever needs them before `fit` calls this, since the first call decides.

    Returns:
        accelerate's state, with ``is_main_process`` and ``num_processes``.

    Raises:
        RuntimeError: if accelerate was set up otherwise before, so that each would train for itself.
    """
    launched = "LOCAL_RANK" in os.environ
    state = PartialState(cpu=launched and not torch.cuda.is_available(), timeout=TIMEOUT)
    if launched and state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise RuntimeError(
            f"{os.environ['WORLD_SIZE']} processes were launched and {state.num_processes} joined; "
            "call drive_unet.training.processes() before anything else of accelerate"
        )
    return state


@contextmanager
def accelerated(mixed_precision: str | None = None) -> Iterator[Accelerator]:
    """An `Accelerator` of our own; one that the caller has is as it was afterwards.

    accelerate keeps its state once for the whole process, and refuses a second precision. So the caller's is
    put aside meanwhile.
    """
    processes()
    states = [AcceleratorState._shared_state, GradientState._shared_state]
    kept = [dict(state) for state in states]
    for state in states:
        state.clear()
    accelerator = Accelerator(mixed_precision=mixed_precision or _precision())
    try:
        yield accelerator
    finally:
        for network in accelerator._models:
            own = accelerator.unwrap_model(network, keep_fp32_wrapper=False)
            if getattr(own.forward, "__func__", None) is type(own).forward:
                own.__dict__.pop("forward", None)  # its class's again, even after an interruption
        for state, before in zip(states, kept, strict=True):
            state.clear()
            state.update(before)


def _precision() -> str:
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


@contextmanager
def callers_generators() -> Iterator[None]:
    """Leave the generators of PyTorch, NumPy and Python as they were; within, they may be seeded."""
    own = random.getstate(), np.random.get_state()  # noqa: NPY002 (as below)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(own[0])
            np.random.set_state(own[1])  # noqa: NPY002


def refuse_seed(seed: int) -> int:
    """The seed, such as one of NumPy's integers, as Python's, which every generator can take.

    Raises:
        ValueError: if it is not from 0 to 2**32 - 1, or no integer.
    """
    if not hasattr(seed, "__index__") or not 0 <= seed < 2**32:
        raise ValueError(f"the seed {seed} is out of range: give one from 0 to {2**32 - 1}")
    return index(seed)


def draw_for(seed: int, step: int, process: int) -> None:
    """Seed all generators for a step, so that what is drawn in it depends on nothing before it."""
    drawn = random.Random(f"{seed} {step} {process}").getrandbits(62)
    torch.manual_seed(drawn)
    _seed_host(drawn)


def _seed_host(seed: int) -> None:
    """Seed the generators that a transform may draw from on the processor: PyTorch's, NumPy's, Python's."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the one that a caller's transform may use)
    random.seed(seed)


class _Stream(Dataset):
    """The endless shuffled stream of patches: item i depends on the seed and on i alone.

    So it matters neither how many workers or processes share it, nor where a resumed run takes it up.
    """

    def __init__(self, train: DRIVEDataset, length: int, seed: int) -> None:
        self.order = train.order(length, seed)
        self.train, self.seed = train, seed

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Sample:
        _seed_host(self.seed * 1_000_003 + index)
        return self.train[int(self.order[index])]


def batches(
    train: DRIVEDataset,
    batch_size: int,
    steps: int,
    done: int,
    seed: int,
    num_workers: int,
    accelerator: Accelerator,
) -> Iterator[Sample]:
    """This process's share of the patches of steps ``done + 1`` to ``steps``, on its device.

    Each step takes the stream's next ``batch_size`` patches for the first process, then for the second, ...
    """
    a_step = batch_size * accelerator.num_processes
    first = done * a_step + accelerator.process_index * batch_size
    own = [range(start, start + batch_size) for start in range(first, steps * a_step, a_step)]
    stream = _Stream(train, steps * a_step, seed)
    loader = DataLoader(
        stream,
        batch_sampler=own,  # type: ignore[arg-type]  # ranges of indices do as well as lists
        num_workers=num_workers,
        collate_fn=collate,
    )
    for batch in loader:
        yield send_to_device(batch, accelerator.device)


def names_of_a_step(
    train: DRIVEDataset, batch_size: int, steps: int, seed: int, accelerator: Accelerator
) -> Callable[[int], list[str]]:
    """Tells of a step, from 1, which photographs this process takes its patches from."""
    a_step = batch_size * accelerator.num_processes

    def names(step: int) -> list[str]:
        first = (step - 1) * a_step + accelerator.process_index * batch_size
        indices = train.order(steps * a_step, seed)[first : first + batch_size].tolist()
        return [train.names[index] for index in dict.fromkeys(indices)]

    return names
