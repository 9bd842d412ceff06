"""Judge retrieval on public sets: dense, lexical and hybrid side by side, through the product's own parts.

    scripts/evaluate [DATA] [--sets mmlong,sec10q,chunkeval,cranfield,xquad] [--runtime auto|onnx-fp32|...] [--json]

mmlong: hit@1/3/5/10 and MRR of pages over all documents at once, on text and table questions that have an answer.
sec10q: a source file among the first five passages. chunkeval: recall and precision in characters of the first five
passages. cranfield: nDCG@10. xquad: hit@1/5 and MRR of paragraphs, each language asked in itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from evaluation import datasets, engine
from evaluation.datasets import LANGUAGES, Dataset, Question
from evaluation.engine import Collection, Embedding
from evaluation.measures import auroc, first_rank, ndcg, range_overlap, unique
from ragsvc.core.documents import Extraction
from ragsvc.core.fusion import Ranking
from ragsvc.core.ports import ChunkingOptions
from ragsvc.core.retrieval import SearchMode
from ragsvc.inference.factory import open_embedder, open_token_spans

MODES = (SearchMode.DENSE, SearchMode.LEXICAL, SearchMode.HYBRID)
SETS = ("mmlong", "sec10q", "chunkeval", "cranfield", "xquad")


class CachedReader:
    """Reads a file as the service does, once; recognising pictures takes minutes."""

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
        if name == "xquad":
            found += [datasets.xquad(data / name, asked=one, searched=one) for one in LANGUAGES]
        elif name == "cranfield":
            found.append(datasets.cranfield(data / name))
        else:
            found.append(getattr(datasets, name)(data / name, reader))
    return found


def judge(collection: Collection, question: Question, ranking: Ranking) -> dict[str, float]:
    """The measures of one question by the kind of its set."""
    rows = [collection.passages[one.id] for one in ranking.candidates]
    match collection.dataset.kind:
        case "pages":
            rank = first_rank(unique([(int(one.document_id) - 1, one.page) for one in rows]), question.pages)
            hits = {f"hit@{k}": float(rank is not None and rank <= k) for k in (1, 3, 5, 10)}
            return {**hits, "mrr": 1 / rank if rank else 0.0}
        case "documents":
            rank = first_rank([int(one.document_id) - 1 for one in rows[:5]], frozenset(question.grades))
            return {"hit@1": float(rank == 1), "hit@5": float(rank is not None), "mrr": 1 / rank if rank else 0.0}
        case "ranges":
            best = [one.id for one in ranking.candidates[:5]]
            recall, precision, overlap = range_overlap(collection.ranges(best), question.ranges)
            return {"recall": recall, "precision": precision, "iou": overlap}
        case kind:
            assert kind == "graded", kind
            return {"ndcg@10": ndcg(unique([int(one.document_id) - 1 for one in rows]), question.grades)}


def counts(dataset: Dataset, question: Question) -> bool:
    """Whether a question takes part in the retrieval measures of its set."""
    if dataset.name == "mmlong":
        return question.from_text and question.answer is not None and bool(question.pages)
    return bool(question.grades or question.ranges or question.pages)


def evaluate(dataset: Dataset, collection: Collection, embedding: Embedding) -> dict:
    asked = [one for one in dataset.questions if counts(dataset, one)]
    vectors = embedding.queries([one.text for one in dataset.questions])
    vector_of = {id(one): vector for one, vector in zip(dataset.questions, vectors, strict=True)}
    figures: dict[str, dict[str, float]] = {}
    for mode in MODES:
        scores = [
            judge(collection, one, engine.search(collection, one.text, vector_of[id(one)], mode)) for one in asked
        ]
        figures[mode.value] = {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}
    result = {"questions": len(asked), "passages": len(collection.passages), "measures": figures}
    if dataset.name == "mmlong":
        result["abstention_auroc"] = abstention(dataset, collection, vector_of)
    return result


def abstention(dataset: Dataset, collection: Collection, vector_of: dict) -> dict[str, float]:
    """How well ``answerable`` tells answerable questions from others: over all documents, and in the right one."""
    found: dict[str, float] = {}
    for name in ("all documents", "its document"):
        signals, labels = [], []
        for one in dataset.questions:
            own = np.array([one.document + 1], dtype=np.int64) if name == "its document" else None
            ranking = engine.search(collection, one.text, vector_of[id(one)], SearchMode.HYBRID, documents=own)
            signals.append(ranking.answerable)
            labels.append(one.answer is not None)
        found[name] = auroc(signals, labels)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ragsvc-evaluate")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    begin = time.monotonic()
    embedder = open_embedder(data_dir=options.cache, runtime=options.runtime)
    tokens = open_token_spans(data_dir=options.cache)
    embedding = Embedding(embedder, options.cache / "vectors")
    report: dict[str, dict] = {}
    for dataset in load(options.data, options.sets.split(","), CachedReader(options.cache / "pages")):
        collection = engine.build(dataset, embedding=embedding, tokens=tokens, options=ChunkingOptions())
        report[dataset.name] = evaluate(dataset, collection, embedding)
        if not options.json:
            show(dataset, report[dataset.name])
    worst = [
        f"{name}: {main_measure}"
        for name, one in report.items()
        for main_measure in [next(m for m in ("hit@5", "recall", "ndcg@10") if m in one["measures"]["hybrid"])]
        if one["measures"]["hybrid"][main_measure]
        < max(one["measures"][side][main_measure] for side in ("dense", "lexical"))
    ]
    if options.json:
        print(json.dumps({"runtime": embedder.runtime, "sets": report}, indent=1))
    else:
        print(f"{embedder.runtime}; {time.monotonic() - begin:.0f} s")
        print("hybrid at least as good as the better side on every set:", "yes" if not worst else f"NO: {worst}")
    return 1 if worst else 0


def show(dataset: Dataset, result: dict) -> None:
    names = list(result["measures"]["hybrid"])
    print(f"{dataset.name} ({result['questions']} questions, {result['passages']} passages)")
    for mode, values in result["measures"].items():
        print(f"  {mode:8s} " + "  ".join(f"{name} {values[name] * 100:5.1f}" for name in names))
    for name, value in result.get("abstention_auroc", {}).items():
        print(f"  abstention AUROC, searching {name}: {value:.3f}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
