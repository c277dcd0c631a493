"""One training run: its parts, its state, and the methods that move it on."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor

from pullback.io import remove_leftovers
from pullback.training import verdict
from pullback.training.batches import Batch, Batches, Placement, Streams, as_batches, seeded_streams
from pullback.training.checkpoint import (
    FILE_NAME,
    RunState,
    copied,
    describe_run,
    load_checkpoint,
    save_checkpoint,
)
from pullback.training.distributed import Engine, make_engine, started_by_torchrun
from pullback.training.interrupt import Interrupt
from pullback.training.objective import TOTAL, Trainable
from pullback.training.options import FitResult, TrainingOptions
from pullback.training.progress import ProgressBar, wants_bar
from pullback.training.randomness import LayerRandomness
from pullback.training.step import Step, dtype_of, has_unused_parameters, make_optimizer

logger = logging.getLogger(__name__)

VALIDATION = "validation/"
LAST_STEP = 10**12
"""Step at which schedules are read where the length of a run is not known."""
SAVE_SPACING = 20
"""Time between checkpoints that follow epochs, in units of the time that the last one took."""
CHECK_EVERY = 16
"""Steps between looks at the loss on a GPU, where a look waits, and between agreements of processes."""

End = Literal["interrupted", "failed"] | None


@dataclass(frozen=True)
class EpochSummary:
    """What a callback is told after an epoch.

    Attributes:
        epoch: its number from 1.
        losses: its losses.
        best: whether it is the best so far.
        step: steps taken so far.
    """

    epoch: int
    losses: dict[str, float]
    best: bool
    step: int


Callback = Callable[[EpochSummary], object]
Largest = Callable[[float], float]


class Run:
    """One run: its parts, and the methods that move it on."""

    def __init__(
        self, objective: Trainable, data: Any, options: TrainingOptions, *, validation: Any, seed: int
    ):
        unused = started_by_torchrun() and has_unused_parameters(objective, data, options)
        self.engine: Engine = make_engine(options, dtype_of(objective), unused=unused)
        self.objective, self.options, self.seed = objective, options, seed
        self.plain = Step(objective, self.engine.reduce)
        wrapped = self.engine.fabric.setup_module(self.plain)
        # Fabric's wrapper casts and averages gradients; where neither is needed it would only cost time
        self.step_module: Any = self.plain if self.engine.is_plain else wrapped
        raw = make_optimizer(objective, options, self.engine.device)
        self.raw_optimizer = raw
        self.optimizer: Any = self.engine.fabric.setup_optimizers(raw)
        place = Placement(
            self.engine.device, dtype_of(objective), objective.noise_features, self.engine.reduce
        )
        self.batches: Batches = as_batches(data, options.batch_size, place, shuffle=True)
        self.held_out: Batches | None = (
            None if validation is None else as_batches(validation, options.batch_size, place, shuffle=False)
        )
        self.streams: Streams = seeded_streams(seed)
        self.layers = LayerRandomness(seed, self.engine.device, self.engine.reduce.rank)
        self.state = RunState(best=copied(objective))
        self.sum_dtype = torch.float32 if self.engine.device.type == "mps" else torch.float64
        self.after_step: Callable[[], object] | None = getattr(objective.model, "after_step", None)
        self.refuses: Callable[[float, Largest], bool] | None = getattr(objective.model, "refuses", None)
        self.last_step = options.max_epochs * self.batches.count if self.batches.count else LAST_STEP
        self.path = None if options.checkpoint_dir is None else Path(options.checkpoint_dir) / FILE_NAME
        self.description = describe_run(objective, options, self.batches, seed) if self.path else {}
        self.next_save, self.saved = 0.0, (-1, -1)  # a time; step and epoch of the last checkpoint

    # --- starting and saving ------------------------------------------------------------------------------

    def open_checkpoint(self) -> None:
        """Make the folder, and go on from its checkpoint where that is asked."""
        if self.path is None:
            return
        if self.engine.leads:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path)
        if not self.path.is_file():
            return
        if not self.options.resume:
            logger.warning("%s: the checkpoint of an earlier run will be replaced", self.path)
            return
        loaded = load_checkpoint(
            self.path,
            objective=self.objective,
            optimizer=self.raw_optimizer,
            streams=self.streams,
            run=self.description,
        )
        self.state = loaded.state
        rank = self.engine.reduce.rank
        if all(states.shape[0] == self.engine.reduce.size for states in loaded.layers.values()):
            self.layers.restore({name: states[rank] for name, states in loaded.layers.items()})
        if loaded.scaler:
            self.engine.fabric.strategy.precision.load_state_dict(loaded.scaler)
        logger.info("%s: going on after epoch %d, step %d", self.path, self.state.epoch, self.state.step)

    def save(self) -> None:
        """Write a checkpoint where there is a folder for it; every process must call."""
        if self.path is None or self.saved == (self.state.step, self.state.epoch):
            return
        began = time.monotonic()
        layers = {name: self.engine.stacked(state) for name, state in self.layers.state().items()}
        if self.engine.leads:
            save_checkpoint(
                self.path,
                self.state,
                objective=self.objective,
                optimizer=self.raw_optimizer,
                streams=self.streams,
                layers=layers,
                scaler=self.engine.fabric.strategy.precision.state_dict(),
                run=self.description,
            )
        now = time.monotonic()
        self.saved, self.next_save = (self.state.step, self.state.epoch), now + SAVE_SPACING * (now - began)

    def save_is_due(self) -> bool:
        """Whether an epoch's end deserves a checkpoint: small models train faster than a disk answers."""
        return self.path is not None and self.engine.any(time.monotonic() >= self.next_save)

    # --- one step, one epoch ------------------------------------------------------------------------------

    def _learning_rate(self) -> float:
        count = self.batches.count
        done = self.state.step / count if count else self.state.epoch
        return 0.5 * self.options.lr * (1 + math.cos(math.pi * min(done / self.options.max_epochs, 1)))

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and terms of a batch, again as long as the model refuses them and changes what it can."""
        while True:
            total, values = self.step_module(batch.x, batch.noise, batch.quantities, self.state.step)
            if self.refuses is None or not self.refuses(total.item(), self.engine.largest):
                return total, values

    def _take_step(self, batch: Batch) -> bool:
        """One optimiser step; False if the loss is not finite, and then the weights are as before."""
        state, fabric = self.state, self.engine.fabric
        total, values = self._evaluate(batch)
        look = self.engine.device.type == "cpu" or state.step % CHECK_EVERY == 0
        if look and not math.isfinite(total.item()):
            return False
        self.raw_optimizer.zero_grad()
        fabric.backward(total)
        if self.options.gradient_clip is not None:
            fabric.clip_gradients(
                self.step_module,
                self.optimizer,
                max_norm=self.options.gradient_clip,
                error_if_nonfinite=False,
            )
        if self.options.lr_schedule == "cosine":
            for group in self.raw_optimizer.param_groups:
                group["lr"] = self._learning_rate()
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step()
        if state.sums is None:
            state.sums, state.names = torch.zeros_like(values, dtype=self.sum_dtype), self.plain.names
        if state.step == 0:
            state.initial[TOTAL] = self._losses(values, 1)[TOTAL]
        state.sums.add_(values, alpha=batch.size)
        state.rows += batch.size
        state.step += 1
        state.batch += 1
        return True

    def train_epoch(self, bar: ProgressBar, interrupt: Interrupt) -> End:
        """The rest of the epoch under way; a reason if it did not come to its end."""
        self.objective.train()
        state, options = self.state, self.options
        if state.order is None:
            state.order = self.streams.order.get_state()
        for batch in self.batches.epoch(self.streams, skip=state.batch):
            if not self._take_step(batch):
                return "failed"
            if bar.due():
                bar.draw(state.epoch, state.batch, self.means())
            alone = self.engine.reduce.size == 1
            if (alone or state.step % CHECK_EVERY == 0) and self.engine.any(interrupt.reason is not None):
                self.save()
                return "interrupted"
            if options.checkpoint_every is not None and state.step % options.checkpoint_every == 0:
                if not self.is_sound():
                    return "failed"
                self.save()
            if self.out_of_steps:
                break
        return None

    def is_sound(self) -> bool:
        """Whether all losses of the epoch so far are finite; on a GPU not every step looks."""
        sums = self.state.sums
        return sums is None or bool(torch.isfinite(sums).all())

    def means(self) -> dict[str, float]:
        """Losses of the epoch so far, with the weights that schedules end with."""
        sums, rows = self.state.sums, self.state.rows
        return {} if sums is None else self._losses(sums, rows)

    def _losses(self, sums: Tensor, rows: int) -> dict[str, float]:
        terms = dict(zip(self.state.names or self.plain.names, (sums / rows).tolist(), strict=True))
        return {TOTAL: float(self.objective.combine(terms, self.last_step)), **terms}

    def validate(self) -> dict[str, float]:
        """Losses of the held-out rows, with the same noise every time; empty where there are none."""
        if self.held_out is None:
            return {}
        self.objective.eval()
        sums: Tensor | None = None
        rows = 0
        with torch.no_grad(), self.engine.fabric.autocast():
            for batch in self.held_out.epoch(seeded_streams(self.seed)):
                _, values = self.plain(batch.x, batch.noise, batch.quantities, self.last_step)
                part = values.to(self.sum_dtype) * batch.size
                sums = part if sums is None else sums + part
                rows += batch.size
        return {} if sums is None else self._losses(sums, rows)

    def close_epoch(self) -> tuple[EpochSummary, bool]:
        """Record the epoch; its summary, and whether the loss has failed."""
        state = self.state
        losses = self.means()
        losses |= {VALIDATION + name: value for name, value in self.validate().items()}
        for name, value in losses.items():
            state.history.setdefault(name, []).append(value)
        state.epoch, state.batch = state.epoch + 1, 0
        state.sums, state.rows, state.order = None, 0, None
        failed = self.failed_loss is not None
        better = not failed and losses[self.watched] < state.best_loss
        if better:
            state.best_epoch, state.best_loss = state.epoch, losses[self.watched]
            state.best = copied(self.objective)
        return EpochSummary(state.epoch, losses, better, state.step), failed

    @property
    def watched(self) -> str:
        """The loss that decides which epoch is the best."""
        return TOTAL if self.held_out is None else VALIDATION + TOTAL

    @property
    def failed_loss(self) -> float | None:
        """A loss of the last epoch that is not finite or far too large."""
        last = {name: values[-1] for name, values in self.state.history.items()}
        for name, initial in self.state.initial.items():
            if name in last and verdict.has_diverged(last[name], initial):
                return last[name]
        return None

    @property
    def out_of_patience(self) -> bool:
        patience = self.options.patience
        return patience is not None and self.state.epoch - self.state.best_epoch >= patience

    @property
    def out_of_steps(self) -> bool:
        return self.options.max_steps is not None and self.state.step >= self.options.max_steps

    @property
    def at_end(self) -> bool:
        """Whether nothing is left to do."""
        return self.state.epoch >= self.options.max_epochs or self.out_of_patience or self.out_of_steps

    # --- from the first epoch to the last -----------------------------------------------------------------

    def run(self, interrupt: Interrupt, callbacks: Sequence[Callback]) -> End:
        """Train until an end; the reason if it came early and unasked."""
        if self.held_out is not None and self.state.step == 0:
            self.state.initial[self.watched] = self.validate()[TOTAL]
        shown = self.engine.leads and wants_bar(self.options.progress, Console(stderr=True))
        began, before = time.monotonic(), self.state.seconds
        with ProgressBar(
            self.options.max_epochs, self.batches.count, epoch=self.state.epoch, shown=shown
        ) as bar:
            while not self.at_end:
                end = self.train_epoch(bar, interrupt)
                self.state.seconds = before + time.monotonic() - began
                if end is not None:
                    return end
                summary, failed = self.close_epoch()
                bar.draw(self.state.epoch, 0, summary.losses)
                if failed:
                    return "failed"
                if self.options.checkpoint_every is None and self.save_is_due():
                    self.save()
                for callback in callbacks:
                    callback(summary)
                self.state.seconds = before + time.monotonic() - began
                if self.engine.any(interrupt.reason is not None):
                    self.save()
                    return "interrupted"
        self.save()
        return None

    def result(self, end: End, reason: str | None) -> FitResult:
        """Put the best weights in place and say how it went."""
        state = self.state
        if (state.best_epoch and self.options.restore_best) or end == "failed":
            self.objective.load_state_dict(state.best)
        self.raw_optimizer.zero_grad()
        self.objective.eval()
        converged, message = self._verdict(end, reason)
        remark = getattr(self.objective.model, "remark", None)
        if remark is not None and (said := remark()):
            message = f"{message}; {said}"
        return FitResult(
            history={name: list(values) for name, values in state.history.items()},
            best_epoch=state.best_epoch,
            best_loss=state.best_loss,
            converged=converged,
            message=message,
            steps=state.step,
            seconds=state.seconds,
            ending=end or ("stopped" if self.out_of_patience else "finished"),
        )

    def _verdict(self, end: End, reason: str | None) -> tuple[bool, str]:
        state, options = self.state, self.options
        if end == "failed":
            loss = self.failed_loss
            epoch = state.epoch + (loss is None)
            return False, verdict.failure_message(loss, epoch, state.best_epoch, options)
        if end == "interrupted":
            return False, verdict.interrupt_message(reason or "a signal", state.epoch + 1, state.best_epoch)
        initial = state.initial[self.watched]
        if not state.best_loss < initial:
            return verdict.judge_useless(state.best_loss, initial, options)
        if self.out_of_patience:
            return verdict.judge_early_stop(state.epoch, state.best_epoch)
        limit = state.step if self.out_of_steps else None
        return verdict.judge_finished(state.history[self.watched], options.max_epochs, limit)
