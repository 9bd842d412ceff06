"""Cost of a request through ragsvc, compared with the provider, a bare Litestar + aiohttp pass-through, and LiteLLM.

scripts/bench_gateway [--rounds N] [--seconds S] [--litellm VENV] [--base REV] [--json]

Every server is a separate process with one worker. All are measured in turn in every round, so that other load on the
machine affects all of them. ragsvc is ``ragsvc serve`` with a key, request and token limits, metering and metrics;
LiteLLM's proxy has its master key. Figures are medians over the rounds. ``cpu us`` is the processor time of a request;
on a busy machine, its ratio estimates the ratio of the rates on a quiet machine. ``--base`` adds the service of another
revision, or of the checkout in a folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.base_revision import checked_out
from scripts.bench.closed_loop import load
from scripts.bench.measuring import descendants, mebibytes, median, print_json

_PYTHON = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("gateway_servers.py"))]
_LITELLM_KEY = "sk-bench-1234"
_LIMITS = ("--requests-per-minute", "900000000", "--requests-per-hour", "900000000")
_TARGETS = {
    "requests c=32, of LiteLLM": (20.0, "x"),
    "streams c=32, of LiteLLM": (40.0, "x"),
    "requests c=1, p50 added to direct": (0.5, "ms"),
    "requests c=32, of bare": (0.6, "x"),
    "streams c=32, of bare": (0.6, "x"),
}


@dataclass(frozen=True)
class Server:
    """A server that answers chat requests on a port."""

    name: str
    port: int
    pid: int
    key: str


@contextmanager
def running(name: str, command: list[str], port: int, key: str = "none", **environ: str) -> Iterator[Server]:
    """Run a child process that listens on the port, and terminate it at the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=log, stderr=log)
        try:
            for _ in range(1200):
                if process.poll() is not None or _listens(port):
                    break
                time.sleep(0.1)
            if process.poll() is not None or not _listens(port):
                log.seek(0)
                sys.exit(f"{name} did not start: {log.read().decode(errors='replace')[-3000:]}")
            yield Server(name, port, process.pid, key)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def provider_server() -> AbstractContextManager[Server]:
    """A provider that answers immediately."""
    port = _free_port()
    return running("direct", [*_PYTHON, "upstream", str(port)], port)


def bare_server(provider: Server) -> AbstractContextManager[Server]:
    """A bare pass-through to the provider."""
    port = _free_port()
    return running("bare", [*_PYTHON, "bare", str(port), f"http://127.0.0.1:{provider.port}/v1"], port)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def ragsvc(upstream_url: str, folder: Path, *, root: Path = ROOT, name: str = "ragsvc") -> Iterator[Server]:
    """``ragsvc serve`` of the checkout in ``root``, with a key that has every kind of limit."""
    config = folder / "ragsvc.toml"
    config.write_text(f'[[providers]]\nname = "up"\nbase_url = "{upstream_url}"\napi_key = "x"\nmodels = ["bench"]\n')
    limits = (*_LIMITS, "--token-balance", str(10**14), "--tokens-per-day", str(10**13))
    key = create_key(folder / "data", extra=limits, root=root)
    service = RunningService(folder / "data", env={"RAGSVC_CONFIG": str(config)}, root=root)
    try:
        yield Server(name, int(service.url.rsplit(":", 1)[1]), service.process.pid, key)
    finally:
        service.stop()


def litellm(venv: Path, upstream_url: str, folder: Path) -> Any:
    """LiteLLM's proxy with one worker."""
    config, port = folder / "litellm.yaml", _free_port()
    model = {"model": "openai/bench", "api_base": upstream_url, "api_key": "x"}
    config.write_text(
        json.dumps(  # JSON is YAML
            {
                "model_list": [{"model_name": "bench", "litellm_params": model}],
                "general_settings": {"master_key": _LITELLM_KEY},
            }
        )
    )
    command = [str(venv / "bin" / "python"), str(venv / "bin" / "litellm"), "--config", str(config), "--host"]
    command += ["127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    return running(
        "litellm",
        command,
        port,
        _LITELLM_KEY,
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOG="ERROR",
        LITELLM_MODE="PRODUCTION",
    )


def _processes(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def cpu_s(pid: int) -> float:
    """Processor time of a process and its living descendants, in seconds (Linux)."""
    total = 0
    for process in _processes(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Sum of the peak resident sizes of a process and its living descendants (Linux)."""
    total = 0
    for process in _processes(pid):
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total


def measure(servers: list[Server], *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure all servers; returns a row of medians for each kind of load, concurrency and server."""
    results: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    for server in servers:
        for streams in (False, True):
            load(server.port, server.key, streams=streams, concurrency=8, seconds=min(1.0, seconds))
    for _ in range(rounds):
        for kind in ("requests", "streams"):
            for concurrency in (1, 32):
                for server in servers:
                    used_s = cpu_s(server.pid)
                    figures = load(
                        server.port, server.key, streams=kind == "streams", concurrency=concurrency, seconds=seconds
                    )
                    figures["cpu_us"] = (cpu_s(server.pid) - used_s) / figures.pop("count") * 1e6
                    results.setdefault((kind, concurrency, server.name), []).append(figures)
    rows: list[dict[str, Any]] = []
    for (kind, concurrency, name), figures_of_rounds in results.items():
        medians = {field: median([figures[field] for figures in figures_of_rounds]) for field in figures_of_rounds[0]}
        rows.append({"kind": kind, "c": concurrency, "server": name, **medians})
    return rows


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The ratios that have targets, by rate (seen by clients) and by processor time (independent of other load)."""

    def row(kind: str, c: int, server: str) -> dict[str, Any] | None:
        return next((row for row in rows if (row["kind"], row["c"], row["server"]) == (kind, c, server)), None)

    found: dict[str, dict[str, float]] = {}
    for kind, c in itertools.product(("requests", "streams"), (1, 32)):
        ours, other = row(kind, c, "ragsvc"), row(kind, c, "base")
        if ours is not None and other is not None:
            found[f"{kind} c={c}, of the base"] = {
                "by_rate": ours["per_s"] / other["per_s"],
                "by_cpu": other["cpu_us"] / ours["cpu_us"],
                "p50": ours["p50_ms"] / other["p50_ms"],
            }
    for kind in ("requests", "streams"):
        ours = row(kind, 32, "ragsvc")
        for name, other in (("bare", row(kind, 32, "bare")), ("LiteLLM", row(kind, 32, "litellm"))):
            if ours is not None and other is not None:
                found[f"{kind} c=32, of {name}"] = {
                    "by_rate": ours["per_s"] / other["per_s"],
                    "by_cpu": other["cpu_us"] / ours["cpu_us"],
                }
    for kind, field in (("requests", "p50_ms"), ("streams", "first_p50_ms")):
        base = row(kind, 1, "direct")
        for name in ("bare", "ragsvc", "litellm"):
            other = row(kind, 1, name)
            if base is not None and other is not None:
                figure = "p50" if field == "p50_ms" else "first token p50"
                label = f"{kind} c=1, {figure} added to direct" + ("" if name == "ragsvc" else f" by {name}")
                found[label] = {"ms": other[field] - base[field]}
    return found


def report(rows: list[dict[str, Any]], memory: dict[str, int]) -> None:
    """Print the table, and the ratios with their targets."""
    print(f"{'':9}{'c':>3} {'server':8}{'per s':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'first ms':>9}{'cpu us':>9}")
    for row in rows:
        print(
            f"{row['kind']:9}{row['c']:>3} {row['server']:8}{row['per_s']:9.0f}{row['p50_ms']:9.2f}{row['p95_ms']:9.2f}"
            f"{row['p99_ms']:9.2f}{row['first_p50_ms']:9.2f}{row['cpu_us']:9.0f}"
        )
    print("peak memory: " + ", ".join(f"{name} {mebibytes(size)}" for name, size in memory.items()))
    for label, values in ratios(rows).items():
        text = "   ".join(f"{name} {value:.2f}" for name, value in values.items())
        target = _TARGETS.get(label)
        wanted = (
            "" if target is None else f"   (target {'<=' if target[1] == 'ms' else '>='} {target[0]:g} {target[1]})"
        )
        print(f"{label:54}{text}{wanted}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--litellm", type=Path, help="virtual environment with litellm[proxy] (default: .venv-litellm)")
    parser.add_argument("--base", metavar="REV", help="measure the service of this revision as well")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    venv: Path = options.litellm or ROOT / ".venv-litellm"
    has_litellm = (venv / "bin" / "litellm").exists()
    if options.litellm and not has_litellm:
        parser.error(f"--litellm: {venv} does not contain bin/litellm; install 'litellm[proxy]' into it")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = stack.enter_context(provider_server())
        url = f"http://127.0.0.1:{provider.port}/v1"
        servers = [
            provider,
            stack.enter_context(bare_server(provider)),
            stack.enter_context(ragsvc(url, folder)),
        ]
        if options.base:
            root = stack.enter_context(checked_out(options.base))
            of_base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers.append(stack.enter_context(ragsvc(url, of_base, root=root, name="base")))
        if has_litellm:
            servers.append(stack.enter_context(litellm(venv, url, folder)))
        rows = measure(servers, rounds=options.rounds, seconds=options.seconds)
        memory = {server.name: peak_bytes(server.pid) for server in servers}
    if options.json:
        print_json({"rows": rows, "ratios": ratios(rows), "peak_bytes": memory})
    else:
        report(rows, memory)
        if not has_litellm:
            print("LiteLLM was not measured: .venv-litellm (or --litellm VENV) has no 'litellm[proxy]'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
