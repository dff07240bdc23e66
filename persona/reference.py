"""Words around a mention that tell whom it means and in which case it stands: English, no book.

Used by `persona.rewrite`.
"""

import re

from persona.mentions import NAME, NOUN
from persona.narration import MASK
from persona.verbs import words

FORMS = {
    "he": {"he": "subject", "him": "object", "his": "possessive", "himself": "reflexive"},
    "she": {
        "she": "subject",
        "her": "object or possessive",
        "hers": "absolute",
        "herself": "reflexive",
    },
}
"""Pronouns by the card's `pronoun`; with any other ("they") only names and descriptions are rewritten."""

NARRATOR_FORMS = {
    "i": "subject",
    "me": "object",
    "my": "possessive",
    "mine": "absolute",
    "myself": "reflexive",
}

_PLURALS = (
    r"men|women|gentlemen|ladies|people|policemen|folk|children|brothers|sisters|companions|friends"
    r"|colleagues"
    r"|visitors|clients|officers|detectives|constables|inspectors|servants|officials|fellows|lads|boys|girls"
)
_OTHERS = (
    r"dog|hound|horse|mare|cat|animal|beast|corpse|body|figure|fugitive|criminal|suspect|burglar|assassin"
    r"|somebody|someone|anyone|everyone|nobody|another|others|crowd|audience|jury|group|party|pair|trio"
    r"|adversary|enemy|opponent|antagonist|rival|comrade|ally|ex-\w+|police-?agent|navy|lascar|negro|savage"
    r"|convict|ostler|millionaire|nobleman|director|diplomatist|politician|scientist|recluse|spy|tramp|beggar|cripple"
)
ITEM = re.compile(
    rf"(?P<quote>{MASK}+)"
    r"|\b(?P<pronoun>(?:[Hh](?:e|im|is|imself|er|ers|erself)|[Ss]he|I|[Mm](?:e|y|ine|yself)|[Ww]e|[Uu]s"
    r"|[Oo]ur(?:s|selves)?)\b(?!'))"
    rf"|\b(?P<noun>(?:{_PLURALS}|{_OTHERS}|{NOUN}s?)\b)|\b(?P<name>{NAME})"
)
_PREPOSITION = (
    "of to at with by from upon on into onto towards toward behind beside against between near about over "
    "round around past under above in opposite beyond through across alongside among amongst without"
)
PREPOSITIONS = words(_PREPOSITION)
DOUBTFUL_BEFORE = words("than as but except save like nor or")
CONJUNCTIONS = words("before after until till since for because though although")
SPOKEN_TO = words(
    "told asked answered reminded reassured assured urged begged bade invited requested entreated "
    "greeted struck warned instructed interrupted broke put read thanked pursued"
)
QUALIFIERS = words("old poor dear little good great different the a an very real mr excellent other young")
OF_A_BODY = words("voice figure body")
INVERTING = words("had did could would should might")
STANDING_VERBS = words("stood sat lay came went was were is rushed sprang walked ran hung there")
LOCATIVE = re.compile(r"\b(?:before|behind|beneath|above|below|over|between|in front of|opposite) $")
SELF_LOCATIVE = re.compile(r"\b(?:behind|about|around|round|beside|before|beneath|above|over|with) $")
# Whose arm, whose story? With these verbs and nouns "his" is more often somebody else's.
OF_ANOTHER = re.compile(
    r"\b(?:seiz\w+|grasp\w+|caught|clutch\w+|took|hold|held|gripp\w+|shook|patt\w+|touch\w+|tapp\w+|clapp\w+|"
    r"pull\w+|twitch\w+|search\w+|examin\w+|felt|tore|bound|slip\w+|snapp\w+|press\w+|pluck\w+|pinion\w+"
    r"|wrung"
    r"|laid|struck|tried|fasten\w+|unlock\w+|unloos\w+|open\w+|watch\w+|follow\w+|listen\w+|heard|met"
    r"|notic\w+"
    r"|observ\w+|ask\w+|answer\w+|track\w+|saw|read|learn\w+|guess\w+|lik\w+|suspect\w+|exclaim\w+|over"
    r"|upon|on)"
    r"(?: \w+){0,4} his (?:\w+ )?"
    r"(?:arm|arms|hand|shoulder|shoulders|wrist|wrists|collar|throat|sleeve|pulse|leg|ankle|neck|forehead"
    r"|story|statement|narrative|account|confession|words|remarks?|questions?|advice|letter|wife|sister|name"
    r"|address|track|tracks|example|movements|back|appearance|guilt|innocence|house|home|desk|body)\b"
)
# What one moves, strikes or lights oneself, whoever else has been named: "Holmes shook his head".
OWN_THINGS = re.compile(
    r" (?:own|head|shoulders|hands|eyes|eyebrows|brows|lips|pipe|feet|chair|lens|finger-?tips|fingers"
    r"|pocket|pockets|knees"
    r"|chin|breast|seat|heel|violin|cigarette|note-?book|teeth|breath|dressing-gown|armchair|forefinger"
    r"|moustache)\b"
)
# A clause of what somebody said or thought: its "he" may be the man spoken of.
REPORTED = re.compile(
    r"\b(?:said|thought|knew|believed|convinced|sure|certain|told|asked|answered|remarked|suspected|feared"
    r"|hoped|assured|found|noticed|perceived|showed|proved?|proof|evidence|view|opinion|idea|fact|learned"
    r"|learnt|explained|see|seen|saw|heard|satisfied|doubt|wondered)"
    r"(?: [\w']+){0,3} (?:(?:that|if|whether|what|where|why|how) )?$"
    r"|\b(?:see|seen|saw|heard|wait(?:ed|ing)?|watch(?:ed|ing)?|look(?:ed|ing)|stared|gazed)(?: [\w']+){0,3}"
    r" (?:as|till|until|while|when) $"
)
PLACE = re.compile(r"\b(?:Street|Road|Yard|Square|House|Hall|Station|Inn|Park|Court|Lane|Hotel|Club|Manor)\b")
