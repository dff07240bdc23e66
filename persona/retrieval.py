"""The canon at hand: passages of the persona's corpus that bear on a question, by BM25.

A passage's score is its own BM25 score plus that of its whole story, so that a question which tells the plot
finds the story even where no single passage holds much of it. Both indexes are cached under data/cache, by
a hash of the corpus files.
"""

import difflib
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import config
from persona.card import Card
from persona.chat import prompt_ids
from persona.corpus import Story, load_corpus, source_files
from persona.errors import UserError
from persona.headings import core, slug
from persona.rows import Message
from persona.sentences import sentences

if TYPE_CHECKING:
    import numpy
    from bm25s import BM25
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

FORMAT = "1"
"""Part of the cache's key: what changes passages or scores changes it."""
FULL_WORDS, MOST_WORDS, FEWEST_WORDS = 80, 120, 40
"""A passage ends with the sentence that brings it to 80 words, before one that would bring it over 120; a
rest of under 40 joins the passage before it."""
K1, B = 1.2, 0.75
"""BM25's usual saturation and length normalisation (Robertson & Zaragoza 2009)."""
PASSAGES = 2
"""Passages that a prompt gets: with room for a question and an answer in a context of 1,024 tokens."""


@dataclass(frozen=True)
class Passage:
    """A piece of a story; `number` counts from 1 within the story."""

    story: str
    title: str
    number: int
    text: str

    def citation(self, words: int = 8) -> str:
        """Story, passage and first words: `The Red-Headed League, passage 12: "I had called upon ..."`."""
        first = self.text.split()
        opening = " ".join(first[:words]).replace('"', "'") + (" ..." if len(first) > words else "")
        return f'{self.title}, passage {self.number}: "{opening}"'


class Retriever:
    """Passages of a corpus, searched by question. Reading it from several threads is safe."""

    def __init__(self, stories: Sequence[str], passages: Sequence[Passage], indexes: tuple["BM25", "BM25"]):
        self.stories = tuple(stories)
        """Ids in the order in which they appeared."""
        self.passages = tuple(passages)
        self._by_passage, self._by_story = indexes

    @classmethod
    def open(cls, card: Card, corpus: str, cache: Path | None = None) -> "Retriever":
        """The index of a corpus of the card or of a folder, from the cache where it is there.

        Raises:
            UserError: the corpus cannot be read, or bm25s is not installed.
        """
        try:
            import bm25s
            import Stemmer  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"retrieval needs {error.name}: pip install -r requirements_training.txt"
            ) from error
        folder = (cache or config.CACHE) / "retrieval" / _key(card, corpus)
        if not (folder / "passages.jsonl").is_file():
            _build(card, corpus, folder)
        lines = (folder / "passages.jsonl").read_text(encoding="utf-8").splitlines()
        passages = [Passage(**json.loads(line)) for line in lines]
        indexes = tuple(bm25s.BM25.load(str(folder / name)) for name in ("by-passage", "by-story"))
        return cls(dict.fromkeys(p.story for p in passages), passages, indexes)

    @cached_property
    def _story_of(self) -> "numpy.ndarray":
        import numpy

        number = {story: i for i, story in enumerate(self.stories)}
        return numpy.array([number[p.story] for p in self.passages])

    def search(
        self, question: str, k: int = 5, up_to: str | None = None, without: Collection[str] = ()
    ) -> list[Passage]:
        """The k passages that bear most on a question, best first; fewer where fewer share a word with it.

        `up_to` (a story's id or title) keeps stories that appeared later out, `without` names more by id.

        Raises:
            UserError: `up_to` names no story of the corpus.
        """
        import numpy

        words = terms([question])[0]
        own = _scores(self._by_passage, words)
        total = own + _scores(self._by_story, words)[self._story_of]
        last = len(self.stories) if up_to is None else self.stories.index(self.find_story(up_to)) + 1
        open_stories = [i < last and story not in without for i, story in enumerate(self.stories)]
        total = numpy.where((own > 0) & numpy.array(open_stories)[self._story_of], total, 0.0)
        best = numpy.argsort(-total, kind="stable")[:k]
        return [self.passages[i] for i in best if total[i] > 0]

    def find_story(self, name: str) -> str:
        """The id of a story that is given by id or title, with or without "The Adventure of".

        Raises:
            UserError: there is none, with those of like name.
        """
        by_core = {core(story): story for story in self.stories}
        if core(name) in by_core:
            return by_core[core(name)]
        near = [story for key, story in by_core.items() if len(core(name)) > 3 and core(name) in key]
        near += [by_core[key] for key in difflib.get_close_matches(core(name), by_core, n=3, cutoff=0.5)]
        listed = list(dict.fromkeys(near))[:4] or [self.stories[0], "...", self.stories[-1]]
        raise UserError(f"no story {name!r} in this corpus: there is {', '.join(listed)}")


def _key(card: Card, corpus: str) -> str:
    """16 hex digits that follow from the texts, the card and the way in which they are cut."""
    parts = [FORMAT.encode(), (card.folder / "persona.toml").read_bytes(), repr(card.corpora).encode()]
    parts += [path.read_bytes() for path, _ in source_files(card, corpus)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _build(card: Card, corpus: str, folder: Path) -> None:
    """Write passages and indexes into `folder`, whole or not at all."""
    import bm25s

    stories = in_order(load_corpus(card, corpus).stories, card)
    passages = [passage for story in stories for passage in cut(story)]
    # the title counts as part of every passage, so that a question may name it
    bodies = terms([f"{_without_article(p.title)}\n{p.text}" for p in passages])
    whole: dict[str, list[str]] = {story.id: [] for story in stories}
    for passage, body in zip(passages, bodies, strict=True):
        whole[passage.story] += body
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        for name, documents in (("by-passage", bodies), ("by-story", list(whole.values()))):
            index = bm25s.BM25(k1=K1, b=B)
            index.index(documents, show_progress=False)
            index.save(str(temporary / name), show_progress=False)
        lines = (json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in passages)
        (temporary / "passages.jsonl").write_text("".join(lines), encoding="utf-8")
        if not folder.exists():
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    logger.info("retrieval: %d passages of %d stories indexed in %s", len(passages), len(stories), folder)


def _without_article(title: str) -> str:
    return re.sub(r"^(?:the )?(?:adventure of )?(?:the )?", "", title, flags=re.IGNORECASE)


def in_order(stories: Iterable[Story], card: Card) -> list[Story]:
    """Stories as they appeared: by the year of their book and their place in it, as the card lists them.

    Stories that no book of the card with a year holds follow, in the order of the corpus.
    """
    listed = [
        (source.year, place, slug(title))
        for corpus in card.corpora.values()
        for source in corpus.sources
        if source.year is not None
        for place, title in enumerate(source.stories)
    ]
    rank = {story: i for i, (_, _, story) in enumerate(sorted(listed, key=lambda entry: entry[:2]))}
    return sorted(stories, key=lambda story: rank.get(story.id, len(rank)))


def cut(story: Story) -> Iterator[Passage]:
    """The whole story in passages of 80 to 120 words that end with a sentence and stay within a chapter.

    One sentence of more than 120 words is a passage by itself.
    """
    number = 0
    for chapter in story.chapters:
        for text in _pieces(story.text[chapter.start : chapter.end]):
            number += 1
            yield Passage(story.id, story.title, number, text)


def _pieces(text: str) -> list[str]:
    found: list[list[str]] = [[]]
    length = 0
    for sentence in (s for paragraph in text.split("\n\n") for s in sentences(paragraph)):
        words = len(sentence.split())
        if length >= FULL_WORDS or (length >= FEWEST_WORDS and length + words > MOST_WORDS):
            found.append([])
            length = 0
        found[-1].append(sentence)
        length += words
    if len(found) > 1 and length < FEWEST_WORDS:
        rest = found.pop()
        found[-1] += rest
    return [" ".join(piece) for piece in found if piece]


def terms(texts: list[str]) -> list[list[str]]:
    """The stems that are compared, function words left out."""
    import bm25s
    import Stemmer

    return bm25s.tokenize(
        texts, stopwords="en_plus", stemmer=Stemmer.Stemmer("english"), return_ids=False, show_progress=False
    )


def _scores(index: "BM25", words: list[str]) -> "numpy.ndarray":
    import numpy

    known = [word for word in dict.fromkeys(words) if word in index.vocab_dict]
    return index.get_scores(known) if known else numpy.zeros(index.scores["num_docs"], dtype="float32")


def augment(messages: Sequence[Message], passages: Sequence[Passage]) -> list[Message]:
    """The conversation with the passages before its last user turn's own words; docs/talking.md has the form.

    Without passages it stays as it is.
    """
    if not passages:
        return list(messages)
    shown = [f"[{i}] {p.title}, passage {p.number}\n{p.text}" for i, p in enumerate(passages, 1)]
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    asked = "\n\n".join(["From the records of your cases:", *shown, messages[last]["content"]])
    return [*messages[:last], {"role": "user", "content": asked}, *messages[last + 1 :]]


def cite(passages: Sequence[Passage]) -> str:
    """A line for every passage of a prompt, numbered as there."""
    return "\n".join(f"[{i}] {passage.citation()}" for i, passage in enumerate(passages, 1))


def with_passages(
    retriever: Retriever,
    tokenizer: "PreTrainedTokenizerBase",
    messages: list[Message],
    room: int,
    up_to: str | None = None,
    without: Collection[str] = (),
) -> tuple[list[Message], list[Passage]]:
    """The conversation with what the search finds for its last user turn, and the passages that it shows.

    Passages give way, worst first, where the prompt would be longer than `room` tokens; `without` names
    stories that are not searched.
    """
    question = next((m["content"] for m in reversed(messages) if m["role"] == "user"), None)
    found = retriever.search(question, PASSAGES, up_to, without=without) if question else []
    while found and len(prompt_ids(tokenizer, augment(messages, found))) > room:
        found.pop()
    return augment(messages, found), found
