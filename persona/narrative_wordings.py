"""The wordings of questions about a passage: contexts by name, and cores by what the passage holds."""

SAID = {
    "said-to-you": '{who} had just said to you: "{said}"',
    "told-you": '{who} told you: "{said}"',
    "words-were": '{whose} words were: "{said}"',
    "turned": '{who} turned to you with these words: "{said}"',
    "heard": 'You heard {whom} say: "{said}"',
    "spoke": '{who} spoke: "{said}"',
    "put-it": '{who} put it thus: "{said}"',
    "then-said": 'Then {whom_lower} said: "{said}"',
    "moment": 'There came a moment when {whom_lower} said: "{said}"',
    "remark": '"{said}" That was what {whom_lower} said.',
    "so-ran": '"{said}" So {whom_lower} put it.',
    "quoted": '"{said}" Those were the words that you heard from {whom_lower}.',
}
ASKED = {
    "asked-you": '{who} asked: "{said}"',
    "question-was": '{whose} question was: "{said}"',
    "put-to-you": '"{said}" That was what {whom_lower} asked.',
    "wished-to-know": '{who} wished to know: "{said}"',
    "inquired": '{who} inquired: "{said}"',
    "then-asked": 'Then {whom_lower} asked: "{said}"',
    "met-by": 'You were met by a question from {whom_lower}: "{said}"',
}
SAID_BY_NOBODY = {
    "you-were-told": 'You were told: "{said}"',
    "said-in-your-hearing": 'This was said in your hearing: "{said}"',
    "so-told": '"{said}" So you were told.',
    "words-to-you": 'These words were said to you: "{said}"',
    "come-to-this": 'The talk had come to this point: "{said}"',
    "it-was-said": 'Then it was said: "{said}"',
    "you-heard": 'You had heard these words: "{said}"',
    "last-words": '"{said}" After those words it was your turn.',
    "listened": 'You listened to this: "{said}"',
}
ASKED_BY_NOBODY = {
    "you-were-asked": 'You were asked: "{said}"',
    "question-put": 'This question was put: "{said}"',
    "so-asked": '"{said}" So you were asked.',
    "the-question-fell": 'Then the question fell: "{said}"',
    "stood-open": 'There was a question in the room: "{said}"',
}
HAPPENED = {
    "plain": "{happened}",
    "begin": "Let us begin here: {happened_lower}",
    "recall": "You will recall how it stood: {happened_lower}",
    "take-up": "I take up the story at this point: {happened_lower}",
    "so-far": "So far I follow you: {happened_lower}",
    "I-gather": "I gather that {happened_lower}",
    "it-seems": "It seems that {happened_lower}",
    "I-am-told": "I am told that {happened_lower}",
    "we-know": "This much we know: {happened_lower}",
    "told-me": "Your friend has told me this: {happened_lower}",
    "had-heard": "I had already heard that {happened_lower}",
    "understand": "If I understand it rightly, {happened_lower}",
}
OWN_WORDS = {
    "you-had-said": 'You had said: "{said}"',
    "your-words": 'Your words were: "{said}"',
    "you-began": 'You began thus: "{said}"',
    "so-you-said": '"{said}" So you said.',
    "you-remarked": 'You had remarked: "{said}"',
    "I-have-it": 'I have these words of yours: "{said}"',
    "you-put-it": 'You had put it so: "{said}"',
    "I-am-told-you-said": 'I am told that you said: "{said}"',
}
ANSWERED = {
    "answered-you": '{who} answered you: "{said}"',
    "reply-was": '{whose} reply to you was: "{said}"',
    "came-back": 'From {whom} came back: "{said}"',
    "returned": '{who} returned: "{said}"',
}
ANSWERED_BY_NOBODY = {
    "you-were-answered": 'You were answered: "{said}"',
    "the-reply": 'The reply that you had was: "{said}"',
    "this-came-back": 'This came back to you: "{said}"',
    "so-answered": '"{said}" So you were answered.',
}
CASE = {
    "in-the-case": "In the case of {case}, {core_lower}",
    "think-of": "Think back to the affair of {case}. {core}",
    "take": "Take {case}: {core_lower}",
    "story-of": "You remember the story of {case}. {core}",
    "speaking": "Speaking of {case}, {core_lower}",
    "business": "There was that business of {case}. {core}",
    "ask-about": "May I ask about {case}? {core}",
    "when-engaged": "When you were engaged upon {case}, {core_lower}",
    "I-read": "I have read of {case}. {core}",
    "matter": "In the matter of {case}, {core_lower}",
}
REPLY = (
    "What did you say to that?",
    "How did you answer?",
    "What was your reply?",
    "And what had you to say?",
    "What had you to reply?",
    "How did you meet that?",
    "What answer did you make?",
    "What came from you in return?",
)
REACT = (
    "What did you do?",
    "How did you take it?",
    "What did you do upon that?",
    "How did you act?",
    "What was your response?",
    "What was your next move?",
    "What followed?",
    "How did you go on?",
)
NEXT = (
    "What did you do next?",
    "What did you do then?",
    "What came after?",
    "And then?",
    "Pray go on: what followed?",
    "How did you proceed?",
    "What happened then?",
    "What was the next step?",
)
SPOKE_NEXT = (
    "What did you say then?",
    "What were your words?",
    "What had you to say at that point?",
    "And what did you remark?",
    "How did you put it?",
    "What did you tell your hearers?",
)
HAD_SAID = (
    "What had you said?",
    "To what words of yours was that the answer?",
    "What had called that forth?",
    "What had you just remarked?",
    "Which words of yours went before?",
    "What had you said to bring that about?",
)
FOLLOWED = (
    "What followed?",
    "What happened then?",
    "What came of it?",
    "And what happened?",
    "How did things go on?",
    "What came next?",
    "How did it go on?",
    "What was there to see next?",
)
SPOKE_AFTER = (
    "What did you add?",
    "What did you say next?",
    "And after that, what did you say?",
    "How did you go on?",
    "What more had you to say?",
    "What words came after?",
)
THING = (
    "what did you do with {object}?",
    "what can you tell me about {object}?",
    "how did you deal with {object}?",
    "what use did you make of {object}?",
)
PERSON = (
    "what passed between you and {person}?",
    "what do you recall of {person} and yourself?",
    "where did {person} come in, and what did you do?",
    "what happened when you had to do with {person}?",
)
TOGETHER = (
    "what did you and {person} do?",
    "what do you recall of {person} and yourself?",
    "what part had {person} and you?",
    "how did it go with you and {person}?",
)
OF_PERSON = (
    "what did you say of {person}?",
    "what had you to say about {person}?",
    "what did you remark upon {person}?",
    "what was your word upon {person}?",
)
TO_PERSON = (
    "what did you say to {person}?",
    "what were your words to {person}?",
    "what did you tell {person}?",
    "what had you to say to {person}?",
)
SPOKE_WHEN = (
    "what did you say {when}?",
    "what did you remark {when}?",
    "what were your words {when}?",
    "what had you to say {when}?",
)
ACTED_WHEN = (
    "what happened {when}?",
    "what did you do {when}?",
    "how were you placed {when}?",
    "what of you, {when}?",
)
PLACE = (
    "what did you do {place}?",
    "what happened {place}?",
    "how did you come to be {place}, and what did you do?",
    "what can you tell me of what you did {place}?",
)
TIME = (
    "what did you do {time}?",
    "how were you employed {time}?",
    "what happened {time}?",
    "what were you about {time}?",
)
