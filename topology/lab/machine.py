"""A machine of its own: a user-mode Linux, which is a whole kernel that runs as an ordinary process.

Its root is the file system of this machine, so that what is installed here runs there, and what it writes to files is
here. Its kernel has what this machine's may lack (`tc netem`), its network and its processes are its own. It has one
processor, and a system call costs 15 to 65 microseconds there: it is for latencies of tens of milliseconds, not for
throughput.

The processes of a machine end with the one that started it, whatever ends that.
"""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from epaxos.errors import ConfigError, EpaxosError
from topology.lab.namespaces import prompt

KERNEL: Final = "linux.uml"
PACKAGE: Final = "user-mode-linux"
MEMORY: Final = "1500M"
"""A file with holes on this machine: it takes what is used."""
HERE: Final = Path(__file__).resolve().parent.parent.parent
_HEARD_BYTES: Final = 2_000
_MODULES: Final = ("drivers/net/veth", "drivers/net/tun", "net/sched/sch_netem")

_INIT: Final = """#!/bin/sh
export PYTHONPATH={modules} PYTHONDONTWRITEBYTECODE=1 HOME=/root PATH={path}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm
ip link set lo up
cd {here}
"""

_RUN: Final = """
for module in {modules}; do insmod "/usr/lib/uml/modules/$(uname -r)/kernel/$module.ko"; done
mkfifo /run/out /run/err
stty -opost </dev/ttyS0
stty -opost </dev/ttyS1
cat </run/out >/dev/ttyS0 &
cat </run/err >/dev/ttyS1 &
exec 3>/run/out 4>/run/err
cd {here}
{command} >{out} 2>{err} 3>&- 4>&- </dev/null
echo $? >{code}
exec 3>&- 4>&-
wait
echo o >/proc/sysrq-trigger
sleep 60
"""


class MachineError(EpaxosError):
    """The machine did not boot, or stopped by itself; the message has what was last heard of it."""


def check() -> None:
    """Raises ConfigError when this machine cannot make another one, with what to install."""
    if shutil.which(KERNEL) is None:
        raise ConfigError(f"{KERNEL} not found: on Debian, apt-get install {PACKAGE}")
    if os.geteuid() != 0:
        raise ConfigError("a user-mode Linux is started as root, so that nothing of it is left when it is killed")


def write_init(path: Path, lines: str) -> None:
    """The script that a machine runs first: what every machine needs, and then these lines of the shell."""
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin:/usr/bin:/sbin:/bin"]
    head = _INIT.format(
        modules=shlex.quote(os.pathsep.join(each for each in sys.path if each)),
        path=shlex.quote(os.pathsep.join(programs)),
        here=shlex.quote(str(HERE)),
    )
    path.write_text(head + lines, encoding="utf-8")
    path.chmod(0o755)


def start(init: Path, *options: str, real_time: bool = False, **channels: Any) -> subprocess.Popen[bytes]:
    """Boot, with `options` of the kernel, and the `channels` that Popen takes.

    With `real_time` the machine runs before all others on this one, so that they do not make its clocks late. It ends
    with the thread that calls this. To end it, kill the group of the process.
    """
    words = [KERNEL, "root=/dev/root", "rootfstype=hostfs", "rw", f"mem={MEMORY}", "quiet", "loglevel=0"]
    words += [f"init={init}", f"uml_dir={init.parent}", "con=null", *options]
    # The kernel starts processes that outlive it when it is killed. Here they are in a namespace whose first process is
    # a shell that ends with the kernel, and a namespace ends with its first process.
    words = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit', "sh", *words]
    # A system call there is an exchange between two processes here, three times as fast when one processor does both.
    one = str(max(os.sched_getaffinity(0)))
    words = ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", one, *words]
    # Its memory is a file, which must not be one on a disk, wherever temporary files go.
    env = {name: value for name, value in os.environ.items() if name not in ("TMPDIR", "TMP", "TEMP")}
    with prompt() if real_time else nullcontext():
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, env=env, **channels)


def cut(process: subprocess.Popen[bytes]) -> None:
    """The power goes: every process of the machine ends at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(command: Sequence[str]) -> int:
    """Run a command in a machine of its own, from the directory in which this one runs.

    What it writes goes where this process writes; returns its exit code. Raises ConfigError when there is no
    user-mode Linux, and MachineError.
    """
    check()
    with TemporaryDirectory(prefix="epaxos-machine-") as name:
        directory = Path(name)
        code, heard = directory / "code", directory / "console"
        write_init(directory / "init", _run_lines(command, code))
        with heard.open("wb") as console:
            process = start(
                directory / "init",
                f"con0=null,fd:{console.fileno()}",
                *("ssl0=null,fd:1", "ssl1=null,fd:2"),
                real_time=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(console.fileno(),),
            )
        with process:
            try:
                _relay(process)
            finally:
                cut(process)
        if not code.exists():
            last = heard.read_bytes()[-_HEARD_BYTES:].decode(errors="replace").strip()
            raise MachineError(f"the machine stopped before the command had ended\n{last}".rstrip())
        return int(code.read_text(encoding="ascii"))


def _run_lines(command: Sequence[str], code: Path) -> str:
    """Runs the command and powers off. It writes to a terminal where this process does."""
    return _RUN.format(
        modules=" ".join(_MODULES),
        here=shlex.quote(str(Path.cwd())),
        command=shlex.join(command),
        out="/dev/ttyS0" if sys.stdout.isatty() else "&3",
        err="/dev/ttyS1" if sys.stderr.isatty() else "&4",
        code=shlex.quote(str(code)),
    )


def _relay(process: subprocess.Popen[bytes]) -> None:
    """What the machine says, as it says it, until nothing of it is left."""
    with selectors.DefaultSelector() as selector:
        for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            assert source is not None
            selector.register(source, selectors.EVENT_READ, target)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                key.data.buffer.write(data)
                key.data.buffer.flush()
