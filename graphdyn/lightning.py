"""LightningRecorder: the recorder as a callback of PyTorch Lightning; needs the extra ``lightning``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphdyn.errors import InputError
from graphdyn.instruments import Instrument
from graphdyn.problem import Problem
from graphdyn.recorder import Recorder
from graphdyn.sinks import Sink

try:
    from lightning.pytorch import Callback  # pyright: ignore[reportMissingImports]
except ImportError:
    Callback = None


class LightningRecorder(Callback or object):  # pyright: ignore
    """Instruments on the first optimiser of a Lightning module; the module itself does not change.

    Its state rides in Lightning's checkpoints, so a run that goes on from one goes on measuring.

    Args:
        instruments: See :class:`graphdyn.Recorder`, likewise the arguments that follow.
        problem: See ``instruments``; its model is called as the Lightning module.
        to: See ``instruments``.
        budget: See ``instruments``.
        **options: See ``instruments``.

    Attributes:
        recorder: While the trainer fits, and after.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        *,
        problem: Problem | None = None,
        to: str | Path | Sink | None = None,
        budget: float | None = None,
        **options: Any,
    ):
        if Callback is None:
            raise InputError(
                "LightningRecorder needs lightning; pip install 'graphdyn[lightning]'."
            )
        super().__init__()
        self._options = {"problem": problem, "to": to, "budget": budget, **options}
        self._instruments, self._state = instruments, None
        self.recorder: Recorder | None = None
        # Of the micro-batches since the last step, as Lightning has divided it; and that step.
        self._loss: Any = None
        self._step = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Optimisers exist by now; on other ranks than the first nothing is measured."""
        if not trainer.is_global_zero:
            return
        self.recorder = Recorder(
            pl_module, trainer.optimizers[0], self._instruments, **self._options
        )
        if self._state is not None:
            self.recorder.load_state_dict(self._state)
        self.recorder.attach()
        self._loss, self._step = None, self.recorder.step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss of a step, which may be the sum over several batches."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not self.recorder or loss is None:
            return
        self._loss = loss if self._loss is None else self._loss + loss
        if self.recorder.step > self._step:
            self.recorder.log(loss=self._loss)
            self._loss, self._step = None, self.recorder.step

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what the module has logged."""
        if self.recorder and not trainer.sanity_checking:
            scores = {n: float(v) for n, v in trainer.callback_metrics.items()}
            self.recorder.note(scores=scores)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """An epoch is over."""
        if self.recorder:
            self.recorder.end_epoch()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Write what is not written."""
        if self.recorder:
            self.recorder.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write what is not written, so that a checkpoint can go on."""
        if self.recorder:
            self.recorder.close(finished=False)

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoint."""
        return {"recorder": self.recorder.state_dict()} if self.recorder else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From Lightning's checkpoint."""
        self._state = state_dict.get("recorder")
