"""Search queries from conversations, including follow-ups that need an earlier turn."""

# ruff: noqa: RUF001 - questions in several scripts

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.retrieval.conversation_query import (
    MAX_QUERY_CHARACTERS,
    Turn,
    clean_question,
    content_words,
    make_query,
)


def ask(*texts: str) -> str:
    """User and assistant in turns; the last text is the user's."""
    roles = ["user", "assistant"] * len(texts)
    return make_query([Turn(role, text) for role, text in zip(roles, texts, strict=False)]).text


SALES = "What were Apple's net sales in 2023?"


@pytest.mark.parametrize(
    ("conversation", "query"),
    [
        ([SALES], SALES),
        ([SALES, "383", "And in 2022?"], "What were Apple's net sales in 2022?"),
        ([SALES, "383", "in 2022?"], "What were Apple's net sales in 2022?"),
        ([SALES, "383", "And Microsoft?"], "What were Microsoft's net sales in 2023?"),
        ([SALES, "383", "What about Microsoft in 2021?"], "What were Microsoft's net sales in 2021?"),
        ([SALES, "383", "And in 2022?", "394", "And Microsoft?"], "What were Microsoft's net sales in 2022?"),
        ([SALES, "383", "Why?"], SALES),
        ([SALES, "383", "Thanks!", "You are welcome.", "And in 2022?"], "What were Apple's net sales in 2022?"),
        ([SALES, "383", "Who is the auditor of Intel Corporation?"], "Who is the auditor of Intel Corporation?"),
        (["Hello there!", "Hi", "What is the notice period for tenants?"], "What is the notice period for tenants?"),
        (["What was Intel's revenue in Q1 2023?", "11.7", "And in Q2?"], "What was Intel's revenue in Q2 2023?"),
        (["Wie hoch war der Umsatz von Siemens im Jahr 2021?", "62", "Und 2022?"],
         "Wie hoch war der Umsatz von Siemens im Jahr 2022?"),
        (["Какая выручка была у Газпрома в 2021?", "10", "А в 2022?"], "Какая выручка была у Газпрома в 2022?"),
        (["2021年的收入是多少？", "10", "2022年呢？"], "2021年的收入是多少？ 2022年呢"),
    ],
)  # fmt: skip
def test_query_of_a_conversation(conversation: list[str], query: str):
    assert ask(*conversation) == query


def test_a_pronoun_brings_the_topic_of_the_turn_before():
    query = ask("Who is the chief executive of Acme?", "Jane Roe [1]", "When was she appointed?")
    assert "chief executive of Acme" in query
    assert "appointed" in query
    assert "Jane Roe" in query


def test_a_full_question_with_a_pronoun_stands_alone():
    question = "How does the warranty cover battery defects when it is used in industrial vehicles?"
    assert ask("What is the weight of the headset?", "92 g", question) == question


@pytest.mark.parametrize(
    "text", ["Hi", "hello!", "Thank you so much!", "ok, great", "Danke!", "спасибо", "谢谢", " ?! "]
)
def test_small_talk_asks_nothing(text: str):
    assert ask(SALES, "383", text) == ""


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Hi, what is Wi-Fi?", "what is Wi-Fi?"),
        ("Please could you tell me the fee?", "the fee?"),
        ("Hisense makes what?", "Hisense makes what?"),
        ("No. of employees in 2022", "of employees in 2022"),
        ("请问收入是多少？", "请问收入是多少？"),
    ],
)
def test_cleaning(text: str, cleaned: str):
    assert clean_question(text) == cleaned


def test_no_user_turn_is_no_query():
    assert make_query([Turn("system", "You are helpful.")]).text == ""
    assert make_query([]).text == ""


def test_content_words_keep_numbers_and_names():
    assert content_words("According to AT&T, what is the 5.5% fee of the U.S. in 2020?") == [
        "at&t", "5.5", "fee", "u.s", "2020"
    ]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=3000)), max_size=6))
def test_any_conversation_gives_a_bounded_query(turns: list[tuple[str, str]]):
    query = make_query([Turn(*turn) for turn in turns])
    assert len(query.text) <= MAX_QUERY_CHARACTERS * 2


COURSES = "What German courses do you offer?"
OFFER = "German A1 and B1 [1]. Would you like the price of B1?"
B1_COST = "What does the German course B1 cost?"


@pytest.mark.parametrize(
    ("conversation", "query"),
    [
        ([COURSES, OFFER, "Yes"], "the price of B1 German"),
        ([COURSES, OFFER, "Sure, go ahead"], "the price of B1 German"),
        ([COURSES, OFFER, "ja, bitte"], "the price of B1 German"),
        ([COURSES, OFFER, "No, A1 please"], "the price of A1 German"),
        ([COURSES, "German A1 and B1 [1]. Would you like the price of one of them?", "Yes, B1 please"],
         "the price of B1 German"),
        ([COURSES, "Shall I list the price of A1 or B1?", "The second one"], "the price of B1 German"),
        ([COURSES, "Shall I look up when the Spanish course starts?", "Yes"], "when the Spanish course starts"),
        ([B1_COST, "240. Do you also want to know when it starts?", "yes"], "when it starts the German course B1 cost"),
        (["Is there a Polish course?", "Yes. Would you like to know the price?", "Yes please."],
         "the price a Polish course"),
        ([B1_COST, "240. Anything else?", "Yes, what does A1 cost?"], "what does A1 cost?"),
        ([B1_COST, "240 [1]", "what about A1?"], "What does the German course A1 cost?"),
        ([B1_COST, "240 [1]", "and a1?"], "What does the German course a1 cost?"),
        ([B1_COST, "240 [1]", "and the Spanish course?"], "What does the Spanish course cost?"),
        ([B1_COST, "240 [1]", "Sorry, I meant A1"], "What does the German course A1 cost?"),
        ([B1_COST, "240 [1]", "No, A1"], "What does the German course A1 cost?"),
        ([B1_COST, "240 [1]", "A1, not B1"], "What does the German course A1 cost?"),
        ([B1_COST, "240 [1]", "Not B1 but A1."], "What does the German course A1 cost?"),
        (["Who teaches C#?", "Olaf Brun [1]", "And C++?"], "Who teaches C++?"),
        (["How much is the deposit for adults?", "50 [1]", "and for children?"],
         "How much is the deposit for children?"),
        (["How many tablets do adults take?", "Two [1]", "What about children?"], "How many tablets do children take?"),
        (["What does the canoe cost?", "12 [1]", "And the sailing boat?"], "What does the sailing boat cost?"),
        (["How much is the canoe per hour?", "12 [1]", "The sailing boat?"], "How much is the sailing boat per hour?"),
        (["What does the canoe cost?", "12 [1]", "When is the office closed?", "On Mondays [1]",
          "Back to the canoe: and the sailing boat?"], "What does the sailing boat cost?"),
        (["What does the canoe cost?", "12 [1]", "When is the office closed?", "On Mondays [1]",
          "Back to the canoe: how many persons does it carry?"], "how many persons does it carry? the canoe"),
        (["Was kostet der Kurs A1?", "190 [1]", "und B1?"], "Was kostet der Kurs B1?"),
        (["Какая цена курса A1?", "190 [1]", "а B1?"], "Какая цена курса B1?"),
        (["Summarize page 7", "Net sales [1]", "and page 8?"], "and page 8?"),
        (["What is on page 3?", "The channel [1]", "What is this document about?"], "What is this document about?"),
    ],
)  # fmt: skip
def test_replies_and_corrections_complete_the_question_that_they_refer_to(conversation: list[str], query: str):
    assert ask(*conversation) == query


@pytest.mark.parametrize(
    "conversation",
    [
        [COURSES, OFFER, "No, thanks"],
        [COURSES, OFFER, "Thanks!"],
        [COURSES, "German A1 and B1 [1].", "ok"],
        [B1_COST, "240. Is there anything else I can help you with?", "No, thank you!"],
        [B1_COST, "240. Anything else?", "Yes"],
    ],
)
def test_a_reply_that_asks_nothing_is_no_query(conversation: list[str]):
    assert ask(*conversation) == ""


COURSES = "What German courses do you offer?"
KURSE = "Welche Deutschkurse gibt es?"


@pytest.mark.parametrize(
    ("conversation", "query"),
    [
        ([COURSES, "A1 and B1. Let me know if you want the price of B1.", "Yes please"], "the price of B1 German"),
        ([COURSES, "A1 and B1. I can also tell you the price of B1.", "Yes"], "the price of B1 German"),
        ([COURSES, "A1, B1. If you like, I can look up the price of B1.", "please do"], "the price of B1 German"),
        ([COURSES, "A1, B1. Shall I give you the price of B1?", "sounds good"], "the price of B1 German"),
        ([COURSES, "A1, B1. Shall I give you the price of B1?", "That'd be great, thanks!"], "the price of B1 German"),
        ([COURSES, "A1, B1. Shall I give you the price of B1?", "\U0001f44d"], "the price of B1 German"),
        ([COURSES, "A1, B1. Shall I give you the price of B1?", "y"], "the price of B1 German"),
        ([COURSES, "Do you want prices for A1, B1 or both?", "both"], "prices for A1, B1 German"),
        ([COURSES, "Would you like the price of A1?", "Yes, and of B1 too"], "the price of A1 and of B1 German"),
        ([KURSE, "A1 und B1. Möchten Sie den Preis von B1 wissen?", "Ja, sehr gern"], "den Preis von B1"),
        ([KURSE, "A1 und B1. Ich kann Ihnen auch den Preis von B1 nennen.", "Ja"], "den Preis von B1"),
        (["Quels cours ?", "A1 et B1. Voulez-vous connaître le prix du cours B1 ?", "Oui, volontiers"],
         "le prix du cours B1"),
        (["¿Qué cursos hay?", "A1 y B1. ¿Quieres saber el precio del curso B1?", "Sí, por favor"],
         "el precio del curso B1"),
        (["有哪些课程?", "A1和B1。您想知道B1课程的价格吗?", "好的,谢谢"], "B1课程的价格"),
        (["What does the course cost?", "Which course do you mean, A1 or B1?", "B1"], "What does the course cost? b1"),
        ([COURSES, "A1 and B1. Which one would you like the price of?", "B1"], f"{COURSES} b1 price"),
        (["What does the German course B1 cost?", "240", "I meant the Spanish one, sorry"],
         "What does the Spanish course cost?"),
        (["What does the German course B1 cost?", "240", "and Polish?"], "What does the Polish course cost?"),
        (["Was kostet der Deutschkurs B1?", "240", "und der Spanischkurs?"], "Was kostet der Spanischkurs?"),
        (["Combien coûte le cours d'allemand B1 ?", "240", "et le cours d'espagnol ?"],
         "Combien coûte le cours d'espagnol ?"),
        (["¿Cuánto cuesta el curso de alemán B1?", "240", "¿y el curso de francés?"],
         "¿Cuánto cuesta el curso de francés?"),
        (["德语课程B1的价格是多少?", "240", "A1呢?"], "德语课程A1的价格是多少?"),
        (["Combien coûte le cours B1 ?", "240", "et A1 ?"], "Combien coûte le cours A1 ?"),
        (["¿Cuánto cuesta el curso B1?", "240", "¿y A1?"], "¿Cuánto cuesta el curso A1?"),
    ],
)  # fmt: skip
def test_replies_to_offers_and_corrections(conversation: list[str], query: str):
    assert ask(*conversation) == query


@pytest.mark.parametrize("reply", ["No, thanks", "non merci", "no, gracias", "Nein danke"])
def test_a_declined_offer_asks_nothing(reply: str):
    assert ask(COURSES, "A1 and B1. Shall I give you the price of B1?", reply) == ""


def test_a_question_after_a_question_of_the_assistant_stands_alone():
    question = "Who is the auditor of Intel Corporation?"
    assert ask(COURSES, "Which course do you mean, A1 or B1?", question) == question
    assert ask(COURSES, "I can answer questions on the courses.", "Thanks!") == ""
