"""Builds a search query from a conversation.

Uses rules on words and no model. A complete question is the query; an elliptic question ("and in 2022?") is completed
from the user's earlier turns. Independent of indexes and prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.core.retrieval.document_questions import document_question
from ragsvc.core.text.content_words import CONTENT_WORD, content_words
from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.spellings import SIGNED_WORD
from ragsvc.core.text.stop_words import FUNCTION_WORDS, QUESTION_STOP_WORDS

# ruff: noqa: RUF001 - words of several scripts are the subject here

MAX_QUERY_CHARACTERS: Final = 1200
"""Longer than the embedding model's limit for English; more text would not change the vector."""

MAX_TURNS_BACK: Final = 4
"""Number of earlier user turns that may complete an elliptic question."""

_SELF_CONTAINED_WORDS: Final = 5
"""A question with this many content words is complete, even if it contains a pronoun such as "it"."""


class Turn(msgspec.Struct, frozen=True):
    """The text of a message; ``role`` as in OpenAI's chat messages."""

    role: str
    text: str


class ConversationQuery(msgspec.Struct, frozen=True):
    """``text`` is the query, empty if the last user turn asks nothing ("thanks!"); ``question`` is that turn."""

    text: str
    question: str
    follow_up: bool = False


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_POINTERS: Final = _words(
    """it its they them their theirs he him his she her hers this that these those there then same former latter one
    ones er ihm ihn sein seine sie ihr ihre es dies diese dieser dieses dort он она оно они его её ее их этот эта
    это эти там
    它 他 她 他们 她们 它们 这 那 这个 那个""",
)
_HELP_WORDS: Final = _words(
    """anything something else help need want would like know question questions today assist noch etwas fragen helfen
    sonst weitere"""
)
_PEOPLE: Final = _words("he him his she her hers they them their er ihm ihn sie ihr он она они его её ее их 他 她 他们")
_OPENER: Final = late_pattern(
    r"^[\s¿¡]*(?:(?:and|but|or|also|so|what about|how about|same for|what if it is|sorry|actually|no|nope|rather"
    r"|instead|wait|oops|i mean|i meant|make that|make it|correction|i need"
    r"|same question for|und|aber|auch|oder|wie ist es mit|was ist mit|nein|ich meine"
    r"|ich meinte|entschuldigung|а|и|но|а как|что насчёт|нет|я имел\w* в виду|et(?: pour)?|mais|qu['’]en est-il de|non"
    r"|y(?: para)?|pero|qué hay de)\b[\s,:;.\u2014-]*)+"
    r"|^\s*(?:那么|那|还有)",
    re.IGNORECASE,
)
_SMALL_TALK: Final = late_pattern(
    r"^\W*(?:(?:hi|hello|hey|good (?:morning|afternoon|evening|day)|thanks?(?: (?:you|a lot|so much))*|many thanks|thx"
    r"|ok(?:ay)?|great|cool|nice|perfect|got it|understood|i see|bye|goodbye|see you|yes|no|sure|right|well|there"
    r"|very much|for your help|how are you(?: doing)?|hallo|guten (?:tag|morgen|abend)|danke(?: schön)?|vielen dank"
    r"|привет|здравствуйте|спасибо|хорошо|пока|да|нет|你好|您好|谢谢|好的|再见)(?:\W+|$))+",
    re.IGNORECASE,
)
_POLITE: Final = late_pattern(
    r"^(?:please|kindly|(?:can|could|would|will) you(?: please)?(?: (?:tell|show|give|explain(?: to)?) me)?"
    r"|(?:tell|show|give) me|i (?:would like|want|need) to know|i(?:'d| would) like to know|do you know|bitte"
    r"|(?:kannst du|können sie)(?: mir)?(?: bitte)?(?: sagen)?,?|скажите|пожалуйста|请|请问)[\s,:]+",
    re.IGNORECASE,
)
_THANKS: Final = r"(?:thanks?(?: you| a lot)?|danke|спасибо|merci|gracias)(?=\W|$)|谢谢"
_YES: Final = (
    r"(?:(?:yes|yeah|yep|yup|sure|ok(?:ay)?|please(?: do)?|go ahead|do (?:it|so|that)|of course|certainly|absolutely"
    r"|definitely|right|correct|exactly|i do|i would|i['’]d (?:like|love) (?:that|to)|that(?: would|['’]?d) be \w+"
    r"|(?:(?:that|it) )?(?:sounds|looks) (?:good|great|fine|nice|perfect|interesting)|why not|y|both|all of them"
    r"|ja|jo|gerne?|klar|natürlich|bitte|genau|beide\w*|sehr|да|конечно|давай\w*|пожалуйста"
    r"|oui|ouais|volontiers|bien s[uû]r|d['’]accord|avec plaisir|s['’]il (?:vous|te) pla[iî]t|je veux bien|les deux"
    r"|sí|si|claro(?: que sí)?|por favor|por supuesto|vale|de acuerdo|ambos|me encantaría)"
    r"(?=\W|$)\W*|(?:是的?|好的?|要的?|可以|行|嗯|对|当然)(?=\W|$|谢谢)\W*|[👍✅🙏]\W*)"
)
_AGREES: Final = late_pattern(rf"^[^\w👍✅🙏]*{_YES}+(?:{_YES}|(?:{_THANKS})\W*)*", re.IGNORECASE)
_DECLINES: Final = late_pattern(rf"^\W*(?:no|nope|nein|нет|non|不)(?=\W|$)\W*(?:{_THANKS})?\W*", re.IGNORECASE)
_QUESTION_MARK: Final = late_pattern(r"[?？]")
_SENTENCE_ENDS: Final = ".!?。！？\n"
_OFFERS: Final = late_pattern(
    r"^\W*(?:(?:and|so|or|also|if you like,?)\s+)?(?:(?:would|do|did) you (?:also )?(?:like|want|need|mean|prefer|wish)"
    r"|are you (?:interested in|looking for|asking about)|(?:shall|should|may|can|could) i|want"
    r"|möchten sie|möchtest du|wollen sie|willst du|soll ich|darf ich|meinen sie|meinst du|хотите|хочешь|вам"
    r"|(?:voulez|souhaitez|désirez|aimeriez)-vous|(?:veux|souhaites|aimerais)-tu|dois-je|puis-je|quier(?:es?|en)|desea[sn]?"
    r"|(?:le|te|les) (?:gustaría|interesa)|puedo)\b"
    r"(?:\s+(?:me|also|to|you|ihnen|dir|auch|know|see|hear|have|get|show|tell|give|look up|explain|find|list|check|send"
    r"|help|with|about|read|wissen|sehen|узнать|услышать|показать|рассказать|aussi|connaître|savoir|voir|vous|donner"
    r"|indiquer|también|saber|conocer|ver|que (?:le|te) (?:diga|dé)))*\s*"
    r"|^\W*(?:您|你)?(?:还)?(?:是否)?(?:想|需要|要)(?:要)?(?:我)?(?:告诉|给|为)?(?:您|你)?(?:知道|了解|看看|查看|查一下)?",
    re.IGNORECASE,
)
_OFFER_END: Final = late_pattern(r"\s+(?:wissen|nennen|sagen|zeigen|erfahren|haben|sehen|geben|heraussuchen)$|[吗呢]$")
_STATED_OFFER: Final = late_pattern(
    r"(?:^|(?<=[.!?;:\n]))[^\S\n]*(?:(?:if (?:you(?:['’]d)? (?:like|want|wish|need)|interested|so)|wenn (?:du|sie) "
    r"(?:willst|möchtest|wollen|möchten)|falls gewünscht|si vous (?:voulez|le souhaitez)|si (?:quieres?|lo desea))\W+)?"
    r"(?:(?:just |please )?let me know (?:if|whether) you(?: would|['’]d)? (?:like|want|need|wish)(?: to (?:know|see))?"
    r"|(?:just )?(?:ask|tell me) if you (?:want|need|would like)"
    r"|I (?:can|could|may) (?:also )?(?:tell|give|show|look up|find|send|explain|list|check)(?: you| up)?(?: also)?"
    r"|I(?:['’]d| would) be (?:happy|glad) to (?:tell|give|show|look up|find|send|explain|list|check)(?: you)?"
    r"|(?:gern(?:e)? )?(?:kann|nenne|könnte) ich (?:ihnen|dir)?(?: auch| gerne?)*|ich (?:kann|könnte) (?:ihnen|dir)"
    r"(?: auch| gerne?)*|je peux (?:aussi )?vous (?:donner|indiquer|dire)|puedo (?:también )?(?:decir|dar)[lt]e"
    r"|我(?:还|也)?可以(?:告诉|给)(?:您|你))\s*(?P<offer>[^.!?。！？\n]{3,160})[.!。！]*\s*$",
    re.IGNORECASE,
)
_OR_BOTH: Final = late_pattern(r",? (?:or|oder|ou|o) (?:both|beides?|les deux|ambos)$", re.IGNORECASE)
_ADDS: Final = late_pattern(r"(?:and|also|und|auch|et|aussi|y|también)\b", re.IGNORECASE)
_ASKS_WHICH: Final = late_pattern(
    r"\b(?:which|what|who|whose|when|where|welche[rsmn]?|wer|wann|quel(?:le)?s?|lequel|laquelle|cu[áa]l(?:es)?|qué)\b|哪",
    re.IGNORECASE,
)
_OF_THE_DIALOGUE: Final = frozenset(
    """like want need mean interested course courses specify prefer looking refer know exactly one model item option
    product interessieren interessiert meinen möchten wissen souhaitez voulez parlez quiere refiere""".split()
)
_LONGEST_CHOICE: Final = 3
_AFTERTHOUGHT: Final = late_pattern(
    r"(?<![\s,;.!?])[\s,;.!?]*"
    r"\b(?:sorry|please|bitte|entschuldigung|pardon|perdón|thanks|thank you|danke|merci|gracias|then|too)"
    r"\W*$",
    re.IGNORECASE,
)
_VAGUE: Final = late_pattern(
    r"\b(?:one|any|some|either|both|which|each|all|another)\s+of\s+(?:them|these|those|the\s+\w+)\b"
    r"|\b(?:one|either|any|another)\s+(?=course|model|product|plan|item|option)|\b(?:it|them|these|those|one)\b(?=\W*$)",
    re.IGNORECASE,
)
_CHOICES: Final = (
    late_pattern(r"\b(?:first|former|erste[nrs]?|перв\w+)\b", re.IGNORECASE),
    late_pattern(r"\b(?:second|latter|last|zweite[nrs]?|letztere[nrs]?|втор\w+)\b", re.IGNORECASE),
)
_NOT_BUT: Final = late_pattern(
    r"^(?:not (?P<old>.+?),? but (?P<new>.+)|(?P<new2>.+?),? (?:not|instead of|rather than|nicht|statt|а не)"
    r" (?P<old2>.+?))$",
    re.IGNORECASE,
)
_RETURNS: Final = late_pattern(
    r"^\W*(?:back to|returning to|going back to|coming back to|zurück zu[rm]?)\s+(?P<subject>[^:,.;\u2014?]+)"
    r"[:,.;\u2014-]*\s*(?P<rest>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_CODE: Final = late_pattern(rf"(?<![^\W_\u4e00-\u9fff])[A-Za-z]{{1,4}}-?\d{{1,4}}(?![^\W_\u4e00-\u9fff])|{SIGNED_WORD}")
_CODE_ALONE: Final = late_pattern(rf"^(?:那么?)?(?P<code>{_CODE.pattern})呢\W*$")
_PAGE_NUMBER: Final = late_pattern(r"\b(?P<word>pages?|slides?|seiten?)\s+\d+\b", re.IGNORECASE)
_PREPOSITIONS: Final = "for|in|of|at|on|with|from|to|by|during|without|für|bei|von|mit|im|am|ohne"
_PHRASE: Final = late_pattern(rf"^(?P<preposition>{_PREPOSITIONS})\s+\S.*$", re.IGNORECASE)
_BARE_PHRASE: Final = late_pattern(
    rf"^(?:the|a|an|der|die|das|den|dem|{_PREPOSITIONS}|в|для|на)\s+[^?]+\?*$", re.IGNORECASE
)
_ARTICLE: Final = late_pattern(
    r"^(?:(?:the|a|an|our|my|your|der|die|das|den|dem|ein|eine|einen|le|la|les|une?|el|los|las|una)\s+|l['’])",
    re.IGNORECASE,
)
_NOUN_PHRASES: Final = (
    late_pattern(rf"\b(?:{_PREPOSITIONS})\s+(?P<noun>(?:the|an?|der|die|das|den|dem)\s+[\w' -]+?)\W*$", re.IGNORECASE),
    late_pattern(
        rf"\b(?:does|do|did|can|will|must|should|has|have|kostet|ist|hat)\s+(?P<noun>(?:the|an?|our|my|der|die|das)\s"
        rf"[\w' -]+?)(?=\s+\w+(?:\s+(?:{_PREPOSITIONS}|per|pro)\s.*)?\W*$)",
        re.IGNORECASE,
    ),
    late_pattern(
        r"\b(?:coûten?t?|cuestan?|est|sont|es|son|vale)\s+(?P<noun>(?:(?:le|la|les|une?|el|los|las|una)\s|l['’])"
        r"[\w'’ -]+?)(?=\s+(?:pour|par|en|por|para)\s|\W*$)",
        re.IGNORECASE,
    ),
    late_pattern(
        rf"\b(?:is|are|was|were|kostet|kosten|ist|sind)\s+(?P<noun>(?:the|an?|our|my|der|die|das)\s[\w' -]+?)"
        rf"(?=\s+(?:{_PREPOSITIONS}|per|pro)\s|\W*$)",
        re.IGNORECASE,
    ),
)
_BARE_SUBJECT: Final = late_pattern(
    r"\b(?:do|does|did|can|may|must|should)\s+(?P<noun>(?!(?:i|you|we|they|he|she|it|the|an?)\b)[a-z]+)(?=\s+\w+)",
    re.IGNORECASE,
)
_QUESTION_WORD: Final = late_pattern(
    r"\b(?:who|whom|whose|what|which|when|where|why|how|is|are|was|were|do|does|did|can|could|will|would|wer|was|wann|wo"
    r"|wie|warum|welche[rsmn]?)\b",
    re.IGNORECASE,
)
_LEAD: Final = late_pattern(
    r"^(?:(?:who|whom|whose|what|which|when|where|why|how|many|much|long|there|is|are|was|were|do|does|did|can"
    r"|could|will|would|wer|was|wann|wo|wie|warum|viele?|hoch|ist|sind|war|kostet)\s+)+",
    re.IGNORECASE,
)
_PERIOD: Final = late_pattern(r"\b(?:Q[1-4]|(?:19|20)\d\d|(?:first|second|third|fourth) quarter)\b", re.IGNORECASE)
_NAME: Final = late_pattern(r"\b(?:[A-Z][\w&.-]*[\w&]|[A-Z]{2,})(?:[ -](?:of |the |and )?[A-Z][\w&.-]*[\w&])*")
_NO_NAMES: Final = QUESTION_STOP_WORDS | frozenset().union(
    *(FUNCTION_WORDS[language] for language in ("french", "spanish")), {"combien", "cuánto", "cuánta", "quién"}
)
_MARKER: Final = late_pattern(r"\[\d+\]")


def make_query(turns: Sequence[Turn]) -> ConversationQuery:
    """The query for the last user turn of a conversation.

    >>> turns = [Turn("user", "What were Apple's net sales in 2023?"), Turn("assistant", "$383 billion [1]")]
    >>> make_query([*turns, Turn("user", "And in 2022?")]).text
    "What were Apple's net sales in 2022?"
    >>> make_query([*turns, Turn("user", "Thanks!")]).text
    ''
    """
    asked = [index for index, turn in enumerate(turns) if turn.role == "user" and turn.text.strip()]
    if not asked:
        return ConversationQuery("", "")
    question = turns[asked[-1]].text.strip()
    before = turns[: asked[-1]]
    if (offered := _reply_to_offer(question, before)) is not None:
        return ConversationQuery(_bounded(offered), question, follow_up=True)
    text = clean_question(question)
    if text and document_question(text):
        return ConversationQuery(_bounded(text), question)
    if returned := _return_to_subject(text, before):
        return ConversationQuery(_bounded(returned), question, follow_up=True)
    if not text or not _is_elliptic(text):
        return ConversationQuery(_bounded(text), question)
    chain = [text]
    for index in reversed(asked[-1 - MAX_TURNS_BACK : -1]):
        earlier = clean_question(turns[index].text)
        if earlier:
            chain.append(earlier)
            if not _is_elliptic(earlier):
                break
    text = chain.pop()
    follow_up = bool(chain)
    while chain:
        text = _complete(chain.pop(), text)
    names = _answer_names(before, question) if follow_up else []
    return ConversationQuery(_bounded(" ".join([text, *names])), question, follow_up=follow_up)


def _reply_to_offer(question: str, before: Sequence[Turn]) -> str | None:
    """The query of a reply to the assistant's question, such as "Yes" to "Would you like the price of B1?".

    ``None`` if the assistant asked nothing, or if the reply neither agrees nor declines. Empty for "No, thanks".
    """
    last = next((turn for turn in reversed(before) if turn.role in ("user", "assistant")), None)
    said = _MARKER.sub("", last.text).strip() if last and last.role == "assistant" else ""
    asked = _last_question(said)
    stated = None if asked else _STATED_OFFER.search(said)
    if asked is None and stated is None:
        return None
    offered = asked or (stated["offer"] if stated else "")
    asked_words = set(content_words(offered))
    if asked_words and asked_words <= _HELP_WORDS:
        return None  # "Anything else?" offers nothing
    agrees = _AGREES.match(question)
    declines = None if agrees else _DECLINES.match(question)
    choice = next((number for number, pattern in enumerate(_CHOICES) if pattern.search(question)), None)
    if not agrees and not declines and (choice is None or len(content_words(question)) > 2):
        return _chosen(question, offered, before) if asked and _ASKS_WHICH.search(offered) else None
    offer = " ".join(_OFFERS.sub("", offered.strip(), count=1).split()).rstrip(" ?？")
    offer = _OFFER_END.sub("", offer)
    return _accepted(question, offer, before, reply=agrees or declines, declined=bool(declines), choice=choice)


def _last_question(text: str) -> str | None:
    """The question that ends a text, with the punctuation behind it.

    A pattern would try every character as the beginning: seconds for a long text, in which no other thread runs.
    """
    end = len(text)
    while end and not (text[end - 1].isalnum() or text[end - 1] == "_"):
        end -= 1
    mark = _QUESTION_MARK.search(text, end)
    return None if mark is None else text[max(text.rfind(stop, 0, mark.start()) for stop in _SENTENCE_ENDS) + 1 :]


def _chosen(reply: str, asked: str, before: Sequence[Turn]) -> str | None:
    """The query of a short reply to "Which course do you mean?": the user's last question with the reply's name.

    ``None`` if the reply is a question or a statement of its own.
    """
    text = clean_question(reply).strip(" .!")
    earlier = next(
        (question for turn in reversed(before) if turn.role == "user" and (question := clean_question(turn.text))), ""
    )
    if not text or not earlier or _QUESTION_WORD.search(text) or len(content_words(text)) > _LONGEST_CHOICE:
        return None
    if document_question(text):
        return None
    names = {word for name in (*_CODE.findall(asked), *_names(asked)) for word in content_words(name)}
    completed = _complete(text, earlier)
    topics = [
        word
        for word in content_words(asked)
        if word not in names | _OF_THE_DIALOGUE | _POINTERS and word not in completed.lower()
    ]
    return " ".join([completed, *topics])


def _accepted(
    question: str,
    offer: str,
    before: Sequence[Turn],
    *,
    reply: re.Match[str] | None,
    declined: bool,
    choice: int | None,
) -> str:
    """The query of a reply to an offer. ``reply`` is its "yes" or "no", ``choice`` the position of the name chosen."""
    rest = clean_question(question[reply.end() :] if reply else question).strip(" .!,")
    named = list(dict.fromkeys(_CODE.findall(offer))) or _names(offer)
    if choice is not None and len(named) == len(_CHOICES):
        offer = " ".join(offer.replace(named[1 - choice], "").replace(" or ", " ").split())
        rest = ""
    offer = _OR_BOTH.sub("", offer)
    if not rest:
        return "" if declined else _with_subject(offer, before)
    if reply and not declined and _ADDS.match(question, reply.end()):
        return _with_subject(f"{offer} {_AFTERTHOUGHT.sub('', rest)}", before)
    if len(content_words(rest)) >= _SELF_CONTAINED_WORDS or (_QUESTION_WORD.search(rest) and not _is_elliptic(rest)):
        return rest
    rest = re.sub(r"\s*\b(?:please|bitte|пожалуйста|thanks?)\W*$", "", rest, flags=re.IGNORECASE)
    vague = _VAGUE.search(offer)
    return _with_subject(_VAGUE.sub(rest, offer, count=1) if vague else _complete(rest, offer), before)


def _with_subject(offer: str, before: Sequence[Turn]) -> str:
    """The offer, and what the user's last question adds: all of it if the offer names no topic, otherwise its names."""
    earlier = next(
        (text for turn in reversed(before) if turn.role == "user" and (text := clean_question(turn.text))), ""
    )
    words = [word for word in content_words(offer) if word not in _POINTERS]
    if len(words) < 2 or {word.lower() for word in CONTENT_WORD.findall(offer)} & _POINTERS:
        return f"{offer} {_LEAD.sub('', earlier).rstrip(' ?？')}".strip()
    if any(not _CODE.fullmatch(name) for name in _names(offer)):
        return offer
    names = [name for name in _names(earlier) if not _CODE.fullmatch(name) and name.lower() not in offer.lower()]
    return " ".join([offer, *names])


def _return_to_subject(text: str, before: Sequence[Turn]) -> str:
    """The question of "Back to the canoe: what does it cost?", completed from the last turn about the canoe."""
    found = _RETURNS.match(text)
    if not found:
        return ""
    subject = content_words(found["subject"])
    asked = [clean_question(turn.text) for turn in before if turn.role == "user"]
    earlier = next((question for question in reversed(asked) if set(subject) & set(content_words(question))), "")
    rest = found["rest"].strip()
    if not rest:
        return earlier or found["subject"]
    if earlier and _OPENER.match(rest):
        return _complete(rest, earlier)
    return f"{rest} {found['subject'].strip()}"


def clean_question(text: str) -> str:
    """The text without greetings, polite phrases and repeated white space; empty if nothing else remains.

    >>> clean_question("Hello! Could you please tell me  who the auditor is?")
    'who the auditor is?'
    """
    cleaned = " ".join(text.split())
    cleaned = _SMALL_TALK.sub("", cleaned, count=1)
    while (shorter := _POLITE.sub("", cleaned, count=1)) != cleaned:
        cleaned = shorter
    return cleaned if CONTENT_WORD.search(cleaned) else ""


def _is_elliptic(text: str) -> bool:
    """Whether the question is incomplete without an earlier turn."""
    content = content_words(text)
    topics = [word for word in content if not _PERIOD.fullmatch(word) and word not in _NO_NAMES]
    if _OPENER.match(text) and len(topics) < _SELF_CONTAINED_WORDS:
        return True
    if len(topics) <= 2 and not _QUESTION_WORD.search(text) and (_BARE_PHRASE.match(text) or _NOT_BUT.match(text)):
        return True
    if not topics:
        return True
    words = {word.lower() for word in CONTENT_WORD.findall(text)}
    if words & _POINTERS and len([w for w in topics if w not in _POINTERS]) < _SELF_CONTAINED_WORDS - 1:
        return True
    return len(CONTENT_WORD.findall(text)) <= 2 and len(topics) <= 1 and text[0] < "\u4e00"


def _complete(follow_up: str, earlier: str) -> str:
    """The earlier question with its period or name replaced by the follow-up's; otherwise both texts."""
    addition = _AFTERTHOUGHT.sub("", _OPENER.sub("", follow_up, count=1)).strip()
    if alone := _CODE_ALONE.match(addition):
        addition = alone["code"]
    if found := _NOT_BUT.match(addition.rstrip(" ?？.!")):
        addition = (found["new"] or found["new2"]).strip()
        old = (found["old"] or found["old2"]).strip()
        if old.lower() in earlier.lower():
            return re.sub(re.escape(old), lambda _: addition, earlier, flags=re.IGNORECASE)
    merged, used = _replace_periods(earlier, addition)
    merged, used = _replace_codes(merged, addition, used)
    phrase = addition.rstrip(" ?？.!")
    if _ARTICLE.match(phrase):
        phrase = phrase[0].lower() + phrase[1:]
    if not used and (replaced := _replace_phrase(merged, phrase)):
        return replaced
    names = [name for name in _names(addition) if not _CODE.fullmatch(name)]
    old_names = [name for name in _names(earlier) if not _CODE.fullmatch(name)]
    if len(names) == 1 and len(old_names) == 1 and names[0].lower() not in earlier.lower():
        merged = _with_name(merged, old_names[0], names[0], keeps_code=bool(used))
        used |= {word.lower() for word in names[0].split()}
    rest = [word for word in content_words(addition) if word not in used and word not in merged.lower()]
    rest = [word for word in rest if word not in _POINTERS]
    if not rest:
        return merged
    if _QUESTION_WORD.match(addition) and not used:
        return f"{addition} {_LEAD.sub('', merged).rstrip(' ?？')}"
    return f"{merged} {addition.rstrip(' ?？') if len(rest) > 1 else ' '.join(rest)}"


def _with_name(earlier: str, old: str, new: str, *, keeps_code: bool) -> str:
    """The question about another name, without a code of the old name's: "the German course B1" has no Polish B1."""
    merged = earlier.replace(old, new)
    codes = [code for code in _CODE.findall(merged) if not _PERIOD.fullmatch(code) and code not in new]
    if keeps_code or len(codes) != 1:
        return merged
    return re.sub(rf"(?<=\w) {re.escape(codes[0])}(?!\w)", "", merged, count=1)


def _replace_codes(earlier: str, addition: str, used: set[str]) -> tuple[str, set[str]]:
    """Replace a page number, or a code such as ``B1`` by a code of the same form; also return the words used."""
    page, old_page = _PAGE_NUMBER.search(addition), _PAGE_NUMBER.search(earlier)
    if page and old_page:
        return _PAGE_NUMBER.sub(page.group(), earlier, count=1), used | set(content_words(page.group()))
    new = list(dict.fromkeys(_CODE.findall(addition)))
    old = {code for code in _CODE.findall(earlier) if new and _form(code) == _form(new[0])}
    if len(new) == 1 and len(old) == 1 and not _PERIOD.fullmatch(new[0]) and new[0].lower() not in earlier.lower():
        return earlier.replace(old.pop(), new[0]), used | {new[0].lower()}
    return earlier, used


def _form(code: str) -> str:
    """Letters as ``a``, digits as ``9`` and signs as ``+``."""
    return re.sub(r"[^\w]+", "+", re.sub(r"\d+", "9", re.sub(r"[A-Za-z]", "a", code)))


def _replace_phrase(earlier: str, phrase: str) -> str:
    """Replace a phrase of the earlier question by one of the same kind: "for adults" by "for children"; else ""."""
    if _PERIOD.search(phrase) or not content_words(phrase) or {w.lower() for w in phrase.split()} & _POINTERS:
        return ""
    if found := _PHRASE.match(phrase):
        same = rf"\b{found['preposition']}\s+(?:(?!(?:{_PREPOSITIONS})\b)[^\s?]+\s*)+"
        phrases = list(re.finditer(same, earlier, re.IGNORECASE))
        if len(phrases) != 1:
            return ""
        gap = " " if phrases[0].group()[-1].isspace() else ""
        return f"{earlier[: phrases[0].start()]}{phrase}{gap}{earlier[phrases[0].end() :]}"
    patterns: Sequence[re.Pattern[str]] = _NOUN_PHRASES if _ARTICLE.match(phrase) else ()
    if len(phrase.split()) <= 2 and phrase.islower() and not patterns:
        patterns = (_BARE_SUBJECT,)
    for pattern in patterns:
        if match := pattern.search(earlier):
            code = None if _CODE.search(phrase) else re.match(rf"\s+(?:{_CODE.pattern})", earlier[match.end("noun") :])
            end = match.end("noun") + (code.end() if code and not _PERIOD.fullmatch(code.group().strip()) else 0)
            return f"{earlier[: match.start('noun')]}{phrase}{earlier[end:]}"
    return ""


def _replace_periods(earlier: str, addition: str) -> tuple[str, set[str]]:
    """Replace years and quarters of the earlier question by the follow-up's; also return the words used."""
    used: set[str] = set()
    for kind in (r"Q[1-4]", r"(?:19|20)\d\d", r"(?:first|second|third|fourth) quarter"):
        new = re.findall(rf"\b{kind}\b", addition, re.IGNORECASE)
        old = re.findall(rf"\b{kind}\b", earlier, re.IGNORECASE)
        if new and len(set(old)) == 1:
            earlier = re.sub(rf"\b{kind}\b", " and ".join(dict.fromkeys(new)), earlier, flags=re.IGNORECASE)
            used |= {word.lower() for period in new for word in period.split()}
    return earlier, used


def _names(text: str) -> list[str]:
    """Capitalised names, except periods and stop words at the start of a sentence."""
    found: list[str] = []
    for match in _NAME.finditer(text):
        name = re.sub(r"['’]s$", "", match.group())
        words = name.split(" ")
        while len(words) > 1 and words[0].lower() in QUESTION_STOP_WORDS:
            del words[0]
        name = " ".join(words)
        first = match.start() == 0 or text[: match.start()].rstrip()[-1:] in {".", "?", "!", ":", "¿", "¡"}
        if _PERIOD.fullmatch(name) or (first and name.lower() in _NO_NAMES):
            continue
        found.append(name)
    return list(dict.fromkeys(found))


def _answer_names(before: Sequence[Turn], question: str) -> list[str]:
    """Up to three names from the last answer if it is short and the follow-up has a pronoun such as "he" or "they"."""
    if not {word.lower() for word in CONTENT_WORD.findall(question)} & _PEOPLE:
        return []
    answers = [turn.text for turn in before if turn.role == "assistant"]
    if not answers or len(answers[-1]) > 400:
        return []
    names = [name for name in _names(_MARKER.sub("", answers[-1])) if name.lower() not in QUESTION_STOP_WORDS]
    return names[:3]


def _bounded(text: str) -> str:
    """At most ``MAX_QUERY_CHARACTERS``: the start and the end of a longer text, where questions usually are."""
    if len(text) <= MAX_QUERY_CHARACTERS:
        return text
    half = MAX_QUERY_CHARACTERS // 2 - 1
    return f"{text[:half].rsplit(' ', 1)[0]} {text[-half:].split(' ', 1)[-1]}"
