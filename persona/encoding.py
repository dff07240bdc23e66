"""A data set's rows as tokens, ready to train on."""

import hashlib
import json
import logging
import os
import random
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import config
from persona import chat
from persona.errors import UserError
from persona.rows import Row, chosen_rows, read_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def training_sets(
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    strategies: Collection[str] = (),
    questions: int = 3,
    max_length: int = 1024,
    repeats: Mapping[str, int] = MappingProxyType({}),
    eval_rows: int = 32,
    seed: int = 42,
) -> "dict[str, Dataset]":
    """The rows of `folder`, encoded: {"train", "validation", "subset"}, with input_ids and labels.

    `repeats` says by topic how often a training row stands there, where not once. The subset of `eval_rows`
    validation rows is fixed by the seed.

    Raises:
        UserError: a file that cannot be read, or of which no row fits.
    """
    sets = {}
    for split in ("train", "validation"):
        rows = chosen_rows(read_rows(folder / f"{split}.jsonl"), strategies, questions)
        if split == "train":
            rows = [r for r in rows for _ in range(repeats.get(r["meta"].get("topic"), 1))]
        encoded, counts = encode_once(tokenizer, rows, max_length)
        tokens = sum(map(len, encoded["input_ids"]))
        print(
            f"{split}: {counts['rows']:,} rows, {tokens:,} tokens; "
            f"{counts['shortened']} shortened on a turn boundary, "
            f"{counts['dropped']} longer than {max_length} tokens dropped"
        )
        if not len(encoded):
            raise UserError(
                f"{folder}/{split}.jsonl: no row of these strategies fits {max_length} tokens; "
                "raise --max-length, or give other --strategies"
            )
        sets[split] = encoded
    print(
        "one example, with loss on what stands in ⟦ ⟧:\n"
        + chat.show_mask(tokenizer, chat.Encoded(**sets["train"][0]))
    )
    n = len(sets["validation"])
    chosen = sorted(random.Random(seed).sample(range(n), min(eval_rows, n)))
    return {**sets, "subset": sets["validation"].select(chosen)}


def encode_once(
    tokenizer: "PreTrainedTokenizerBase", rows: list[Row], max_length: int
) -> "tuple[Dataset, Counter]":
    """`chat.encode_rows` as a Dataset, kept in data/cache/encoded by content.

    The same words, tokenizer, length and code are encoded once.
    """
    from datasets import Dataset, load_from_disk

    words = json.dumps([r["messages"] for r in rows], ensure_ascii=False)
    of = (words, tokenizer.backend_tokenizer.to_str(), str(tokenizer.chat_template), str(max_length))
    code = Path(chat.__file__).read_text(encoding="utf-8")
    key = hashlib.sha256("\0".join((*of, str(tokenizer.eos_token), code)).encode()).hexdigest()[:24]
    kept = config.CACHE / "encoded" / key
    try:
        return load_from_disk(str(kept)), Counter(json.loads((kept / "counts.json").read_text()))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read (%s): encoded again", kept, error)
    encoded, counts = chat.encode_rows(tokenizer, rows, max_length)
    columns = {name: [getattr(e, name) for e in encoded] for name in ("input_ids", "labels")}
    found = Dataset.from_dict(columns)
    _keep(found, counts, kept)
    return found, counts


def _keep(found: "Dataset", counts: Counter, kept: Path) -> None:
    """Put a data set into the cache, whole or not at all."""
    half = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        found.save_to_disk(str(half))
        (half / "counts.json").write_text(json.dumps(counts))
        half.rename(kept)
    except OSError as error:  # a full disk, or another process was first
        logger.info("%s: not kept (%s)", kept, error)
    finally:
        shutil.rmtree(half, ignore_errors=True)
