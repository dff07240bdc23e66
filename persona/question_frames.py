"""Frames of questions about a topic: for which kind of statement each fits, and its wordings.

{x} is the topic ("the open window", "Mr. Windibank"); {is} agrees with it. A frame of ANY_STATEMENT
asks for whatever is said of the topic, so that it fits every statement that has it as subject or object.
"""

import re
from dataclasses import dataclass

from persona.phrases import tokens
from persona.question_words import IMPERATIVES, PAST


@dataclass(frozen=True)
class Frame:
    """A way to ask about a topic."""

    name: str
    kinds: frozenset[str]
    """Kinds of statement that answer it ("judged": says what the topic is like); none: all that tell."""
    wordings: tuple[str, ...]
    of_any: bool
    """Whether it fits what is the asker's own ("my experience") or vague ("the matter"), too."""


def _frames(kinds: str, text: str, of_any: bool = False) -> tuple[Frame, ...]:
    """Frames from lines "name | wording / wording"."""
    frames = []
    for line in text.strip().split("\n"):
        name, wordings = (part.strip() for part in line.split("|"))
        asked = tuple(w.strip() for w in wordings.split(" / "))
        frames.append(Frame(name, frozenset(kinds.split()), asked, of_any))
    return tuple(frames)


ANY_STATEMENT = _frames(
    "",
    """
    tell_of      | What can you tell me of {x}? / What can you tell me about {x}?
    anything_of  | Can you tell me anything about {x}? / Could you tell me something about {x}?
    should_know  | What should I know about {x}? / What is it that I should know about {x}?
    hear_of      | I should like to hear of {x}. / I should be glad to hear about {x}.
    may_i_hear   | May I hear about {x}? / May I hear something of {x}?
    let_me_hear  | Let me hear about {x}. / Pray let me hear about {x}.
    say_some     | Would you say something about {x}? / Will you say something of {x}?
    a_word       | A word about {x}, if you please. / A word upon {x}, if you will.
    speak_of     | Will you speak of {x}? / Pray speak to me of {x}.
    wondering    | I was wondering about {x}. / I have been wondering about {x}.
    enlighten    | Can you enlighten me as to {x}? / Would you enlighten me about {x}?
    come_to      | Let us come to {x}. What have you to say? / And now to {x}. What have you to say?
    turn_to      | May we turn to {x}? / Might we turn to {x} for a moment?
    curious      | I am curious about {x}. / I confess that I am curious about {x}.
    in_the_dark  | I am still in the dark about {x}. / You leave me in the dark about {x}.
    have_to_tell | Have you anything to tell me about {x}? / Have you anything to say about {x}?
    pray_tell    | Pray tell me about {x}. / Do tell me about {x}.
    not_told     | You have not yet told me about {x}. / You have told me nothing yet about {x}.
    if_asked     | If I were to ask you about {x}? / And if I asked you about {x}?
    if_somebody  | How would you answer a question about {x}? / If one asked about {x}, what would you say?
    have_me_know | What would you have me know about {x}? / What do you wish me to know about {x}?
    understand   | What am I to understand about {x}? / What are we to understand about {x}?
    inform       | Inform me about {x}, if you will. / Will you inform me about {x}?
    notebook     | My notebook is open. What of {x}? / I have my pencil in hand. What about {x}?
    write_down   | What shall I write down about {x}? / What am I to write down about {x}?
    note_about   | What shall I note about {x}? / What should I put in my notes about {x}?
    go_back_to   | May we go back to {x}? / I should like to go back to {x}.
    may_we_speak | May we speak of {x}? / Could we speak about {x}?
    next_asked   | My next question is about {x}. / My question is about {x}.
    want_more    | I want to know more about {x}. / I wish to know more of {x}.
    please_begin | Please begin with {x}. / Suppose we begin with {x}?
    puzzled_by   | I am puzzled about {x}. / I remain puzzled about {x}.
    mention      | You were about to mention {x}, I think. / Did you not mean to mention {x}?
    remains      | There remains the question of {x}. / We have still the question of {x}.
    once_more    | Tell me once more about {x}. / Would you tell me again about {x}?
    readers_ask  | My readers will ask about {x}. / What shall I tell my readers about {x}?
    speak_plain  | Speak plainly to me about {x}. / Will you speak plainly about {x}?
    """,
)

ABOUT_ANYTHING = _frames(
    "",
    """
    say_of       | What have you to say of {x}? / What have you to say about {x}?
    what_of      | What of {x}? / And what of {x}?
    what_about   | What about {x}? / But what about {x}?
    and_x        | And {x}? / And {x}, if I may ask?
    with_regard  | With regard to {x}, what can you say? / What can you say with regard to {x}?
    to_be_said   | What is to be said of {x}? / What is there to be said about {x}?
    light_upon   | Can you throw any light upon {x}? / Could you throw some light upon {x}?
    your_word    | What is your word upon {x}? / Have you a word to say upon {x}?
    remark       | Have you a remark to make upon {x}? / What would you remark about {x}?
    concerning   | What can be said concerning {x}? / Concerning {x}, what is there to say?
    in_brief     | In brief, what about {x}? / Briefly, what of {x}?
    add_about    | What can you add about {x}? / Can you add something about {x}?
    how_of_it    | How is it with {x}? / How does it stand with {x}?
    as_regards   | As regards {x}, what have you to say? / As regards {x}, what can you tell me?
    wish_to_say  | What is it that you wish to say about {x}? / You wish to say something about {x}?
    speaking_of  | Speaking of {x}, what have you to say? / Since we speak of {x}, what do you say?
    ask_about    | May I ask about {x}? / Might I ask you about {x}?
    tell_as_to   | What can you tell me as to {x}? / Can you tell me something as to {x}?
    have_upon    | What have you to offer upon {x}? / What can you offer me upon {x}?
    touching     | Touching {x}, what do you say? / What do you say touching {x}?
    nothing_of   | You have said nothing of {x}. / You say nothing of {x}?
    attention    | May I draw your attention to {x}? / Let me draw your attention to {x}.
    something_on | You had something to say about {x}, I think. / I believe you had something to say of {x}.
    if_i_mention | And if I mention {x}? / If I may mention {x}?
    answer_as_to | What is your answer as to {x}? / How do you answer as to {x}?
    observe_of   | What have you to observe about {x}? / Have you anything to observe about {x}?
    """,
    of_any=True,
)

BY_KIND = (
    _frames(
        "opinion doubt",
        """
    opinion_on   | What is your opinion as to {x}? / May I have your opinion about {x}?
    believe      | What do you believe about {x}? / What is your belief as to {x}?
    your_mind    | What is in your mind about {x}? / What have you in mind as to {x}?
    """,
    )
    + _frames(
        "opinion doubt inference",
        """
    formed_view  | Have you formed any view about {x}? / Have you come to a view about {x}?
    private_view | What is your own idea about {x}? / And your own idea about {x}?
    """,
    )
    + _frames(
        "judged",
        """
    view_of      | How do you look upon {x}? / In what light do you see {x}?
    make_of      | What do you make of {x}? / And what do you make of {x}?
    think_of     | What do you think of {x}? / What do you think about {x}?
    judge        | How do you judge of {x}? / What is your judgment as to {x}?
    verdict      | What is your verdict upon {x}? / And your verdict on {x}?
    """,
    )
    + _frames(
        "inference",
        """
    deduce       | What do you deduce about {x}? / What can be deduced about {x}?
    infer        | What do you infer with regard to {x}? / What inference do you draw about {x}?
    conclusion   | What conclusion have you come to about {x}? / To what conclusion do you come as to {x}?
    """,
    )
    + _frames(
        "doubt",
        """
    conjecture   | What is your conjecture about {x}? / Have you any conjecture as to {x}?
    possibility  | What possibility do you see with regard to {x}? / What may one suppose about {x}?
    """,
    )
    + _frames(
        "maxim",
        """
    experience   | What has experience taught you about {x}? / What does your experience teach about {x}?
    general      | What would you say in general of {x}? / Speaking in general, what of {x}?
    beginner     | What would you teach a beginner about {x}? / What should a beginner know about {x}?
    """,
    )
    + _frames(
        "plan",
        """
    intend       | What do you intend with regard to {x}? / What do you intend to do about {x}?
    plans        | What are your plans as to {x}? / Have you a plan with regard to {x}?
    propose      | What do you propose to do about {x}? / What course do you propose as to {x}?
    mean_to      | What do you mean to do about {x}? / How do you mean to proceed as to {x}?
    """,
    )
    + _frames(
        "asks",
        """
    wish_know    | What do you wish to know about {x}? / What would you like to know about {x}?
    what_ask     | What would you ask me about {x}? / Is there anything that you would ask about {x}?
    question_left| What question remains about {x}? / What is still to be asked about {x}?
    curious_about| You have a question about {x}? / You wish to put a question about {x}?
    your_question| And your question about {x}? / What is your question about {x}?
    be_asked     | You may ask what you will about {x}. / Pray ask what you like about {x}.
    inquire      | What would you inquire about {x}? / You would inquire about {x}?
    learn_from_me| What would you learn from me about {x}? / What can I tell you about {x}?
    not_clear    | What is not clear to you about {x}? / Is something not clear to you about {x}?
    more_of      | What more must you know about {x}? / What more do you ask about {x}?
    ready_to_say | I will answer as to {x}, if I can. / Ask me about {x}, and I will answer if I can.
    what_to_learn| What have you still to learn about {x}? / What do you still need to learn about {x}?
    puzzles      | What puzzles you about {x}? / Does anything puzzle you about {x}?
    why_raise    | You were about to ask about {x}. / You had something to ask about {x}.
    speak_freely | Put your question about {x}, by all means. / By all means ask about {x}.
    which_point  | Upon what point about {x} can I help you? / How can I help you with regard to {x}?
    begin_asking | Where would you begin to ask about {x}? / What would you ask first about {x}?
    settled      | What would you have settled about {x}? / What should be settled about {x}?
    """,
    )
)

FRAMES = ANY_STATEMENT + ABOUT_ANYTHING + BY_KIND

NOT_TOLD = frozenset(["instruction", "suggestion", "exclaims", "here", "you"])
"""Kinds of sentence that belong to the scene: nobody asks for what they tell of."""


def kind_of(sentence: str) -> str:
    """The kind of statement that a sentence makes, by its first words and its verbs."""
    low = [w.lower() for w in tokens(sentence)]
    text = " ".join(low)
    first, second, third = [*low, "", "", ""][:3]

    def has(pattern: str) -> bool:
        return re.search(rf"\b(?:{pattern})\b", text) is not None

    if sentence.rstrip("\"' )").endswith("?"):
        return "asks"
    if sentence.rstrip("\"' )").endswith("!") and first in ("what", "how"):
        return "exclaims"
    if first == "let" or re.match(r"(?:\w+\. )?\w+ , let (?:us|me)\b", text):
        return "suggestion"
    if first in IMPERATIVES and second not in ("you", "i", "is", "was"):
        return "instruction"
    if first in ("you", "you'll", "you've", "you're", "you'd"):
        return (
            "known"
            if has("you (?:\\w+ly |have |may |must |will )?(?:know|knew|remember|recollect|heard)")
            else "you"
        )
    if first in ("i", "i'm", "i've", "i'll", "i'd"):
        return _first_person_kind(first, second, third, has)
    if first in ("we", "we'll", "we've"):
        return "plan" if second in ("shall", "will") or first == "we'll" else "we"
    if first in ("there", "there's"):
        return "existence"
    if first == "here":
        return "here"
    if has("because|in order to|so that|owing to|the reason"):
        return "reason"
    if has(
        "must have|evidently|clearly|obviously|therefore|it follows|it is clear|no doubt|undoubtedly|must be"
    ):
        return "inference"
    if has("perhaps|possibly|probably|may|might|probable|possible|likely|conceivable"):
        return "doubt"
    past = has("was|were|had|did") or any(w in PAST for w in low)
    general = ("a", "an", "no", "men", "people", "it", "never", "always", "every", "any", "nothing")
    always = has("always|never|a man should|one should|nothing is|one must|no man|as a rule")
    return "maxim" if not past and (first == "one" or (first in general and always)) else "statement"


_NEGATIVE = (
    "i (?:do not|don't|cannot|can't|could not|have not|haven't|never|did not|am not|should not|would not"
    "|was not|had not)"
)
_OPINION = (
    r"i (?:\w+ly )?(?:think|believe|fancy|suppose|imagine|suspect|fear|hope|expect|presume|feel|confess|am"
    "|should say|have no doubt|consider|take it|dare say|thought|doubt)"
)
_PERCEIVED = (
    r"i (?:\w+ly )?(?:see|saw|perceive|observe|observed|noticed|found|find|discovered|heard|learned"
    "|examined|hear|notice|looked|perceived)"
)
_WANT = r"i (?:\w+ly )?(?:want|wish|need|should like|should wish|should be|would|beg|ask|trust)"
_KNOW = r"i (?:\w+ly )?(?:know|remember|recollect|understand|knew|understood|remembered)"
_ACHIEVED = (
    r"i have (?:\w+ly |already |just |now |only |always |also )?(?:\w+ed|been|seen|found|made|done|taken|had"
    "|heard|known|got|written|come|gone|given|told|sent|said|read|brought|spent)"
)


def _first_person_kind(first: str, second: str, third: str, has) -> str:
    if first == "i'll" or second in ("shall", "will", "propose", "intend", "mean", "must"):
        return "plan"
    if (first, second) == ("i'm", "going"):
        return "plan"
    if first == "i've":
        return "achieved"
    for pattern, kind in (
        (_NEGATIVE, "negative"),
        (_OPINION, "opinion"),
        (_PERCEIVED, "perceived"),
        (_WANT, "want"),
        (_KNOW, "know"),
        (_ACHIEVED, "achieved"),
        ("i have", "have"),
    ):
        if has(pattern):
            return kind
    if first == "i'm":
        return "opinion"
    did = any(w in PAST or w.endswith("ed") for w in (second, third)) or has("i (?:was|had|did)")
    return "acted" if did else "statement"
