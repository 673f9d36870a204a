"""One file describes the cluster; only this module and `limits.py` know its keys.

`Config.load` reads `cluster.toml`, the same on every machine. Everything is checked before anything starts: an unknown
key names its nearest match, a bad value names the key, the value and what is allowed, and the line is in the message.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from epaxos.errors import ConfigError
from epaxos.ids import ReplicaId
from epaxos.limits import BadValue, LimitsConfig, dotted
from epaxos.packing import SECRET_BYTES
from epaxos.quorums import MAX_REPLICAS
from epaxos.toml_lines import KeyPath, key_lines

PROTOCOLS: Final = ("epaxos", "raft")
"""The protocols of this release."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME_ALLOWED: Final = "1 to 64 letters, digits, '-' or '_'"


class Address(NamedTuple):
    """Where something listens. Port 0 lets the system choose one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`host:port`, or `[v6]:port`. Raises ValueError saying what is wrong."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError("an IPv6 address stands in brackets: [::1]:7400")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError("expected host:port with a port from 0 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig:
    """One member of the cluster."""

    name: str
    """What people see everywhere: logs, status, metrics."""
    peer: Address
    """Other replicas talk to it here."""
    client: Address
    """Redis clients and the native client talk to it here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveConfig:
    """What a replica says of itself beyond totals."""

    keys: tuple[str, ...] = ()
    """Keys whose commands are counted apart from all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """What only a protocol with a leader reads."""

    preferred: str | None = None
    """Who should lead, by name; None leaves it to chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration, checked. The position of a replica in `replicas` is its id."""

    cluster: str
    replicas: tuple[ReplicaConfig, ...]
    protocol: str = "epaxos"
    secret: bytes = field(default=b"", repr=False)
    """The 16 bytes that key the hash of keys, the same at every replica. Empty: derived from the cluster's name."""
    password: bytes | None = field(default=None, repr=False)
    """What a client must show before anything is done for it; None: nothing."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    raft: RaftConfig = field(default_factory=RaftConfig)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.cluster):
            raise BadValue(("cluster",), self.cluster, _NAME_ALLOWED)
        if self.protocol not in PROTOCOLS:
            raise BadValue(
                ("protocol",), self.protocol, f"one of: {', '.join(PROTOCOLS)} (others are not in this release)"
            )
        if not 1 <= len(self.replicas) <= MAX_REPLICAS:
            raise ConfigError(f"{len(self.replicas)} [[replica]] tables: a cluster has 1 to {MAX_REPLICAS} replicas")
        _check_replicas(self.replicas)
        preferred = self.raft.preferred
        if preferred is not None and preferred not in self.names:
            raise BadValue(("raft", "preferred"), preferred, f"the name of a replica{nearest(preferred, self.names)}")
        if not self.secret:
            object.__setattr__(self, "secret", derive_secret(self.cluster))
        if len(self.secret) != SECRET_BYTES:
            raise ConfigError(f"the secret has {len(self.secret)} bytes, not {SECRET_BYTES}")

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Config:
        """Read a file, then apply `key=value` overrides. Raises ConfigError, which says where and what is allowed."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        return cls.parse(text, source=str(path), overrides=overrides)

    @classmethod
    def of(cls, config: Config | str | Path) -> Config:
        """This configuration, or that of this file, as `load`."""
        return config if isinstance(config, Config) else cls.load(config)

    @classmethod
    def parse(cls, text: str, *, source: str = "cluster.toml", overrides: Iterable[str] = ()) -> Config:
        """As `load`, from the text of the file; `source` is what messages call it."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{source}: {error}") from None
        where = _Where(source, key_lines(text))
        for override in overrides:
            where.overridden[_override(document, override)] = f"--set {override}"
        try:
            return _build(document)
        except (BadValue, _UnknownKey) as error:
            raise ConfigError(f"{where(error.path)}: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None

    @property
    def n(self) -> int:
        """How many replicas the cluster has."""
        return len(self.replicas)

    @property
    def names(self) -> tuple[str, ...]:
        """The replicas' names, by id."""
        return tuple(replica.name for replica in self.replicas)

    @property
    def preferred(self) -> ReplicaId | None:
        """Who should lead, of a protocol that has a leader; None leaves it to chance."""
        return None if self.raft.preferred is None else self.id_of(self.raft.preferred)

    def id_of(self, name: str) -> ReplicaId:
        """The id of the replica of that name. Raises ConfigError naming the nearest match."""
        if name not in self.names:
            raise ConfigError(f"no replica {name!r} in cluster {self.cluster!r}{nearest(name, self.names)}")
        return self.names.index(name)

    def replica(self, name: str) -> ReplicaConfig:
        """The replica of that name. Raises ConfigError as `id_of`."""
        return self.replicas[self.id_of(name)]


def derive_secret(text: str) -> bytes:
    """The 16-byte key of the key hash, from the secret in the file or the cluster's name."""
    return hashlib.blake2b(text.encode(), digest_size=SECRET_BYTES, person=b"epaxos key hash").digest()


def _check_replicas(replicas: Sequence[ReplicaConfig]) -> None:
    """Names and addresses are unique."""
    names: set[str] = set()
    addresses: dict[Address, str] = {}
    for at, replica in enumerate(replicas):
        if not _NAME.fullmatch(replica.name):
            raise BadValue(("replica", at, "name"), replica.name, _NAME_ALLOWED)
        if replica.name in names:
            raise BadValue(("replica", at, "name"), replica.name, "unique in the cluster")
        names.add(replica.name)
        for role, address in (("peer", replica.peer), ("client", replica.client)):
            owner = addresses.setdefault(address, f"{replica.name}'s {role} address") if address.port else None
            if owner is not None and owner != f"{replica.name}'s {role} address":
                raise BadValue(("replica", at, role), str(address), f"unique; it is {owner} already")


# --------------------------------------------------------------------------------------- from the document of a file


class _UnknownKey(ConfigError):
    """No such key at `path`."""

    def __init__(self, path: KeyPath, known: Iterable[str]) -> None:
        *table, name = path
        prefix = f"{dotted(tuple(table))}." if table else ""
        super().__init__(f"unknown key {dotted(path)}{nearest(str(name), known, prefix)}")
        self.path = path


@dataclass(slots=True)
class _Where:
    """Says where the value of a path was written."""

    source: str
    lines: Mapping[KeyPath, int]
    overridden: dict[KeyPath, str] = field(default_factory=dict)

    def __call__(self, path: KeyPath) -> str:
        if path in self.overridden:
            return self.overridden[path]
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}"
        return self.source


_TOP: Final = ("cluster", "protocol", "secret", "password", "replica", "limits", "observe", "raft")
_TABLES: Final = ("limits", "observe", "raft")
"""The tables of single keys."""
_REPLICA: Final = tuple(each.name for each in dataclasses.fields(ReplicaConfig))


def _build(document: Mapping[str, Any]) -> Config:
    if "tls" in document:
        raise BadValue(("tls",), "…", "absent: TLS between replicas is not in this release")
    _known(document, (), _TOP)
    values: dict[str, Any] = {"cluster": _string(_required(document, (), "cluster"), ("cluster",))}
    if "protocol" in document:
        values["protocol"] = _string(document["protocol"], ("protocol",))
    if "secret" in document:
        secret = _string(document["secret"], ("secret",))
        if not secret:
            raise BadValue(("secret",), secret, "a non-empty string, or absent")
        values["secret"] = derive_secret(secret)
    if "password" in document:
        password = _string(document["password"], ("password",))
        if not password:
            raise BadValue(("password",), password, "a non-empty string, or absent")
        values["password"] = password.encode()
    tables = document.get("replica", [])
    if not isinstance(tables, list):
        raise BadValue(("replica",), tables, "written as [[replica]], one table for every member")
    values["replicas"] = tuple(_replica(table, ("replica", at), len(tables)) for at, table in enumerate(tables))
    values["limits"] = _limits(_table(document, "limits"))
    values["observe"] = _observe(_table(document, "observe"))
    values["raft"] = _raft(_table(document, "raft"))
    return Config(**values)


def _replica(table: Any, path: KeyPath, n: int) -> ReplicaConfig:
    if not isinstance(table, dict):
        raise BadValue(path, table, "a table")
    _known(table, path, _REPLICA)
    name = _string(_required(table, path, "name"), (*path, "name"))
    peer, client = (_address(_required(table, path, role), (*path, role)) for role in ("peer", "client"))
    if peer.port == 0 and n > 1:
        raise BadValue((*path, "peer"), str(peer), "an address with a fixed port: the other replicas must find it")
    return ReplicaConfig(name=name, peer=peer, client=client)


def _limits(table: Mapping[str, Any]) -> LimitsConfig:
    _known(table, ("limits",), [each.name for each in dataclasses.fields(LimitsConfig)])
    return LimitsConfig(**table)


def _observe(table: Mapping[str, Any]) -> ObserveConfig:
    _known(table, ("observe",), [each.name for each in dataclasses.fields(ObserveConfig)])
    keys = table.get("keys", [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise BadValue(("observe", "keys"), keys, "an array of strings")
    return ObserveConfig(keys=tuple(keys))


def _raft(table: Mapping[str, Any]) -> RaftConfig:
    _known(table, ("raft",), [each.name for each in dataclasses.fields(RaftConfig)])
    preferred = table.get("preferred")
    return RaftConfig(preferred=None if preferred is None else _string(preferred, ("raft", "preferred")))


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise BadValue((name,), table, f"a table, written as [{name}]")
    return table


def _known(table: Mapping[str, Any], path: KeyPath, known: Iterable[str]) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            raise _UnknownKey((*path, key), known)


def _required(table: Mapping[str, Any], path: KeyPath, key: str) -> Any:
    if key not in table:
        raise BadValue((*path, key), None, "given")
    return table[key]


def _string(value: Any, path: KeyPath) -> str:
    if not isinstance(value, str):
        raise BadValue(path, value, "a string")
    return value


def _address(value: Any, path: KeyPath) -> Address:
    try:
        return Address.parse(_string(value, path))
    except ValueError as error:
        raise BadValue(path, value, f"an address ({error})") from None


def _override(document: dict[str, Any], override: str) -> KeyPath:
    """Put `key=value` into the document; the path it went to. Replicas are named: `replica.CA.client=…`."""
    key, equals, text = override.partition("=")
    names = [part.strip() for part in key.split(".")]
    if not equals or not all(names):
        raise ConfigError(f"--set {override}: expected key=value, such as limits.window=512")
    value = _value(text.strip())
    if names[0] == "replica":
        return _override_replica(document, override, names[1:], value)
    if len(names) > 2 or (len(names) == 1 and names[0] in _TABLES):
        raise ConfigError(f"--set {override}: expected key=value, such as limits.window=512")
    if len(names) == 1:
        document[names[0]] = value
        return (names[0],)
    if names[0] not in _TABLES:
        raise ConfigError(f"--set {override}: {_UnknownKey((names[0],), (*_TABLES, 'replica'))}")
    table = document.setdefault(names[0], {})
    if isinstance(table, dict):
        table[names[1]] = value
    return tuple(names)


def _override_replica(document: Mapping[str, Any], override: str, names: Sequence[str], value: Any) -> KeyPath:
    tables = document.get("replica", [])
    known = [str(table.get("name")) for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
    if len(names) != 2 or names[0] not in known:
        hint = nearest(names[0], known) if names else ""
        raise ConfigError(f"--set {override}: expected replica.NAME.key=value with the name of a replica{hint}")
    at = known.index(names[0])
    tables[at][names[1]] = value
    return ("replica", at, names[1])


def _value(text: str) -> Any:
    """A TOML value where the text is one, otherwise the text itself: `--set cluster=shop` needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """What to say behind a name that is not known: the one that was meant, or else all of them."""
    known = list(known)
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if found:
        return f"; did you mean {prefix}{found[0]}?"
    return f"; known: {', '.join(known)}" if known else ""
