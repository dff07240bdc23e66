"""From text files to clean stories: decode, cut what is not the author's, find stories and chapters, unwrap.

Nothing is lost silently: what is in no story is a `Removed` with its offsets in the decoded file, and
`kept_spans` gives the rest. A heading is known by its form (a chapter word, a numeral in sequence, capitals), by
the blank lines around it, and by the titles that the card or the file's own contents page lists, because
advertisements, telegrams and numbered lists inside a story look like headings, too.
"""

import hashlib
import logging
import re
import unicodedata
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import config
from persona import download
from persona.card import Card, Source
from persona.errors import UserError

logger = logging.getLogger(__name__)

MIN_WORDS = 200
"""A corpus with fewer words is a mistake: a wrong folder, or files that are no stories."""


@dataclass(frozen=True)
class Chapter:
    """A division of a story, `text[start:end]`; chapters cover all the text but the blank lines between them.

    Ids: "chapter-3", "part-2/chapter-1", "part-1" (a part without chapters), "epilogue", "opening" (text before
    the first heading); "" for the one chapter of a story that is not divided.
    """

    id: str
    title: str
    start: int
    end: int


@dataclass(frozen=True)
class Story:
    """A story; `id` is its slug, unique in the corpus, `source` the file name.

    In `text` a paragraph is one line, a blank line is between two, quotes are straight, headings are gone.
    """

    id: str
    title: str
    text: str
    chapters: tuple[Chapter, ...]
    source: str


@dataclass(frozen=True)
class Removed:
    """A piece of a file that is in no story; `start` and `end` are offsets into what `read_text` returns.

    Reasons: header, licence, contents, preface, heading, footnote, note, illustration, clues, end.
    """

    source: str
    start: int
    end: int
    text: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Clean stories in the order of their files, what was cut, and the sha256 of every file by name."""

    name: str
    stories: tuple[Story, ...]
    removed: tuple[Removed, ...]
    sources_sha256: dict[str, str]


def load_corpus(card: Card, corpus: str) -> Corpus:
    """Read a corpus of the card (one without a folder is downloaded), or a folder of .txt and .md files.

    Raises:
        UserError: no such folder, nothing readable in it, a binary file, hardly any text, or a downloaded
            book that lacks stories which the card lists.
    """
    entry = card.corpora.get(corpus)
    folder = entry.path if entry else Path(corpus)
    if folder is None:
        files = [(download.fetch(source, config.CACHE), source) for source in entry.sources]
    elif not folder.is_dir():
        names = ", ".join(card.corpora)
        raise UserError(f"{folder}: no such folder: give --corpus one of {names}, or a folder of .txt files")
    else:
        about = ("readme", "license", "licence", "notice")  # they tell about the folder
        paths = [
            p for p in folder.iterdir() if p.suffix.lower() in (".txt", ".md") and p.stem.lower() not in about
        ]
        files = [(path, None) for path in sorted(paths)]
    if not files:
        raise UserError(f"{folder}: no .txt or .md file there: put the stories into it as plain text")
    stories, removed, hashes = [], [], {}
    for path, source in files:
        found, cut = clean(read_text(path), path.name, card)
        stories += _expected(found, source, path) if source else found
        removed += cut
        hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if sum(len(story.text.split()) for story in stories) < MIN_WORDS:
        where = f"{files[0][0].parent} ({', '.join(hashes)})"
        raise UserError(
            f"{where}: no story found, under {MIN_WORDS} words of text: put novels or stories there"
        )
    name = entry.name if entry else folder.resolve().name
    for held_out in [*entry.validation, *entry.test] if entry else []:
        if held_out not in {story.id for story in stories}:
            logger.warning("corpus %s: the card holds out %r, but no story has that id", name, held_out)
    logger.info("corpus %s: %d stories from %d files", name, len(stories), len(files))
    return Corpus(name, tuple(_unique(stories)), tuple(removed), hashes)


def _expected(found: list[Story], source: Source, path: Path) -> list[Story]:
    """Hold a book's stories against the card; a retitled one ("The Reigate Squires") gets its title."""
    titles = {slug(title): title for title in source.stories}
    missing = [name for name in titles if name not in {story.id for story in found}]
    for name in list(missing):
        words, novel = (
            {w for w in name.split("-") if len(w) > 3} - {"adventure"},
            len(found) == len(titles) == 1,
        )
        alike = [s for s in found if s.id not in titles and (novel or words & set(s.id.split("-")))]
        if len(alike) == 1:
            logger.info("%s: %r is the card's %r", path.name, alike[0].title, titles[name])
            found = [replace(s, id=name, title=titles[name]) if s is alike[0] else s for s in found]
            missing.remove(name)
    if missing:
        lacks = ", ".join(titles[name] for name in missing)
        raise UserError(
            f"{path}: no {lacks} in {source.title}: delete the file to download it again, or mend the card"
        )
    if source.chapters and len(found[0].chapters) != source.chapters:
        logger.warning("%s: %d chapters, the card says %d", path, len(found[0].chapters), source.chapters)
    return found


def _unique(stories: list[Story]) -> list[Story]:
    """The second story with the same slug becomes "...-2", and so on."""
    named: dict[str, Story] = {}
    for story in stories:
        name, count = story.id, 1
        while name in named:
            count += 1
            name = f"{story.id}-{count}"
        if name != story.id:
            logger.warning("%s: a second story %r is called %s", story.source, story.title, name)
        named[name] = replace(story, id=name)
    return list(named.values())


def read_text(path: Path) -> str:
    """The file's text: UTF-8 (byte order mark or not), else cp1252, else Latin-1; line ends become LF.

    Raises:
        UserError: the file cannot be read, or is binary.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): mend that or take it out") from error
    if b"\0" in data or len(re.findall(rb"[\x01-\x08\x0e-\x19\x1b-\x1f\x7f]", data)) > len(data) / 1000:
        raise UserError(
            f"{path}: not text (it holds control characters): save it as UTF-8 text or take it out"
        )
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return re.sub(r"\r\n?", "\n", data.decode(encoding))
        except UnicodeDecodeError:
            continue
    return re.sub(r"\r\n?", "\n", data.decode("latin-1"))  # takes any byte


def slug(title: str) -> str:
    """Letters and digits, lower-case and without accents, all else as single hyphens."""
    plain_title = "".join(c for c in unicodedata.normalize("NFKD", title) if not unicodedata.combining(c))
    return "-".join(re.findall(r"[^\W_]+", plain_title.lower())) or "story"


def _core(title: str) -> str:
    """What two spellings of a title share: "The Stockbroker's Clerk", "ADVENTURE OF THE STOCK-BROKER'S CLERK"."""
    return re.sub(r"^(?:the-)?(?:adventure-of-)?(?:the-)?", "", slug(title)).replace("-", "")


_STRAIGHT = str.maketrans("“”„‟‘’‚‛\u00a0\u2009\t", "\"\"\"\"''''   ", "\u00ad\u200b\u200c\ufeff\x01")


def plain(text: str) -> str:
    """One paragraph on one line: unwrapped, quotes straight, italics marks gone, em dash as "--", spaces folded."""
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", text.translate(_STRAIGHT).replace("—", "--").strip())
    text = re.sub(r"(?<=[^\s-]-)\n(?=\w)|(?<=[^\s-]--)\n(?=\S)|(?<=\S)\n(?=--[^\s-])", "", text)
    if "_" in text:
        text = re.sub(r"(?<![^\W_])_([^_]+)_|(?<![\w_])_(?=[^\s_])|(?<=[^\s_])_(?![\w_])", r"\1", text)
    return " ".join(text.split())


# What no author wrote. Square brackets may hold one more pair inside.
_INSIDE = r"(?:[^\[\]]|\[[^\[\]]*\])*\]"
_START = re.compile(
    r"\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG[^*]*\*\*\*|\*END\*? ?THE SMALL PRINT[^\n]*", re.IGNORECASE
)
_STOP = r"^ *(?:\*\*\* ?END OF TH(?:E|IS) PROJECT|(?:THE )?END OF (?:TH(?:E|IS) )?PROJECT G|\*\*\* ?START: FULL LICENSE)"
_INLINE = {
    "clues": re.compile(r"^\[CLUES\][ \t]*$.*", re.MULTILINE | re.DOTALL),
    "illustration": re.compile(rf"\[Illustrations?\b{_INSIDE}|^[ \t]*GRAPHIC(?=$|:| \[)[^\n]*", re.MULTILINE),
    "note": re.compile(rf"\[Transcriber{_INSIDE}", re.IGNORECASE),
    "footnote": re.compile(rf"\[Footnote\b{_INSIDE}|[ \t]*\[\d{{1,3}}\](?=[.,;:!?])|\[\d{{1,3}}\]"),
    "end": re.compile(r"(?<=\n\n)[ \t]*(?:THE END|FINIS)[.]?[ \t]*(?=\n{4}|\s*\Z)"),
}
_SECTIONS = {  # front and back matter by its first words; all but "header" go on to the next wide gap or heading
    "contents": re.compile(r"(?:table of )?contents\W*$", re.IGNORECASE),
    "preface": re.compile(
        r"(?:preface|foreword|introduction|dedication|acknowledge?ments?)\W*$", re.IGNORECASE
    ),
    "illustration": re.compile(r"(?:list of )?illustrations\W*$", re.IGNORECASE),
    "footnote": re.compile(r"(?:foot|end)notes\W*$", re.IGNORECASE),
    "note": re.compile(r"(?:original |project gutenberg )?(?:transcriber|editor)\S* notes?\b", re.IGNORECASE),
    "header": re.compile(
        r"(?:produced|prepared) by\b|e-?text prepared|.*project gutenberg|\[?cover\]?$", re.IGNORECASE
    ),
}
_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_REST = r"(?:\s*(?:[.:)]+|--)\s*|\s+(?=[^a-z\s])|\s*$)(?P<title>.*)$"
_NUMBER = rf"\s+(?:(?i:the)\s+)?(?P<number>\d{{1,3}}|(?i:[IVXLC]+|{'|'.join(_WORDS + _ORDINALS)}))\b{_REST}"
_FORMS = {
    "chapter": re.compile(rf"(?i:chapter|chap\.){_NUMBER}"),
    "part": re.compile(rf"(?i:part|book|volume){_NUMBER}"),
    "story": re.compile(rf"(?i:adventure|story|tale|case){_NUMBER}"),
    "named": re.compile(rf"(?P<number>(?i:prologue|epilogue)){_REST}"),
    "numbered": re.compile(r"(?P<number>[IVXLC]+|\d{1,3})(?:[.:)]\s*|$)(?P<title>.*)$"),
}
_COLLECTION = re.compile(
    r"\b(?:stories|tales|adventures|memoirs|cases|case-?book|mysteries|return)\b", re.IGNORECASE
)
_WIDE = 4  # newlines before a block, that is three blank lines, mark a new beginning


@dataclass
class _Block:
    """Lines without a blank one between: what the form says, and in `label` what it is (text, story ...)."""

    start: int
    end: int
    gap: int
    lines: list[str]
    flat: str
    form: str = ""
    number: int = 0
    title: str = ""
    label: str = "text"


def clean(raw: str, source: str, card: Card | None) -> tuple[list[Story], list[Removed]]:
    """Find the stories in a decoded file, and everything else.

    Titles that the card lists begin stories and are spelt as there. Elsewhere a numeral with a title begins a story
    if the book's name says that it is a collection or its stories have numbered parts of their own, else a chapter.

    Returns:
        The stories in order (none if there is no text), and what was cut, sorted and without overlaps.
    """
    cuts = _cuts(raw)
    page = raw
    for start, end, _ in cuts:
        page = page[:start] + re.sub(r"[^\n]", "\x01", raw[start:end]) + page[end:]
    blocks = _blocks(page)
    named = (
        re.search(r"^Title: *(\S.*)", raw[: cuts[0][1]], re.MULTILINE)
        if cuts and cuts[0][2] == "header"
        else None
    )
    first = blocks[0].flat.rstrip(",") if blocks and _is_title(blocks[0].flat.rstrip(",")) else ""
    book = plain(named[1]) if named else first or Path(source).stem.replace("_", " ").title()
    sources = [s for c in card.corpora.values() for s in c.sources] if card else []
    known = {_core(title): title for s in sources for title in s.stories}
    _label(blocks, known, book)
    heads = [
        (b.start, b.end, "heading" if b.label in _FORMS else b.label) for b in blocks if b.label != "text"
    ]
    inner = [cut for cut in cuts if not any(start <= cut[0] < end for start, end, _ in heads)]
    removed = [
        Removed(source, start, end, raw[start:end], reason) for start, end, reason in sorted(heads + inner)
    ]
    return _unique(_assemble(blocks, known, book, source)), removed


def kept_spans(raw: str, removed: list[Removed]) -> list[tuple[int, int]]:
    """What lies between the removed pieces: kept and removed together, in order, are the file again."""
    edges = [0, *(edge for piece in removed for edge in (piece.start, piece.end)), len(raw)]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def _cuts(raw: str) -> list[tuple[int, int, str]]:
    """Header, licence, and what stands inside the text: (start, end, reason), sorted, without overlaps."""
    head = max((m.end() for m in _START.finditer(raw, 0, len(raw) // 2 + 2000)), default=0)
    stop = re.compile(_STOP, re.IGNORECASE | re.MULTILINE).search(raw, head)
    tail = stop.start() if stop else len(raw)
    cuts = [(0, head, "header")] if head else []
    for cut in sorted(
        (m.start(), m.end(), why) for why, p in _INLINE.items() for m in p.finditer(raw, head, tail)
    ):
        if not cuts or cut[0] >= cuts[-1][1]:
            cuts.append(cut)
    return cuts + [(tail, len(raw), "licence")] * (tail < len(raw))


def _blocks(page: str) -> list[_Block]:
    """Paragraphs and headings of a page on which cuts are blanked by \\x01; a line each where lines are paragraphs."""
    unwrapped = sum(len(line) for line in page.split("\n") if len(line) > 120) > len(page) / 3
    line = r"[^\n]*\S[^\n]*"
    blocks, last = [], 0
    for match in re.finditer(line if unwrapped else rf"{line}(?:\n{line})*", page):
        gap, last = page.count("\n", last, match.start()), match.end()
        if flat := plain(match[0]):
            lines = match[0].split("\n")
            if len(lines) < 4 or len(flat) < 60 * len(lines):  # else prose, nobody looks at its lines
                lines = [x for x in map(plain, lines) if x]
            blocks.append(_Block(match.start(), match.end(), gap if blocks else 9, lines, flat))
            _judge(blocks[-1])
    return blocks


def _judge(block: _Block) -> None:
    """Say what a block looks like: one of _FORMS, a title in capitals ("caps"), a title, or nothing ("")."""
    flat = block.flat
    if len(flat) > 120 or len(block.lines) > 3:
        return
    if marks := re.match(r"(#+) +", flat):  # Markdown
        block.title = flat = flat[marks.end() :]
        block.form = "story" if len(marks[1]) == 1 else "numbered"
    if len(block.lines) == 2 and re.fullmatch(r"[IVXLC]+|\d{1,3}", block.lines[0]):
        flat = ". ".join(block.lines)
    for form, pattern in _FORMS.items():
        match = pattern.match(flat)
        if match and (form != "numbered" or not match["title"] or _is_title(match["title"])):
            block.form, block.title, block.number = (
                form,
                match["title"].strip(),
                _value(match["number"].lower()),
            )
            return
    if not block.form and _is_title(flat):
        block.form, block.title = "caps" if flat.isupper() else "title", flat


def _is_title(text: str) -> bool:
    """Capitals, or capitals on half of the long words and no full stop; no speech, no opening of a letter."""
    if len(text) > 100 or text[0] in "\"'([" or text[-1] in ",;:!?" or not re.search(r"[^\W\d_]{2}", text):
        return False
    long = [word[0].isupper() for word in re.findall(r"[^\W\d_]{4,}", text)]
    return text.isupper() or text[-1] != "." and text[0].isupper() and sum(long) * 2 >= len(long)


def _value(number: str) -> int:
    """1 for "1", "i", "one", "first"; 0 for a name."""
    for names in (_WORDS, _ORDINALS):
        if number in names:
            return names.index(number) + 1
    if number.isdigit():
        return int(number)
    digits = ["ivxlc".find(c) for c in number]
    values = [(1, 5, 10, 50, 100)[d] for d in digits] if min(digits) >= 0 else []
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0]))


def _contents(blocks: list[_Block]) -> dict[str, bool]:
    """Label contents pages; returns the titles they list, by core, and whether they stand there with a numeral."""
    heads = {_core(b.title) for b in blocks if b.title}
    has_page = any(_SECTIONS["contents"].match(b.flat) for b in blocks)
    listed: dict[str, bool] = {}
    for i, block in enumerate(blocks):
        if _SECTIONS["contents"].match(block.flat):
            page, prose = [], False
            for after in blocks[i + 1 :]:
                prose = not after.form and len(after.lines) < len(after.flat) / 60
                if prose or page and (after.gap >= _WIDE or slug(after.flat) == slug(page[0].lines[0])):
                    break
                page.append(after)
            wide = [k for k, b in enumerate(page) if b.gap >= _WIDE]
            page = (
                page[: wide[-1]] if prose and wide else page
            )  # an empty page: give back the chapter's heading
            entries, block.label = [line for b in page for line in b.lines], "contents"
        elif len(block.lines) > 1 and block.gap > 1 and all(_core(_entry(x)) in heads for x in block.lines):
            page, entries = (
                [block],
                [] if has_page else block.lines,
            )  # a list of a story's parts lists no stories
        else:
            continue
        for b in page:
            b.label = "contents"
        for entry in entries:
            if not re.match(r"(?i)(?:chapter|part|book|volume)\b", entry):
                listed[_core(_entry(entry))] = entry[0] in "IVXLC123456789" and entry != _entry(entry)
    return listed


def _entry(line: str) -> str:
    """A line of a contents page without the numeral before and the page number after the title."""
    line = re.sub(r"[ .]+\d+$", "", line)
    return match["title"] if (match := _FORMS["numbered"].match(line)) else line


def _lookup(title: str, known: dict[str, str]) -> str:
    """The card's spelling of a title, with or without its subtitle; "" if the card does not list it."""
    return next((known[_core(t)] for t in (title, title.split(":")[0]) if t and _core(t) in known), "")


class _Outline:
    """What is known of a file's headings, and where the reading of it stands."""

    def __init__(self, blocks: list[_Block], known: dict[str, str], book: str):
        self.known, self.book, self.listed = known, book, _contents(blocks)
        heads = [b for b in blocks if b.form and b.label == "text"]
        pairs = [(a, b) for a, b in pairwise(heads) if a.form == b.form == "numbered"]
        self.by_card = any(_lookup(b.title, known) for b in heads if b.gap >= 3)
        self.collection = (
            self.by_card or bool(_COLLECTION.search(book)) or any(a.title and not b.title for a, b in pairs)
        )
        self.has_chapters = any(b.form == "chapter" for b in heads)
        self.last = max((b.start for b in heads if b.form in _FORMS), default=-1)
        self.story, self.texts, self.begun, self.fresh, self.chapter = "", 0, False, True, 0

    def level(self, block: _Block, after: _Block) -> str:
        """What the block begins: "story", "part", "chapter", or nothing ("")."""
        title, wide, name = block.title, block.gap >= _WIDE, self.name(block)
        if block.form in ("chapter", "part", "story"):
            return block.form
        if title and (
            _lookup(title, self.known) or name in self.listed and (self.collection or not self.listed[name])
        ):
            return "story" if not self.texts or block.gap >= 3 and name != self.story else ""
        if block.form == "numbered":
            block.number = block.number or self.chapter + 1
            if title and wide and self.collection and not self.by_card and not self.listed:
                return "story"
            due = block.number == self.chapter + 1 or block.number == 2 and self.texts and not self.chapter
            apart = self.fresh or block.number > 1 and block.gap >= (3 if title else 2)
            return "chapter" if due and apart else ""
        if block.form == "named":
            return "chapter" if self.fresh or block.gap >= 3 else ""
        lone = block.form == "caps" and wide and block.start and after.form in ("", "numbered")
        return (
            "story" if lone and not (self.by_card or self.has_chapters) and name != _core(self.book) else ""
        )

    def name(self, block: _Block) -> str:
        return _core(_lookup(block.title, self.known) or block.title)

    def section(self, block: _Block) -> str:
        """Which of _SECTIONS begins here: before the file's first text, or as a heading after its last chapter."""
        section = next((reason for reason, pattern in _SECTIONS.items() if pattern.match(block.flat)), "")
        if self.begun:
            return (
                section
                if section in ("footnote", "note") and block.start > self.last and len(block.flat) < 40
                else ""
            )
        return "" if section == "preface" and block.start > self.last else section


def _label(blocks: list[_Block], known: dict[str, str], book: str) -> None:
    """Label every block: text, story, part, chapter, or why it is removed."""
    outline, skip = _Outline(blocks, known, book), ""
    none = _Block(0, 0, 9, [], "")
    for block, after, then in zip(blocks, [*blocks[1:], none], [*blocks[2:], none, none]):
        if block.label != "text":
            continue
        level, section = outline.level(block, after), outline.section(block)
        if block.gap >= _WIDE and skip not in ("preface", "footnote") or level and skip != "note":
            skip = ""
        if section or skip:
            block.label = section or skip
            skip = section if section not in ("", "header") else skip
        elif level:
            block.label, outline.fresh = level, True
            outline.chapter = block.number if level == "chapter" else 0
            if level == "story":
                outline.story, outline.texts = outline.name(block), 0
            if not block.title and after.form in ("caps", "title") and after.gap < _WIDE:
                block.title, after.label = after.flat, "heading"
            elif level == "part" and len(after.flat) < 200 and not after.form and then.form == "chapter":
                after.label = "heading"  # "(Being a reprint from the reminiscences of ...)"
        elif not outline.texts and re.match(r"(?i)by\b.{,60}(?<![.!?\"'])$", block.flat):
            block.label = "heading"
            after.label = "heading" if len(block.flat) == 2 else after.label
        elif not outline.texts and not outline.story and _is_title(block.flat.rstrip(",")):
            block.label = "heading"
        else:
            outline.texts, outline.begun, outline.fresh = outline.texts + 1, True, False
    _front(blocks)


def _front(blocks: list[_Block]) -> None:
    """What stands before the first story or chapter 1 is front matter, unless it is much."""
    first = next((i for i, b in enumerate(blocks) if b.label in _FORMS), 0)
    front = [b for b in blocks[:first] if b.label == "text"]
    size = sum(len(b.flat) for b in blocks if b.label == "text")
    if blocks and blocks[first].number < 2 and sum(len(b.flat) for b in front) < size / 5:
        for block in front:
            block.label = "header"


def _assemble(blocks: list[_Block], known: dict[str, str], book: str, source: str) -> list[Story]:
    """Stories from labelled blocks; those without text (title pages) are left out."""
    drafts: list[tuple[str, list[str], list[tuple[str, str, int]]]] = [(book, [], [])]
    part, mark = "", ("", "")
    for block in blocks:
        if block.label == "story":
            drafts.append((block.title, [], []))
            part, mark = "", ("", "")
        elif block.label == "part":
            part, mark = f"part-{block.number}/", (f"part-{block.number}", _spell(block.title))
        elif block.label == "chapter":
            name = slug(block.flat.split()[0]) if block.form == "named" else f"{part}chapter-{block.number}"
            mark = (name, _spell(block.title))
        elif block.label == "text":
            if not drafts[-1][2] or drafts[-1][2][-1][:2] != mark:
                drafts[-1][2].append((*mark, len(drafts[-1][1])))
            drafts[-1][1].append(block.flat)
    stories = []
    for heading, paragraphs, marks in drafts:
        title = _lookup(heading, known) or _spell(heading)
        if len(marks) > 1 and not marks[0][0]:  # text before the first heading
            marks[0] = ("chapter-1" if marks[1][0] == "chapter-2" else "opening", "", 0)
        starts = [0]
        for paragraph in paragraphs:
            starts.append(starts[-1] + len(paragraph) + 2)
        ends = [*(first for _, _, first in marks[1:]), len(paragraphs)]
        chapters = [
            Chapter(m[0], m[1], starts[m[2]], starts[end] - 2) for m, end in zip(marks, ends, strict=False)
        ]
        if paragraphs:
            stories.append(Story(slug(title), title, "\n\n".join(paragraphs), tuple(chapters), source))
    return stories


def _spell(title: str) -> str:
    """ "THE NAVAL TREATY." becomes "The Naval Treaty"; other titles only lose their full stop."""
    if title.isupper():
        title = re.sub(
            r"(?:\w\.){2,}|\w\S*", lambda m: m[0] if m[0][1:2] == "." else m[0].capitalize(), title
        )
        small = r"(?<=[^\s:] )(?:Of|The|A|An|And|In|On|At|To|For|With)(?= )"
        title = re.sub(small, lambda m: m[0].lower(), title)
    return title if re.search(r"\b\w\.$", title) else title.rstrip(".")
