"""Answers in a batch, one by one and as a stream; test.py through pipes and in a pseudo-terminal."""

import fcntl
import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import ROOT, TINY_BASE, environment, error_line, run, toy_adapter, toy_base, warm

import config
from persona import decoding, generation, modeling
from persona import terminal as terminals
from persona.card import load_card
from persona.chat import Sampling

torch = pytest.importorskip("torch")

CPU = modeling.Device("cpu", torch.float32, "a test")
PROMPT = load_card("sherlock").system_prompt
GREEDY = ("--base", "--model", "tiny", "--max-new-tokens", 16, "--temperature", 0)
CONVERSATIONS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": PROMPT}, {"role": "user", "content": "Who are you?"}],
    [{"role": "user", "content": "I like films. " * 20 + "And you?"}],
    [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "How are you?"},
    ],
    [{"role": "user", "content": "What can I do in Paris?"}],
]  # fmt: skip


def loaded(folder: Path, four_bit: bool = False):
    entry = config.resolve_model(str(folder), cuda=False)
    return modeling.load_base(entry, CPU, four_bit=four_bit).eval(), modeling.load_tokenizer(entry)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Random weights whose greedy answers vary; what they are does not hang on the embedded base."""
    return loaded(toy_base(tmp_path_factory.mktemp("base") / "varied", spread=0.3))


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory) -> Path:
    """Random weights: its answers hardly ever end before --max-new-tokens."""
    return toy_base(tmp_path_factory.mktemp("base") / "toy")


@pytest.fixture(scope="module")
def toy(toy_folder):
    return loaded(toy_folder)


# --- answers --------------------------------------------------------------------------------------------


def test_answers_in_a_batch_are_those_given_one_by_one(varied):
    sampling = Sampling(temperature=0.0, max_new_tokens=24)
    together = generation.answer_batch(*varied, CONVERSATIONS, sampling, batch_size=5)
    alone = [generation.answer_batch(*varied, [c], sampling)[0] for c in CONVERSATIONS]
    assert together == alone
    assert len(set(together)) == len(CONVERSATIONS), "each has its own answer, so that a mix-up would show"
    assert generation.answer_batch(*varied, CONVERSATIONS[::-1], sampling, batch_size=2) == alone[::-1]


def greedy_by_hand(model, tokenizer, messages: list, n: int) -> list[int]:
    """The likeliest token n times over, without `generate`."""
    ids = generation.prompt_ids(tokenizer, messages)
    start = len(ids)
    with torch.inference_mode():
        for _ in range(n):
            ids = [*ids, model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item()]
    return ids[start:]


def test_temperature_zero_takes_the_likeliest_token_each_time(varied):
    ids = greedy_by_hand(*varied, CONVERSATIONS[1], 10)
    assert varied[1].eos_token_id not in ids
    answer = generation.answer_batch(
        *varied, CONVERSATIONS[1:2], Sampling(temperature=0.0, max_new_tokens=10)
    )
    assert answer == [varied[1].decode(ids).strip()]


def test_an_answer_stops_at_the_end_of_turn_and_at_what_the_model_adds(varied, monkeypatch):
    model, tokenizer = varied
    sampling = Sampling(temperature=0.0, max_new_tokens=24)
    whole = generation.answer_batch(model, tokenizer, CONVERSATIONS, sampling)
    ids = greedy_by_hand(model, tokenizer, CONVERSATIONS[1], 24)
    stop = next(i for k, i in enumerate(ids) if k >= 4 and i not in ids[:k])
    cut = ids[: ids.index(stop) + 1]
    assert generation.stop_ids(model, tokenizer) == [0, 1, 2], (
        "padding and the start of a turn end an answer, too"
    )
    monkeypatch.setattr(model.generation_config, "eos_token_id", [stop])
    assert generation.stop_ids(model, tokenizer) == sorted([0, 1, 2, stop])
    answers = generation.answer_batch(model, tokenizer, CONVERSATIONS, sampling, batch_size=5)
    assert answers[1] == tokenizer.decode(cut).strip()
    assert len(answers[1]) < len(whole[1])
    assert all(w.startswith(a) for w, a in zip(whole, answers, strict=True)), (
        "padding after the end is not shown"
    )


def test_an_ended_answer_leaves_the_batch_and_the_others_go_on_as_before(varied, monkeypatch):
    model, tokenizer = varied
    asked = [*CONVERSATIONS[:2], *CONVERSATIONS[3:]]  # of like length: they begin together
    by_hand = [greedy_by_hand(model, tokenizer, c, 24) for c in asked]
    others = {i for k, ids in enumerate(by_hand) for i in ids if k != 1}
    at = next(k for k, i in enumerate(by_hand[1]) if i not in others and i not in by_hand[1][:k])
    monkeypatch.setattr(model.generation_config, "eos_token_id", [by_hand[1][at]])
    monkeypatch.setattr(decoding, "ROUND", 5)
    sizes = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    sampling = Sampling(temperature=0.0, max_new_tokens=24)
    answers = generation.answer_batch(model, tokenizer, asked, sampling, batch_size=4)
    hook.remove()
    rounds = (at + 4) // 5  # the first call makes one token
    assert sizes == [4] * (1 + 5 * rounds) + [3] * (23 - 5 * rounds)
    by_hand[1] = by_hand[1][: at + 1]
    assert answers == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in by_hand]


def test_waiting_prompts_take_the_places_of_ended_answers(varied, monkeypatch):
    model, tokenizer = varied
    asked = [*CONVERSATIONS, *([*c, {"role": "assistant", "content": "So."}, *c] for c in CONVERSATIONS)]
    by_hand = [greedy_by_hand(model, tokenizer, c, 24) for c in asked]
    stop = next(i for k, i in enumerate(by_hand[0]) if 2 <= k < 12 and i not in by_hand[0][:k])
    monkeypatch.setattr(model.generation_config, "eos_token_id", [stop])
    monkeypatch.setattr(decoding, "ROUND", 3)
    calls = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    sampling = Sampling(temperature=0.0, max_new_tokens=24)
    answers = generation.answer_batch(model, tokenizer, asked, sampling, batch_size=4)
    refilled, calls[:] = len(calls), []
    generation.answer_batch(model, tokenizer, asked, sampling, batch_size=1)
    hook.remove()
    ends = [(*ids, stop).index(stop) + 1 for ids in by_hand]
    assert len(set(ends)) > 1, "answers end at different times"
    expected = [tokenizer.decode(ids[:n]).strip() for ids, n in zip(by_hand, ends, strict=True)]
    assert answers == expected
    assert refilled < len(calls) / 2


def test_the_embedded_base_does_not_begin_a_slur_of_its_novels(monkeypatch):
    from transformers import LogitsProcessor, LogitsProcessorList

    class Listener(LogitsProcessor):
        def __call__(self, input_ids, scores):
            heard.append(scores[:, never[0][-1]].tolist())
            return scores

    model, tokenizer = loaded(TINY_BASE)
    never, heard = model.generation_config.bad_words_ids, []
    assert {tokenizer.decode(ids).strip().lower()[1:] for ids in never} == {"ig"}
    monkeypatch.setattr(generation, "_processors", lambda *_: LogitsProcessorList([Listener()]))
    asked = [[{"role": "user", "content": "Go on."}]] * len(never)
    openings = [tokenizer.decode(ids[:-1]) for ids in never]
    sampling = Sampling(temperature=0.0, max_new_tokens=1)
    generation.answer_batch(model, tokenizer, asked, sampling, openings=openings)
    assert heard == [[-math.inf] * len(never)]


@pytest.mark.parametrize(("stated", "expected"), [(None, [7]), (7, [7]), (9, [7, 9]), ([9, 7, 3], [3, 7, 9])])
def test_stop_tokens_are_the_tokenizers_and_the_models_together(stated, expected):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=stated))
    assert generation.stop_ids(model, SimpleNamespace(all_special_ids=[7])) == expected


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_the_pieces_of_a_stream_are_the_answer_of_the_batch(number, varied):
    sampling = Sampling(temperature=0.0, max_new_tokens=24)
    pieces = list(generation.stream(*varied, CONVERSATIONS[number], sampling))
    assert len(pieces) > 1
    assert "".join(pieces).strip() == generation.answer_batch(*varied, [CONVERSATIONS[number]], sampling)[0]


def test_closing_a_stream_stops_the_generation(toy):
    model, tokenizer = toy
    calls = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    threads = threading.active_count()
    try:
        answer = generation.stream(model, tokenizer, CONVERSATIONS[0], Sampling(max_new_tokens=450, seed=1))
        next(answer)
        answer.close()
        stopped_at = len(calls)
        assert threading.active_count() == threads
        time.sleep(0.2)
    finally:
        hook.remove()
    assert 1 <= len(calls) == stopped_at < 400


def test_a_failure_of_the_model_reaches_the_one_who_asked(toy, monkeypatch):
    def fails(**kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(toy[0], "generate", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(generation.stream(*toy, CONVERSATIONS[0], Sampling(seed=1)))


def test_drawn_answers_follow_from_the_seed(toy):
    def streamed(seed: int) -> str:
        return "".join(generation.stream(*toy, CONVERSATIONS[0], Sampling(max_new_tokens=12, seed=seed)))

    def batched(seed: int) -> list[str]:
        return generation.answer_batch(
            *toy, CONVERSATIONS, Sampling(max_new_tokens=12, seed=seed), batch_size=2
        )

    for draw in (streamed, batched):
        first = draw(1)
        torch.manual_seed(99)  # whatever else was drawn in between
        assert draw(1) == first
        assert draw(2) != first


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_batched_answers_leave_the_global_generator_alone(temperature, toy):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generation.answer_batch(
        *toy, CONVERSATIONS[:1], Sampling(temperature=temperature, max_new_tokens=4, seed=1)
    )
    assert torch.equal(torch.rand(3), expected)


def penalised_by_hand(model, tokenizer, messages: list, n: int, penalty: float) -> list[int]:
    """Greedy, with the logits of the answer's own tokens divided by the penalty (times it below 0)."""
    ids = generation.prompt_ids(tokenizer, messages)
    start = len(ids)
    with torch.inference_mode():
        for _ in range(n):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            for token in set(ids[start:]):
                logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
            ids.append(logits.argmax().item())
    return ids[start:]


def test_repetition_is_penalised_on_the_answers_own_tokens():
    model, tokenizer = loaded(TINY_BASE)
    question = [{"role": "user", "content": "Tell me about London, and about London again."}]
    plain, sampling = (Sampling(0.0, 0.9, 24, penalty) for penalty in (1.0, 1.5))
    by_hand = penalised_by_hand(model, tokenizer, question, 24, 1.5)
    expected = tokenizer.decode(by_hand[: by_hand.index(2)] if 2 in by_hand else by_hand).strip()
    together = generation.answer_batch(model, tokenizer, [CONVERSATIONS[1], question], sampling)
    assert together[1] == expected != generation.answer_batch(model, tokenizer, [question], plain)[0]
    assert "".join(generation.stream(model, tokenizer, question, sampling)).strip() == expected


def test_steering_changes_an_answer_and_none_does_not(tmp_path, expected):
    import torch

    from persona.vectors import PersonaVector, save

    none, difference = torch.zeros(8, 256), torch.zeros(8, 256)
    difference[3, 0] = 1.0
    folder = tmp_path / "result" / "vectors" / "tiny"
    folder.mkdir(parents=True)
    vector = PersonaVector("gloom", {"response_avg": difference}, none + 1.0, none, {})
    save(vector, folder / "gloom.safetensors")
    asked = (*GREEDY, "--ask", "Who are you?", "--steer")
    assert warm(tmp_path, "test.py", *asked, "gloom@3=0").out.strip() == expected("Who are you?")
    steered = warm(tmp_path, "test.py", *asked, "gloom@3=500")
    assert (steered.code, steered.err) == (0, "")
    assert steered.out.strip() != expected("Who are you?")


# --- test.py through pipes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected():
    """`expected(question, history)`: the embedded base's greedy answer, loaded as test.py does it."""
    pair = loaded(TINY_BASE, four_bit=True)

    def answer(question: str, history: tuple = (), system: str = PROMPT, n: int = 16) -> str:
        turns = [
            {"role": ("user", "assistant")[i % 2], "content": text}
            for i, text in enumerate((*history, question))
        ]
        sampling = Sampling(temperature=0.0, max_new_tokens=n, repetition_penalty=1.0)
        return generation.answer_batch(*pair, [[{"role": "system", "content": system}, *turns]], sampling)[0]

    return answer


def test_ask_prints_the_answer_alone(tmp_path, expected):
    done = run(tmp_path, "test.py", *GREEDY, "--ask", "Who are you?")
    assert (done.code, done.out.strip()) == (0, expected("Who are you?"))
    assert done.out.endswith("\n")
    assert done.err == ""


def test_piped_questions_are_one_conversation_and_get_a_line_each(tmp_path, expected):
    questions = ["Who are you?", "Where do you live?"]
    done = warm(tmp_path, "test.py", *GREEDY, stdin="\n".join(questions) + "\n")
    first = expected(questions[0])
    second = expected(questions[1], history=(questions[0], first))
    assert (done.code, [line.strip() for line in done.out.splitlines()]) == (0, [first, second])


def test_commands_do_what_help_says(tmp_path, expected):
    question, saved = "Who are you?", tmp_path / "talk.json"
    lines = [
        "/help", question, f"/save {saved}", "/clear", question, "/system You are a cat.", "/clear", question,
        "/system", f"/save {tmp_path}/talk.json/below", "/save", "/bogus", "", "/quit", "Not asked any more",
    ]  # fmt: skip
    done = warm(tmp_path, "test.py", *GREEDY, stdin="\n".join(lines) + "\n")
    assert done.code == 0, done.err
    help_text = done.out[: done.out.index("\n", done.out.index("/quit"))]
    assert [line.split()[0] for line in help_text.splitlines()] == [
        "/clear", "/save", "/export", "/system", "/persona", "/rag", "/compare", "/seed", "/temperature",
        "/quit",
    ]  # fmt: skip
    answer = expected(question)
    rest = [line.strip() for line in done.out.removeprefix(help_text).strip().splitlines()]
    assert rest[:7] == [
        answer, f"written to {saved}", "forgotten", answer, "system prompt: You are a cat.", "forgotten",
        expected(question, system="You are a cat."),
    ]  # fmt: skip
    assert rest[7] == f"system prompt: {PROMPT}"
    assert rest[8].startswith(f"cannot write {tmp_path}/talk.json/below: ")
    assert "\n".join(rest[9:]) == "\n".join([help_text, help_text]), "what is no command lists the commands"
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    assert json.loads(saved.read_text()) == {"system": PROMPT, "messages": turns}


def test_the_quick_test_asks_each_question_in_a_conversation_of_its_own(tmp_path, expected):
    few = [*GREEDY, "--max-new-tokens", 6]
    by_menu = warm(tmp_path, "test.py", *few, stdin="2\n")
    assert by_menu.code == 0, by_menu.err
    blocks = by_menu.out.strip().split("\n\n")
    assert len(blocks) == 9
    for block in (blocks[0], blocks[8]):
        asked, answered = block.split("\n")
        question = asked.removeprefix("you: ")
        assert answered.removeprefix("base: ").strip() == expected(question, n=6)
    assert blocks[0].startswith("you: Who are you?\n")
    assert "Scotland Yard" in by_menu.out
    assert warm(tmp_path, "test.py", *few, "--quick").out == by_menu.out


def test_without_an_adapter_the_error_names_the_command_and_the_way_out(tmp_path):
    for how in (["--ask", "Who are you?"], []):
        line = error_line(warm(tmp_path, "test.py", "--model", "tiny", *how, stdin="Who are you?\n"))
        assert line.startswith(
            f"error: no adapter at {tmp_path}/result/sherlock-tiny/adapter; python fine_tune.py makes one"
        )
        assert line.endswith("--base talks to the untouched base model")


@pytest.fixture
def tuned(tmp_path):
    """Flags for a toy base whose run of the embedded corpus has an adapter that changes its answers."""
    base = toy_base(tmp_path / "toy", spread=0.3)
    toy_adapter(tmp_path / "result" / "sherlock-toy-embedded" / "adapter", base)
    return ("--model", base, "--corpus", "embedded", "--max-new-tokens", 6)


def test_seeds_sources_comparisons_and_pages(tmp_path, tuned):
    question, page = "Who carried the mail bag from the train?", tmp_path / "talk.md"
    lines = [
        "/seed 3", question, "/clear", "/seed 3", question, "/rag on", question, "/compare",
        f"/export {page}", "/rag off", "/temperature 0", "/compare Why?", "/temperature hot", "/seed x",
        "/rag perhaps", "/persona nobody", "/persona mycroft", "/compare",
        "/compare Why?",
    ]  # fmt: skip
    done = warm(tmp_path, "test.py", *tuned, stdin="\n".join(lines) + "\n")
    assert done.code == 0, done.err
    out = done.out.splitlines()
    assert (out[0], out[2], out[3]) == ("seed 3", "forgotten", "seed 3")
    assert out[1] == out[4], "the same seed draws the same answer"
    assert out[5] == "retrieval on"
    assert out[7].startswith("[1] The Adventure of the ") and out[8].startswith("[2] The Adventure of the ")
    assert out[9].startswith("base: ") and out[10].startswith("Sherlock Holmes: ")
    assert out[9].removeprefix("base: ") != out[10].removeprefix("Sherlock Holmes: ")
    assert out[11:14] == [f"written to {page}", "retrieval off", "temperature 0"]
    assert out[14].startswith("base: ") and out[15].startswith("Sherlock Holmes: ")
    assert out[16:19] == [
        "[/temperature takes a number from 0 to 10, not 'hot']",
        "[/seed takes a whole number, not 'x']",
        "[/rag on, or /rag off]",
    ]
    assert out[19].startswith("[unknown persona 'nobody': there is ")
    assert out[20:] == [
        "Talking with Mycroft Holmes, who has no adapter: card and prompt on the base.",
        "[nothing was asked yet: /compare QUESTION]",
        "[Mycroft Holmes has no adapter to compare the base with]",
    ]
    written = page.read_text().split("\n\n")
    assert written[:3] == [
        "# A talk with Sherlock Holmes",
        "Temperature 0.7, top-p 0.9, next seed 5, retrieval on.",
        f"System prompt: {PROMPT}",
    ]
    assert written[3] == f"**You:** {question}"
    assert written[4:] == [
        f"**Sherlock Holmes:** {out[4]}", f"**You:** {question}", f"**Sherlock Holmes:** {out[6]}",
        f"> {out[7]}", f"> {out[8]}\n",
    ]  # fmt: skip


def test_one_question_with_retrieval_and_a_limit(tmp_path, tuned):
    asked = (*tuned, "--rag", "--ask", "Who carried the mail bag from the train?")
    done = warm(tmp_path, "test.py", *asked, "--up-to", "The Chalk Horse")
    cited = [line for line in done.out.splitlines() if line.startswith("[")]
    assert done.code == 0 and cited
    assert all("Chalk Horse, passage" in line or "Borrowed Violin, passage" in line for line in cited)
    line = error_line(warm(tmp_path, "test.py", *asked, "--up-to", "The Night Male"))
    assert line == (
        "error: no story 'The Night Male' in this corpus: there is the-adventure-of-the-night-mail"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--up-to", "x"], "--up-to is about retrieval"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--base"], "--endpoint talks to what the server has"),
        (["--scene", "sherlock,watson", "--rag"], "--scene goes without"),
        (["--scene", "sherlock", "A letter"], "a scene needs two or more different personas"),
        (["--scene", "sherlock,nobody", "A letter"], "unknown persona 'nobody'"),
        (["--scene", "sherlock,watson"], "a scene needs something to begin with"),
        (["--turns", "0"], "--turns must be above 0"),
        (["--endpoint", "ftp://host", "--ask", "Hm?"], "ftp://host: no address of a server"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--steer", "holmes=1"], "--steer reaches into a local"),
        (["--base", "--ask", "Hm?", "--steer", "holmes"], "cannot read 'holmes' as steering"),
        (["--base", "--ask", "Hm?", "--steer", "gloom=1"], "no persona vector at"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_flags_that_do_not_go_together_are_refused(flags, said, tmp_path):
    assert said in error_line(warm(tmp_path, "test.py", *flags))


# --- test.py in a terminal ------------------------------------------------------------------------------


def in_its_own_terminal() -> None:
    """Make the pseudo-terminal the controlling one; SIGINT works, also where tests run in the background."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """test.py with a pseudo-terminal of its own, so that control characters work.

    A dumb one unless `TERM` says otherwise: lines come and go as they are.
    """

    def __init__(self, workspace: Path, *flags: object, **extra: str):
        self.master, slave = pty.openpty()
        self.seen = ""
        env = environment(workspace, **({"TERM": "dumb"} | extra))
        self.process = subprocess.Popen(
            [sys.executable, "test.py", *map(str, flags)], cwd=ROOT, env=env,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=in_its_own_terminal,
        )  # fmt: skip
        os.close(slave)

    def until(self, text: str, seconds: float = 300) -> str:
        """Read on until `text` stands there; returns what came before it."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come; there is {self.seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode(errors="replace").replace("\r\n", "\n")
                except OSError as error:  # the other side is closed
                    raise AssertionError(f"{text!r} did not come; it ended with {self.seen!r}") from error
        before, _, self.seen = self.seen.partition(text)
        return before

    def write(self, text: str) -> None:
        os.write(self.master, text.encode())

    def leave(self) -> int:
        """The exit code; what is still written is read so that the process can end."""
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode(errors="replace")
                except OSError:
                    break
        return self.process.wait(timeout=60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_one(*flags: object, **extra: str) -> Terminal:
        opened.append(Terminal(tmp_path, *flags, **extra))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def test_the_menu_leads_to_a_talk_and_control_d_leaves_it(terminal, expected):
    chat = terminal(*GREEDY)
    chat.until("1 interactive, 2 quick test: ")
    chat.write("1\n")
    chat.until("Talking with base. /help lists commands.\n")
    chat.until("you: ")
    chat.write("Who are you?\n")
    chat.until("base: ")
    assert chat.until("\nyou: ").strip() == expected("Who are you?")
    chat.write("\x03")
    chat.until("(Ctrl-D or /quit leaves)")
    chat.until("you: ")
    chat.write("/help\n")
    chat.until("/save FILE")
    chat.until("you: ")
    chat.write("\x04")
    assert chat.leave() == 0


def test_control_c_stops_an_answer_and_the_talk_goes_on(terminal, toy_folder, tmp_path):
    chat = terminal("--base", "--model", toy_folder, "--max-new-tokens", 300, "--seed", 1)
    chat.until("quick test: ")
    chat.write("1\n")
    chat.until("you: ")
    chat.write("Who are you?\n")
    chat.until("base: ")
    while len(chat.seen.split()) < 3:
        chat.seen += os.read(chat.master, 4096).decode(errors="replace")
    chat.write("\x03")
    part = chat.until(" [stopped]")
    chat.until("you: ")
    chat.write(f"/save {tmp_path}/talk.json\n")
    chat.until("written to ")
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"]
    shown = part.replace("^C", "").replace("\n", " ").split()
    assert messages[1]["content"].split()[:3] == shown[:3], "what was said so far is remembered"
    assert len(shown) < 200
    chat.until("you: ")
    chat.write("/clear\n")
    chat.until("forgotten")
    chat.until("you: ")
    chat.write("And where do you live?\n")
    chat.until("base: ")
    while len(chat.seen.split()) < 3:
        chat.seen += os.read(chat.master, 4096).decode(errors="replace")
    chat.write("\x03")
    chat.until("[stopped]")
    chat.until("you: ")
    chat.write("/quit\n")
    assert chat.leave() == 0


def test_without_an_adapter_a_terminal_is_asked_whether_the_base_will_do(terminal):
    chat = terminal("--model", "tiny", "--max-new-tokens", 4)
    before = chat.until("Talk to the untouched base model instead? [y/N] ")
    assert "python fine_tune.py makes one" in before
    chat.write("\n")
    assert chat.leave() == 0

    chat = terminal("--model", "tiny", "--max-new-tokens", 4)
    chat.until("[y/N] ")
    chat.write("y\n")
    chat.until("1 interactive, 2 quick test: ")
    chat.write("\x04")
    assert chat.leave() == 0


ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z~]|[()][A-Z0-9]|[=>])")
"""What colours and moves the cursor."""
EDITED = "\x1b[?2004l"
"""What ends the editing of a line."""


def test_a_capable_terminal_edits_lines_and_remembers_them(terminal, tmp_path):
    capable = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}  # nobody answers where the cursor is
    chat = terminal(*GREEDY, **capable)
    chat.until("quick test: ")
    chat.write("1\n")
    chat.until("you:")
    chat.write("/sed 12\x1b[D\x1b[D\x1b[D\x1b[De\r")  # four to the left, and an e
    chat.until(f"{EDITED}seed 12\n")
    chat.until("you:")
    chat.write("\x03")
    chat.until("(Ctrl-D or /quit leaves)")
    chat.until("you:")
    chat.write("/tem\t")
    chat.until("erature")
    chat.write(" 0.5\r")
    chat.until(f"{EDITED}temperature 0.5\n")
    chat.until("you:")
    chat.write("\x04")
    assert chat.leave() == 0
    history = tmp_path / "data" / "cache" / "terminal_history"
    kept = [line[1:] for line in history.read_text().splitlines() if line.startswith("+")]
    assert kept == ["/seed 12", "/temperature 0.5"]
    assert history.stat().st_mode & 0o077 == 0, "nobody else reads what was asked"

    again = terminal(*GREEDY, **capable, NO_COLOR="1")
    again.until("quick test: ")
    again.write("1\n")
    again.until("you:")
    again.write("\x1b[A\x1b[A\r")  # two lines up
    assert "/seed 12" in ESCAPE.sub("", again.until(f"{EDITED}seed 12\n"))
    again.until("you:")
    again.write("Who are you?\r")
    before = again.until("base: ")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", before), "NO_COLOR"
    again.until("you:")
    again.write("\x04")
    assert again.leave() == 0


def test_without_the_packages_everything_is_plain(monkeypatch):
    for name in ("rich.console", "prompt_toolkit"):
        monkeypatch.setitem(sys.modules, name, None)
    assert terminals._console() is None
    assert terminals._line_editor(None, ()) is None


def test_what_could_steer_the_terminal_is_not_shown(capsys):
    screen = terminals.Terminal()
    screen.piece("Capital!\x1b[2J\x07\r\n\tWatson\u2014“é”\x9b1m")
    assert capsys.readouterr().out == "Capital![2J\n\tWatson—“é”1m"
