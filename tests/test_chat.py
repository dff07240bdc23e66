"""Encoding conversations token by token, and the chat session that fits its context."""

import copy
import json

import pytest

import config
from persona import chat, generation
from persona.chat import IGNORED, Encoded, Sampling, Session, answer_spans, encode, encode_rows, prompt_ids
from persona.errors import UserError
from persona.rows import make_row

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, REPLY = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Holmes."}
ASK_2, REPLY_2 = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Baker Street."}
TALK = [SYSTEM, ASK, REPLY, ASK_2, REPLY_2]

LLAMA_3 = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ '<s>' }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + '</s>' }}"
    "{% else %}{{ '[SYS] ' + m['content'] + ' [/SYS]' }}{% endif %}{% endfor %}"
)
# as Qwen3 does: what an answer thought is left out once a later turn follows
REWRITES = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '(thinking) ' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NEVER_ENDS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
ENDS_QUESTIONS_ONLY = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{% if m['role'] == 'user' %}{{ '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def with_template(tokenizer, template: str, special: tuple[str, ...] = (), eos: str | None = None):
    """A copy of a tokenizer that writes conversations by another template."""
    other = copy.deepcopy(tokenizer)
    if special:
        other.add_special_tokens({"additional_special_tokens": list(special)})
    if eos:
        other.eos_token = eos
    other.chat_template = template
    return other


def text_of(tokenizer, ids) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def learned(tokenizer, item: Encoded) -> list[str]:
    """The runs of tokens that have loss, as text."""
    runs, before = [], False
    for token, label in zip(item.input_ids, item.labels, strict=True):
        assert label in (token, IGNORED)
        if label != IGNORED:
            runs = [*runs, [token]] if not before else [*runs[:-1], [*runs[-1], token]]
        before = label != IGNORED
    return [text_of(tokenizer, run) for run in runs]


# Masks


def test_qwen_tokens_and_labels_one_by_one(qwen_tokenizer):
    item = encode(qwen_tokenizer, [SYSTEM, ASK, REPLY], max_length=64)
    tokens = [qwen_tokenizer.convert_ids_to_tokens(i) for i in item.input_ids]
    assert tokens == [
        *("<|im_start|>", "system", "Ċ", "Be", "Ġbrief", ".", "<|im_end|>", "Ċ"),
        *("<|im_start|>", "user", "Ċ", "Who", "?", "<|im_end|>", "Ċ"),
        *("<|im_start|>", "assistant", "Ċ", "Hol", "mes", ".", "<|im_end|>"),
    ]
    assert item.input_ids[:3] == [151644, 8948, 198]
    assert item.labels == [IGNORED] * 18 + item.input_ids[18:]
    assert item.labels[-1] == 151645


def test_tiny_tokens_and_labels_one_by_one(tiny_tokenizer):
    item = encode(tiny_tokenizer, [SYSTEM, ASK, REPLY], max_length=64)
    parts = ["system\nBe brief.", "user\nWho?", "assistant\n"]
    head = []
    for i, part in enumerate(parts):
        words = tiny_tokenizer(part, add_special_tokens=False)["input_ids"]
        head += [1, *words] if i == 2 else [1, *words, 2, *tiny_tokenizer("\n")["input_ids"]]
    answer = tiny_tokenizer("Holmes.", add_special_tokens=False)["input_ids"]
    assert item.input_ids == [*head, *answer, 2]
    assert item.labels == [*[IGNORED] * len(head), *answer, 2]


@pytest.fixture(params=["tiny", "qwen"])
def tokenizer(request):
    return request.getfixturevalue(f"{request.param}_tokenizer")


def test_every_answer_has_loss_with_its_end_of_turn_and_nothing_else_has(tokenizer):
    item = encode(tokenizer, TALK, max_length=200)
    assert learned(tokenizer, item) == ["Holmes.<|im_end|>", "Baker Street.<|im_end|>"]
    assert text_of(tokenizer, item.input_ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nHolmes.<|im_end|>\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\nBaker Street.<|im_end|>"
    )


def test_last_only_has_loss_on_the_last_answer_alone(tokenizer):
    whole, last = encode(tokenizer, TALK, 200), encode(tokenizer, TALK, 200, last_only=True)
    assert last.input_ids == whole.input_ids
    assert learned(tokenizer, last) == ["Baker Street.<|im_end|>"]


def test_without_a_system_turn_the_template_decides_what_stands_there(tiny_tokenizer, qwen_tokenizer):
    tiny, qwen = encode(tiny_tokenizer, [ASK, REPLY], 200), encode(qwen_tokenizer, [ASK, REPLY], 200)
    assert text_of(tiny_tokenizer, tiny.input_ids).startswith("<|im_start|>user\nWho?<|im_end|>")
    assert text_of(qwen_tokenizer, qwen.input_ids).startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    )
    assert learned(tiny_tokenizer, tiny) == learned(qwen_tokenizer, qwen) == ["Holmes.<|im_end|>"]


@pytest.mark.parametrize(
    "answer",
    [
        "«Voilà», said he — outré, naïve; 1895½ 🙂🙂",
        "The words <|user|>, [INST] and assistant\n are only words.\n\nSo it goes.",
        '"--!"',
    ],
)
def test_tokens_that_share_a_character_stay_in_the_answer(tokenizer, answer):
    item = encode(tokenizer, [SYSTEM, ASK, {"role": "assistant", "content": answer}, ASK_2, REPLY_2], 400)
    assert learned(tokenizer, item) == [answer + "<|im_end|>", "Baker Street.<|im_end|>"]


def test_an_accent_that_the_tokenizer_folds_into_its_letter_does_not_shift_the_mask(tokenizer):
    talk = [
        SYSTEM,
        {"role": "user", "content": "cafe\u0301?"},
        {"role": "assistant", "content": "Cafe\u0301."},
        ASK_2,
        REPLY_2,
    ]
    assert learned(tokenizer, encode(tokenizer, talk, 400)) == [
        "Caf\u00e9.<|im_end|>",
        "Baker Street.<|im_end|>",
    ]


def test_what_the_model_sees_before_an_answer_is_what_a_prompt_gives_it(tokenizer):
    item = encode(tokenizer, TALK, 200, last_only=True)
    n = sum(label == IGNORED for label in item.labels)
    assert item.input_ids[:n] == prompt_ids(tokenizer, TALK[:-1])
    assert prompt_ids(tokenizer, TALK[:-1], opening="Baker")[:n] == item.input_ids[:n]
    assert text_of(tokenizer, prompt_ids(tokenizer, TALK[:-1], opening="Baker")[n:]) == "Baker"


def test_curated_answers_come_back_from_their_labels_word_for_word(tokenizer):
    path = config.PERSONAS / "sherlock" / "curated.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [r for r in rows if len(r["messages"]) > 2][:10] + rows[::15][:40]
    assert len(rows) == 50
    for row in rows:
        item = encode(tokenizer, [SYSTEM, *row["messages"]], 1024)
        answers = [m["content"] + "<|im_end|>" for m in row["messages"] if m["role"] == "assistant"]
        assert learned(tokenizer, item) == answers


# Length


def test_oldest_exchanges_go_until_the_conversation_fits_and_the_system_turn_stays(tokenizer):
    whole, last = encode(tokenizer, TALK, 200), encode(tokenizer, [SYSTEM, ASK_2, REPLY_2], 200)
    assert encode(tokenizer, TALK, len(whole.input_ids)) == whole
    assert encode(tokenizer, TALK, len(whole.input_ids) - 1) == last
    assert encode(tokenizer, TALK, len(last.input_ids)) == last
    assert encode(tokenizer, TALK, len(last.input_ids) - 1) is None


def test_two_of_three_exchanges_are_kept_where_two_fit(tokenizer):
    turns = [ASK, REPLY, ASK_2, REPLY_2, ASK, REPLY]
    two = encode(tokenizer, [SYSTEM, *turns[2:]], 200)
    assert encode(tokenizer, [SYSTEM, *turns], len(two.input_ids)) == two
    assert learned(tokenizer, two) == ["Baker Street.<|im_end|>", "Holmes.<|im_end|>"]


def test_shortened_and_dropped_rows_are_counted(tokenizer):
    long = {"role": "assistant", "content": "Elementary. " * 60}
    rows = [
        make_row([SYSTEM, ASK, REPLY], "dialogue"),
        make_row([SYSTEM, ASK, long, ASK_2, REPLY_2], "dialogue"),  # loses its first exchange
        make_row([SYSTEM, ASK, REPLY, ASK_2, REPLY_2], "dialogue"),
        make_row([SYSTEM, ASK, REPLY, ASK_2, long], "dialogue"),  # its last exchange does not fit
        make_row([SYSTEM, ASK, long], "dialogue"),
    ]
    encoded, counts = encode_rows(tokenizer, rows, max_length=80)
    assert dict(counts) == {"rows": 5, "shortened": 1, "dropped": 2}
    assert [learned(tokenizer, item) for item in encoded] == [
        ["Holmes.<|im_end|>"],
        ["Baker Street.<|im_end|>"],
        ["Holmes.<|im_end|>", "Baker Street.<|im_end|>"],
    ]
    assert max(len(item.input_ids) for item in encoded) <= 80


def test_one_example_is_shown_with_its_mask(tiny_tokenizer):
    assert chat.show_mask(tiny_tokenizer, encode(tiny_tokenizer, TALK[1:], 200)) == (
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n⟦Holmes.<|im_end|>⟧\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n⟦Baker Street.<|im_end|>⟧"
    )


# Other templates


def test_llama_3_headers_are_encoded_by_the_same_rule(tokenizer):
    special = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    llama = with_template(tokenizer, LLAMA_3, special, eos="<|eot_id|>")
    item = encode(llama, TALK, 200)
    assert learned(llama, item) == ["Holmes.<|eot_id|>", "Baker Street.<|eot_id|>"]
    assert item.labels[-1] == llama.convert_tokens_to_ids("<|eot_id|>")
    assert text_of(llama, item.input_ids).startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    )
    n = sum(label == IGNORED for label in encode(llama, TALK, 200, last_only=True).labels)
    assert item.input_ids[:n] == prompt_ids(llama, TALK[:-1])


def test_mistral_brackets_are_encoded_by_the_same_rule(tokenizer):
    mistral = with_template(tokenizer, MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), eos="</s>")
    item = encode(mistral, TALK[1:], 200)
    assert learned(mistral, item) == [" Holmes.</s>", " Baker Street.</s>"]
    assert text_of(mistral, item.input_ids) == (
        "<s>[INST] Who? [/INST] Holmes.</s>[INST] Where? [/INST] Baker Street.</s>"
    )
    n = sum(label == IGNORED for label in encode(mistral, TALK[1:], 200, last_only=True).labels)
    assert item.input_ids[:n] == prompt_ids(mistral, TALK[1:-1])


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    other = with_template(tokenizer, REWRITES)
    with pytest.raises(UserError, match="rewrites earlier turns"):
        encode(other, TALK, 200)


@pytest.mark.parametrize("template", [NEVER_ENDS, ENDS_QUESTIONS_ONLY])
def test_a_template_that_does_not_close_the_answer_with_the_eos_token_is_refused(tokenizer, template):
    other = with_template(tokenizer, template)
    with pytest.raises(UserError, match="does not close the assistant's turn with the eos token"):
        encode(other, [ASK, REPLY], 200)


def test_an_eos_token_other_than_the_templates_end_of_turn_is_refused(tokenizer):
    other = with_template(tokenizer, tokenizer.chat_template, eos="<|endoftext|>")
    with pytest.raises(UserError, match="eos token"):
        answer_spans(other, TALK)


def test_a_tokenizer_without_template_or_end_of_turn_is_refused(tiny_tokenizer):
    chat.check_tokenizer(tiny_tokenizer, "tiny")
    bare = with_template(tiny_tokenizer, "")
    with pytest.raises(UserError, match="gpt2 has no chat template"):
        chat.check_tokenizer(bare, "gpt2")
    endless = copy.deepcopy(tiny_tokenizer)
    endless.eos_token = None
    with pytest.raises(UserError, match="gpt2 names no end-of-turn token"):
        chat.check_tokenizer(endless, "gpt2")


def test_a_tokenizer_that_pads_with_the_end_of_turn_is_refused(tiny_tokenizer):
    same = copy.deepcopy(tiny_tokenizer)
    same.pad_token = same.eos_token
    with pytest.raises(UserError, match="pad"):
        chat.check_tokenizer(same, "gpt2")


# Sessions


def session(
    tokenizer, tiny_qwen2, context: int, new_tokens: int, exchanges: int, system="Be brief."
) -> Session:
    turns = []
    for i in range(exchanges):
        turns += [
            {"role": "user", "content": f"Question {i}?"},
            {"role": "assistant", "content": f"Answer {i}."},
        ]
    model = tiny_qwen2(tokenizer, context=context)
    return Session(model, tokenizer, system, Sampling(max_new_tokens=new_tokens), turns)


def test_a_conversation_that_fits_is_asked_whole(tiny_tokenizer, tiny_qwen2):
    talk = session(tiny_tokenizer, tiny_qwen2, context=512, new_tokens=64, exchanges=3)
    assert talk.messages("And now?") == [SYSTEM, *talk.turns, {"role": "user", "content": "And now?"}]
    assert talk.dropped == 0


def test_oldest_exchanges_are_left_out_until_question_and_answer_fit_and_are_counted(
    tiny_tokenizer, tiny_qwen2
):
    talk = session(tiny_tokenizer, tiny_qwen2, context=512, new_tokens=32, exchanges=3)
    question = {"role": "user", "content": "And now?"}
    for kept in (3, 2, 1, 0):
        wanted = [SYSTEM, *talk.turns[6 - 2 * kept :], question]
        room = len(prompt_ids(tiny_tokenizer, wanted))
        talk.model.config.max_position_embeddings = room + 32  # just enough for this much
        assert talk.messages("And now?") == wanted
        assert talk.dropped == 6 - 2 * kept
    assert len(talk.turns) == 6  # the conversation itself is kept
    talk.model.config.max_position_embeddings = room + 31
    with pytest.raises(
        UserError, match=rf"longer than the {room - 1} tokens that the model's context leaves"
    ):
        talk.messages("And now?")


def test_the_smaller_of_model_and_tokenizer_states_the_context(tiny_tokenizer, qwen_tokenizer, tiny_qwen2):
    assert chat.context_length(tiny_qwen2(tiny_tokenizer, context=512), tiny_tokenizer) == 512
    assert chat.context_length(tiny_qwen2(tiny_tokenizer, context=4096), tiny_tokenizer) == 1024
    assert chat.context_length(tiny_qwen2(qwen_tokenizer, context=4096), qwen_tokenizer) == 4096


def test_without_a_system_prompt_there_is_no_system_turn(tiny_tokenizer, tiny_qwen2):
    talk = session(tiny_tokenizer, tiny_qwen2, 512, 64, exchanges=0, system=None)
    assert talk.messages("Who?") == [ASK]


def test_an_exchange_is_remembered_when_it_ends_or_is_cut_off_but_not_when_nothing_came(
    tiny_tokenizer, tiny_qwen2, monkeypatch
):
    seen = []

    def answer(pieces):
        def stream(model, tokenizer, messages, sampling):
            seen.append(messages)
            yield from pieces

        monkeypatch.setattr(generation, "stream", stream)

    talk = session(tiny_tokenizer, tiny_qwen2, 512, 64, exchanges=0)
    answer([" Hol", "mes", ". "])
    assert list(talk.ask("Who?")) == [" Hol", "mes", ". "]
    assert talk.turns == [ASK, REPLY]

    pieces = talk.ask("Where?")
    next(pieces)
    pieces.close()  # Ctrl-C
    assert talk.turns == [ASK, REPLY, ASK_2, {"role": "assistant", "content": "Hol"}]
    assert seen[1] == [SYSTEM, ASK, REPLY, ASK_2]

    answer([])
    assert list(talk.ask("Why?")) == []
    assert len(talk.turns) == 4

    talk.dropped = 2
    talk.clear()
    assert (talk.turns, talk.dropped, talk.system_prompt) == ([], 0, "Be brief.")
