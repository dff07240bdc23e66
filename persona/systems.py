"""Systems that are evaluated: a model behind a door, and how a conversation is put to it.

A door answers conversations and, where the model is at hand, says how likely it finds texts. A system dresses
each item's conversation before it goes through its door: with the persona's prompt, without, with examples.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol

import config
from persona import likelihood, runlog
from persona.answer_cache import AnswerCache, key_of
from persona.card import Card
from persona.chat import Sampling, context_length, fit
from persona.item_files import ITEMS_SEED
from persona.likelihood import Likelihood
from persona.retrieval import Retriever, with_passages
from persona.rows import Message, Row, answer_of
from persona.scoring import Item, Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEPT_AT_ONCE = 500
"""Texts whose likelihoods are written to disk together: what a stopped run loses at most."""
N_EXAMPLES = 3
EXAMPLE_WORDS = (8, 40)
"""Shortest and longest reply that serves as an example."""


class Door(Protocol):
    """A model that answers."""

    def answers(
        self, conversations: list[list[Message]], openings: list[str], max_new_tokens: int, label: str
    ) -> list[str]:
        """One greedy answer to each conversation."""


@dataclass(frozen=True)
class System:
    """A model and the way it is asked."""

    name: str
    door: Door
    facts: dict
    """What the report says of it: model, adapter, prompt, examples."""
    dress: Callable[[Item], list[Message]] = lambda item: item.messages

    @property
    def local(self) -> "LocalDoor | None":
        """The door, where it can tell likelihoods."""
        return self.door if isinstance(self.door, LocalDoor) else None

    def dressed(self, items: Sequence[Item]) -> list[Item]:
        """The items as this system gets them."""
        return [replace(i, messages=self.dress(i)) for i in items]

    def records(self, items: Sequence[Item], max_new_tokens: int, label: str) -> list[Record]:
        """An answer to each item (one after another where it has several turns), and the likelihood of its
        true reply where the model is at hand. With `max_new_tokens` 0 nothing is answered."""
        items = self.dressed(items)
        said = self._talk(items, max_new_tokens, label) if max_new_tokens else [()] * len(items)
        numbers = [likelihood.NOTHING] * len(items)
        if self.local and any(i.reference for i in items):
            numbers = self.local.likelihoods(items, f"{self.name}: {label} likelihood")
        return [
            Record(of[-1] if of else "", *n, of if i.then else ())
            for i, of, n in zip(items, said, numbers, strict=True)
        ]

    def _talk(self, items: Sequence[Item], max_new_tokens: int, label: str) -> list[tuple[str, ...]]:
        """All items' answers; conversations go on together, turn by turn."""
        talks = [list(i.messages) for i in items]
        said: list[list[str]] = [[] for _ in items]
        for turn in range(max((len(i.then) for i in items), default=0) + 1):
            going = [k for k, i in enumerate(items) if turn <= len(i.then)]
            for k in going:
                if turn:
                    talks[k] += [
                        {"role": "assistant", "content": said[k][-1] or "..."},
                        {"role": "user", "content": items[k].then[turn - 1]},
                    ]
            openings = [items[k].opening for k in going]
            what = f"{self.name}: {label}" + (f", turn {turn + 1}" if turn else "")
            answers = self.door.answers([talks[k] for k in going], openings, max_new_tokens, what)
            for k, answer in zip(going, answers, strict=True):
                said[k].append(answer)
        return [tuple(of) for of in said]


class LocalDoor:
    """A model in memory; what it said and how likely it found texts is kept on disk."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        weights: str,
        batch_size: int,
        cache: Path,
    ) -> None:
        """`weights` identifies the model's weights and number format; `cache` is a folder."""
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.weights = weights
        self.context = context_length(model, tokenizer)
        self._cache = AnswerCache(cache / f"{weights[:24]}.jsonl")

    def answers(
        self, conversations: list[list[Message]], openings: list[str], max_new_tokens: int, label: str
    ) -> list[str]:
        """Greedy answers; the oldest exchanges of a conversation go where it is too long for the context."""
        from persona.generation import answer_batch

        sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
        room = self.context - max_new_tokens
        asked = [fit(self.tokenizer, m, room) or m[-1:] for m in conversations]
        keys = [key_of("answer", m, o, max_new_tokens) for m, o in zip(asked, openings, strict=True)]
        todo = list({key: k for k, key in enumerate(keys) if key not in self._cache}.values())
        if todo:
            answer_batch(
                self.model,
                self.tokenizer,
                [asked[k] for k in todo],
                sampling,
                self.batch_size,
                label,
                [openings[k] for k in todo],
                lambda place, answer: self._cache.keep(keys[todo[place]], answer),
            )
        return [self._cache[key] for key in keys]

    def likelihoods(self, items: Sequence[Item], label: str) -> list[Likelihood]:
        """Of every item's true reply."""
        return self._kept("reply", [[i.messages, i.reference] for i in items], label, lambda places: (
            likelihood.true_reply_likelihood(
                self.model, self.tokenizer, [items[k] for k in places], self.context, label
            )
        ))  # fmt: skip

    def candidate_likelihoods(self, items: Sequence[Item], label: str) -> list[Likelihood]:
        """Of replies of which several stand after the same turns."""
        return self._kept("candidate", [[i.messages, i.reference] for i in items], label, lambda places: (
            likelihood.shared_turns_likelihood(
                self.model, self.tokenizer, [items[k] for k in places], self.context, label
            )
        ))  # fmt: skip

    def text_likelihoods(self, texts: Sequence[str], label: str) -> list[Likelihood]:
        """Of plain texts."""
        return self._kept("text", list(texts), label, lambda places: likelihood.text_likelihood(
            self.model, self.tokenizer, [texts[k] for k in places], self.context, label
        ))  # fmt: skip

    def _kept(
        self, what: str, asked: list, label: str, work: Callable[[list[int]], list[Likelihood]]
    ) -> list[Likelihood]:
        keys = [key_of(what, a) for a in asked]
        todo = sorted({key: k for k, key in enumerate(keys) if key not in self._cache}.values())
        for first in range(0, len(todo), KEPT_AT_ONCE):
            places = todo[first : first + KEPT_AT_ONCE]
            for k, numbers in zip(places, work(places), strict=True):
                self._cache.keep(keys[k], list(numbers))
        return [tuple(self._cache[key]) for key in keys]


def fingerprint(entry: config.ModelEntry, number_format: str, adapter: Path | None = None) -> str:
    """A hash of what a local model computes with: base, number format, and what was trained."""
    folder = Path(entry.source)
    base: list[Path | str] = list(_files(folder)) if folder.is_dir() else [f"{entry.source}@{entry.revision}"]
    return runlog.sha256_of(*base, number_format, *(_files(adapter) if adapter else ()))


def _files(folder: Path) -> list[Path]:
    kinds = (".safetensors", ".json", ".jinja", ".bin", ".pt")
    return sorted(p for p in folder.iterdir() if p.suffix in kinds)


def context_of(entry: config.ModelEntry, tokenizer: "PreTrainedTokenizerBase") -> int:
    """The context length of a model that is not in memory."""
    from transformers import AutoConfig

    stated = AutoConfig.from_pretrained(entry.source, revision=entry.revision)
    return context_length(SimpleNamespace(config=stated), tokenizer)


def local_systems(
    entry: config.ModelEntry,
    adapter: Path,
    card: Card,
    train: Sequence[Row],
    *,
    four_bit: bool = True,
    batch_size: int = 64,
    retriever: Retriever | None = None,
    max_new_tokens: int = 128,
) -> Iterator[System]:
    """A base and what was trained on it, in the order in which one model in memory can be them.

    With a `retriever` the tuned model with the corpus at hand comes last.
    """
    from persona import modeling

    device = modeling.pick_device()
    tokenizer = modeling.load_tokenizer(entry)
    model = modeling.load_base(entry, device, four_bit=four_bit).eval()

    def door(model: "PreTrainedModel", trained: Path | None) -> LocalDoor:
        weights = fingerprint(entry, f"{device}, 4-bit {four_bit}", trained)
        return LocalDoor(model, tokenizer, weights, batch_size, config.CACHE / "evaluation")

    yield from base_systems(door(model, None), entry.source, card, train)
    tuned = door(modeling.attach_adapter(model, adapter), adapter)
    yield from tuned_systems(tuned, entry.source, card, adapter)
    if retriever:
        yield retrieval_system(tuned, entry.source, card, adapter, retriever, max_new_tokens)


def base_systems(door: Door, source: str, card: Card, train: Sequence[Row]) -> Iterator[System]:
    """The untouched base in three ways: with the card's prompt, without, with prompt and a few examples."""
    facts = {"model": source, "adapter": None, "prompt": card.system_prompt}
    yield System("base", door, facts)
    yield System("base_no_prompt", door, facts | {"prompt": None}, without_prompt)
    examples = examples_of(train, ITEMS_SEED)
    if examples:
        yield System("base_few_shot", door, facts | {"examples": len(examples) // 2}, with_examples(examples))


def tuned_systems(door: Door, source: str, card: Card, adapter: Path) -> Iterator[System]:
    """The tuned model with the card's prompt, and without."""
    facts = {"model": source, "adapter": str(adapter), "prompt": card.system_prompt}
    yield System("tuned", door, facts)
    yield System("tuned_no_prompt", door, facts | {"prompt": None}, without_prompt)


def retrieval_system(
    door: "LocalDoor", source: str, card: Card, adapter: Path, retriever: Retriever, max_new_tokens: int
) -> System:
    """The tuned model with the corpus at hand."""
    facts = {"model": source, "adapter": str(adapter), "prompt": card.system_prompt, "retrieval": True}
    return System(
        "tuned_rag", door, facts, with_corpus(retriever, door.tokenizer, door.context, max_new_tokens)
    )


def endpoint_system(url: str, model: str, card: Card, cache: Path) -> System:
    """A model behind an OpenAI-compatible endpoint, with the card's prompt; `cache` is a folder."""
    from persona.remote import EndpointDoor

    door = EndpointDoor(url, model, cache)
    facts = {"model": model, "adapter": None, "prompt": card.system_prompt, "endpoint": door.shown_url}
    return System(model, door, facts)


def without_prompt(item: Item) -> list[Message]:
    """A conversation without its system turn."""
    return [m for m in item.messages if m["role"] != "system"]


def with_examples(examples: list[Message]) -> Callable[[Item], list[Message]]:
    """Puts examples between the system turn and the conversation."""

    def dress(item: Item) -> list[Message]:
        system = [m for m in item.messages[:1] if m["role"] == "system"]
        return [*system, *examples, *item.messages[len(system) :]]

    return dress


def with_corpus(
    retriever: Retriever, tokenizer: "PreTrainedTokenizerBase", context: int, max_new_tokens: int
) -> Callable[[Item], list[Message]]:
    """Puts passages of the corpus before the last question, as the chat does with retrieval on.

    An item's own story is left out of the search: it holds the very reply that is asked for. Passages give
    way where the prompt with its answer would not fit the context.
    """

    def dress(item: Item) -> list[Message]:
        reply = len(tokenizer(item.reference or "", add_special_tokens=False)["input_ids"]) + 8
        room = context - max(reply, max_new_tokens)
        without = (item.story,) if item.story else ()
        return with_passages(retriever, tokenizer, item.messages, room, without=without)[0]

    return dress


def examples_of(train: Sequence[Row], seed: int) -> list[Message]:
    """Turns of a few training rows, of one exchange and of middling length, each of another story.

    Dialogue where there is some.
    """
    low, high = EXAMPLE_WORDS
    fitting = [
        r
        for r in sorted(train, key=lambda r: r["id"])
        if [m["role"] for m in r["messages"] if m["role"] != "system"] == ["user", "assistant"]
        and low <= len(answer_of(r).split()) <= high
        and len(r["messages"][-2]["content"].split()) <= high
    ]
    dialogue = [r for r in fitting if r["meta"]["strategy"] == "dialogue"]
    pool = dialogue or fitting
    random.Random(f"{seed}-examples").shuffle(pool)
    by_story = {r["meta"]["story"] or r["id"]: r for r in reversed(pool)}
    chosen = sorted(by_story.values(), key=pool.index)[:N_EXAMPLES]
    return [m for r in chosen for m in r["messages"] if m["role"] != "system"]
