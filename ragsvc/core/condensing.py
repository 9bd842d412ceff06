"""What of a passage's text is worth embedding: its words, without function words and all punctuation but full stops.

An encoder's time grows with tokens, and a third of a report's tokens are "of the" and ", $ ( )". Leaving them out of
what is *embedded* (never of what is stored, quoted, or indexed for words) makes room for longer passages and loses no
retrieval quality: ``scripts/evaluation/TECHNIQUES.md`` has the figures per set. Questions are embedded as they are.
"""

from __future__ import annotations

import re
from typing import Final

FUNCTION_WORDS: Final = frozenset(
    """a an and any are as at be been by for from had has have in is it its may of on or our such that the their these
    this those to was we were which with""".split()
)
"""English words that name nothing; negations, question words and the like are not among them."""

_DROPPED: Final = re.compile(
    rf"(?<![^\W_])(?:{'|'.join(sorted(FUNCTION_WORDS))})(?![^\W_])"
    r"|[!-\-/:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7]"  # ASCII but full stops, Latin-1
    r"|[\u2010-\u205e\u20a0-\u20cf\u2190-\u2bff]"  # dashes, quotes, bullets; currencies; arrows, mathematics, boxes
    r"|[\u3001-\u3003\u3008-\u3020\uff01-\uff0f\uff1a-\uff20]",  # Chinese and Japanese
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"\w")
_STOPS: Final = re.compile(r"\.(?:\s*\.)+")


def condense(text: str) -> str:
    """The text without function words and punctuation; as it is where nothing would be left.

    >>> condense("Net sales of the Company ($ 54,671) were up by 2.5%. . . . . 12")
    'Net sales Company 54 671 up 2.5 . 12'
    >>> condense("(To be, or ...)")
    '(To be, or ...)'
    """
    lines = (" ".join(_DROPPED.sub(" ", line).split()) for line in text.split("\n"))
    condensed = _STOPS.sub(".", "\n".join(line for line in lines if line))
    return condensed if _WORD.search(condensed) else text
