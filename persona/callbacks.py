"""Trainer callbacks: seal each finished checkpoint, and stop in good order on SIGTERM or Ctrl-C."""

import signal
import sys
from pathlib import Path

from transformers import TrainerCallback

from persona import checkpoints


class SealCheckpoints(TrainerCallback):
    """Write the marker of a checkpoint once all of it is on disk."""

    def on_save(self, args, state, control, **kwargs):
        checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class StopOnSignal(TrainerCallback):
    """Save at the end of the step and stop.

    transformers' own just-in-time checkpoint saves in mid-step, after random numbers were drawn, from where
    a resumed run takes another course.
    """

    def __init__(self):
        self.stopped = False

    def on_train_begin(self, args, state, control, **kwargs):
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)

    def _stop(self, number, frame):
        print(f"\n{signal.Signals(number).name}: saving at the end of this step", file=sys.stderr)
        self.stopped = True

    def on_step_end(self, args, state, control, **kwargs):
        if self.stopped:
            control.should_save = control.should_training_stop = True
