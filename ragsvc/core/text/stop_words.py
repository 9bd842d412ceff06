"""Stop words by language. Each list is defined once here; other modules use the lists or the subsets defined below.

A subset exists where removing a word is useful for one purpose and harmful for another; its docstring gives the reason.
"""

# ruff: noqa: RUF001 - Cyrillic letters are meant

from __future__ import annotations

from typing import Final


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


CONDENSED_WORDS: Final = _words(
    """the of and to in is that for with as on was are by it this be at from an or which has have had were been its
    their we a these those any such may our"""
)
"""English words that are removed before embedding: articles, prepositions, auxiliaries. Negations, question words and
personal pronouns are kept, because they change the meaning of a sentence."""

FUNCTION_WORDS: Final[dict[str, frozenset[str]]] = {
    "english": CONDENSED_WORDS
    | _words(
        """what how who whom whose when where why does did do will would can could should about into his her he she
    they you i not but if than then there some your my me us them"""
    ),
    "german": _words(
        """der die und das den von zu mit ist des im nicht ein eine dem auf für sich als auch es an werden aus er hat
    dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis
    mehr durch was wer wo wann warum welche welcher welches wurde in"""
    ),
    "french": _words(
        """le la les des et est dans une pour que sur du en un qui par au pas plus avec ce cette sont ou se il elle ne
    aux ont été son sa ses leur quel quelle quels quelles comment où quand pourquoi de"""
    ),
    "spanish": _words(
        """el la los de que y en las por con una un para es del se al su como más lo pero sus le ya o este sí porque
    esta son entre está cuando muy sin sobre también fue qué cuál cuáles cómo dónde cuándo quién"""
    ),
    "italian": _words(
        """il di che la per un una del della con non sono è e le dei da in al si nel alla come più gli lo i ma anche
    delle quale quali chi dove quando perché degli nella"""
    ),
    "portuguese": _words(
        """o a os as que de em para uma com não do da um por é e no na se dos das mais ao como mas foi ele ela qual
    quais quem onde quando pelo pela são"""
    ),
    "dutch": _words(
        """de het een en van is dat op te met voor niet zijn die in er aan ook als om door worden naar heeft bij uit
    wordt wat wie waar wanneer welke"""
    ),
    "swedish": _words("""och att det som en på är av för med den till inte har om ett de var vid från vad vem hur"""),
    "danish": _words("""og at det den til er som på de med af for ikke der var et en har om hvad hvem hvor"""),
    "norwegian": _words("""og at det den til er som på de med av for ikke var et en har om hva hvem hvor fra"""),
    "finnish": _words("""ja on ei että se oli hän mutta ovat kun niin kuin tai myös joka mitä kuka missä"""),
    "hungarian": _words("""a az és hogy nem is egy ez meg de volt csak mint már ki mi hol mikor vagy"""),
    "romanian": _words("""și de la în cu este pe nu un o că din mai care pentru sunt au ce cine unde"""),
    "turkish": _words("""ve bir bu da de için ile çok daha ne olarak gibi kadar olan en mi ama var"""),
    "russian": _words(
        """и в не на что он с как это по но к из у за от о же так для то бы его она их был была было были или мы вы я
    чем кто где когда почему какой какая какие каких сколько при до после между"""
    ),
}
"""The most frequent words of a language, by the name of its stemmer. They identify the language of a text, and BM25
ignores them in questions. The words of ``_CONVERSATION_WORDS`` are excluded: they are less frequent or common to
several languages, and some ("list", "more", "show") can be the topic of a passage."""

_CONVERSATION_WORDS: Final[dict[str, frozenset[str]]] = {
    "english": _words(
        """all also being between both doing further having here hers him itself just let more most no nor now off once
    only other out over own please same show so tell through too under until up very while give find list say
    says said according"""
    ),
    "german": _words("""eines vom unter waren hatte wen wem wir ihr ich du man wenn denn"""),
    "russian": _words("""во со а все да ты ее мне меня еще нет ему этот эта эти"""),
    "chinese": _words("""的 了 是 在 和 有 什么 吗 呢 谁 哪 哪里 怎么 为什么 多少"""),
}
"""Further words without topic in a question, for the languages in which ``conversation_query`` completes questions."""

QUESTION_STOP_WORDS: Final = frozenset[str]().union(
    *(words | FUNCTION_WORDS.get(language, frozenset()) for language, words in _CONVERSATION_WORDS.items())
) - {"may"}
"""All words without topic in a question, of these languages together. "May" is kept because it is also a month."""

REPHRASED_WORDS: Final = _words(
    """many much often long old large big small size high low far tall deep wide heavy fast soon people person
    someone want wants need needs use uses used take takes took taken reach reaches reached hold held aged see
    saw seen come comes came leave left back drive drove get gets got give gave given gives make made makes say
    says said tell told think thought know known call called happen happened mean means go goes went gone put
    keep kept find found show shown become became begin began start started stop stopped end ended let try tried
    work works worked play run ran move moved live lived believe bring brought write wrote provide sit stand
    stood stands lose lost pay paid meet met include continue set learn change changed lead led understand watch
    follow create speak read allow add spend spent grow grew open opened walk win won offer offered remember
    consider appear buy bought wait serve die died send sent expect build built stay fall fell cut kill remain
    suggest raise pass sell sold require decide pull state good bad new first last own other different same able
    main major important following best worst current present exact exactly total number amount kind kinds type
    types way ways thing things part parts reason reasons purpose name names place year years time times day
    days according worry worried position share shares percentage percent proportion page pages document
    documents report paper figure table list choose chose chosen define defined belong belongs consist consists
    contain contains actually really per each within among between compared compare difference increase
    increased decrease decreased rise rose ranked rank describe described mention mentioned propose proposed"""
)
"""Common English verbs, adjectives and words of quantity in questions, which sentences that answer them often replace:
"how long does it last" and "it takes two hours". A passage that lacks them may have the answer."""
