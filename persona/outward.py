"""What nobody says of himself: admiration, and how one looks from outside.

Functions of one passage that is already in the first person, quotations masked.
"""

import re

_ADMIRING = re.compile(
    r"remarkabl|extraordinar|wonderful|master(?:ly|ful)|brillian|genius|marvell|admirab|admiration"
    r"|incomparable"
    r"|unrivalled|celebrated|famous|great(?:est)? (?:detective|man|reasoner|mind|heart|brain)"
    r"|\bmy powers?\b|amazing|amazement"
    r"|astonish|facult(?:y|ies)|eccentric|bohemian|egotis|vanity|\bvain\b|cold-blooded|temperament"
    r"|\bmy nature\b|characteristic"
    r"|peculiarit|\bnever (?:known|seen|saw|knew)\b|proverbial|callous|\badroit|skilful|dexter|subtle"
    r"|inimitable|\bingenious"
    r"|\bclever|\bhabits?\b|great talent|\bgift\b|reputation|\bmy fame\b|triumphant|melodrama|theatrical"
    r"|dramatic|sphinx|\bquaint"
    r"|\bdignity|hypnotic|fiery soul|true artist|calm assurance|exceedingly well"
    r"|\bmy methods\b|fine actor|reasoner|\bmy (?:very )?soul\b|\bmy temper\b|uncomfortable man"
    r"|\bsuccess(?:es|ful)?\b|catlike|noiseless|iron |exasperat|comical|grotesque figure|\bintense\b"
    r"|intensity",
    re.I,
)
_TO_READERS = re.compile(
    r"\b(?:readers?|narrative|chronicle[sdr]?|these pages|memoirs?|the public|reader's)\b", re.I
)
_SEEN = re.compile(
    r"\bI(?: \w+ly)? (?:seem|appear)ed\b(?! (?:in|at|on|upon|before)\b)"
    r"|\bI (?:\w+ly )?looked (?!at\b|up\b|down\b|round\b|out\b|into\b|over\b|across\b|through\b|in\b"
    r"|back\b|from\b|about\b"
    r"|for\b|on\b|upon\b|along\b|after\b|towards?\b|again\b|around\b|hard\b|off\b|behind\b|this\b|it\b"
    r"|them\b|Watson\b"
    r"|once\b|\w+ly (?:at|up|down|round|out|into|over|across|back|from|about|along|around)\b)"
    r"|\b(?:evidently|apparently|obviously|visibly|no doubt|doubtless)\b"
    r"|\bme (?:as|like) (?:he|a|an|one|some)\b|\bI\b[^.]*\blike (?:a|an|one|some)\b"
    r"|\b[Mm]y \w+[^.]*\blike (?:a|an|one|some|those)\b"
    r"|\b[Mm]y (?:\w+, |\w+ )?(?:keen|eager|thin|lean|sharp|bright|austere|aquiline|gaunt|pale|haggard"
    r"|bony|nervous|sensitive"
    r"|deep-set|steel\w*|gr[ea]y|cold|inscrutable|clear[- ]cut|dark|strident|incisive|egg-shaped|usual"
    r"|accustomed|customary"
    r"|quick|brisk|easy|quiet|didactic|crisp|languid|dreamy|long|lithe|athletic|expressive|mobile"
    r"|impassive|inexorable|half-closed"
    r"|tall|spare|swift|white|weary|lack-lustre|restless|kindly|great|strong|green|curious|odd|singular"
    r"|strange|sombre|dry"
    r"|old|eager)(?:,? \w+)? (?:face|eyes?|features|fingers?|hands?|figure|form|voice|gr[ea]y|manner|way"
    r"|outline|nose|brows?|"
    r"forehead|head|gaze|glance|smile|profile|style|fashion|self|cheeks|body|back|arms?|legs|frame"
    r"|expression|brain|mind|silhouette)\b"
    r"|\b[Mm]y (?:\w+ ){0,2}(?:eyes|face|brows?|features|expression|countenance|manner|voice|cheeks?|lips"
    r"|figure|gaze|nostrils"
    r"|forehead|spirits|profile|jaw|smile|outline|look)(?:, [^,.]+,)? (?:\w+ly |still |had |which |that "
    r"|that had )*"
    r"(?:(?!red|bed)\w+ed|shone|was|were|had|grew|became|took|lit|wore|rose|fell|lost|told|set|bore|sank"
    r"|went|spoke)\b"
    r"|\b(?:gleam|twinkle|glint|flush|sparkle|fire|light|look|glitter|tinge|expression|touch|note"
    r"|trace)s?\b[^.,;]{0,30} (?:in|of|on|upon|over|from) my"
    r" (?:\w+,? ){0,2}(?:eyes?|cheeks?|face|features|lips|expression|voice|manner)"
    r"|\bwith (?:a|an|the) (?:air|look|expression|appearance) of\b"
    r"|\b(?:I could|Watson could|he could|could) (?:\w+ )?(?:see|tell|read|perceive)\b[^.]*\b(?:I|my|me)\b"
    r"|\b(?:Watson|he) (?:felt|thought|was (?:aware|certain|convinced))\b"
    r"|\bthe (?:sight|figure|spectacle|outline|silhouette|image|bust|likeness|shadow|face|eyes|hands?"
    r"|voice|head) of me\b"
    r"|\bin my (?:\w+,? ){1,3}(?:way|fashion|manner|tones?|style|voice)\b|\b(?:usual|unusual|peculiar"
    r"|natural) (?:with|to) me\b"
    r"|\b(?:over|on|in|across|upon|from) my (?:\w+ )?(?:face|features|lips|eyes?)\b(?! (?:and (?:I|turned"
    r"|went)|to )\b)|\blook of\b"
    r"|\b(?:did|could) not (?:seem|appear)\b|\bprone to\b|\b(?:I|my|me)\b[^.!\x01]*\?|\bregretting\b"
    r"|\b(?:poor|dear) (?:old )?(?:I|me)\b"
    r"|\b(?:glimpse|sight) of my\b|\bat my (?:face|features|expression)\b|\bmy (?:eyes|face),? \w+ing\b"
    r"|\b(?:I|me)\b[^.]{0,40}\bvoice which\b|\bwhined\b"
    r"|\b(?:me|I \w+), who(?:se)?\b|\b[Mm]y appearance\b|\b(?:ever|before)\b[^.]{0,12} seen me\b"
    r"|(?<!front)(?<!ahead)(?<!instead)(?<!side)(?<!speaking)(?<!of) of me\b"
    r"|\b(?:of|by|with|to|from|upon) me the \w+|\b(?:me|I) myself could not"
)


_LOOKS = re.compile(
    r"\b([Mm]y) (?:(?:long|thin|lean|nervous|keen|eager|white|bony|sharp|grey|gray|pale|haggard|quick"
    r"|strong|gaunt|great"
    r"|delicate|sinewy|tall|spare|slender|sensitive|deep-set|dark|cold|little|heavy-lidded|lank),? )+"
    r"(?=(?:legs?|arms?|fingers?|hands?|back|eyes?|face|forefinger|index-finger|body|neck|head|chin"
    r"|moustaches?)\b)"
)


def without_looks(text: str) -> str:
    """ "my long, thin legs" -> "my legs": nobody speaks so of himself."""
    return _LOOKS.sub(r"\1 ", text)


def told_from_outside(text: str) -> bool:
    """Whether a passage in the first person holds what only somebody else would say of the speaker."""
    return any(p.search(text) is not None for p in (_ADMIRING, _TO_READERS, _SEEN))
