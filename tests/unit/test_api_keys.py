import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.access.api_keys import ApiKey, draw_secret, key_id_of
from ragsvc.core.access.principal import Principal, Scope, allows_model, covers_models, require_model, require_scope
from ragsvc.core.errors import PolicyDenied
from ragsvc.core.ids import KeyId, TenantId


def drawn(fill: int = 7):
    return draw_secret(lambda count: bytes([fill]) * count)


@given(st.binary(min_size=38, max_size=38))
def test_every_drawn_key_gives_its_id_back(random):
    source = iter([random[:6], random[6:]])
    secret = draw_secret(lambda _: next(source))
    assert key_id_of(secret.text.encode()) == secret.key_id
    assert secret.digest == hashlib.sha256(secret.text.encode()).digest()


@pytest.mark.parametrize(
    "text", [b"", b"rag_", b"rag_abc", b"rag_abc_", b"rag__x", b"rag_a\xff_x", b"sk-1", b"rag_a_" + b"x" * 300]
)
def test_other_texts_are_no_keys(text):
    assert key_id_of(text) is None


@given(st.binary(max_size=80))
def test_reading_an_id_never_fails(text):
    key_id_of(text)
    key_id_of(b"rag_" + text)


def test_the_previous_secret_ends_with_its_overlap():
    old, new = drawn(1), drawn(2)
    key = ApiKey(
        id=new.key_id, tenant=TenantId("t"), label="l", secret_hash=new.digest,
        previous_secret_hash=old.digest, previous_expires_at=100,
    )  # fmt: skip
    assert key.accepts(new.text.encode(), now=1e9)
    assert key.accepts(old.text.encode(), now=99.9)
    assert not key.accepts(old.text.encode(), now=100)
    assert not key.accepts(new.text.encode() + b"x", now=0)


def principal(*models: str, scopes=frozenset({Scope.CHAT})):
    return Principal(KeyId("key_1"), TenantId("t"), "quickstart", scopes, models)


def test_models_are_allowed_by_name_and_glob():
    assert allows_model(principal(), "anything")
    assert allows_model(principal("a/b"), "a/b")
    assert allows_model(principal("x", "openai/*"), "openai/gpt")
    assert not allows_model(principal("openai/*"), "Openai/gpt")
    assert not allows_model(principal("a/b"), "a/bc")


def test_a_denied_model_reads_as_the_specification_has_it():
    with pytest.raises(PolicyDenied) as denied:
        require_model(principal("operayde/instruct-13b"), "operayde/large-70b")
    assert denied.value.message == "Key 'quickstart' lacks scope for model 'operayde/large-70b'."


def test_a_missing_scope_is_named():
    require_scope(principal(), Scope.CHAT)
    with pytest.raises(PolicyDenied, match=r"documents\.write"):
        require_scope(principal(), Scope.DOCUMENTS_WRITE)


@given(
    own=st.lists(st.text("ab*?[]!", max_size=4), max_size=2),
    granted=st.lists(st.text("ab*?[]!", max_size=4), max_size=2),
    model=st.text("ab", max_size=4),
)
def test_granted_models_reach_no_model_beyond_the_own_ones(own, granted, model):
    def reaches(names):
        key = Principal(KeyId("k"), TenantId("t"), "k", frozenset(), allowed_models=tuple(names))
        return allows_model(key, model)

    if covers_models(own, granted) and reaches(granted):
        assert reaches(own)


@pytest.mark.parametrize(
    ("own", "granted", "covered"),
    [
        ([], ["any"], True),
        ([], [], True),
        (["m1"], [], False),
        (["m1"], ["m1"], True),
        (["m1"], ["m1", "m2"], False),
        (["small/*"], ["small/7b", "small/*", "small/q?-*"], True),
        (["small/*"], ["small*"], False),
        (["m?"], ["m*"], False),
        (["m?"], ["m?"], True),
        (["m[!x]"], ["m*"], False),
    ],
)
def test_granted_models_are_compared_with_the_own_ones(own, granted, covered):
    assert covers_models(own, granted) is covered
