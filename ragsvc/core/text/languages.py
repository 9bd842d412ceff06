"""What languages are known by: their function words. Knows nothing of passages or indexes."""

# ruff: noqa: RUF001 - Cyrillic letters are meant

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

DEFAULT_LANGUAGE = "english"

# Frequent function words: what a language is known by, and what questions are better asked without.
_WORDS = {
    "english": """the of and to in is that for with as on was are by it this be at from an or which what how who whom
        whose when where why does did do has have had were been will would can could should about into its their his
        her he she they we you i a not but if than then there these those any some such may our your my me us them""",
    "german": """der die und das den von zu mit ist des im nicht ein eine dem auf für sich als auch es an werden aus
        er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur
        bis mehr durch was wer wo wann warum welche welcher welches wurde in""",
    "french": """le la les des et est dans une pour que sur du en un qui par au pas plus avec ce cette sont ou se il
        elle ne aux ont été son sa ses leur quel quelle quels quelles comment où quand pourquoi de""",
    "spanish": """el la los de que y en las por con una un para es del se al su como más lo pero sus le ya o este sí
        porque esta son entre está cuando muy sin sobre también fue qué cuál cuáles cómo dónde cuándo quién""",
    "italian": """il di che la per un una del della con non sono è e le dei da in al si nel alla come più gli lo i
        ma anche delle quale quali chi dove quando perché degli nella""",
    "portuguese": """o a os as que de em para uma com não do da um por é e no na se dos das mais ao como mas foi ele
        ela qual quais quem onde quando pelo pela são""",
    "dutch": """de het een en van is dat op te met voor niet zijn die in er aan ook als om door worden naar heeft bij
        uit wordt wat wie waar wanneer welke""",
    "swedish": """och att det som en på är av för med den till inte har om ett de var vid från vad vem hur""",
    "danish": """og at det den til er som på de med af for ikke der var et en har om hvad hvem hvor""",
    "norwegian": """og at det den til er som på de med av for ikke var et en har om hva hvem hvor fra""",
    "finnish": """ja on ei että se oli hän mutta ovat kun niin kuin tai myös joka mitä kuka missä""",
    "hungarian": """a az és hogy nem is egy ez meg de volt csak mint már ki mi hol mikor vagy""",
    "romanian": """și de la în cu este pe nu un o că din mai care pentru sunt au ce cine unde""",
    "turkish": """ve bir bu da de için ile çok daha ne olarak gibi kadar olan en mi ama var""",
    "russian": """и в не на что он с как это по но к из у за от о же так для то бы его она их был была было были или
        мы вы я чем кто где когда почему какой какая какие каких сколько при до после между""",
}
FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
"""Function words by language (named as the stemmers are)."""

_LATIN = {language: words for language, words in FUNCTION_WORDS.items() if language != "russian"}
_LANGUAGES_OF = {
    word: tuple(name for name, words in _LATIN.items() if word in words) for word in set().union(*_LATIN.values())
}


def detect_language(words: Iterable[str]) -> str | None:
    """The language of Latin-script ``words`` (lower case) by its function words; ``None`` when fewer than 2 tell."""
    telling = Counter([word for word in words if word in _LANGUAGES_OF])
    votes: Counter[str] = Counter()
    for word, count in telling.items():
        for language in _LANGUAGES_OF[word]:
            votes[language] += count
    if not votes:
        return None
    language, count = votes.most_common(1)[0]
    return language if count >= 2 else None
