"""Evaluate retrieval and answers on public data sets, with the service's own components and with a plain stack.

    scripts/evaluate DATA [--sets mmlong,sec10q,chunkeval,cranfield,xquad] [--runtime auto|onnx-fp32|...] [--json]

mmlong: hit@1/5/10/20 and MRR of pages over all documents together, on text and table questions that have an answer.
sec10q-pages, erc2: the same on financial reports. sec10q-statements, erc2-statements: our own questions about a line
of a statement of the same reports. reports: both collections as one, with all these questions. "Right document":
restricted to the documents that hold the answer. "One judgement": names of documents are not judged apart.
sec10q: hit@1/5/10/20 and precision@5 of source files. chunkeval: recall and precision, in characters, of the first five
passages, and hit@1/5/10/20 of a passage that overlaps a reference. cranfield: nDCG@10, and hit@1/5/10/20 of a relevant
abstract. xquad: hit@1/5/10/20 and MRR of paragraphs, with questions and paragraphs in the same language
(``xquad-cross``: in different languages). ``plain`` is the plain stack: chunks of 1,000 characters with an overlap of
200, of the same pages, ranked by cosine or by BM25.

The exit status is 1 if hybrid search is worse than dense or lexical search, or than the plain stack, on the main
measure of a set by more than the standard error of the difference.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from evaluation import answers, datasets, engine
from evaluation.baselines import PlainStack
from evaluation.datasets import LANGUAGES, Dataset, Question
from evaluation.engine import Collection, Embedding
from ragsvc.core.documents import Extraction, StoredPassage
from ragsvc.core.ports.parsing import ChunkingOptions
from ragsvc.core.retrieval.passage_search import RankedPassages
from ragsvc.core.retrieval.search_values import SearchMode
from ragsvc.core.text.condensing import condense
from ragsvc.evaluation.measures.judging import Span, matching_item
from ragsvc.evaluation.measures.scores import first_rank, ndcg, range_overlap, unique
from ragsvc.inference.factory import open_embedder, open_token_spans

MODES = (SearchMode.DENSE, SearchMode.LEXICAL, SearchMode.HYBRID)
LABELS = ROOT / "fixtures" / "evaluation"
SETS = (
    "mmlong",
    "sec10q",
    "sec10q-pages",
    "sec10q-statements",
    "erc2",
    "erc2-statements",
    "reports",
    "chunkeval",
    "cranfield",
    "xquad",
)
PAGE_DEPTHS = (1, 5, 10, 20)
ONE_JUDGEMENT = "hybrid, one judgement"
MAIN_MEASURES = ("recall", "ndcg@10", "hit@5")


class CachedReader:
    """Reads a file as the service does and caches the result: text recognition takes minutes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, path: Path) -> Extraction:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kept = self._folder / f"{digest}.msgpack"
        if kept.exists():
            return msgspec.msgpack.decode(kept.read_bytes(), type=Extraction)
        extraction = engine.read_file(path)
        self._folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(msgspec.msgpack.encode(extraction))
        return extraction


def load(data: Path, names: list[str], reader: CachedReader) -> list[Dataset]:
    found: list[Dataset] = []
    for name in names:
        match name:
            case "xquad":
                found += [datasets.xquad(data / "xquad", asked=language, searched=language) for language in LANGUAGES]
            case "xquad-cross":
                pairs = itertools.permutations(LANGUAGES, 2)
                found += [datasets.xquad(data / "xquad", asked=asked, searched=searched) for asked, searched in pairs]
            case "cranfield":
                found.append(datasets.cranfield(data / name))
            case "sec10q-pages" | "sec10q-statements":
                documents, labels = data / "sec10q/data/v1/docs", LABELS / f"{name.replace('-', '_')}.jsonl"
                found.append(datasets.labelled_pages(name, documents, labels, reader))
            case "erc2-statements":
                labels = LABELS / "erc2_statements.jsonl"
                found.append(datasets.labelled_pages(name, data / "erc2/documents", labels, reader))
            case "reports":
                parts = load(data, ["sec10q-pages", "sec10q-statements", "erc2", "erc2-statements"], reader)
                quarterly, more, annual, others = parts
                quarterly, annual = (
                    replace(first, questions=first.questions + second.questions)
                    for first, second in ((quarterly, more), (annual, others))
                )
                found.append(datasets.merged("reports", [quarterly, annual]))
            case "mmlong" | "erc2" | "sec10q" | "chunkeval":
                found.append(getattr(datasets, name)(data / name, reader))
            case _:
                sys.exit(f"unknown set {name!r}; choose from {', '.join((*SETS, 'xquad-cross'))}")
    return found


def judge_question(dataset: Dataset, question: Question, rows: Sequence[StoredPassage]) -> dict[str, float]:
    """The measures of a question's ranked passages, by the kind of its data set."""
    spans = [Span(row.document_public_id, row.page, row.start, row.end) for row in rows]
    match dataset.kind:
        case "pages":
            assert question.gold is not None
            pages = first_of_each_page(spans)
            rank = first_rank([matching_item(page, question.gold) for page in pages], question.gold.items)
            return _hits(rank) | {"mrr": 1 / rank if rank else 0.0}
        case "documents":
            assert question.gold is not None
            correct = [matching_item(span, question.gold) is not None for span in spans]
            return _hits(_first(correct)) | {"precision@5": sum(correct[:5]) / max(1, len(correct[:5]))}
        case "ranges":
            found = engine.ranges_of(dataset, rows)
            recall, precision, overlap = range_overlap(found[:5], question.ranges)
            correct = [any(_overlap(passage, gold) for gold in question.ranges) for passage in found]
            return {"recall": recall, "precision": precision, "iou": overlap} | _hits(_first(correct))
        case kind:
            assert kind == "graded", kind
            documents = unique([int(row.document_id) - 1 for row in rows])
            correct = [question.grades.get(document, 0) > 0 for document in documents]
            return {"ndcg@10": ndcg(documents, question.grades)} | _hits(_first(correct))


def _hits(rank: int | None) -> dict[str, float]:
    return {f"hit@{k}": float(rank is not None and rank <= k) for k in PAGE_DEPTHS}


def _first(correct: Sequence[bool]) -> int | None:
    return next((rank for rank, is_correct in enumerate(correct, 1) if is_correct), None)


def _overlap(passage: tuple[int, int, int], gold: tuple[int, int, int]) -> bool:
    return passage[0] == gold[0] and passage[1] < gold[2] and gold[1] < passage[2]


def first_of_each_page(spans: Sequence[Span]) -> list[Span]:
    """The ranking of pages: the first passage of each page."""
    first: dict[tuple[str, int], Span] = {}
    for span in spans:
        first.setdefault((span.document, span.page), span)
    return list(first.values())


def counts(dataset: Dataset, question: Question) -> bool:
    """Whether a question counts in the retrieval measures of its set."""
    if dataset.name == "mmlong":
        return question.from_text and question.answer is not None and question.gold is not None
    return bool(question.grades or question.ranges or question.gold)


def evaluate(dataset: Dataset, collection: Collection, embedding: Embedding, *, plain: bool) -> dict[str, Any]:
    asked = [question for question in dataset.questions if counts(dataset, question)]
    vectors = embedding.queries([question.text for question in asked])
    rankings: dict[str, list[list[StoredPassage]]] = {
        mode.value: [
            _passages(collection, engine.search(collection, question.text, vector, mode))
            for question, vector in zip(asked, vectors, strict=True)
        ]
        for mode in MODES
    }
    rankings[ONE_JUDGEMENT] = [
        _passages(collection, engine.search(collection, question.text, vector, SearchMode.HYBRID, judge=False))
        for question, vector in zip(asked, vectors, strict=True)
    ]
    if plain:
        stack = PlainStack(dataset, embedding)
        rankings["plain dense"] = [stack.dense(vector) for vector in vectors]
        rankings["plain lexical"] = [stack.lexical(question.text) for question in asked]
    scores = {
        name: [judge_question(dataset, question, rows) for question, rows in zip(asked, ranked, strict=True)]
        for name, ranked in rankings.items()
    }
    figures = {
        name: {measure: float(np.mean([values[measure] for values in of_questions])) for measure in of_questions[0]}
        for name, of_questions in scores.items()
    }
    if dataset.kind in {"pages", "ranges"}:
        figures |= in_right_documents(dataset, collection, asked, vectors)
    result: dict[str, Any] = {
        "questions": len(asked),
        "passages": len(collection.stored),
        "measures": figures,
        "hybrid_against": compare(scores),
        "hybrid_ms_p50": _latency_ms(collection, asked, vectors),
    }
    if dataset.name == "mmlong":
        for name, own in (("all documents", False), ("own document", True)):
            result[f"abstention, {name}"] = answers.judge_abstention(collection, embedding, own_document=own)
            result[f"answers, {name}"] = answers.judge_answers(collection, embedding, own_document=own)
    if dataset.name == "xquad-en-en":
        result["answers"] = answers.judge_answers(collection, embedding, own_document=False)
    return result


def _passages(collection: Collection, ranking: RankedPassages) -> list[StoredPassage]:
    return [collection.stored[candidate.id] for candidate in ranking.candidates]


def in_right_documents(
    dataset: Dataset, collection: Collection, asked: Sequence[Question], vectors: np.ndarray
) -> dict[str, dict[str, float]]:
    """The measures if only the documents that hold the answer are searched."""
    scores: dict[str, list[dict[str, float]]] = {}
    for question, vector in zip(asked, vectors, strict=True):
        named = {int(document) for document, _ in question.gold.items} if question.gold else set()
        named |= {document + 1 for document, _, _ in question.ranges}
        documents = np.array(sorted(named), np.int64)
        for mode in (*MODES, None):
            ranking = engine.search(
                collection,
                question.text,
                vector,
                mode or SearchMode.HYBRID,
                documents=documents,
                judge=mode is not None,
            )
            found = judge_question(dataset, question, _passages(collection, ranking))
            scores.setdefault(ONE_JUDGEMENT if mode is None else mode.value, []).append(found)
    return {
        f"{name}, right document": {measure: float(np.mean([row[measure] for row in rows])) for measure in rows[0]}
        for name, rows in scores.items()
    }


def _latency_ms(collection: Collection, asked: Sequence[Question], vectors: np.ndarray) -> float:
    times = []
    for question, vector in list(zip(asked, vectors, strict=True))[:100]:
        begin = time.perf_counter()
        engine.search(collection, question.text, vector, SearchMode.HYBRID)
        times.append(1000 * (time.perf_counter() - begin))
    return float(np.median(times))


def compare(scores: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean difference between hybrid search and each other method on the main measure, with its standard error."""
    hybrid = scores["hybrid"]
    measure = next(name for name in MAIN_MEASURES if name in hybrid[0])
    found = {}
    for method, others in scores.items():
        if method != "hybrid":
            differences = np.array([ours[measure] - other[measure] for ours, other in zip(hybrid, others, strict=True)])
            error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
            found[method] = {"difference": float(differences.mean()), "standard_error": error}
    return found


def shortcomings(report: dict[str, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Where hybrid search is worse than another method on a main measure: beyond the standard error, and within it."""
    beyond, within = [], []
    for name, result in report.items():
        for method, against in result["hybrid_against"].items():
            if against["difference"] < 0 and method != ONE_JUDGEMENT:
                line = f"{name}: {method} by {-100 * against['difference']:.2f} ± {100 * against['standard_error']:.2f}"
                (beyond if -against["difference"] > against["standard_error"] else within).append(line)
    return beyond, within


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ragsvc-evaluate")
    parser.add_argument(
        "--no-plain", action="store_true", help="skip the plain stack (embedding its chunks doubles the time)"
    )
    parser.add_argument("--passage-tokens", type=int, default=ChunkingOptions().max_tokens)
    parser.add_argument("--whole", action="store_true", help="embed passages with function words and punctuation")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    begin = time.monotonic()
    embedder = open_embedder(data_dir=options.cache, runtime=options.runtime)
    tokens = open_token_spans(data_dir=options.cache)
    embedding = Embedding(embedder, options.cache / "vectors", str if options.whole else condense)
    chunking = ChunkingOptions(max_tokens=options.passage_tokens)
    report: dict[str, dict[str, Any]] = {}
    collections: list[Collection] = []
    for dataset in load(options.data, options.sets.split(","), CachedReader(options.cache / "pages")):
        collection = engine.build(dataset, embedding=embedding, tokens=tokens, options=chunking)
        report[dataset.name] = evaluate(dataset, collection, embedding, plain=not options.no_plain)
        if dataset.name in {"mmlong", "sec10q", "chunkeval", "xquad-en-en"}:
            collections.append(collection)
        if not options.json:
            show(dataset, report[dataset.name])
    foreign = answers.judge_foreign(collections, embedding) if len(collections) > 1 else None
    beyond, within = shortcomings(report)
    if options.json:
        print(json.dumps({"runtime": embedder.runtime, "sets": report, "foreign_questions": foreign}, indent=1))
    else:
        if foreign:
            print("questions of one set searched in another: " + _line(foreign))
        print(f"{embedder.runtime}; {time.monotonic() - begin:.0f} s")
        print("hybrid is at least as good as every other method on every set:", f"NO: {beyond}" if beyond else "yes")
        if within:
            print(f"  worse, but by less than the standard error: {'; '.join(within)}")
    return 1 if beyond else 0


def show(dataset: Dataset, result: dict[str, Any]) -> None:
    print(f"{dataset.name} ({result['questions']} questions, {result['passages']} passages)")
    for method, values in result["measures"].items():
        print(f"  {method:13s} " + "  ".join(f"{name} {value * 100:5.1f}" for name, value in values.items()))
    for name, values in result.items():
        if name.startswith(("abstention", "answers")):
            print(f"  {name}: {_line(values)}")
    print(f"  hybrid search without embedding the question: p50 {result['hybrid_ms_p50']:.1f} ms")
    sys.stdout.flush()


def _line(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:g}" if value > 1 else f"{name} {value:.3f}" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
