"""Common English words that a question and a document use for the same thing, such as "paid" and "reimbursed". Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ragsvc.core.text.word_starts import word_start

_GROUPS: Final = tuple(
    tuple(line.split())
    for line in """
    pay pays paid payment reimburse reimbursed compensate compensated remunerated wage salary
    fund funded funding finance financed supported sponsored sponsor grant
    cost costs costing price prices priced fee fees charge charged expense
    live lives lived living population inhabitants residents reside
    interviewed surveyed respondents polled questioned
    start starts started starting begin begins began begun launched commenced
    founded established formed created incorporated
    increase increased increases rose risen rise rises grew grown growth climbed
    decrease decreased decreases fell fallen declined decline dropped drop shrank
    buy buys bought acquire acquired acquisition purchase purchased
    build built construct constructed construction erected
    use uses used employ employed utilize utilized utilised
    employees staff workers workforce headcount
    located location based headquartered situated
    died die dies death deaths killed fatalities
    led leads lead headed chaired
    goal goals aim aims aimed objective objectives purpose target
    weigh weighs weight
    tall height high
    long length
    require requires required requirement need needs needed necessary
    big large size
    ended ends finished terminated discontinued
    see sees view views viewed consider considers considered regard regarded
    favor favors favour favours support supports
    drawback drawbacks disadvantage disadvantages limitation limitations shortcoming shortcomings weakness weaknesses
    benefit benefits advantage advantages
    allowed permitted
    learn learns learned gain gains
    choose chooses chosen select selected picked
    happen happened occurred
    author authors wrote written
    yearly annual annually year
    say says said think thinks believe believes
    doctor doctors physician physicians
    car cars vehicle vehicles
    company companies firm firms
    mistake mistakes error errors
    sent mailed shipped
    fix fixed repair repaired
    percent percentage proportion share
    rid remove removed eliminate eliminated
    hire hires hired recruit recruited
    picture pictures image images photo photos
    teacher teachers educators
    latino latinos latina latinas hispanic hispanics
    gop republican republicans
    """.strip().splitlines()
)


def _by_start() -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for group in _GROUPS:
        starts = dict.fromkeys(word_start(word) for word in group)
        for start in starts:
            found.setdefault(start, {}).update(starts)
    return {start: tuple(other for other in others if other != start) for start, others in found.items()}


_SYNONYMS: Final = _by_start()


@lru_cache(maxsize=4096)
def synonym_starts(start: str) -> Sequence[str]:
    """The word starts of a word's synonyms, for a word start as ``core.text.word_starts`` makes it.

    >>> " reimbursed" in synonym_starts(word_start("paid"))
    True
    >>> synonym_starts(word_start("boat"))
    ()
    """
    return _SYNONYMS.get(start, ())
