"""Chosen cases: what random commands do not meet often enough."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DIFFERENCES: Final[dict[str, list[str]]] = {
    "spop": [f"sadd s {' '.join(map(str, range(99, 0, -1)))}", "! spop s 20"],
    "order of members": [
        "sadd s 3 1 2",
        "! smembers s",
        "! sscan s 0",
        f"hset h {' '.join(map(str, range(2000)))}",
        "! hgetall h",
        "! hscan h 0",
    ],
    "order of keys": [
        f"mset {' '.join(map(str, range(98)))}",
        "! keys *",
        "! scan 0",
        "! scan 0 count 1000",
    ],
    "wait": ["! wait 0 0"],
    "absent": ["set k v", "! set k v ex 10", "! set k v keepttl", "! select 1"],
    "sizes": [
        f"! set {'k' * 65_536} v",
        f"! mset {' '.join(['k', 'v' * 400_000] * 3)}",
        f"! exists {' '.join('k' * 65_537)}",
        f"! watch {' '.join(map(str, range(1_025)))}",
        "reset",
        "multi",
        f"exists {' '.join('k' * 40_000)}",
        f"! exists {' '.join('k' * 40_000)}",
    ],
    "inside MULTI": ["multi", "! client setname me", "! exec", "multi", "! hello 3", "! exec"],
    "NUL": ["set k v", "! scan 0\\0 count 1000", "! set k v nx\\0"],
    "about itself": [
        *("! info server", "! config get databases", "! config get port", "! client info"),
        *("! command count", "! command info get", "! command info client|id", "! command list filterby module x"),
    ],
}
"""What differs, as in docs/reference/redis-differences.md, by examples: a conversation as in `redis_corpus.txt`, with a
mark before each command whose reply is not that of Redis."""


def conversations() -> dict[str, list[str]]:
    """Title -> commands of `redis_corpus.txt`, whose first lines say how they are written."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = commands = []
        elif line and not line.startswith("#"):
            commands.append(line)
    return found


RAW: Final = (
    b"PING\r\n",
    b"ping\n",
    b"\r\n\r\nPING\r\n",
    b"  PING  \r\n",
    b"PING 'a b'\r\n",
    b'ECHO "a\\x41\\n\\"b"\r\n',
    b"ECHO 'it\\'s'\r\n",
    b'ECHO "open\r\n',
    b"ECHO 'open\r\n",
    b'ECHO "a"b\r\n',
    b'ECHO a"b"\r\n',
    b'SET k ""\r\nGET k\r\n',
    b"*0\r\nPING\r\n",
    b"*-1\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"*x\r\n",
    b"*1048577\r\n",
    b"*99999999999999999999\r\n",
    b"*1\r\n:4\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$99999999999\r\n",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    b"*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"* 1\r\n",
    b"*1\r\n$ 4\r\nPING\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET pwn 1\r\n",
    b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\nSET pwn 1\r\n",
    b"PING\r\nMULTI\r\npOST x\r\n",
    b"*2\r\n$5\r\nHOST:\r\n$1\r\nx\r\n",
    b"PING post\r\nposter\r\nhost\r\n",
    b"nosuch " + b"a" * 300 + b"\r\n",
)
"""What is no command, or no sensible one."""

PASSWORD: Final = b"pw"
LOCKED: Final = (
    b"PING\r\nGET k\r\nECHO x\r\nMULTI\r\nEXEC\r\nDISCARD\r\nWATCH k\r\nUNWATCH\r\nSELECT x\r\nCLIENT ID\r\n",
    b"GET\r\nEXEC x\r\nNOSUCH\r\nCLIENT NOSUCH\r\nINCRBY k x\r\nSET k v FOO\r\nMSET a b c\r\nSCAN x\r\n",
    b"AUTH bad\r\nAUTH default bad\r\nAUTH other pw\r\nAUTH a b c\r\nAUTH\r\nPING\r\n",
    b"AUTH pw\r\nPING\r\nAUTH bad\r\nPING\r\nAUTH default pw\r\nRESET\r\nPING\r\n",
    b"RESET\r\nQUIT x\r\n",
    b"HELLO\r\nHELLO 3\r\nHELLO 4\r\nHELLO x\r\nHELLO 3 foo\r\nHELLO 3 AUTH\r\nPING\r\n",
    b"HELLO 3 AUTH bad bad foo\r\nPING\r\n",
    b"HELLO 3 AUTH default pw foo\r\nPING\r\nGET none\r\nHELLO 3\r\nGET none\r\n",
    b"HELLO 3 SETNAME x foo\r\nHELLO 3\r\nAUTH pw\r\nCLIENT GETNAME\r\n",
    b"HELLO 3 AUTH default pw SETNAME 'a b'\r\nPING\r\n",
    b"HELLO 3 SETNAME x AUTH default bad\r\nAUTH pw\r\nCLIENT GETNAME\r\n",
    b"HELLO 3 AUTH default pw AUTH default bad\r\nPING\r\n",
    b"HELLO 3 AUTH default pw SETNAME me\r\nCLIENT GETNAME\r\nHELLO 2 AUTH default bad\r\nGET none\r\n",
    b"POST / HTTP/1.1\r\n",
    b"PING\r\n*11\r\n",
    b"*10\r\n" + b"$1\r\nx\r\n" * 10,
    b"*2\r\n$4\r\nECHO\r\n$16384\r\n" + b"x" * 16384 + b"\r\n",
    b"*2\r\n$4\r\nECHO\r\n$16385\r\n",
    b"*12\r\n$99999999999\r\n",
    b"*x\r\n",
    b"*1\r\n$99999999999\r\n",
    b"AUTH pw\r\n*11\r\n$3\r\nDEL\r\n" + b"$1\r\nx\r\n" * 10,
    b"HELLO 2 AUTH default pw\r\n*2\r\n$4\r\nECHO\r\n$20000\r\n" + b"x" * 20000 + b"\r\n",
    b"AUTH bad\r\n*11\r\n",
    b"AUTH pw\r\nRESET\r\n*11\r\n",
    b"PING " + b"x" * 20000 + b"\r\n",
)
"""What is said to a server that asks for `PASSWORD`."""
