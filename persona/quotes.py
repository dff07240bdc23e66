"""Every quotation of a story with its speaker: spans in, who speaks them out.

python -m persona.quotes FILE --card data/personas/sherlock/persona.toml --out quotes.jsonl
"""

import json
import logging
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

import config
from persona.attribution import Sieve, Turn
from persona.card import Card, load_card
from persona.errors import UserError
from persona.spans import Paragraph, paragraphs

logger = logging.getLogger(__name__)

KEEP_FROM = {
    "explicit": 0.5,
    "description": 0.7,
    "pronoun": 0.6,
    "action": 0.7,
    "vocative": 0.7,
    "alternation": 0.7,
}
"""Probability from which a quote of a tier is good enough to train on; tiers that are not here never are."""
CALLED_BY_TITLE = re.compile(
    r"(?:^|[,.!?;] )(?:my (?:child|lad|girl|boy|good \w+)|inspector|sergeant|constable|captain|colonel|major"
    r"|miss)(?:[,.!?;]|$)",
    re.IGNORECASE,
)
"""Somebody who is not the narrator is called by a title alone."""
EXCHANGE_TURNS = 6
"""How many turns away the evidence may stand that the narrator is a party to the exchange."""


@dataclass(frozen=True)
class Quote:
    """A run of text between an opening mark and its closing one, and who speaks it."""

    start: int
    end: int
    """Character offsets in the text as given, marks left out."""
    text: str
    speaker: str | None
    """Display name; None where nobody speaks it (a title, a letter) or nobody knows."""
    addressee: str | None
    tier: str
    """The evidence that decided: explicit, description, pronoun, action, vocative, alternation, continuation,
    monologue, unspoken, unknown."""
    confidence: float
    keep: bool
    """Good enough to train on as the speaker's."""
    paragraph: int
    """Index of the paragraph (text split at blank lines) that it stands in."""


def attribute(text: str, card: Card, other_narrator: bool = False) -> list[Quote]:
    """All quotes of a text in order of position.

    Paragraphs are separated by blank lines, on one line each or wrapped; quotes are straight or curly.
    `other_narrator`: the "I" of the narration is not the card's narrator.
    """
    found: list[Paragraph] = paragraphs(text)
    sieve = Sieve(text, found, card, other_narrator)
    quotes: list[Quote] = []
    spoken: set[int] = set()
    for i, turn in enumerate(sieve.turns):
        for span in turn.spans:
            spoken.add(id(span))
            tier = turn.tier
            if span.continues and tier != "monologue":
                tier = "continuation"
            quotes.append(
                Quote(
                    start=span.start,
                    end=span.end,
                    text=text[span.start : span.end],
                    speaker=turn.speaker.name if turn.speaker else None,
                    addressee=(turn.addressee.name or None) if turn.addressee else None,
                    tier=tier,
                    confidence=round(turn.probability, 3) if turn.speaker else 0.0,
                    keep=_keep(turn, sieve, other_narrator) and not _doubtful_narrator(i, sieve),
                    paragraph=span.paragraph,
                )
            )
    for paragraph in found:
        for span in paragraph.spans:
            if id(span) not in spoken:
                quotes.append(
                    Quote(
                        span.start,
                        span.end,
                        text[span.start : span.end],
                        None,
                        None,
                        "unspoken",
                        1.0,
                        False,
                        paragraph.index,
                    )
                )
    return sorted(quotes, key=lambda q: q.start)


def _keep(turn: Turn, sieve: Sieve, other_narrator: bool) -> bool:
    """Speaker known, and the evidence good enough for its tier."""
    if turn.speaker is None:
        return False
    if turn.speaker is sieve.people.protagonist and not turn.protagonist_near and turn.tier != "explicit":
        return False
    if other_narrator:
        return turn.tier == "explicit" and turn.run < 3
    if turn.tier == "monologue":
        explicit = any(c.kind == "explicit" and c.entity is turn.speaker for c in turn.cues)
        return explicit and turn.speaker.name == sieve.card.persona.name
    return turn.probability >= KEEP_FROM.get(turn.tier, 2.0)


def _doubtful_narrator(i: int, sieve: Sieve) -> bool:
    """A persona who is the narrator speaks by alternation alone, and nothing near shows that it is he.

    "I" is there in every scene, so that the answers of somebody without a name easily fall to him. The
    nearest turn of the exchange that shows with whom the protagonist talks must show the narrator.
    """
    turn, people = sieve.turns[i], sieve.people
    if not sieve.card.narrator_is_persona or turn.speaker is not people.narrator:
        return False
    if turn.tier not in ("vocative", "alternation"):
        return False
    if turn.formal or turn.deferent:
        return True
    if any(e is people.protagonist for e in turn.addressed):
        return False
    shown = (_shows_narrator(sieve.turns[k], sieve) for k in _exchange(i, sieve.turns))
    return not next((answer for answer in shown if answer is not None), False)


def _exchange(i: int, turns: list[Turn]) -> list[int]:
    """Indices of the turns around the i-th that follow one another closely, nearest first."""
    reach = []
    for step in (-1, 1):
        k = i
        while 0 <= k + step < len(turns) and abs(k + step - i) <= EXCHANGE_TURNS:
            first, second = sorted((k, k + step))
            if turns[second].paragraph - turns[first].spans[-1].paragraph > 2:
                break
            k += step
            reach.append(k)
    return sorted(reach, key=lambda k: (abs(k - i), k))


def _shows_narrator(turn: Turn, sieve: Sieve) -> bool | None:
    """Whether tags and vocatives of a turn show the narrator as a party; None: they show nobody."""
    people = sieve.people
    parties = [*turn.addressed, *turn.told]
    if turn.speaker is not None and any(c.kind in ("explicit", "description", "pronoun") for c in turn.cues):
        parties.append(turn.speaker)
    others = [e for e in parties if e is not people.protagonist]
    if turn.formal or any(CALLED_BY_TITLE.search(sieve.reader.quote(span)) for span in turn.spans):
        return False
    return any(e is people.narrator for e in others) if others else None


@dataclass(frozen=True)
class Args:
    """Command line."""

    file: tyro.conf.Positional[Path]
    """Text of a story."""
    card: Path = config.PERSONAS / "sherlock" / "persona.toml"
    """The persona's card."""
    out: Path = Path("quotes.jsonl")
    """Where the quotes go, one JSON object a line."""
    other_narrator: bool = False
    """Somebody else than the card's narrator tells this text."""


def main(args: Args) -> None:
    """Attribute a file's quotes, write them, and report the counts."""
    if args.card.name != "persona.toml":
        raise UserError(f"{args.card}: give the card by its file, data/personas/NAME/persona.toml")
    if not args.card.is_file():
        raise UserError(f"{args.card}: no such card; cards are data/personas/NAME/persona.toml")
    card = load_card(str(args.card.parent))
    text = _read(args.file)
    quotes = attribute(text, card, args.other_narrator)
    if not quotes:
        raise UserError(f'{args.file}: no quotation marks in it: speech must stand between " " or “ ”')
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = args.out.with_name(args.out.name + ".part")
        temporary.write_text("".join(_line(q) for q in quotes), encoding="utf-8")
        temporary.replace(args.out)
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{args.out}: cannot be written ({error.strerror}): choose another --out") from error
    _report(quotes, args.out)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 (byte {error.start}): convert it first, e.g. iconv -f latin1 -t utf-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give a text file") from error


def _line(quote: Quote) -> str:
    return json.dumps(asdict(quote), ensure_ascii=False) + "\n"


def _report(quotes: list[Quote], out: Path) -> None:
    logger.info("%d quotes, %d kept -> %s", len(quotes), sum(q.keep for q in quotes), out)
    for title, names in (("tier", [q.tier for q in quotes]), ("speaker", [q.speaker or "-" for q in quotes])):
        kept = Counter(n for n, q in zip(names, quotes, strict=True) if q.keep)
        logger.info("%-28s %7s %7s", title, "quotes", "kept")
        for name, n in Counter(names).most_common(15):
            logger.info("%-28s %7d %7d", name, n, kept[name])


if __name__ == "__main__":
    import sys

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    config.run_script(main, Args)
