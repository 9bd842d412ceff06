"""Errors for malformed requests, worded alike whichever layer finds the fault.

A message names the field and states what is wrong with it; ``param`` holds the same path (``messages[0].role``). It is
``None`` only if the body as a whole is at fault.
"""

from __future__ import annotations

import ast
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar, cast

import msgspec
from msgspec import inspect

from ragsvc.core.defaults import MAX_COLLECTION_NAME_LENGTH
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.ids import END_OF_TEXT

T = TypeVar("T")

MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**63 - 1
"""The integers of the database."""

_LOCATED: Final = re.compile(r"(?P<problem>.*) - at `(?:key in )?\$\.?(?P<path>.*)`\Z", re.DOTALL)
_NAMED_FIELD: Final = re.compile(r"Object (?P<verb>missing required|contains unknown) field `(?P<name>[^`]*)`")
_WRONG_CHOICE: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_WRONG_FORM: Final = re.compile(r"Expected `str` matching regex ('.*'|\".*\")", re.DOTALL)
_STEP: Final = re.compile(r"[^.\[\]]+|(?<=\[)\.\.\.(?=\])")
_FORMS: Final = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}": "1 to 64 letters, digits, '.', '_' or '-', first a letter or digit",
    r"^[^\x00-\x1f\x7f]*": "text without control characters",
    r"^[!-~]+": "printable ASCII characters without spaces",
    r"^[0-9a-f]{64}": "64 hexadecimal digits in lower case",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}": "a day such as 2026-11-29",
    r"^https?://[^\s/]": "a URL that begins with http:// or https://",
}
"""Texts of certain forms in words, by their regular expression without the end."""


def decode_json(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode and validate a request body.

    Raises:
        InvalidRequest: empty, not JSON, or a field is missing, unknown, of the wrong type or out of range.
    """
    if not body:
        raise InvalidRequest("The request needs a JSON body.")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid_field(error, expected=decoder.type) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("The body is not valid JSON: it is not UTF-8.") from error
    except RecursionError as error:
        raise InvalidRequest("The body is not valid JSON: it is nested too deeply.") from error
    except msgspec.DecodeError as error:
        raise invalid_json(error) from error


def invalid_json(error: msgspec.DecodeError) -> InvalidRequest:
    """The error for a body that is not JSON."""
    return InvalidRequest(f"The body is not valid JSON: {_json_problem(error)}.")


def decode_json_parameter(path: str, text: str, type_: type[T]) -> T:
    """Decode and validate JSON in a text parameter, such as a field of a form.

    Raises:
        InvalidRequest: not JSON, or not of the type; ``param`` is ``path`` or a field below it.
    """
    try:
        return msgspec.json.decode(text, type=type_)
    except msgspec.ValidationError as error:
        raise invalid_field(error, within=path, expected=type_) from error
    except UnicodeError as error:
        raise invalid_value(path, "Not valid JSON: it is not UTF-8") from error
    except RecursionError as error:
        raise invalid_value(path, "Not valid JSON: it is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise invalid_value(path, f"Not valid JSON: {_json_problem(error)}") from error


def invalid_field(error: msgspec.ValidationError, *, within: str = "", expected: object = None) -> InvalidRequest:
    """The error for a field that msgspec refuses; ``param`` is the path of the field.

    ``within`` is the path of the value that was decoded, if it is a part of the body. ``expected`` is the type that was
    decoded: the message then lists the values of a field that has a few named ones.

    >>> invalid_field(msgspec.ValidationError("Expected `int`, got `str` - at `$.rag.top_k`")).message
    "'rag.top_k': expected `int`, got `str`."
    """
    text = str(error)
    located = _LOCATED.match(text)
    if located is None:
        return invalid_value(within or None, _with_choices(text, expected, ""))
    path = located["path"]
    problem = _with_choices(located["problem"], expected, path)
    return invalid_value(f"{within}.{path}".replace(".[", "[") if within else path, problem)


def _with_choices(problem: str, expected: object, path: str) -> str:
    """The problem of a value that is not one of a few, with these."""
    wrong = _WRONG_CHOICE.fullmatch(problem)
    choices = [] if wrong is None or expected is None else _choices(inspect.type_info(expected), _STEP.findall(path))
    if wrong is None or not choices:
        return problem
    return f"Expected {listed(choices)}, not {wrong[1]}"


def listed(choices: Sequence[object]) -> str:
    """The values in quotes, for messages.

    >>> listed(["auto"]), listed(["on", "off"]), listed([1, 2, 3])
    ("'auto'", "'on' or 'off'", '1, 2 or 3')
    """
    *others, last = map(repr, choices)
    return f"{', '.join(others)} or {last}" if others else last


def _choices(kind: inspect.Type, steps: Sequence[str]) -> list[object]:
    """The values of the enumeration or literal at a path below a type; none if there is something else."""
    if isinstance(kind, inspect.Metadata):
        return _choices(kind.type, steps)
    if isinstance(kind, inspect.UnionType):
        return next((found for part in kind.types if (found := _choices(part, steps))), [])
    if not steps:
        if isinstance(kind, inspect.EnumType):
            return sorted(member.value for member in kind.cls)
        return list(kind.values) if isinstance(kind, inspect.LiteralType) else []
    return next((found for inner in _inside(kind, steps[0]) if (found := _choices(inner, steps[1:]))), [])


def _inside(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    """The types that a step of a path can lead to."""
    match kind:
        case inspect.StructType() | inspect.TypedDictType() | inspect.DataclassType():
            yield from (field.type for field in kind.fields if field.encode_name == step)
        case inspect.DictType():
            yield from (kind.key_type, kind.value_type)
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
            yield kind.item_type
        case inspect.TupleType():
            yield from kind.item_types
        case _:
            return


def invalid_value(path: str | None, problem: str) -> InvalidRequest:
    """The error for the value at ``path``; ``problem`` is in the words of msgspec.

    >>> invalid_value("limit", "Expected `int` <= 100").message
    "'limit': expected `int` <= 100."
    >>> invalid_value("messages[0]", "Object missing required field `role`").message
    "'messages[0].role' is required."
    """
    field = _NAMED_FIELD.match(problem)
    if field is not None:
        place = f"{path}.{field['name']}" if path else str(field["name"])
        return missing_value(place) if field["verb"] == "missing required" else unknown_field(place)
    problem = _lower_first(_in_words(problem)).rstrip(".")
    return InvalidRequest(f"'{path}': {problem}." if path else f"The body: {problem}.", param=path or None)


def _in_words(problem: str) -> str:
    """The problem without the regular expression that a text has to match, where the expression has words."""
    found = _WRONG_FORM.fullmatch(problem)
    if found is None:
        return problem
    pattern = str(ast.literal_eval(found[1]))
    words = _FORMS.get(pattern.removesuffix(END_OF_TEXT))
    if words is not None:
        return f"Expected {words}"
    return (
        f"Expected `str` matching regex '{pattern.removesuffix(END_OF_TEXT)}$'" if END_OF_TEXT in pattern else problem
    )


def check_text_length(path: str, text: str, *, maximum: int) -> None:
    """Refuse an empty text, and a text of more than ``maximum`` characters. Raises ``InvalidRequest``."""
    if not text:
        raise invalid_value(path, "Expected `str` of length >= 1")
    if len(text) > maximum:
        raise invalid_value(path, f"Expected `str` of length <= {maximum}")


def check_collection_name(path: str, name: str) -> None:
    """Refuse a name that no URL can carry: clients resolve ``.`` and ``..`` in paths (RFC 3986 §5.2.4).

    Raises:
        InvalidRequest: also for control characters, and for a name that is empty or too long.
    """
    check_text_length(path, name, maximum=MAX_COLLECTION_NAME_LENGTH)
    if any(part in {".", ".."} for part in name.split("/")):
        raise invalid_value(path, "Expected a name without the parts '.' and '..'")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise invalid_value(path, "Expected a name without control characters")


def check_nesting(path: str, value: object, *, maximum: int = 32) -> None:
    """Refuse JSON with more than ``maximum`` levels: encoders and comparisons recurse. Raises ``InvalidRequest``."""
    level: list[object] = [value]
    for _ in range(maximum):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(cast("dict[str, object]", item).values())
            elif isinstance(item, list):
                inner.extend(cast("list[object]", item))
        if not inner:
            return
        level = inner
    raise invalid_value(path, f"Expected at most {maximum} levels of nesting")


def check_number(path: str, value: object) -> None:
    """Refuse integers beyond 64 bits and infinite numbers, which cannot be stored. Raises ``InvalidRequest``."""
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise invalid_value(path, f"Expected `int` from {MIN_INTEGER} to {MAX_INTEGER}")
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid_value(path, "Expected a finite number")


def check_not_blank(path: str, text: str) -> None:
    """Refuse a text without a character other than white space. Raises ``InvalidRequest``."""
    if not text.strip():
        raise invalid_value(path, "Expected text that is not empty or white space")


def missing_value(path: str) -> InvalidRequest:
    """The error for a required field or parameter that the request lacks."""
    return InvalidRequest(f"'{path}' is required.", param=path)


def unknown_field(path: str) -> InvalidRequest:
    """The error for a field that does not exist."""
    return InvalidRequest(f"'{path}' is not a known field.", param=path)


def as_sentence(text: str) -> str:
    """Text of a library as a sentence: an upper-case letter at the beginning, a full stop at the end.

    >>> as_sentence("validation failed")
    'Validation failed.'
    """
    text = text.strip()
    return text if not text else text[0].upper() + text[1:].rstrip(".") + "."


def _json_problem(error: msgspec.DecodeError) -> str:
    return _lower_first(str(error).removeprefix("JSON is malformed: "))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
