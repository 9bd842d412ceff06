"""The sets of questions: what is searched, what is asked, and which pages, documents or characters are right."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

from ragsvc.core.documents import Extraction, Page

Reader = Callable[[Path], Extraction]
"""Turns a file into pages; the product's own reader, or another to compare with."""

LANGUAGES = ("en", "de", "ru", "zh")
TEXT_SOURCES = {"Pure-text (Plain-text)", "Table"}
NOT_ANSWERABLE = "Not answerable"


@dataclass(frozen=True)
class Source:
    """A searched document. ``page_offsets[i]`` is where page ``i + 1`` begins in the file's whole text."""

    filename: str
    extraction: Extraction
    page_offsets: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """A question with its gold; documents are indexes into ``Dataset.sources``, pages count from 1."""

    text: str
    document: int | None = None
    pages: frozenset[tuple[int, int]] = frozenset()
    grades: dict[int, int] = field(default_factory=dict)
    ranges: tuple[tuple[int, int, int], ...] = ()
    answer: str | None = None
    answer_format: str = "None"
    from_text: bool = True


@dataclass(frozen=True)
class Dataset:
    """Documents searched all at once, and the questions asked of them. ``kind`` selects the measures."""

    name: str
    kind: str
    sources: list[Source]
    questions: list[Question]


def mmlong(folder: Path, read: Reader) -> Dataset:
    """31 long PDFs; all questions, of which ``from_text`` and answered ones count for page retrieval."""
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()]
    paths = sorted((folder / "documents").glob("*.pdf"))
    number = {path.name: index for index, path in enumerate(paths)}
    questions = [
        Question(
            text=row["question"],
            document=number[row["doc_id"]],
            pages=frozenset((number[row["doc_id"]], page) for page in row["evidence_pages"]),
            answer=None if row["answer"] == NOT_ANSWERABLE else row["answer"],
            answer_format=row["answer_format"],
            from_text=bool(TEXT_SOURCES & set(row["evidence_sources"])),
        )
        for row in rows
    ]
    return Dataset("mmlong", "pages", [Source(path.name, read(path)) for path in paths], questions)


def sec10q(folder: Path, read: Reader) -> Dataset:
    """20 quarterly reports; a question's gold is the files its globs name."""
    paths = sorted((folder / "data/v1/docs").glob("*.pdf"))
    with (folder / "data/v1/qna_data.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    questions = [
        Question(
            text=row["Question"].strip(),
            grades={
                index: 1
                for index, path in enumerate(paths)
                if any(fnmatch(path.name, glob.strip()) for glob in row["Source Docs"].split(","))
            },
        )
        for row in rows
    ]
    return Dataset("sec10q", "documents", [Source(path.name, read(path)) for path in paths], questions)


def chunkeval(folder: Path, read: Reader) -> Dataset:
    """Five corpora in Markdown; a question's gold is character ranges of one corpus."""
    paths = sorted((folder / "corpora").glob("*.md"))
    number = {path.stem: index for index, path in enumerate(paths)}
    sources = []
    for path in paths:
        text, extraction = path.read_bytes().decode("utf-8"), read(path)
        sources.append(Source(path.name, extraction, list(_page_offsets(text, extraction))))
    with (folder / "questions_df.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    questions = [
        Question(
            text=row["question"],
            ranges=tuple(
                (number[row["corpus_id"]], reference["start_index"], reference["end_index"])
                for reference in json.loads(row["references"])
            ),
        )
        for row in rows
    ]
    return Dataset("chunkeval", "ranges", sources, questions)


def cranfield(folder: Path) -> Dataset:
    """1,400 abstracts; the judgements count topics by position, not by ``<num>``, and grade 0 means irrelevant."""
    root = _parse_xml(folder / "cran.all.1400.xml")
    sources = []
    for document in root.iter("doc"):
        title = " ".join((document.findtext("title") or "").split())
        text = (document.findtext("text") or "").strip()
        extraction = Extraction(pages=[Page(1, text)], title=title, page_count=1)
        sources.append(Source(f"{(document.findtext('docno') or '').strip()}.txt", extraction))
    grades: dict[int, dict[int, int]] = {}
    for line in (folder / "cranqrel.trec.txt").read_text("utf-8").splitlines():
        topic, _, docno, grade = line.split()
        if int(grade) > 0:
            grades.setdefault(int(topic), {})[int(docno) - 1] = int(grade)
    topics = _parse_xml(folder / "cran.qry.xml").iter("top")
    questions = [
        Question(text=" ".join((topic.findtext("title") or "").split()), grades=grades.get(position, {}))
        for position, topic in enumerate(topics, start=1)
    ]
    return Dataset("cranfield", "graded", sources, questions)


def xquad(folder: Path, *, asked: str, searched: str) -> Dataset:
    """Questions in one language over the paragraphs of another; articles are documents, paragraphs are pages."""
    articles = json.loads((folder / f"xquad.{searched}.json").read_text("utf-8"))["data"]
    questions_of = json.loads((folder / f"xquad.{asked}.json").read_text("utf-8"))["data"]
    sources, questions = [], []
    for index, (article, asked_article) in enumerate(zip(articles, questions_of, strict=True)):
        pages = [Page(n, paragraph["context"]) for n, paragraph in enumerate(article["paragraphs"], start=1)]
        sources.append(Source(f"{index}.txt", Extraction(pages=pages, page_count=len(pages))))
        for n, paragraph in enumerate(asked_article["paragraphs"], start=1):
            questions.extend(
                Question(text=qa["question"], pages=frozenset({(index, n)}), answer=qa["answers"][0]["text"])
                for qa in paragraph["qas"]
            )
    return Dataset(f"xquad-{asked}-{searched}", "pages", sources, questions)


def _parse_xml(path: Path) -> ElementTree.Element:
    """A file of one or of many root elements."""
    body = path.read_text("utf-8").split("?>", 1)[-1]
    return ElementTree.fromstring(f"<all>{body}</all>")  # noqa: S314 - the data set, read by developers


def _page_offsets(text: str, extraction: Extraction) -> Iterator[int]:
    """Where each page's text stands in the whole file (a reader may cut a long text into pages)."""
    position = 0
    for page in extraction.pages:
        found = text.find(page.text, position)
        if found < 0:
            raise ValueError(f"page {page.number} is not a part of the file's text")
        yield found
        position = found + len(page.text)
