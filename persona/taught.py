"""Rows that a teacher makes from passages of the stories: accounts (narrative) and questions (qa).

An account is a passage as the persona would tell it, in the first person; questions are asked of the persona
and answered in the persona's voice. Both may hold only what the passage holds: every answer is checked, and
those that fail are counted by reason.
"""

import re
from collections import Counter
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from persona import metrics
from persona.card import Card
from persona.corpus import Story
from persona.errors import UserError
from persona.grounding import grounded_share, problem_of_answer
from persona.jobs import Asker, Job
from persona.passages import FIRST_PERSON, QUOTED, Passage, passages, tells_of_persona
from persona.rows import Row, make_row
from persona.vocabulary import TITLES

MIN_ACCOUNT_WORDS = 12
MAX_ACCOUNT_SHARE = 1.25
"""An account that has more words than this share of the passage's adds something."""
MIN_GROUNDED = 0.75
"""Least share of an account's content words that stand in the passage; an answer to a question may add its
own turn of phrase (grounding.GROUNDED), an account only other forms of words (rose, rise)."""
MAX_QUESTION_WORDS = 40

_OF_THE_TEXT = re.compile(r"\b(?:passages?|excerpts?|narrators?|authors?|(?:the|this) text)\b", re.I)
_REFLEXIVE = {"he": "himself", "she": "herself"}
_NAME_OR_NUMBER = re.compile(r"(?:(?<=[a-z,;] )|(?<=Mr\. )|(?<=Mrs\. )|(?<=Dr\. ))[A-Z]\w+|\b\d[\d,.]*\b")


class Account(BaseModel):
    """A passage in the first person, and the question that it answers."""

    model_config = ConfigDict(extra="forbid")
    question: str
    account: str


class Pair(BaseModel):
    """A question and its answer."""

    model_config = ConfigDict(extra="forbid")
    question: str
    answer: str


class Pairs(BaseModel):
    """All questions of a passage."""

    model_config = ConfigDict(extra="forbid")
    pairs: list[Pair]


def _teller(passage: Passage, card: Card) -> str:
    """Who "I" is in the passage, in words for the teacher."""
    if card.narrator is None:
        return f"The passage is told by nobody in the story; {card.display_name} is spoken of by name."
    if passage.told_by_other:
        return f'"I" in the narration of this passage is not {card.narrator.name} but somebody else.'
    if card.narrator_is_persona:
        return f'"I" in the narration of this passage is {card.display_name}.'
    return f'"I" in the narration of this passage is {card.narrator.name}, not {card.display_name}.'


def rewrite_job(passage: Passage, card: Card) -> Job:
    """Strategy B: the passage as the persona's own account."""
    name, me = card.display_name, _REFLEXIVE.get(card.pronoun, "themselves")
    narrator = card.narrator
    others = (
        f"{narrator.name} becomes a person whom {name} speaks of by name. "
        if narrator and not card.narrator_is_persona
        else ""
    )
    rules = (
        f"You turn passages of a story into the words of {name}, who tells of {me}. Whatever the passage "
        f'says of {name} becomes "I", "me", "my". {others}Keep to what the passage holds: add no fact, no '
        "name, no feeling and no conclusion, and leave out what cannot be told in the first person, such as "
        f"praise of {name} by others. Keep the words of the passage where you can, and the manner of its "
        f'time. No "said {name}" may be left. Then write the question of a visitor, in the second person, to '
        "which the account is a good answer; it does not mention a passage or a text.\n"
        'Answer with one JSON object: {"question": "...", "account": "..."}. Where the passage holds nothing '
        f'that {name} could tell of {me}, both are empty: {{"question": "", "account": ""}}.'
    )
    return _job("account", rules, passage, card, Account, 600, "narrative")


def questions_job(passage: Passage, card: Card) -> Job:
    """Strategy C: questions that the passage answers, with the persona's answers."""
    name = card.display_name
    rules = (
        f"You write questions that a visitor puts to {name}, and the answers of {name} in the first person "
        f"and in the voice of {name}. One to three pairs, fewer where the passage holds little. A question "
        "names what it asks about, so that somebody who has not read the passage understands it, and is in "
        "the second person; no two questions begin alike. An answer is one to five sentences, says only what "
        "the passage holds, in the manner of its time, and begins with the matter itself. Neither mentions a "
        f"passage, a text or a story, and {name} is never spoken of in the third person.\n"
        'Answer with one JSON object: {"pairs": [{"question": "...", "answer": "..."}]}. Where the passage '
        'answers no sensible question, it is {"pairs": []}.'
    )
    return _job("questions", rules, passage, card, Pairs, 800, "qa")


def _job(
    name: str,
    rules: str,
    passage: Passage,
    card: Card,
    answer: type[BaseModel],
    max_tokens: int,
    strategy: str,
) -> Job:
    asked = f"{_teller(passage, card)}\n\nThe passage, from {passage.story.title}:\n\n{passage.text}"
    messages = ({"role": "system", "content": rules}, {"role": "user", "content": asked})
    return Job(name, messages, answer, max_tokens, tag=(strategy, passage))


def names_persona(text: str, card: Card) -> bool:
    """Whether narration (what is outside quotes) names the persona; a namesake on the card does not count."""
    text = QUOTED.sub(" ", text)
    for other in sorted((n for p in card.people for n in (p.name, *p.aliases)), key=len, reverse=True):
        text = re.sub(rf"\b{re.escape(other)}\b", " ", text)
    names = sorted({card.persona.name, *card.persona.aliases}, key=len, reverse=True)
    return bool(re.search(r"\b(?:" + "|".join(map(re.escape, names)) + r")\b", text))


def problem_of_question(question: str, passage: str, card: Card) -> str | None:
    """Why a question will not do; None where it will. The persona may be addressed, not spoken of."""
    if not question.strip().endswith("?"):
        return "no question"
    if len(metrics.words(question)) > MAX_QUESTION_WORDS:
        return "question too long"
    if _speaks_of_text(question, passage):
        return "question speaks of the text"
    vocatives = "|".join(re.escape(v) for v in sorted(card.vocatives, key=len, reverse=True))
    spoken_of = re.sub(rf"(?:^|(?<=[,;])) ?(?:my dear )?(?:{vocatives})(?=[,;?!])", "", question.strip())
    return (
        "question speaks of the persona"
        if names_persona(spoken_of if vocatives else question, card)
        else None
    )


def _speaks_of_text(text: str, passage: str) -> bool:
    """Whether the passage itself is spoken of; a house in it may have passages of its own."""
    known = passage.lower()
    return any(m[0].lower().removesuffix("s") not in known for m in _OF_THE_TEXT.finditer(text))


def problem_of_account(account: str, passage: str, card: Card) -> str | None:
    """Why an account will not do; None where it will."""
    if not account.strip():
        return "nothing to tell"
    length = len(metrics.words(account))
    if length < MIN_ACCOUNT_WORDS:
        return "too short"
    if length > MAX_ACCOUNT_SHARE * len(metrics.words(passage)):
        return "longer than the passage"
    if _speaks_of_text(account, passage):
        return "speaks of the text"
    if names_persona(account, card):
        return "third person left"
    if not FIRST_PERSON.search(QUOTED.sub(" ", account)):
        return "no first person"
    if _new_names(account, passage, card):
        return "names that the passage lacks"
    if grounded_share(account, passage, card) < MIN_GROUNDED:
        return "not grounded"
    return None


def _new_names(text: str, passage: str, card: Card) -> set[str]:
    """Words that neither the passage nor persona and narrator bring in: capitalised words inside sentences,
    numbers, and people of the card anywhere."""
    known = set(metrics.words(passage)) | set(TITLES)
    for person in (card.persona, *((card.narrator,) if card.narrator else ())):
        known |= {w for n in (person.name, *person.aliases) for w in metrics.words(n)}
    inside = _NAME_OR_NUMBER.findall(text)
    others = {n for p in card.people for n in (p.name, *p.aliases)}
    inside += [n for n in others if re.search(rf"\b{re.escape(n)}\b", text)]
    return {w for found in inside for w in metrics.words(found) if w.removesuffix("'s") not in known}


def _spread(found: list[Passage], most: int | None) -> list[Passage]:
    """At most so many, evenly over the story."""
    if most is None or len(found) <= most:
        return found
    return [found[i * len(found) // most] for i in range(most)]


def taught_rows(
    stories: list[Story],
    card: Card,
    teacher: Asker,
    strategies: tuple[str, ...],
    passages_per_story: int | None,
) -> tuple[list[Row], Counter]:
    """Rows of a teacher's making, in the order of the stories: "narrative" and "qa" out of `strategies`.

    Returns:
        The rows, and how many answers were rejected ("qa: <reason>") and how many jobs have no answer
        ("teacher: failed: <reason>", "teacher: left: budget").
    """
    if passages_per_story is not None and passages_per_story < 1:
        raise UserError(f"--passages-per-story {passages_per_story}: at least one is needed")
    jobs = []
    for story in stories:
        found = passages(story, card)
        if "narrative" in strategies:
            told = _spread([p for p in found if tells_of_persona(p, card)], passages_per_story)
            jobs += [rewrite_job(p, card) for p in told]
        if "qa" in strategies:
            jobs += [questions_job(p, card) for p in _spread(found, passages_per_story)]
    counts: Counter[str] = Counter()
    rows: dict[str, Row] = {}
    before = teacher.counts.copy()
    for job, answer in teacher.ask(jobs):
        if answer is None:
            continue
        strategy, passage = job.tag
        pairs = (
            [(answer.question, answer.account)]
            if isinstance(answer, Account)
            else [(pair.question, pair.answer) for pair in answer.pairs]
        )
        if not pairs:
            counts[f"{strategy}: nothing to ask"] += 1
        for question, text in pairs:
            question, text = " ".join(question.split()), " ".join(text.split())
            problem = _PROBLEMS[strategy](question, text, passage.text, card)
            row = _row(question, text, strategy, passage, card, teacher.id) if problem is None else None
            if row and row["id"] in rows:
                problem = "repeated"
            if problem:
                counts[f"{strategy}: {problem}"] += 1
            else:
                rows[row["id"]] = row
    for what, n in (teacher.counts - before).items():
        if what.startswith(("failed", "left")):
            counts[f"teacher: {what}"] += n
    return list(rows.values()), counts


def _account_problem(question: str, account: str, passage: str, card: Card) -> str | None:
    return (
        problem_of_account(account, passage, card)
        or problem_of_question(question, passage, card)
        or problem_of_answer(question, account, passage, card)
    )


def _pair_problem(question: str, answer: str, passage: str, card: Card) -> str | None:
    return problem_of_question(question, passage, card) or problem_of_answer(question, answer, passage, card)


_PROBLEMS: dict[str, Callable[[str, str, str, Card], str | None]] = {
    "narrative": _account_problem,
    "qa": _pair_problem,
}


def _row(question: str, answer: str, strategy: str, passage: Passage, card: Card, teacher: str) -> Row:
    messages = [
        {"role": "system", "content": card.system_prompt},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return make_row(
        messages,
        strategy,
        story=passage.story.id,
        tier="teacher",
        span=[passage.start, passage.end],
        teacher=teacher,
    )
