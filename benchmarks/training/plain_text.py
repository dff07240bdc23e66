"""The reference system's way to write a conversation: names and colons, no chat template."""

from pathlib import Path

from persona.rows import Message, read_rows


def as_plain_text(messages: list[Message], speaker: str) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as `Human: ...` and `<speaker>: ...`, and the characters of the answers' words.

    The system turn is left out, as it is there.
    """
    text, spans = "", []
    for message in messages:
        if message["role"] == "system":
            continue
        text += "\n\n" if text else ""
        text += "Human: " if message["role"] == "user" else f"{speaker}: "
        begin = len(text)
        text += message["content"]
        if message["role"] == "assistant":
            spans.append((begin, len(text)))
    return text, spans


def texts_of(path: Path, speaker: str) -> list[str]:
    """All rows of a file as plain text."""
    return [as_plain_text(row["messages"], speaker)[0] for row in read_rows(path)]
