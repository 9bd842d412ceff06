"""Each protection of the parser's child processes on its own, and on systems that lack some of them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ragsvc.core.errors import StorageFull
from ragsvc.extract.sandbox import input_folder, system_call_filter
from ragsvc.extract.sandbox.input_folder import InputFolder
from ragsvc.testing.service_runner import ROOT, service_environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="the protections are features of Linux")

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
X86_64, AARCH64 = 0xC000003E, 0xC00000B7
PID = 4711


def run(code: str, **env: str) -> str:
    """The output of a Python program that can import the package."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **env},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- the filter of system calls


def decide(machine: str, architecture: int, number: int, *arguments: int) -> int:
    """Run the filter as the kernel does (seccomp(2): the call's number, architecture and arguments)."""
    words = {0: number, 4: architecture}
    for index, argument in enumerate((*arguments, *[0] * (6 - len(arguments)))):
        words[16 + 8 * index] = argument & 0xFFFFFFFF
        words[20 + 8 * index] = argument >> 32
    program = system_call_filter._program(machine, PID)
    accumulator = position = 0
    while True:
        code, when_true, when_false, operand = program[position]
        position += 1
        match code:
            case 0x20:
                accumulator = words[operand]
            case 0x06:
                return operand
            case 0x15:
                position += when_true if accumulator == operand else when_false
            case 0x25:
                position += when_true if accumulator > operand else when_false
            case 0x35:
                position += when_true if accumulator >= operand else when_false
            case 0x45:
                position += when_true if accumulator & operand else when_false
            case _:
                raise AssertionError(code)


CALLS = [  # name, number on x86_64, number on aarch64, arguments, answer
    ("read", 0, 63, (3,), ALLOW),
    ("openat", 257, 56, (), ALLOW),
    ("mmap", 9, 222, (), ALLOW),
    ("futex", 202, 98, (), ALLOW),
    ("exit_group", 231, 94, (), ALLOW),
    ("sched_yield", 24, 124, (), ALLOW),
    ("getpriority", 140, 141, (), ALLOW),
    ("statx", 332, 291, (), ALLOW),
    ("openat2", 437, 437, (), ALLOW),
    ("futex_waitv", 449, 449, (), ALLOW),
    ("clone of a thread", 56, 220, (0x3D0F00,), ALLOW),
    ("clone of a process", 56, 220, (17,), EPERM),
    ("clone3", 435, 435, (), ENOSYS),
    ("a call of a later kernel", 500, 500, (), ENOSYS),
    ("a call of the x32 table", 0x40000000 | 41, 0x40000000 | 198, (), ENOSYS),
    ("socket", 41, 198, (2, 1), EPERM),
    ("socketpair", 53, 199, (), EPERM),
    ("connect", 42, 203, (), EPERM),
    ("execve", 59, 221, (), EPERM),
    ("ptrace", 101, 117, (), EPERM),
    ("process_vm_readv", 310, 270, (), EPERM),
    ("pidfd_send_signal", 424, 424, (), EPERM),
    ("pidfd_open", 434, 434, (), EPERM),
    ("io_uring_setup", 425, 425, (), EPERM),
    ("fchmodat", 268, 53, (), EPERM),
    ("bpf", 321, 280, (), EPERM),
    ("mount", 165, 40, (), EPERM),
    ("semtimedop", 220, 192, (), EPERM),
    ("kill of another process", 62, 129, (PID + 1, 9), EPERM),
    ("kill of all processes", 62, 129, (0xFFFFFFFFFFFFFFFF, 9), EPERM),
    ("kill of its group", 62, 129, (0, 9), EPERM),
    ("kill of itself", 62, 129, (PID, 6), ALLOW),
    ("tgkill of another process", 234, 131, (1, 1, 9), EPERM),
    ("tgkill of itself", 234, 131, (PID, 9999, 6), ALLOW),
    ("prlimit64 of itself", 302, 261, (0,), ALLOW),
    ("prlimit64 of another process", 302, 261, (1,), EPERM),
    ("setpriority of itself", 141, 140, (0, 0, 10), ALLOW),
    ("setpriority of another process", 141, 140, (0, 1, 10), EPERM),
    ("setpriority of a user", 141, 140, (2, 0, 10), EPERM),
    ("fcntl F_GETFL", 72, 25, (1, 3), ALLOW),
    ("fcntl F_SETOWN", 72, 25, (1, 8, 1), EPERM),
    ("ioctl TCGETS", 16, 29, (0, 0x5401), ALLOW),
    ("ioctl TIOCSTI", 16, 29, (0, 0x5412), EPERM),
]


@pytest.mark.parametrize(("name", "x86_64", "aarch64", "arguments", "answer"), CALLS, ids=[call[0] for call in CALLS])
def test_the_filter_decides_calls_by_number_and_arguments(name, x86_64, aarch64, arguments, answer):
    assert decide("x86_64", X86_64, x86_64, *arguments) == answer
    assert decide("aarch64", AARCH64, aarch64, *arguments) == answer


def test_calls_of_another_architecture_end_the_process():
    assert decide("x86_64", 0x40000003, 3) == KILL  # i386 read
    assert decide("aarch64", X86_64, 0) == KILL


@linux
def test_the_filter_alone_takes_network_and_signals_away():
    assert run(
        """
        import os, signal, socket
        from ragsvc.extract.sandbox.kernel import forbid_new_privileges
        from ragsvc.extract.sandbox.system_call_filter import filter_system_calls

        forbid_new_privileges()
        filter_system_calls()
        for attempt in (socket.socket, os.fork, lambda: os.kill(os.getppid(), 0), lambda: os.kill(os.getpid(), 0)):
            try:
                attempt()
                print("done")
            except PermissionError:
                print("refused")
        """
    ).split() == ["refused", "refused", "refused", "done"]


# --- Landlock


@linux
def test_landlock_alone_takes_files_and_signals_away(tmp_path):
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed/file").write_text("x")
    (tmp_path / "secret").write_text("y")
    found = run(
        """
        import os, sys
        from ragsvc.extract.sandbox.kernel import forbid_new_privileges
        from ragsvc.extract.sandbox.landlock import restrict_files

        folder = sys.argv[1] if len(sys.argv) > 1 else os.environ["FOLDER"]
        forbid_new_privileges()
        restrict_files([folder + "/allowed", "/does/not/exist"], writable=["/dev/null"])
        for attempt in (
            lambda: open(folder + "/allowed/file"),
            lambda: os.listdir(folder + "/allowed"),
            lambda: open("/dev/null", "w"),
            lambda: open(folder + "/secret"),
            lambda: os.listdir(folder),
            lambda: open(folder + "/allowed/file", "w"),
            lambda: open(f"/proc/{os.getppid()}/environ"),
        ):
            try:
                attempt()
                print("done")
            except PermissionError:
                print("refused")
        """,
        FOLDER=str(tmp_path),
    )
    assert found.split() == ["done"] * 3 + ["refused"] * 4


# --- systems that lack a protection

OLD_KERNEL = """
import ctypes, struct, sys

import anyio
from pathlib import Path

from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.parser import ChildParser
from ragsvc.extract.sandbox import system_call_filter
from ragsvc.extract.sandbox.kernel import forbid_new_privileges, system_call

lacking = [int(number) for number in sys.argv[2:]]
steps = [(0x20, 0, 0, 0)]
for number in lacking:
    steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | 38)]  # ENOSYS
steps.append((0x06, 0, 0, 0x7FFF0000))
code = b"".join(struct.pack("=HBBI", *step) for step in steps)
forbid_new_privileges()
program = system_call_filter._FilterProgram(len(steps), code)
machine = __import__("os").uname().machine
system_call(system_call_filter._SECCOMP[machine], ctypes.c_uint(1), ctypes.c_uint(0), ctypes.byref(program))

async def main():
    parser = ChildParser(ExtractionLimits(), chunk=None, workers=1)
    parsed = await parser.parse(Path(sys.argv[1]), media_type="text/plain", filename="notes.txt")
    print(parsed.extraction.pages[0].text)
    await parser.close()

anyio.run(main)
"""


@linux
@pytest.mark.parametrize(
    ("lacking", "exposure"),
    [
        (444, "can read the files of the service's user (Landlock)"),
        (system_call_filter._SECCOMP.get(os.uname().machine, 0), "can use the network and signals (seccomp)"),
    ],
    ids=["landlock", "seccomp"],
)
def test_without_a_protection_files_are_read_all_the_same_and_the_log_names_it(tmp_path, lacking, exposure):
    path = tmp_path / "notes.txt"
    path.write_text("The lighthouse was lit in 1874.")
    done = subprocess.run(
        [sys.executable, "-c", OLD_KERNEL, str(path), str(lacking)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        check=False,
    )
    assert done.stdout == "The lighthouse was lit in 1874.\n"
    reason = "because this system lacks the protection: Function not implemented."
    assert done.stderr == f"Parser processes {exposure}, {reason}\n"


# --- the folder of the input


def test_the_input_is_linked_for_the_time_of_a_job(tmp_path):
    blob = tmp_path / "blob"
    blob.write_bytes(b"text")
    (tmp_path / "alias").symlink_to(blob)
    folder = InputFolder(tmp_path / "parsing")
    for source in (blob, tmp_path / "alias"):
        target = folder.put(source)
        assert target.read_bytes() == b"text"
        assert target.samefile(blob)
        assert not target.is_symlink()
    folder.clear()
    assert not target.exists()
    assert blob.read_bytes() == b"text"
    assert folder.put(tmp_path / "missing") == tmp_path / "missing"
    folder.remove()
    assert list((tmp_path / "parsing").iterdir()) == []


@linux
def test_the_input_is_copied_from_another_file_system(tmp_path):
    memory = Path("/dev/shm")  # noqa: S108 - a file system in memory
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    blob = tmp_path / "blob"
    blob.write_bytes(b"text")
    folder = InputFolder(memory)
    try:
        target = folder.put(blob)
        assert target.read_bytes() == b"text"
        assert not target.samefile(blob)
    finally:
        folder.remove()


def test_a_full_disk_is_no_fault_of_the_document():
    assert isinstance(input_folder._storage_full(OSError(errno.ENOSPC, "full")), StorageFull)
    assert not isinstance(input_folder._storage_full(OSError(errno.EACCES, "no")), StorageFull)


# --- the service and the cost


READ_ENVIRONMENT = """
import os
from pathlib import Path

from ragsvc.extract.sandbox.kernel import drop_capabilities

drop_capabilities()  # tests may run as root, which may read everything
try:
    print(b"RAGSVC_DATA_DIR" in Path(f"/proc/{os.environ['TARGET']}/environ").read_bytes())
except PermissionError:
    print("refused")
"""

WITHOUT_CAPABILITIES = """
import os, sys

from ragsvc.extract.sandbox.kernel import drop_capabilities, forbid_new_privileges

forbid_new_privileges()  # root would get its capabilities back
drop_capabilities()
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@linux
@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (("-c", "import time; print(1, flush=True); time.sleep(60)"), "True"),
        (("-m", "ragsvc", "serve", "--port", "0", "--json"), "refused"),
    ],
    ids=["another-program", "service"],
)
def test_processes_of_the_same_user_cannot_read_the_environment_of_the_service(tmp_path, arguments, outcome):
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_CAPABILITIES, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=service_environment(tmp_path / "data"),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            assert run(READ_ENVIRONMENT, TARGET=str(process.pid)) == outcome
        finally:
            process.kill()


@linux
def test_confinement_costs_less_than_ten_milliseconds():
    times = [
        float(
            run(
                """
                import time
                import ragsvc.extract.parser_child
                from ragsvc.extract.sandbox.confinement import confine

                begun = time.process_time()
                assert confine(readable=(), packages=("ragsvc",)) == []
                print(time.process_time() - begun)
                """
            )
        )
        for _ in range(3)
    ]
    assert min(times) < 0.01
