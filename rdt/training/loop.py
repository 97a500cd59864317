"""The training loop: steps, length of the run, record, checkpoints.

Every number is a function of (seed, step, micro step, rank) and the state in the
checkpoint; wall-clock time decides only once, when a time budget is turned into
a number of steps, and the ledger keeps that decision for every restart.
"""

from __future__ import annotations

import math
import signal
import time

import torch

from launcher.core import files, retention
from launcher.core.errors import RdtlError
from launcher.core.job import Job, Stopped, leave
from rdt.data.order import derived_key
from rdt.training import engine as distributed
from rdt.training import length
from rdt.training.batches import Batches
from rdt.training.checkpoint import Checkpoints
from rdt.training.ema import Ema
from rdt.training.engine import Engine
from rdt.training.gate import Gate
from rdt.training.meter import Meter
from rdt.training.record import Record
from rdt.training.schedule import MEASURE_FROM, MEASURE_TO, learning_rate, warmup_steps
from rdt.training.signs import Signs
from rdt.training.validation import LOSS, EarlyStopping, Validation
from rdt.training.watchdog import Watchdog

NOT_FINITE = "not_finite.json"
"""Which samples a step was computed from whose loss or gradient is no number."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""In the order of their weight: USR2 on any rank means that the job may go on later."""
PROGRESS_EVERY_S = 1.0


class Loop:
    """One rank's training from the newest checkpoint to the last step.

    ``record`` exists on rank 0 only, the ``first``.
    """

    def __init__(
        self,
        job: Job,
        engine: Engine,
        batches: Batches,
        ema: Ema,
        checkpoints: Checkpoints,
        validation: Validation | None,
        gate: Gate,
        first: bool,
    ) -> None:
        self.job = job
        self.train = job.config["train"]
        self.engine = engine
        self.batches = batches
        self.ema = ema
        self.checkpoints = checkpoints
        self.start = checkpoints.resume()
        self.validation = validation
        self.record = Record(job, self.start) if first else None
        self.stopping = EarlyStopping(self.train["early_stopping"], self._losses_before())
        self.meter = Meter(engine.device, self.train["effective_batch"])
        before = self.record.before if self.record else []
        self.signs = Signs(self.train["checkpoint"] is None, before)
        self.total = length.known(job, batches.epoch)
        self.warmup = warmup_steps(self.train["warmup_steps"], self.train["minutes"])
        self.gate = gate
        gate.recipe(self.total, self.warmup)
        gate.rows.append(("checkpoints", checkpoints.require_room(self.total)))
        self._began = time.monotonic()
        self._measured_from = 0.0
        self._last_progress = 0.0

    def run(self) -> int:
        """Train to the end; returns the total number of optimizer steps."""
        with Watchdog(60 * self.train["stall_minutes"], distributed.rank(), leave) as watchdog:
            return self._steps(watchdog)

    def _steps(self, watchdog: Watchdog) -> int:
        step = self.start
        self._began = time.monotonic()
        while self.total is None or step < self.total:
            self._one_step(step)
            step += 1
            self._validate(step)
            watchdog.rest()
            self._stop_if_asked(step)
            if self.total is None:
                self._measure(step)
            elif step % self.train["checkpoint_every"] == 0 and step < self.total:
                self.engine.require_equal_weights(step)
                self.checkpoints.save(step)
            self.checkpoints.check()
            watchdog.beat(step)
        watchdog.rest()
        self.engine.require_equal_weights(step)
        self.checkpoints.wait()
        if self.record is not None:
            self.record.close()
        return step

    def _stop_if_asked(self, step: int) -> None:
        """Save and raise Stopped when a signal reached any rank: all decide alike, at one step."""
        asked = self.job.asked_to_stop
        rank = STOP_SIGNALS.index(asked) + 1 if asked else 0
        decided = int(distributed.most(rank))
        if not decided or step == self.total:
            return
        if self.total is not None:  # while a time budget is being measured there are no checkpoints
            self.engine.require_equal_weights(step)
            self.checkpoints.save(step)
            self.checkpoints.wait()
        if self.record is not None:
            self.record.close()
            self.job.progress(step, self.total or 0, "steps", "saved")
        raise Stopped(STOP_SIGNALS[decided - 1])

    def _one_step(self, step: int) -> None:
        peak, schedule = self.train["learning_rate"], self.train["schedule"]
        lr = learning_rate(step, self.total, peak, self.warmup, schedule)
        # What LoRA drops is a function of the step, as everything else that is drawn.
        torch.manual_seed(derived_key(self.job.config["seed"], step, distributed.rank()) >> 1)
        share = self.engine.step(self.meter.batches(self.batches.step(step)), lr)
        loss, norm = distributed.total(share), self.engine.gradient_norm()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._keep_batch(step, share)
        require_finite("loss", loss, step + 1)
        require_finite("gradient norm", norm, step + 1)  # ZeRO leaves such a step out, unsaid
        if step == self.start:
            self._pass_gate(step, loss)
        self.ema.update()
        self.meter.step()
        if self.record is None:
            return
        done = step + 1
        if done % self.train["log_every"] == 0 or done in (1, self.total):
            self._line(self.record, done, loss, lr, norm)
        self._progress(done, loss)

    def _line(self, record: Record, done: int, loss: float, lr: float, norm: float) -> None:
        numbers = {"train/loss": loss, "train/lr": lr, "train/gradient_norm": norm}
        numbers |= self.meter.read()
        record.write(done, self._seconds(), numbers)
        print(f"step {done} loss {loss:.6f} lr {lr:.2e} norm {norm:.4f}", flush=True)
        for said in self.signs.look(numbers, done, self.total):
            print(said, flush=True)

    def _pass_gate(self, step: int, loss: float) -> None:
        seconds = self._seconds()
        digest = self.engine.require_equal_weights(step + 1)
        self.gate.after_step(loss, digest, seconds, (self.total or step + 1) - step - 1)
        self.gate.show()

    def _keep_batch(self, step: int, share: float) -> None:
        """Write down what a step was computed from, for whoever has to find out why."""
        shares = distributed.gather(share)
        if self.record is not None:
            kept = {"step": step + 1, "loss_by_rank": [str(part) for part in shares]}
            kept["samples"] = self.batches.describe(step)
            files.write_json(self.checkpoints.folder / NOT_FINITE, kept)

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _losses_before(self) -> list[float]:
        before = self.record.before if self.record else []
        return list(distributed.agree([line[LOSS] for line in before if LOSS in line]))

    def _validate(self, step: int) -> None:
        """A round of sampling and validation where one is due; it may be the last step."""
        every = self.train["validate_every"]
        due = every and step > every and step % every == 1 % every
        if not self.validation or self.total is None or not (due or step == self.total):
            return
        found = self.validation.round(self.job.run.plots, step)
        if self.record is not None:
            self.record.write(step, self._seconds(), found)
            print(f"step {step} " + " ".join(f"{k} {v:.5g}" for k, v in found.items()), flush=True)
        if LOSS not in found:
            return
        if self.record is not None and (step - 1) % self.train["checkpoint_every"] == 0:
            retention.record_score(
                self.checkpoints.folder, step - 1, "validation_loss", found[LOSS]
            )
        if self.stopping.after(found[LOSS]) and step < self.total:
            self.total = step
            if self.record is not None:
                print(f"step {step} is the last: the validation loss falls no more", flush=True)

    def _progress(self, done: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._last_progress >= PROGRESS_EVERY_S or done == self.total:
            self._last_progress = now
            self.job.progress(done, self.total or 0, "steps", f"loss {loss:.5f}")

    def _measure(self, done: int) -> None:
        """Turn the time budget into steps, once: real steps are timed on rank 0.

        No checkpoint is written before, so a restart either finds the decision or
        measures from the beginning.
        """
        if done == MEASURE_FROM:
            self._measured_from = time.monotonic()
        if done != MEASURE_TO:
            return
        speed = (MEASURE_TO - MEASURE_FROM) / (time.monotonic() - self._measured_from)
        self.total = length.decide(self.job, self.warmup, speed)


def require_finite(name: str, number: float, step: int) -> None:
    """Raise RdtlError RDTL-T018 for a number of a step that is NaN or infinite."""
    if math.isfinite(number):
        return
    raise RdtlError(
        "RDTL-T018",
        f"the {name} is {number} at step {step}",
        where=f"optimizer step {step}; its samples and each rank's part of the loss are in "
        f"checkpoints/{NOT_FINITE}",
        why="every weight is lost with that update, or after the next",
        fix="where the loss rose before, lower train.learning_rate; otherwise look at the samples "
        "(python -m jobs.dataset RUN_DIR). The newest checkpoint is from before this step",
    )
