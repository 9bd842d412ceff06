"""Separates what a message asks from what its author says about themselves.

A greeting, an introduction, a list number, the date of the author's plans or the number of items to order say nothing
about the documents, so their names and numbers are not expected in the passages.
"""

# ruff: noqa: RUF001 - question words and quotation marks of several scripts

from __future__ import annotations

import re
from typing import Final

from ragsvc.core.text.content_words import content_words
from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.spellings import MONTH_NAMES
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS

_MONTH: Final = "|".join(sorted(MONTH_NAMES, key=len, reverse=True))
_SENTENCE: Final = late_pattern(
    r"(?<=[!?;])\s+|\n+|(?<=[。！？；])|(?<=\.)(?<!\d\.)(?<!\b(?:Mr|Ms|Dr|Hr|Fr|Sr|St|No|Nr)\.)(?<!\b(?:Mrs|Mme|Sra)\.)"
    r"(?<!\bProf\.)(?<!\b[A-Z]\.)\s+"
    rf"|(?<=\d\.)\s+(?!(?i:{_MONTH})\b)"
)
_CLAUSE: Final = late_pattern(
    r"(?:(?<=[:,\u2014])\s+|(?<=[,，])(?=[\u4e00-\u9fff])|\s+[\u2013-]\s+"
    r"|\s+(?=(?:if|when|because|since|as|while|and|but|that)\s+(?:I|we|my|our)\b)"
    r"|\s+(?=(?:wenn|weil|da|falls|als)\s+(?:ich|wir|mein\w*|unser\w*)\b))"
)
_ASKS_ANYWHERE: Final = late_pattern(
    r"\?|\b(?:who|whom|whose|what|which|when|where|why|how|wer|wem|wen|was|wann|wo|wie|wieso|warum|wohin|woher"
    r"|welche[rsmn]?|wieviele?|кто|что|когда|где|как|почему|сколько|какой|какая|какие|каких|quel\w*|combien|comment"
    r"|cuánto\w*|cuál\w*|quién\w*)\b|[谁哪几吗呢？]|什么|多少|为什么|怎么",
    re.IGNORECASE,
)
_ASKS_FIRST: Final = late_pattern(
    r"\W*(?:(?:please|kindly)\s+)?(?:advise|confirm|state|specify|provide|quote|indicate|is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|must|list|name|give"
    r"|tell|show|summari[sz]e|explain|describe|find|compare|calculate|define|ist|sind|war|waren|gibt|kann|können|darf"
    r"|dürfen|muss|müssen|hat|haben|nenne|liste|erkläre|beschreibe)\b",
    re.IGNORECASE,
)
_OWN: Final = late_pattern(
    r"\bI(?=[ '’][a-z])|\b(?:[Mm]e|[Mm]y|[Mm]ine|[Ww]e|us|[Oo]urs?|[Ii]ch|[Mm]ir|[Mm]ich|[Mm]ein\w*|[Ww]ir|[Uu]ns"
    r"|[Uu]nser\w*|[Яя]|[Мм]не|[Мм]еня|[Мм]оя?|[Мм]ой|[Мм]ы|[Нн]ам|[Нн]ас|[Нн]аш\w*|[Jj]e"
    r"|[Nn]ous|[Mm]on|[Mm]a|[Mm]es|[Nn]otre|[Yy]o|[Ss]oy|[Ss]omos|[Mm]e llamo|[Mm]is?"
    r"|[Nn]osotr[oa]s|[Vv]ivo|[Ll]lego"
    r"|[Ll]legamos|[Qq]ueremos|[Tt]engo|[Tt]enemos)\b|\b[JjMm]['’]|我|本人"
)
_OWN_SIDE_CLAUSE: Final = late_pattern(
    r"(?:if|when|because|since|as|while|and|but|that|wenn|weil|da|falls|als)\s+(?:I|we|my|our|ich|wir|mein\w*|unser\w*)\b"
)
_GREETING: Final = late_pattern(
    r"\W*(?:hi|hello|hey|dear|good (?:morning|afternoon|evening|day)|greetings|thanks?|thank you|many thanks|sorry"
    r"|excuse me|fyi|hallo|guten (?:tag|morgen|abend)|sehr geehrte\w*|liebe[rs]?|danke|vielen dank|entschuldigung"
    r"|привет|здравствуйте|добрый день|bonjour|bonsoir|salut|hola|buen[oa]s (?:días|tardes|noches)"
    r"|你好|您好|请问)(?!\w)",
    re.IGNORECASE,
)
_INTRODUCTION: Final = late_pattern(
    r"\W*(?:on behalf of|im (?:namen|auftrag) (?:von|der|des)"
    r"|your (?:(?:e-?)?mail|letter|message|call)|ihre (?:mail|nachricht)"
    r"|as (?:discussed|agreed|mentioned)|further to|following (?:our|up)|sent from|wie besprochen|comme convenu"
    r"|como (?:hablamos|acordamos)|(?:customer|member|booking|account) (?:no|number|id)"
    r"|(?:kunden|mitglieds|buchungs)nummer"
    r"|ref|this is|it is|it['’]s|here is|hier ist|hier spricht|name is|regards|best|cheers|yours"
    r"|as an? (?:\w+ )?(?:customer|client|student|tenant|resident|citizen|employee|member|guest|tourist|user"
    r"|patient|teacher|developer|buyer|owner"
    r"|visitor|beginner|parent|manager|shareholder))\b",
    re.IGNORECASE,
)
_LABEL: Final = late_pattern(
    r"\s*(?:[*•-]\s+|\(?\d{1,3}[.):]\)?\s+|\(?[a-zA-Z][.)]\s+|(?:q|question|frage|вопрос)\s*\d{0,3}\s*[.:)]\s+"
    r"|(?:urgent|important|dringend|wichtig|eilt|urgente?|importante?)\b\W*"
    r"|[(\[]?(?:question|frage|no|nr|task|aufgabe|item|ticket|case|ref|reference|order|id|request|anfrage)\b\.?\s*(?:no\.?|nr\.?|#)?\s*"
    r"[\w/-]*\d[\w/-]*\s*[.:)\]\u2013-]+\s+|[#№]\d+\W+)",
    re.IGNORECASE,
)
_ATTRIBUTION: Final = late_pattern(
    r"\b(?:according to|based on|as per|as stated in|looking at|from|in|using|laut|gemäß|selon|d['’]après|según)\s+"
    r"(?:the|this|that|my|your|our|dem|der|den|diesem|le|ce|el|este)?\s*(?:attached\s+|uploaded\s+|provided\s+|given\s+|above\s+|following\s+)?"
    r"(?:pdfs?|documents?|files?|attachments?|texts?|context|dokumente?n?s?|datei|anhang|fichier|documento|archivo)\b,?"
    r"|\b(?:according to|as per|per|laut|gemäß|selon|d['’]après|según) (?:(?:the|this|your|our|dem|der|le|la|el) )?"
    r"(?:handbook|manual|guide|brochure|leaflet|booklet|contract|agreement|handbuch|vertrag|broschüre|anleitung|manuel"
    r"|contrat|contrato|folleto)(?: (?:v|version |edition )?\d[\d.]*)?(?!\w),?"
    r"|(?:根据|按照)(?:这个|该)?(?:pdf|文档|文件|合同),?",
    re.IGNORECASE,
)
_FORM_OF_ANSWER: Final = late_pattern(
    r"\b(?:in|en)\s+(?:USD|EUR|GBP|CHF|JPY|CNY|RUB|(?:(?:US|American|Canadian|British|Swiss)[ -])?"
    r"(?:dollars?|euros?|pounds?|francs?|yen|yuan|franken|dólares|libras)(?: suisses?| suizos)?|[€$£])(?!\w)"
    r"|\b(?:please\s+)?(?:answer|reply|respond|antworte)\w*\s+(?:me\s+)?(?:in|auf)\s+\w+",
    re.IGNORECASE,
)
_QUANTITY: Final = late_pattern(
    r"(?<![\w.,:/-])(?!(?:19|20)\d\d\b)\d{1,3}(?:,\d{3})*(?=\s+[a-zà-öø-ÿа-я]{3,})(?!\s+(?:percent|prozent|pour|por|million"
    rf"|millones|billion|milliard|{_MONTH})(?:e?n|e?s)?\b)"
    r"|(?<![\d.第])\d{1,3}(?=[个辆台张人位艘条套间只名])",
)
_MANY_BLANKS: Final = late_pattern(r"\s{4,}")
"""The next pattern takes time to the third power of their number."""

_SIGNATURE: Final = late_pattern(
    r"\s*(?:(?<=[\s.!?,])[-\u2013]\s*|(?<=[.!?,\n])\s*|,\s*)(?:(?:(?:best|kind|warm) )?regards|sincerely|yours|cheers"
    r"|best wishes|thanks|thank you|viele grüße|(?:mit )?(?:freundliche|beste|liebe)n? grüßen?|mfg|danke"
    r"|vielen dank|cordialement|bien à vous|merci|saludos|un saludo|atentamente|gracias|谢谢|此致)(?!\w)[^?？]*\Z",
    re.IGNORECASE,
)
_NO_TOPIC: Final = frozenset(
    "try check need happen happens possible allowed pay kann muss soll darf tun machen mache passiert geschieht".split()
)
"""Words of a question that asks for nothing without the case of its author."""

_NUMBERED_NAME: Final = late_pattern(
    r"(?:\b[A-Z][\w-]*|\b(?:section|article|chapter|level|class|version|phase|type|item|note|table|figure|step|room"
    r"|bus|tram|train|flight|gate|platform|track|route|channel|error|code|building|flat|unit|model|order|seat|linie|gleis"
    r"|flug|salle|ligne|línea|vuelo|form|grade|number|line|group|zone|paragraph|artikel|kapitel|klasse|stufe|raum|zimmer|abschnitt"
    r"|layer|wave|pin|port|stage|round|quarter|week|day|year|season|episode|volume|issue|test|task|example|experiment"
    r"|mode|channel|button|row|column|tier|category|option|module|lesson|exercise|field|address|district|region"
    r"|floor|terminal|exit|schicht|ebene|spalte|zeile|woche|tag))\s+\Z"
)


def asking_text(message: str) -> str:
    """The message without greetings, statements about its author, labels and quantities; all of it if nothing asks.

    >>> asking_text("Hi, I am Anna from Berlin. How much is the deposit for 3 boats?")
    'How much is the deposit for boats?'
    >>> asking_text("On 12 July 2026 we want to rent a boat; how much is the deposit in USD?")
    'how much is the deposit ?'
    """
    text = message = _MANY_BLANKS.sub(lambda blanks: "\n\n" if "\n" in blanks[0] else "  ", message)
    while label := _LABEL.match(text):
        text = text[label.end() :]
    for extra in (_SIGNATURE, _ATTRIBUTION, _FORM_OF_ANSWER):
        text = extra.sub("", text)
    sentences = [[clause for clause in _CLAUSE.split(part) if clause.strip()] for part in _SENTENCE.split(text)]
    first = next((at for at, clauses in enumerate(sentences) if any(map(_asks, clauses))), None)
    if first is not None:
        sentences = [_without_author(clauses, opening=at < first) for at, clauses in enumerate(sentences)]
    kept = " ".join(clause for clauses in sentences for clause in clauses) or message
    if _NO_TOPIC.issuperset(content_words(kept)) and content_words(text):
        kept = text  # the author's case is the question: "What should I do if I cannot connect my computer?"
    return _QUANTITY.sub(lambda match: _quantity(kept, match), kept).replace("  ", " ").strip()


def _without_author(clauses: list[str], *, opening: bool) -> list[str]:
    """The clauses of a sentence that are not about its author; none if it starts with the author and asks nothing.

    ``opening``: the sentence precedes the question, so that a greeting starts with the author as well.
    """
    starts_with_author = bool(clauses) and _is_about_author(clauses[0]) and not any(map(_asks, clauses))
    if starts_with_author and (opening or not _GREETING.match(clauses[0])):
        return []
    return [clause for clause in clauses if _asks(clause) or not _is_about_author(clause)]


def _asks(clause: str) -> bool:
    if _OWN_SIDE_CLAUSE.match(clause) or _GREETING.match(clause):
        return False
    return bool(_ASKS_ANYWHERE.search(clause) or _ASKS_FIRST.match(clause))


def _is_about_author(clause: str) -> bool:
    return bool(_OWN.search(clause) or _GREETING.match(clause) or _INTRODUCTION.match(clause))


def _quantity(text: str, match: re.Match[str]) -> str:
    """Nothing in place of a count of things; a number that belongs to a name is kept."""
    before = _NUMBERED_NAME.search(text, 0, match.start())
    return match.group() if before and before.group().strip().lower() not in QUESTION_STOP_WORDS else ""
