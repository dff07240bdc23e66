"""persona/teacher.py against a real chat-completions server here, which fails in all the usual ways."""

import asyncio
import json
import logging
import os
import random
import signal
import socket
import time
from email.utils import formatdate
from types import SimpleNamespace

import chat_server
import pytest
from chat_server import KEY, completion, refusal
from pydantic import BaseModel, ConfigDict

import config
from persona import endpoint, jobs, teacher
from persona.errors import UserError
from persona.jobs import AnswerCache, Job, Spend, parse_answer
from persona.teacher import Teacher, open_teacher

server = chat_server.server


class Word(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str


def job(word: str, max_tokens: int = 50) -> Job:
    return Job("shout", ({"role": "user", "content": f"Shout as JSON: {word}"},), Word, max_tokens, tag=word)


def answers(asker, words: list[str], **settings) -> list[str | None]:
    """What the teacher says to each word; the order and the jobs are those that were given."""
    given = [job(w, **settings) for w in words]
    found = list(asker.ask(given))
    assert [j.tag for j, _ in found] == words
    return [a.word if a else None for _, a in found]


def words(n: int) -> list[str]:
    return [f"word{i}" for i in range(n)]


def test_answers_in_order_from_concurrent_requests_in_the_documented_form(server, tmp_path):
    def slow(number, word):
        time.sleep(0.02 * (number % 3))
        return "answer"

    server.plan = slow
    asker = Teacher("m", tmp_path, concurrency=4)
    assert answers(asker, words(12)) == [f"WORD{i}" for i in range(12)]
    assert server.most_running == 4
    assert asker.counts == {"asked": 12, "kept from before": 0}
    assert (asker.spend.prompt_tokens, asker.spend.completion_tokens) == (12 * 40, 12 * 10)
    request = next(r for r in server.requests if r["messages"][0]["content"].endswith(" word0"))
    assert request == {
        "model": "m",
        "messages": [{"role": "user", "content": "Shout as JSON: word0"}],
        "max_tokens": 50,
        "temperature": 0.3,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "shout",
                "strict": True,
                "schema": {
                    "title": "Word",
                    "type": "object",
                    "properties": {"word": {"title": "Word", "type": "string"}},
                    "required": ["word"],
                    "additionalProperties": False,
                },
            },
        },
    }


def test_every_job_is_answered_by_a_server_that_fails_every_other_time(server, tmp_path):
    kinds = [
        (500, refusal("oh")),
        (503, "<html>"),
        "drop",
        "stall",
        "not json at all",
        '{"choices": []}',
        '{"choices": [{"message": {"content": 7}}]}',
        completion("I had rather not."),
        (429, refusal("slow down"), "0"),
    ]
    failures = {}
    for word in words(40):
        draw = random.Random(f"seed 5, {word}")
        failures[word] = draw.choices(kinds, k=draw.randrange(3))
    total = sum(map(len, failures.values()))
    assert all(any(kind in failed for failed in failures.values()) for kind in kinds)
    server.plan = lambda number, word: failures[word].pop() if failures[word] else "answer"
    asker = Teacher("m", tmp_path, concurrency=6, timeout_seconds=0.4)
    assert answers(asker, words(40)) == [f"WORD{i}" for i in range(40)]
    assert len(server.requests) >= 40 + total


def test_retry_after_is_waited_for_by_all(server, tmp_path):
    busy = (429, refusal("slow down"), "0.25")
    server.plan = lambda number, word: busy if number == 1 else "answer"
    assert answers(Teacher("m", tmp_path, concurrency=1), ["a", "b"]) == ["A", "B"]
    assert server.times[1] - server.times[0] >= 0.25
    assert len(server.requests) == 3


def test_retry_after_may_be_a_date_and_may_be_too_long():
    retry_after = endpoint.retry_after
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None
    assert 55 < retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)}) <= 60
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_a_server_that_asks_to_wait_for_hours_stops_the_run(server, tmp_path):
    server.plan = lambda number, word: (429, refusal("daily limit"), "7200")
    with pytest.raises(UserError, match="wait for 7,200 seconds"):
        answers(Teacher("m", tmp_path), ["a"])


def test_nonsense_is_asked_three_times_then_failed_and_asked_again_by_the_next_run(server, tmp_path):
    server.plan = lambda number, word: completion("Nonsense!") if word == "b" else "answer"
    asker = Teacher("m", tmp_path, concurrency=1)
    assert answers(asker, ["a", "b", "c"]) == ["A", None, "C"]
    assert asker.counts["failed: not the JSON that was asked for"] == 1
    assert len(server.requests) == 2 + 3
    server.plan = lambda number, word: "answer"
    assert answers(Teacher("m", tmp_path), ["a", "b", "c"]) == ["A", "B", "C"]
    assert len(server.requests) == 6


def test_an_answer_that_was_cut_off_gets_more_room(server, tmp_path):
    server.plan = lambda number, word: completion('{"word": "HA', "length") if number < 3 else "answer"
    assert answers(Teacher("m", tmp_path), ["a"], max_tokens=10) == ["A"]
    assert [r["max_tokens"] for r in server.requests] == [10, 20, 40]


def test_a_model_that_declines_is_asked_once(server, tmp_path):
    server.plan = lambda number, word: completion(None, refusal="I cannot.") if word == "a" else "answer"
    asker = Teacher("m", tmp_path)
    assert answers(asker, ["a", "b"]) == [None, "B"]
    assert asker.counts["failed: declined by the model"] == 1
    assert len(server.requests) == 2


def test_a_job_fails_when_its_tries_are_used_up_and_the_others_do_not(server, tmp_path):
    server.plan = lambda number, word: (500, "{}") if word == "b" else "answer"
    asker = Teacher("m", tmp_path, concurrency=1)
    assert answers(asker, ["a", "b", "c"]) == ["A", None, "C"]
    assert asker.counts["failed: status 500"] == 1
    assert len(server.requests) == 2 + teacher.TRIES


@pytest.mark.parametrize(
    "accepts, refused_with",
    [
        ("json_object", "'response_format.type' must be 'json_object'"),
        ("text", "Invalid parameter: response_format of type json is not supported"),
    ],
)
def test_servers_without_structured_output_are_asked_otherwise(server, tmp_path, accepts, refused_with):
    def plan(number, word):
        kind = server.requests[number - 1].get("response_format", {"type": "text"})["type"]
        if kind == accepts:
            return completion(f'Here it is:\n```json\n{{"word": "{word.upper()}"}}\n```')
        return (400, refusal(refused_with))

    server.plan = plan
    asker = Teacher("m", tmp_path, concurrency=1)
    assert answers(asker, ["a", "b"]) == ["A", "B"]
    refused = ("json_schema", "json_object", "text").index(accepts)
    assert len(server.requests) == 2 + refused  # found out once


def test_newer_names_of_fields_are_found_out(server, tmp_path):
    def plan(number, word):
        request = server.requests[number - 1]
        if "max_tokens" in request:
            return (400, refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
        if "temperature" in request:
            return (400, refusal("Unsupported value: 'temperature' does not support 0.3 with this model."))
        return "answer"

    server.plan = plan
    assert answers(Teacher("m", tmp_path, concurrency=1), ["a"]) == ["A"]
    last = server.requests[-1]
    assert last["max_completion_tokens"] == 50
    assert "max_tokens" not in last and "temperature" not in last
    assert last["response_format"]["type"] == "json_schema"


def test_one_text_that_is_refused_does_not_change_how_the_others_are_asked(server, tmp_path):
    filtered = (400, refusal("filtered", code="content_filter"))
    server.plan = lambda number, word: {"a": filtered, "c": (400, refusal("no"))}.get(word, "answer")
    asker = Teacher("m", tmp_path, concurrency=1)
    assert answers(asker, ["a", "b", "c", "d"]) == [None, "B", None, "D"]
    assert asker.counts["failed: declined by the model"] == asker.counts["failed: status 400"] == 1
    assert {r["response_format"]["type"] for r in server.requests} == {"json_schema"}
    assert len(server.requests) == 4


def test_a_job_longer_than_the_context_fails_alone(server, tmp_path):
    too_long = (
        400,
        refusal("This model's maximum context length is 10 tokens", code="context_length_exceeded"),
    )
    server.plan = lambda number, word: too_long if word == "a" else "answer"
    asker = Teacher("m", tmp_path)
    assert answers(asker, ["a", "b"]) == [None, "B"]
    assert asker.counts["failed: longer than the model's context"] == 1


@pytest.mark.parametrize(
    "status, body, line",
    [
        (401, refusal(f"Incorrect API key provided: {KEY}."), "refuses the key (401): set OPENAI_API_KEY"),
        (403, refusal("no"), "does not let this key use m (403)"),
        (404, refusal("no such model"), "has no model 'm' (404)"),
        (429, refusal("pay", code="insufficient_quota"), "no credit left (429)"),
        (400, refusal(f"the key {KEY} has no right to shout"), "refuses the request (400)"),
    ],
)
def test_what_asking_again_will_not_mend_stops_at_once_with_one_line(
    server, tmp_path, caplog, capfd, status, body, line
):
    caplog.set_level(logging.DEBUG)
    server.plan = lambda number, word: (status, body)
    with pytest.raises(UserError) as raised:
        answers(Teacher("m", tmp_path, concurrency=2), words(20))
    told = str(raised.value)
    assert line in told and "\n" not in told
    assert len(server.requests) <= (2 if status != 400 else 6)
    shown = capfd.readouterr()
    assert KEY not in told + shown.out + shown.err + caplog.text.replace(body, "")


def test_the_servers_words_are_shown_without_any_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "own-key-77")
    said = "own-key-77 and sk-proj-88\nwill not do: " + "x" * 300
    error = SimpleNamespace(status_code=422, code=None, message=said)
    line = str(endpoint.fatal(error, "http://h/v1", "m", "teacher"))
    assert line.startswith(
        "the teacher at http://h/v1 refuses the request (422): [key] and [key] will not do: x"
    )
    assert line.endswith("x") and line.count("x") < 200


def test_the_key_is_nowhere_on_disk_nor_in_the_logs(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.plan = lambda number, word: (500, "{}") if number == 1 else "answer"
    asker = Teacher("m", tmp_path)
    assert answers(asker, ["a"]) == ["A"]
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p.name for p in files] == ["m.jsonl"]
    assert KEY.encode() not in files[0].read_bytes()
    assert KEY not in caplog.text and "/chat/completions" in caplog.text
    assert KEY not in repr(vars(asker))


def test_no_server_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(teacher, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asker = Teacher("m", tmp_path, base_url=f"http://127.0.0.1:{port}", budget_tokens=1000)
    with pytest.raises(UserError, match=r"gives no answer \(connection refused, 6 tries\)"):
        answers(asker, ["a"])
    assert asker.spend.tokens == 0  # a refused connection has cost nothing


def test_an_interrupted_run_goes_on_without_asking_again(server, tmp_path, caplog):
    def plan(number, word):
        if number == 9:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        return "answer"

    server.plan = plan
    with pytest.raises(KeyboardInterrupt):
        answers(Teacher("m", tmp_path, concurrency=2), words(20))
    kept = AnswerCache(tmp_path / "m.jsonl").answers
    assert 7 <= len(kept) <= 9
    assert f"{len(kept)} answers are kept in {tmp_path}/m.jsonl" in caplog.text
    before = len(server.requests)
    server.plan = lambda number, word: "answer"
    asker = Teacher("m", tmp_path, concurrency=2)
    assert answers(asker, words(20)) == [f"WORD{i}" for i in range(20)]
    assert len(server.requests) - before == 20 - len(kept)
    assert asker.counts == {"kept from before": len(kept), "asked": 20 - len(kept)}


def test_a_torn_last_line_costs_one_answer_and_spoils_none(server, tmp_path):
    answers(Teacher("m", tmp_path, concurrency=1), ["a", "b"])
    path = tmp_path / "m.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert answers(Teacher("m", tmp_path), ["a", "b"]) == ["A", "B"]
    assert len(server.requests) == 3
    assert answers(Teacher("m", tmp_path), ["a", "b"]) == ["A", "B"]
    assert len(server.requests) == 3


def test_other_models_settings_and_questions_are_other_answers(server, tmp_path):
    answers(Teacher("m", tmp_path), ["a"])
    answers(Teacher("n", tmp_path), ["a"])
    answers(Teacher("m", tmp_path, temperature=1.0), ["a"])
    answers(Teacher("m", tmp_path), ["a"], max_tokens=60)
    assert len(server.requests) == 4
    answers(Teacher("m", tmp_path, concurrency=1, budget_tokens=10**6, timeout_seconds=9), ["a"])
    assert len(server.requests) == 4


def test_one_question_is_asked_once_for_two_jobs(server, tmp_path):
    assert answers(Teacher("m", tmp_path), ["a", "a"]) == ["A", "A"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_budget_is_never_exceeded_and_the_rest_is_left(server, tmp_path, caplog, concurrency):
    bound = Spend().prompt_bound(job("word0")) + 50
    asker = Teacher("m", tmp_path, concurrency=concurrency, budget_tokens=200 + bound, prices=(1e4, 1e5))
    found = answers(asker, words(30))
    # an answer takes 50 tokens: after four there is room for exactly one more, after five for none
    assert len(server.requests) == 5
    assert sum(a is not None for a in found) == 5
    assert asker.spend.tokens == 250 <= 200 + bound
    assert asker.counts == {"kept from before": 0, "asked": 5, "left: budget": 25}
    assert asker.spend.dollars == pytest.approx(5 * (40 * 1e4 + 10 * 1e5) / 1e6)
    assert "25 jobs are left" in caplog.text
    assert None not in answers(Teacher("m", tmp_path), words(30))
    assert len(server.requests) == 30


def test_a_server_that_counts_more_tokens_raises_the_estimate():
    spend, asked = Spend(), job("a")
    assert spend.prompt_bound(asked) == -(-asked.bytes // 3) + 16
    spend.count(asked, 2 * asked.bytes, 5, told=True)
    assert spend.prompt_bound(asked) == 2 * asked.bytes + 16
    spend.count(asked, 9 * asked.bytes, 5, told=False)
    assert spend.prompt_bound(asked) == 2 * asked.bytes + 16


def test_what_a_silent_server_may_have_used_counts_against_the_budget(server, tmp_path):
    server.plan = lambda number, word: "drop" if number == 1 else completion('{"word": "A"}', usage=False)
    asker = Teacher("m", tmp_path)
    assert answers(asker, ["a"]) == ["A"]
    assert asker.spend.tokens == 2 * (Spend().prompt_bound(job("a")) + 50)


@pytest.mark.parametrize(
    "text, word",
    [
        ('{"word": "A"}', "A"),
        ('```json\n{"word": "A"}\n```', "A"),
        ('<think>{"word": "draft"}</think>Well: {"word": "A"} there.', "A"),
        ('{"note": {"word": "A"}}', "A"),
        ('{"word": "two\nlines"}', "two\nlines"),
        ('{"word": 5}', None),
        ('{"word": "A", "more": 1}', None),
        ('{"word": "A"', None),
        ("{{{{", None),
        ("", None),
    ],
)
def test_parse_answer(text, word):
    found = parse_answer(text, Word)
    assert (found.word if found else None) == word


def test_open_teacher_picks_by_name(server, tmp_path, monkeypatch):
    assert open_teacher("gpt-x", tmp_path).base_url == server.url
    asker = open_teacher(server.url, tmp_path)
    assert (asker.id, asker.base_url) == ("m", server.url)
    server.models = ["m", "n"]
    with pytest.raises(UserError, match=r"has 2 models \(m, n\)"):
        open_teacher(server.url, tmp_path)
    from persona.local_teacher import LocalTeacher

    monkeypatch.setattr("persona.local_teacher._folder_sha256", lambda folder: "0")
    assert isinstance(open_teacher("tiny", tmp_path), LocalTeacher)


def test_addresses(server, tmp_path, monkeypatch):
    assert Teacher("m", tmp_path, base_url="http://h:1").base_url == "http://h:1/v1"
    assert Teacher("m", tmp_path, base_url="http://h:1/api").base_url == "http://h:1/api"
    with pytest.raises(UserError, match="password in the address") as raised:
        Teacher("m", tmp_path, base_url=f"http://me:{KEY}@h:1/v1")
    assert KEY not in str(raised.value)
    with pytest.raises(UserError, match="no address of a teacher"):
        Teacher("m", tmp_path, base_url="localhost:8000")
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="needs a key"):
        answers(Teacher("gpt-x", tmp_path), ["a"])


@pytest.mark.parametrize("what", ["teacher", "judge", "server"])
def test_messages_name_the_part_that_the_model_plays(server, monkeypatch, what):
    server.models = ["m", "n"]
    with pytest.raises(UserError) as raised:
        asyncio.run(endpoint.only_model(server.url, 5, what))
    assert str(raised.value) == (
        f"the {what} at {server.url} has 2 models (m, n): set OPENAI_BASE_URL to that address and give one "
        f"of them as --{what}"
    )
    with pytest.raises(UserError, match=rf"^the {what} at http://127\.0\.0\.1:9/v1 gives no answer"):
        asyncio.run(endpoint.only_model("http://127.0.0.1:9/v1", 5, what))
    with pytest.raises(UserError, match=f"^ftp://h: no address of a {what}"):
        endpoint.address("ftp://h", what)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match=f"^the {what} needs a key: set OPENAI_API_KEY"):
        endpoint.open_client(endpoint.OPENAI_URL, 5, what)


class ToyTokenizer:
    """As much of a tokenizer as a local teacher needs: a token a character."""

    model_max_length = 1000

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return "".join(m["content"] for m in messages)

    def __call__(self, text, add_special_tokens):
        return {"input_ids": list(text)}


@pytest.fixture
def local(tmp_path, monkeypatch):
    """`local()` is a local teacher of the folder `local.folder`, whose model answers "a" at once, "b" at the
    second try, and nothing else; `local.asked` are the words of each try."""
    from persona import generation, modeling
    from persona.local_teacher import LocalTeacher

    def make(**settings) -> LocalTeacher:
        return LocalTeacher(
            config.resolve_model(str(make.folder), cuda=False), tmp_path / "cache", **settings
        )

    def scripted(model, tokenizer, conversations, sampling, batch_size, label):
        make.asked.append([c[-1]["content"].rpartition(" ")[2] for c in conversations])
        assert (sampling.temperature > 0) == (len(make.asked) > 1)  # the first try is greedy
        first = {"a": 1, "b": 2}
        return [
            json.dumps({"word": w.upper()}) if first.get(w, 9) <= len(make.asked) else "hm"
            for w in make.asked[-1]
        ]

    make.folder, make.asked = tmp_path / "model", []
    make.folder.mkdir()
    (make.folder / "config.json").write_text("{}")
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=1000), eval=lambda: model)
    monkeypatch.setattr(modeling, "pick_device", lambda: SimpleNamespace(type="cpu"))
    monkeypatch.setattr(modeling, "load_tokenizer", lambda entry: ToyTokenizer())
    monkeypatch.setattr(modeling, "load_base", lambda entry, device, four_bit: model)
    monkeypatch.setattr(generation, "answer_batch", scripted)
    return make


def test_a_local_model_answers_behind_the_same_interface(local):
    asker = local()
    assert answers(asker, ["a", "b", "c"]) == ["A", "B", None]
    assert local.asked == [["a", "b", "c"], ["b", "c"], ["c"]]
    assert asker.counts == {
        "kept from before": 0,
        "asked": 2,
        "failed: not the JSON that was asked for": 1,
    }
    prompt = len("Shout as JSON: a")
    assert asker.spend.prompt_tokens == 6 * prompt
    assert asker.spend.completion_tokens == 2 * len('{"word": "A"}') + 4 * len("hm")
    assert answers(local(), ["a", "b"]) == ["A", "B"]
    assert len(local.asked) == 3


def test_other_weights_in_the_folder_are_another_teacher(local):
    assert answers(local(), ["a"]) == ["A"]
    (local.folder / "config.json").write_text('{"other": "weights"}')
    local.asked.clear()
    assert answers(local(), ["a"]) == ["A"]
    assert local.asked == [["a"]]


def test_a_local_model_keeps_to_budget_and_context(local):
    room = len("Shout as JSON: a") + 50
    asker = local(budget_tokens=2 * room - 1)
    assert answers(asker, ["a", "b"]) == ["A", None]
    assert local.asked == [["a"]]
    assert asker.counts["left: budget"] == 1
    asker = local()
    assert answers(asker, ["z"], max_tokens=1000) == [None]
    assert asker.counts["failed: longer than the model's context"] == 1


@pytest.mark.slow
def test_the_embedded_model_as_a_teacher(tmp_path):
    asker = open_teacher("tiny", tmp_path)
    assert asker.id == "tiny"
    answers(asker, ["a", "b"])
    assert asker.counts["asked"] + asker.counts["failed: not the JSON that was asked for"] == 2
    assert asker.spend.prompt_tokens > 0


def test_slug_of_a_hub_id():
    assert jobs.slug("Qwen/Qwen2.5-7B-Instruct") == "Qwen-Qwen2.5-7B-Instruct"
    assert jobs.slug("../..") == "model"
