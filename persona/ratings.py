"""People as judges: a page for blind A/B rating out, their ratings back in.

The page shows two systems' answers side by side, shuffled. Which side is which stands in a key file alone,
that stays with the run. What comes back is preference, agreement between raters, and how far each metric of
the answers orders the items as the raters do.
"""

import json
import math
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from persona import agreement, runlog, scoring
from persona.answered import Answered
from persona.errors import UserError
from persona.judge import FACETS
from persona.metrics import Metric
from persona.rating_page import Shown, page_id, render

FEW_RATINGS = 50
PAIR = ("tuned", "base")
KIND = "blind A/B ratings"
TITLE = "Which answer is better in the part of {name}?"
ABOUT = (
    "Each item shows two answers given in the part of {name}. Choose the one that is better: that sounds "
    "more like {name}, says nothing that {name} could not know, stays in the part, and makes sense as an "
    "answer. Choose neither only where you truly cannot decide."
)


def export_blind(
    items: Sequence[Answered], name: str, page: Path, keys: Path, seed: int, pair: tuple[str, str] = PAIR
) -> dict:
    """Write the page, and its key into the folder `keys`; the key.

    Items with the same answer twice are left out and counted. Each system stands on the left in half of the
    items; the seed says in which.

    Raises:
        UserError: an answer of one of the two systems is missing, or all are the same.
    """
    if lacking := [s for s in pair if s not in items[0].answers]:
        raise UserError(
            f"no answers of {lacking[0]} to rate: the predictions are of {', '.join(items[0].answers)}"
        )
    rated = [one for one in items if one.answers[pair[0]].strip() != one.answers[pair[1]].strip()]
    if not rated:
        raise UserError(f"{pair[0]} and {pair[1]} answer the same to every item: there is nothing to rate")
    draw = random.Random(f"{seed}-blind")
    rated = draw.sample(rated, len(rated))
    left = draw.sample([pair[k % 2] for k in range(len(rated))], len(rated))
    shown = [_shown(one, side, pair, name) for one, side in zip(rated, left, strict=True)]
    title = TITLE.format(name=name)
    key = {
        "page": page_id(title, shown),
        "systems": list(pair),
        "same_answers": len(items) - len(rated),
        "items": [{"id": one.item.id, "a": side} for one, side in zip(rated, left, strict=True)],
    }
    runlog.write_json(key_path(keys, key["page"]), key | {"sha256": _seal(key)})
    runlog.write_text(page, render(title, ABOUT.format(name=name), shown))
    return key


def _shown(one: Answered, left: str, pair: Sequence[str], name: str) -> Shown:
    right = pair[1] if left == pair[0] else pair[0]
    said = tuple((name if m["role"] == "assistant" else "Other", m["content"]) for m in one.earlier)
    return Shown(said, one.question, one.answers[left], one.answers[right])


def key_path(keys: Path, page: str) -> Path:
    """Where the key of a page lies."""
    return keys / f"{page[:16]}.key.json"


def _seal(key: Mapping) -> str:
    return runlog.sha256_of(json.dumps({k: v for k, v in key.items() if k != "sha256"}, sort_keys=True))


def checksum(page: str, rater: str, choices: Sequence[int | None]) -> int:
    """CRC-32 of the ratings, as the page computes it: it tells an edit, not a forgery."""
    said = ",".join("null" if c is None else str(c) for c in choices)
    return zlib.crc32(f"{page}\n{rater}\n{said}".encode())


def _read_ratings(path: Path) -> dict:
    """One rater's file.

    Raises:
        UserError: it is not what the page made.
    """
    raw = runlog.read_json(path, "the ratings file")
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise UserError(f"{path}: no ratings as the page downloads them")
    page, rater, choices = raw.get("page"), raw.get("rater"), raw.get("choices")
    proper = isinstance(rater, str) and isinstance(choices, list)
    proper = proper and isinstance(page, str) and re.fullmatch("[0-9a-f]{64}", page)
    if not proper or any(c not in (None, 0, 1, 2) for c in choices):
        raise UserError(f"{path}: no ratings as the page downloads them (a choice is 1, 2, 0 or null)")
    if raw.get("checksum") != checksum(page, rater, choices):
        raise UserError(
            f"{path}: edited after it was downloaded; ask {rater or 'the rater'} for the file again"
        )
    return raw


def _read_key(keys: Path, page: str, path: Path) -> dict:
    """The key that `path`'s page belongs to."""
    place = key_path(keys, page)
    if not place.is_file():
        raise UserError(f"{path}: of a page that this run did not export (no {place})")
    key = runlog.read_json(place, "the key")
    if not isinstance(key, dict) or key.get("page") != page or key.get("sha256") != _seal(key):
        raise UserError(f"{place}: edited since the page was exported; the ratings cannot be read with it")
    return key


def import_ratings(files: Sequence[Path], keys: Path) -> tuple[dict, list[dict[str, float]]]:
    """The key, and for each of its items every rater's choice: 1 for the first system, 0.5 for neither, 0.

    Raises:
        UserError: a file of another page, an edited one, or one rater twice.
    """
    found: dict[str, dict] = {}
    for path in files:
        raw = _read_ratings(path)
        key = _read_key(keys, raw["page"], path)
        if len(raw["choices"]) != len(key["items"]):
            raise UserError(
                f"{path}: {len(raw['choices'])} ratings, but the page has {len(key['items'])} items"
            )
        if found and raw["page"] != next(iter(found.values()))["page"]:
            raise UserError(
                f"{path}: of another page than {files[0]}; import the ratings of one page at a time"
            )
        if raw["rater"] in found:
            raise UserError(
                f"{path}: {raw['rater']} has rated already in another of the files; give one of them"
            )
        found[raw["rater"]] = raw
    first = key["systems"][0]
    votes: list[dict[str, float]] = [{} for _ in key["items"]]
    for rater, raw in found.items():
        for k, (choice, item) in enumerate(zip(raw["choices"], key["items"], strict=True)):
            if choice is not None:
                chose_first = (choice == 1) == (item["a"] == first)
                votes[k][rater] = 0.5 if choice == 0 else float(chose_first)
    if not any(votes):
        raise UserError("nothing is rated in these files")
    return key, votes


def items_of(key: Mapping, items: Sequence[Answered], name: str) -> list[Answered]:
    """The key's items, in its order.

    Raises:
        UserError: the run does not give the answers any more that the page shows.
    """
    found = {one.item.id: one for one in items}
    rated = [(found.get(item["id"]), item["a"]) for item in key["items"]]
    shown = [_shown(one, side, key["systems"], name) for one, side in rated if one]
    if len(shown) < len(rated) or page_id(TITLE.format(name=name), shown) != key["page"]:
        raise UserError(
            "the run was evaluated again after the page was exported, and answers otherwise: export a new "
            "page, these ratings are of answers that are gone"
        )
    return [one for one, _ in rated if one]


def report(
    key: dict, votes: Sequence[Mapping[str, float]], metrics: Mapping[str, Mapping[str, Metric]]
) -> dict:
    """Preference, agreement, and each metric's correlation with the raters.

    `metrics`: {system: {name: Metric}} over the key's items, in order. The preference is the mean over all
    ratings, neither half, resampled by item; "left": share of decided ratings that chose the left side.
    """
    pair, ids = key["systems"], [item["id"] for item in key["items"]]
    share = Metric("higher", [sum(v.values()) for v in votes], [float(len(v)) for v in votes])
    units = [list(v.values()) for v in votes]
    given = [v for u in units for v in u]
    decided = [
        (value == 1) == (item["a"] == pair[0])
        for v, item in zip(votes, key["items"], strict=True)
        for value in v.values()
        if value != 0.5
    ]
    found = {
        "page": key["page"],
        "systems": pair,
        "n": len(ids),
        "same_answers": key["same_answers"],
        "raters": {r: sum(r in v for v in votes) for r in sorted({r for v in votes for r in v})},
        "preference": {
            **scoring.compare({pair[0]: {"share": share}}, ids)["share"]["values"][pair[0]],
            **{"wins": given.count(1.0), "ties": given.count(0.5), "losses": given.count(0.0)},
        },
        "left": sum(decided) / len(decided) if decided else None,
        "agreement": {
            "krippendorff_alpha": agreement.krippendorff_alpha(units),
            "same_share": agreement.same_share(units),
            "n": sum(len(u) > 1 for u in units),
        },
        "correlations": _correlations(pair, votes, metrics),
        "items": [{"id": i, "votes": dict(v)} for i, v in zip(ids, votes, strict=True)],
    }
    return found | {"warnings": _warnings(found)}


def _correlations(
    pair: Sequence[str], votes: Sequence[Mapping[str, float]], metrics: Mapping[str, Mapping[str, Metric]]
) -> dict[str, dict]:
    """Spearman's correlation of the items' mean vote with each metric's difference, better upwards."""
    found = {}
    for name, metric in metrics[pair[0]].items():
        sides = [_goodness(metric), _goodness(metrics[pair[1]][name])]
        rows = [
            (sum(v.values()) / len(v), a - b)
            for v, a, b in zip(votes, *sides, strict=True)
            if v and not math.isnan(a - b)
        ]
        found[name] = agreement.rank_correlation([r for r, _ in rows], [d for _, d in rows])
    return found


def _goodness(metric: Metric) -> list[float]:
    """The metric item by item, turned so that more is better; nan where it says nothing."""
    values = [
        float(metric.transform(n / d)) if d else math.nan
        for n, d in zip(metric.numerators, metric.denominators, strict=True)
    ]
    if metric.better == "target":
        return [-abs(v - metric.target) for v in values]
    return values if metric.better == "higher" else [-v for v in values]


def judge_metrics(judged: Sequence[Mapping], ids: Sequence[str], system: str) -> dict[str, Metric]:
    """A judge's scores of a system, from the items of judge_report.json; unjudged items say nothing."""
    scores = {one["id"]: one["scores"].get(system, {}) for one in judged}
    of = [scores.get(i, {}) for i in ids]
    return {
        f"judge_{facet}": Metric(
            "higher", [float(s.get(facet, 0)) for s in of], [float(facet in s) for s in of]
        )
        for facet in FACETS
    }


def _warnings(found: dict) -> list[str]:
    """What a reader should know before believing the ratings."""
    lines = []
    alpha, given = found["agreement"]["krippendorff_alpha"], sum(found["raters"].values())
    if given < FEW_RATINGS:
        lines.append(f"Only {given} ratings: small preferences cannot show.")
    if len(found["raters"]) < 2:
        lines.append("One rater: how far people agree is not known.")
    elif alpha is not None and alpha < 0.4:
        lines.append(f"The raters hardly agree (Krippendorff's alpha {alpha:.2f}).")
    return lines


def table(found: dict) -> str:
    """What is printed."""
    value, ci = found["preference"]["value"], found["preference"]["ci95"]
    alpha, same = found["agreement"]["krippendorff_alpha"], found["agreement"]["same_share"]
    lines = [
        f"{sum(found['raters'].values())} ratings of {found['n']} items by {len(found['raters'])} raters",
        f"preference {'-'.join(found['systems'])}: {value:.3g}"
        + (f", 95% interval [{ci[0]:.3g}, {ci[1]:.3g}]" if ci else "")
        + f" ({found['preference']['wins']} better, {found['preference']['ties']} neither, "
        f"{found['preference']['losses']} worse)",
        f"agreement: Krippendorff's alpha {'none' if alpha is None else format(alpha, '.3f')}, "
        f"same choice {'none' if same is None else format(same, '.0%')}",
        "",
        f"{'rank correlation with the raters':<36}{'rho':>8}{'95% interval':>20}{'items':>8}",
    ]
    for name, r in sorted(found["correlations"].items(), key=lambda i: -(i[1]["rho"] or -2)):
        if r["rho"] is not None:
            lines.append(
                f"{name:<36}{r['rho']:>8.2f}{'[{:+.2f}, {:+.2f}]'.format(*r['ci95']):>20}{r['n']:>8}"
            )
    return "\n".join([*lines, *(f"weak: {line}" for line in found["warnings"])])
