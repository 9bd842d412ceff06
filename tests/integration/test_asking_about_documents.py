"""Questions about pages and documents as such, and dialogues, asked of the running service."""

import pytest

from ragsvc.providers.local_extractive import NO_ANSWER, SELF_DESCRIPTION
from ragsvc.testing.service_runner import ROOT

pytestmark = pytest.mark.model

DOCUMENTS = ROOT / "fixtures" / "documents"
COURSES = """# Language courses

We offer German courses A1 and B1, a Spanish course A2 and a Polish course for beginners.

The German course B1 costs 240 euros and starts on 6 May.

The German course A1 costs 190 euros and starts on 13 May.

The Spanish course A2 costs 210 euros and starts on 2 June.

The C++ course takes place on Mondays with teacher Ida Falk.

The C# course takes place on Tuesdays with teacher Olaf Brun.
"""
BOATS = """# Boats for hire

The canoe Otter carries two persons and costs 12 euros per hour.

The sailing boat Falke needs a licence and costs 35 euros per hour.

The deposit for adults is 50 euros. The deposit for children is 20 euros.

The harbour office is closed on Mondays.
"""


def answer_of(tenant, *turns: str, collection: str = "default") -> str:
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    chat = {"model": "local/chat-model", "messages": messages, "use_rag": True, "rag": {"collection": collection}}
    reply = tenant.http.post("/v1/chat/completions", json=chat)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


@pytest.fixture
def report(tenant):
    name = "apple-10-q-2023-07-01.pdf"
    assert tenant.upload((DOCUMENTS / name).read_bytes(), filename=name, wait_s=60).json()["status"] == "ready"
    return tenant


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_a_page_asked_for_by_number_comes_first_in_every_mode(report, mode):
    asked = {
        "What is on page 14?": [14],
        "Summarize page 7": [7],
        "page 20": [20],
        "Was steht auf Seite 9?": [9],
        "Read me the third page": [3],
        "last page": [29],
        "What does the second to last page say?": [28],
        "pages 11-12": [11, 12],
    }
    found = {text: [hit["page"] for hit in report.search(text, top_k=10, mode=mode)] for text in asked}
    firsts = {text: list(dict.fromkeys(pages))[: len(asked[text])] for text, pages in found.items()}
    assert firsts == asked


def test_a_page_with_a_topic_is_among_the_first_hits(report):
    hits = report.search("What does the table on page 18 say about net sales by region?", top_k=5)
    assert 18 in [hit["page"] for hit in hits]


def test_the_document_as_such_is_known(report):
    assert "29 pages" in answer_of(report, "How many pages does this document have?")
    assert "29 pages" in answer_of(report, "Hi! How many pages are there?")
    about = report.search("What is this document about?")
    assert about[0]["page"] == 1
    assert answer_of(report, "What is this document about?") != NO_ANSWER
    assert answer_of(report, "What is on page 99?") == NO_ANSWER


def test_a_page_is_found_by_its_printed_label(tenant):
    name = "page-labels.pdf"
    assert tenant.upload((DOCUMENTS / name).read_bytes(), filename=name, wait_s=60).json()["status"] == "ready"
    labels = {hit["page_label"]: hit["page"] for hit in tenant.search("text", mode="dense", top_k=50)}
    label, page = next((label, page) for label, page in labels.items() if label and label != str(page))
    hits = tenant.search(f"What is on page {label}?")
    assert (hits[0]["page_label"], hits[0]["page"]) == (label, page)


def test_a_named_file_is_asked_about_and_not_another(tenant):
    tenant.add_text("The canoe is green.\fThe deposit is 50 euros.", filename="boats.txt", wait_s=60)
    tenant.add_text("The course is long.\fThe teacher is Ida Falk.", filename="courses.txt", wait_s=60)
    assert "deposit" in answer_of(tenant, "What is on page 2 of boats.txt?")
    assert "teacher" in answer_of(tenant, "What is on the last page of courses.txt?")
    assert "canoe" in answer_of(tenant, "Summarise boats.txt")


B1 = "What does the German course B1 cost?"
DIALOGUES = [
    (["What German courses do you offer?", "A1 and B1 [1]. Would you like the price of B1?", "Yes"], "240"),
    (["What German courses do you offer?", "A1 and B1 [1]. Would you like the price of one?", "Yes, B1 please"], "240"),
    (["What German courses do you offer?", "A1 and B1 [1]. Would you like the price of B1?", "No, A1 please"], "190"),
    (["What German courses do you offer?", "Shall I tell you the price of A1 or B1?", "The second one"], "240"),
    (["Do you have a Spanish course?", "Yes, A2 [1]. Do you want to know when it starts?", "Sure!"], "2 June"),
    (["Do you have a Spanish course?", "Yes, A2 [1]. Shall I look up the price?", "ok, please do"], "210"),
    ([B1, "240 euros [1]", "and A1?"], "190"),
    ([B1, "240 euros [1]", "what about a1?"], "190"),
    ([B1, "240 euros [1]", "and the Spanish course?"], "210"),
    ([B1, "240 euros [1]", "Sorry, I meant A1"], "190"),
    ([B1, "240 euros [1]", "No, A1."], "190"),
    ([B1, "240 euros [1]", "A1, not B1"], "190"),
    ([B1, "240 euros [1]", "When does it start?"], "6 May"),
    ([B1, "240 euros [1]", "And when does A1 start?"], "13 May"),
    (["When does the German course B1 start?", "On 6 May [1]", "And how much is it?"], "240"),
    (["Who teaches C#?", "Olaf Brun [1]", "and C++?"], "Ida Falk"),
    (["Who teaches C++?", "Ida Falk [1]", "What about C#?"], "Olaf Brun"),
    (["What does the canoe cost per hour?", "12 euros [1]", "and the sailing boat?"], "35"),
    (["What does the canoe cost per hour?", "12 euros [1]", "How many persons does it carry?"], "two persons"),
    (["What does the sailing boat cost?", "35 euros [1]", "Does it need a licence?"], "licence"),
    (["How much is the deposit for adults?", "50 euros [1]", "and for children?"], "20 euros"),
    (["How much is the deposit for children?", "20 euros [1]", "For adults?"], "50 euros"),
    ([B1, "240 euros [1]", "When is the harbour office closed?"], "Mondays"),
    (
        [B1, "240 [1]", "When is the harbour office closed?", "On Mondays [1]", "Back to B1: when does it start?"],
        "6 May",
    ),
    ([B1, "240 [1]", "Thanks!", "You are welcome.", "And A1?"], "190"),
    (["Which boats do you hire out?", "A canoe [1]. Would you like the price of the canoe?", "ja bitte"], "12 euros"),
    (["Hello", "Hello! How can I help you?", "How much is the Spanish course?"], "210"),
]


def test_dialogues_are_answered_with_what_their_last_turn_means(tenant):
    for name, text in (("courses.md", COURSES), ("boats.md", BOATS)):
        reply = tenant.upload(text.encode(), filename=name, kind="text/markdown", wait_s=60)
        assert reply.json()["status"] == "ready"
    wrong = {}
    for turns, expected in DIALOGUES:
        said = answer_of(tenant, *turns)
        if expected not in said.split(" [")[0]:
            wrong[" | ".join(turns)] = said
    assert len(DIALOGUES) - len(wrong) >= 25, wrong
    assert answer_of(tenant, B1, "240. Anything else I can help with?", "No, thanks") == SELF_DESCRIPTION
