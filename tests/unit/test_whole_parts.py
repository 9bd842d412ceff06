"""Answers quote whole entries of bibliographies and whole procedures, and what fits the form of the question."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.core.answers.extractive import MAX_SENTENCE_CHARACTERS, ExtractedAnswer, answer
from ragsvc.core.answers.whole_parts import procedure, reference_entry
from ragsvc.core.text.sentences import quotable_spans
from tests.unit.test_answering import hit

REFERENCES = (
    "[6] Ana Ruiz. 2011. Tides. Ferry Press.\n[7] Jo Berg, Ida M. Lund, and Per Dahl. 2014. A short inventory of "
    "harbour ferries. Annals of Shipping 17, 2 (2014), 385-402.\n[8] Tom Ray and Al Fox. 2016. On quays. Ports 3."
)
PROCEDURE = (
    "The software of the ferry ticket machine can be renewed in the following way.\n\n"
    "1 Download the update software to the smartphone.\n\n2 Transfer the update software to the ticket machine.\n\n"
    "3 Follow the instructions on the screen.\n\nThe ticket machine has a warranty of two years."
)
NUMBERS_AFTER = PROCEDURE.replace("1 Download the update software to the smartphone.", "Download the update.\n\n1")
COURSES = (
    "Doctoral Programmes\n\n- Doctor of Navigation (DN) - Doctor of Harbour Studies (DHS)\n\n"
    "Doctor of Harbour Studies\n\nFor Professionals who would like to extend their expertise in harbours.\n\n"
    "The Doctor of Harbour Studies takes four years."
)
LABEL = "County impact and rate of deaths as of July 26\nHigher, most deaths"
RULE = (
    "The report compares counties by health. Counties are classified as higher if more than 25 people per 100,000 died."
)
STATION = (
    "Emden Station Area Plan\n20,000+ jobs C: Harbour\n\nCorridor North\n\n2600 housing units\n\n~4,000 daily riders"
)
TOUCH = (
    "Wireless Headset\n\nListening to sound quickly (Quick Attention Mode)\n\nYou cannot use Quick Attention Mode of "
    "the headset while charging.\n\nTouch the entire panel of the headset."
)


def ask(question: str, *texts: str) -> ExtractedAnswer:
    return answer(question, [hit(text) for text in texts], answerable=1.0)


def quotes(question: str, *texts: str) -> list[str]:
    return [sentence.text for sentence in ask(question, *texts).sentences]


@pytest.mark.parametrize(
    "question",
    [
        "Who wrote the short inventory of harbour ferries?",
        "Where was the short inventory of harbour ferries published?",
    ],
)
def test_the_whole_entry_of_a_bibliography_is_quoted(question: str):
    first = quotes(question, REFERENCES)[0]
    assert first.startswith("[7] Jo Berg, Ida M. Lund, and Per Dahl.")
    assert first.endswith("385-402.")


def test_prose_is_no_entry_of_a_bibliography():
    text = "In 2020 the ferry and the bus stopped. The company named a short inventory of ferries. It was long."
    assert quotes("What did the company name?", text)[0] == "The company named a short inventory of ferries."


@pytest.mark.parametrize("text", [PROCEDURE, NUMBERS_AFTER])
def test_all_steps_of_a_procedure_are_quoted_together(text: str):
    first = quotes("How do I transfer update software to the ticket machine?", text)[0]
    assert first.startswith(("1 Download", "Download"))
    assert first.endswith("3 Follow the instructions on the screen.")


def test_a_step_is_quoted_alone_if_no_procedure_is_asked_for():
    found = quotes("Which device is the update software transferred to?", PROCEDURE)
    assert "2 Transfer the update software to the ticket machine." in found


def test_instructions_answer_how_something_is_done_and_headings_do_not():
    found = quotes("How do I turn on the Quick Attention Mode of the headset?", TOUCH)
    assert found[0] == "Touch the entire panel of the headset."
    assert "Listening to sound quickly (Quick Attention Mode)" not in found


@pytest.mark.parametrize(
    "question", ["For whom is the Doctor of Harbour Studies?", "Who is the Doctor of Harbour Studies for?"]
)
def test_the_people_something_is_for_are_quoted_and_not_its_name(question: str):
    assert quotes(question, COURSES) == ["For Professionals who would like to extend their expertise in harbours."]


def test_a_condition_is_quoted_if_the_question_asks_when_something_is_so():
    found = quotes("When is a county classified as having a higher rate of deaths?", LABEL, RULE)
    assert found == ["Counties are classified as higher if more than 25 people per 100,000 died."]


def test_the_line_with_the_things_counted_comes_before_other_figures_of_the_list():
    found = quotes("How many housing units does the Emden Station Area Plan include?", STATION)
    assert found[1] == "2600 housing units"
    assert sum("Emden Station Area Plan" in text for text in found) == 1


PIECES = st.lists(
    st.sampled_from(
        [
            "1 Open it.",
            "2 Close it.",
            "3 Wait here.",
            "2",
            "[4] ",
            "Ann Lee and B. Xu.",
            "2020.",
            "On boats.",
            "\n\n",
            "\n",
        ]
    ),
    max_size=12,
)


@given(PIECES, st.integers(10, 120))
@settings(deadline=None)
def test_whole_parts_contain_their_sentence_and_fit(pieces: list[str], most: int):
    text = " ".join(pieces)
    spans = quotable_spans(text)
    for at, span in enumerate(spans):
        for whole in (
            reference_entry(text, span, max_characters=most),
            procedure(text, spans, at, max_characters=most),
        ):
            if whole is not None:
                assert whole[0] <= span[0] < span[1] <= whole[1]
                assert whole[1] - whole[0] <= max(most, span[1] - span[0])


def test_an_entry_longer_than_a_quote_is_not_quoted_whole():
    title = "A short inventory of harbour ferries."
    text = f"Jo Berg and Ida Lund. 2014. {title} {'Annals of Shipping, part two ' * 30}"
    assert len(text) > MAX_SENTENCE_CHARACTERS
    assert quotes("Who wrote the short inventory of harbour ferries?", text)[0] == title


def test_an_entry_that_follows_another_in_the_same_line_is_quoted_alone():
    text = (
        "Al Fox and Cy Ma. 2020. On quays. In Ports, pages 6-8, Marseille, France. Jo Berg, Ida Lund, and\nPer Dahl. "
        "2023. Ferryformer: Ferries can teach themselves. CoRR, abs/2302. Tom Ray and Di Po. 2021. On piers. Ports 3."
    )
    assert quotes("Who wrote about Ferryformer?", "Published as a conference paper at Norden.", text)[0] == (
        "Jo Berg, Ida Lund, and\nPer Dahl. 2023. Ferryformer: Ferries can teach themselves. CoRR, abs/2302."
    )


@pytest.mark.parametrize(
    ("question", "answer_text"),
    [
        ("On which website are the tickets of the ferry?", "Go to www.ferry-tickets.example.org before the trip."),
        ("What is the phone number for the tickets of the ferry?", "Call 04931 987 0 from Monday to Friday."),
        ("What is the e-mail address for the tickets of the ferry?", "Write to info@ferry.example in all other cases."),
    ],
)
def test_addresses_are_quoted_if_they_are_asked_for(question: str, answer_text: str):
    text = f"The tickets of the ferry are sold out. The ferry: {answer_text}"
    assert quotes(question, text)[0] == f"The ferry: {answer_text}"


def test_what_the_question_calls_the_text_is_no_missing_word():
    text = "The ferry to Norderney carried 2,400 passengers in May."
    plain = answer("How many passengers did the ferry to Norderney carry?", [hit(text)], answerable=0.5)
    named = answer("How many passengers did the ferry of the article carry to Norderney?", [hit(text)], answerable=0.5)
    assert named.confidence > 0.95 * plain.confidence


def test_the_sentence_that_begins_with_the_case_is_quoted_first():
    text = (
        "The headset cannot be charged even if it is connected to a computer. The computer needs a free port. "
        "If you cannot connect your computer to the headset, delete the pairing information and pair them again."
    )
    assert quotes("What should I do if I cannot connect my computer to the headset?", text)[0].startswith(
        "If you cannot"
    )


def test_a_heading_that_names_the_thing_does_not_say_what_it_does():
    guide = "Help Guide\n\nStereo Headset\n\nAbout the QSEE Extreme function\n\nRelated topics\n\n"
    text = f"{guide}QSEE Extreme uses learnt filters to reproduce the sound that was lost during compression."
    assert quotes("What does QSEE Extreme do?", text)[0].startswith("QSEE Extreme uses learnt filters")
