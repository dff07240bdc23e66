"""Encoded data sets are kept by content and encoded again where anything of it differs."""

import json
from pathlib import Path

import pytest

import config
from persona import chat, encoding
from persona.errors import UserError
from persona.modeling import load_tokenizer
from persona.rows import make_row


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A tokenizer, a data set of three rows, an empty cache, and a count of rows that were encoded."""
    monkeypatch.setattr(config, "CACHE", tmp_path / "cache")
    encoded, encode = [], chat.encode

    def counted(tokenizer, messages, *rest, **settings):
        encoded.append(messages[0]["content"])
        return encode(tokenizer, messages, *rest, **settings)

    monkeypatch.setattr(chat, "encode", counted)
    folder = tmp_path / "rows"
    folder.mkdir()
    for split, words in (("train", ("Who?", "Why?", "When?")), ("validation", ("Where?",))):
        rows = [
            make_row(
                [{"role": "user", "content": word}, {"role": "assistant", "content": f"{word} I know."}],
                "curated",
                topic=word,
            )
            for word in words
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_tokenizer(config.resolve_model("tiny", cuda=False)), folder, encoded


def test_the_same_rows_are_encoded_once(world):
    tokenizer, folder, encoded = world
    first = encoding.training_sets(folder, tokenizer)
    assert sorted(encoded) == ["When?", "Where?", "Who?", "Why?"]
    second = encoding.training_sets(folder, tokenizer)
    assert len(encoded) == 4
    assert first["train"][:] == second["train"][:]


def test_another_length_template_or_word_is_encoded_again(world):
    tokenizer, folder, encoded = world
    encoding.training_sets(folder, tokenizer, max_length=512)
    encoding.training_sets(folder, tokenizer, max_length=256)
    assert len(encoded) == 8
    tokenizer.chat_template = "{# another #}" + tokenizer.chat_template
    encoding.training_sets(folder, tokenizer, max_length=256)
    assert len(encoded) == 12
    text = (folder / "train.jsonl").read_text()
    (folder / "train.jsonl").write_text(text.replace("Why? I know.", "Why? I do not."))
    encoding.training_sets(folder, tokenizer, max_length=256)
    assert len(encoded) == 15  # the validation rows were there


def test_a_broken_entry_of_the_cache_is_made_again(world, caplog):
    tokenizer, folder, encoded = world
    whole = encoding.training_sets(folder, tokenizer)["train"][:]
    for kept in config.CACHE.glob("encoded/*/counts.json"):
        kept.write_text("{")
    assert encoding.training_sets(folder, tokenizer)["train"][:] == whole
    assert "cannot be read" in caplog.text
    assert len(encoded) == 8


def test_repeated_topics_stand_several_times(world):
    tokenizer, folder, _ = world
    sets = encoding.training_sets(folder, tokenizer, repeats={"Who?": 3, "When?": 2})
    said = [tokenizer.decode(ids) for ids in sets["train"]["input_ids"]]
    assert [sum(word in text for text in said) for word in ("Who?", "Why?", "When?")] == [3, 1, 2]


def test_a_data_set_without_a_row_that_fits_is_refused(world):
    tokenizer, folder, _ = world
    with pytest.raises(UserError, match=f"{Path('rows')}/train.jsonl: no row of these strategies fits 4"):
        encoding.training_sets(folder, tokenizer, max_length=4)
