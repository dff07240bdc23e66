"""The quote sieve.

Spans, one small passage for each rule, the command line, and the figures on an annotated novel.
"""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import config
from persona.card import load_card
from persona.quotes import Quote, attribute
from persona.spans import paragraphs

STYLES = config.ROOT.parent / "shared" / "quotes" / "styles"
HOLMES, WATSON = "Sherlock Holmes", "Dr. Watson"


def run(text: str, **settings: bool) -> list[Quote]:
    return attribute(text, load_card("sherlock"), **settings)


def speakers(text: str, **settings: bool) -> list[str | None]:
    return [q.speaker for q in run(text, **settings)]


def found(text: str) -> list[str]:
    return [text[s.start : s.end] for p in paragraphs(text) for s in p.spans]


# Spans


def test_straight_and_curly_quotes_give_the_same_spans():
    straight = '"Come," said Holmes, "sit down."'
    assert found(straight) == ["Come,", "sit down."]
    assert found(straight.replace('"Come,"', "“Come,”").replace('"sit down."', "“sit down.”")) == [
        "Come,",
        "sit down.",
    ]


def test_offsets_leave_the_marks_out_and_paragraphs_count_from_blank_lines():
    text = 'It rained.\n\n"Come in,\nsir," said Holmes.\n'
    (quote,) = run(text)
    assert (quote.start, quote.end) == (text.index("Come"), text.index('" said'))
    assert quote.text == text[quote.start : quote.end] == "Come in,\nsir,"
    assert quote.paragraph == 1


def test_windows_line_ends_separate_paragraphs():
    assert [q.paragraph for q in run('"One," said Holmes.\r\n\r\n"Two," said I.\r\n')] == [0, 1]


def test_apostrophes_and_nested_quotes_are_no_marks():
    text = "“'Tis the dogs' bone; he said, 'Don't!' and ran,” said Holmes."
    assert found(text) == ["'Tis the dogs' bone; he said, 'Don't!' and ran,"]


def test_unclosed_paragraph_continues_in_the_next():
    text = '"It began in May," said Holmes. "I was young.\n\n"I had no money."\n\n"And then?" I asked.'
    first, second, third, last = run(text)
    assert [q.text for q in (second, third)] == ["I was young.", "I had no money."]
    assert third.speaker == HOLMES and third.tier == "continuation" and third.keep
    assert last.speaker == WATSON
    assert first.tier == "explicit"


def test_a_missing_closing_mark_does_not_turn_the_rest_around():
    text = '"Come here," said Holmes. "Look at this.\n\nWe went out.\n\n"A footprint," said I.'
    assert found(text) == ["Come here,", "Look at this.", "A footprint,"]
    assert [s.continues for p in paragraphs(text) for s in p.spans] == [False, False, False]


# The sieve


@pytest.mark.parametrize(
    "tag",
    [
        "said Holmes",
        "Holmes said",
        "remarked Sherlock Holmes, rising",
        "cried Mr. Holmes",
        "Holmes quietly answered",
        "put in Holmes",
    ],
)
def test_explicit_tags_in_both_orders(tag: str):
    (quote,) = run(f'"It is quite clear," {tag}.')
    assert (quote.speaker, quote.tier, quote.keep) == (HOLMES, "explicit", True)
    assert quote.confidence > 0.95


@pytest.mark.parametrize("tag", ["said I", "I asked", "I remarked, smiling"])
def test_first_person_tags_are_the_narrator(tag: str):
    (quote,) = run(f'"Is it clear?" {tag}.')
    assert (quote.speaker, quote.tier, quote.keep) == (WATSON, "explicit", True)


def test_tag_before_the_quote():
    quotes = run(
        "I had asked Lestrade for the key, and at last Holmes turned to him and said: "
        '"The key, if you please."'
    )
    assert [q.speaker for q in quotes] == [HOLMES]
    assert speakers(
        'Lestrade sat down heavily.\n\nThen he leaned forward, and Holmes said:\n\n"I am all attention."'
    ) == [HOLMES]


def test_participle_before_the_quote_belongs_to_the_nearest_subject():
    assert speakers(
        'I was growing impatient, but Holmes calmed me by remarking: "Patience, my dear fellow."'
    ) == [HOLMES]


def test_other_people_are_found_in_the_text():
    text = (
        '"I am ruined," said Miss Adler.\n\n"Tut!" cried Colonel Ross.\n\n"He is gone," the policeman said.'
    )
    quotes = run(text)
    assert [q.speaker for q in quotes] == ["Miss Adler", "Colonel Ross", "the policeman"]
    assert [q.tier for q in quotes] == ["explicit", "explicit", "description"]


def test_card_people_keep_their_display_name():
    assert speakers('"Well, well," said Lestrade.') == ["Inspector Lestrade"]
    assert speakers('"My dear boy," said Mycroft.') == ["Mycroft Holmes"]


def test_standing_description_is_the_persona():
    text = 'Holmes sat by the fire.\n\n"It is late," said my companion.\n\n"It is," said I.'
    first, _ = run(text)
    assert (first.speaker, first.tier, first.keep) == (HOLMES, "description", True)


def test_standing_description_is_doubtful_where_another_friend_was_introduced():
    text = (
        "Holmes was out. I sat with my friend Colonel Ross, and Colonel Ross had lit his pipe.\n\n"
        '"It is late," said my friend.'
    )
    (quote,) = run(text)
    assert quote.speaker != HOLMES or not quote.keep


def test_the_inspector_is_the_one_with_that_title():
    text = 'Inspector Gregory and Colonel Ross came in.\n\n"It is late," said the inspector.'
    assert speakers(text) == ["Inspector Gregory"]


def test_pronoun_tag_takes_the_person_named_in_the_paragraph():
    text = (
        '"What now?" I asked.\n\nHolmes bent over the sill. The dust was thick. "There is a mark," said he.'
    )
    quote = run(text)[-1]
    assert (quote.speaker, quote.tier, quote.keep) == (HOLMES, "pronoun", True)


def test_pronoun_tag_takes_the_speaker_two_turns_back():
    text = '"Come in," said Holmes.\n\n"Thank you," said Lestrade.\n\n"Take a chair," he continued.'
    assert speakers(text)[-1] == HOLMES


def test_pronoun_agrees_in_gender():
    text = (
        'Holmes looked up as Mrs. Hudson entered.\n\n"A lady to see you," she said.\n\n'
        '"Show her in," said Holmes.'
    )
    assert speakers(text) == ["Mrs. Hudson", HOLMES]


def test_pronoun_tag_takes_whom_the_narration_named_last():
    text = (
        "Holmes lay upon the sofa. Colonel Ross strode in, and his face was red.\n\n"
        + '"I have seen nothing of my horse," said he.'
    )
    assert speakers(text) == ["Colonel Ross"]


@pytest.mark.parametrize(
    "text",
    [
        'Holmes bent over the sill. "There is a mark here."',
        '"There is a mark here." Holmes bent over the sill.',
    ],
)
def test_action_in_the_paragraph(text: str):
    (quote,) = run(text)
    assert (quote.speaker, quote.tier, quote.keep) == (HOLMES, "action", True)


def test_vocative_says_who_does_not_speak():
    text = 'Holmes and I sat by the fire.\n\n"What do you make of it, Watson?"\n\n"Nothing, Holmes."'
    first, second = run(text)
    assert (first.speaker, first.addressee) == (HOLMES, WATSON)
    assert (second.speaker, second.addressee) == (WATSON, HOLMES)
    assert first.tier == second.tier == "vocative"


def test_alternation_between_two_known_speakers():
    text = (
        '"You have been in the garden," said Holmes.\n\n"I have," said Lestrade.\n\n"And saw nothing?"\n\n'
        '"Nothing at all."\n\n"That is curious."\n\n"I thought so," said Lestrade.'
    )
    quotes = run(text)
    assert [q.speaker for q in quotes] == [HOLMES, "Inspector Lestrade"] * 3
    assert [q.tier for q in quotes[2:5]] == ["alternation"] * 3
    assert quotes[2].keep and quotes[4].keep
    assert quotes[2].addressee == "Inspector Lestrade"


def test_quotes_of_a_paragraph_have_one_speaker_unless_the_narration_shows_another():
    same = '"Come," said Holmes. He took his hat. "The game is afoot."'
    assert speakers(same) == [HOLMES, HOLMES]
    other = '"Where is it?" asked Lestrade. Holmes pointed to the grate. "In the ashes," said Holmes.'
    assert speakers(other) == ["Inspector Lestrade", HOLMES]


def test_long_run_of_a_client_is_nobody_else_s():
    text = (
        '"Tell us all," said Holmes.\n\n"I am a clerk," said Mr. Pycroft. "I was poor.\n\n'
        "\"I met a man called Holmes. 'I am Holmes,' said he.\n\n"
        '"He gave me a hundred pounds."\n\n"Curious," said Holmes.'
    )
    quotes = run(text)
    story = quotes[1:5]
    assert [q.tier for q in story] == ["monologue"] * 4
    assert {q.speaker for q in story} == {"Mr. Pycroft"} and not any(q.keep for q in story)
    assert quotes[-1].speaker == HOLMES


def test_a_run_ends_where_a_paragraph_names_another_speaker():
    text = (
        '"I loved her," said Mr. Slaney. "She was pledged to me.\n\n"She feared you," said Holmes, sternly.'
    )
    assert speakers(text) == ["Mr. Slaney", "Mr. Slaney", HOLMES]


def test_long_run_of_the_persona_is_kept_only_where_explicit():
    start, rest = '"It was so," {tag}. "He came at ten.', '\n\n"He left at noon.\n\n"That is all."'
    kept = run(start.format(tag="said Holmes") + rest)
    assert {(q.speaker, q.tier, q.keep) for q in kept} == {(HOLMES, "monologue", True)}
    unsure = run("Holmes sat down.\n\n" + start.format(tag="said he") + rest)
    assert {(q.tier, q.keep) for q in unsure} == {("monologue", False)}


@pytest.mark.parametrize(
    "text",
    [
        'He had told me of the "Gloria Scott" before that.',
        'The word "rache" was written upon the wall.',
        'Upon the flap Holmes wrote "S. H. for J. O." Then he sealed it.',
        '"There will call upon you to-night a gentleman," it said.',
        'There lay a note upon the table. It ran:\n\n"Come at once. Your friend is in danger."',
    ],
)
def test_titles_letters_and_words_are_unspoken(text: str):
    (quote,) = run(text)
    assert (quote.speaker, quote.tier, quote.keep) == (None, "unspoken", False)


def test_broken_off_speech_is_spoken():
    text = '"If you will look"--Holmes pointed to the door--"you will see the scratch," said he.'
    assert speakers(text) == [HOLMES, HOLMES]


def test_narrator_who_is_the_persona_is_i():
    card = load_card("sherlock")
    watson = replace(
        card, persona=card.narrator, narrator_is_persona=True, people=(*card.people, card.persona)
    )
    quotes = attribute(
        '"Who is it?" said I.\n\n"A friend," said Holmes.\n\n"It is late," said my companion.', watson
    )
    assert [q.speaker for q in quotes] == [WATSON, HOLMES, HOLMES]


def test_another_narrator_is_not_the_card_s():
    text = '"Who is there?" said I.\n\n"A friend," said Holmes.\n\n"Come in."\n\n"Thank you."'
    quotes = run(text, other_narrator=True)
    assert quotes[0].speaker is None
    assert [q.keep for q in quotes] == [False, True, False, False]


def test_same_text_gives_the_same_quotes():
    text = (config.CORPORA / "embedded" / "the-night-mail.txt").read_text(encoding="utf-8")
    assert run(text) == run(text)


def test_empty_text_has_no_quotes():
    assert run("") == [] and run("It rained all day.") == []


# Command line


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "persona.quotes", *map(str, arguments)],
        cwd=config.ROOT,
        capture_output=True,
        text=True,
    )


def test_command_writes_a_line_for_each_quote(tmp_path: Path):
    text, out = tmp_path / "story.txt", tmp_path / "quotes.jsonl"
    text.write_text('"Come," said Holmes, "sit."\n\n"No," said I.\n', encoding="utf-8")
    done = command(text, "--card", "data/personas/sherlock/persona.toml", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(r["text"], r["speaker"], r["tier"], r["keep"]) for r in rows] == [
        ("Come,", HOLMES, "explicit", True),
        ("sit.", HOLMES, "explicit", True),
        ("No,", WATSON, "explicit", True),
    ]
    assert set(rows[0]) >= {"start", "end", "addressee", "confidence"}
    assert "3 quotes, 3 kept" in done.stdout and "explicit" in done.stdout and HOLMES in done.stdout


@pytest.mark.parametrize(
    ("content", "card", "says"),
    [
        (None, "sherlock", "No such file"),
        (b'Caf\xe9 "Oh," said he.', "sherlock", "not UTF-8"),
        (b"It rained.", "sherlock", "no quotation marks"),
        (b'"Oh," said he.', "nobody", "no such card"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, content: bytes | None, card: str, says: str
):
    text, out = tmp_path / "story.txt", tmp_path / "quotes.jsonl"
    if content is not None:
        text.write_bytes(content)
    done = command(text, "--card", f"data/personas/{card}/persona.toml", "--out", out)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not out.exists()


# Figures


@pytest.mark.skipif(not STYLES.is_dir(), reason=f"no annotated novel: {STYLES} is absent")
def test_figures_on_styles():
    spec = importlib.util.spec_from_file_location(
        "quotes_benchmark", config.ROOT / "benchmarks" / "quotes.py"
    )
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark
    spec.loader.exec_module(benchmark)
    figures = benchmark.measure(STYLES, "poirot")
    assert figures.recall_spoken >= 0.99
    assert figures.precision_spoken >= 0.98
    assert figures.accuracy >= 0.85
    assert figures.persona_precision >= 0.95
    assert figures.persona_recall >= 0.85
