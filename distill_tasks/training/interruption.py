"""Stopping a training between two steps, with a checkpoint from which it can be continued."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from distill_tasks.training.multi_gpu import stop_anywhere

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopBetweenSteps(TrainerCallback):
    """Stops a training at a share of all steps, or when SIGTERM or SIGINT arrives."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.received: int | None = None
        self.stopping = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Request the stop when it is due; at the end of an epoch validation comes first."""
        reached = self.share < 1 and state.global_step >= math.ceil(self.share * state.max_steps)
        self.stopping = stop_anywhere(reached or self.received is not None, args.device)
        control.should_training_stop |= self.stopping and not _ends_epoch(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Skip the evaluation that the Trainer would add when it stops inside an epoch."""
        control.should_evaluate &= _ends_epoch(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop at this checkpoint, unless training is complete anyway.

        The best epoch is hidden from the Trainer, which would load it and delete this checkpoint.
        """
        over = control.should_training_stop and _ends_epoch(state)
        if self.stopping and not over:
            control.should_training_stop = True
            state.best_model_checkpoint = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Delay signals inside the block until the step is done; a second one acts at once.

        At the end the first signal is raised again for the handler that was there before. Signals
        that are ignored, or whose handler was not set from Python, are not touched. Raises
        KeyboardInterrupt if the former handler returns, since the training is not complete.
        """
        held = {}
        if threading.current_thread() is threading.main_thread():  # no other may listen
            before = {number: signal.getsignal(number) for number in SIGNALS}
            held = {n: was for n, was in before.items() if was not in (signal.SIG_IGN, None)}
        for number in held:
            signal.signal(number, self._remember)
        try:
            yield
        finally:
            for number, handler in held.items():
                signal.signal(number, handler)
            if self.received is not None:
                signal.raise_signal(self.received)
                raise KeyboardInterrupt

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number


def _ends_epoch(state: Any) -> bool:
    return bool(state.epoch == round(state.epoch))
