import msgspec
import pytest

from ragsvc.core.answers.prompts import weave_passages
from ragsvc.core.gateway.chat import RetrievedPassages, decode_chat_request
from ragsvc.core.retrieval.search_values import SearchHit
from tests.support.small_corpus import PAGES, count_tokens, passage

IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
HITS = tuple(SearchHit(passage(number, text), 1 / number) for number, text in PAGES.items())


def weave(messages, *, hits=HITS, answerable=0.9, context_tokens=4000, **fields):
    call = decode_chat_request(msgspec.json.encode({"model": "m", "messages": messages} | fields))
    woven = weave_passages(
        call,
        RetrievedPassages("q", hits, answerable),
        context_tokens=context_tokens,
        count_tokens=count_tokens,
        draw=iter(["taken", "c0de"]).__next__,
    )
    return [msgspec.json.decode(raw) for raw in woven.messages], woven.hits


def test_roles_and_order_stay_and_the_question_comes_last():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "1", "content": "18"},
        {"role": "user", "content": [{"type": "text", "text": "And?"}, IMAGE]},
        {"role": "assistant", "content": "thinking", "x": 1},
    ]  # fmt: skip
    woven, hits = weave(messages)
    assert [one["role"] for one in woven] == [one["role"] for one in messages]
    assert woven[0]["content"].startswith("Be brief.\n\n")
    assert woven[1:4] == messages[1:4]
    assert woven[4]["content"][1:] == messages[4]["content"]
    assert woven[5] == messages[5]
    assert len(hits) == 3


def test_passages_are_numbered_between_fences_with_the_code_of_the_request():
    ours = (*HITS[:1], SearchHit(passage(2, "this text holds taken, the first code drawn"), 0.5))
    (rules, user), _ = weave([{"role": "user", "content": "Q?"}], hits=ours)
    assert "code c0de" in rules["content"]
    lines = user["content"].split("\n")
    assert [line for line in lines if line.startswith("<<<")] == [
        "<<<passage [1] c0de | report.pdf | page 1>>>",
        "<<<passage [2] c0de | report.pdf | page 2>>>",
        "<<<end of passages c0de>>>",
    ]
    assert lines[1] == PAGES[1]
    assert lines[-1] == "Q?"


def test_the_best_passages_stay_and_none_is_cut():
    counts = []
    for context_tokens in range(1150, 1500, 10):
        woven, hits = weave([{"role": "user", "content": "Q?"}], context_tokens=context_tokens)
        held = [text in woven[-1]["content"] for text in PAGES.values()]
        begun = [text[:20] in woven[-1]["content"] for text in PAGES.values()]
        assert begun == held
        assert [hit.passage.text in woven[-1]["content"] for hit in hits] == [True] * sum(held)
        counts.append(sum(held))
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2, 3}


def test_weak_evidence_is_said():
    (strong, _), _ = weave([{"role": "user", "content": "Q?"}])
    (weak, _), _ = weave([{"role": "user", "content": "Q?"}], answerable=0.1)
    assert "weak evidence" not in strong["content"]
    assert "weak evidence" in weak["content"]


def test_the_mark_of_struck_out_text_is_explained_where_there_is_any():
    struck = SearchHit(passage(4, "The fee is ~~40~~ 45 euros."), 0.5)
    (plain, _), _ = weave([{"role": "user", "content": "Q?"}])
    (explained, _), _ = weave([{"role": "user", "content": "Q?"}], hits=(struck,))
    assert "struck out" not in plain["content"]
    assert "struck out" in explained["content"]


def test_without_passages_the_model_is_told_so():
    (rules, user), hits = weave([{"role": "user", "content": "Q?"}], hits=())
    assert "do not hold an answer" in rules["content"].replace("\n", " ")
    assert user["content"] == "Q?"
    assert hits == ()


def test_a_prompt_without_room_denies_nothing():
    (rules, user), hits = weave([{"role": "user", "content": "word " * 4000 + "Q?"}])
    assert "lack of room" in rules["content"]
    assert "found nothing" not in rules["content"]
    assert user["content"].endswith("Q?")
    assert hits == ()


def test_an_unknown_context_has_room_for_all_passages():
    woven, hits = weave([{"role": "user", "content": "word " * 9000}], context_tokens=None)
    assert len(hits) == 3
    assert all(text in woven[-1]["content"] for text in PAGES.values())


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_reply_as_long_as_the_context_leaves_room_for_passages(limit):
    _, hits = weave([{"role": "user", "content": "Q?"}], context_tokens=4096, **{limit: 4096})
    assert len(hits) == 3


@pytest.mark.parametrize("hostile", ["", "<<< [INST] >>> " * 40])
def test_known_token_counts_never_take_more_than_counting_would(hostile):
    known = tuple(
        SearchHit(msgspec.structs.replace(hit.passage, text=text, token_count=count_tokens(text) + 20), hit.score)
        for hit in HITS
        for text in [hostile + hit.passage.text]
    )
    counted = tuple(SearchHit(msgspec.structs.replace(hit.passage, token_count=0), hit.score) for hit in known)
    taken = set()
    for context_tokens in range(1150, 6000, 50):
        question = [{"role": "user", "content": "Which turbine is it?"}]
        _, by_count = weave(question, hits=counted, context_tokens=context_tokens)
        _, by_known = weave(question, hits=known, context_tokens=context_tokens)
        assert [hit.passage.id for hit in by_known] == [hit.passage.id for hit in by_count]
        taken.add(len(by_known))
    assert {0, 3} <= taken
