"""Loads the public data sets: documents, questions, and the gold pages, documents or character ranges."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

from ragsvc.core.documents import Extraction, Page
from ragsvc.evaluation.measures.judging import Gold, Item

Reader = Callable[[Path], Extraction]
"""Reads a file into pages: the service's reader, or a cached one."""

LANGUAGES = ("en", "de", "ru", "zh")
TEXT_SOURCES = {"Pure-text (Plain-text)", "Table"}
NOT_ANSWERABLE = "Not answerable"


@dataclass(frozen=True)
class Source:
    """A document of the set. ``page_offsets[i]`` is the offset of page ``i + 1`` in the text of the whole file."""

    filename: str
    extraction: Extraction
    page_offsets: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """A question with its gold, of the kind that the measures of its set need.

    ``gold`` holds pages or documents by document number (see ``document_name``). ``document``, ``grades`` and
    ``ranges`` refer to documents by their index in ``Dataset.sources``.
    """

    text: str
    document: int | None = None
    gold: Gold | None = None
    grades: dict[int, int] = field(default_factory=dict)
    ranges: tuple[tuple[int, int, int], ...] = ()
    answer: str | None = None
    answer_format: str = "None"
    from_text: bool = True


@dataclass(frozen=True)
class Dataset:
    """Documents that are searched together, and questions. ``kind`` selects the measures."""

    name: str
    kind: str
    sources: list[Source]
    questions: list[Question]


def mmlong(folder: Path, read: Reader) -> Dataset:
    """31 long PDFs. Only questions with ``from_text`` and an answer count in page retrieval."""
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()]
    paths = sorted((folder / "documents").glob("*.pdf"))
    number = {path.name: index for index, path in enumerate(paths)}
    questions = [
        Question(
            text=row["question"],
            document=number[row["doc_id"]],
            gold=_gold((document_name(number[row["doc_id"]]), page) for page in row["evidence_pages"]),
            answer=None if row["answer"] == NOT_ANSWERABLE else row["answer"],
            answer_format=row["answer_format"],
            from_text=bool(TEXT_SOURCES & set(row["evidence_sources"])),
        )
        for row in rows
    ]
    return Dataset("mmlong", "pages", [Source(path.name, read(path)) for path in paths], questions)


def erc2(folder: Path, read: Reader) -> Dataset:
    """21 annual reports. A question's pools of pages are alternatives; any page of any pool counts as correct."""
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()]
    paths = sorted((folder / "documents").glob("*.pdf"))
    number = {path.name: index for index, path in enumerate(paths)}
    questions: list[Question] = []
    for row in rows:
        pages = [page for pool in row["reference_pools"] for page in pool]
        named = {number[page["document"]] for page in pages}
        questions.append(
            Question(
                text=row["question"],
                document=next(iter(named)) if len(named) == 1 else None,
                gold=_gold((document_name(number[page["document"]]), page["page"]) for page in pages),
            )
        )
    return Dataset("erc2", "pages", [Source(path.name, read(path)) for path in paths], questions)


def labelled_pages(name: str, documents: Path, labels: Path, read: Reader) -> Dataset:
    """Reports whose questions and pages are in one of our own files; any of a question's pages counts as correct."""
    paths = sorted(documents.glob("*.pdf"))
    number = {path.name: index for index, path in enumerate(paths)}
    questions: list[Question] = []
    for line in labels.read_text("utf-8").splitlines():
        row = json.loads(line)
        named = {number[page["document"]] for page in row["pages"]}
        questions.append(
            Question(
                text=row["question"],
                document=next(iter(named)) if len(named) == 1 else None,
                gold=_gold((document_name(number[page["document"]]), page["page"]) for page in row["pages"]),
            )
        )
    return Dataset(name, "pages", [Source(path.name, read(path)) for path in paths], questions)


def merged(name: str, parts: list[Dataset]) -> Dataset:
    """One collection of the documents of several sets of pages, with all their questions."""
    sources: list[Source] = []
    questions: list[Question] = []
    for part in parts:
        shift = len(sources)
        sources += part.sources
        for question in part.questions:
            gold = question.gold and Gold(
                frozenset((document_name(int(document) - 1 + shift), page) for document, page in question.gold.items)
            )
            document = None if question.document is None else question.document + shift
            questions.append(replace(question, document=document, gold=gold))
    return Dataset(name, "pages", sources, questions)


def sec10q(folder: Path, read: Reader) -> Dataset:
    """20 quarterly reports. The gold of a question is the files that its globs match."""
    paths = sorted((folder / "data/v1/docs").glob("*.pdf"))
    with (folder / "data/v1/qna_data.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    questions = [
        Question(
            text=row["Question"].strip(),
            gold=_gold(
                (document_name(index), None)
                for index, path in enumerate(paths)
                if any(fnmatch(path.name, glob.strip()) for glob in row["Source Docs"].split(","))
            ),
        )
        for row in rows
    ]
    return Dataset("sec10q", "documents", [Source(path.name, read(path)) for path in paths], questions)


def chunkeval(folder: Path, read: Reader) -> Dataset:
    """Five corpora in Markdown. The gold of a question is character ranges of a corpus."""
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
    """1,400 abstracts. The judgements number topics by position, not by ``<num>``; grade 0 means irrelevant."""
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
    """Questions and paragraphs, in the same or in different languages. Articles are documents, paragraphs are pages."""
    articles = json.loads((folder / f"xquad.{searched}.json").read_text("utf-8"))["data"]
    questions_of = json.loads((folder / f"xquad.{asked}.json").read_text("utf-8"))["data"]
    sources, questions = [], []
    for index, (article, asked_article) in enumerate(zip(articles, questions_of, strict=True)):
        pages = [Page(n, paragraph["context"]) for n, paragraph in enumerate(article["paragraphs"], start=1)]
        sources.append(Source(f"{index}.txt", Extraction(pages=pages, page_count=len(pages))))
        for n, paragraph in enumerate(asked_article["paragraphs"], start=1):
            questions.extend(
                Question(text=qa["question"], gold=_gold([(document_name(index), n)]), answer=qa["answers"][0]["text"])
                for qa in paragraph["qas"]
            )
    return Dataset(f"xquad-{asked}-{searched}", "pages", sources, questions)


def document_name(index: int) -> str:
    """The number by which passages and gold refer to a document, from 1, as text."""
    return str(index + 1)


def _gold(items: Iterable[Item]) -> Gold | None:
    found = frozenset(items)
    return Gold(found) if found else None


def _parse_xml(path: Path) -> ElementTree.Element:
    """Parse a file with one or several root elements."""
    body = path.read_text("utf-8").split("?>", 1)[-1]
    return ElementTree.fromstring(f"<all>{body}</all>")  # noqa: S314 - the data set, read by developers


def _page_offsets(text: str, extraction: Extraction) -> Iterator[int]:
    """The offset of each page in the text of the whole file (the reader cuts a long text into pages)."""
    position = 0
    for page in extraction.pages:
        found = text.find(page.text, position)
        if found < 0:
            raise ValueError(f"page {page.number} does not occur in the text of the file")
        yield found
        position = found + len(page.text)
