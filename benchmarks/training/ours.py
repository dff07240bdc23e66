"""Run fine_tune.py as it is, but for one thing: a gain taken out, or random weights.

Everything after `--` goes to fine_tune.py.

    python benchmarks/training/ours.py --without shared-prefix -- --data DIR --max-steps 20 --run test
"""

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file from anywhere

import config
from persona.errors import UserError


@dataclass(frozen=True)
class Args:
    without: str | None = None
    """The gain to take out: a name of GAINS."""
    random_weights: bool = False
    """--model of fine_tune.py is then a folder of training/random_weights.py."""
    timing: Path | None = None
    """Note the time of every step in this file."""


def no_shared_prefix() -> None:
    from persona import attention

    attention.common_prefix = lambda rows: 0


def pad() -> None:
    from persona import attention, methods

    def padded(method, tokenizer):
        from transformers import DataCollatorForSeq2Seq

        tokenizer.padding_side = "right"
        return DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)

    methods.collator = padded
    attention.register = lambda: "sdpa"


def learn_every_token() -> None:
    from persona import attention

    plain = attention.collate

    def collate(rows):
        rows = [{**row, "labels": row["input_ids"]} for row in rows]
        shared = attention.common_prefix
        attention.common_prefix = lambda rows: 0  # a shared beginning that is learned cannot be shared
        try:
            return plain(rows)
        finally:
            attention.common_prefix = shared

    attention.collate = collate


def dequantise_each_time() -> None:
    from persona import modeling

    modeling.DEQUANTISED_ON_CPU = 0


def slow_dropout() -> None:
    from persona import modeling

    modeling.speed_up_dropout = lambda model: None


def give_memory_back() -> None:
    from persona import modeling

    modeling.keep_freed_memory = lambda: None


@dataclass(frozen=True)
class Gain:
    """Something that makes ours faster, and how to do without it."""

    title: str
    undo: Callable[[], None] | None = None
    flags: tuple[str, ...] = ()
    """fine_tune.py's own flags that do without it."""


GAINS: dict[str, Gain] = {
    "padding-free": Gain("rows one after another, not padded (nor the system prompt shared)", pad),
    "shared-prefix": Gain("the common beginning of a batch is computed once", no_shared_prefix),
    "answers-only": Gain("loss on answers alone, and with that the shared prefix", learn_every_token),
    "one-micro-batch": Gain("8 rows at a time, not 2", flags=("--micro-batch", "2")),
    "kept-activations": Gain(
        "activations kept, not computed again", flags=("--activation-checkpointing", "True")
    ),
    "dequantised-once": Gain("NF4 weights de-quantised once, not in each pass", dequantise_each_time),
    "fast-dropout": Gain("16 random bits an element in dropout", slow_dropout),
    "kept-memory": Gain("freed memory kept by the allocator", give_memory_back),
}


def use_random_weights() -> None:
    """Have fine_tune.py get a model of its folder's architecture with random weights."""
    from training.random_weights import build

    from persona import modeling

    modeling.load_base = lambda entry, device, four_bit=True: build(
        Path(entry.source), device.type, device.dtype
    )


def main(args: Args, flags: list[str]) -> None:
    """Change what is to be changed, then hand over to fine_tune.py."""
    if args.without and args.without not in GAINS:
        raise UserError(f"--without {args.without}: give one of {', '.join(GAINS)}")
    if args.timing:
        import torch
        from training.timing import note_steps

        note_steps(args.timing, torch.cuda.is_available())
    gain = GAINS[args.without] if args.without else Gain("")
    if gain.undo:
        gain.undo()
    if args.random_weights:
        use_random_weights()
    sys.argv = [str(config.ROOT / "fine_tune.py"), *flags, *gain.flags]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    rest, sys.argv = sys.argv[at + 1 :], sys.argv[:at]
    config.run_script(lambda args: main(args, rest), Args)
