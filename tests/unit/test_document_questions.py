"""Questions about pages and documents as such, in several languages."""

import pytest

from ragsvc.core.retrieval.document_questions import document_question


@pytest.mark.parametrize(
    ("question", "pages"),
    [
        ("What does page ii say?", ["ii"]),
        ("What is on page IV?", ["iv"]),
        ("Page IV", ["iv"]),
        ("What is on page A-1?", ["a-1"]),
        ("Que dit la page 3 ?", ["3"]),
        ("Qu'est-ce qu'il y a à la page 3 ?", ["3"]),
        ("Résume la page 3", ["3"]),
        ("la première page", ["1"]),
        ("Que dit la deuxième page ?", ["2"]),
        ("¿Qué dice la página 3?", ["3"]),
        ("Resume la página 3", ["3"]),
        ("¿Qué hay en la segunda página?", ["2"]),
        ("Was steht auf der dritten Seite?", ["3"]),
        ("Seite drei", ["3"]),
        ("Was zeigt Folie 4?", ["4"]),
        ("第3页讲了什么?", ["3"]),
        ("第三页写了什么?", ["3"]),
        ("pages 2, 3 and 5", ["2", "3", "5"]),
        ("pages 4 à 6", ["4", "5", "6"]),
        ("the first two pages", ["1", "2"]),
        ("die ersten beiden Seiten", ["1", "2"]),
        ("pg. 3", ["3"]),
        ("What is at the bottom of page 3?", ["3"]),
        ("What is in sheet 2?", ["2"]),
    ],
)
def test_pages_are_named_by_number_label_or_ordinal(question: str, pages: list[str]):
    asked = document_question(question)
    assert asked is not None
    assert list(asked.pages) == pages
    assert not asked.topic


@pytest.mark.parametrize(
    ("question", "from_end"),
    [
        ("last page", [1]),
        ("Que dit la dernière page ?", [1]),
        ("¿Qué dice la última página?", [1]),
        ("最后一页写了什么?", [1]),
        ("What's on the back page?", [1]),
        ("What is on the next to last page?", [2]),
        ("l'avant-dernière page", [2]),
        ("Summarise the last two pages", [2, 1]),
        ("die letzten drei Seiten", [3, 2, 1]),
        ("les deux dernières pages", [2, 1]),
        ("最后两页", [2, 1]),
    ],
)
def test_pages_are_counted_from_the_end(question: str, from_end: list[int]):
    asked = document_question(question)
    assert asked is not None
    assert list(asked.from_end) == from_end
    assert not asked.pages
    assert not asked.topic


@pytest.mark.parametrize(
    "question",
    [
        "Combien de pages a ce document ?",
        "¿Cuántas páginas tiene este documento?",
        "Auf wie vielen Seiten?",
        "这个文档有多少页?",
    ],
)
def test_the_number_of_pages_is_asked_for(question: str):
    asked = document_question(question)
    assert asked is not None
    assert asked.count


@pytest.mark.parametrize(
    "question",
    [
        "De quoi parle ce document ?",
        "De quoi s'agit-il dans ce document ?",
        "Résume ce document",
        "Fais un résumé du document",
        "¿De qué trata este documento?",
        "Haz un resumen",
        "Worum geht es hier?",
        "总结一下这个文档",
        "这份文件是关于什么的?",
        "Give me a summary",
        "tl;dr",
        "What kind of document is this?",
        "What is the title of this document?",
    ],
)
def test_a_description_of_the_document_is_asked_for(question: str):
    asked = document_question(question)
    assert asked is not None
    assert asked.about


@pytest.mark.parametrize(
    "question",
    [
        "How much is the deposit?",
        "Summarise the warranty",
        "What is the title of Mr Falk?",
        "Total assets in the balance sheet 2023",
        "the time sheet 2024",
        "Who designed the page I read yesterday?",
        "Qu'est-ce que la caution ?",
        "¿De qué color es la bicicleta?",
        "押金是多少?",
        "How many pages can the printer print per minute?",
    ],
)
def test_other_questions_are_about_the_content(question: str):
    asked = document_question(question)
    assert asked is None or (asked.topic and not asked.names_pages)
