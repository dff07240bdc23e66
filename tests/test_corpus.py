"""persona/corpus.py and headings.py: every rule on made-up pages, and the real volumes where they are."""

import dataclasses
import hashlib
import logging
import re
import time

import pytest

import config
from persona import corpus, download
from persona.card import Source, load_card
from persona.errors import UserError

SHARED = config.ROOT.parent / "shared" / "corpus"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real volumes are not there: {SHARED}")
CARD = load_card("sherlock")
LONG = (
    "It was a long, wet evening, and the rain beat upon the window while we sat and spoke of nothing "
    "in particular."
)


def clean(raw, source="book.txt", card=None):
    """Clean and check what must always hold: cuts are sorted and exact, and kept plus cut is the file."""
    stories, removed = corpus.clean(raw, source, card)
    check_rebuild(raw, stories, removed)
    return stories, removed


def check_rebuild(raw, stories, removed):
    kept = corpus.kept_spans(raw, removed)
    pieces = sorted([*kept, *((r.start, r.end) for r in removed)])
    assert "".join(raw[start:end] for start, end in pieces) == raw
    assert all(raw[r.start : r.end] == r.text for r in removed)

    def words(text):
        return re.findall(r"[^\W_]+", text)

    assert [w for start, end in kept for w in words(raw[start:end])] == [
        w for s in stories for w in words(s.text)
    ]
    for story in stories:
        ends = [-2, *(c.end for c in story.chapters)]
        assert [c.start for c in story.chapters] == [end + 2 for end in ends[:-1]]  # chapters tile the text
        assert ends[-1] == len(story.text)
        assert len({c.id for c in story.chapters}) == len(story.chapters)
        assert story.id == corpus.slug(story.title)


def reasons(removed):
    return {r.text.strip(): r.reason for r in removed}


def chapters(story):
    return [(c.id, c.title, story.text[c.start : c.end]) for c in story.chapters]


# ---------------------------------------------------------------- bytes to text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfn\xc3\xa9e\r\nAdler\r\n", "née\nAdler\n"),
        ("née Adler".encode("latin-1"), "née Adler"),
        (b"\x93Well,\x94 said he", "“Well,” said he"),
        (b"odd byte \x81 \xe9", "odd byte \x81 é"),  # not in cp1252
        (b"old Mac\rline", "old Mac\nline"),
    ],
)
def test_read_text(tmp_path, data, text):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert corpus.read_text(path) == text


@pytest.mark.parametrize(
    "data", [b"abc\0def", b"\x01\x02\x03" * 20 + b"text " * 20, b"\x89PNG\r\n\x1a\n\0\0\0"]
)
def test_binary_file_is_named(tmp_path, data):
    path = tmp_path / "picture.txt"
    path.write_bytes(data)
    with pytest.raises(
        UserError, match=r"picture.txt: not text .* save it as UTF-8 text or take it out"
    ) as error:
        corpus.read_text(path)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- one paragraph


@pytest.mark.parametrize(
    ("raw", "flat"),
    [
        ("“Is it ‘grotesque’?”\nsaid he.", "\"Is it 'grotesque'?\" said he."),
        ("“‘Populus me sibilat’”", "\"'Populus me sibilat'\""),
        ("It’s the ’80’s", "It's the '80's"),
        ("of the _Gloria\nScott_, she", "of the Gloria Scott, she"),
        ("_his_ hat and _her_ hat", "his hat and her hat"),
        ("the snake_case word and a blank ____ here", "the snake_case word and a blank ____ here"),
        ("Strange—remarkable--quite", "Strange--remarkable--quite"),
        ("the man—\nwho came--\nand went\n--so", "the man--who came--and went--so"),
        ("half-\npast ten", "half-past ten"),
        ("two  \t spaces\n   and an indent", "two spaces and an indent"),
        ("A letter [it ran]: [sic] [said she]", "A letter [it ran]: [sic] [said she]"),
    ],
)
def test_plain(raw, flat):
    assert corpus.plain(raw) == flat


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("The Adventure of the Devil's Foot", "the-adventure-of-the-devil-s-foot"),
        ("The “_Gloria Scott_”", "the-gloria-scott"),
        ("A SCANDAL IN BOHEMIA", "a-scandal-in-bohemia"),
        ("Née 1895", "nee-1895"),
        ("???", "story"),
    ],
)
def test_slug(title, slug):
    assert corpus.slug(title) == slug


# ---------------------------------------------------------------- what is cut

OLD_HEADER = """Project Gutenberg's A Book, by A. Nobody

This eBook is for the use of anyone anywhere at no cost.

Title: The Long
  Evening

*** START OF THIS PROJECT GUTENBERG EBOOK A BOOK ***




Produced by A Volunteer



"""
NEW_HEADER = """The Project Gutenberg eBook of A Book

Title: The Long Evening

Credits: A Volunteer

*** START OF THE PROJECT GUTENBERG EBOOK THE LONG
EVENING ***




"""
SMALL_PRINT = (
    "The Project Gutenberg Etext of A Book\n\nTitle: The Long Evening\n\n"
    "*END*THE SMALL PRINT! FOR ETEXTS*Ver.04*END*\n\n\n\n\n"
)
OLD_LICENCE = (
    "\n\n\n\n\nEnd of Project Gutenberg's A Book\n\n"
    "*** END OF THIS PROJECT GUTENBERG EBOOK A BOOK ***\n\nTrademark.\n"
)
NEW_LICENCE = "\n\n\n*** END OF THE PROJECT GUTENBERG EBOOK THE LONG EVENING ***\n\nCopyright law.\n"


@pytest.mark.parametrize("header", [OLD_HEADER, NEW_HEADER, SMALL_PRINT])
@pytest.mark.parametrize("licence", [OLD_LICENCE, NEW_LICENCE])
def test_headers_and_licences(header, licence):
    (story,), removed = clean(f"{header}THE LONG EVENING\n\nBy A. Nobody\n\n\n{LONG}\n\n{LONG}{licence}")
    assert story.text == f"{LONG}\n\n{LONG}"
    assert story.title.startswith("The Long")
    assert [c.id for c in story.chapters] == [""]
    assert {r.reason for r in removed} == {"header", "heading", "licence"}


def test_footnotes_marks_and_illustrations():
    raw = f"""A Night

{LONG}

“Lodgings.” [3] I answered [12], and went.[1]

[Illustration: He sat
[in a chair]]

GRAPHIC

GRAPHIC [Stand by us]

He read the note [it ran] and [sic] on:

[Footnote 3: A word (_Page_ 23).

It goes on [here].]

[Transcriber's Note: odd.]

Last words.

THE END
"""
    (story,), removed = clean(raw)
    answered = '"Lodgings." I answered, and went.'
    assert story.text == f"{LONG}\n\n{answered}\n\nHe read the note [it ran] and [sic] on:\n\nLast words."
    assert [(r.reason, r.text.strip()[:12]) for r in removed] == [
        ("heading", "A Night"),
        ("footnote", "[3]"),
        ("footnote", "[12]"),
        ("footnote", "[1]"),
        ("illustration", "[Illustratio"),
        ("illustration", "GRAPHIC"),
        ("illustration", "GRAPHIC [Sta"),
        ("footnote", "[Footnote 3:"),
        ("note", "[Transcriber"),
        ("end", "THE END"),
    ]


def test_clue_list():
    clues = '[CLUES]\n- clue: tea | stands: "cold"\n'
    raw = f'THE ADVENTURE OF THE COLD TEA\n\n{LONG}\n\n"Quite so," said Holmes.\n\n{clues}'
    (story,), removed = clean(raw, "cold-tea.txt", CARD)
    assert (story.id, story.title) == ("the-adventure-of-the-cold-tea", "The Adventure of the Cold Tea")
    assert story.text == f'{LONG}\n\n"Quite so," said Holmes.'
    assert [r.reason for r in removed] == ["heading", "clues"]


def test_front_matter_and_notes():
    raw = f"""MY NOVEL

by

ANN AUTHOR



PREFACE

{LONG}

A. A.




Transcriber's Note: This text keeps its spelling.

     It was typed by hand.




CONTENTS

I. THE GATE ... 3
II. THE HOUSE ... 40




I. THE GATE

{LONG}


II. THE HOUSE

{LONG}




FOOTNOTES

1. A remark of no weight whatever that nobody needs to read in a story.
"""
    (story,), removed = clean(raw)
    assert (story.title, story.source) == ("My Novel", "book.txt")
    assert chapters(story) == [("chapter-1", "The Gate", LONG), ("chapter-2", "The House", LONG)]
    why = reasons(removed)
    assert why["MY NOVEL"] == why["by"] == why["ANN AUTHOR"] == why["I. THE GATE"] == "heading"
    assert why["PREFACE"] == why["A. A."] == why[LONG] == "preface"
    assert why["It was typed by hand."] == "note"
    assert why["I. THE GATE ... 3\nII. THE HOUSE ... 40"] == "contents"
    assert why["FOOTNOTES"] == "footnote"


def test_preface_alone_is_text():
    (story,), _ = clean(f"PREFACE\n\n{LONG}\n\n{LONG}\n")
    assert story.text.endswith(f"{LONG}\n\n{LONG}")


# ---------------------------------------------------------------- chapters


@pytest.mark.parametrize(
    ("first", "second", "titles"),
    [
        ("Chapter 1. The Start", "Chapter 2. The End", ["The Start", "The End"]),
        ("CHAPTER I\nTHE START", "CHAPTER II\nTHE END", ["The Start", "The End"]),
        ("CHAPTER I.\n\nTHE START", "CHAPTER II.\n\nTHE END", ["The Start", "The End"]),
        ("Chapter I\n\nThe Start", "Chapter II\n\nThe End", ["The Start", "The End"]),
        ("Chapter One: The Start", "Chapter Two: The End", ["The Start", "The End"]),
        ("CHAPTER THE FIRST", "CHAPTER THE SECOND", ["", ""]),
        ("Chapter 1--The Start", "Chapter 2—_The End_", ["The Start", "The End"]),
        ("I.", "II.", ["", ""]),
        ("I\nThe Start", "II\nThe End", ["The Start", "The End"]),
        ("1", "2", ["", ""]),
        ("PART I", "PART II", ["", ""]),
        ("## The Start", "## The End", ["The Start", "The End"]),
    ],
)
def test_chapter_headings(first, second, titles):
    (story,), _ = clean(f"The Inn\n\n\n\n{first}\n\n{LONG}\n\n“One.”\n\n\n\n{second}\n\n{LONG}\n", "inn.txt")
    kind = "part" if first.startswith("PART") else "chapter"
    texts = [f'{LONG}\n\n"One."', LONG]
    assert chapters(story) == [(f"{kind}-{n}", titles[n - 1], texts[n - 1]) for n in (1, 2)]
    assert story.title == "The Inn"


def test_parts_with_chapters_prologue_and_epilogue():
    raw = "THE VALE\n\n\n\n\n" + "\n\n".join(
        f"\n\n{heading}\n\n{LONG}"
        for heading in (
            "Prologue",
            "PART I. _The East_\n\n(_Being a reprint from the papers of_ a friend) [2]\n\n\nCHAPTER I. Dawn.",
            "CHAPTER II. Noon.",
            "PART II--The West\n\n\nCHAPTER I. Dusk.",
            "EPILOGUE",
        )
    )
    (story,), removed = clean(raw)
    assert [c[:2] for c in chapters(story)] == [
        ("prologue", ""),
        ("part-1/chapter-1", "Dawn"),
        ("part-1/chapter-2", "Noon"),
        ("part-2/chapter-1", "Dusk"),
        ("epilogue", ""),
    ]
    assert {c[2] for c in chapters(story)} == {LONG}
    assert reasons(removed)["(_Being a reprint from the papers of_ a friend) [2]"] == "heading"


def test_text_before_the_second_part_is_the_first():
    (story,), _ = clean(f"A Walk\n\n{LONG}\n\n\nII.\n\n{LONG}\n\n\nIII.\n\n{LONG}")
    assert [c.id for c in story.chapters] == ["chapter-1", "chapter-2", "chapter-3"]


@pytest.mark.parametrize(
    "lookalike",
    [
        "THE OXSHOTT MYSTERY\n    A SOLUTION\n    ARREST OF SUPPOSED ASSASSIN",
        "     THE RED-HEADED LEAGUE\n\n     IS\n\n     DISSOLVED.",
        "I.",
        "1. Knowledge of Literature.--Nil.\n2. Philosophy.--Nil.",
        "1. A rope.\n\n2. A lamp.",
        "“Chapter the second, no doubt.”",
        "Part of the wall had fallen.",
        "Case I have none.",
        "Chapter after chapter I read on.",
        "SIR [it ran]:",
        "MEET ME AT NOON. BRING NOBODY.",
        "“GRAPHIC, was it not?”",
        "Produced by the light, a shadow lay there.",
        "By Jove, that was near.",
        "Editor's notes lay there; so did Project Gutenberg's.",
        "PREFACE",
        "Contents of the bag: a rope.",
        "[In publishing these sketches I have told all.]",
    ],
)
@pytest.mark.parametrize("card", [None, CARD])
def test_text_that_looks_like_a_heading_stays(lookalike, card):
    raw = f"THE RED-HEADED LEAGUE\n\n\n{LONG}\n\n\n{lookalike}\n\n{LONG}\n"
    (story,), removed = clean(raw, "league.txt", card)
    assert [r.text for r in removed] == ["THE RED-HEADED LEAGUE"]
    assert len(story.chapters) == 1
    assert corpus.plain(lookalike.replace("\n\n", " ")) == " ".join(story.text.split("\n\n")[1:-1])


# ---------------------------------------------------------------- stories


def test_collection_by_the_card_with_other_spellings():
    raw = f"""THE MEMOIRS

   I. Silver Blaze
  II. The “Gloria Scott”

    ADVENTURE I. SILVER BLAZE

I.

{LONG}

THE RED-HEADED LEAGUE


II.

{LONG}



ADVENTURE II. The “_Gloria Scott_”

{LONG}



The Stockbroker’s Clerk

{LONG}



HIS LAST BOW: The War Service of Sherlock Holmes

{LONG}
"""
    stories, _ = clean(raw, "m.txt", CARD)
    assert [(s.id, s.title, len(s.chapters)) for s in stories] == [
        ("silver-blaze", "Silver Blaze", 2),
        ("the-gloria-scott", 'The "Gloria Scott"', 1),
        ("the-stock-broker-s-clerk", "The Stock-Broker's Clerk", 1),
        ("his-last-bow", "His Last Bow", 1),
    ]
    assert stories[0].text == f"{LONG}\n\nTHE RED-HEADED LEAGUE\n\n{LONG}"


def test_collection_without_a_card_in_the_newest_layout():
    raw = f"""{NEW_HEADER.replace("The Long Evening", "The Tales of a Clerk")}cover


The Tales of a Clerk

by Arthur Somebody


Contents

   I.     The Blot
   II.    The Pen




I. The Blot

      {LONG}

      He went.


1. The Desk

      {LONG}




II. THE PEN


I.

{LONG}


II.

{LONG}
{NEW_LICENCE}"""
    stories, _ = clean(raw)
    assert [(s.title, [c.id for c in s.chapters]) for s in stories] == [
        ("The Blot", [""]),  # "1. The Desk" comes too late to begin a numbering
        ("The Pen", ["chapter-1", "chapter-2"]),
    ]


NOVEL_IN_THE_NEWEST_LAYOUT = f"""{NEW_HEADER}cover




THE VALLEY OF FEAR

By Sir Arthur Conan Doyle




CONTENTS

 PART I—The Tragedy of Birlstone
 Chapter I—The Warning

 PART II—The Scowrers
 Chapter I—The Man
 Epilogue




Illustrations

 “What’s this, Mr. Holmes? Man, it’s witchcraft! Where in the name of all that is wonderful did \
you get those names?”
 It was all he could do to keep himself from screaming out.




PART I
The Tragedy of Birlstone




Chapter I
The Warning


“I am inclined to think—” said I.

{LONG}




PART II
The Scowrers




Chapter I
The Man


{LONG}




Epilogue


{LONG}
{NEW_LICENCE}"""


def test_novel_in_the_newest_layout():
    (story,), removed = clean(NOVEL_IN_THE_NEWEST_LAYOUT, "pg3289.txt", CARD)
    assert story.id == "the-valley-of-fear"
    assert chapters(story) == [
        ("part-1/chapter-1", "The Warning", f'"I am inclined to think--" said I.\n\n{LONG}'),
        ("part-2/chapter-1", "The Man", LONG),
        ("epilogue", "", LONG),
    ]
    assert [r.reason for r in removed if r.reason in ("contents", "illustration")] == ["contents"] * 3 + [
        "illustration"
    ] * 2


def test_collection_of_lone_titles_in_capitals():
    raw = f"THE INN\n\n{LONG}\n\nHe left.\n\n\n\n\nTHE ROAD\n\n{LONG}\n\n\n\n\nTHE SEA\n\n{LONG}\n"
    stories, _ = clean(raw, "walks.txt")
    assert [(s.id, s.text) for s in stories] == [
        ("the-inn", f"{LONG}\n\nHe left."),
        ("the-road", LONG),
        ("the-sea", LONG),
    ]


def test_title_from_the_file_name_and_lines_as_paragraphs():
    lines = [LONG * 2, "“Yes,” said he.", LONG * 2]
    (story,), _ = clean("\n".join(lines), "the_black_gate.txt")
    assert (story.id, story.title) == ("the-black-gate", "The Black Gate")
    assert story.text.split("\n\n") == [LONG * 2, '"Yes," said he.', LONG * 2]


def test_same_title_twice_gets_a_number(tmp_path, caplog):
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(f"THE INN\n\n{LONG}\n\n{LONG * 4}\n")
    loaded = corpus.load_corpus(CARD, str(tmp_path))
    assert [s.id for s in loaded.stories] == ["the-inn", "the-inn-2", "the-inn-3"]
    assert "b.txt: a second story 'The Inn' is called the-inn-2" in caplog.text


# ---------------------------------------------------------------- corpora


def test_folder(tmp_path):
    folder = tmp_path / "Mine"
    folder.mkdir()
    (folder / "one.txt").write_bytes(f"ONE\r\n\r\n{LONG * 5}\r\n".encode("utf-8-sig"))
    (folder / "two.md").write_text(f"# Two\n\n{LONG * 5}\n")
    (folder / "README.md").write_text("About this folder.")
    (folder / "notes.json").write_text("{}")
    loaded = corpus.load_corpus(CARD, str(folder))
    assert loaded.name == "Mine"
    assert [(s.id, s.source) for s in loaded.stories] == [("one", "one.txt"), ("two", "two.md")]
    assert loaded.sources_sha256 == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("one.txt", "two.md")
    }


def test_folder_errors(tmp_path):
    def message():
        with pytest.raises(UserError) as error:
            corpus.load_corpus(CARD, str(tmp_path / "x"))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert message().endswith(
        "x: no such folder: give --corpus one of embedded, canon, or a folder of .txt files"
    )
    (tmp_path / "x").mkdir()
    assert message().endswith("x: no .txt or .md file there: put the stories into it as plain text")
    (tmp_path / "x" / "a.txt").write_text("Too short.\n")
    assert "x (a.txt): no story found, under 200 words of text" in message()
    (tmp_path / "x" / "b.txt").write_bytes(b"\0\1\2")
    assert "b.txt: not text" in message()


def canon_of(monkeypatch, tmp_path, raw, source):
    path = tmp_path / "pg1.txt"
    path.write_text(raw)
    monkeypatch.setattr(download, "fetch", lambda source, cache: path)
    entry = dataclasses.replace(
        CARD.corpora["canon"], sources=(source,), validation=(), test=("the-naval-treaty",)
    )
    return corpus.load_corpus(dataclasses.replace(CARD, corpora={"canon": entry}), "canon")


def test_downloaded_book_with_a_retitled_story(monkeypatch, tmp_path, caplog):
    titles = ("Silver Blaze", "The Reigate Puzzle", "The Naval Treaty")
    raw = (
        "Contents\n\n I. Silver Blaze\n II. The Reigate Squires\n III. The Naval Treaty\n IV. The Extra\n"
        + "".join(
            f"\n\n\n\n{number}. {title}\n\n{LONG * 3}\n"
            for number, title in (
                ("I", "Silver Blaze"),
                ("II", "The Reigate Squires"),
                ("III", "THE NAVAL TREATY"),
                ("IV", "The Extra"),
            )
        )
    )
    loaded = canon_of(monkeypatch, tmp_path, raw, Source("Memoirs", titles, ebook=1))
    assert [s.title for s in loaded.stories] == [*titles, "The Extra"]
    assert loaded.stories[1].id == "the-reigate-puzzle"
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_downloaded_book_that_lacks_stories(monkeypatch, tmp_path):
    raw = f"\n\n\nSILVER BLAZE\n\n{LONG * 9}\n"
    source = Source("Memoirs", ("Silver Blaze", "The Yellow Face", "The Naval Treaty"), ebook=1)
    with pytest.raises(
        UserError, match=r"pg1.txt: no The Yellow Face, The Naval Treaty in Memoirs: delete the file"
    ):
        canon_of(monkeypatch, tmp_path, raw, source)


def test_wrong_chapter_count_and_unknown_held_out_story_are_reported(monkeypatch, tmp_path, caplog):
    raw = f"SILVER BLAZE\n\n\n\nCHAPTER I\n\n{LONG * 12}\n"
    canon_of(monkeypatch, tmp_path, raw, Source("Silver Blaze", ("Silver Blaze",), ebook=1, chapters=12))
    assert "1 chapters, the card says 12" in caplog.text
    assert "the card holds out 'the-naval-treaty', but no story has that id" in caplog.text


EMBEDDED = sorted((config.CORPORA / "embedded").glob("*.txt"))


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda p: p.stem)
def test_embedded_file_is_one_story_without_clues(path):
    raw = corpus.read_text(path)
    (story,), removed = clean(raw, path.name, CARD)
    assert story.title.upper() == raw.split("\n")[0].rstrip(".")
    assert [c.id for c in story.chapters] == [""]
    assert [r.reason for r in removed] == ["heading", "clues"]
    assert "[CLUES]" not in story.text
    assert "pays off:" not in story.text
    assert story.text == raw.split("\n", 1)[1].split("[CLUES]")[0].strip()  # embedded files are clean already


# ---------------------------------------------------------------- the real volumes

FILES = {
    "1661-8.txt": (1661, {"A Scandal in Bohemia": 3}),
    "834-0.txt": (834, {}),
    "108-0.txt": (108, {}),
    "his-last-bow.txt": (2350, {"The Adventure of Wisteria Lodge": 2, "The Adventure of the Red Circle": 2}),
    "244-0.txt": (244, {"A Study in Scarlet": 14}),
    "2097.txt": (2097, {"The Sign of the Four": 12}),
    "2852-0.txt": (2852, {"The Hound of the Baskervilles": 15}),
    "3289-0.txt": (3289, {"The Valley of Fear": 15}),
}
ENDS = {
    "a-scandal-in-bohemia": (
        "To Sherlock Holmes she is always THE woman. ",
        "under the honourable title of the woman.",
    ),
    "the-adventure-of-the-copper-beeches": (
        '"To the man who loves art for its own sake,"',
        "with considerable success.",
    ),
    "silver-blaze": (
        '"I am afraid, Watson, that I shall have to go," said Holmes, as we sat down together',
        'might interest you."',
    ),
    "the-yellow-face": (
        "[In publishing these short sketches based upon",
        'and I shall be infinitely obliged to you."',
    ),
    "the-final-problem": (
        "It is with a heavy heart that I take up my pen",
        "the best and the wisest man whom I have ever known.",
    ),
    "the-adventure-of-the-empty-house": (
        "It was in the spring of the year 1894",
        'London so plentifully presents."',
    ),
    "the-adventure-of-the-second-stain": (
        'I had intended "The Adventure of the Abbey Grange"',
        "he turned to the door.",
    ),
    "the-adventure-of-wisteria-lodge": (
        "I find it recorded in my notebook",
        'from the grotesque to the horrible."',
    ),
    "his-last-bow": (
        "It was nine o'clock at night upon the second of August--",
        'capable of stopping it if he can."',
    ),
    "a-study-in-scarlet": ("IN the year 1878 I took my degree", "simul ac nummos contemplor in arca.'\""),
    "the-sign-of-the-four": (
        "Sherlock Holmes took his bottle",
        "he stretched his long white hand up for it.",
    ),
    "the-hound-of-the-baskervilles": (
        "Mr. Sherlock Holmes, who was usually very late",
        'for a little dinner on the way?"',
    ),
    "the-valley-of-fear": (
        '"I am inclined to think--" said I.\n\n"I should',
        "still strained to pierce the veil.",
    ),
}
FOREIGN = (
    r"gutenberg|\be-?books?\b|\be-?texts?\b|trademark|public domain|copyright|transcriber|footnote"
    r"|\[illus|www\.|\[CLUES|[“”‘’—\t_\x01]|  "
)


@needs_shared
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("card", [CARD, None], ids=["card", "no card"])
def test_real_volume(name, card):
    ebook, divided = FILES[name]
    titles = next(s.stories for s in CARD.corpora["canon"].sources if s.ebook == ebook)
    raw = corpus.read_text(SHARED / name)
    stories, _ = clean(raw, name, card)
    if card is not None:
        assert tuple(s.title for s in stories) == titles
    else:  # the file's own spelling, His Last Bow with its subtitle
        found = [s.id.removesuffix("-the-war-service-of-sherlock-holmes") for s in stories]
        assert found == [corpus.slug(title) for title in titles]
    assert {
        title: len(s.chapters) for title, s in zip(titles, stories, strict=True) if len(s.chapters) > 1
    } == divided
    for story in stories:
        assert not re.search(FOREIGN, story.text, re.IGNORECASE)
        assert not re.search(r"\n(?!\n)(?<!\n\n)", story.text)  # single line ends
        first, last = ENDS.get(story.id, ("", ""))
        assert story.text.startswith(first)
        assert story.text.endswith(last)


@needs_shared
def test_real_chapters_and_lookalikes():
    texts = {}
    for name in FILES:
        stories, removed = corpus.clean(corpus.read_text(SHARED / name), name, CARD)
        texts |= {s.id: s for s in stories}
        if name == "his-last-bow.txt":
            assert "The friends of Mr. Sherlock Holmes will be glad" in "".join(
                r.text for r in removed if r.reason == "preface"
            )
    assert [c.id for c in texts["a-study-in-scarlet"].chapters] == [
        f"part-{p}/chapter-{n}" for p in (1, 2) for n in range(1, 8)
    ]
    assert (
        texts["a-study-in-scarlet"].chapters[12].title
        == "A Continuation of the Reminiscences of John Watson, M.D."
    )
    valley = [f"part-{p}/chapter-{n}" for p in (1, 2) for n in range(1, 8)]
    assert [c.id for c in texts["the-valley-of-fear"].chapters] == [*valley, "epilogue"]
    assert [c.id for c in texts["the-adventure-of-the-red-circle"].chapters] == ["part-1", "part-2"]
    assert [c.title for c in texts["the-adventure-of-wisteria-lodge"].chapters] == [
        "The Singular Experience of Mr. John Scott Eccles",
        "The Tiger of San Pedro",
    ]
    hound = texts["the-hound-of-the-baskervilles"]
    second = hound.text[hound.chapters[1].start : hound.chapters[1].end]
    assert second.startswith('"I have in my pocket a manuscript," said Dr. James Mortimer.')
    assert second.endswith('"Mr. Holmes, they were the footprints of a gigantic hound!"')
    for story, passage in {
        "the-red-headed-league": "\n\nTHE RED-HEADED LEAGUE\n\nIS\n\nDISSOLVED.\n\nOctober 9, 1890.\n\n",
        "a-study-in-scarlet": "\n\nSHERLOCK HOLMES--his limits.\n\n1. Knowledge of Literature.--Nil. 2. "
        "Philosophy.--Nil.",
        "the-adventure-of-wisteria-lodge": "\n\nTHE OXSHOTT MYSTERY A SOLUTION "
        "ARREST OF SUPPOSED ASSASSIN\n\n",
        "the-adventure-of-the-missing-three-quarter": "\n\nSIR [it ran]:\n\nI can assure you",
        "the-reigate-puzzle": "and maybe [sic] be of the greatest service",
        "the-adventure-of-the-solitary-cyclist": "Mr. Holmes [said she] to hear",
        "the-adventure-of-the-dancing-men": "\n\nELSIE .RE.ARE TO MEET THY GO.\n\n",
        "the-adventure-of-the-second-stain": "\n\nMURDER IN WESTMINSTER\n\n",
    }.items():
        assert passage in texts[story].text


@needs_shared
def test_speed():
    start = time.process_time()
    for name in FILES:
        corpus.clean(corpus.read_text(SHARED / name), name, CARD)
    assert time.process_time() - start < 3.0
