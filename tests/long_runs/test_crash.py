from pathlib import Path

import pytest

from ragsvc.testing.crash_rounds import CrashRounds
from ragsvc.testing.service_runner import create_key

# the rounds also back up the data directory, and upgrade an old one
pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.sqlite_file,
    pytest.mark.local_files,
]


def test_thirty_kills_lose_nothing_and_leave_no_ghosts(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    key = create_key(data_dir)
    admin_key = create_key(data_dir, tenant="operator", extra=("--scope", "admin"))
    report = CrashRounds(data_dir, key, admin_key=admin_key, seed=20260428, scratch=tmp_path).run(30)
    assert report.rounds == 30
    assert report.wanted > 100  # a number that the seed decides, not the speed of the machine
    assert report.acknowledged >= report.wanted
    assert report.uploads > 10
    assert report.deletes > 0
    assert report.renames > 0
    assert report.tenants > 0
    assert report.files > 10
    assert report.states > 10
    assert report.backups > 0
    assert report.upgrades > 0
    assert (report.lost, report.ghosts, report.differences) == ([], [], [])
