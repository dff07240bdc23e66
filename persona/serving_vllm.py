"""The vLLM command that serves the same base and adapters under the same names."""

import shutil
from collections.abc import Sequence

import config
from persona.errors import UserError
from persona.serving_models import AdapterSource

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that vLLM takes for --max-lora-rank."""
KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM reads its key; an argument would be seen by every user of the machine."""


def command(
    entry: config.ModelEntry,
    sources: Sequence[AdapterSource],
    host: str,
    port: int,
    four_bit: bool,
    slots: int,
    context: int,
    seed: int,
) -> list[str]:
    """`vllm serve` with its arguments.

    Raises:
        UserError: an adapter of a larger rank than vLLM serves, or a whole model among others.
    """
    settings = ["--host", host, "--port", str(port), "--seed", str(seed)]
    settings += ["--max-num-seqs", str(slots), "--max-model-len", str(context)]
    if any(source.whole for source in sources):
        return [*_alone(sources), *settings]
    words = ["vllm", "serve", entry.source, "--served-model-name", entry.name, *settings]
    if entry.revision:
        words += ["--revision", entry.revision, "--tokenizer-revision", entry.revision]
    if four_bit:
        words += ["--quantization", "bitsandbytes"]
    if sources:
        widest = max(sources, key=lambda source: source.rank)
        if widest.rank > RANKS[-1]:
            raise UserError(f"{widest.path}: rank {widest.rank}; vLLM serves at most {RANKS[-1]}")
        rank = next(rank for rank in RANKS if rank >= widest.rank)
        words += ["--enable-lora", "--max-loras", str(len(sources)), "--max-lora-rank", str(rank)]
        words += ["--lora-modules", *(f"{source.id}={source.path.resolve()}" for source in sources)]
    return words


def _alone(sources: Sequence[AdapterSource]) -> list[str]:
    """A run that trained all weights: vLLM serves one model, so it stands in the base's place."""
    if len(sources) > 1:
        whole = next(source for source in sources if source.whole)
        raise UserError(
            f"{whole.path} ({whole.id}) is a whole model, and vLLM serves one: give --adapters "
            f"{whole.id}={whole.path} alone, or leave --engine out"
        )
    return ["vllm", "serve", str(sources[0].path.resolve()), "--served-model-name", sources[0].id]


def require_vllm() -> None:
    """Refuse where vLLM is not installed."""
    if shutil.which("vllm") is None:
        raise UserError(
            "vLLM is not installed here: pip install vllm (CUDA), or leave --engine out for the "
            "project's own server; --dry-run prints the command"
        )
