"""Scoring: likelihoods against a plain forward pass, metrics of hand-made records, and the report."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from persona import generation, reading, scoring
from persona.card import load_card
from persona.chat import IGNORED, Sampling, encode, prompt_ids
from persona.errors import UserError
from persona.metrics import Metric
from persona.rows import make_row
from persona.scoring import Item, Record, clusters_of, compare, items_of, metrics_of, reference_metrics

SYSTEM = {"role": "system", "content": "Be Holmes."}


def ask(*contents: str) -> list[dict]:
    roles = ["user", "assistant"] * len(contents)
    return [SYSTEM, *({"role": r, "content": c} for r, c in zip(roles, contents, strict=False))]


def item(name: str, reference: str | None, *contents: str, **where: str) -> Item:
    return Item(name, "dialogue", ask(*(contents or ("Well?",))), reference, **where)


def record(answer: str = "", nll=0.0, tokens=0, correct=0, text_nll=0.0, text_tokens=0) -> Record:
    return Record(answer, nll, tokens, correct, text_nll, text_tokens)


# Items


def test_the_last_turn_is_the_true_reply_and_all_before_it_asks():
    talk = [*ask("Who?", "Holmes.", "Where?"), {"role": "assistant", "content": "Baker Street."}]
    rows = [
        make_row(talk, "dialogue", story="silver-blaze", scene="silver-blaze#2"),
        make_row(talk[3:], "curated"),
        make_row(talk[3:], "guard"),
    ]
    found = items_of(rows)
    first = Item(
        rows[0]["id"],
        "dialogue",
        ask("Who?", "Holmes.", "Where?"),
        "Baker Street.",
        "silver-blaze",
        "silver-blaze#2",
    )
    assert found[0] == first
    assert [(i.kind, i.story, i.scene) for i in found[1:]] == [("curated", None, None)] * 2


def probe_card(tmp_path, text: str | None):
    if text is not None:
        (tmp_path / "probes.jsonl").write_text(text, encoding="utf-8")
    return replace(load_card("sherlock"), folder=tmp_path, system_prompt="Be Holmes.")


def test_probes_are_asked_with_the_system_prompt_and_have_no_true_reply(tmp_path):
    lines = json.dumps({"id": "p1", "kind": "x", "messages": [{"role": "user", "content": "Who?"}]}) + "\n\n"
    assert scoring.probes_of(probe_card(tmp_path, lines)) == [Item("p1", "probe", ask("Who?"), None)]
    assert scoring.probes_of(probe_card(tmp_path / "none", None)) == []


@pytest.mark.parametrize("bad", ["{", '{"id": "p2"}', '{"messages": []}', "[1]", '"text"'])
def test_a_bad_probe_is_named_by_line(tmp_path, bad):
    good = json.dumps({"id": "p1", "messages": [{"role": "user", "content": "Who?"}]})
    with pytest.raises(UserError, match=r"probes\.jsonl, line 3: not a probe"):
        scoring.probes_of(probe_card(tmp_path, f"{good}\n\n{bad}\n"))


# Likelihood


@pytest.fixture(scope="module")
def model(tiny_tokenizer, tiny_qwen2):
    return tiny_qwen2(tiny_tokenizer)


ITEMS = [
    item("a", "It is quite simple.", "What do you make of it?"),
    item("b", None, "Who are you?"),
    item("c", "No.", "Well?"),
    item("d", "The hat is everything, Watson; observe the lining.", "One?", "Indeed so.", "And the hat?"),
]


def plainly(model, tokenizer, one: Item) -> tuple:
    """The same numbers by one forward pass of one conversation, token by token."""
    import torch

    encoded = encode(
        tokenizer, [*one.messages, {"role": "assistant", "content": one.reference}], 512, last_only=True
    )
    with torch.no_grad():
        logits = model(torch.tensor([encoded.input_ids])).logits[0].double()
    nll = tokens = correct = text_nll = text_tokens = 0
    for k in range(1, len(encoded.input_ids)):
        token = encoded.input_ids[k]
        loss = -torch.log_softmax(logits[k - 1], -1)[token].item()
        text_nll, text_tokens = text_nll + loss, text_tokens + 1
        if encoded.labels[k] != IGNORED:
            nll, tokens = nll + loss, tokens + 1
            correct += int(logits[k - 1].argmax()) == token
    return nll, tokens, correct, text_nll, text_tokens


@pytest.mark.parametrize("batch_tokens", [1, 100, 2048])
def test_likelihoods_are_those_of_a_plain_forward_pass_whatever_the_batch(
    model, tiny_tokenizer, batch_tokens
):
    found = scoring.true_reply_likelihood(model, tiny_tokenizer, ITEMS, 512, "x", batch_tokens=batch_tokens)
    assert found[1] == (0.0, 0, 0, 0.0, 0)
    for k in (0, 2, 3):
        assert found[k] == pytest.approx(plainly(model, tiny_tokenizer, ITEMS[k]), rel=1e-5)
    reply = tiny_tokenizer("No.", add_special_tokens=False)["input_ids"]
    assert found[2][1] == len(reply) + 1  # and the end of turn
    assert found[0][0] > 1  # nothing to do with an untrained model's zero


class Rigged:
    """A model that gives the next token of `answer`, which begins at `first`, a logit of 10, all others 0."""

    device = "cpu"

    def __init__(self, answer: list[int], first: int, vocabulary: int):
        self.answer, self.first, self.vocabulary = answer, first, vocabulary

    def __call__(self, input_ids, attention_mask):
        import torch

        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        for k, token in enumerate(self.answer):
            logits[:, self.first - 1 + k, token] = 10
        return SimpleNamespace(logits=logits)


def test_tokens_of_the_reply_that_are_the_likeliest_are_counted_as_correct(tiny_tokenizer):
    reply = [*tiny_tokenizer("Quite so.", add_special_tokens=False)["input_ids"], tiny_tokenizer.eos_token_id]
    first, vocabulary = len(prompt_ids(tiny_tokenizer, ask("Well?"))), len(tiny_tokenizer)
    one = [item("a", "Quite so.")]
    knows = Rigged(reply, first, vocabulary)
    [(nll, tokens, correct, _, _)] = scoring.true_reply_likelihood(knows, tiny_tokenizer, one, 512, "x")
    assert correct == tokens == len(reply)
    assert nll == pytest.approx(tokens * math.log1p((vocabulary - 1) * math.exp(-10)), rel=2e-3)
    half = Rigged([*reply[:2], *(t + 1 for t in reply[2:])], first, vocabulary)
    assert scoring.true_reply_likelihood(half, tiny_tokenizer, one, 512, "x")[0][2] == 2


def test_a_reply_that_does_not_fit_has_no_likelihood_and_old_turns_go_first(model, tiny_tokenizer):
    short = encode(
        tiny_tokenizer, [*ask("And the hat?"), {"role": "assistant", "content": ITEMS[3].reference}], 512
    )
    room = len(short.input_ids)
    fits = scoring.true_reply_likelihood(model, tiny_tokenizer, [ITEMS[3]], room, "x")
    alone = replace(ITEMS[3], messages=ask("And the hat?"))
    assert fits[0] == pytest.approx(plainly(model, tiny_tokenizer, alone), rel=1e-5)
    assert scoring.true_reply_likelihood(model, tiny_tokenizer, [ITEMS[3]], room - 1, "x") == [
        (0.0, 0, 0, 0.0, 0)
    ]


def test_score_gives_each_item_its_answer_and_likelihood_in_order(model, tiny_tokenizer):
    sampling = Sampling(temperature=0.0, max_new_tokens=6)
    found = scoring.score(model, tiny_tokenizer, ITEMS, sampling, batch_size=2)
    backwards = scoring.score(model, tiny_tokenizer, ITEMS[::-1], sampling, batch_size=2)[::-1]
    assert [r.answer for r in found] == [r.answer for r in backwards]
    assert [r.tokens for r in found] == [
        plainly(model, tiny_tokenizer, i)[1] if i.reference else 0 for i in ITEMS
    ]
    assert len({r.answer for r in found}) > 1


@pytest.mark.parametrize("batch_tokens", [2048, 80])
def test_one_pass_for_prompt_and_reply_gives_what_two_give(model, tiny_tokenizer, monkeypatch, batch_tokens):
    monkeypatch.setattr(reading, "BATCH_TOKENS", batch_tokens)
    sampling, passes = Sampling(temperature=0.0, max_new_tokens=6), []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = scoring.score(model, tiny_tokenizer, ITEMS, sampling, batch_size=4)
    hook.remove()
    answers = generation.answer_batch(model, tiny_tokenizer, [i.messages for i in ITEMS], sampling)
    assert [r.answer for r in found] == answers
    for record, one in zip(found, ITEMS, strict=True):
        numbers = (record.nll, record.tokens, record.correct, record.text_nll, record.text_tokens)
        expected = plainly(model, tiny_tokenizer, one) if one.reference else (0, 0, 0, 0, 0)
        assert numbers == pytest.approx(expected, rel=1e-5)
    assert sum(rows for rows, columns in passes if columns > 1) == len(ITEMS), "every prompt is read once"


def test_a_reply_whose_first_turns_are_left_out_is_read_by_itself(model, tiny_tokenizer, monkeypatch):
    long = replace(ITEMS[3], reference="Quite so. " * 3)
    whole = prompt_ids(tiny_tokenizer, long.messages)
    alone = replace(long, messages=ask("And the hat?"))
    monkeypatch.setattr(scoring, "context_length", lambda *_: len(whole) + 4)
    assert reading.replies_after(model, tiny_tokenizer, [whole], [long], len(whole) + 4) == [[]]
    [record] = scoring.score(model, tiny_tokenizer, [long], Sampling(temperature=0.0, max_new_tokens=2))
    expected = plainly(model, tiny_tokenizer, alone)
    assert (record.nll, record.tokens) == pytest.approx(expected[:2], rel=1e-5)


# Clusters


def test_clusters_are_stories_from_ten_on_else_scenes_else_items():
    ten = [item(f"i{k}", "x", story=f"s{k % 10}", scene=f"s{k % 10}#{k}") for k in range(20)]
    assert clusters_of([*ten, item("loose", "x")]) == ([*(f"s{k % 10}" for k in range(20)), "loose"], "story")
    nine = [i for i in ten if i.story != "s9"]
    assert clusters_of(nine) == ([i.scene for i in nine], "scene")
    assert clusters_of([replace(nine[0], scene=None), item("loose", "x")]) == (["s0", "loose"], "scene")
    assert clusters_of([item("a", "x"), item("b", None)]) == (["a", "b"], "item")


# Metrics

CARD = replace(load_card("sherlock"), lexicon=("pray", "singular"))
TWO = [item("a", "The game is afoot."), item("b", "Précisé")]  # 18 and 9 bytes
RECORDS = [
    record("Pray, the game was afoot", nll=6.0, tokens=4, correct=3, text_nll=20.0, text_tokens=10),
    record("How singular, pray tell me now", nll=2.0, tokens=2, correct=0, text_nll=6.0, text_tokens=2),
]


def test_every_metric_by_hand():
    found = metrics_of(TWO, RECORDS, CARD, canon_rate=0.1)
    values = {name: metric.value for name, metric in found.items()}
    rouge = 2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4)  # "the game ... afoot": 3 of 5 and of 4 words
    assert values == pytest.approx(
        {
            "conditional_perplexity": math.exp(8 / 6),
            "bits_per_byte": 8 / math.log(2) / 27,
            "token_accuracy": 3 / 6,
            "evaluation_loss": 8 / 6,
            "jaccard": (3 / 6 + 0) / 2,  # {pray the game was afoot} and {the game is afoot}
            "rouge_l": rouge / 2,
            "victorian_term_frequency": 3 / 11,
            "term_frequency_distance": 3 / 11 - 0.1,
        }
    )
    better = {name: metric.better for name, metric in found.items()}
    assert better == dict.fromkeys(
        ("conditional_perplexity", "bits_per_byte", "evaluation_loss"), "lower"
    ) | dict.fromkeys(("token_accuracy", "jaccard", "rouge_l"), "higher") | {
        "victorian_term_frequency": "target",
        "term_frequency_distance": "lower",
    }
    assert found["victorian_term_frequency"].target == 0.1
    assert metrics_of(TWO, RECORDS, CARD, canon_rate=0.5)["term_frequency_distance"].value == pytest.approx(
        0.5 - 3 / 11
    )


def test_a_reply_that_did_not_fit_counts_in_no_likelihood_but_its_answer_is_measured():
    with_third = metrics_of([*TWO, item("c", "Quite so.")], [*RECORDS, record("Quite so.")], CARD, 0.1)
    without = metrics_of(TWO, RECORDS, CARD, 0.1)
    for name in ("conditional_perplexity", "bits_per_byte", "token_accuracy", "evaluation_loss"):
        assert with_third[name].value == without[name].value
    assert with_third["jaccard"].value == pytest.approx((3 / 6 + 0 + 1) / 3)


def test_probes_have_the_term_rate_alone():
    probes = [item("a", None), item("b", None)]
    found = metrics_of(probes, RECORDS, CARD, canon_rate=0.1)
    assert {name: metric.value for name, metric in found.items()} == {"term_rate": 3 / 11}


def test_the_reference_systems_metrics_by_hand():
    found = reference_metrics(TWO, RECORDS, CARD)
    values = {name: metric.value for name, metric in found.items()}
    rouge = 2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4)
    assert values == pytest.approx(
        {
            "reference_perplexity": (math.exp(2) + math.exp(3))
            / 2,  # a mean of perplexities over the whole text
            "reference_jaccard": (2 / 7 + 0) / 2,  # {pray, the game was afoot} and {the game is afoot.}
            "rouge_l": rouge / 2,
            "victorian_term_frequency": 3 / 11,
        }
    )


def test_a_text_that_did_not_fit_is_not_counted_as_perfectly_predicted():
    three, records = [*TWO, item("c", "Quite so.")], [*RECORDS, record("Quite so.")]
    found = reference_metrics(three, records, CARD)["reference_perplexity"]
    assert found.value == pytest.approx((math.exp(2) + math.exp(3)) / 2)


# Report


def test_a_comparison_has_values_intervals_and_paired_differences():
    base = {"jaccard": Metric("higher", [0.0, 1.0], [1.0, 1.0])}
    tuned = {"jaccard": Metric("higher", [2.0, 6.0], [1.0, 1.0])}
    found = compare({"base": base, "tuned": tuned}, ["a", "b"])
    p = found["jaccard"]["differences"]["tuned-base"].pop("p")
    assert p == 0.5  # two clusters that agree: as often by chance
    assert found == {
        "jaccard": {
            "better": "higher",
            "target": None,
            "values": {
                "base": {"value": 0.5, "ci95": [0.0, 1.0], "n": 2},
                "tuned": {"value": 4.0, "ci95": [2.0, 6.0], "n": 2},
            },
            "differences": {"tuned-base": {"value": 3.5, "ci95": [2.0, 5.0]}},
            "jackknife": {"base": {"a": 1.0, "b": 0.0}, "tuned": {"a": 6.0, "b": 2.0}},
        }
    }


def test_items_without_a_denominator_are_not_in_n():
    metric = Metric("lower", [4.0, 0.0, 2.0], [2.0, 0.0, 1.0], target=0.3)
    found = compare({"base": {"x": metric}}, ["a", "b", "c"])["x"]
    assert (found["values"]["base"]["n"], found["values"]["base"]["value"]) == (2, 2.0)
    assert (found["target"], found["differences"]) == (0.3, {})


def test_the_table_has_a_line_a_metric():
    base = {"jaccard": Metric("higher", [0.0, 1.0], [1.0, 1.0])}
    tuned = {"jaccard": Metric("higher", [2.0, 6.0], [1.0, 1.0])}
    one = {
        "systems": {"base": {}, "tuned": {}},
        "metrics": compare({"base": base, "tuned": tuned}, ["a", "b"]),
    }
    head, rule, line = scoring.table(one).splitlines()
    assert head.split() == ["metric", "base", "tuned", "difference", "95%", "interval"]
    assert set(rule) == {"-"} and len(rule) == len(head) == len(line)
    assert line.split() == ["jaccard", "0.5", "4", "+3.5", "[+2,", "+5]"]
    one["metrics"]["jaccard"]["differences"]["tuned-base"]["ci95"] = None
    assert scoring.table(one).splitlines()[2].split()[-1] == "none"
