"""The page on which people rate answers blind: one file that loads nothing, works by keyboard, and prints."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape


@dataclass(frozen=True)
class Shown:
    """What the page shows of an item; A is the answer on the left."""

    earlier: tuple[tuple[str, str], ...]
    """(who, what), turn by turn."""
    question: str
    a: str
    b: str


def page_id(title: str, items: Sequence[Shown]) -> str:
    """Hash of everything that raters read: ratings of a page belong to its key alone."""
    return hashlib.sha256(json.dumps([title, *map(asdict, items)]).encode()).hexdigest()


def render(title: str, about: str, items: Sequence[Shown]) -> str:
    """The page. Nothing in it tells which system an answer is from."""
    sections = "".join(_section(k, len(items), one) for k, one in enumerate(items, 1))
    fills = {
        "TITLE": escape(title),
        "ABOUT": escape(about),
        "PAGE": page_id(title, items),
        "COUNT": str(len(items)),
        "SECTIONS": sections,  # last, so that nothing that a model says is filled in
    }
    page = TEMPLATE
    for name, value in fills.items():
        page = page.replace(f"@{name}@", value)
    return page


def _section(number: int, total: int, one: Shown) -> str:
    earlier = "".join(f"<p><b>{escape(who)}:</b> {escape(what)}</p>" for who, what in one.earlier)
    before = f'<div class="earlier" aria-label="Said before">{earlier}</div>' if earlier else ""
    answers = "".join(
        f"<article><h3>Answer {letter}</h3>"
        f'<p class="text">{escape(text.strip()) or "(no answer)"}</p></article>'
        for letter, text in (("A", one.a), ("B", one.b))
    )
    choices = "".join(
        f'<label><input type="radio" name="r{number}" value="{value}"> '
        f'<span><kbd aria-hidden="true">{value}</kbd> {words}</span></label>'
        for value, words in ((1, "A is better"), (2, "B is better"), (0, "Neither is better"))
    )
    return (
        f'<section class="item" id="item{number}" tabindex="-1" aria-labelledby="head{number}">'
        f'<h2 id="head{number}">{number} of {total}</h2>{before}'
        f'<p class="question"><b>Said to the character:</b> {escape(one.question)}</p>'
        f'<div class="answers">{answers}</div>'
        f'<fieldset><legend>Which answer is better?</legend><div class="choices">{choices}</div></fieldset>'
        "</section>\n"
    )


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>@TITLE@</title>
<style>
:root { color-scheme: light dark; --paper: #faf8f4; --ink: #1d1b18; --soft: #5d574e; --card: #fff;
  --line: #8b8378; --accent: #7a2e1d; --on-accent: #fff; }
@media (prefers-color-scheme: dark) { :root { --paper: #191816; --ink: #ece7de; --soft: #b5ada0;
  --card: #23211e; --line: #7f786d; --accent: #eba48f; --on-accent: #1d1b18; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.55 Georgia, serif; }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 1rem 1.25rem; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2 { font-size: 1.1rem; color: var(--soft); margin: 0 0 0.5rem; font-weight: normal; }
h3 { font-size: 1rem; margin: 0 0 0.4rem; color: var(--accent); }
button, input { font: inherit; color: inherit; }
button { background: var(--card); border: 1px solid var(--line); border-radius: 0.4rem;
  padding: 0.45rem 0.9rem; min-height: 2.75rem; cursor: pointer; }
button.main { background: var(--accent); color: var(--on-accent); border-color: var(--accent); }
input[type=text] { background: var(--card); border: 1px solid var(--line); border-radius: 0.4rem;
  padding: 0.45rem 0.6rem; min-height: 2.75rem; max-width: 100%; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.item:focus { outline: none; }
.earlier { border-left: 3px solid var(--line); padding-left: 0.9rem; color: var(--soft); }
.earlier p { margin: 0.3rem 0; }
.text, .question { white-space: pre-wrap; overflow-wrap: anywhere; }
.answers { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 0.5rem;
  padding: 0.9rem 1.1rem; }
article p { margin: 0; }
fieldset { border: 0; padding: 0; margin: 1.2rem 0; }
legend { padding: 0; margin-bottom: 0.4rem; }
.choices { display: flex; flex-wrap: wrap; gap: 0.6rem; }
.choices label { border: 1px solid var(--line); border-radius: 0.4rem; background: var(--card);
  padding: 0.45rem 0.9rem 0.45rem 0.7rem; min-height: 2.75rem; cursor: pointer;
  display: flex; align-items: center; gap: 0.5rem; }
.choices label:has(:checked) { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
.choices label:focus-within { outline: 3px solid var(--accent); outline-offset: 2px; }
.choices input { accent-color: var(--accent); width: 1.1rem; height: 1.1rem; margin: 0; }
kbd { font: 0.85em/1 ui-monospace, monospace; border: 1px solid var(--line); border-radius: 0.25rem;
  padding: 0.15rem 0.35rem; }
nav, .finish { display: flex; flex-wrap: wrap; align-items: center; gap: 0.6rem; }
progress { width: 100%; accent-color: var(--accent); }
.note { color: var(--soft); }
.js .item:not(.current) { display: none; }
body:not(.js) .script-only { display: none; }
@media (max-width: 44rem) { .answers { grid-template-columns: 1fr; } }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #333; --card: #fff; --line: #777;
    --accent: #000; }
  .js .item:not(.current), .item { display: block; break-inside: avoid; border-top: 1px solid #777;
    padding-top: 0.6rem; }
  nav, .finish, progress, .script-only { display: none; }
  body { font-size: 10.5pt; }
}
</style>
</head>
<body>
<header>
<h1>@TITLE@</h1>
<p>@ABOUT@</p>
<p class="note script-only">Keys: <kbd>1</kbd> A is better, <kbd>2</kbd> B is better, <kbd>0</kbd> neither;
<kbd>←</kbd> <kbd>→</kbd> go back and on. What you choose is kept in this browser; you can close the page and
go on later.</p>
<noscript><p><strong>Without JavaScript the page can be read and printed, no more.</strong></p></noscript>
</header>
<main>
@SECTIONS@<nav class="script-only" aria-label="Items">
<button type="button" id="back">← Back</button>
<button type="button" id="on">On →</button>
<button type="button" id="open">Next unrated</button>
<span id="told" role="status" class="note"></span>
</nav>
<progress class="script-only" id="bar" max="@COUNT@" value="0" aria-label="Items rated"></progress>
</main>
<footer class="script-only">
<div class="finish">
<label for="rater">Your name or initials</label>
<input type="text" id="rater" autocomplete="off" maxlength="60">
<button type="button" class="main" id="save">Download ratings</button>
<button type="button" id="clear">Start over</button>
</div>
<p id="problem" role="alert"></p>
</footer>
<script>
"use strict";
(() => {
  const page = "@PAGE@", count = @COUNT@, place = "blind-ratings-" + page;
  const $ = (id) => document.getElementById(id);
  let state = { rater: "", at: 0, choices: Array(count).fill(null) };
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    if (kept && Array.isArray(kept.choices) && kept.choices.length === count) state = kept;
  } catch { /* a browser that keeps nothing still rates */ }
  const keep = () => {
    try { localStorage.setItem(place, JSON.stringify(state)); } catch { /* as above */ }
  };
  const rated = () => state.choices.filter((c) => c !== null).length;

  function crc32(text) {
    let crc = ~0;
    for (const byte of new TextEncoder().encode(text)) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
    }
    return ~crc >>> 0;
  }

  function show(focus = true) {
    document.querySelectorAll(".item").forEach((item, k) => item.classList.toggle("current", k === state.at));
    $("back").disabled = state.at === 0;
    $("on").disabled = state.at === count - 1;
    $("open").disabled = rated() === count;
    $("bar").value = rated();
    $("told").textContent = rated() === count ? `All ${count} rated: download your ratings below.`
      : `${rated()} of ${count} rated`;
    if (!focus) return;
    const item = $("item" + (state.at + 1));
    item.focus({ preventScroll: true });
    item.scrollIntoView();
  }
  function go(to) { state.at = Math.max(0, Math.min(count - 1, to)); keep(); show(); }
  function choose(value) { state.choices[state.at] = value; keep(); mark(); show(false); }
  function mark() {
    state.choices.forEach((value, k) => document.getElementsByName("r" + (k + 1)).forEach((input) => {
      input.checked = value !== null && input.value === String(value);
    }));
  }

  document.addEventListener("change", (event) => {
    if (event.target.type === "radio") choose(Number(event.target.value));
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.type === "text" || event.ctrlKey || event.altKey || event.metaKey) return;
    if (["0", "1", "2"].includes(event.key)) {
      event.preventDefault();
      choose(Number(event.key));
      if (state.at < count - 1) go(state.at + 1);
    } else if (event.target.type !== "radio" && event.key === "ArrowRight") go(state.at + 1);
    else if (event.target.type !== "radio" && event.key === "ArrowLeft") go(state.at - 1);
  });
  $("back").onclick = () => go(state.at - 1);
  $("on").onclick = () => go(state.at + 1);
  $("open").onclick = () => {
    const after = [...state.choices.keys()].map((k) => (state.at + 1 + k) % count);
    go(after.find((k) => state.choices[k] === null));
  };
  $("rater").value = state.rater;
  $("rater").oninput = () => { state.rater = $("rater").value; $("problem").textContent = ""; keep(); };
  $("clear").onclick = () => {
    if (!confirm("Forget all ratings on this page?")) return;
    state.choices = Array(count).fill(null);
    mark();
    go(0);
  };
  $("save").onclick = () => {
    const rater = $("rater").value.trim();
    if (!rater) {
      $("problem").textContent = "Please give a name or initials first.";
      $("rater").focus();
      return;
    }
    const choices = state.choices, said = [page, rater, choices.map(String).join(",")].join("\\n");
    const ratings = { kind: "blind A/B ratings", page, rater, choices, checksum: crc32(said) };
    const text = JSON.stringify(ratings, null, 1) + "\\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `ratings-${rater.replace(/[^\\p{L}\\p{N}]+/gu, "-")}-${page.slice(0, 8)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  document.body.classList.add("js");
  mark();
  show(false);
})();
</script>
</body>
</html>
"""
