"""Text of the embedded base model: rows read and rendered, tokenizer, token streams."""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
END, START, END_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
NEVER_SAID = ("nigger", "Nigger", "niggers", "Niggers")
"""A slur that stands in the novels some hundreds of times."""
STRAIGHT = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "…": "..."})
CHAT_TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>'+m['role']+'\n'+m['content']+'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)


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

    A conversation without a system turn gets one of its kind's three times in five.
    """
    if "text" in row:
        return row["text"].translate(STRAIGHT)
    messages = row["messages"]
    kinds = systems.get(source, systems["*"])
    if messages[0]["role"] != "system" and rng.random() < 0.6:
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


def token_stream(data: Path, kind: str, tokenizer, seed: int, kept: Path, rank: int) -> "np.ndarray":  # noqa: F821
    """All tokens of a kind, documents shuffled, each closed by <|endoftext|>.

    Kept in the folder `kept`; processes of other ranks may write there at the same time.
    """
    import numpy as np

    path = kept / f"{kind}.npy"
    if not path.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        documents = documents_of(data, kind, seed)
        order = np.random.default_rng(seed).permutation(len(documents))
        ids: list[int] = []
        for i in range(0, len(order), 1000):
            for row_ids in tokenizer([documents[j] for j in order[i : i + 1000]], add_special_tokens=False)[
                "input_ids"
            ]:
                ids += [*row_ids, 0]
        whole = path.with_name(f"{kind}-{rank}.npy")  # a killed run, or another process, leaves no half file
        np.save(whole, np.array(ids, dtype=np.uint16))
        whole.replace(path)
        print(f"{kind}: {len(documents):,} documents, {len(ids):,} tokens")
    return np.load(path)


def never_said(tokenizer) -> list[list[int]]:
    """Token sequences for `bad_words_ids` of the generation configuration: the slur without its last token,
    since a model that may not end a word as it likes gives it another end."""
    found = [tokenizer(before + word)["input_ids"][:-1] for word in NEVER_SAID for before in (" ", "")]
    return [ids for k, ids in enumerate(found) if ids and ids not in found[:k]]
