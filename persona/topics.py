"""What an answer tells of: the phrase that a question about it names."""

import re
from collections.abc import Iterator

from persona.answers import Answer
from persona.clauses import lead
from persona.phrases import BE, POSSESSIVES, Names, Phrase, phrases, tokens
from persona.question_frames import kind_of
from persona.question_words import AUXILIARIES, EMPTY_HEADS, FUNCTION, PAST, PREPOSITIONS, WEAK_HEADS
from persona.word_classes import adjectives, nouns

LEAST_SCORE = 0.4
"""A topic that is worth less (persona.phrases) says too little to be asked about."""

NAMED_SCORE = 1.5
"""What is worth so much is a topic after "about", "for" and the like, too."""
ABOUT = ("about", "with", "against", "by", "upon")
SOMEBODY = {"boy", "friend", "gentleman", "gentlemen", "fellow", "companion"}
_POINTS_BACK = {
    "other",
    "others",
    "second",
    "first",
    "third",
    "next",
    "latter",
    "former",
    "same",
    "rest",
    "only",
}
_SPOKEN_OF = re.compile(
    r"\b(?:hear|heard|speak|spoke|spoken|think|thought|know|knew|known|learned|told|sure|certain) of$"
)
_SUBORDINATE = re.compile(
    r"\b(?:when|while|if|who|which|whom|whose|whoever|whatever|where|as|before|after|until|till|because|than|like"
    r"|unless|though|although|since|what|how|\w{3,}ing)\b|--|[;:]",
    re.IGNORECASE,
)
"""After one of these, a phrase belongs to something said by the way."""

_BEFORE_OBJECT = 9
"""A direct object begins after at most so many words."""
_THAT = re.compile(
    r"(?:I (?:\w+ly |do not |don't |should |cannot |can't |can |have )?(?:\w+ |have no doubt |take it )"
    r"|I am (?:\w+ )?(?:sure|certain|convinced|afraid|inclined to think|aware|told) |(?:You|We) (?:\w+ )?\w+ "
    r"|It (?:is|was|seems|appears)(?: \w+){1,3} |There (?:is|can be) (?:no doubt|little doubt) |No doubt "
    r"|Perhaps |Possibly |Apparently |Evidently )(?:that )?$"
)
"""What comes before the subject of what is thought or known: "I fear that", "It is clear that"."""
_OBJECT = re.compile(
    r"(?:I|We|You)(?:'ve|'ll| have| had| shall| will| must| may| can| could| do not| did not| don't| didn't"
    r"| cannot| could not)?(?: \w+ly| already| once| also| never| just| at once| soon| only)?"
    r"(?: (?:want|wish|like|prefer|anxious|intend|propose|mean|have|ought|going|wished|wanted|hope|able) to)?"
    r" (\w+)(?: (?:a|an|no|some|great|every|little|much|the|my|any)(?: \w+){1,2}"
    r" (?:of|about|upon|for|against|with))?"
    r"(?: (?:of|about|upon|into|at|for|with|to|through|over))?$"
)
"""What comes before the object of what the persona does: "I have examined", "I never heard of"."""
_FRONTED = re.compile(r"(?:In|With|From|For|Upon|On|At|To|Of|As to|As for|Between|Among|Under|Behind|Near)$")
_QUESTION_START = re.compile(
    r"(?:What|Who|Whom|Whose|Where|When|Why|How|Which|Is|Are|Was|Were|Do|Does|Did|Has|Have|Had|Should|Must"
    r"|(?:Can|Could|Would) you (?:\w+ )?(?:tell|describe|remember|recall|recognise|recognize|swear|explain"
    r"|give|say)|(?:May|Might) I ask|You (?:have|had|know|knew|did|saw|heard|were|never))\b"
)


def topic_of(answer: Answer, names: Names) -> Phrase | None:
    """What an answer tells of.

    It is the subject of its first sentence or of what is thought there, what stands before the subject
    ("In the garden ..."), or what the persona did something with. A question is about what it names best.
    """
    if answer.antecedent:
        return Phrase(answer.antecedent, 0, 1, answer.antecedent.split()[-1], "person", 9.0, "subject")
    first = lead(answer.sentences[0])
    if re.match(r"(?:Should|Had|Were) (?:I|you|we|the)\b", first) and kind_of(first) != "asks":
        return None  # a condition
    words = tokens(first)
    found = _nameable(words, first, names)
    if kind_of(first) != "asks":
        return next((p for p in found if _told_of(words, p)), None)
    asked = [p for p in found if _asked_about(words, p)] if _QUESTION_START.match(first) else []
    return min(asked, key=lambda p: (p.role == "aside", -p.score), default=None)


def _nameable(words: list[str], sentence: str, names: Names) -> list[Phrase]:
    """The phrases that whoever asks can name: neither "this house" nor half of "the doctor and I"."""
    return [
        p
        for p in named_in(sentence, names)
        if not re.match(r"(?:this|that|these|those)\b", p.text)
        and words[p.start].lower() not in ("a", "an")
        and (after := "".join(words[p.end : p.end + 1]).lower()) not in ("and", "or", "'")
        and not (after == "," and p.head in adjectives())  # "your grave, middle-aged practitioner"
        and (p.start == 0 or words[p.start - 1].lower() not in ("and", "or"))
        and (p.score >= LEAST_SCORE or (p.start == 0 and p.head in WEAK_HEADS | SOMEBODY))
    ]


def named_in(sentence: str, names: Names) -> list[Phrase]:
    """The noun phrases, and a long subject where none is found at the beginning."""
    found = phrases(sentence, names)
    return found if found and not found[0].start else [*_long_subject(tokens(sentence)), *found]


def _long_subject(words: list[str]) -> Iterator[Phrase]:
    """Everything before the first auxiliary: "the writing on the old wall" was ..."""
    end = next((i for i, w in enumerate(words) if w.lower() in AUXILIARIES), 0)
    inner = [w.lower() for w in words[1:end]]
    if words[0] not in ("The", "My", "Your", "Our") or not 1 <= len(inner) <= 8:
        return
    if words[0] != "The" and words[1][0].isupper():
        return  # your Grace
    linked = {"of", "in", "on", "the", "my", "your", "our"}
    if any((w in FUNCTION and w not in linked) or w in PAST for w in inner):
        return
    if not all(w.isalpha() or "-" in w or "'" in w for w in inner) or inner[0] in _POINTS_BACK:
        return
    head = next((inner[i - 1] for i, w in enumerate(inner) if i and w in ("of", "in", "on")), inner[-1])
    if (head in nouns() or head.endswith("ing")) and head not in EMPTY_HEADS:
        text = " ".join([POSSESSIVES.get(words[0].lower(), words[0].lower()), *words[1:end]])
        if " my " not in text and " your " not in text:
            yield Phrase(text, 0, end, head, "thing", 1.0, "subject")


def _asked_about(words: list[str], phrase: Phrase) -> bool:
    before = "".join(words[phrase.start - 1 : phrase.start]).lower()
    if phrase.kind == "name" and before in ("in", "at", "to", "from", "through"):
        return False
    return phrase.text[0].isupper() or words[phrase.start].lower() in ("the", "my", "your", "our")


def _told_of(words: list[str], phrase: Phrase) -> bool:
    before = " ".join(words[: phrase.start])
    after = "".join(words[phrase.end : phrase.end + 1])
    if phrase.start == 0:
        vague = phrase.head in WEAK_HEADS and after.lower() in ("who", "whom", "which", "that", "about")
        return after != "," and not vague
    if _FRONTED.match(before):
        return after == "," and words[phrase.end + 1 : phrase.end + 2] != ["I"]
    if _THAT.match(before) and after.lower() in AUXILIARIES | PAST.keys():
        return True
    if (m := _OBJECT.match(before)) and phrase.start <= _BEFORE_OBJECT:
        return m[1].lower() not in PREPOSITIONS | AUXILIARIES
    if phrase.kind == "person" and phrase.text[0].isupper():
        return not re.search(r"\b(?:while|when|as|of|for|since|to)\b|--", before)
    narrowed = after.lower() in ("that", "which", "who", "whom", "whose", "for", "of")
    if narrowed or _SUBORDINATE.search(before) or not _asked_about(words, phrase):
        return False
    if phrase.role == "object":
        return True
    said_of = words[phrase.start - 1].lower() in ABOUT or _SPOKEN_OF.search(before) is not None
    return said_of and phrase.score >= NAMED_SCORE


def judged_in(words: list[str], topic: Phrase) -> bool:
    """Whether the sentence says what the topic is like: it has "is" or "seems" and an adjective or noun."""
    verb, *rest = [w.lower() for w in words[topic.end : topic.end + 4]] or [""]
    if verb not in (*BE, "seems", "seemed", "appears", "appeared") or topic.role == "aside":
        return False
    return any(w in adjectives() or w in ("a", "an") for w in rest)
