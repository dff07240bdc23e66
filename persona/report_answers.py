"""Items with all systems' answers side by side, as HTML; report_page.js searches and filters them."""

from html import escape

from persona.metric_names import label_of


def chosen_articles(rows: list[dict], systems: list[str], limit: int, room: int) -> dict[int, str]:
    """At most `limit` items in `room` bytes as HTML, by place; taken from each kind in turn."""
    kinds: dict[str, list[int]] = {}
    for k, row in enumerate(rows):
        kinds.setdefault(str(row.get("kind")), []).append(k)
    turns = sorted((turn, k) for of in kinds.values() for turn, k in enumerate(of))
    articles, size = {}, 0
    for _, k in turns[:limit]:
        html = article(rows[k], systems)
        if (size := size + len(html.encode())) > room:
            break
        articles[k] = html
    return dict(sorted(articles.items()))


def section(rows: list[dict], systems: list[str], limit: int, room: int) -> str:
    """The section with its search, its filters, and the items that fit."""
    articles = chosen_articles(rows, systems, limit, room)
    head = '<section id="answers" aria-labelledby="answers-title">\n'
    head += '<h2 id="answers-title">Answers side by side</h2>\n'
    head += f"<p>{len(articles)} of {len(rows)} items.</p>\n{filters([rows[k] for k in articles])}"
    return head + f'<div id="items">\n{"".join(articles.values())}</div>\n{MORE}</section>\n'


MORE = '<p><button type="button" id="more" hidden>Show more</button></p>\n'


def filters(rows: list[dict]) -> str:
    """Search field and menus; hidden until the script is there to serve them."""
    kinds = dict.fromkeys(str(row.get("kind")) for row in rows)
    options = "".join(f'<option value="{escape(kind)}">{escape(kind)}</option>' for kind in kinds)
    verdicts = dict.fromkeys(name for row in rows for name in row.get("verdicts") or {})
    parted = "".join(
        f'<option value="{escape(name)}">{escape(label_of(name))}: systems differ</option>'
        for name in verdicts
    )
    html = '<form id="filters" role="search" hidden>\n'
    html += '<label>Search <input type="search" id="query" autocomplete="off"></label>\n'
    html += f'<label>Kind <select id="kind"><option value="">all</option>{options}</select></label>\n'
    if parted:
        html += (
            f'<label>Verdicts <select id="parted"><option value="">all</option>{parted}</select></label>\n'
        )
    return html + '<output id="found" for="query kind" aria-live="polite"></output>\n</form>\n'


def article(row: dict, systems: list[str]) -> str:
    """One item: the question, then the reference and every system's answer side by side."""
    title = " · ".join(str(row[key]) for key in ("kind", "id", "story") if row.get(key))
    verdicts = row.get("verdicts") or {}
    parted = " ".join(name for name, by in verdicts.items() if len(set(by.values())) > 1)
    html = f'<article data-kind="{escape(str(row.get("kind")))}" data-parted="{escape(parted)}">'
    html += f"<h3>{escape(title)}</h3>\n{question(row)}"
    html += '<div class="answers">\n'
    texts = {"reference": row.get("reference"), **dict.fromkeys(systems), **row["answers"]}
    for system, text in texts.items():
        if text is not None:
            said = (row.get("said") or {}).get(system)
            told = {name: by[system] for name, by in verdicts.items() if system in by}
            html += answer(system, said if said and len(said) > 1 else [str(text)], told)
    return html + "</div></article>\n"


def question(row: dict) -> str:
    """What was asked: one turn, or the user's turns of a conversation."""
    turns = row.get("turns") or []
    if len(turns) > 1:
        listed = "".join(f"<li>{escape(str(turn))}</li>" for turn in turns)
        html = f"<p><strong>Asked, turn by turn:</strong></p><ol>{listed}</ol>\n"
    else:
        html = f'<p class="text"><strong>Question:</strong> {escape(str(row.get("prompt") or "–"))}</p>\n'
    if row.get("opening"):
        html += f'<p class="text"><strong>Put into its mouth:</strong> {escape(str(row["opening"]))}</p>\n'
    return html


def answer(system: str, texts: list, verdicts: dict[str, bool]) -> str:
    """One system's answer, or its answers turn by turn, with the verdicts on it."""
    shown = [escape(str(text)) if str(text).strip() else "<em>(empty)</em>" for text in texts]
    html = f"<section><h4>{escape(system)}</h4>"
    if len(shown) > 1:
        html += f'<ol class="text">{"".join(f"<li>{text}</li>" for text in shown)}</ol>'
    else:
        html += f'<p class="text">{shown[0]}</p>'
    if verdicts:
        told = "; ".join(f"{label_of(name)}: {'yes' if yes else 'no'}" for name, yes in verdicts.items())
        html += f'<p class="verdicts">{escape(told)}</p>'
    return html + "</section>\n"
