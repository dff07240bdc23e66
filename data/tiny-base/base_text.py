"""Text of the embedded base model: rows read and rendered, tokenizer, token rows."""

import json
import lzma
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
END, START, END_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
NEVER_SAID = ("nigger", "Nigger", "niggers", "Niggers")
"""A slur that stands in the novels some hundreds of times."""
STRAIGHT = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "…": "..."})
CHAT_TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>'+m['role']+'\n'+m['content']+'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)


def refuse(line: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    print(line, file=sys.stderr)
    raise SystemExit(2)


def rows_of(path: Path) -> Iterator[dict]:
    opened = (
        lzma.open(path, "rt", encoding="utf-8")  # noqa: SIM115
        if path.suffix == ".xz"
        else path.open(encoding="utf-8")
    )
    with opened as lines:
        if path.name.endswith(".txt"):
            yield {"text": lines.read()}
        else:
            yield from (json.loads(line) for line in lines)


def files_of(folder: Path, heldout: bool) -> list[Path]:
    names = (p for p in folder.iterdir() if p.name.endswith((".txt", ".jsonl", ".jsonl.xz")))
    return sorted(p for p in names if p.name.startswith("heldout") == heldout)


def chatml(messages: list[dict]) -> str:
    return "".join(f"{START}{m['role']}\n{m['content'].translate(STRAIGHT)}{END_TURN}\n" for m in messages)


def render(row: dict, source: str, systems: dict[str, list[str]], rng) -> str:
    """A row as training text.

    A conversation without a system turn gets one of its kind's three times in ten.
    """
    if "text" in row:
        return row["text"].translate(STRAIGHT)
    messages = row["messages"]
    kinds = systems.get(source, systems["*"])
    if messages[0]["role"] != "system" and rng.random() < 0.3:
        messages = [{"role": "system", "content": kinds[rng.integers(len(kinds))]}, *messages]
    return chatml(messages)


def make_tokenizer(data: Path, vocab_size: int, init: Path | None):
    """The tokenizer of the model `init`, or a byte-level BPE trained on a sample of every file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if init:
        return AutoTokenizer.from_pretrained(init)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, START, END_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )

    def sample() -> Iterator[str]:
        for path in files_of(data, heldout=False):
            for i, row in enumerate(rows_of(path)):
                if i % 3 == 0:
                    turns = row.get("messages")
                    yield (
                        row["text"] if turns is None else "\n".join(m["content"] for m in turns)
                    ).translate(STRAIGHT)

    tokenizer.train_from_iterator(sample(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=END,
        eos_token=END_TURN,
        extra_special_tokens=[START, END_TURN],
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def documents_of(data: Path, kind: str, seed: int) -> list[str]:
    """Every training document of a kind: prose, talk, or the assistant rows beside this file."""
    import numpy as np

    rng = np.random.default_rng(seed)
    systems = json.loads((HERE / "system_prompts.json").read_text(encoding="utf-8"))
    if kind == "assistant":
        rows = list(rows_of(HERE / "assistant.jsonl"))
        # each with several system turns
        return [render(row, kind, systems, rng) for _ in range(20) for row in rows]
    return [
        render(row, path.name.split(".")[0], systems, rng)
        for path in files_of(data, heldout=False)
        for row in rows_of(path)
        if ("text" in row) == (kind == "prose")
    ]


def token_rows(
    data: Path, kind: str, tokenizer, seed: int, longest: int, kept: Path, rank: int
) -> list["np.ndarray"]:  # noqa: F821
    """The documents of a kind as tokens, each between two <|endoftext|>; what is longer than `longest`
    goes on in a further row.

    Kept in the folder `kept`; processes of other ranks may write there at the same time.
    """
    import numpy as np

    path = kept / f"{kind}.npy"
    if not path.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        documents = documents_of(data, kind, seed)
        if not documents:
            refuse(f"--data {data}: no {kind} in its files")
        ids = [0]
        for i in range(0, len(documents), 1000):
            for row_ids in tokenizer(documents[i : i + 1000], add_special_tokens=False)["input_ids"]:
                ids += [*row_ids, 0]
        whole = path.with_name(f"{kind}-{rank}.npy")  # a killed run, or another process, leaves no half file
        np.save(whole, np.array(ids, dtype=np.int32))
        whole.replace(path)
        print(f"{kind}: {len(documents):,} documents, {len(ids):,} tokens")
    stream = np.load(path)
    ends = np.flatnonzero(stream == 0)
    return [
        stream[at : min(at + longest, end + 1)]
        for start, end in pairwise(ends)
        for at in range(start, end, longest - 1)
    ]


def never_said(tokenizer) -> list[list[int]]:
    """Token sequences for `bad_words_ids` of the generation configuration: the slur without its last token,
    since a model that may not end a word as it likes gives it another end."""
    found = [tokenizer(before + word)["input_ids"][:-1] for word in NEVER_SAID for before in (" ", "")]
    return [ids for k, ids in enumerate(found) if ids and ids not in found[:k]]
