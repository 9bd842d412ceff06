"""Kill the service at random moments, 1,000 times by default, and check that every acknowledged request took effect.

The exit status is 1 if an acknowledged upload was lost, a deleted document reappeared, or an index differed from the
rows.
"""

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from ragsvc.testing.crash_rounds import CrashRounds, Report
from ragsvc.testing.service_runner import create_key

PRINT_EVERY = 25


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=20260428)
    parser.add_argument("--jobs", type=int, default=1, help="data directories that are tried at the same time")
    options = parser.parse_args()
    shares = [len(range(job, options.rounds, options.jobs)) for job in range(options.jobs)]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(run_rounds, share, options.seed + job) for job, share in enumerate(shares)]
        report = add_up([done.result() for done in as_completed(running)])
    print(
        f"seed {options.seed}: {report.rounds} kill rounds, {report.uploads} acknowledged uploads, "
        f"{report.deletes} acknowledged deletes, {report.renames} renames, {report.tenants} deletions of tenants, "
        f"{report.files} changes of files, {report.states} of responses and vector stores, "
        f"{report.backups} backups, {report.upgrades} upgrades killed, "
        f"{report.interrupted_upgrades} of them before their end, {report.resumed} resumed after a kill: "
        f"{len(report.lost)} lost, {len(report.ghosts)} ghosts, {len(report.differences)} index differences"
    )
    for line in [*report.lost, *report.ghosts, *report.differences][:50]:
        print(" ", line)
    return 0 if report.clean else 1


def run_rounds(count: int, seed: int) -> Report:
    """Run rounds on a data directory of their own, and print what is found at once."""
    begin = time.monotonic()
    printed = 0

    def print_progress(done: int) -> None:
        nonlocal printed
        broken = [*rounds.report.lost, *rounds.report.ghosts, *rounds.report.differences]
        for line in broken[printed:]:
            print(f"seed {seed}, round {done}: {line}", flush=True)
        printed = len(broken)
        if done % PRINT_EVERY == 0:
            kept, report = len(rounds.promises.kept), rounds.report
            print(
                f"seed {seed}: {done} rounds, {rounds.promises.uploads} uploads, {rounds.promises.deletes} deletes, "
                f"{report.resumed} resumed, {kept} documents, lost {len(report.lost)}, ghosts {len(report.ghosts)}, "
                f"differences {len(report.differences)}, {time.monotonic() - begin:.0f} s",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir)
        admin_key = create_key(data_dir, tenant="operator", extra=("--scope", "admin"))
        rounds = CrashRounds(data_dir, key, admin_key=admin_key, seed=seed, scratch=Path(folder))
        return rounds.run(count, on_round=print_progress)


def add_up(reports: list[Report]) -> Report:
    """One report with the counts and the findings of all."""
    total = Report()
    for report in reports:
        for field in fields(Report):
            setattr(total, field.name, getattr(total, field.name) + getattr(report, field.name))
    return total


if __name__ == "__main__":
    sys.exit(main())
