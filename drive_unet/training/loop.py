"""Training: random patches in, the best checkpoint by validation Dice out.

`fit` is the loop of notebook 04 with what a long run needs around it: a schedule, a history, checkpoints,
resuming, an early stop, and any device, precision or number of processes through accelerate.
"""

from __future__ import annotations

import html
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, broadcast_object_list, send_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from drive_unet.augmentation import training_transform
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.painted import PaintedStream
from drive_unet.data.pairing import listed
from drive_unet.data.sample import Sample, collate
from drive_unet.errors import DataError
from drive_unet.inference import predict_all
from drive_unet.losses import Loss, combine
from drive_unet.metrics.exact import choose_threshold, confusion
from drive_unet.models import SegmentationModel
from drive_unet.preprocessing.prepare import standardise
from drive_unet.progress import bar
from drive_unet.training.provenance import trained_on

BEST, LAST = "best.safetensors", "last.pt"
TIMEOUT = timedelta(minutes=30)  # of waiting for another process, which may be validating


@dataclass
class TrainingRun:
    """What `fit` returns: it prints itself, shows itself in a notebook, and plots itself.

    Attributes:
        history: a dict a step with ``step`` (from 1), ``loss`` and ``lr``, and ``dice`` and ``threshold``
            where the network was validated.
        best_step: the step whose weights the model has now.
        best_dice: its validation Dice, pooled inside the FOV, at ``threshold``; None without validation.
            Step and threshold were chosen on these images, so it flatters a little.
        threshold: the threshold that gave it, now also ``model.threshold``.
        seconds: wall time of training and validation, summed over resumed parts.
        stopped_early: whether patience ran out before the last step.
        folder: where checkpoints lie, or None.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    best_dice: float | None = None
    threshold: float = 0.5
    seconds: float = 0.0
    stopped_early: bool = False
    folder: Path | None = None

    def __str__(self) -> str:
        steps = self.history[-1]["step"] if self.history else 0
        text = f"{steps} steps in {self.seconds:.0f} s, loss ≈ {self.recent_loss:.3f}"
        if self.best_dice is not None:
            text += f"; best validation Dice ≈ {self.best_dice:.4f} at step ≈ {self.best_step}"
            text += f", threshold ≈ {self.threshold:.3f}"
        return text + ("; stopped early" if self.stopped_early else "")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"

    @property
    def recent_loss(self) -> float:
        """Mean training loss of the last twenty steps; nan before the first."""
        recent = [row["loss"] for row in self.history[-20:]]
        return sum(recent) / len(recent) if recent else float("nan")

    def plot(self) -> Any:
        """Loss, learning rate and validation Dice over the steps, as a matplotlib figure."""
        from drive_unet.plots import plot_history

        return plot_history(self.history)


def fit(
    model: SegmentationModel,
    train: DRIVEDataset,
    validation: DRIVEDataset | None = None,
    *,
    steps: int = 1600,
    batch_size: int = 8,
    lr: float = 1e-2,
    weight_decay: float = 1e-2,
    loss: Loss | None = None,
    patch_size: int = 256,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    patience: int | None = None,
    validate_every: int = 100,
    num_workers: int = 0,
    average: float = 0.0,
    mixed_precision: str | None = None,
    progress: bool = True,
) -> TrainingRun:
    """Train a network on random patches and keep its best weights.

    AdamW with a one-cycle learning rate (Smith and Topin, arXiv 1708.07120). With a validation set the
    network is scored on whole photographs every ``validate_every`` steps; the weights with the best Dice,
    and the threshold that gave it, are in the model afterwards. Without one the last weights stay.

    The same seed, data and versions give the same weights on the same device. The generator of the caller
    is left as it was. The network's first weights are the caller's: seed before building it.

    Started by ``accelerate launch`` (or ``torchrun``, also on CPUs), every process takes ``batch_size``
    patches a step, and gradients are averaged: together they see what one process with the whole batch
    would see. They learn almost the same, not exactly: the loss and batch normalisation pool within each
    process, and the statistics kept for evaluation are the first process's. That one validates, writes and
    shows progress; all of them return with the same weights. When one dies the launcher ends the others,
    and ``resume`` goes on, with any number of processes that take as many patches a step together.

    Args:
        model: the network; trained in place and left on its device in evaluation mode.
        train: labelled photographs. Their ``transform`` is used if set, else
            `drive_unet.augmentation.training_transform` with ``patch_size``.
        validation: labelled photographs, disjoint from ``train``.
        steps: optimiser steps.
        batch_size: patches a step, in each process.
        lr: the peak of the one-cycle schedule.
        loss: ``loss(logits, vessels, fov)``; by default BCE plus half of soft Dice.
        patch_size: side of the patches in pixels.
        out: folder for ``best.safetensors`` and ``last.pt``, seen by all processes; none written by default.
        resume: go on from ``last.pt`` in ``out``, if there is one, as if never interrupted.
        patience: stop after this many validations without a better Dice.
        validate_every: steps from one validation, and one ``last.pt``, to the next; the last step has both.
        num_workers: processes that load patches; the photographs live in memory, so 0 serves well.
        average: decay of the exponential moving average of the weights that is validated and kept, 0 to
            below 1, such as 0.99; 0 keeps the last weights themselves.
        mixed_precision: ``"no"``, ``"fp16"`` or ``"bf16"``; by default bf16 on GPUs that have it, fp16 on
            other CUDA GPUs, none on CPUs.
        progress: show a progress bar.

    Returns:
        A `TrainingRun`.

    Raises:
        DataError: datasets without labels, or sharing a photograph.
        FloatingPointError: if the loss becomes infinite or not a number, in any process.
        ValueError: for budgets below one, an ``average`` out of range, or ``resume`` without ``out``, or of
            another run.
    """
    _refuse_bad_data(train, validation)
    if min(steps, batch_size, validate_every) < 1:
        raise ValueError(
            f"steps, batch_size and validate_every must be 1 or more: {steps, batch_size, validate_every}"
        )
    if not 0 <= average < 1:
        raise ValueError(f"average is the decay of a moving average, 0 to below 1, not {average}")
    if resume and out is None:
        raise ValueError("resume needs out, the folder of the run to go on with")
    loss = loss or combine(bce=1.0, dice=0.5)
    accelerator = _accelerator(mixed_precision)
    budget = {"steps": steps, "patches_a_step": batch_size * accelerator.num_processes, "lr": lr}
    budget |= {"seed": seed, "images": train.names, "average": average, "arguments": model.arguments}
    budget["pixels"] = train.identity  # names alone do not tell DRIVE from the embedded set

    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    run = TrainingRun(threshold=model.threshold, folder=Path(out) if out else None)
    state: dict[str, Any] = {"stale": 0, "best": None}

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        network, optimizer = accelerator.prepare(model, optimizer)
        averaged = _Average(model, average)
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "average": averaged}
        if accelerator.scaler is not None:  # of fp16
            parts["scaler"] = accelerator.scaler
        if isinstance(train, PaintedStream):  # which of its eyes were read
            parts["stream"] = train
        if resume and (run.folder / LAST).is_file():
            state = _load(run, parts, budget)
        done = len(run.history)
        patches = train.subset(range(len(train)), train.transform or training_transform(patch_size))
        patches = patches.prepared(model.preprocessing)
        batches = _batches(patches, batch_size, steps, done, seed, num_workers, accelerator)
        earlier, start = run.seconds, time.perf_counter()
        steps_bar = bar(
            total=steps,
            initial=done,
            desc="training",
            unit="step",
            shown=progress and accelerator.is_main_process,
        )
        network.train()
        for step, batch in enumerate(batches, start=done + 1):
            if run.stopped_early:
                break
            with accelerator.autocast():
                logits = network(standardise(batch.image, batch.fov, batch.levels))
            value = loss(logits, batch.vessels, batch.fov)
            shown = accelerator.reduce(value.detach(), "mean").item()  # so all processes fail together
            if not math.isfinite(shown):
                raise FloatingPointError(
                    f"the loss is {shown} at step {step}; try a lower lr than {lr:g} or mixed_precision='no'"
                )
            optimizer.zero_grad()
            accelerator.backward(value)
            optimizer.step()
            averaged.update()
            row = {"step": step, "loss": shown, "lr": schedule.get_last_lr()[0]}
            run.history.append(row)
            schedule.step()
            steps_bar.update()
            if step % validate_every == 0 or step == steps:
                if validation is not None:
                    if isinstance(train, PaintedStream):  # its eyes are known since they were painted
                        _refuse_shared(train, validation)
                    with averaged.inside():
                        row["dice"], row["threshold"] = _validate(model, validation, accelerator)
                        _keep_if_best(run, state, model, row)
                    run.stopped_early = patience is not None and state["stale"] >= patience
                run.seconds = earlier + time.perf_counter() - start
                if run.folder and accelerator.is_main_process:
                    _save(run, state, parts, budget)
            steps_bar.set_postfix(_postfix(run), refresh=False)
        steps_bar.close()
    run.seconds = earlier + time.perf_counter() - start
    averaged.put_in()
    _finish(run, state, accelerator.unwrap_model(network, keep_fp32_wrapper=False))
    broadcast(model.state_dict())  # in place: the first process's statistics for all
    model.notes = {**model.notes, "training": {**budget, "run": str(run)}}
    for photographs in (train, validation):
        if photographs is not None:
            model.notes["trained_on"] = trained_on(photographs, before=model.notes.get("trained_on"))
    if run.folder and accelerator.is_main_process:
        model.save_pretrained(run.folder / BEST)
    accelerator.wait_for_everyone()
    return run


def _refuse_bad_data(train: DRIVEDataset, validation: DRIVEDataset | None) -> None:
    for role, dataset in (("training", train), ("validation", validation)):
        if dataset is not None and not dataset.has_labels:
            raise DataError(
                f"the {role} set has {len(dataset)} photographs and no vessel labels; "
                "it needs labelled photographs, such as load_drive().training"
            )
    if validation is not None:
        _refuse_shared(train, validation)


def _refuse_shared(train: DRIVEDataset, validation: DRIVEDataset) -> None:
    shared = validation.shared_with(train)
    if shared:
        raise DataError(
            f"photographs {listed(shared)} are in both training and validation, pixel for pixel; split them "
            "by image"
        )


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
            "call drive_unet.training.loop.processes() before anything else of accelerate"
        )
    return state


def _accelerator(mixed_precision: str | None) -> Accelerator:
    processes()
    AcceleratorState._reset_state()  # else a second run in this process could not change the precision
    return Accelerator(mixed_precision=mixed_precision or _precision())


def _precision() -> str:
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


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
        torch.default_generator.manual_seed(self.seed * 1_000_003 + index)
        return self.train[int(self.order[index])]


def _batches(
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
    loader = DataLoader(stream, batch_sampler=own, num_workers=num_workers, collate_fn=collate)
    for batch in loader:
        yield send_to_device(batch, accelerator.device)


class _Average:
    """The exponential moving average of a network's weights and statistics; with decay 0 they themselves.

    The first steps decay faster, so that the random start is soon forgotten.
    """

    def __init__(self, model: SegmentationModel, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.values = _copy(model) if decay else {}

    def update(self) -> None:
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = self.model.state_dict()
        for name, value in self.values.items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - keep)
            else:
                value.copy_(current[name])

    def put_in(self) -> None:
        """Give the model the averaged weights."""
        self.model.load_state_dict({**self.model.state_dict(), **self.values})

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The model with the averaged weights, for as long as the context lasts."""
        own = _copy(self.model)
        self.put_in()
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, value in self.values.items():
            value.copy_(state["values"][name])


def _copy(model: SegmentationModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _validate(
    model: SegmentationModel, validation: DRIVEDataset, accelerator: Accelerator
) -> tuple[float, float]:
    """Pooled in-FOV Dice on whole photographs and the threshold that gives it.

    The first process finds them and tells the others, so that all keep and stop alike.
    """
    found = [math.nan, math.nan]
    if accelerator.is_main_process:
        probabilities = predict_all(model, validation)
        vessels, fovs = validation.vessels, validation.fovs
        threshold = choose_threshold(probabilities, vessels, fovs)
        predictions = [probability >= threshold for probability in probabilities]
        found = [confusion(predictions, vessels, fovs).dice, threshold]
    return tuple(broadcast_object_list(found))


def _keep_if_best(
    run: TrainingRun, state: dict[str, Any], model: SegmentationModel, row: dict[str, float]
) -> None:
    state["stale"] += 1
    if run.best_dice is None or row["dice"] > run.best_dice:
        run.best_dice, run.best_step, run.threshold = row["dice"], int(row["step"]), row["threshold"]
        state["stale"] = 0
        state["best"] = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}


def _postfix(run: TrainingRun) -> dict[str, str]:
    shown = {"loss": f"{run.recent_loss:.3f}"}
    if run.best_dice is not None:
        shown["best Dice"] = f"{run.best_dice:.3f}"
    return shown


def _save(run: TrainingRun, state: dict[str, Any], parts: dict[str, Any], budget: dict[str, Any]) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    unfinished = run.folder / (LAST + ".part")
    saved = {name: part.state_dict() for name, part in parts.items()}
    saved |= {"state": state, "budget": json.dumps(budget)}
    saved["run"] = json.dumps({**vars(run), "folder": None})
    torch.save(saved, unfinished)
    unfinished.replace(run.folder / LAST)


def _load(run: TrainingRun, parts: dict[str, Any], budget: dict[str, Any]) -> dict[str, Any]:
    path = run.folder / LAST
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        earlier = json.loads(saved["budget"])
    except Exception as error:  # a cut-off pickle raises many kinds
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}); delete it or train without resume"
        ) from error
    differing = [key for key in budget if earlier.get(key) != budget[key]]
    if differing:
        named = ", ".join(f"{key} was {earlier.get(key)}" for key in differing)
        raise ValueError(f"{path} belongs to another run ({named}); use its settings or another folder")
    for name in parts.keys() & saved.keys():  # fp16's scaler need not be there
        parts[name].load_state_dict(saved[name])
    for name, value in json.loads(saved["run"]).items():
        if name != "folder":
            setattr(run, name, value)
    return saved["state"]


def _finish(run: TrainingRun, state: dict[str, Any], model: SegmentationModel) -> None:
    """Put the best weights and threshold into the model."""
    if state["best"] is not None:
        model.load_state_dict(state["best"])
    else:
        run.best_step = int(run.history[-1]["step"]) if run.history else 0
    model.threshold = model.threshold_single = run.threshold
    model.eval()
