from pathlib import Path

from ragsvc.cli.ingest.folders import SourceFile
from ragsvc.cli.ingest.plan import IngestAction, KnownDocument, known_document, make_plan

ROOT = "/data"


def _file(path: str) -> SourceFile:
    return SourceFile(ROOT, path, Path(ROOT, path), 1)


def _known(name: str, sha256: str, *, source: str | None = None, status: str = "ready") -> KnownDocument:
    return KnownDocument(name, sha256, status, name, source and f"{ROOT}/{source}")


def _actions(
    files: dict[str, str], known: list[KnownDocument], *, gone: tuple[str, ...] = (), retry_failed: bool = False
):
    plan = make_plan(
        [(_file(path), sha256) for path, sha256 in files.items()],
        known,
        folders=[ROOT],
        retry_failed=retry_failed,
        vanished=lambda path: path in {f"{ROOT}/{one}" for one in gone},
    )
    return {step.file.path: step.action for step in plan.steps}, plan


def test_new_known_and_equal_files() -> None:
    actions, _ = _actions({"a": "1", "b": "2", "c": "2"}, [_known("doc_1", "1", source="a")])
    assert actions == {"a": IngestAction.UNCHANGED, "b": IngestAction.ADD, "c": IngestAction.DUPLICATE}


def test_a_changed_file_supersedes_every_older_version_of_itself() -> None:
    older = [_known("doc_1", "1", source="a"), _known("doc_2", "2", source="a")]
    actions, plan = _actions({"a": "3"}, older)
    assert actions == {"a": IngestAction.REPLACE}
    assert set(plan.steps[0].superseded) == {"doc_1", "doc_2"}


def test_what_an_interruption_left_is_finished() -> None:
    """The new version was ready, the old one not yet deleted."""
    both = [_known("doc_1", "1", source="a"), _known("doc_2", "2", source="a")]
    actions, plan = _actions({"a": "2"}, both)
    assert actions == {"a": IngestAction.UNCHANGED}
    assert plan.steps[0].superseded == ("doc_1",)


def test_files_that_swapped_their_contents_lose_nothing() -> None:
    both = [_known("doc_1", "1", source="a"), _known("doc_2", "2", source="b")]
    actions, plan = _actions({"a": "2", "b": "1"}, both)
    assert actions == {"a": IngestAction.UNCHANGED, "b": IngestAction.UNCHANGED}
    assert [step.superseded for step in plan.steps] == [(), ()]
    assert plan.vanished == []


def test_a_moved_file_is_no_new_document() -> None:
    actions, plan = _actions({"new": "1"}, [_known("doc_1", "1", source="old")], gone=("old",))
    assert actions == {"new": IngestAction.MOVED}
    assert plan.vanished == []


def test_a_document_without_a_path_takes_that_of_one_file() -> None:
    actions, _ = _actions({"a": "1", "b": "1"}, [_known("doc_1", "1")])
    assert actions == {"a": IngestAction.NAMED, "b": IngestAction.DUPLICATE}
    actions, _ = _actions({"b": "1"}, [_known("doc_1", "1", source="a")])
    assert actions == {"b": IngestAction.UNCHANGED}  # a copy of a file that still exists


def test_only_documents_from_below_the_folders_can_vanish() -> None:
    known = [_known("doc_1", "1", source="gone"), _known("doc_2", "2"), _known("doc_3", "3", source="there")]
    elsewhere = KnownDocument("doc_4", "4", "ready", "x", "/database/gone")
    _, plan = _actions({"a": "9"}, [*known, elsewhere], gone=("gone",))
    assert [one.id for one in plan.vanished] == ["doc_1"]


def test_unfinished_and_failed_documents() -> None:
    known = [_known("doc_1", "1", source="a", status="processing"), _known("doc_2", "2", source="b", status="failed")]
    assert _actions({"a": "1", "b": "2"}, known)[0] == {"a": IngestAction.RESUME, "b": IngestAction.FAILED_BEFORE}
    assert _actions({"b": "2"}, known, retry_failed=True)[0] == {"b": IngestAction.RETRY}


def test_metadata_of_others_are_no_source() -> None:
    document = {"id": "doc_1", "sha256": "1", "status": "ready", "filename": "x", "metadata": {"source_path": 7}}
    assert known_document(document).source is None
