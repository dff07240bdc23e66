"""Local systems: likelihoods against plain ones, answers kept, what is asked again and what is not; and the
whole suite by the scripts on a two-layer model (slow)."""

import json
from dataclasses import replace

import pytest
from scripts import error_line, run, toy_adapter, toy_base, toy_data

import config
from persona import generation, likelihood
from persona.scoring import Item
from persona.systems import LocalDoor, System, context_of, fingerprint

SYSTEM = {"role": "system", "content": "Be Holmes."}


def item(name: str, question: str, reference: str | None = None, opening: str = "") -> Item:
    return Item(name, "x", [SYSTEM, {"role": "user", "content": question}], reference, opening=opening)


@pytest.fixture(scope="module")
def model(tiny_tokenizer, tiny_qwen2):
    return tiny_qwen2(tiny_tokenizer)


@pytest.fixture
def door(model, tiny_tokenizer, tmp_path):
    return LocalDoor(model, tiny_tokenizer, "w" * 64, 2, tmp_path)


ASKED = [
    item("a", "Who are you?", "Holmes, sir."),
    item("b", "Where?", opening="In"),
    item("c", "Who are you?"),
]


def test_replies_after_the_same_turns_are_as_likely_as_alone(model, tiny_tokenizer):
    replies = ["Holmes.", "I am nobody at all, sir, as you see.", "Ho"]
    items = [item("a", "Who are you?", r) for r in replies]
    items += [item("b", "Where?", "Here."), item("c", "No?")]
    plain = likelihood.true_reply_likelihood(model, tiny_tokenizer, items, 512, "x")
    shared = likelihood.shared_turns_likelihood(model, tiny_tokenizer, items, 512, "x")
    assert [n[0] for n in shared] == pytest.approx([n[0] for n in plain], rel=1e-5)
    assert [n[1:3] for n in shared] == [n[1:3] for n in plain]
    assert shared[4] == likelihood.NOTHING


def test_a_plain_text_is_as_likely_as_its_tokens_but_the_first(model, tiny_tokenizer):
    import torch

    ids = tiny_tokenizer("The rain fell.", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        loss = model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
    found = likelihood.text_likelihood(model, tiny_tokenizer, ["The rain fell.", "x" * 999], 64, "x")
    assert found[0][0] == pytest.approx(loss * (len(ids) - 1), rel=1e-5) and found[0][1] == len(ids) - 1
    assert found[1] == likelihood.NOTHING


def test_answers_are_asked_once_and_kept(door, model, tiny_tokenizer, tmp_path, monkeypatch):
    first = System("s", door, {}).records(ASKED, 5, "t")
    assert first[0].tokens > 2 and first[0].answer == first[2].answer  # the same prompt
    short = replace(generation.GREEDY, max_new_tokens=5)
    plain = generation.answer_batch(
        model, tiny_tokenizer, [i.messages for i in ASKED], short, openings=[i.opening for i in ASKED]
    )
    assert [r.answer for r in first] == plain
    monkeypatch.setattr(generation, "answer_batch", None)  # nothing is generated again
    monkeypatch.setattr(likelihood, "true_reply_likelihood", None)
    again = LocalDoor(model, tiny_tokenizer, "w" * 64, 2, tmp_path)
    assert System("s", again, {}).records(ASKED, 5, "t") == first
    with pytest.raises(TypeError):  # other weights, other answers
        LocalDoor(model, tiny_tokenizer, "v" * 64, 2, tmp_path).answers([ASKED[0].messages], [""], 5, "t")


def test_a_killed_run_goes_on_where_it_was(door, model, tiny_tokenizer, tmp_path, monkeypatch):
    items = [item(str(k), f"Question {k}?" + " So?" * k) for k in range(5)]
    whole = door.answers([i.messages for i in items], [""] * 5, 4, "t")
    (tmp_path / f"{'w' * 24}.jsonl").unlink()
    real, calls = type(model).generate, []

    def dying(self, *args, **kwargs):
        calls.append(len(kwargs["input_ids"]))
        if len(calls) == 3:  # a call for the first token, one for the others
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        LocalDoor(model, tiny_tokenizer, "w" * 64, 2, tmp_path).answers(
            [i.messages for i in items], [""] * 5, 4, "t"
        )
    again = LocalDoor(model, tiny_tokenizer, "w" * 64, 2, tmp_path)
    assert again.answers([i.messages for i in items], [""] * 5, 4, "t") == whole
    assert sum(calls[3:]) == 2 * 3  # the first batch of two was kept


def test_an_opening_goes_before_the_answer(model, tiny_tokenizer):
    ids = []
    real = model.generate

    class Spy:
        device, generation_config = model.device, model.generation_config

        def generate(self, **kwargs):
            ids.append(kwargs["input_ids"][0].tolist())
            return real(**kwargs)

    generation.answer_batch(Spy(), tiny_tokenizer, [ASKED[1].messages], openings=["In"], sampling=SHORT)
    assert tiny_tokenizer.decode(ids[0]).endswith("assistant\nIn")


SHORT = replace(generation.GREEDY, max_new_tokens=2)


def test_a_fingerprint_changes_with_weights_format_and_adapter(tmp_path):
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.safetensors").write_bytes(name.encode())
    entry = config.ModelEntry(str(tmp_path / "base"))
    found = [
        fingerprint(entry, "NF4"),
        fingerprint(entry, "bf16"),
        fingerprint(entry, "NF4", tmp_path / "adapter"),
        fingerprint(config.ModelEntry("a/hub-id", "rev"), "NF4"),
    ]
    assert len(set(found)) == 4 and fingerprint(entry, "NF4") == found[0]
    (tmp_path / "base" / "w.safetensors").write_bytes(b"other")
    assert fingerprint(entry, "NF4") != found[0]


def test_the_context_is_told_without_the_weights(tiny_tokenizer):
    entry = config.resolve_model("tiny", cuda=False)
    assert context_of(entry, tiny_tokenizer) == 1024


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--endpoint", "http://localhost:1/v1"), "--endpoint and --endpoint-model go together"),
        (("--endpoint", "http://x", "--endpoint-model", "m"), "--endpoint needs --full"),
        (("--full", "--protocol", "reference"), "--full is of held-out items"),
        (("--compare", "one"), "--compare needs two runs or more"),
        (("--compare", "one", "two"), "no evaluation report in"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, flags, said):
    assert said in error_line(run(tmp_path, "evaluation.py", *flags))


@pytest.mark.slow
def test_the_whole_suite_by_the_scripts(tmp_path):
    workspace = tmp_path / "workspace"
    base = toy_base(tmp_path / "base")
    toy_data(workspace)
    toy_adapter(workspace / "result" / "r" / "adapter", base)
    shared = ("--model", base, "--corpus", "embedded", "--run", "r", "--batch-size", 128)
    done = run(workspace, "evaluation.py", "--full", *shared)
    assert done.code == 0, done.err
    folder = workspace / "result" / "r"
    report = json.loads((folder / "evaluation_report.json").read_text())
    assert next(iter(report["systems"])) == "base" and "tuned_no_prompt" in report["systems"]
    for name in (
        "conditional_perplexity",
        "conditional_perplexity/prose",
        "break_rate/attacks",
        "canon_gain",
    ):
        assert report["metrics"][name]["values"]["tuned"]["value"] is not None, name
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert {"dialogue", "attack", "trap", "memory", "deduction", "instruction", "stability"} <= {
        r["kind"] for r in rows
    }
    before = (folder / "evaluation_report.json").read_bytes()
    quick = run(workspace, "evaluation.py", *shared)
    assert "up to date" in quick.out and (folder / "evaluation_report.json").read_bytes() == before
    assert run(workspace, "base_model.py", "--full", *shared).code == 0
    compared = run(workspace, "evaluation.py", "--compare", "r", folder / "base_report.json")
    assert compared.code == 0 and (workspace / "result" / "comparison.json").is_file(), compared.err
