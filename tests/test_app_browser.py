"""The web page in a real Chromium: conversations by mouse, keyboard and touch, contrast, phone width."""

import json
from pathlib import Path

import pytest
from browser import CONTRASTS, chromium, require_chromium, running_page
from page_server import page_server
from scripts import toy_adapter, toy_base
from serving import wait_until

pytestmark = pytest.mark.slow
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
LONG = "It is a capital mistake to theorise before one has all the evidence, as I have remarked before now."


@pytest.fixture(scope="module")
def browser():
    require_chromium()
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page over a server on this machine: (address, server, folder of conversations)."""
    workspace = tmp_path_factory.mktemp("page")
    with page_server() as server, running_page(workspace, OPENAI_BASE_URL=server.url) as (url, _):
        yield url, server, workspace / "result" / "conversations"


@pytest.fixture
def page(browser, served):
    url, server, _ = served
    server.seconds, server.refusal, server.left = 0.0, None, 0
    server.texts = lambda request: f"{request['model']} heard: {request['messages'][-1]['content']}"
    server.asked.clear()
    tab = browser.new_page(viewport={"width": 1280, "height": 860})
    tab.outside = []
    tab.on("request", lambda request: tab.outside.append(request.url) if is_outside(request.url) else None)
    tab.set_default_timeout(60_000)
    tab.goto(url)
    tab.get_by_role("textbox", name="Say something to Sherlock Holmes").wait_for(timeout=60_000)
    yield tab
    assert tab.outside == [], "the page fetches nothing from elsewhere"
    tab.close()


def is_outside(url: str) -> bool:
    """Whether an address is on another machine."""
    return url.startswith(("http", "ws")) and "//127.0.0.1:" not in url


def answer(tab, text: str):
    """Wait for an answer that holds the text."""
    tab.get_by_test_id("stChatMessage").filter(has_text=text).first.wait_for()


def test_a_conversation_is_had_with_the_keyboard_alone_and_kept(page, served):
    for _ in range(40):
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
        page.keyboard.press("Tab")
    page.keyboard.type("Who is there?")
    page.keyboard.press("Enter")
    answer(page, "sherlock heard: Who is there?")
    page.get_by_role("button", name="Retry").wait_for()
    names = page.get_by_test_id("stChatMessageContent").evaluate_all("all => all.map(e => e.ariaLabel)")
    assert names == ["Chat message from You", "Chat message from Sherlock Holmes"]
    assert page.get_by_role("status").filter(has_text="Sherlock Holmes has answered.").count() == 1

    (stored,) = [
        json.loads(p.read_text()) for p in served[2].glob("*.json") if "Who is there?" in p.read_text()
    ]
    assert [turn["text"] for turn in stored["turns"]] == ["Who is there?", "sherlock heard: Who is there?"]

    page.reload()
    page.get_by_role("textbox", name="Search").fill("THERE heard")
    page.keyboard.press("Enter")
    page.get_by_test_id("stSidebar").get_by_role("button", name="Who is there?").click()
    answer(page, "sherlock heard: Who is there?")


def test_every_control_has_a_name(page):
    controls = page.locator("button, input, textarea, [role=slider], [role=combobox]")
    nameless = controls.evaluate_all(
        """all => all.filter(e => e.checkVisibility()).filter(e => !(e.ariaLabel || e.innerText?.trim()
        || e.labels?.length || e.placeholder || e.getAttribute('aria-labelledby') || e.title
        || e.closest('label')?.innerText.trim())).map(e => e.outerHTML.slice(0, 160))"""
    )
    assert nameless == []


def test_stop_ends_the_answer_here_and_at_the_server_and_retry_asks_again(page, served):
    server = served[1]
    server.texts, server.seconds = lambda request: LONG, 0.25
    page.get_by_role("textbox", name="Say something").fill("Tell me everything.")
    page.keyboard.press("Enter")
    answer(page, "capital mistake")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped before the end.").wait_for()
    shown = page.get_by_test_id("stChatMessage").nth(1).inner_text()
    assert "capital mistake" in shown and "before now" not in shown
    wait_until(lambda: server.left == 1)  # its next word finds the first answer's connection closed
    server.seconds = 0.0
    page.get_by_role("button", name="Retry").click()
    answer(page, "as I have remarked before now.")
    page.get_by_text("Stopped before the end.").wait_for(state="hidden")
    assert server.left == 1, "the first answer's connection was closed"
    assert server.asked[0]["messages"] == server.asked[1]["messages"]


def test_two_answer_side_by_side_with_the_same_prompt(page, served):
    page.get_by_role("radio", name="Side by side").click()
    page.get_by_role("textbox", name="Say something to Sherlock Holmes and tiny").fill("A word?")
    page.keyboard.press("Enter")
    answer(page, "sherlock heard: A word?")
    answer(page, "tiny heard: A word?")
    page.get_by_role("button", name="Retry").wait_for()
    left, right = (page.get_by_test_id("stChatMessage").nth(i).bounding_box() for i in (1, 2))
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    asked = sorted(served[1].asked, key=lambda request: request["model"])
    assert [request["model"] for request in asked] == ["sherlock", "tiny"]
    assert asked[0]["messages"] == asked[1]["messages"]


@pytest.mark.parametrize("kind", ["Talk", "Side by side", "Scene"])
def test_all_text_is_readable(page, kind):
    if kind != "Talk":
        page.get_by_role("radio", name=kind).click()
    if kind == "Side by side":  # its openings look like the talk's: a click before the change would be lost
        page.get_by_role("textbox", name="Say something to Sherlock Holmes and tiny").wait_for()
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    first = "A letter has come" if kind == "Scene" else "Who are you?"
    page.get_by_test_id("stMainBlockContainer").get_by_role("button", name=first).click()
    page.get_by_role("button", name="Retry").wait_for()
    page.set_viewport_size({"width": 1280, "height": 1700})
    page.get_by_text("Settings").click()
    page.get_by_role("slider", name="Temperature").wait_for()
    ratios = page.evaluate(CONTRASTS)
    assert len(ratios) > 15
    assert [entry for entry in ratios if entry[1] < 4.5] == []
    hint = page.get_by_role("textbox", name="Say something").evaluate(
        "e => getComputedStyle(e, '::placeholder').color"
    )
    assert hint == "rgb(179, 166, 143)"  # 7.0 to 1 on the field's ground, see test_app.py


def test_a_phone_shows_the_conversation_without_scrolling_sideways(browser, served, page):
    phone = browser.new_page(**PHONE)
    phone.set_default_timeout(20_000)
    phone.goto(served[0])
    phone.get_by_test_id("stMainBlockContainer").get_by_role("button", name="Who are you?").tap()
    answer(phone, "sherlock heard: Who are you?")
    phone.get_by_role("button", name="Retry").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    message = phone.get_by_test_id("stChatMessage").first.bounding_box()
    assert message["width"] > 340, "no side bar stands beside it"
    field = phone.get_by_role("textbox", name="Say something").bounding_box()
    assert field["y"] + field["height"] < 844
    phone.close()


def test_a_server_that_refuses_is_quoted_and_may_be_asked_again(page, served):
    server = served[1]
    server.refusal = (429, "come back later")
    page.get_by_role("textbox", name="Say something").fill("Hello?")
    page.keyboard.press("Enter")
    page.get_by_text("come back later").wait_for()
    server.refusal = None
    page.get_by_role("button", name="Try again").click()
    answer(page, "sherlock heard: Hello?")


def test_with_no_endpoint_the_page_starts_the_projects_server_and_ends_it(browser, tmp_path):
    run = tmp_path / "result" / "sherlock-toy"
    base = toy_base(tmp_path / "base", spread=0.3)
    toy_adapter(run / "adapter", base)
    settings = {"persona": "sherlock", "corpus": "embedded"}
    (run / "run.json").write_text(json.dumps({"stages": {"fine_tune": {"settings": settings}}}))
    with running_page(tmp_path) as (url, process):
        tab = browser.new_page()
        tab.goto(url)
        tab.get_by_role("textbox", name="Say something to Sherlock Holmes").wait_for(timeout=180_000)
        servers = [pid for pid in children(process.pid) if "serve.py" in command_line(pid)]
        assert len(servers) == 1
        tab.get_by_text("Settings").click()
        tab.get_by_role("spinbutton", name="Longest answer, in tokens").fill("12")
        tab.keyboard.press("Enter")
        tab.get_by_role("textbox", name="Say something").fill("Who are you?")
        tab.keyboard.press("Enter")
        tab.get_by_role("button", name="Retry").wait_for(timeout=120_000)
        assert tab.get_by_test_id("stChatMessage").count() == 2
        tab.close()
    (stored,) = [json.loads(p.read_text()) for p in (tmp_path / "result" / "conversations").glob("*.json")]
    assert stored["turns"][1]["text"] and not stored["turns"][1]["stopped"]
    assert "serve.py" not in command_line(servers[0]), "the server ended with the page"


def children(pid: int) -> list[int]:
    """Processes that a process has started (Linux)."""
    listed = [p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(word) for text in listed for word in text.split()]


def command_line(pid: int) -> str:
    """The words of a process; empty where it has ended."""
    file = Path(f"/proc/{pid}/cmdline")
    return file.read_text() if file.is_file() else ""
