"""Words of English fiction by which people and speech are known.

Verbs of speech, titles, nouns for people.
"""


def _words(text: str) -> list[str]:
    return text.split()


SPEECH_VERBS = frozenset(
    _words(
        """said asked answered cried replied remarked returned exclaimed observed murmured whispered
        continued added inquired enquired suggested ejaculated muttered shouted growled groaned gasped
        explained interrupted interposed repeated retorted roared sighed snarled screamed sneered
        stammered thundered urged yelled called began went resumed rejoined responded demanded declared
        announced admitted agreed assented assured commented concluded confessed corrected croaked begged
        broke burst bawled bellowed chuckled laughed smiled grumbled faltered finished hissed insisted
        nodded objected ordered panted persisted pleaded pointed proceeded promised protested pursued put
        queried questioned quoted reflected reiterated shrieked snapped snorted sobbed spoke stated
        stuttered told ventured volunteered wailed warned wondered affirmed acknowledged barked blurted
        breathed chimed conceded cautioned challenged chided coaxed complained counselled cut demurred
        drawled echoed encouraged giggled grunted hinted implored lamented mumbled mused moaned marvelled
        piped prompted rapped rasped reassured reminded replied scoffed soothed squeaked squealed struck
        threatened twittered uttered vociferated whimpered whined says say asks answers cries thought
        prayed read commanded directed exploded reproved purred hazarded apologized apologised confided
        hesitated recited testified wheezed gurgled grinned rumbled supplied opined boomed babbled
        quavered hailed bade greeted contended argued maintained instructed requested invited entreated
        swore lied joked jested jeered mocked taunted crowed sang chanted swallowed persevered deposed"""
    )
)
"""Verbs that may carry a speech. The loose ones ("smiled", "put", "went") count only beside the quote."""

TITLES = {
    **dict.fromkeys(
        _words(
            """mr sir lord inspector sergeant constable colonel captain major general baron count duke
            king prince father brother monsieur m herr signor don squire superintendent reverend earl
            admiral lieutenant mister uncle master esquire commander bishop"""
        ),
        "he",
    ),
    **dict.fromkeys(
        _words(
            "mrs miss ms lady madame mme mademoiselle mlle aunt sister countess duchess dame queen princess "
            "signora"
        ),
        "she",
    ),
    **dict.fromkeys(_words("dr doctor professor detective judge nurse"), None),
}
"""Titles, with the gender they show."""

NOUNS = {
    **dict.fromkeys(
        _words(
            """man gentleman fellow boy lad father brother husband son uncle policeman constable sergeant
            inspector detective colonel captain major general doctor lawyer solicitor barrister coroner
            judge butler footman valet coachman cabman driver porter clerk banker baronet squire lord duke
            king prince count baron earl sailor seaman soldier officer official host landlord professor
            vicar parson priest villain giant dwarf surgeon physician page groom gardener keeper
            gamekeeper nobleman peer nephew grandfather ruffian rascal scoundrel statesman merchant dealer
            jeweller blacksmith sexton monk skipper mate foreman manager superintendent engineer
            stationmaster postmaster youth salesman tradesman workman labourer farmer shopkeeper
            proprietor premier minister president chancellor dean bishop ambassador chief owner trainer
            innkeeper publican warder boatman cabby attendant attaché schoolmaster headmaster tutor editor
            chemist commissionaire frenchman englishman american belgian"""
        ),
        "he",
    ),
    **dict.fromkeys(
        _words(
            """woman lady girl maid mother sister wife daughter aunt widow housekeeper landlady nurse
            hostess duchess countess governess princess queen mistress matron grandmother niece
            parlourmaid housemaid maid-servant parlour-maid charwoman"""
        ),
        "she",
    ),
    **dict.fromkeys(
        _words(
            """visitor client stranger companion friend colleague guest person voice other child neighbour
            newcomer patient student cook secretary servant prisoner lodger fellow-lodger room-mate caller
            informant witness assistant speaker agent tenant cousin partner pupil teacher victim murderer
            thief foreigner latter former creature"""
        ),
        None,
    ),
}
"""Nouns for people, with the gender they show."""

NOT_NAMES = frozenset(
    _words(
        """I A An The And But Or Nor For So Yet If When While As At In On Of To From With By Then There
        Here This That These Those It He She They We You His Her Their Our My Its Your What Who Whom Whose
        Which Why How Where Not No Yes Well Oh Ah Now Once Twice After Before Again All Both Each Every
        Some Any One Two Three Four Five Six Seven Eight Nine Ten Even Only Just Still Also Thus Suddenly
        Presently However Perhaps Indeed Meanwhile Finally Nothing Something Everything Nobody Somebody
        Everybody Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April
        May June July August September October November December English French German Chapter God Good
        Heaven Heavens Christmas Easter Street Road Let Do Did Was Were Is Are Had Has Have Having Being
        Been Never Without Within Upon Over Under Through Between Behind Beyond Against During Until Till
        Since Because Though Although Unless Whether Come Go Look See Hullo Hello Hush Ha Halloa Pooh Tut
        Sir Madam Mr Mrs Miss Dr Such Very Much More Most Many Few Next Last First Second Evidently
        Certainly Apparently Slowly Quickly Down Up Out"""
    )
)
