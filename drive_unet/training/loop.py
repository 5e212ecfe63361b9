"""Training: random patches in, the best checkpoint by validation Dice out.

`fit` is the loop of notebook 04 with what a long run needs around it: a schedule, a history, checkpoints,
resuming, an early stop, and any device, precision or number of processes through accelerate.
"""

from __future__ import annotations

import html
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from torch import nn

from drive_unet.augmentation import training_transform
from drive_unet.data.dataset import DRIVEDataset
from drive_unet.data.drive import Drive
from drive_unet.data.painted import PaintedStream
from drive_unet.data.pairing import listed
from drive_unet.errors import DataError
from drive_unet.losses import Loss, combine, loss_of, refuse_no_loss
from drive_unet.models import SegmentationModel, copied, logits_of
from drive_unet.preprocessing.prepare import standardise
from drive_unet.progress import bar
from drive_unet.training.averages import moving_average
from drive_unet.training.checkpoints import (
    BEST,
    LAST,
    Checkpoints,
    alone_in,
    refuse_both,
    refuse_to_replace,
    settings_of,
    written_into,
)
from drive_unet.training.history import Log, make_way
from drive_unet.training.interruptions import WholeSteps
from drive_unet.training.processes import (
    accelerated,
    batches,
    callers_generators,
    draw_for,
    names_of_a_step,
    refuse_seed,
)
from drive_unet.training.provenance import trained_on
from drive_unet.training.thresholds import best_threshold
from drive_unet.training.watch import Watch


@dataclass
class TrainingRun:
    """What `fit` returns: it prints itself, shows itself in a notebook, and plots itself.

    Attributes:
        history: a dict a step with ``step`` (from 1), ``loss`` and ``lr``, and ``dice`` and ``threshold``
            where the network was validated.
        best_step: the step whose weights the model has now.
        best_dice: its validation Dice, pooled inside the FOV, at ``threshold``; None without validation.
            Step and threshold were chosen on these images, so it flatters a little.
        threshold: the threshold that gave it, of one pass, now ``model.threshold_single``.
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
    overwrite: bool = False,
    patience: int | None = None,
    validate_every: int = 100,
    num_workers: int = 0,
    average: float = 0.0,
    mixed_precision: str | None = None,
    progress: bool = True,
) -> TrainingRun:
    """Train a network on random patches and keep its best weights.

    AdamW with a one-cycle learning rate (Smith and Topin, arXiv 1708.07120). With a validation set the
    network is scored on whole photographs every ``validate_every`` steps, in one pass; the weights with the
    best Dice are in the model afterwards, with the threshold that gave it (``threshold_single``) and the
    best one for four flips there (``threshold``). Without a validation set the last weights stay, and the
    thresholds as they were. The same holds after an interruption (``KeyboardInterrupt``, which goes on to the
    caller): the model is ready for use, and with ``out`` the run can be resumed. Ctrl-C takes effect when the
    step at hand is done and in the checkpoint, so that nothing is lost; pressed twice, at once.

    The same seed, data and versions give the same weights on the same device: every step draws from
    generators (PyTorch's, NumPy's and Python's) that depend on the seed and the step alone. Those of the
    caller are left as they were. The network's first weights are the caller's: seed before building it.
    With another number of threads (``torch.set_num_threads``, OMP_NUM_THREADS) sums are rounded in another
    order: the first losses agree to four digits or more, and runs drift apart as they go on.

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
        weight_decay: of AdamW.
        loss: ``loss(logits, vessels, fov)``; by default BCE plus half of soft Dice.
        patch_size: side of the patches in pixels.
        seed: 0 to 4294967295.
        out: folder for ``best.safetensors``, written whenever a validation is better than all before
            (without a validation set at the end), the checkpoints ``last.pt`` and ``previous.pt``, and
            ``train.log``, a line a checkpoint; seen by all processes. None written by default.
        overwrite: begin anew although ``out`` holds another run, whose files are removed first.
        resume: go on from ``last.pt`` in ``out``, if there is one, as if never interrupted; where it is
            damaged, from ``previous.pt``, the one before it, with a warning. A run that had ended goes on
            for the steps by which ``steps`` is more, in a cycle of the learning rate of their own. All else
            that decides the run must be as it was: data, masks, network, numbers, precision, and what
            ``loss`` and transform are and hold. Of those two a `description` stands for code and values.
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
        DataError: datasets without labels, or sharing a photograph, an ``out`` that cannot be written or
            that another training writes into, or a network or a loss by which nothing can be learned.
        FloatingPointError: if the loss becomes infinite or not a number, in any process.
        ValueError: for budgets or ``patience`` below one, rates below 0, an ``average`` or a ``seed`` out of
            range, ``resume`` with ``overwrite``, without ``out`` or of a run with other settings, an ``out``
            that holds a run without ``resume`` or ``overwrite``, or weights without a checkpoint without
            ``overwrite``.
    """
    refuse_both(resume, overwrite)
    _refuse_untrainable(model)
    refuse_unlabelled({"training": train} | ({} if validation is None else {"validation": validation}))
    steps, batch_size, validate_every, patch_size = map(
        index, (steps, batch_size, validate_every, patch_size)
    )
    if min(steps, batch_size, validate_every, patch_size) < 1:
        raise ValueError(
            "steps, batch_size, validate_every and patch_size must be 1 or more: "
            f"{steps, batch_size, validate_every, patch_size}"
        )
    if not (0 <= lr < math.inf and 0 <= weight_decay < math.inf):
        raise ValueError(f"lr and weight_decay must be numbers of 0 or more: {lr, weight_decay}")
    seed = refuse_seed(seed)
    if patience is not None and patience < 1:
        raise ValueError(f"patience must be 1 validation or more, or None, not {patience}")
    if not 0 <= average < 1:
        raise ValueError(f"average is the decay of a moving average, 0 to below 1, not {average}")
    if resume and out is None:
        raise ValueError("resume needs out, the folder of the run to go on with")
    folder = Path(out).expanduser() if out else None
    if folder is not None and not overwrite:
        refuse_to_replace(folder, resume=resume)
    train = train.prepared(model.preprocessing)  # before its pixels are compared: a large set is decoded once
    if validation is not None:
        _refuse_shared(train, validation)
    loss = loss or combine(bce=1.0, dice=0.5)
    refuse_no_loss(loss)
    with (
        accelerated(mixed_precision) as accelerator,
        alone_in(folder if accelerator.is_main_process else None),
        callers_generators(),
        WholeSteps() as whole,
    ):
        if folder is not None and not overwrite and accelerator.is_main_process:
            refuse_to_replace(folder, resume=resume)  # again: another run may have ended there meanwhile
        a_step = batch_size * accelerator.num_processes
        numbers = {"steps": steps, "patches_a_step": a_step, "lr": lr, "weight_decay": weight_decay}
        numbers |= {"seed": seed, "average": average, "patch_size": patch_size}
        numbers |= {"precision": accelerator.mixed_precision}
        numbers |= {"validate_every": validate_every if validation is not None else None}
        numbers |= {"patience": patience if validation is not None else None}
        settings = settings_of(model, train, validation, loss, **numbers)
        patches = train.subset(range(len(train)), train.transform or training_transform(patch_size))

        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
        keeper = _Keeper(model, average, train, validation, folder, patience, accelerator)
        network, optimizer = accelerator.prepare(model, optimizer)
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "average": keeper.average}
        parts |= {"scaler": accelerator.scaler, "stream": train if isinstance(train, PaintedStream) else None}
        parts = {name: part for name, part in parts.items() if part is not None}
        checkpoints = Checkpoints(folder, parts, settings)
        run = TrainingRun(threshold=model.threshold_single, folder=folder)
        if folder and accelerator.is_main_process:
            make_way(folder, overwrite)
        if resume and (earlier := checkpoints.load()) is not None:
            keeper.state = earlier[0]
            vars(run).update(earlier[1] | {"folder": folder})
            if checkpoints.finished:  # a cycle of its own for the steps to come
                renewed = torch.optim.lr_scheduler.OneCycleLR(
                    schedule.optimizer, max_lr=lr, total_steps=steps - checkpoints.finished
                )
                schedule.load_state_dict(renewed.state_dict())
        done, before, start = len(run.history), run.seconds, time.perf_counter()
        kept = done  # steps in the last checkpoint
        log = Log(folder if accelerator.is_main_process else None)
        log.begin(checkpoints.settings, train.names, accelerator.device, done, anew=overwrite)
        shown = progress and accelerator.is_main_process
        steps_bar = bar(total=steps, initial=done, desc="training", unit="step", shown=shown)
        network.train()
        names = names_of_a_step(train, batch_size, steps, seed, accelerator)
        watch = Watch(model, lr, names, accelerator)
        try:
            stream = batches(patches, batch_size, steps, done, seed, num_workers, accelerator)
            for step, batch in enumerate(whole.of(stream), start=done + 1):
                if run.stopped_early:
                    break
                watch.batch(batch, step)
                draw_for(seed, step, accelerator.process_index)
                image = standardise(batch.image, batch.fov, batch.levels)
                with accelerator.autocast():
                    logits = logits_of(network, image)
                value = loss_of(loss, logits, batch.vessels, batch.fov)
                shown_loss = watch.loss(value, image, step)
                row = {"step": step, "loss": shown_loss, "lr": float(schedule.get_last_lr()[0])}
                optimizer.zero_grad()
                accelerator.backward(value)
                optimizer.step()
                schedule.step()
                keeper.update()
                run.history.append(row)
                watch.progress(run.recent_loss, step)
                watch.predictions(logits, batch, step)
                if step % validate_every == 0 or step == steps:
                    if validation is not None:
                        _refuse_shared(train, validation)  # a stream's eyes are known since they were painted
                        keeper.validate(run, row)
                    run.seconds = before + time.perf_counter() - start
                    if accelerator.is_main_process:
                        checkpoints.save(keeper.state, vars(run) | {"folder": None})
                        keeper.write()  # after it: weights without a checkpoint are not this run's
                        log.step(run, steps)
                    kept = step
                steps_bar.update()
                steps_bar.set_postfix(_postfix(run), refresh=False)
        except KeyboardInterrupt as error:
            run.seconds = before + time.perf_counter() - start
            if accelerator.is_main_process and not whole.broken and kept < len(run.history):
                checkpoints.save(keeper.state, vars(run) | {"folder": None})
                kept = len(run.history)
            words = _came_to(run, steps, kept)
            log(f"interrupted {words}")
            raise KeyboardInterrupt(words) from error
        except Exception as error:
            with suppress(DataError):  # the folder may be why
                log(f"stopped by {type(error).__name__}: {error}")
            raise
        finally:  # interrupted, too, the network can be used, and knows what it learned from
            steps_bar.close()
            run.seconds = before + time.perf_counter() - start
            keeper.finish(run)
            if run.history:
                model.notes = {**model.notes, "training": {**checkpoints.settings, "run": str(run)}}
                model.notes = learned_from(model.notes, train, validation)
        broadcast(model.state_dict())  # in place: the first process's statistics for all
        if folder and accelerator.is_main_process:
            with written_into(folder):
                model.save_pretrained(folder / BEST)
        log(f"ended: {run}")
        accelerator.wait_for_everyone()
    return run


class _Keeper:
    """The weights that count: the moving average's if there is one, and of those the best by validation."""

    def __init__(
        self,
        model: SegmentationModel,
        decay: float,
        train: DRIVEDataset,
        validation: DRIVEDataset | None,
        folder: Path | None,
        patience: int | None,
        accelerator: Accelerator,
    ) -> None:
        self.model, self.train, self.validation = model, train, validation
        self.folder, self.patience = folder, patience
        self.accelerator = accelerator
        # Copied before accelerate wraps the model's forward: a later copy would run the original's weights.
        self.copy = cast(SegmentationModel, copied(model)).to(accelerator.device)
        self.average = moving_average(self.copy, decay) if decay else None
        self.state: dict[str, Any] = {"stale": 0, "best": None, "thresholds": None}

    def update(self) -> None:
        """Take a step of the training into the average."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def current(self) -> SegmentationModel:
        """The network as it would be kept now, in evaluation mode."""
        if self.average is None:
            self.copy.load_state_dict(self.model.state_dict())
            return self.copy.eval()
        return cast(SegmentationModel, self.average.module).eval()

    def validate(self, run: TrainingRun, row: dict[str, float]) -> None:
        """Score the network on whole photographs, and keep its weights if they are the best so far.

        The first process does it and tells the others, so that all keep and stop alike.
        """
        network, main = self.current(), self.accelerator.is_main_process
        scored = best_threshold(network, self.validation, tta=False) if main else (math.nan, math.nan)
        row["dice"], row["threshold"] = broadcast_object_list(list(scored))
        self.state["stale"] += 1
        if run.best_dice is None or row["dice"] > run.best_dice:
            flips = best_threshold(network, self.validation, tta=True)[1] if main else math.nan
            thresholds = [*broadcast_object_list([flips]), row["threshold"]]
            best = {key: value.to("cpu", copy=True) for key, value in network.state_dict().items()}
            # All at once, so that an interruption leaves run and weights that belong together.
            self.state |= {"stale": 0, "best": best, "thresholds": thresholds}
            run.best_dice, run.best_step, run.threshold = row["dice"], int(row["step"]), row["threshold"]
        run.stopped_early = self.patience is not None and self.state["stale"] >= self.patience

    def write(self) -> None:
        """Write the weights to the run's folder if the last validation found them the best so far.

        Raises:
            DataError: if they cannot be written.
        """
        if self.folder is None or self.state["best"] is None or self.state["stale"]:
            return
        network = self.current()
        network.threshold, network.threshold_single = self.state["thresholds"]
        network.notes = learned_from(self.model.notes, self.train, self.validation)
        with written_into(self.folder):
            network.save_pretrained(self.folder / BEST)

    def finish(self, run: TrainingRun) -> None:
        """Give the model what is kept: the best weights and their thresholds, else the last weights."""
        if self.state["best"] is not None:
            self.model.load_state_dict(self.state["best"])
            self.model.threshold, self.model.threshold_single = self.state["thresholds"]
        else:
            self.model.load_state_dict(self.current().state_dict())
            run.best_step = int(run.history[-1]["step"]) if run.history else 0
        self.model.eval()


def learned_from(
    notes: dict[str, Any], train: DRIVEDataset, validation: DRIVEDataset | None
) -> dict[str, Any]:
    """The notes with the photographs that a training learned from and chose on, after those of before."""
    for photographs in (train, validation):
        if photographs is not None:
            notes = {**notes, "trained_on": trained_on(photographs, before=notes.get("trained_on"))}
    return notes


def _refuse_untrainable(model: object) -> None:
    """Raise a DataError for what is no network of the package's kind, or none that can learn."""
    if not isinstance(model, nn.Module) or not hasattr(model, "preprocessing"):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise DataError(
            f"fit trains a SegmentationModel, not {what}: give it UNet(), or derive your network from "
            "drive_unet.models.SegmentationModel"
        )
    if not any(weight.requires_grad for weight in model.parameters()):
        raise DataError(
            "no weight of the network is to be trained, for it has none or all are frozen: "
            "model.requires_grad_(True) thaws them"
        )


def refuse_unlabelled(sets: dict[str, DRIVEDataset]) -> None:
    """Raise a DataError for a set without labels, or that is none; the sets are named by their roles."""
    for role, dataset in sets.items():
        if not isinstance(dataset, DRIVEDataset):
            parts = "one of its parts, such as drive.training" if isinstance(dataset, Drive) else "one"
            raise DataError(f"the {role} set is a {type(dataset).__name__}, no DRIVEDataset: give {parts}")
        if not dataset.has_labels:
            raise DataError(
                f"the {role} set has {len(dataset)} photographs and no vessel labels; "
                "it needs labelled photographs, such as load_drive().training"
            )


def _refuse_shared(train: DRIVEDataset, validation: DRIVEDataset) -> None:
    shared = validation.shared_with(train)
    if shared:
        raise DataError(
            f"photographs {listed(shared)} are in both training and validation, pixel for pixel; split them "
            "by image"
        )


def _came_to(run: TrainingRun, steps: int, kept: int) -> str:
    """How far a run has come that is interrupted, and what of it its last checkpoint holds."""
    words = f"after {len(run.history)} of {steps} steps"
    if run.folder is None or not run.history:
        return words
    return f"{words}, {'none' if not kept else kept} of them kept in {run.folder / LAST}"


def _postfix(run: TrainingRun) -> dict[str, str]:
    shown = {"loss": f"{run.recent_loss:.3f}"}
    if run.best_dice is not None:
        shown["best Dice"] = f"{run.best_dice:.3f}"
    return shown
