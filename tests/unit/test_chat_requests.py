import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.gateway.chat import decode_chat_request

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
WORDS = st.text('aé\\"\n', max_size=5)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def call(**fields):
    return decode_chat_request(msgspec.json.encode(BODY | fields))


@given(st.dictionaries(st.sampled_from(["top_k", "min_p", "guided_json", "metadata", "x"]), JSON_VALUES))
def test_unknown_fields_reach_the_provider_as_they_came(fields):
    made = msgspec.structs.replace(call(use_rag=False, **fields), model="other")
    assert msgspec.json.decode(made.upstream_body()) == BODY | fields | {"model": "other"}


def test_bytes_stay_where_nothing_changes():
    raw = b' {"messages":[{"role":"user","content":"\xc3\xa9 1.50"}] , "model":"m", "y": 1.50}\n'
    assert decode_chat_request(raw).upstream_body() == raw


def test_usage_is_asked_for_without_touching_other_options():
    made = call(stream=True, stream_options={"other": 1})
    sent = msgspec.json.decode(made.upstream_body(meter_usage=True))
    assert sent["stream_options"] == {"other": 1, "include_usage": True}
    made = call(stream=True, stream_options={"include_usage": True})
    assert made.upstream_body(meter_usage=True) == made.raw


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, False),
        ({"use_rag": None}, False),
        ({"use_rag": True}, True),
        ({"rag": {"top_k": 3}}, True),
        ({"use_rag": False, "rag": {"top_k": 3}}, False),
    ],
)
def test_when_documents_are_asked_for(fields, wanted):
    assert (call(**fields).request.rag_options is not None) == wanted


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"model":"m"', None),
        (b'{"model":"\xff","messages":[]}', None),
        (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":"m"}', "messages"),
        (b"[" * 100_000, None),
    ],
)
def test_what_is_no_request_is_refused(raw, param):
    with pytest.raises(InvalidRequest) as refused:
        decode_chat_request(raw)
    assert refused.value.param == param


def test_parts_of_all_kinds_are_legal():
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    made = call(messages=[{"role": "user", "content": parts}])
    assert made.request.messages[0].text == "What is this?"
    assert made.upstream_body() == made.raw


def test_the_newer_limit_goes_first():
    assert call(max_tokens=5, max_completion_tokens=7).request.reply_limit == 7
