"""Builds a search query from a conversation.

Uses rules on words and no model. A complete question is the query; an elliptic question ("and in 2022?") is completed
from the user's earlier turns. Independent of indexes and prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.core.text.content_words import CONTENT_WORD, content_words
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS

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
_PEOPLE: Final = _words("he him his she her hers they them their er ihm ihn sie ihr он она они его её ее их 他 她 他们")
_OPENER: Final = re.compile(
    r"^\s*(?:and|but|or|also|so|what about|how about|same for|und|aber|auch|oder|wie ist es mit|was ist mit|а|и|но"
    r"|а как|что насчёт)\b[\s,:]*|^\s*(?:那么|那|还有)",
    re.IGNORECASE,
)
_SMALL_TALK: Final = re.compile(
    r"^\W*(?:(?:hi|hello|hey|good (?:morning|afternoon|evening|day)|thanks?(?: (?:you|a lot|so much))*|many thanks|thx"
    r"|ok(?:ay)?|great|cool|nice|perfect|got it|understood|i see|bye|goodbye|see you|yes|no|sure|right|well|there"
    r"|very much|for your help|how are you(?: doing)?|hallo|guten (?:tag|morgen|abend)|danke(?: schön)?|vielen dank"
    r"|привет|здравствуйте|спасибо|хорошо|пока|да|нет|你好|您好|谢谢|好的|再见)(?:\W+|$))+",
    re.IGNORECASE,
)
_POLITE: Final = re.compile(
    r"^(?:please|kindly|(?:can|could|would|will) you(?: please)?(?: (?:tell|show|give|explain(?: to)?) me)?"
    r"|(?:tell|show|give) me|i (?:would like|want|need) to know|i(?:'d| would) like to know|do you know|bitte"
    r"|(?:kannst du|können sie)(?: mir)?(?: bitte)?(?: sagen)?,?|скажите|пожалуйста|请|请问)[\s,:]+",
    re.IGNORECASE,
)
_PERIOD: Final = re.compile(r"\b(?:Q[1-4]|(?:19|20)\d\d|(?:first|second|third|fourth) quarter)\b", re.IGNORECASE)
_NAME: Final = re.compile(r"\b(?:[A-Z][\w&.-]*[\w&]|[A-Z]{2,})(?:[ -](?:of |the |and )?[A-Z][\w&.-]*[\w&])*")
_MARKER: Final = re.compile(r"\[\d+\]")


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
    text = clean_question(question)
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
    names = _answer_names(turns[: asked[-1]], question) if follow_up else []
    return ConversationQuery(_bounded(" ".join([text, *names])), question, follow_up=follow_up)


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
    topics = [word for word in content if not _PERIOD.fullmatch(word)]
    if _OPENER.match(text) and len(topics) < _SELF_CONTAINED_WORDS:
        return True
    if not topics:
        return True
    words = {word.lower() for word in CONTENT_WORD.findall(text)}
    if words & _POINTERS and len([w for w in topics if w not in _POINTERS]) < _SELF_CONTAINED_WORDS - 1:
        return True
    return len(CONTENT_WORD.findall(text)) <= 2 and len(topics) <= 1 and text[0] < "\u4e00"


def _complete(follow_up: str, earlier: str) -> str:
    """The earlier question with its period or name replaced by the follow-up's; otherwise both texts."""
    addition = _OPENER.sub("", follow_up, count=1).strip()
    merged, used = earlier, set[str]()
    merged, used = _replace_periods(merged, addition)
    names, old_names = _names(addition), _names(earlier)
    if len(names) == 1 and len(old_names) == 1 and names[0].lower() not in earlier.lower():
        merged = merged.replace(old_names[0], names[0])
        used |= {word.lower() for word in names[0].split()}
    rest = [word for word in content_words(addition) if word not in used and word not in merged.lower()]
    rest = [word for word in rest if word not in _POINTERS]
    if not rest:
        return merged
    return f"{merged} {addition.rstrip(' ?？') if len(rest) > 1 else ' '.join(rest)}"


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
        first = match.start() == 0 or text[: match.start()].rstrip()[-1:] in {".", "?", "!", ":"}
        if _PERIOD.fullmatch(name) or (first and name.lower() in QUESTION_STOP_WORDS):
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
