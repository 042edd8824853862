"""The training loop: `train(config)` is what the command line, the examples and the tests all call.

A run is epochs and a report; an epoch is steps and a look at the validation pictures. Every number that the
loop depends on is in `Run` and in its checkpoints, and every random number comes from (seed, batch number) or
(seed, epoch, picture), so that a run can be cut anywhere.
"""

from __future__ import annotations

import shlex
import signal
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter
from typing import Any

from minialex.backend import keep_freed_memory, on_device, use_precision
from minialex.data import Loader
from minialex.errors import NumericalError
from minialex.train.checkpoint import Best, Position
from minialex.train.commands import minialex_command
from minialex.train.compiling import CompileNotice
from minialex.train.config import TrainConfig
from minialex.train.device_pictures import DevicePictures
from minialex.train.diagnose import Advice, Monitor
from minialex.train.evaluation import evaluate
from minialex.train.history import EpochRecord, write_history
from minialex.train.input_pipeline import ahead
from minialex.train.interrupt import Interrupted, StopRequest
from minialex.train.metrics import Evaluation, RunningMean
from minialex.train.plots import plot_history
from minialex.train.recipes import OPTIMIZER_DEFAULTS
from minialex.train.report import TrainResult, announce, finish, write_beginnings
from minialex.train.reporter import Reporter, default_reporter
from minialex.train.run import Run
from minialex.train.run_folder import BEST, LAST
from minialex.train.schedule import ScheduleSpec
from minialex.train.setup import prepare
from minialex.train.step import Stepper

# Seconds between savings within an epoch, unless --save-every counts steps.
SAVE_INTERVAL = 60.0
# Seconds between two drawings of the curves: with a fast GPU an epoch is shorter than a drawing.
PLOT_INTERVAL = 10.0


def train(config: TrainConfig, reporter: Reporter | None = None, program: str | None = None) -> TrainResult:
    """Train as the options say, or go on with the run that `config.resume` names.

    Args:   reporter: what the user gets to see; program: how a message spells the command that resumes,
            `minialex train` unless said.
    Raises: MinialexError of the kind that fits the mistake; Interrupted after Ctrl-C or SIGTERM, with the run
            saved; NumericalError if a number is no longer finite, with the last good checkpoint left alone.
    """
    keep_freed_memory()
    program = program or f"{minialex_command()} train"
    saved = config.resume
    try:
        run = prepare(config, reporter or default_reporter())
        saved = str(run.folder.path)  # From here on there is a checkpoint in it.
        return _go(run, program)
    except KeyboardInterrupt:  # During the preparations, or the second one; the first is an Interrupted.
        if saved is None:
            raise
        again = resume_command(program, saved)
        raise Interrupted(
            f"stopped at once. Go on from what was saved last with:\n  {again}", signal.SIGINT
        ) from None


def _go(run: Run, program: str) -> TrainResult:
    with run.folder, on_device(run.device), use_precision(run.config.precision), ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        write_beginnings(run)
        announce(run)
        notice = stack.enter_context(CompileNotice(run.reporter.note))
        loop = Loop(run, stop, program, notice)
        stack.callback(loop.close)
        while run.position.epoch <= run.config.epochs:
            loop.epoch()
        return finish(run, loop.evaluate)


class Loop:
    """One run's loaders, stepper and watchers, and the passes over the data."""

    def __init__(self, run: Run, stop: StopRequest, program: str, notice: CompileNotice) -> None:
        self.run, self.stop, self.program, self.notice = run, stop, program, notice
        self.stepper = Stepper(run.model, run.optimizer, run.device, run.config.seed, run.config.clip_norm)
        # From the rate that the user chose; a schedule may have lowered the present one.
        lr, usual = run.config.lr, OPTIMIZER_DEFAULTS[run.config.optimizer]["lr"]
        self._advice = Advice(usual if lr is None else lr, usual)
        labels = run.parts.dataset.labels[run.parts.split.train]
        self.monitor = Monitor(run.model, labels, self._advice, run.reporter.warn)
        self._loaders: dict[str, Loader | DevicePictures] = {}
        self._saved_at = self._clock = self._drawn_at = perf_counter()
        self._last_batch: Any = None

    def loader(self, part: str) -> Loader | DevicePictures:
        """The loader of a part, made at its first use: its workers cost time and memory."""
        if part not in self._loaders:
            self._loaders[part] = self.run.loader(part)
        return self._loaders[part]

    def close(self) -> None:
        """End the loaders' processes."""
        for loader in self._loaders.values():
            loader.close()

    def epoch(self) -> None:
        """The rest of this epoch's steps, the validation, and everything that is written after an epoch."""
        run = self.run
        self._steps()
        validation = self.evaluate("validation")
        mean = run.running
        record = EpochRecord(
            run.position.epoch,
            mean.loss,
            mean.accuracy,
            validation.loss,
            validation.accuracy,
            run.optimizer.lr,
            mean.seconds,
        )
        self._end_epoch(record)
        run.reporter.say(record.line())
        if self._last_batch is not None:
            self.monitor.epoch_done(record.epoch, run.position.step, mean.loss, self._last_batch.images)
        self._check_stop()

    def _steps(self) -> None:
        run, loader = self.run, self.loader("train")
        run.model.train()
        title = f"epoch {run.position.epoch}/{run.config.epochs}"
        self._clock = perf_counter()
        batches = ahead(loader.epoch(run.position.epoch, start_batch=run.position.batch), run.device)
        with run.reporter.bar(title, run.position.batch, len(loader)) as bar:
            while run.position.batch < len(loader):
                count = min(run.config.accumulate, len(loader) - run.position.batch)
                self._step(batches, count, len(loader))
                bar.update(count, run.running)
                self._save_if_due()
                self._check_stop()

    def _step(self, batches: Any, count: int, batches_an_epoch: int) -> None:
        """One optimiser step over the next `count` batches; nothing is changed if a number is not finite."""
        run = self.run
        first = run.position.batch
        size, pictures = run.config.batch_size, len(run.parts.split.train)
        in_step = min(pictures, (first + count) * size) - first * size
        mean = replace(run.running)
        try:
            for i in range(count):
                batch = next(batches)
                number = (run.position.epoch - 1) * batches_an_epoch + first + i
                self.stepper.add_gradients(batch, number, len(batch.labels) / in_step, mean)
            before = self.monitor.weights_before(run.position.step)
            self.stepper.update(batch, number, count)
            self.notice.step_done()
        except NumericalError as error:
            raise NumericalError(self._breakdown_text(error)) from error
        self.monitor.update_done(before)
        self._last_batch = batch
        now = perf_counter()
        mean.seconds += now - self._clock
        self._clock = now
        run.running = mean
        run.position = Position(run.position.epoch, first + count, run.position.step + 1)

    def evaluate(self, part: str) -> Evaluation:
        """The network's answers to "validation" or "test"; a request to stop is heeded between batches."""
        loader = self.loader(part)

        def noted(batches: int, mean: RunningMean) -> None:
            bar.update(batches, mean)
            self._check_stop()

        with self.run.reporter.bar(part, 0, len(loader)) as bar:
            return evaluate(self.run.model, loader.epoch(0), self.run.device, noted)

    def _end_epoch(self, record: EpochRecord) -> None:
        """Move on to the next epoch and write it all down, best before last: see the comment."""
        run = self.run
        run.history.append(record)
        improved = run.best is None or (record.val_accuracy, -record.val_loss) > (
            run.best.val_accuracy,
            -run.best.val_loss,
        )
        if improved:
            run.best = Best(record.epoch, record.val_accuracy, record.val_loss)
        spec = ScheduleSpec.parse(run.config.schedule)
        run.schedule.step(spec.figure(record.val_loss, record.val_accuracy))
        run.position = Position(record.epoch + 1, 0, run.position.step)
        run.running = RunningMean()
        # A run killed between two of these lines resumes from the older last.safetensors, does this epoch's
        # end once more, and writes the same again. The other way round it would never write the best.
        if improved:
            run.save(BEST)
        self._save()
        write_history(run.folder / "history.csv", run.history)
        if perf_counter() - self._drawn_at > PLOT_INTERVAL:
            plot_history(run.folder / "history.png", run.history, run.best.epoch if run.best else None)
            self._drawn_at = perf_counter()

    def _save(self) -> None:
        self.run.save(LAST)
        self._saved_at = perf_counter()

    def _save_if_due(self) -> None:
        every, step = self.run.config.save_every, self.run.position.step
        if (every is not None and step % every == 0) or (
            every is None and perf_counter() - self._saved_at > SAVE_INTERVAL
        ):
            self._save()

    def _check_stop(self) -> None:
        """Raises: Interrupted, with the run saved, if the user or the system asked for it."""
        if not self.stop.signal_number:
            return
        self._save()
        where = f"epoch {self.run.position.epoch}, batch {self.run.position.batch}"
        again = resume_command(self.program, str(self.run.folder.path))
        raise Interrupted(f"stopped at {where}, saved. Go on with:\n  {again}", self.stop.signal_number)

    def _breakdown_text(self, error: NumericalError) -> str:
        run = self.run
        kept = f"{run.folder / LAST} is the last good state"
        kept += f", {run.folder / BEST} the best epoch's" if run.best else ""
        cause = (
            "the learning rate is the usual cause"
            if self._advice.lr < 1
            else f"a learning rate of {self._advice.lr:g} is far too high"
        )
        return (
            f"training broke down at epoch {run.position.epoch}, batch {run.position.batch + 1}: {error}\n"
            f"What to do: {cause}; start again with {self._advice.lower}, or limit the "
            f"gradient with --clip-norm 1. Nothing broken was saved: {kept}."
        )


def resume_command(program: str, saved: str) -> str:
    """The command that goes on with the run in the folder `saved`."""
    return f"{program} --resume {shlex.quote(saved)}"
