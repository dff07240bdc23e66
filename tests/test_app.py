"""The web page without a browser: its logic, its store, its server, its colours, and its controls."""

import json
import re
import sys
import threading
import time
import tomllib

import pytest
from page_server import page_server
from scripts import ROOT, error_line, run

import config
from persona import web_page, webchat
from persona.chat import Sampling
from persona.conversations import Conversation, Store, Turn
from persona.errors import UserError
from persona.local_server import Adapter, LocalServer, adapters, choose, command
from persona.retrieval import Passage

PASSAGE = Passage("the-red-lamp", "The Red Lamp", 3, "A sailor lit it.")


def talk(
    *texts: str, kind: str = "talk", cast: tuple[str, ...] = ("sherlock",), id: str = ""
) -> Conversation:
    """User and first model in turn."""
    turns = [
        Turn("assistant", text, cast[0]) if i % 2 else Turn("user", text) for i, text in enumerate(texts)
    ]
    return Conversation(list(cast), kind, turns, id or "20260101-000000-00000a")


# --- what is asked ---------------------------------------------------------------------------------------


def test_the_model_gets_prompt_conversation_and_passages_before_the_question():
    asked = webchat.messages(talk("Who are you?", "Holmes.", "Who lit it?"), "You are Holmes.", [PASSAGE])
    assert asked == [
        {"role": "system", "content": "You are Holmes."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "Holmes."},
        {
            "role": "user",
            "content": "From the records of your cases:\n\n"
            "[1] The Red Lamp, passage 3\nA sailor lit it.\n\nWho lit it?",
        },
    ]


def test_questions_that_had_no_answer_are_one_turn_with_the_next():
    conversation = talk("Hello?", "", "Anybody?")
    assert webchat.messages(conversation, " ") == [{"role": "user", "content": "Hello?\n\nAnybody?"}]


def test_each_of_two_side_by_side_sees_its_own_answers():
    conversation = talk("Who?", "Holmes.", "Really?", kind="compare", cast=("sherlock", "tiny"))
    conversation.turns[1].other = "A program."
    assert [m["content"] for m in webchat.messages(conversation, "")] == ["Who?", "Holmes.", "Really?"]
    assert [m["content"] for m in webchat.messages(conversation, "", side=1)] == [
        "Who?",
        "A program.",
        "Really?",
    ]


def test_two_answers_arrive_interleaved_and_an_error_of_one_ends_both():
    gate, closed = threading.Event(), threading.Event()

    def slow():
        gate.wait(10)
        yield "b"

    def quick():
        yield "a"
        gate.set()
        yield "c"

    pieces = list(webchat.together([slow(), quick()]))
    assert sorted(pieces) == [(0, "b"), (1, "a"), (1, "c")] and pieces[0] == (1, "a")

    def endless():
        try:
            while True:
                yield "x"
                time.sleep(0.001)
        finally:
            closed.set()

    def failing():
        yield "y"
        raise UserError("gone")

    with pytest.raises(UserError, match="gone"):
        list(webchat.together([endless(), failing()]))
    assert closed.wait(5), "the other is not read to its end"


def test_an_answer_is_written_down_as_it_comes_and_counts_as_stopped_until_it_is_whole():
    turn, saved = Turn("assistant", ""), []
    pieces = webchat.write_down(turn, (p for p in (" It ", "is ", "so. ")), lambda: saved.append(turn.text))
    next(pieces)
    assert (turn.text, turn.stopped, saved) == (" It ", True, [])
    pieces.close()
    assert (turn.text, turn.stopped, saved) == ("It", True, ["It"])
    whole = Turn("assistant", "")
    list(webchat.write_down(whole, (p for p in ("It ", "is.")), lambda: None))
    assert (whole.text, whole.stopped) == ("It is.", False)


def test_a_scene_goes_on_from_where_the_conversation_stands():
    conversation = Conversation(["sherlock", "watson"], "scene", [Turn("event", "A letter has come")])
    sampling = Sampling(seed=5)
    assert webchat.scene_of(conversation, sampling).next_character.name == "sherlock"
    conversation.turns.append(Turn("assistant", "From Paris.", "sherlock"))
    scene = webchat.scene_of(conversation, sampling)
    assert (scene.next_character.name, scene.sampling.seed, sampling.seed) == ("watson", 6, 5)
    assert scene.view(scene.next_character)[1:] == [
        {"role": "user", "content": "A letter has come\nFrom Paris."}
    ]
    conversation.turns.append(Turn("assistant", "How so?", "watson"))
    conversation.turns.append(Turn("user", "Watson, what do you say?"))
    assert webchat.scene_of(conversation, sampling).next_character.name == "watson"
    conversation.turns[-1].text = "And then?"
    assert webchat.scene_of(conversation, sampling).next_character.name == "sherlock"


def test_characters_without_a_model_of_their_own_speak_by_the_base(monkeypatch):
    with page_server() as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        reply = webchat.voices(server.url, ["sherlock", "tiny"])
        for name, model in (("sherlock", "sherlock"), ("mycroft", "tiny")):
            said = "".join(reply(name, [{"role": "user", "content": "Hm?"}], Sampling()))
            assert said.strip() == f"{model} heard: Hm?"


def test_models_are_listed_or_one_line_says_why_not(monkeypatch):
    with page_server(models=("sherlock", "tiny")) as server:
        assert webchat.list_models(server.url) == ["sherlock", "tiny"]
        server.models = ()
        with pytest.raises(UserError, match="lists no models"):
            webchat.list_models(server.url)
        gone = server.url
    with pytest.raises(UserError, match="gives no answer: see that it runs"):
        webchat.list_models(gone)
    names = webchat.display_names(["sherlock", "org/sherlock", "../x"])
    assert names == {"sherlock": "Sherlock Holmes", "org/sherlock": "org/sherlock", "../x": "../x"}


def test_nothing_of_the_page_needs_torch():
    code = "import sys, persona.web_page; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert run(ROOT / "tests", sys.executable, "-c", code).code == 0


# --- what is kept ----------------------------------------------------------------------------------------


def test_conversations_are_kept_found_by_all_their_words_and_forgotten(tmp_path):
    store = Store(tmp_path / "kept")
    assert store.find() == []
    old = talk("Who stole the Goose?", "Ryder did.", id="20260101-000000-00000a")
    new = talk("Who are you?", "A goose-chaser.", id="20260102-000000-00000b")
    old.turns[1].sources = [{"story": "a", "title": "A", "number": 1, "text": "b"}]
    for conversation in (old, new, Conversation(["sherlock"])):
        store.save(conversation)
    assert [c.id for c in store.find()] == [new.id, old.id], "newest first; what is empty leaves no file"
    assert store.find("goose ryder") == [old] and store.find("GOOSE") == [new, old]
    assert store.find("goose parrot") == []
    old.turns.append(Turn("user", "And the parrot?"))
    store.save(old)
    assert store.find("goose parrot") == [old], "a change is seen"
    store.delete(old.id)
    store.delete(old.id)
    assert store.find("goose") == [new]
    with pytest.raises(UserError, match="the conversation is missing"):
        store.load(old.id)


def test_damaged_files_are_left_out_and_ids_are_no_paths(tmp_path, caplog):
    store = Store(tmp_path)
    store.save(talk("One?"))
    for name, text in (("20260103-000000-0000aa", "{"), ("20260103-000000-0000ab", '{"turns": []}')):
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "notes.json").write_text("[]")
    assert [c.title for c in store.find()] == ["One?"]
    assert len(caplog.records) == 2
    with pytest.raises(UserError, match="no conversation's id"):
        store.load("../../etc/passwd")


def test_a_conversation_as_a_page_names_speakers_and_sources():
    conversation = talk("Who lit it?", "A sailor.", cast=("sherlock", "tiny"), kind="compare")
    conversation.turns[1].other = "Nobody."
    conversation.turns[1].sources = [{"title": "The Red Lamp", "number": 3, "text": "...", "story": "x"}]
    names = {"sherlock": "Sherlock Holmes", "tiny": "tiny"}
    assert conversation.markdown(names) == (
        "# Who lit it?\n\n**You:** Who lit it?\n\n**Sherlock Holmes:** A sailor.\n\n**tiny:** Nobody.\n\n"
        "> The Red Lamp, passage 3\n"
    )
    assert talk("word " * 20).title == "word word word word word word …"
    assert talk("x" * 50).title == "x" * 34


# --- the server of its own -------------------------------------------------------------------------------


def make_run(result, name: str, persona: str, base: str, age: int, corpus=None) -> None:
    import os

    folder = result / name / "adapter"
    folder.mkdir(parents=True)
    facts = {"peft_type": "LORA", "r": 16, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    settings = {"persona": persona, "corpus": corpus}
    (result / name / "run.json").write_text(json.dumps({"stages": {"fine_tune": {"settings": settings}}}))
    os.utime(folder / "adapter_config.json", (1e9 - age, 1e9 - age))


def test_the_newest_run_is_served_with_the_newest_of_others_on_its_base(tmp_path):
    make_run(tmp_path, "a", "sherlock", "/elsewhere/data/tiny-base", age=5, corpus="canon")
    make_run(tmp_path, "b", "sherlock", "/old/tiny-base", age=9)
    make_run(tmp_path, "c", "watson", "tiny-base", age=7)
    make_run(tmp_path, "d", "watson", "Qwen/Qwen2.5-7B-Instruct", age=8)
    (tmp_path / "e" / "adapter").mkdir(parents=True)
    (tmp_path / "e" / "adapter" / "adapter_config.json").write_text("{")
    found = adapters(tmp_path)
    assert [(a.persona, a.base) for a in found] == [
        ("sherlock", "tiny"), ("watson", "tiny"), ("watson", "qwen2.5-7b"), ("sherlock", "tiny"),
    ]  # fmt: skip
    sherlock = Adapter("sherlock", "tiny", tmp_path / "a" / "adapter", "canon")
    watson = Adapter("watson", "tiny", tmp_path / "c" / "adapter", None)
    assert choose(found) == [sherlock, watson]
    assert choose(found, persona="watson") == [watson, sherlock]
    assert [a.base for a in choose(found, model="qwen2.5-7b")] == ["qwen2.5-7b"]
    assert choose(found, persona="mycroft") == []
    assert command([sherlock, watson]) == [
        "--port", "0", "--model", "tiny", "--adapters",
        f"sherlock={tmp_path}/a/adapter", f"watson={tmp_path}/c/adapter",
    ]  # fmt: skip
    assert command([]) == ["--port", "0", "--base"]
    assert command([], "qwen2.5-0.5b") == ["--port", "0", "--model", "qwen2.5-0.5b", "--base"]


FAKE_SERVER = """import sys, time
if "--fail" in sys.argv:
    sys.exit("error: no adapter at X: python fine_tune.py makes one")
print("listening on http://127.0.0.1:9/v1 (no key)", flush=True)
print("ready: sherlock, tiny; context 1024 tokens", flush=True)
time.sleep(60)
"""


def test_the_server_is_waited_for_and_ended(tmp_path, monkeypatch):
    (tmp_path / "serve.py").write_text(FAKE_SERVER)
    monkeypatch.setattr(config, "ROOT", tmp_path)
    server = LocalServer(sys.executable, [])
    assert server.wait(20) == "http://127.0.0.1:9/v1"
    assert server.running
    server.stop()
    assert not server.running
    failed = LocalServer(sys.executable, ["--fail"])
    with pytest.raises(UserError, match=r"own server ended: no adapter at X: python fine_tune.py makes one$"):
        failed.wait(20)


def test_bad_flags_are_one_line_and_help_needs_no_streamlit(tmp_path):
    assert error_line(run(tmp_path, "app.py", "--port", "0")) == "error: --port must be 1 to 65535, not 0"
    assert "--endpoint" in run(tmp_path, "app.py", "--help").out


# --- colours ---------------------------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance and contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_a_contrast_of_4_5_on_every_ground_and_controls_of_3():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the usual example
    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"]
    grounds = [
        theme["backgroundColor"],
        theme["secondaryBackgroundColor"],
        theme["sidebar"]["backgroundColor"],
    ]
    css = web_page.STYLE.read_text()
    grounds += ["#1b1613", "#3a2a14"]  # a message, the lamp's light
    assert all(ground in css for ground in grounds[3:])
    inks = [theme["textColor"], theme["linkColor"], theme["codeTextColor"]]
    inks += re.findall(r"(?<![-\w])color: (#[0-9a-f]{6})", css)
    dark = theme["backgroundColor"]
    assert inks.count(dark) == 1, "dark text stands on the accent colour alone"
    inks.remove(dark)
    assert contrast(dark, theme["primaryColor"]) >= 4.5
    assert min(contrast(ink, ground) for ink in inks for ground in grounds) >= 4.5
    assert min(contrast(theme["primaryColor"], ground) for ground in grounds) >= 3
    assert theme["borderColor"] != theme["backgroundColor"]


# --- the page's controls ---------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path, monkeypatch):
    """`app()` opens the page over a server on this machine; `app.server` is that server."""
    from streamlit.testing.v1 import AppTest

    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setattr(config, "RESULT", tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    web_page.models_of.clear()

    def opened() -> AppTest:
        page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
        assert not page.exception
        return page

    with page_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        opened.server = server
        opened.kept = tmp_path / "conversations"
        yield opened


def shown(page) -> list[tuple[str, str]]:
    """(speaker, text) of all messages."""
    return [(message.name, message.markdown[-1].value) for message in page.chat_message]


def press(page, label: str):
    """Press the button with a label that begins so."""
    return next(b for b in page.button if b.label.startswith(label)).click().run()


def test_a_conversation_by_the_controls(app):
    page = app()
    assert [title.value for title in page.title] == ["Sherlock Holmes"]
    press(page, "Who are you?")
    assert shown(page) == [("You", "Who are you?"), ("Sherlock Holmes", "sherlock heard: Who are you?")]
    page.slider(key="temperature").set_value(0.0)
    page.slider(key="top_p").set_value(0.5)
    page.number_input(key="tokens").set_value(33)
    page.number_input(key="seed").set_value(7)
    page.text_area(key="prompt-sherlock").set_value("Be brief.")
    page.chat_input[0].set_value("And then?").run()
    sent = app.server.asked[-1]
    assert {k: sent[k] for k in ("temperature", "top_p", "max_tokens", "seed")} == {
        "temperature": 0.0, "top_p": 0.5, "max_tokens": 33, "seed": 7,
    }  # fmt: skip
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert [m["content"] for m in sent["messages"][1:]] == [
        "Who are you?", "sherlock heard: Who are you?", "And then?",
    ]  # fmt: skip
    before = app.server.asked[-1]["messages"]
    press(page, "Retry")
    assert len(app.server.asked) == 3 and app.server.asked[-1]["messages"] == before
    assert len(shown(page)) == 4

    press(page, "New conversation")
    assert shown(page) == []
    page.selectbox(key="model").set_value("watson").run()
    assert page.title[0].value == "Dr. Watson"
    assert page.text_area(key="prompt-watson").value.startswith("You are Dr. Watson")


def test_the_past_is_searched_opened_and_deleted(app):
    page = app()
    for words in ("A dog in the night?", "A red lamp?"):
        press(page, "New conversation")
        page.chat_input[0].set_value(words).run()
    later = app()
    later.text_input(key="search").set_value("DOG night").run()
    listed = [b.label for b in later.button if (b.key or "").startswith("open-")]
    assert listed == ["A dog in the night?"]
    press(later, "A dog")
    assert shown(later)[0] == ("You", "A dog in the night?")
    press(later, "Delete")
    assert shown(later) == [] and len(list(app.kept.glob("*.json"))) == 1
    assert "None with these words." in [c.value for c in later.caption]


def test_side_by_side_shows_and_keeps_both(app):
    page = app()
    page.segmented_control(key="kind").set_value("compare").run()
    page.chat_input[0].set_value("A word?").run()
    assert shown(page) == [
        ("You", "A word?"), ("Sherlock Holmes", "sherlock heard: A word?"), ("tiny", "tiny heard: A word?"),
    ]  # fmt: skip
    (stored,) = [json.loads(path.read_text()) for path in app.kept.glob("*.json")]
    assert stored["cast"] == ["sherlock", "tiny"]
    assert stored["turns"][1]["other"] == "tiny heard: A word?" and not stored["turns"][1]["stopped"]


def test_a_conversation_whose_models_are_gone_is_not_opened(app):
    app.server.models = ("sherlock",)
    store = Store(app.kept)
    store.save(talk("Both?", kind="compare", cast=("sherlock", "tiny"), id="20260101-000000-0000c1"))
    store.save(talk("Scene?", kind="scene", cast=("sherlock", "nobody"), id="20260101-000000-0000c2"))
    page = app()
    for label, told in (("Both?", "needs two models"), ("Scene?", "needs the persona nobody")):
        press(page, label)
        assert told in page.error[0].value and shown(page) == []


def test_a_scene_of_two_who_speak_in_turn(app):
    page = app()
    page.segmented_control(key="kind").set_value("scene").run()
    page.chat_input[0].set_value("A letter has come").run()
    press(page, "Next line: Dr. Watson")
    page.chat_input[0].set_value("Watson, what do you say?").run()
    assert [name for name, _ in shown(page)] == ["Sherlock Holmes", "Dr. Watson", "You", "Dr. Watson"]
    assert [request["model"] for request in app.server.asked] == ["sherlock", "watson", "watson"]
    assert app.server.asked[1]["messages"][1]["content"].startswith("A letter has come\n")


def test_sources_come_with_the_answer_and_later_stories_stay_out(app):
    page = app()
    page.toggle(key="rag").set_value(True).run()
    page.chat_input[0].set_value("Who painted the chalk horse on the hill?").run()
    asked = app.server.asked[-1]["messages"][-1]["content"]
    assert asked.startswith("From the records of your cases:\n\n[1] ")
    sources = next(e for e in page.expander if e.label.startswith("Sources"))
    first = re.match(r"\*\*\[1\] (.+)\*\*, passage (\d+)", sources.markdown[0].value)
    assert f"[1] {first[1]}, passage {first[2]}\n" in asked
    assert first[1].endswith("Chalk Horse")
    earliest = page.selectbox(key="up_to").options[1]
    page.selectbox(key="up_to").set_value(web_stories()[0]).run()
    press(page, "Retry")
    titles = set(re.findall(r"\[\d\] (.+), passage", app.server.asked[-1]["messages"][-1]["content"]))
    assert titles <= {earliest}


def web_stories() -> tuple[str, ...]:
    """Ids of the embedded stories in their order."""
    from persona.web_sidebar import open_retriever

    return open_retriever("sherlock", "embedded").stories


def test_a_refusal_is_shown_and_leaves_the_question_to_be_asked_again(app):
    page = app()
    app.server.refusal = (429, "come back later")
    page.chat_input[0].set_value("Hello?").run()
    assert "come back later" in page.error[0].value
    assert shown(page) == [("You", "Hello?")]
    (stored,) = Store(app.kept).find()
    assert [turn.text for turn in stored.turns] == ["Hello?"]
    app.server.refusal = None
    press(page, "Try again")
    assert not page.error and shown(page)[1] == ("Sherlock Holmes", "sherlock heard: Hello?")


def test_without_endpoint_and_training_environment_the_page_says_which_command_helps(app, monkeypatch):
    from persona import local_server

    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setattr(local_server, "NEEDED", ("no_such_package",))
    monkeypatch.setenv("PERSONA_VENV", "/nowhere")
    page = app()
    assert page.title[0].value == "Nobody is in"
    assert "bash run_persona.sh" in page.error[0].value and "--endpoint" in page.error[0].value
