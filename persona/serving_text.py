"""Tokens to text as they come: whole characters only, and nothing of a stop string.

What may be the beginning of a stop string is held back until it is known to be none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from persona.serving_sampling import TokenScore

UNFINISHED = "\ufffd"
MOST_UNFINISHED = 8
"""Tokens without a whole character after which the text is given out as it is."""


@dataclass
class AnswerText:
    """The text of one answer, token by token."""

    decode: Callable[[list[int]], str]
    stops: tuple[str, ...] = ()
    stopped: bool = False
    """Whether a stop string has come up; nothing comes after."""
    _ids: list[int] = field(default_factory=list)
    _before: int = 0
    _read: int = 0
    _held: str = ""
    _given: int = 0
    """Characters given out so far."""
    _scores: list[tuple[int, TokenScore]] = field(default_factory=list)
    """Scores that wait, each with the number of characters that end with its token."""

    @property
    def ids(self) -> list[int]:
        """Its tokens so far."""
        return self._ids

    def push(self, token: int, score: TokenScore | None = None) -> tuple[str, list[TokenScore]]:
        """Take a token; returns the characters that are now certain, and the scores of their tokens."""
        self._ids.append(token)
        self._held += self._new_characters()
        if score is not None:
            self._scores.append((self._given + len(self._held), score))
        return self._give(final=False)

    def finish(self) -> tuple[str, list[TokenScore]]:
        """What was held back, where no more tokens come."""
        if not self.stopped:
            self._held += self._new_characters(final=True)
        return self._give(final=True)

    def _new_characters(self, final: bool = False) -> str:
        before = self.decode(self._ids[self._before : self._read])
        after = self.decode(self._ids[self._before :])
        unfinished = after.endswith(UNFINISHED) and len(self._ids) - self._read < MOST_UNFINISHED
        if len(after) <= len(before) or (unfinished and not final):
            return ""
        self._before, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def _give(self, final: bool) -> tuple[str, list[TokenScore]]:
        found = [at for at in (self._held.find(stop) for stop in self.stops) if at >= 0]
        if found:
            self.stopped = True
            self._held = self._held[: min(found)]
            self._scores = [s for s in self._scores if s[0] <= self._given + len(self._held)]
        hold = 0 if final or self.stopped else self._possible_stop()
        text = self._held[: len(self._held) - hold]
        self._held = self._held[len(text) :]
        self._given += len(text)
        ready = [score for end, score in self._scores if end <= self._given]
        self._scores = [s for s in self._scores if s[0] > self._given]
        return text, ready

    def _possible_stop(self) -> int:
        """Length of the longest end of what is held that a stop string begins with."""
        return max(
            (
                n
                for stop in self.stops
                for n in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:n])
            ),
            default=0,
        )
