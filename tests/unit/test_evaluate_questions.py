"""Files of questions and settings: what is wrong is named with its line and field, and nothing is half read."""

from pathlib import Path

import pytest

from ragsvc.cli.evaluate import evaluation_failures
from ragsvc.cli.failures import CommandFailed, ExitCode
from ragsvc.core.retrieval.search_values import SearchMode
from ragsvc.evaluation.questions import read_questions
from ragsvc.evaluation.settings import choose_settings


def read(tmp_path: Path, *lines: str | bytes):
    path = tmp_path / "вопросы.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return read_questions(path)


def test_questions_are_read_with_their_lines(tmp_path: Path) -> None:
    asked = read(
        tmp_path,
        b'\xef\xbb\xbf{"question": "Wo?", "document": "\xc3\x9cbersicht.pdf", "pages": [1, 3]}\r',
        "  ",
        '{"question": "Who?", "id": 7, "answerable": false}',
        '{"question": "Which?", "excerpts": ["the 8.3 million shares"]}',
    )
    assert [(one.line, one.id) for one in asked] == [(1, "line 1"), (3, "7"), (4, "line 4")]
    assert (asked[0].question.document, asked[0].question.pages) == ("Übersicht.pdf", (1, 3))
    assert (asked[1].question.answerable, asked[2].question.answerable) == (False, True)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('{"document": "a.pdf"}', "'question' is required"),
        ('{"question": "  "}', "'question':"),
        ('{"question": "a", "pages": [1]}', "'document':"),
        ('{"question": "a", "document": "d", "pages": [0]}', "'pages[0]'"),
        ('{"question": "a", "document": "d", "pages": "12"}', "'pages'"),
        ('{"question": "a", "document": "d", "page": 12}', "'page' is not a known field"),
        ('{"question": "a", "excerpts": ["long enough", "a b"]}', "'excerpts[1]'"),
        ('{"question": "a", "answerable": "no"}', "'answerable'"),
        ('{"question": "a", "answerable": false, "answer": "yes"}', "'answer'"),
        ('{"question": "a", "document": "d", "answerable": false, "pages": [2]}', "'pages'"),
        ('["a"]', "object"),
        ('{"question": "a"', "not a JSON"),
        (b'{"question": "\xff"}', "not a JSON"),
        ('{"question": "\\ud800"}', "not a JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str | bytes, field: str) -> None:
    with pytest.raises(CommandFailed) as caught, evaluation_failures():
        read(tmp_path, '{"question": "good"}', line)
    assert caught.value.code == "bad_questions"
    assert caught.value.message.startswith("вопросы.jsonl:2: ")
    assert field in caught.value.message


def test_all_bad_lines_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"jsonl:1: .*jsonl:3: .*jsonl:9: .*and 2 more"), evaluation_failures():
        read(tmp_path, "1", '{"question": "good"}', *["{}"] * 9)
    with pytest.raises(CommandFailed, match="the id 'x' is repeated on lines 1, 2"), evaluation_failures():
        read(tmp_path, '{"question": "a", "id": "x"}', '{"question": "b", "id": "x"}')


def test_no_questions_and_no_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="contains no questions"), evaluation_failures():
        read(tmp_path, "", "  ")
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CommandFailed) as caught, evaluation_failures():
            read_questions(path)
        assert caught.value.exit_code is ExitCode.USAGE


def test_settings_are_modes_or_what_a_search_takes() -> None:
    assert [one.name for one in choose_settings([], [], top_k=7, filters=None)] == ["hybrid", "dense", "lexical"]
    chosen = choose_settings(
        ["dense"],
        [
            "name=words, mode=lexical,min_score=0.25",
            "top_k=3",
            '{"name": "q3", "filters": {"type": "eq", "key": "q", "value": 3}}',
        ],
        top_k=7,
        filters=None,
    )
    assert [one.name for one in chosen] == ["dense", "words", "top_k=3", "q3"]
    assert [one.top_k for one in chosen] == [7, 7, 3, 7]
    assert (chosen[1].mode, chosen[1].min_score) == (SearchMode.LEXICAL, 0.25)
    assert chosen[3].body("c", ["d"])["filters"] == {"type": "eq", "key": "q", "value": 3}


@pytest.mark.parametrize(
    ("modes", "texts", "said"),
    [
        (["fast"], [], "fast"),
        ([], ["mode=lexical,topk=3"], "'topk' is not a known field"),
        ([], ["lexical"], "'lexical' has no value"),
        ([], ["top_k=0"], "'top_k'"),
        ([], ["min_score=2"], "'min_score'"),
        ([], ['{"filters": {"type": "like"}}'], "--setting"),
        ([], ['{"name": '], "JSON"),
        (["dense", "dense"], [], "same name"),
        ([], [f"top_k={k}" for k in range(1, 14)], "at most"),
    ],
)
def test_wrong_settings_are_usage_errors(modes: list[str], texts: list[str], said: str) -> None:
    with pytest.raises(CommandFailed) as caught, evaluation_failures():
        choose_settings(modes, texts, top_k=10, filters=None)
    assert caught.value.exit_code is ExitCode.USAGE
    assert said in caught.value.message
