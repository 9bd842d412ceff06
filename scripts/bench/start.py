"""Starts of the service and of ``ragsvc ask``, against another revision in one run.

    scripts/bench_start [--base REVISION] [--rounds N] [--no-change] [--json]

A round starts both builds in turn: in a new data directory, again in the same one, and after a document was stored
again with another embedding model (the built-in one with scaled weights; needs the extra ``models``). Figures are
medians over the rounds:

- processor seconds until ready, with child processes, and seconds until ``/livez`` and ``/readyz`` answer
- resident memory of the idle process, and its peak
- seconds from the first answer of ``/livez`` until searches are answered
- processor seconds of ``ragsvc ask`` on the data directory

Byte code is compiled before the first round, as an installation does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from scripts.bench.base_revision import ROOT, checked_out
from scripts.bench.measuring import machine, median, print_json

_DOCUMENT = "fixtures/documents/apple-10-q-2022-12-31.pdf"
_QUESTION = "How much did Apple repurchase of its common stock?"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_IDLE_S = 2.0

Figures = dict[str, float]


class Build:
    """A source tree; ``cache`` is the folder of its byte code."""

    def __init__(self, name: str, root: Path, cache: Path) -> None:
        self.name = name
        self.root = root
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAGSVC_", "PYTHON"))}
        self.environment = {**kept, "PYTHONPYCACHEPREFIX": str(cache), "PYTHONPATH": str(root)}

    def command(self, *arguments: str, data_dir: Path) -> float:
        """Run a command of the command line; returns its processor seconds."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "ragsvc", *arguments, "--data-dir", str(data_dir)],
            cwd=self.root,
            env=self.environment,
            check=True,
            capture_output=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def start(self, data_dir: Path, *, key: str | None = None, model: Path | None = None) -> Figures:
        """Start the service, wait until it is ready (and answers a search of ``key``), and stop it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {"RAGSVC_DATA_DIR": str(data_dir), "RAGSVC_PORT": str(port)}
        if model is not None:
            settings["RAGSVC_EMBEDDING_MODEL"] = str(model)
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "ragsvc", "serve"],
            cwd=self.root,
            env={**self.environment, **settings},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                live = self._wait(client, process, "/livez") - begin
                ready = self._wait(client, process, "/readyz") - begin
                figures = {"live_s": live, "ready_s": ready, "cpu_s": _processor_s(process.pid)}
                if key is not None:
                    client.headers["authorization"] = f"Bearer {key}"
                    found = client.post("/v1/rag/search", json={"query": _QUESTION, "mode": "hybrid"})
                    found.raise_for_status()
                    figures["searchable_after_live_s"] = time.perf_counter() - begin - live
                time.sleep(_IDLE_S)
                figures |= _memory(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        return figures

    @staticmethod
    def _wait(client: httpx.Client, process: subprocess.Popen[bytes], path: str) -> float:
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get(path).status_code == 200:
                    return time.perf_counter()
            time.sleep(0.01)
        raise SystemExit(f"the service ended with code {process.returncode}")


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[place]) for place in (11, 12, 13, 14)) * _TICK_S


def _memory(pid: int) -> Figures:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {name: int(lines[field].split()[0]) / 1024 for name, field in (("rss_mb", "VmRSS"), ("peak_mb", "VmHWM"))}


def scaled_model(folder: Path) -> Path:
    """The built-in model with word vectors of another length: another fingerprint, useful vectors."""
    from safetensors.numpy import load_file, save_file  # noqa: PLC0415 - only for this part

    from ragsvc.inference.shipped_model import original_folder  # noqa: PLC0415

    original = original_folder()
    if original is None:
        raise SystemExit("the change of the model needs the extra 'models'; --no-change leaves it out")
    shutil.copytree(original, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("word_embeddings.weight"))
    weights[name] = weights[name] * 1.02
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def measure(build: Build, folder: Path, model: Path | None) -> dict[str, Figures]:
    data_dir = folder / "data"
    figures = {"first start": build.start(data_dir), "later start": build.start(data_dir)}
    build.command("ingest", str(ROOT / _DOCUMENT), data_dir=data_dir)
    build.command("ask", _QUESTION, data_dir=data_dir)
    figures["ask"] = {"cpu_s": build.command("ask", _QUESTION, data_dir=data_dir)}
    if model is not None:
        created = subprocess.run(
            [
                *(sys.executable, "-m", "ragsvc", "keys", "create", "--tenant", "default", "--label", "bench"),
                *("--data-dir", str(data_dir), "--json"),
            ],
            cwd=build.root,
            env=build.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        key = str(httpx.Response(200, text=created.stdout).json()["key"])
        figures["start with documents"] = build.start(data_dir, key=key)
        figures["changed model"] = build.start(data_dir, key=key, model=model)
    shutil.rmtree(data_dir)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="REVISION", help="compare with this revision")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-change", action="store_true", help="leave out the change of the model")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        builds = [Build("new", ROOT, folder / "new-cache")]
        if options.base:
            builds.append(Build("base", stack.enter_context(checked_out(options.base)), folder / "base-cache"))
        model = None if options.no_change else scaled_model(folder / "model")
        for build in builds:
            build.start(folder / "compiled")
            shutil.rmtree(folder / "compiled")
        rounds: dict[str, list[dict[str, Figures]]] = {build.name: [] for build in builds}
        for _ in range(options.rounds):
            for build in builds:
                rounds[build.name].append(measure(build, folder / build.name, model))
    figures = {
        name: {
            kind: {figure: median([turn[kind][figure] for turn in turns]) for figure in turns[0][kind]}
            for kind in turns[0]
        }
        for name, turns in rounds.items()
    }
    if options.json:
        print_json(figures)
        return 0
    facts = machine()
    print(f"{facts['cpu']}, {facts['cores']} cores, load {facts['load']:.1f}; medians of {options.rounds} rounds")
    for kind, found in figures["new"].items():
        for figure, value in found.items():
            base = figures.get("base", {}).get(kind, {}).get(figure)
            against = "" if base is None else f"   base {base:8.2f}   base/new {base / max(value, 1e-9):6.2f}"
            print(f"{kind:22s} {figure:26s} {value:8.2f}{against}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
