"""Evaluation on Synthetic-Persona-Chat: metrics by hand, controls, and the script from data set to report."""

import json
import math

import numpy as np
import pytest
import scripts

import config
from persona import persona_chat_items as chat_items
from persona import persona_chat_metrics as measures
from persona import persona_chat_report
from persona.errors import UserError
from persona.persona_chat import FORMS, Conversation, Line, messages_of
from persona.rows import make_row

TRADES = ("baker", "diver", "judge", "miner", "nurse", "pilot", "potter", "sailor", "tailor", "weaver")


def conversation(number: int) -> Conversation:
    """Seven lines and a reply; User 2's persona, and the reply, name a trade."""
    trade = TRADES[number % len(TRADES)]
    said = [Line(1 + k % 2, f"This is line {k} of talk {number}.") for k in range(7)]
    reply = Line(2, f"I work as a {trade} and I was up before dawn.")
    return Conversation(number, (("I like tea.",), (f"I am a {trade}.", "I rise early.")), (*said, reply))


def rows_of(numbers, overlapping=()) -> list[dict]:
    return [
        make_row(
            messages_of(conversation(n), form),
            "persona_chat",
            form=form,
            conversation=n,
            overlap=n in overlapping,
        )
        for n in numbers
        for form in FORMS
    ]


# Metrics


def test_word_f1_counts_shared_words_without_articles_and_punctuation():
    assert measures.f1_words("The cat, a dog -- AN owl!") == ["cat", "dog", "owl"]
    # cat, sat are shared; 2 words said, 3 true ones: precision 1, recall 2/3
    assert measures.word_f1("A cat sat.", "The cat sat down") == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert measures.word_f1("tea tea tea", "tea") == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))
    assert measures.word_f1("", "tea") == 0.0 == measures.word_f1("the", "a")


def test_bleu_by_hand_and_as_sacrebleu_has_it():
    from sacrebleu import corpus_bleu

    answers, references = ["the cat sat on the mat", "tea"], ["the cat sat on a mat", "no tea"]
    counts = measures.bleu_counts(answers, references)
    # runs shared: "the cat sat on the mat" has 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 fours
    assert counts.tolist() == [[5, 3, 2, 1, 6, 5, 4, 3, 6, 6], [1, 0, 0, 0, 1, 0, 0, 0, 1, 2]]
    brevity = math.exp(1 - 8 / 7)
    by_hand = brevity * ((6 / 7) * (3 / 5) * (2 / 4) * (1 / 3)) ** (1 / 4)
    assert measures.bleu_of(counts.sum(0)) == pytest.approx(by_hand)
    assert measures.bleu_of(counts.sum(0)) == pytest.approx(corpus_bleu(answers, [references]).score / 100)
    assert measures.bleu_of([0] * 8 + [0, 5]) == 0.0
    assert measures.bleu_signature().startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_bleu_report_pairs_the_systems_and_resamples_conversations():
    references = [f"one two three four five {word}" for word in TRADES]
    wrong = ["nothing of the kind was ever said here"] * len(references)
    entry = measures.bleu_report({"base": wrong, "tuned": references}, references, list(TRADES), "base")
    assert entry["values"]["tuned"] == {"value": pytest.approx(1.0), "ci95": pytest.approx([1, 1]), "n": 10}
    assert entry["values"]["base"]["value"] == 0.0
    assert entry["differences"]["tuned-base"]["value"] == pytest.approx(1.0)
    assert entry["differences"]["tuned-base"]["p"] == pytest.approx(2 / 10_000)
    assert list(entry["jackknife"]["tuned"]) == list(TRADES)
    same = measures.bleu_report({"base": wrong, "tuned": wrong}, references, list(TRADES), "base")
    assert same["differences"]["tuned-base"] == {"value": 0.0, "ci95": [0.0, 0.0], "p": 1.0}
    part = measures.bleu_report({"base": wrong, "tuned": wrong}, references, list(TRADES), "base", part=True)
    assert part["differences"]["tuned-base"]["p"] is None
    alone = measures.bleu_report({"base": wrong[:1]}, references[:1], ["a"], "base")
    assert alone["values"]["base"]["ci95"] is None, "one conversation has no spread"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    """A two-layer BERT with random weights and a vocabulary of a few words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "work", "as", "a", "was", "up", "tea"]
    words += TRADES
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
        BertModel(settings).save_pretrained(folder)
    return str(folder)


def test_bertscore_of_a_saved_encoder(encoder):
    pairs = [("i work as a baker", "i work as a baker"), ("tea", "i was up"), ("  ", "tea")]
    same, other, empty = measures.bert_scores(*map(list, zip(*pairs, strict=True)), encoder, 2, "cpu")
    assert same == pytest.approx((1.0, 1.0, 1.0), abs=1e-5)
    precision, recall, f1 = other
    assert f1 < 0.999
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)
    assert empty == (0.0, 0.0, 0.0)


def test_bertscore_refuses_what_is_no_encoder(encoder, tmp_path):
    with pytest.raises(UserError, match="no encoder"):
        measures.bert_scores(["a"], ["a"], str(tmp_path / "nowhere"), 2, "cpu")
    with pytest.raises(UserError, match="9 layers: no encoder"):
        measures.bert_scores(["a"], ["a"], encoder, 9, "cpu")


# Items and controls


def test_items_are_of_both_forms_and_overlapping_replies_stand_apart():
    items = chat_items.items_of(rows_of(range(6), overlapping=(2,)))
    assert [i.kind for i in items[:3]] == ["one-persona", "one-persona", "one-persona/overlapping"]
    assert [i.kind for i in items[6:9]] == ["both-personas", "both-personas", "both-personas/overlapping"]
    assert [i.story for i in items] == [f"conversation {n}" for n in range(6)] * 2
    assert items[0].reference == "I work as a baker and I was up before dawn."
    drawn = chat_items.items_of(rows_of(range(10)), 4)
    assert len({i.story for i in drawn}) == 4 == len(drawn) / 2
    assert drawn == chat_items.items_of(rows_of(reversed(range(10))), 4), "rows' order plays no part"
    with pytest.raises(UserError, match=r"generate_dataset\.py --persona spc"):
        chat_items.items_of([])


def test_shuffled_personas_are_anothers_in_system_and_user_turn():
    items = chat_items.items_of(rows_of(range(8)))
    others = chat_items.with_another_persona(items)
    for item, other in zip(items, others, strict=True):
        assert chat_items.persona_of(other) != chat_items.persona_of(item)
        assert (other.id, other.reference, other.story) == (item.id, item.reference, item.story)
        assert other.messages[-1]["content"].count(chat_items.persona_of(other)) == 1
        assert chat_items.persona_of(item) not in "".join(m["content"] for m in other.messages)
        said = [i.messages[-1]["content"].partition("The conversation so far:")[2] for i in (item, other)]
        assert said[0] == said[1]
    n = len(items) // 2
    first, second = ([chat_items.persona_of(i) for i in part] for part in (others[:n], others[n:]))
    assert first == second, "both forms get the same persona"
    assert sorted(first) == sorted(chat_items.persona_of(i) for i in items[:n]), "each persona is used once"


def test_replies_to_choose_from_are_others_and_the_same_in_both_forms():
    items = chat_items.items_of(rows_of(range(10)))
    choices = chat_items.choices_of(items, 4)
    assert [c.distractors for c in choices[:10]] == [c.distractors for c in choices[10:]]
    for choice in choices:
        assert len(set(choice.distractors)) == 4
        assert choice.item.reference not in choice.distractors
    assert len(chat_items.choices_of(items)[0].distractors) == 9, "there are no more other replies"


def test_retrieval_picks_the_reply_with_the_personas_words_and_the_commonest_is_counted():
    train = rows_of(range(10))
    items = chat_items.items_of(rows_of(range(20, 24)))
    retrieval = chat_items.TfidfRetrieval(train)
    assert retrieval.answers(items) == [i.reference for i in items], "the trade is in persona and reply"
    assert retrieval.picks(chat_items.choices_of(items)) == [True] * 8
    shuffled = chat_items.with_another_persona(items)
    assert retrieval.picks(chat_items.choices_of(shuffled)) == [False] * 8
    assert chat_items.commonest_utterance(rows_of([1, 11, 2, 3])) == conversation(1).lines[-1].text
    assert "baker" in chat_items.commonest_utterance(rows_of([2, 0])), "of equals the first by alphabet"


def test_hits_at_1_ranks_by_mean_likelihood():
    items = chat_items.items_of(rows_of(range(3)))
    choices = chat_items.choices_of(items, 2)
    # the true reply is the first candidate of each item: 1 nat a token, others 2; in the last item others 0.5
    likelihood = []
    for k in range(len(items)):
        rest = 0.5 if k == len(items) - 1 else 2.0
        likelihood += [(4.0, 4, 0, 0.0, 0), (4 * rest, 4, 0, 0.0, 0), (4 * rest, 4, 0, 0.0, 0)]
    outcome = persona_chat_report.Outcome([], choices, likelihood)
    assert outcome.hits([0, 1, 2]).value == 1.0
    assert outcome.hits([4, 5]).numerators == [1.0, 0.0]
    assert persona_chat_report.Outcome([]).hits([0]) is None


def test_the_table_has_the_published_columns_and_says_what_was_not_measured():
    entry = {"value": 0.25, "ci95": [0.125, 0.5], "n": 9}
    report = {"systems": {"tuned": {}, "tfidf": {}}, "metrics": {"bleu": {"values": {"tuned": entry}}}}
    lines = persona_chat_report.markdown_table(report).splitlines()
    assert lines[0] == (
        "| System | form | BLEU | ROUGE-L | BERTScore P / R / F1 | perplexity | hits@1 | word F1 |"
    )
    assert len(lines) == 2 + 2 * 2
    assert lines[2] == "| tuned | one-persona | 0.25 [0.125, 0.5] |" + " not measured |" * 5
    assert lines[3] == "| tfidf | one-persona | - |" + " not measured |" * 5
    unmeasured = persona_chat_report.not_measured({"base": persona_chat_report.Outcome([])}, None)
    assert list(unmeasured) == ["BERTScore", "perplexity and hits@1 of base"]


class BakersDoor:
    """Answers as an endpoint does: words, no likelihoods."""

    def answers(self, conversations, openings, max_new_tokens, label):
        return ["I work as a baker and I was up before dawn." for _ in conversations]


def test_an_endpoints_answers_are_measured_and_its_likelihoods_are_not():
    from persona.card import load_card
    from persona.systems import System

    system = System("bakers", BakersDoor(), {"model": "bakers", "adapter": None, "prompt": None})
    report, predictions = persona_chat_report.report(
        load_card("spc"), rows_of(range(20)), rows_of(range(20, 30)), [system], list, 0, 8, None, {"run": "r"}
    )
    assert list(report["systems"]) == ["bakers", "tfidf", "commonest"]
    # one of ten replies is the baker's; of the other nine 9 of 10 words are shared ("a" does not count)
    f1 = report["metrics"]["word_f1"]["values"]["bakers"]["value"]
    assert f1 == pytest.approx((1 + 9 * 9 / 10) / 10)
    assert "bakers" not in report["metrics"]["hits_at_1"]["values"]
    assert list(report["not_measured"]) == ["BERTScore", "perplexity and hits@1 of bakers"]
    assert report["controls"]["chance"]["hits_at_1"] == pytest.approx(1 / 10), "nine other replies"
    assert len(predictions) == 20


# The script


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, encoder):
    """A data set of toy conversations, a toy base and a run with an adapter."""
    space = tmp_path_factory.mktemp("space")
    folder = space / "data" / "dataset" / "spc-embedded"
    folder.mkdir(parents=True)
    for split, numbers in (("train", range(30)), ("validation", range(30, 33)), ("test", range(40, 52))):
        rows = rows_of(numbers, overlapping=(41, 42, 43))
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "manifest.json").write_text("{}\n")
    base = scripts.toy_base(space / "base", spread=0.3)
    scripts.toy_adapter(space / "result" / "toy" / "adapter", base)
    return space


def evaluate(workspace, *words):
    return scripts.warm(
        workspace, "evaluation.py", "--persona", "spc", "--corpus", "embedded", "--model",
        workspace / "base", "--run", "toy", "--max-new-tokens", 8, "--no-four-bit", *words,
    )  # fmt: skip


def test_the_script_reports_systems_and_controls_over_as_many_conversations_as_asked(workspace, encoder):
    done = evaluate(workspace, "--limit", 10, "--bertscore-model", encoder, "--bertscore-layers", 2)
    assert done.code == 0, done.err
    assert "7 new conversations; 95% intervals by bootstrap over conversations" in done.out
    assert "not measured" not in done.out
    report = json.loads((workspace / "result" / "toy" / "evaluation_report.json").read_text())
    assert list(report["systems"]) == ["base", "tuned", "tuned_shuffled", "tfidf", "commonest"]
    assert report["n_asked"] == {
        "one-persona": 7, "both-personas": 7, "one-persona/overlapping": 3, "both-personas/overlapping": 3,
    }  # fmt: skip
    assert report["bleu_signature"].startswith("nrefs:1")
    metrics = report["metrics"]
    for suffix in ("", "/both-personas", "/overlapping", "/both-personas-overlapping"):
        for name in ("bleu", "rouge_l", "word_f1"):
            assert set(metrics[name + suffix]["values"]) == set(report["systems"])
        likely = set(metrics["conditional_perplexity" + suffix]["values"])
        assert likely == {"base", "tuned", "tuned_shuffled"}
        assert set(metrics["hits_at_1" + suffix]["values"]) == likely | {"tfidf"}
        tested = metrics["rouge_l" + suffix]["differences"]
        assert set(tested) >= {"tuned-base", "tuned-tuned_shuffled"}
        assert (tested["tuned-base"]["p"] is None) == suffix.endswith("overlapping")
    assert report["bertscore"] == {"model": encoder, "layers": 2, "device": "cpu"}
    for name in ("bertscore_precision", "bertscore_recall", "bertscore_f1"):
        values = [v["value"] for v in metrics[name]["values"].values()]
        assert len(values) == 5
        assert np.isfinite(values).all()
        assert max(map(abs, values)) <= 1 + 1e-6
    assert metrics["hits_at_1"]["values"]["tfidf"]["value"] == 1.0, "persona and reply share the trade"
    assert metrics["conditional_perplexity"]["values"]["base"]["value"] > 1
    predictions = (workspace / "result" / "toy" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 20
    assert json.loads(predictions[0])["answers"]["commonest"] == report["controls"]["commonest_utterance"]


def test_an_encoder_without_its_layer_is_refused(workspace):
    before = scripts.snapshot(workspace / "result")
    line = scripts.error_line(evaluate(workspace, "--bertscore-model", "somewhere", "--force"))
    assert "--bertscore-layers" in line
    assert scripts.snapshot(workspace / "result") == before


def test_the_whole_of_the_real_test_file_has_items_in_both_forms(shared):
    from persona.persona_chat import persona_chat_rows

    files = {
        "validation": shared / "spc" / "Synthetic-Persona-Chat_valid.csv",
        "test": shared / "spc" / "Synthetic-Persona-Chat_test.csv",
    }
    rows, _ = persona_chat_rows(files)
    items = chat_items.items_of(rows["test"])
    assert len(items) == 2 * 966
    assert sum(i.kind.endswith("/overlapping") for i in items) == 2 * 167
    others = chat_items.with_another_persona(items)
    assert all(
        chat_items.persona_of(a) != chat_items.persona_of(b) for a, b in zip(items, others, strict=True)
    )


def test_report_code_is_part_of_what_a_report_follows_from():
    import evaluation

    for name in evaluation.PERSONA_CHAT_CODE:
        assert (config.ROOT / "persona" / f"{name}.py").is_file()
