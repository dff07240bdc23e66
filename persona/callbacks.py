"""Trainer callbacks: seal each finished checkpoint, and stop in good order on SIGTERM or Ctrl-C."""

import signal
import sys
from pathlib import Path

from persona import checkpoints


def training_callbacks() -> tuple:
    """(seal, stop): `seal` writes a checkpoint's marker once all of it is on disk; `stop` saves at the end of
    the step and stops when a signal comes, and then has `stopped` set.

    transformers' own just-in-time checkpoint saves in mid-step, after random numbers were drawn, from where a
    resumed run takes another course.
    """
    from transformers import TrainerCallback

    class SealCheckpoints(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    class StopOnSignal(TrainerCallback):
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

    return SealCheckpoints(), StopOnSignal()
