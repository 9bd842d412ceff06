import msgspec
import pytest

from ragsvc.core import errors
from ragsvc.core.errors import RagsvcError, RateLimited
from ragsvc.web.errors import RENDERINGS, render, rendering_of

DOCUMENTED = {400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 502, 503, 504, 507}


def all_errors(root=RagsvcError):
    for cls in root.__subclasses__():
        yield cls
        yield from all_errors(cls)


def example(cls):
    special = {
        errors.TooLarge: lambda: cls("m", limit_bytes=1),
        errors.RateLimited: lambda: cls("m", retry_after_s=1.5),
        errors.ConfigurationError: lambda: cls(["m"]),
        errors.CryptoFailure: cls,  # one message for every cause
        errors.ExtractionFailed: lambda: cls(errors.FailureReason.DAMAGED, "m"),
    }
    return special.get(cls, lambda: cls("m"))()


def test_every_error_of_the_tree_has_its_own_status():
    ours = [cls for cls in all_errors() if cls.__module__ == "ragsvc.core.errors"]
    assert len(ours) >= 28
    assert [cls.__name__ for cls in ours if cls not in RENDERINGS] == []
    assert {rendering.status for rendering in RENDERINGS.values()} <= DOCUMENTED


@pytest.mark.parametrize("cls", list(RENDERINGS), ids=lambda cls: cls.__name__)
def test_each_error_reads_the_same_way(cls):
    rendered = render(example(cls), "req_1")
    body = msgspec.json.decode(rendered.content)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code", "request_id"}
    assert body["error"]["message"] == example(cls).message
    assert body["error"]["code"] == cls.code
    assert body["error"]["request_id"] == "req_1"
    assert rendered.event == b"data: " + rendered.content + b"\n\n"
    advised = rendered.status in (402, 408, 409, 429) or rendered.status >= 500
    assert ("x-should-retry" in rendered.headers) == advised


def test_an_error_nobody_listed_takes_after_its_ancestor():
    class Special(errors.DocumentNotFound):
        pass

    assert rendering_of(Special("m")).status == 404


def test_the_specifications_policy_denial():
    rendered = render(errors.PolicyDenied("Key 'quickstart' lacks scope for model 'operayde/large-70b'."), "req_01HZ")
    assert rendered.status == 403
    error = rendered.body.error
    assert (error.code, error.type, error.request_id) == ("policy_denied", "policy", "req_01HZ")


def test_advice_on_retrying():
    soon = render(RateLimited("m", retry_after_s=1.2004), None).headers
    assert soon == {"retry-after": "2", "retry-after-ms": "1201", "x-should-retry": "true"}
    gone = render(RateLimited("m", retry_after_s=3600, budget_gone=True), None).headers
    assert (gone["x-should-retry"], gone["retry-after"]) == ("false", "3600")
    assert render(errors.Overloaded("m", retry_after_s=7), None).headers["retry-after"] == "7"
    assert render(errors.ModelUnavailable("m"), None).headers["retry-after"] == "1"
    assert render(errors.Conflict("m"), None).headers["x-should-retry"] == "false"
    assert render(errors.BalanceExhausted("m"), None).headers["x-should-retry"] == "false"


def test_an_unexpected_error_tells_nothing_of_itself():
    rendered = render(ZeroDivisionError("secret detail"), "req_1")
    assert rendered.status == 500
    assert b"secret" not in rendered.content
    assert rendered.body.error.code == "internal_error"


class Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    n: int = 1


class Chat(msgspec.Struct):
    messages: list[Message]


@pytest.mark.parametrize(
    ("text", "param"),
    [
        (b'{"messages":[{"role":1}]}', "messages[0].role"),
        (b'{"messages":[{}]}', "messages[0].role"),
        (b"{}", "messages"),
        (b'{"messages":[{"role":"a","x":1}]}', "messages[0].x"),
        (b"[]", None),
        (b"{", None),
    ],
)
def test_a_wrong_field_is_named(text, param):
    with pytest.raises(msgspec.DecodeError) as refused:
        msgspec.json.decode(text, type=Chat)
    rendered = render(refused.value, None)
    assert (rendered.status, rendered.body.error.param) == (400, param)
