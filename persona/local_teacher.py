"""A teacher on this machine: a base model of the registry or of a folder, asked like an endpoint."""

import logging
from pathlib import Path

import config
from persona import runlog
from persona.chat import Sampling, context_length, prompt_ids
from persona.jobs import Asker, Job, Spend, parse_answer

logger = logging.getLogger(__name__)

TRIES = 3
CHUNK = 64
"""Jobs answered before their answers are kept."""
RETRY_TEMPERATURE = 0.7
"""The first try is greedy; the same words would come again."""


class LocalTeacher(Asker):
    """A model that is loaded when there is something to ask."""

    def __init__(
        self,
        entry: config.ModelEntry,
        cache: Path,
        *,
        budget_tokens: int | None = None,
        batch_size: int = 16,
        seed: int = 42,
    ):
        """Answers are kept by the hub revision, or by the hash of the folder's files."""
        settings = {"weights": entry.revision or _folder_sha256(Path(entry.source)), "seed": seed}
        super().__init__(entry.name, cache, settings, Spend(budget_tokens))
        self.entry = entry
        self.batch_size = batch_size
        self.seed = seed

    def _work(self, todo: dict[str, Job]) -> None:
        from persona.modeling import load_base, load_tokenizer, pick_device

        device = pick_device()
        logger.info("teacher %s on %s", self.id, device)
        tokenizer = load_tokenizer(self.entry)
        model = load_base(self.entry, device, four_bit=device.type == "cuda").eval()
        room = context_length(model, tokenizer)
        waiting: list[tuple[str, Job, int]] = []  # key, job, tokens of the prompt
        for key, job in todo.items():
            prompt_tokens = len(prompt_ids(tokenizer, list(job.messages)))
            if prompt_tokens + job.max_tokens > room:
                self._ended("failed: longer than the model's context")
            else:
                waiting.append((key, job, prompt_tokens))
        for first in range(0, len(waiting), CHUNK):
            self._chunk(model, tokenizer, waiting[first : first + CHUNK])

    def _chunk(self, model, tokenizer, chunk: list[tuple[str, Job, int]]) -> None:
        """Ask a chunk, those without a proper answer twice more."""
        from persona.generation import answer_batch

        for attempt in range(TRIES):
            asked, before = [], self.spend.reserved
            for key, job, prompt_tokens in chunk:
                most = prompt_tokens + job.max_tokens
                if self.spend.fits(most):
                    self.spend.reserved += most
                    asked.append((key, job, prompt_tokens))
                else:
                    self._ended("left: budget")
            self.spend.reserved = before
            chunk = []
            for limit in sorted({job.max_tokens for _, job, _ in asked}):
                alike = [item for item in asked if item[1].max_tokens == limit]
                sampling = Sampling(
                    temperature=RETRY_TEMPERATURE if attempt else 0.0,
                    max_new_tokens=limit,
                    seed=self.seed + attempt,
                )
                texts = answer_batch(
                    model,
                    tokenizer,
                    [list(job.messages) for _, job, _ in alike],
                    sampling,
                    self.batch_size,
                    label=f"{alike[0][1].name}, try {attempt + 1}",
                )
                for (key, job, prompt_tokens), text in zip(alike, texts, strict=True):
                    completion = len(tokenizer(text, add_special_tokens=False)["input_ids"])
                    self.spend.count(job, prompt_tokens, completion, told=True)
                    answer = parse_answer(text, job.answer)
                    if answer is not None:
                        self._keep(key, answer)
                    elif attempt + 1 < TRIES:
                        chunk.append((key, job, prompt_tokens))
                    else:
                        self._ended("failed: not the JSON that was asked for")
            if not chunk:
                return


def _folder_sha256(folder: Path) -> str:
    """One hash over what decides a model's answers."""
    kinds = (".json", ".safetensors", ".bin", ".jinja", ".txt", ".model")
    return runlog.sha256_of(*sorted(p for p in folder.iterdir() if p.suffix in kinds))
