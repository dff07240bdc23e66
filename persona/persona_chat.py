"""Rows from Synthetic-Persona-Chat (Jandaghi et al. 2023, arXiv 2312.10007): User 2's next line.

The model is given the first six lines of a conversation and says what User 2 says next: asked in the two
prompt forms that were published with fine-tuned models, and in one that gives no persona.
"""

import csv
import logging
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import config
from persona import download, runlog
from persona.card import Card
from persona.corpus import Corpus
from persona.errors import UserError
from persona.rows import SPLITS, Message, Row, make_row

logger = logging.getLogger(__name__)

COLUMNS = ("user 1 personas", "user 2 personas", "best generated conversation")
FORMS = ("one-persona", "both-personas", "inferred")
OPENING_LINES = 6
"""Lines of a conversation that are given before User 2's reply is asked for."""
VALIDATION_SHARE = 0.1
"""Conversations that validate where there is no file for it."""
REPORTED = 5
"""Malformed lines of a file that are reported one by one; the others are counted."""

_SPLIT_OF_ENDING = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}
# a few conversations are set in Markdown: "*User 1:* Hi!", "* * User 2: * * Hi!", "* * *" between lines
_LINE = re.compile(r"[*\s]*User ([12])[*\s]*:[*\s]*(.*?)[*\s]*")
_RULE = re.compile(r"[*\s]*")


@dataclass(frozen=True)
class Line:
    """One line of a conversation."""

    speaker: int
    """1 or 2."""
    text: str

    def __str__(self) -> str:
        return f"User {self.speaker}: {self.text}"


@dataclass(frozen=True)
class Conversation:
    """Two personas, a sentence each item, and what the two say."""

    number: int
    """From 1 on, as it stands in its file."""
    personas: tuple[tuple[str, ...], tuple[str, ...]]
    lines: tuple[Line, ...]

    def reply_index(self) -> int | None:
        """Index of User 2's first line after the opening; None where there is none."""
        rest = range(OPENING_LINES, len(self.lines))
        return next((i for i in rest if self.lines[i].speaker == 2), None)


def read_conversations(path: Path) -> tuple[list[Conversation], list[str]]:
    """The conversations of a CSV file, and what is malformed in it, by line of the file.

    A record that lacks a persona or has no line of a speaker is left out; so is a line without a speaker (a
    stage direction, a recipe) out of a conversation that has others.

    Raises:
        UserError: no such file, not UTF-8, other columns, or no conversation in it.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    conversations, malformed = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, (line, record) in enumerate(_records(file, path, malformed), 1):
                conversation = _conversation(number, line, record, malformed)
                if conversation:
                    conversations.append(conversation)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not conversations:
        why = f"all are malformed; the first, {malformed[0]}" if malformed else "it holds none"
        raise UserError(f"{path}: no conversations: {why}")
    return conversations, malformed


def _records(file, path: Path, malformed: list[str]) -> Iterator[tuple[int, list[str]]]:
    """First line and the three columns of every record; records that the CSV rules refuse are malformed."""
    reader = csv.reader(file, strict=True)
    places: list[int] | None = None
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            malformed.append(f"line {line}: not CSV ({error})")
            continue
        if places is None:
            names = [name.strip().lower() for name in record]
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise UserError(
                    f"{path}: no column {missing[0]!r} in its first line; "
                    "give a file of Synthetic-Persona-Chat, such as Synthetic-Persona-Chat_test.csv"
                )
            places = [names.index(name) for name in COLUMNS]
        elif len(record) <= max(places):
            malformed.append(f"line {line}: {len(record)} columns, {max(places) + 1} are needed")
        else:
            yield line, [record[place] for place in places]


def _conversation(number: int, line: int, record: list[str], malformed: list[str]) -> Conversation | None:
    """A record as a conversation; what is wrong with it goes to `malformed`."""
    cells = [cell.split("\n") for cell in record]
    personas = [tuple(s.strip() for s in cell if s.strip()) for cell in cells[:2]]
    for user, sentences in enumerate(personas, 1):
        if not sentences:
            malformed.append(f"line {line}: no persona of User {user}")
            return None
    first = line + len(cells[0]) + len(cells[1]) - 2
    lines, unspoken = [], []
    for place, text in enumerate(cells[2], first):
        if _RULE.fullmatch(text):
            continue
        match = _LINE.fullmatch(text)
        if match and match[2]:
            lines.append(Line(int(match[1]), match[2]))
        else:
            unspoken.append(f"line {place}: neither User 1 nor User 2 speaks: {text.strip()[:60]!r}")
    if not lines:
        malformed.append(f"line {line}: a conversation without a line of User 1 or User 2")
        return None
    malformed += unspoken
    return Conversation(number, (personas[0], personas[1]), tuple(lines))


def messages_of(conversation: Conversation, form: str) -> list[Message]:
    """System turn, user turn and User 2's reply in one of the `FORMS`.

    The user turn ends with the opening lines and what else is said before User 2's reply, mostly one line of
    User 1: six lines end with User 2's, so their next one cannot follow at once.
    """
    at = conversation.reply_index()
    if at is None:
        raise ValueError(f"conversation {conversation.number} is too short")
    one, two = (
        f"Persona of User {user}:\n" + "\n".join(f"- {sentence}" for sentence in sentences)
        for user, sentences in enumerate(conversation.personas, 1)
    )
    said = "The conversation so far:\n" + "\n".join(map(str, conversation.lines[:at]))
    if form == "one-persona":
        system = (
            f"The user is User 1, and you are User 2.\n\n{two}\n\n"
            "Stay in character and answer with one line of conversation, without your name before it."
        )
        user = f"{two}\n\n{said}"
    elif form == "both-personas":
        system = (
            "Two people talk, User 1 and User 2. Your goal is to answer as User 2 would, "
            "true to their persona and to what has been said."
        )
        user = f"{one}\n\n{two}\n\n{said}\n\nGive the next line of User 2, and nothing else."
    elif form == "inferred":
        system = (
            "The user is User 1, and you are User 2. Nobody tells you who User 2 is: "
            "gather it from what they say, and go on as the same person, with one line of conversation."
        )
        user = said
    else:
        raise ValueError(f"unknown form {form!r}")
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": conversation.lines[at].text},
    ]


def persona_chat_rows(files: Mapping[str, Path], *, seed: int = 42) -> tuple[dict[str, list[Row]], Counter]:
    """Rows of each split from the files of "train", "validation" and "test", and what was left out of them.

    Without a file for one of the first two, a tenth of the conversations of the other validates, by the seed.
    `overlap` says of a held-out reply that it stands word for word in the training conversations, as a line
    of either speaker: evaluation can leave these out.

    Raises:
        UserError: no file for the test or for training, or one that cannot be read.
    """
    if "test" not in files or not {"train", "validation"} & files.keys():
        raise UserError(
            "Synthetic-Persona-Chat needs a file that ends in _test.csv and one that ends in _train.csv or "
            f"_valid.csv; there is {', '.join(sorted(p.name for p in files.values())) or 'none'}"
        )
    left_out: Counter = Counter()
    conversations = {split: _reported(path, left_out) for split, path in files.items()}
    if len(conversations) < len(SPLITS):
        given = "train" if "train" in conversations else "validation"
        conversations |= _held_out(files[given], conversations[given], seed)
    said = {line.text for c in conversations["train"] for line in c.lines}
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for conversation in conversations[split]:
            if conversation.reply_index() is None:
                left_out[f"{split}: conversation too short"] += 1
                continue
            for form in FORMS:
                messages = messages_of(conversation, form)
                overlap = split != "train" and messages[-1]["content"] in said
                rows[split].append(
                    make_row(
                        messages,
                        "persona_chat",
                        form=form,
                        conversation=conversation.number,
                        overlap=overlap,
                    )
                )
    return rows, left_out


def _reported(path: Path, left_out: Counter) -> list[Conversation]:
    """The conversations of a file; what is malformed is logged and counted."""
    conversations, malformed = read_conversations(path)
    for problem in malformed[:REPORTED]:
        logger.warning("%s, %s: left out", path, problem)
    if len(malformed) > REPORTED:
        logger.warning("%s: %d more malformed lines left out", path, len(malformed) - REPORTED)
    if malformed:
        left_out[f"{path.name}: malformed line"] = len(malformed)
    return conversations


def _held_out(path: Path, conversations: list[Conversation], seed: int) -> dict[str, list[Conversation]]:
    """A tenth of the conversations for validation, the others for training, each in order."""
    if len(conversations) < 2:
        raise UserError(f"{path}: one conversation cannot be split")
    n = max(1, round(len(conversations) * VALIDATION_SHARE))
    held = set(random.Random(f"{seed}-conversations").sample(range(len(conversations)), n))
    return {
        "train": [c for i, c in enumerate(conversations) if i not in held],
        "validation": [c for i, c in enumerate(conversations) if i in held],
    }


def source_files(card: Card, corpus_name: str) -> tuple[str, dict[str, Path]]:
    """Name of the corpus, and its files by split: downloaded, or in a folder; their names' ends tell which.

    Raises:
        UserError: no such corpus, or two files for one split.
    """
    if corpus_name in card.corpora:
        sources = card.corpora[corpus_name].sources
        found = [(Path(download.address(s)).stem, download.fetch(s, config.CACHE)) for s in sources]
    elif Path(corpus_name).is_dir():
        found = [(p.stem, p) for p in sorted(Path(corpus_name).glob("*.csv"))]
    else:
        raise UserError(
            f"no corpus {corpus_name!r} for {card.name}: give --corpus {' or '.join(card.corpora)}, "
            "which is downloaded, or a folder with the CSV files of Synthetic-Persona-Chat"
        )
    files: dict[str, Path] = {}
    for stem, path in found:
        split = _SPLIT_OF_ENDING.get(stem.lower().rpartition("_")[2])
        if split and split in files:
            raise UserError(f"{corpus_name}: two files for {split}, {files[split].name} and {path.name}")
        if split:
            files[split] = path
    return config.corpus_name(corpus_name), files


def build_persona_chat(
    card: Card, corpus_name: str, *, seed: int = 42
) -> tuple[Corpus, dict[str, list[Row]], Counter]:
    """What a data set of a persona_chat card is written from.

    A corpus without stories (its name and the files' sha256), the rows in the seed's order, and what was left
    out. Near-duplicates stay: small talk is alike everywhere, and `overlap` marks what must not count.
    """
    name, files = source_files(card, corpus_name)
    rows, removed = persona_chat_rows(files, seed=seed)
    for split in SPLITS:
        distinct = list({row["id"]: row for row in rows[split]}.values())
        if not distinct:
            raise UserError(f"corpus {name}: no rows for {split}; its conversations are too short")
        if len(distinct) < len(rows[split]):
            removed[f"{split}: repeated"] = len(rows[split]) - len(distinct)
        random.Random(f"{seed}-{split}").shuffle(distinct)
        rows[split] = distinct
    hashes = {path.name: runlog.sha256_of(path) for _, path in sorted(files.items())}
    return Corpus(name, (), (), hashes), rows, removed
