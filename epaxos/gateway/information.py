"""INFO: what dashboards read of a Redis server, as far as it means something here, and what is our own."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from epaxos import replies
from epaxos._version import VERSION
from epaxos.gateway.context import Context

REDIS_VERSION: Final = "7.0.15"
"""The release of Redis whose replies these are."""

_ALL: Final = frozenset({b"default", b"all", b"everything"})
_KIB: Final = 1024
_UNITS: Final = "BKMGT"
_STATM: Final = Path("/proc/self/statm")

Lines = list[tuple[str, object]]


def info(context: Context) -> bytes:
    """The sections asked for, or all."""
    wanted = {word.lower() for word in context.args[1:]}
    every = not wanted or wanted & _ALL
    shown = [
        f"# {name}\r\n" + "".join(f"{key}:{value}\r\n" for key, value in lines)
        for name, lines in _sections(context)
        if every or name.lower().encode() in wanted
    ]
    return replies.text("\r\n".join(shown).encode(), context.client.dialect)


def _sections(context: Context) -> Iterator[tuple[str, Lines]]:
    status = context.server.host.status()
    up_s = status.get("up_s", 0)
    uptime_s = int(up_s) if isinstance(up_s, int | float) else 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak_bytes = usage.ru_maxrss * _KIB
    resident_bytes = _resident_bytes(peak_bytes)
    keys, traffic = context.server.count_keys(), context.server.traffic
    yield (
        "Server",
        [
            ("redis_version", REDIS_VERSION),
            ("redis_mode", "standalone"),
            ("os", f"{platform.system()} {platform.release()} {platform.machine()}"),
            ("arch_bits", sys.maxsize.bit_length() + 1),
            ("epaxos_version", VERSION),
            ("process_id", os.getpid()),
            ("tcp_port", context.server.port),
            ("uptime_in_seconds", uptime_s),
            ("uptime_in_days", uptime_s // 86_400),
        ],
    )
    yield (
        "Clients",
        [("connected_clients", context.clients), ("maxclients", context.server.max_clients), ("blocked_clients", 0)],
    )
    yield (
        "Memory",
        [
            ("used_memory", resident_bytes),
            ("used_memory_human", _human(resident_bytes)),
            ("used_memory_rss", resident_bytes),
            ("used_memory_rss_human", _human(resident_bytes)),
            ("used_memory_peak", peak_bytes),
            ("used_memory_peak_human", _human(peak_bytes)),
            ("maxmemory", 0),
            ("maxmemory_policy", "noeviction"),
        ],
    )
    yield "Persistence", [("loading", 0), ("aof_enabled", 1), ("aof_rewrite_in_progress", 0)]
    yield (
        "Stats",
        [
            ("total_connections_received", traffic.connections),
            ("total_commands_processed", status.get("executed", 0)),
            ("instantaneous_ops_per_sec", traffic.commands_per_s(context.server.host.now_us())),
            ("total_net_input_bytes", traffic.input_bytes),
            ("total_net_output_bytes", traffic.output_bytes),
            ("rejected_connections", traffic.turned_away),
            ("expired_keys", 0),
            ("evicted_keys", 0),
        ],
    )
    yield "Replication", [("role", "master"), ("connected_slaves", 0)]
    yield "CPU", [("used_cpu_sys", f"{usage.ru_stime:.6f}"), ("used_cpu_user", f"{usage.ru_utime:.6f}")]
    yield "Cluster", [("cluster_enabled", 0)]
    yield "Keyspace", [("db0", f"keys={keys},expires=0,avg_ttl=0")] if keys else []
    yield "Epaxos", [(name, value) for name, value in status.items() if isinstance(value, int | str | float)]


def _human(size: int) -> str:
    """A size as Redis writes it: `512B`, `1.50M`."""
    power = min((max(size, 1).bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size / _KIB**power:.2f}{_UNITS[power]}" if power else f"{size}B"


def _resident_bytes(peak_bytes: int) -> int:
    """What the process holds of the machine's memory, keys and all; the most it held, where only that is told."""
    if not _STATM.exists():
        return peak_bytes
    return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
