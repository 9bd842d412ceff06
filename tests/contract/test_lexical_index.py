"""The contract of a lexical index, tested with tantivy."""

# ruff: noqa: RUF001 - Cyrillic letters and full-width marks are meant

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ragsvc.core.ports.indexes import LexicalDocument
from ragsvc.index.lexical import LexicalIndexDamaged, TantivyIndex

TEXTS = {
    1: "Net sales of Apple increased 3.2% in the third quarter to $1,234.5 million.",
    2: "The company files its annual report on Form 10-K and quarterly reports on Form 10-Q.",
    3: "Die Umsatzerlöse der Gesellschaft sind im Geschäftsjahr um zwölf Prozent gestiegen, weil Häuser teurer sind.",
    4: "Доходы компании выросли за счёт продаж новых автомобилей в городах и областях.",
    5: "公司的收入在2023年增长了百分之十二，主要来自北京的新客户。",
    6: "売上高は前年より増加しました。東京の本社が発表した。",
    7: "Les résultats de la société à l'étranger sont présentés dans le rapport annuel.",
    8: "Risk factors include currency exchange rates (EUR/USD), interest rates and COVID-19.",
    9: "รายได้ของบริษัทเพิ่มขึ้นในปีที่ผ่านมา",
}


@pytest.fixture
def index(tmp_path):
    index = TantivyIndex(tmp_path / "lexical")
    yield index
    index.close()


@pytest.fixture
def filled(index):
    index.add([LexicalDocument(i, i * 10, text, "") for i, text in TEXTS.items()])
    index.commit(covered_seq=9)
    return index


def first(index, query, **options):
    hits = index.search(query, k=3, **options)
    return hits.ids[0] if len(hits.ids) else None


def test_nothing_is_visible_before_commit_and_everything_after(index):
    index.add([LexicalDocument(1, 1, "apples", "")])
    assert first(index, "apples") is None
    assert index.covered_seq() == 0
    index.commit(covered_seq=4)
    assert first(index, "apples") == 1
    assert (len(index), index.ids().tolist(), index.covered_seq()) == (1, [1], 4)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("How much did sales increase?", 1),
        ("3.2%", 1),
        ("1234.5", 1),
        ("form 10-q", 2),
        ("10-K", 2),
        ("Umsatzerlös der Gesellschaften", 3),
        ("Haus", 3),
        ("доход компаний", 4),
        ("продажа автомобиля в городе", 4),
        ("счет", 4),
        ("收入增长", 5),
        ("北京", 5),
        ("東京本社", 6),
        ("resultat societe etranger", 7),
        ("l'étranger", 7),
        ("covid", 8),
        ("COVID-19", 8),
        ("รายได้บริษัท", 9),
    ],
)
def test_words_are_found_in_their_forms_and_languages(filled, query, expected):
    assert first(filled, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "", " ", "\x00", "???", '"', '"a', "a AND", "OR OR", "NOT", "(((", "text:foo", "a:b:c", "*", "~2", "[1 TO",
        "+ - && || ! ( ) { } [ ] ^ \" ~ * ? : \\ /", "sales^", "\ud83d\ude00", "İ", "ß" * 500, "a" * 100_000,
        "-" * 5000, "\u202e\u0000sales", "%" * 100, "word " * 5000, "🙂 sales", "9" * 400,
    ],
)  # fmt: skip
def test_any_text_is_a_legal_query(filled, query):
    hits = filled.search(query, k=5)
    assert len(hits.ids) == len(hits.scores) <= 5
    assert (hits.scores > 0).all()


def test_operators_are_plain_words(filled):
    assert first(filled, 'NOT (text:"sales" OR context:x) AND') == 1


def test_a_question_of_function_words_alone_still_finds_them(filled):
    assert len(filled.search("the of", k=9).ids) > 0


def test_scores_descend_and_k_bounds(filled):
    hits = filled.search("the company annual report rates", k=2)
    assert len(hits.ids) == 2
    assert hits.scores[0] >= hits.scores[1] > 0
    assert hits.ids.dtype == np.int64
    assert hits.scores.dtype == np.float32
    assert len(filled.search("report", k=0).ids) == 0


def test_documents_restrict_before_ranking_and_leave_scores_alone(filled):
    everywhere = filled.search("report rates", k=9)
    within = filled.search("report rates", k=1, documents=np.array([80, 10, 12345]))
    assert within.ids.tolist() == [8]
    assert within.scores[0] == pytest.approx(everywhere.scores[everywhere.ids.tolist().index(8)], rel=1e-5)
    assert filled.search("report", k=5, documents=np.empty(0, np.int64)).ids.tolist() == []


def test_context_counts_as_evidence(index):
    index.add(
        [
            LexicalDocument(1, 1, "Revenue grew.", "2022 Q3 AAPL"),
            LexicalDocument(2, 2, "Revenue grew.", "2023Q1_MSFT.pdf"),
        ]
    )
    index.commit(covered_seq=1)
    assert first(index, "revenue of MSFT") == 2
    assert first(index, "revenue in 2022") == 1
    assert first(index, "revenue in 2023") == 2


def test_a_table_is_stemmed_in_the_language_of_its_document(index):
    index.add(
        [
            LexicalDocument(1, 1, "Die Zahlen der Gesellschaft und des Konzerns", ""),
            LexicalDocument(2, 1, "Häuser 12 Autos 17", ""),
            LexicalDocument(3, 2, "The numbers of the company", ""),
        ]
    )
    index.commit(covered_seq=1)
    assert first(index, "Was kostet das Haus in der Stadt?") == 2


def test_a_passage_with_a_new_context_is_found_by_it_and_not_by_the_former_one(filled):
    filled.add(
        [LexicalDocument(20, 200, "Ninety tonnes.", "scan0002"), LexicalDocument(21, 200, "Two cranes.", "scan0002")]
    )
    filled.commit(covered_seq=10)
    assert set(filled.search("scan0002", k=3).ids) == {20, 21}
    filled.add(
        [LexicalDocument(20, 200, "Ninety tonnes.", "Kessler"), LexicalDocument(21, 200, "Two cranes.", "Kessler")]
    )
    assert set(filled.search("scan0002", k=3).ids) == {20, 21}
    filled.commit(covered_seq=11)
    assert set(filled.search("Kessler", k=3).ids) == {20, 21}
    assert first(filled, "scan0002") is None
    assert first(filled, "ninety tonnes") == 20
    assert len(filled) == len(TEXTS) + 2


def test_removed_passages_are_gone_after_commit(filled):
    filled.remove(np.array([1, 777]))
    assert first(filled, "apple") == 1
    filled.commit(covered_seq=10)
    assert first(filled, "apple") is None
    assert len(filled) == len(TEXTS) - 1
    assert 1 not in filled.ids()


def test_adding_a_present_id_replaces_it(filled):
    filled.add([LexicalDocument(1, 10, "pears", "")])
    filled.commit(covered_seq=10)
    assert first(filled, "apple") is None
    assert first(filled, "pears") == 1
    assert len(filled) == len(TEXTS)


def test_dropped_changes_do_not_ride_on_a_later_commit(filled):
    filled.add([LexicalDocument(50, 50, "bananas", "")])
    filled.release_writer()
    filled.commit(covered_seq=11)
    assert first(filled, "bananas") is None


def test_it_opens_again_as_it_was(filled, tmp_path):
    filled.close()
    again = TantivyIndex(tmp_path / "lexical")
    assert (len(again), again.covered_seq()) == (len(TEXTS), 9)
    assert first(again, "10-q") == 2
    again.add([LexicalDocument(100, 100, "bananas", "")])
    again.commit(covered_seq=10)
    assert first(again, "bananas") == 100
    again.close()


def test_many_commits_leave_the_latest_position_and_no_litter(tmp_path):
    index = TantivyIndex(tmp_path / "lexical", max_markers=4)
    for turn in range(1, 11):
        index.commit(covered_seq=turn)
        assert index.markers <= 5
    assert index.covered_seq() == 10
    assert len(index) == 0
    index.close()


@pytest.mark.parametrize("harm", ["meta.json", "ragsvc-format", "*.term", "*.store"])
def test_a_damaged_folder_says_so(filled, tmp_path, harm):
    filled.close()
    folder = tmp_path / "lexical"
    for path in folder.glob(harm):
        path.unlink()
    with pytest.raises(LexicalIndexDamaged):
        TantivyIndex(folder)


WRITER = """
import sys
from pathlib import Path
from ragsvc.core.ports.indexes import LexicalDocument
from ragsvc.index.lexical import TantivyIndex
import numpy as np
index = TantivyIndex(Path(sys.argv[1]))
seq = index.covered_seq()
while True:
    seq += 1
    index.add([LexicalDocument(seq * 10 + i, seq, f"word{seq} common", "") for i in range(5)])
    if seq > 3:
        index.remove(np.arange((seq - 3) * 10, (seq - 3) * 10 + 5))
    index.commit(covered_seq=seq)
    print(seq, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_at_any_moment_leaves_one_commit_whole(tmp_path):
    folder = tmp_path / "lexical"
    dice = random.Random(5)  # noqa: S311 - when to kill, not a secret
    acknowledged = 0
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        acknowledged = int(child.stdout.readline())
        os.set_blocking(child.stdout.fileno(), False)
        time.sleep(dice.uniform(0, 0.3))
        child.kill()
        child.wait()
        rest = child.stdout.read() or ""
        child.stdout.close()
        acknowledged = max([acknowledged, *map(int, rest.rsplit("\n", 1)[0].split())])
        index = TantivyIndex(folder)
        seq = index.covered_seq()
        assert seq in {acknowledged, acknowledged + 1}
        expected = [s * 10 + i for s in range(max(1, seq - 2), seq + 1) for i in range(5)]
        assert index.ids().tolist() == expected
        assert index.search(f"word{seq}", k=9).ids.tolist() == [seq * 10 + i for i in range(5)]
        index.close()


def test_a_kill_between_writing_deletes_and_listing_them_does_not_block_the_next_commit(filled, tmp_path):
    killed, twin = tmp_path / "killed", tmp_path / "twin"
    shutil.copytree(filled.folder, killed)
    shutil.copytree(filled.folder, twin)
    other = TantivyIndex(twin)
    other.remove(np.array([1]))
    other.commit(covered_seq=10)
    other.close()
    (written,) = twin.glob("*.del")
    shutil.copy(written, killed / written.name)  # the list of deletes was written, meta.json was not
    again = TantivyIndex(killed)
    assert again.covered_seq() == 9
    again.remove(np.array([1]))
    again.commit(covered_seq=10)
    assert 1 not in again.ids().tolist()
    assert first(again, "currency exchange") == 8
    again.close()
