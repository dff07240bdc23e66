"""What was written for this project: stories, clues, curated rows, probes, and nothing from the canon."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import config
from persona import dataset
from persona.card import load_card
from persona.corpus import load_corpus, plain, read_text
from persona.metrics import ngrams, words
from persona.reasoning import REASONING_REQUEST
from persona.rows import problem_of, read_rows

WRITTEN = {  # fewest curated rows, fewest probes, most rows with the same opening or closing
    "sherlock": (400, 50, 5),
    "watson": (200, 24, 3),
    "lestrade": (40, 0, 3),
    "moriarty": (40, 0, 3),
    "mycroft": (12, 0, 3),
}
FILES = sorted((config.CORPORA / "embedded").glob("*.txt"))
CLUE = re.compile(r'- clue: (?P<clue>.+?) \| stands: "(?P<stands>.+)" \| pays off: "(?P<pays>.+)"')
KINDS = {"identity", "method", "deduction", "cases", "dialogue", "knowledge", "guard"}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


@pytest.fixture(scope="module")
def card():
    return load_card("sherlock")


@pytest.fixture(scope="module")
def stories(card):
    return load_corpus(card, "embedded").stories


@pytest.fixture(scope="module", params=WRITTEN)
def persona(request):
    """Every persona for whom rows were written, one after the other."""
    return request.param


@pytest.fixture(scope="module")
def curated(persona):
    return lines(config.PERSONAS / persona / "curated.jsonl")


@pytest.fixture(scope="module")
def probes(persona):
    path = config.PERSONAS / persona / "probes.jsonl"
    return lines(path) if path.is_file() else []


@pytest.fixture(scope="module")
def rows(card, tmp_path_factory):
    """Every row of the data set that the embedded corpus gives, by split."""
    out = tmp_path_factory.mktemp("data") / "sherlock-embedded"
    dataset.build(card, "embedded", out)
    return {split: read_rows(out / f"{split}.jsonl") for split in dataset.SPLITS}


def answers(row: dict) -> list[str]:
    return [m["content"] for m in row["messages"] if m["role"] == "assistant"]


def asked(text: str) -> str:
    """A question without capitals and punctuation."""
    return " ".join(words(text))


# Stories


def test_there_are_twelve_stories_of_two_thousand_words_or_more(stories):
    assert len(stories) >= 12
    assert len({s.id for s in stories}) == len(stories) == len(FILES)
    assert {s.id: len(words(s.text)) for s in stories if len(words(s.text)) < 2000} == {}


def test_a_corpus_holds_the_stories_without_their_clue_lists(stories):
    assert [s.id for s in stories if "CLUES" in s.text or "pays off:" in s.text] == []


def test_paragraphs_close_their_quotes_unless_the_speech_goes_on(stories):
    bad = []
    for story in stories:
        paragraphs = story.text.split("\n\n")
        for this, after in zip(paragraphs, [*paragraphs[1:], ""], strict=True):
            if this.count('"') % 2 and not after.startswith('"'):
                bad.append((story.id, this[-60:]))
    assert bad == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_clue_stands_in_its_story_before_it_pays_off(path):
    story, mark, notes = read_text(path).partition("[CLUES]")
    assert mark, "no clue list"
    text = plain(story)
    given = [line.strip() for line in notes.splitlines() if line.strip()]
    assert len(given) >= 3
    for line in given:
        clue = CLUE.fullmatch(line)
        assert clue, line
        stands, pays = text.find(plain(clue["stands"])), text.find(plain(clue["pays"]))
        assert stands >= 0, clue["stands"]
        assert pays >= 0, clue["pays"]
        assert stands < pays, line


def test_the_card_holds_out_stories_that_are_there_and_leaves_more_to_train_on(card, stories):
    embedded = card.corpora["embedded"]
    held = [*embedded.validation, *embedded.test]
    assert embedded.validation and embedded.test
    assert len(set(held)) == len(held)
    assert set(held) <= {s.id for s in stories}
    assert len(held) * 2 < len(stories)
    assert set(embedded.other_narrators) <= {s.id for s in stories}


# The data set made from them


def test_holmes_replies_at_least_500_times(rows):
    replies = [r for split in rows.values() for r in split if r["meta"]["strategy"] == "dialogue"]
    assert len(replies) >= 500
    assert all(
        sum(r["meta"]["strategy"] == "dialogue" for r in rows[s]) >= 30 for s in ("validation", "test")
    )


def test_no_story_and_no_row_is_in_two_splits(rows):
    for of in (lambda r: r["meta"]["story"], lambda r: r["id"], lambda r: r["meta"].get("topic")):
        found = [{of(r) for r in split} - {None} for split in rows.values()]
        assert sum(map(len, found)) == len(set.union(*found)) > 0


def test_rows_keep_the_periods_language_and_the_system_prompt(rows, card):
    modern = re.compile(r"\b(?:okay|ok|computer|internet|as an ai|language model|chatbot)\b", re.IGNORECASE)
    for split in rows.values():
        for row in split:
            asks = f" {REASONING_REQUEST}" if row["meta"]["strategy"] == "reasoning" else ""
            assert row["messages"][0] == {"role": "system", "content": card.system_prompt + asks}
            if row["meta"]["strategy"] == "dialogue":
                assert not modern.search(row["messages"][-1]["content"]), row["messages"][-1]


# Curated rows and probes


def test_there_are_enough_curated_rows_and_all_are_valid(persona, curated):
    assert len(curated) >= WRITTEN[persona][0]
    assert [(i, problem_of(r)) for i, r in enumerate(curated, 1) if problem_of(r)] == []
    assert [i for i, r in enumerate(curated, 1) if set(r) - {"also"} != {"kind", "topic", "messages"}] == []
    assert {r["kind"] for r in curated} <= KINDS or persona != "sherlock"
    assert [r["topic"] for r in curated if not r["topic"].startswith(f"{r['kind']}-")] == []
    assert [r["topic"] for r in curated if not re.fullmatch(r"[a-z]+(?:-[a-z0-9]+)+", r["topic"])] == []
    assert [i for i, r in enumerate(curated, 1) if r["messages"][0]["role"] == "system"] == []


def test_no_curated_question_or_answer_is_repeated(curated):
    single = [r for r in curated if len(r["messages"]) == 2]
    first = Counter(asked(q) for r in single for q in (r["messages"][0]["content"], *r.get("also", ())))
    assert {q: n for q, n in first.items() if n > 1} == {}
    said = Counter(asked(a) for r in curated for a in answers(r))
    assert {a: n for a, n in said.items() if n > 1} == {}


@pytest.mark.parametrize("end", ["opening", "closing"])
def test_no_four_words_open_or_close_the_answers_of_many_rows(persona, curated, end):
    found = defaultdict(set)
    for i, row in enumerate(curated):
        for answer in answers(row):
            w = words(answer)
            found[" ".join(w[:4] if end == "opening" else w[-4:])].add(i)
    assert {text: len(where) for text, where in found.items() if len(where) > WRITTEN[persona][2]} == {}


def test_topics_that_the_card_holds_out_are_there_and_train_keeps_most(persona, curated):
    topics = Counter(r["topic"] for r in curated)
    card = load_card(persona)
    validation, test = (set(card.curated_topics[s]) for s in ("validation", "test"))
    assert set(card.curated_topics["identity"]) <= set(topics) - validation - test
    assert not validation & test
    path = config.PERSONAS / persona / "reasoning.jsonl"
    reasoning = {r["topic"] for r in lines(path)} if path.is_file() else set()
    assert (validation | test) - set(topics) - reasoning == set()
    held = sum(topics[t] for t in validation | test)
    assert 0.1 < held / len(curated) < 0.35
    if len(curated) < 100:
        return  # too few rows to hold out some of every kind
    kinds = {
        kind: {r["topic"] for r in curated if r["kind"] == kind} for kind in {r["kind"] for r in curated}
    }
    assert {
        k for k, of in kinds.items() if not (of & validation and of & test)
    } == set()  # every kind is held out


def test_probes_are_questions_with_ids_of_their_own(persona, probes):
    assert len(probes) >= WRITTEN[persona][1]
    assert len({p["id"] for p in probes}) == len(probes)
    for probe in probes:
        assert set(probe) == {"id", "kind", "messages"} and probe["kind"]
        roles = [m["role"] for m in probe["messages"]]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)] and roles[-1] == "user", probe[
            "id"
        ]
        assert all(m["content"].strip() for m in probe["messages"])
    last = Counter(asked(p["messages"][-1]["content"]) for p in probes)
    assert {q: n for q, n in last.items() if n > 1} == {}


def test_no_probe_is_trained_on(probes, curated, rows):
    """No question of a probe stands in the persona's curated rows, nor in Sherlock's data set."""
    questions = {asked(p["messages"][-1]["content"]): p["id"] for p in probes}
    in_curated = {asked(m["content"]) for r in curated for m in r["messages"] if m["role"] == "user"}
    in_curated |= {asked(q) for r in curated for q in r.get("also", ())}
    in_rows = {asked(r["messages"][-2]["content"]) for split in rows.values() for r in split}
    assert {id_ for q, id_ in questions.items() if q in in_curated | in_rows} == set()


# Nothing from the canon


@pytest.fixture(scope="module")
def canon(shared):
    """Every eight words in a row of the books."""
    books = sorted((shared / "corpus").glob("*.txt"))
    assert len(books) == 8
    found = {g for book in books for g in ngrams(plain(read_text(book)), 8)}
    assert len(found) > 400_000
    return found


def shared_with(canon: set, ours: dict[str, str]) -> dict[str, list[str]]:
    shares = {name: sorted(set(ngrams(plain(text), 8)) & canon) for name, text in ours.items()}
    return {name: [" ".join(g) for g in runs] for name, runs in shares.items() if runs}


def test_no_eight_words_in_a_row_of_the_stories_are_the_canons(canon, stories):
    ours = {s.id: s.text for s in stories}
    ours |= {f"clues of {p.stem}": read_text(p).partition("[CLUES]")[2] for p in FILES}
    assert shared_with(canon, ours) == {}


def test_no_eight_words_in_a_row_of_curated_rows_and_probes_are_the_canons(canon, curated, probes):
    ours = {}
    for name, given in (("curated", curated), ("probe", probes)):
        ours |= {
            f"{name} {i}.{k}": m["content"]
            for i, r in enumerate(given, 1)
            for k, m in enumerate(r["messages"])
        }
    assert shared_with(canon, ours) == {}
