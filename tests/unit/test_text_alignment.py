"""Two readings of a page are aligned with little work, also where they have nothing in common."""

import numpy as np

from ragsvc.extract.text_alignment import align


class CountingText(str):
    """A text that counts the letters of what is looked up in it."""

    __slots__ = ("looked_up",)

    def __contains__(self, part: str) -> bool:
        self.looked_up = getattr(self, "looked_up", 0) + len(part)
        return super().__contains__(part)


def letters(*, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("abcdefghijklmnopqrstuvwxyz"), 2000))


def test_a_stretch_that_the_other_reading_lacks_is_not_looked_up_as_a_whole():
    text, other = letters(seed=3), letters(seed=4)
    counting = CountingText(other)
    assert align(text, 0, len(text), counting) == []
    assert counting.looked_up < 50 * len(text)


def test_a_long_run_is_found_as_a_whole():
    text = letters(seed=5)
    (run,) = align(text, 500, 1500, "xyz" + text)
    assert (run.start, run.found, run.length) == (500, 503, 1000)
