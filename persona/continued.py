"""Long replies, part by part: what a speech goes on to say when it is asked to go on."""

import hashlib

from persona import metrics
from persona.rows import Row, answer_of, make_row
from persona.sentences import sentences

PART_WORDS = 9
"""A part ends with the first sentence that brings it to so many words."""

GO_ON = (
    "And then?",
    "Pray go on.",
    "And further?",
    "Go on, I beg you.",
    "You have more to say, I think.",
    "That cannot be the whole of it.",
    "I am listening.",
    "Continue, please.",
    "Yes?",
    "I follow you so far.",
    "So far it is clear to me. What next?",
    "Do not stop there.",
    "Pray say the rest.",
    "You were about to add something.",
    "I should like to hear the rest.",
    "Yes? Go on.",
    "Is there more?",
    "Tell me the rest of it.",
    "And beyond that?",
    "I am all attention.",
    "Let me have the remainder.",
    "What else?",
    "You interest me. Proceed.",
    "I see. And the rest?",
    "Tell me more.",
    "Be so good as to go on.",
    "You have not finished.",
    "Let us have it all.",
    "Indeed?",
    "What then?",
    "Yes, I understand. What more?",
    "Proceed, by all means.",
    "That is plain enough. And then?",
    "By all means go on.",
    "I wait for the rest.",
    "Have you anything to add?",
    "There must be something further.",
    "I am with you. Go on.",
    "Let me hear it.",
    "Very good. Continue.",
    "Let me hear you out.",
    "You may speak freely.",
    "I am quite content to listen.",
    "You were saying?",
    "I had not thought of that.",
    "Take me further.",
    "If you would be kind enough to continue.",
    "I do not wish to interrupt. Pray go on.",
    "Quite so. And?",
    "Yes, yes. What more have you?",
    "Do go on.",
    "Then say all of it.",
    "I grant you that much. Continue.",
    "And the remainder?",
    "Out with it all!",
    "Go on, go on.",
    "I hear you. Go on.",
    "I should be glad to hear more.",
    "Pray finish.",
    "Let me have the whole of it.",
    "Surely you do not end there?",
    "Well, go on.",
    "You have my ear.",
    "I will hear all of it, if you please.",
    "Finish what you were saying.",
    "Say on.",
    "That much I grasp. What else?",
    "Complete your thought.",
)
"""What anybody says who wants to hear more."""


def parts_of(reply: str) -> list[str]:
    """A reply in parts of whole sentences, PART_WORDS or more each."""
    parts: list[list[str]] = [[]]
    for sentence in sentences(reply):
        if len(metrics.words(" ".join(parts[-1]))) >= PART_WORDS:
            parts.append([])
        parts[-1].append(sentence)
    if len(parts) > 1 and len(metrics.words(" ".join(parts[-1]))) < PART_WORDS // 2:
        short = parts.pop()
        parts[-1] += short
    return [" ".join(part) for part in parts]


def continued_rows(rows: list[Row]) -> list[Row]:
    """Of dialogue rows whose reply is long: its first part as the reply, and each later part as the reply to
    who asks for more.

    A later part comes with all that was said before it (variant 1), with the last question and all of the
    reply so far, and with the last question and the part before it alone (variant 2). What is asked follows
    from the text, so that it stays the same from run to run.
    """
    found = []
    for row in rows:
        parts = parts_of(answer_of(row))
        if len(parts) < 2:
            continue
        system, *context = row["messages"][:-1]
        kept = {k: v for k, v in row["meta"].items() if k not in ("variant", "strategy")}
        first = {"role": "assistant", "content": parts[0]}
        found += [
            make_row([system, *context[dropped:], first], "dialogue", **kept, variant=1 + dropped // 2)
            for dropped in range(0, len(context), 2)
        ]
        for i, part in enumerate(parts[1:], 1):
            wish = int(hashlib.sha256(part.encode()).hexdigest(), 16) % len(GO_ON)
            ask = {"role": "user", "content": GO_ON[wish]}
            last = {"role": "assistant", "content": part}
            before = {"role": "assistant", "content": " ".join(parts[:i])}
            just_before = {"role": "assistant", "content": parts[i - 1]}
            meta = kept | {"frame": f"go-on-{wish}"}
            ways = {1: [*context, before], 2: [context[-1], before], 3: [context[-1], just_before]}
            found += [
                make_row([system, *way, ask, last], "dialogue", **meta, variant=min(variant, 2))
                for variant, way in ways.items()
            ]
    return found
