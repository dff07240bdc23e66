"""Repeats and near-duplicates out of a data set, within a split and across splits.

Rows come in order of preference: of rows that exclude each other the first one stays.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from persona import metrics
from persona.rows import Row, answer_of

NEAR = 0.7
"""Jaccard on word 3-shingles from which two texts are near-duplicates. The contract says 0.8: an estimate of
it by MinHash, with its error, finds none left."""
ROWS_AN_ANSWER = 3
EDGE_WORDS = 5
EDGE_SHARE = 0.004
"""Most rows, as a share, whose answers begin, or end, with the same five words; at least EDGE_ROWS."""
EDGE_ROWS = 5
FRAME_SHARE = 0.016
"""Most rows of a strategy, as a share, that ask by the same question frame; at least EDGE_ROWS."""


def shingles(text: str) -> frozenset[str]:
    """Runs of three words; a shorter text is one shingle."""
    w = metrics.words(text)
    return frozenset(" ".join(w[i : i + 3]) for i in range(max(1, len(w) - 2)))


def answer_grams(rows: list[Row], n: int = 8) -> set[tuple[str, ...]]:
    """Word n-grams of every assistant turn: what a held-out text is looked up in for leaks."""
    return {
        g
        for row in rows
        for m in row["messages"]
        if m["role"] == "assistant"
        for g in metrics.ngrams(m["content"], n)
    }


class Texts:
    """Texts that are searched for near-duplicates: MinHash finds candidates, exact Jaccard decides."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._index = MinHashLSH(threshold=NEAR - 0.2, num_perm=64)
        self._shingles: dict[str, frozenset[str]] = {}

    def near(self, text: str) -> Iterator[str]:
        """The texts that are near-duplicates of this one, itself among them."""
        own = shingles(text)
        for other in self._index.query(self._sketch(own)):
            of = self._shingles[other]
            if len(own & of) >= NEAR * len(own | of):
                yield other

    def add(self, text: str) -> None:
        if text not in self._shingles:
            self._shingles[text] = shingles(text)
            self._index.insert(text, self._sketch(self._shingles[text]))

    @staticmethod
    def _sketch(of: frozenset[str]):
        from datasketch import MinHash

        sketch = MinHash(num_perm=64, seed=1)
        sketch.update_batch([s.encode() for s in sorted(of)])
        return sketch


def texts_of(row: Row) -> dict[str, str]:
    """What is compared: the answer, and all turns before it but the system's."""
    texts = {"answer": answer_of(row)}
    if row["meta"]["strategy"] != "chunk":  # all chunks answer the same two requests
        texts["instruction"] = " ".join(m["content"] for m in row["messages"][:-1] if m["role"] != "system")
    return texts


def remove_near_duplicates(rows: dict[str, list[Row]]) -> Counter:
    """Take out repeats and near-duplicates; works in place, returns how many went and why.

    Across splits: rows whose instruction or answer is near one held out go, out of train, and out of
    validation against test. Within a split: rows that repeat another word for word, rows of an answer that
    is near another one without being the same, and the fourth row of an answer.
    """
    removed: Counter = Counter()
    held = {"instruction": Texts(), "answer": Texts()}
    for split in ("test", "validation", "train"):
        kept, seen, uses, answers = [], set(), Counter(), Texts()
        near_held: dict[tuple[str, str], bool] = {}
        for row in rows[split]:
            texts = texts_of(row)
            for key in texts.items():
                if key not in near_held:
                    near_held[key] = next(held[key[0]].near(key[1]), None) is not None
            answer = texts["answer"]
            if row["id"] in seen:
                reason = "repeated"
            elif any(near_held[key] for key in texts.items()):
                reason = "near a held-out row"
            elif uses[answer] == ROWS_AN_ANSWER:
                reason = f"answer in {ROWS_AN_ANSWER} rows already"
            elif not uses[answer] and next(answers.near(answer), None) is not None:
                reason = "near another answer"
            else:
                seen.add(row["id"])
                uses[answer] += 1
                answers.add(answer)
                kept.append(row)
                continue
            removed[f"{split}: {reason}"] += 1
        rows[split] = kept
        if split != "train":
            for row in kept:
                for kind, text in texts_of(row).items():
                    held[kind].add(text)
    return removed


def opening(row: Row) -> tuple[str, ...] | None:
    """The first five words of the answer; None for shorter ones."""
    w = metrics.words(answer_of(row))
    return tuple(w[:EDGE_WORDS]) if len(w) >= EDGE_WORDS else None


def closing(row: Row) -> tuple[str, ...] | None:
    """The last five words of the answer; None for shorter ones."""
    w = metrics.words(answer_of(row))
    return tuple(w[-EDGE_WORDS:]) if len(w) >= EDGE_WORDS else None


def frame(row: Row) -> str | None:
    """The strategy and question frame; None for rows whose question no rule made."""
    name = row["meta"].get("frame")
    return f"{row['meta']['strategy']}/{name}" if name and name != "asked" else None


def frame_strategy(of: str) -> str:
    """The strategy of a frame as `frame` names it."""
    return of.split("/")[0]


def remove_stock_phrases(rows: list[Row]) -> tuple[list[Row], Counter]:
    """The rows without those that begin, end or ask in the same way too often; how many went and why."""
    removed: Counter = Counter()
    while True:
        asking = Counter(frame_strategy(f) for r in rows if (f := frame(r)))
        used: Counter = Counter()
        kept = []
        for row in rows:
            keys = [(kind, value) for kind, of in STOCK.items() if (value := of(row)) is not None]
            over = next((k for k in keys if used[k] >= _most(k, asking, len(rows))), None)
            if over:
                removed[f"stock {over[0]}"] += 1
            else:
                used.update(keys)
                kept.append(row)
        if len(kept) == len(rows):
            return rows, removed
        rows = kept  # fewer rows, lower limits: again


def _most(key: tuple[str, tuple | str], asking: Counter, rows: int) -> float:
    kind, value = key
    share = FRAME_SHARE * asking[frame_strategy(value)] if kind == "frame" else EDGE_SHARE * rows
    return max(EDGE_ROWS, share)


STOCK: dict[str, Callable[[Row], tuple | str | None]] = {
    "opening": opening,
    "closing": closing,
    "frame": frame,
}


NARRATION_LEFT = re.compile(
    r"[,?!.]['\"”’]?\s+(?:said|cried|asked|answered|remarked|replied|exclaimed)\s+(?:he|she|I|Mr|Mrs|[A-Z]\w+)\b"
)


def figures_of(rows: list[Row]) -> dict:
    """What a reader asks of a data set: repeats, stock phrases, narration left in answers (chunks apart)."""
    n = max(1, len(rows))
    answers = Counter(answer_of(r) for r in rows)

    def top(of: Callable[[Row], tuple | str | None]) -> float:
        return max(Counter(v for r in rows if (v := of(r)) is not None).values(), default=0) / n

    frames = Counter(f for r in rows if (f := frame(r)))
    asking = Counter(frame_strategy(f) for f in frames.elements())
    others = [r for r in rows if r["meta"]["strategy"] != "chunk"]
    narrated = sum(bool(NARRATION_LEFT.search(answer_of(r))) for r in others)
    return {
        "rows": len(rows),
        "distinct_answers": len(answers),
        "most_rows_an_answer": max(answers.values(), default=0),
        "commonest_opening": top(opening),
        "commonest_closing": top(closing),
        "commonest_frame": max((c / asking[f.split("/")[0]] for f, c in frames.items()), default=0.0),
        "narration_left": narrated / max(1, len(others)),
    }
