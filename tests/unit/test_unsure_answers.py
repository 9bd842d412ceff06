"""An answer whose sentences may not answer the question says so before it quotes them, with citations."""

import asyncio

import msgspec

from ragsvc.core.answers.citations import CitedAnswer
from ragsvc.core.answers.extractive import answer
from ragsvc.core.gateway.chat import RetrievedPassages, decode_chat_request
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.providers.local_extractive import NEAREST, NO_ANSWER, LocalExtractive
from tests.support.small_corpus import count_tokens, passage

TEXT = "The harbour of Husum is full of boats in summer. The water is cold."


def reply_to(question: str, hits: list[SearchHit]) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": question}]}
    evidence = RetrievedPassages(query=question, hits=tuple(hits), answerable=0.9)
    call = msgspec.structs.replace(decode_chat_request(msgspec.json.encode(body)), evidence=evidence)
    reply = asyncio.run(LocalExtractive(answer, count_tokens=count_tokens).complete(call))
    return msgspec.json.decode(reply.body)["choices"][0]["message"]["content"]


def test_a_number_that_the_sentences_lack_is_not_claimed():
    hits = [SearchHit(passage=passage(1, TEXT), score=0.6, dense=0.5)]
    text = reply_to("How many boats did the harbour of Husum have in summer?", hits)
    assert text == f"{NEAREST}\n\nThe harbour of Husum is full of boats in summer. [1]"
    cited = CitedAnswer(hits, extractive=True)
    cited.feed(text)
    (citation,) = cited.citations()
    assert citation.quote == "The harbour of Husum is full of boats in summer."


def test_a_sentence_that_states_it_is_claimed():
    hits = [SearchHit(passage=passage(1, "The harbour of Husum had 40 boats in summer. It is old."), score=0.6)]
    text = reply_to("How many boats did the harbour of Husum have in summer?", hits)
    assert text == "The harbour of Husum had 40 boats in summer. [1]"
    assert NO_ANSWER not in text


def test_an_ordinal_is_no_number_of_things():
    ordinal = "The harbour of Husum was the first harbour with boats in summer. It is old."
    hits = [SearchHit(passage=passage(1, ordinal), score=0.6)]
    text = reply_to("How many boats did the harbour of Husum have in summer?", hits)
    assert text.startswith(NEAREST)


def test_a_number_of_other_things_does_not_count_the_things_asked_about():
    clubs = "Once a year members of the club in Husum meet. The club in Husum has 340 paying members."
    text = reply_to("How many members has the club in Husum?", [SearchHit(passage=passage(1, clubs), score=0.6)])
    assert text.startswith("The club in Husum has 340 paying members. [1]")


def test_a_share_of_all_is_not_claimed_for_a_group():
    all_of_them = "Nearly three-quarters (73%) of the members in Husum say the club should buy boats."
    hits = [SearchHit(passage=passage(1, all_of_them), score=0.6)]
    question = "What percentage of the members in Husum ages 18 to 29 say the club should buy boats?"
    assert reply_to(question, hits).startswith(NEAREST)
    assert not reply_to(question.replace("ages 18 to 29 ", ""), hits).startswith(NEAREST)
    assert not reply_to(question.replace("ages 18 to 29 say", "say on December 31"), hits).startswith(NEAREST)


def test_a_salary_that_no_sentence_states_is_denied():
    hits = [SearchHit(passage=passage(1, "Graduates at Husum Boats get a competitive salary."), score=0.6)]
    assert reply_to("What starting salary do graduates get at Husum Boats?", hits) == NO_ANSWER


def test_a_text_is_as_long_as_its_number_of_words():
    text = "The reviews of boats are old and long. We took reviews of boats that have between 30 and 80 words."
    reply = reply_to("How long are the reviews of boats?", [SearchHit(passage=passage(1, text), score=0.6)])
    assert reply.startswith("We took reviews of boats that have between 30 and 80 words. [1]")
