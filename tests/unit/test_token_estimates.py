"""What a chat request reserves before it is answered."""

from collections.abc import Sequence

import msgspec
import pytest

from ragsvc.core.defaults import DEFAULT_REPLY_TOKENS
from ragsvc.core.gateway.chat import decode_chat_request
from ragsvc.core.retrieval.search_values import SearchQuery
from ragsvc.services.answers import estimated_tokens

MESSAGES = [{"role": "user", "content": "What was the revenue?"}]


def estimate(*, default_top_k: int = 10, searches: Sequence[SearchQuery] = (), **fields) -> int:
    call = decode_chat_request(msgspec.json.encode({"model": "m", "messages": MESSAGES} | fields))
    return estimated_tokens(call.request, default_top_k=default_top_k, searches=searches)


@pytest.mark.parametrize("passages", [1, 40])
def test_passages_are_reserved_as_the_operator_set_their_number(passages):
    added = estimate(use_rag=True, default_top_k=passages) - estimate(default_top_k=passages)
    assert added == passages * 256


def test_the_requests_own_number_of_passages_goes_first():
    assert estimate(rag={"top_k": 3}, default_top_k=40) - estimate() == 3 * 256


def test_searches_have_their_own_numbers_of_passages():
    searches = [SearchQuery(text="", top_k=2), SearchQuery(text="", top_k=50)]
    assert estimate(use_rag=True, searches=searches, default_top_k=10) - estimate() == 50 * 256


def test_every_choice_may_have_the_longest_reply():
    assert estimate(n=3) - estimate() == 2 * DEFAULT_REPLY_TOKENS
    assert estimate(n=3, max_tokens=50) - estimate(max_tokens=50) == 2 * 50
