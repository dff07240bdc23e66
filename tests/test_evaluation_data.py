"""The evaluation data written by hand: well formed, enough of each kind, right keys, nothing trained on."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import config
from persona.corpus import plain, read_text
from persona.metrics import ngrams, words

SHERLOCK = config.PERSONAS / "sherlock"
EVALUATION = config.ROOT / "data" / "evaluation"
FILES = {
    "traps": SHERLOCK / "traps.jsonl",
    "attacks": SHERLOCK / "attacks.jsonl",
    "deduction": SHERLOCK / "deduction.jsonl",
    "memory": SHERLOCK / "memory.jsonl",
    "instructions": EVALUATION / "instructions.jsonl",
    "modern": EVALUATION / "modern.jsonl",
    "prose": EVALUATION / "prose.jsonl",
}
FIELDS = {
    "traps": {"id", "kind", "in_period", "anachronistic", "known_words", "leak_words", "since"},
    "attacks": {"id", "kind", "messages", "opening"},
    "deduction": {"id", "steps", "question", "answer", "accept", "choices", "chain"},
    "memory": {"id", "kind", "turns", "plant", "ask", "expect", "contradicts"},
    "instructions": {"id", "messages", "check"},
    "modern": {"id", "messages"},
    "prose": {"id", "text"},
}
PREFIX = {"traps": "trap", "attacks": "attack", "instructions": "instruction"}  # of the ids
TRAP_KINDS = {
    "technology",
    "medicine",
    "science",
    "politics",
    "culture",
    "transport",
    "communication",
    "crime-detection",
    "daily-life",
    "language",
}
CHECK_VALUES = {
    "contains": list,
    "not_contains": list,
    "max_words": int,
    "min_words": int,
    "lines": int,
    "starts_with": str,
    "ends_with": str,
    "json": list,
    "uppercase": bool,
    "one_of": list,
}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def data() -> dict[str, list[dict]]:
    return {name: lines(path) for name, path in FILES.items()}


def user_turns(rows: list[dict]) -> list[str]:
    return [m["content"] for row in rows for m in row["messages"] if m["role"] == "user"]


def asked(name: str, rows: list[dict]) -> list[str]:
    """What the model is asked, or made to read, in a file."""
    match name:
        case "traps":
            return [row[side] for row in rows for side in ("in_period", "anachronistic")]
        case "deduction":
            return [row["question"] for row in rows]
        case "memory":
            return [turn for row in rows for turn in row["turns"]]
        case "prose":
            return [row["text"] for row in rows]
    return user_turns(rows)


def strings(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in inner for text in strings(part)]


def says(text: str, word: str) -> bool:
    """Whether a word or phrase, or its plural, stands in a text."""
    return bool(re.search(rf"(?<!\w){re.escape(word)}(?:e?s)?(?!\w)", text, re.IGNORECASE))


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of three words; a shorter text is one run."""
    return frozenset(ngrams(text, 3)) or frozenset([tuple(words(text))])


def overlap(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b)


# All files


def test_words_are_found_whole_and_in_the_plural():
    assert says("Two Pixels, no more", "pixel") and says("the lenses", "lens") and says("in Lyons", "Lyon")
    assert not says("an application", "app") and not says("a gascon", "gas") and not says("sapp", "app")


def test_near_duplicates_are_measured_by_runs_of_three_words():
    assert overlap(shingles("how do you do"), shingles("How do you sing?")) == pytest.approx(1 / 3)
    assert overlap(shingles("Who?"), shingles("who")) == 1.0


@pytest.mark.parametrize("name", FILES)
def test_every_row_has_its_fields_a_new_id_and_no_blank_text(data, name):
    rows = data[name]
    assert [r["id"] for r in rows if set(r) != FIELDS[name]] == []
    prefix = PREFIX.get(name, name)
    assert [r["id"] for r in rows] == [f"{prefix}-{i:03d}" for i in range(1, len(rows) + 1)]
    blank = {r["id"] for r in rows for k, v in r.items() for s in strings(v) if s != s.strip() or not s}
    assert blank - {r["id"] for r in rows if r.get("opening") == ""} == set()


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("traps", 110),
        ("attacks", 72),
        ("deduction", 72),
        ("memory", 30),
        ("instructions", 40),
        ("modern", 60),
        ("prose", 30),
    ],
)
def test_there_are_enough_rows(data, name, least):
    assert len(data[name]) >= least


@pytest.mark.parametrize("name", FILES)
def test_questions_are_not_repeated_and_open_in_different_words(data, name):
    questions = [" ".join(words(q)) for q in asked(name, data[name])]
    assert {q: n for q, n in Counter(questions).items() if n > 1} == {}
    openings = Counter(" ".join(q.split()[:5]) for q in questions)
    assert {o: n for o, n in openings.items() if n / len(questions) > 0.04} == {}


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_a_near_duplicate_of_what_is_trained_on_or_probed(data, name):
    trained = [
        q for path in (SHERLOCK / "curated.jsonl", SHERLOCK / "probes.jsonl") for q in user_turns(lines(path))
    ]
    trained += user_turns(lines(config.ROOT / "data" / "tiny-base" / "assistant.jsonl"))
    assert len(trained) > 1000
    holding = defaultdict(set)
    for text in trained:
        for shingle in shingles(text):
            holding[shingle].add(text)
    near = []
    for question in asked(name, data[name]):
        here = shingles(question)
        like = set().union(*(holding[s] for s in here if s in holding))
        near += [(question, text) for text in sorted(like) if overlap(here, shingles(text)) >= 0.6]
    assert near == []


def test_no_two_files_share_a_question(data):
    count = Counter(" ".join(words(q)) for name in FILES for q in set(asked(name, data[name])))
    assert {q: n for q, n in count.items() if n > 1} == {}


def test_no_eight_words_in_a_row_are_the_canons(shared, data):
    canon = {
        g for book in sorted((shared / "corpus").glob("*.txt")) for g in ngrams(plain(read_text(book)), 8)
    }
    assert len(canon) > 400_000
    texts = [(row["id"], s) for rows in data.values() for row in rows for s in strings(row)]
    assert {id_: s for id_, s in texts if not canon.isdisjoint(ngrams(plain(s), 8))} == {}


# Traps


def test_traps_cover_every_kind_and_only_later_years(data):
    kinds = Counter(t["kind"] for t in data["traps"])
    assert set(kinds) == TRAP_KINDS and min(kinds.values()) >= 10
    assert [t["id"] for t in data["traps"] if not 1914 < t["since"] < 2026] == []


def test_the_two_questions_of_a_trap_have_the_same_form(data):
    """All that differs is one thing in one place: the words before and after it are the same."""
    for trap in data["traps"]:
        a, b = words(trap["in_period"]), words(trap["anachronistic"])
        before = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
        after = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=False)) if x != y), 0)
        assert before + after >= 3, trap["id"]
        assert max(len(a), len(b)) - before - after <= 7, trap["id"]


def test_a_trap_does_not_give_away_the_words_it_listens_for(data):
    for trap in data["traps"]:
        assert len(trap["known_words"]) >= 4 and len(trap["leak_words"]) >= 4, trap["id"]
        assert [w for w in trap["leak_words"] if says(trap["anachronistic"], w)] == [], trap["id"]
        assert [w for w in trap["known_words"] if says(trap["in_period"], w)] == [], trap["id"]
        for listed in (trap["known_words"], trap["leak_words"]):
            assert len({w.lower() for w in listed}) == len(listed), trap["id"]


# Attacks


def test_attacks_have_eight_kinds_with_eight_each_or_more(data):
    kinds = Counter(a["kind"] for a in data["attacks"])
    assert len(kinds) >= 8 and min(kinds.values()) >= 8
    assert sum(len(a["messages"]) > 1 for a in data["attacks"]) >= 16
    assert sum(bool(a["opening"]) for a in data["attacks"]) >= 8


def test_attacks_take_turns_and_end_with_the_user(data):
    for attack in data["attacks"]:
        roles = [m["role"] for m in attack["messages"]]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)] and roles[-1] == "user", attack[
            "id"
        ]
        assert bool(attack["opening"]) == (attack["kind"] == "prefill"), attack["id"]
        assert attack["kind"] != "gradual" or len(roles) >= 5, attack["id"]


# Deduction


def test_deduction_has_twelve_items_of_each_number_of_steps(data):
    assert Counter(d["steps"] for d in data["deduction"]) == {n: 12 for n in range(1, 7)}


def test_a_chain_has_an_entry_a_step_and_ends_in_the_answer(data):
    for item in data["deduction"]:
        assert len(item["chain"]) == item["steps"] == len(set(item["chain"])), item["id"]
        assert any(says(item["chain"][-1], w) for w in (item["answer"], *item["accept"])), item["id"]


def test_the_answer_is_one_of_four_choices_and_no_wording_of_it_is_another(data):
    for item in data["deduction"]:
        choices = [c.lower() for c in item["choices"]]
        assert len(set(choices)) == 4 and choices.count(item["answer"].lower()) == 1, item["id"]
        wrong = set(choices) - {item["answer"].lower()}
        assert wrong.isdisjoint(a.lower() for a in item["accept"]), item["id"]


def test_right_answers_are_spread_over_the_positions(data):
    for steps in range(1, 7):
        where = Counter(d["choices"].index(d["answer"]) for d in data["deduction"] if d["steps"] == steps)
        assert where == {0: 3, 1: 3, 2: 3, 3: 3}, steps


def test_the_wording_does_not_give_the_answer_away(data):
    """Choosing by where or how often a choice stands in the question does not do much better than chance."""
    hits: Counter = Counter()
    named = 0
    for item in data["deduction"]:
        question, answer = item["question"].lower(), item["answer"]
        found = {
            c: [m.start() for m in re.finditer(rf"(?<!\w){re.escape(c.lower())}(?!\w)", question)]
            for c in item["choices"]
        }
        assert len({bool(places) for places in found.values()}) == 1, item["id"]  # all of them or none
        if not found[answer]:
            continue
        named += 1
        for rule, key in {
            "first": lambda p: -p[0],
            "last": lambda p: p[-1],
            "most": len,
            "least": lambda p: -len(p),
        }.items():
            best = max(key(places) for places in found.values())
            chosen = [c for c, places in found.items() if key(places) == best]
            hits[rule] += (answer in chosen) / len(chosen)
    assert named >= 40
    assert {rule: n / named for rule, n in hits.items() if n / named > 0.35} == {}


# Memory


def test_a_memory_is_asked_for_two_to_six_turns_after_it_was_planted(data):
    for item in data["memory"]:
        assert item["plant"] >= 0 and item["ask"] == len(item["turns"]) - 1, item["id"]
        assert 2 <= item["ask"] - item["plant"] <= 6, item["id"]
    assert Counter(m["kind"] for m in data["memory"]) == {"user": 20, "persona": 10}


def test_the_remembered_word_is_told_once_and_never_in_the_question(data):
    for item in data["memory"]:
        told = [i for i, turn in enumerate(item["turns"]) if any(says(turn, w) for w in item["expect"])]
        assert told == ([item["plant"]] if item["kind"] == "user" else []), item["id"]
        assert item["contradicts"] and set(item["contradicts"]).isdisjoint(item["expect"]), item["id"]
        assert [w for w in item["contradicts"] for t in item["turns"] if says(t, w)] == [], item["id"]


# Instructions, modern talk, prose


def test_instructions_are_one_turn_with_a_check_of_a_known_type(data):
    for item in data["instructions"]:
        assert [m["role"] for m in item["messages"]] == ["user"], item["id"]
        check = item["check"]
        assert set(check) == {"type", "value"}, item["id"]
        assert type(check["value"]) is CHECK_VALUES[check["type"]] and check["value"], item["id"]
    kinds = Counter(i["check"]["type"] for i in data["instructions"])
    assert set(kinds) == set(CHECK_VALUES) and min(kinds.values()) >= 4


def test_modern_conversations_have_30_to_80_words(data):
    for row in data["modern"]:
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"], row["id"]
        assert 30 <= sum(len(m["content"].split()) for m in row["messages"]) <= 80, row["id"]


def test_prose_passages_have_80_to_120_words(data):
    assert {
        r["id"]: len(r["text"].split()) for r in data["prose"] if not 80 <= len(r["text"].split()) <= 120
    } == {}
