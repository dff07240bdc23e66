"""The blocks of a page, which of them are headings, and what begins at each: a story, a part, a chapter.

A heading is known by its form (a chapter word, a numeral in sequence, capitals), by the blank lines around
it, and by the titles that the card or the file's own contents page lists, because advertisements, telegrams
and numbered lists inside a story look like headings, too.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

BLANK = "\x01"
"""Stands on a page where something was cut; `plain` drops it."""
_WIDE = 4  # newlines before a block, that is three blank lines, mark a new beginning

# Front and back matter by its first words; all but "header" go on to the next wide gap or heading.
_SECTIONS = {
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
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
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
_BYLINE = re.compile(r"by\b.{,60}(?<![.!?\"'])$", re.IGNORECASE)
_STRAIGHT = str.maketrans("“”„‟‘’‚‛\u00a0\u2009\t", "\"\"\"\"''''   ", f"\u00ad\u200b\u200c\ufeff{BLANK}")


# --- words of a page, and titles ------------------------------------------------------------------------


def plain(text: str) -> str:
    """One paragraph on one line: quotes straight, no italics marks, em dash as "--", spaces folded."""
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", text.translate(_STRAIGHT).replace("—", "--").strip())
    text = re.sub(r"(?<=[^\s-]-)\n(?=\w)|(?<=[^\s-]--)\n(?=\S)|(?<=\S)\n(?=--[^\s-])", "", text)
    if "_" in text:
        text = re.sub(r"(?<![^\W_])_([^_]+)_|(?<![\w_])_(?=[^\s_])|(?<=[^\s_])_(?![\w_])", r"\1", text)
    return " ".join(text.split())


def slug(title: str) -> str:
    """Letters and digits, lower-case and without accents, all else as single hyphens."""
    plain_title = "".join(c for c in unicodedata.normalize("NFKD", title) if not unicodedata.combining(c))
    return "-".join(re.findall(r"[^\W_]+", plain_title.lower())) or "story"


def core(title: str) -> str:
    """What spellings of a title share: "The Stockbroker's Clerk", "ADVENTURE OF THE STOCK-BROKER'S CLERK"."""
    return re.sub(r"^(?:the-)?(?:adventure-of-)?(?:the-)?", "", slug(title)).replace("-", "")


def lookup(title: str, known: dict[str, str]) -> str:
    """The card's spelling of a title, with or without its subtitle; "" if the card does not list it.

    `known` has the card's titles by their `core`.
    """
    return next((known[core(t)] for t in (title, title.split(":")[0]) if t and core(t) in known), "")


def spell(title: str) -> str:
    """ "THE NAVAL TREATY." becomes "The Naval Treaty"; other titles only lose their full stop."""
    if title.isupper():
        title = re.sub(
            r"(?:\w\.){2,}|\w\S*", lambda m: m[0] if m[0][1:2] == "." else m[0].capitalize(), title
        )
        small = r"(?<=[^\s:] )(?:Of|The|A|An|And|In|On|At|To|For|With)(?= )"
        title = re.sub(small, lambda m: m[0].lower(), title)
    return title if re.search(r"\b\w\.$", title) else title.rstrip(".")


def is_title(text: str) -> bool:
    """Capitals, or capitals on half of the long words and no full stop; no speech, no opening of a letter."""
    if not 0 < len(text) <= 100 or text[0] in "\"'([" or text[-1] in ",;:!?":
        return False
    if not re.search(r"[^\W\d_]{2}", text):
        return False
    long = [word[0].isupper() for word in re.findall(r"[^\W\d_]{4,}", text)]
    return text.isupper() or (text[-1] != "." and text[0].isupper() and sum(long) * 2 >= len(long))


# --- blocks and their forms -----------------------------------------------------------------------------


@dataclass
class Block:
    """Lines without a blank one between them, `page[start:end]`."""

    start: int
    end: int
    gap: int
    """Newlines before it."""
    lines: list[str]
    flat: str
    """The lines as one, both as `plain` makes them."""
    form: str = ""
    """What it looks like: chapter, part, story, named, numbered, caps, title, or nothing."""
    number: int = 0
    title: str = ""
    label: str = "text"
    """What it is: text, story, part, chapter, or why it is removed (heading, contents, preface ...)."""

    @property
    def begins(self) -> bool:
        """Whether a story, part or chapter begins here."""
        return self.label in ("story", "part", "chapter")


def find_blocks(page: str) -> list[Block]:
    """Paragraphs and headings of a page, with their forms; a line each where lines are paragraphs."""
    unwrapped = sum(len(line) for line in page.split("\n") if len(line) > 120) > len(page) / 3
    line = r"[^\n]*\S[^\n]*"
    blocks, last = [], 0
    for match in re.finditer(line if unwrapped else rf"{line}(?:\n{line})*", page):
        gap, last = page.count("\n", last, match.start()), match.end()
        if flat := plain(match[0]):
            lines = match[0].split("\n")
            if len(lines) < 4 or len(flat) < 60 * len(lines):  # else prose, nobody looks at its lines
                lines = [x for x in map(plain, lines) if x]
            blocks.append(Block(match.start(), match.end(), gap if blocks else 9, lines, flat))
            _judge(blocks[-1])
    return blocks


def _judge(block: Block) -> None:
    """Say what a block looks like: its form, its title and its number."""
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
        if match and (form != "numbered" or not match["title"] or is_title(match["title"])):
            block.form, block.title = form, match["title"].strip()
            block.number = _value(match["number"].lower())
            return
    if not block.form and is_title(flat):
        block.form, block.title = "caps" if flat.isupper() else "title", flat


def _value(number: str) -> int:
    """1 for "1", "i", "one", "first"; 0 for a name."""
    for names in (_WORDS, _ORDINALS):
        if number in names:
            return names.index(number) + 1
    if number.isdigit():
        return int(number)
    if not set(number) <= set(_ROMAN):
        return 0
    values = [_ROMAN[c] for c in number]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))


# --- contents pages -------------------------------------------------------------------------------------


def _contents(blocks: list[Block]) -> dict[str, bool]:
    """Label contents pages; returns the titles they list, by core, and whether each has a numeral there."""
    heads = {core(b.title) for b in blocks if b.title}
    has_page = any(_SECTIONS["contents"].match(b.flat) for b in blocks)
    listed: dict[str, bool] = {}
    for i, block in enumerate(blocks):
        if _SECTIONS["contents"].match(block.flat):
            page = _contents_page(blocks[i + 1 :])
            entries = [line for b in page for line in b.lines]
        elif len(block.lines) > 1 and block.gap > 1 and all(core(_entry(x)) in heads for x in block.lines):
            page, entries = [], [] if has_page else block.lines  # a list of a story's parts lists no stories
        else:
            continue
        for b in (block, *page):
            b.label = "contents"
        for entry in entries:
            if not re.match(r"(?i)(?:chapter|part|book|volume)\b", entry):
                listed[core(_entry(entry))] = entry[0] in "IVXLC123456789" and entry != _entry(entry)
    return listed


def _contents_page(after: list[Block]) -> list[Block]:
    """The entries below the word "contents": up to prose, a wide gap, or the first entry again."""
    page: list[Block] = []
    for block in after:
        if not block.form and len(block.lines) < len(block.flat) / 60:  # prose
            return [] if page and page[0].gap >= _WIDE else page  # no entries: the headings of that prose
        if page and (block.gap >= _WIDE or slug(block.flat) == slug(page[0].lines[0])):
            return page
        page.append(block)
    return page


def _entry(line: str) -> str:
    """A line of a contents page without the numeral before and the page number after the title."""
    line = re.sub(r"[ .]+\d+$", "", line)
    return match["title"] if (match := _FORMS["numbered"].match(line)) else line


# --- what begins at a block -----------------------------------------------------------------------------


class _Outline:
    """What is known of a file's headings, and where the reading of it stands."""

    def __init__(self, blocks: list[Block], known: dict[str, str], book: str):
        self.known, self.book, self.listed = known, book, _contents(blocks)
        heads = [b for b in blocks if b.form and b.label == "text"]
        numbered = [(a, b) for a, b in pairwise(heads) if a.form == b.form == "numbered"]
        own_parts = any(a.title and not b.title for a, b in numbered)  # "I. A TITLE", then "I."
        self.by_card = any(lookup(b.title, known) for b in heads if b.gap >= 3)
        self.collection = self.by_card or own_parts or bool(_COLLECTION.search(book))
        self.has_chapters = any(b.form == "chapter" for b in heads)
        self.last = max((b.start for b in heads if b.form in _FORMS), default=-1)
        self.story = ""  # name of the story that is read
        self.texts = 0  # paragraphs of it so far
        self.chapter = 0  # number of the chapter that is read
        self.begun = False  # whether the file's first paragraph was read
        self.fresh = True  # whether nothing but headings came since the last beginning

    def level(self, block: Block, after: Block) -> str:
        """What the block begins: "story", "part", "chapter", or nothing ("")."""
        if block.form in ("chapter", "part", "story"):
            return block.form
        name = self.name(block)
        in_contents = name in self.listed and (self.collection or not self.listed[name])
        if block.title and (lookup(block.title, self.known) or in_contents):
            return "story" if not self.texts or (block.gap >= 3 and name != self.story) else ""
        if block.form == "numbered":
            return self.numbered_level(block)
        if block.form == "named":
            return "chapter" if self.fresh or block.gap >= 3 else ""
        lone = block.form == "caps" and block.gap >= _WIDE and block.start and after.form in ("", "numbered")
        allowed = not (self.by_card or self.has_chapters) and name != core(self.book)
        return "story" if lone and allowed else ""

    def numbered_level(self, block: Block) -> str:
        """What a numeral begins, titled or not: a story of a collection, or the chapter that is due."""
        block.number = block.number or self.chapter + 1
        if block.title and block.gap >= _WIDE and self.collection and not self.by_card and not self.listed:
            return "story"
        unmarked_first = block.number == 2 and self.texts and not self.chapter
        due = block.number == self.chapter + 1 or unmarked_first
        apart = self.fresh or (block.number > 1 and block.gap >= (3 if block.title else 2))
        return "chapter" if due and apart else ""

    def name(self, block: Block) -> str:
        """What the spellings of the block's title share."""
        return core(lookup(block.title, self.known) or block.title)

    def section(self, block: Block) -> str:
        """Which of _SECTIONS begins here: before any paragraph, or as a heading after the last chapter."""
        section = next((reason for reason, pattern in _SECTIONS.items() if pattern.match(block.flat)), "")
        if self.begun:
            closing = section in ("footnote", "note") and block.start > self.last and len(block.flat) < 40
            return section if closing else ""
        return "" if section == "preface" and block.start > self.last else section

    def begin(self, block: Block, level: str) -> None:
        """A story, part or chapter begins at the block."""
        block.label, self.fresh = level, True
        self.chapter = block.number if level == "chapter" else 0
        if level == "story":
            self.story, self.texts = self.name(block), 0

    def read(self) -> None:
        """A paragraph was read."""
        self.texts, self.begun, self.fresh = self.texts + 1, True, False


def label_blocks(blocks: list[Block], known: dict[str, str], book: str) -> None:
    """Label every block; `known` has the card's titles by their `core`, `book` is the book's own title."""
    outline, skip = _Outline(blocks, known, book), ""
    end = Block(0, 0, 9, [], "")
    padded = [*blocks, end, end]
    for block, after, then in zip(blocks, padded[1:], padded[2:], strict=False):
        if block.label != "text":
            continue
        level, section = outline.level(block, after), outline.section(block)
        if (block.gap >= _WIDE and skip not in ("preface", "footnote")) or (level and skip != "note"):
            skip = ""
        if section or skip:
            block.label = section or skip
            skip = section if section not in ("", "header") else skip
        elif level:
            outline.begin(block, level)
            _take_title(block, after, then)
        elif not outline.texts and _BYLINE.match(block.flat):
            block.label = "heading"
            after.label = "heading" if len(block.flat) == 2 else after.label  # "BY", the name below it
        elif not outline.texts and not outline.story and is_title(block.flat.rstrip(",")):
            block.label = "heading"
        else:
            outline.read()
    _label_front(blocks)


def _take_title(block: Block, after: Block, then: Block) -> None:
    """The block after a beginning is a heading where it holds the title, or says what a part is."""
    if not block.title and after.form in ("caps", "title") and after.gap < _WIDE:
        block.title, after.label = after.flat, "heading"
    elif block.label == "part" and len(after.flat) < 200 and not after.form and then.form == "chapter":
        after.label = "heading"  # "(Being a reprint from the reminiscences of ...)"


def _label_front(blocks: list[Block]) -> None:
    """What stands before the first story or chapter 1 is front matter, unless it is much."""
    first = next((i for i, b in enumerate(blocks) if b.begins), 0)
    front = [b for b in blocks[:first] if b.label == "text"]
    size = sum(len(b.flat) for b in blocks if b.label == "text")
    if blocks and blocks[first].number < 2 and sum(len(b.flat) for b in front) < size / 5:
        for block in front:
            block.label = "header"
