"""The first bytes of a link between replicas: who is there, and may these two talk? Pure: bytes in, bytes out.

Both ends send a hello at once, read the other's, and answer it with a verdict; only when both verdicts are good do
frames follow. Hello and verdict have the same form in every version, so that two releases that share no version can
still tell each other so::

    hello   = 8 bytes magic | u16 lowest version | u16 highest version | u16 body length | body    (little-endian)
    verdict = u16 text length | text                        (no text: accepted; otherwise UTF-8, why not)

The body is a CBOR map from names to values; names that a release does not know are ignored by it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from epaxos import cbor
from epaxos.errors import ProtocolError
from epaxos.identity import LOST, Acquaintance, is_disk
from epaxos.ids import ReplicaId
from epaxos.messages import MAX_U64, WIRE_VERSION
from epaxos.quorums import MAX_REPLICAS

MAGIC: Final = b"EPaxos\r\n"
PREFIX: Final = struct.Struct("<8sHHH")
VERDICT: Final = struct.Struct("<H")
LOWEST_VERSION: Final = WIRE_VERSION
CONFLICT_VERSION: Final = 1
"""Of the function that says which commands conflict (`command.py`): all members of a cluster compute the same one."""
MAX_BODY_BYTES: Final = 1024
MAX_TEXT_BYTES: Final = 512
MAX_NAME_CHARS: Final = 64
FINGERPRINT_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a replica says of itself."""

    lowest: int = LOWEST_VERSION
    highest: int = WIRE_VERSION
    cluster: str
    replica: ReplicaId
    name: str
    disk: str
    """The id of its disk: one that comes with another has not the memory of the votes that were cast under its name."""
    incarnation: int
    n: int
    """How many members its configuration lists."""
    protocol: str
    conflict: int = CONFLICT_VERSION
    secret: bytes
    """A fingerprint of the secret that keys the hash of keys: equal secrets, equal fingerprints."""


def fingerprint(secret: bytes) -> bytes:
    """8 bytes that tell whether two replicas hold the same secret, without showing it."""
    return hashlib.blake2b(secret, digest_size=FINGERPRINT_BYTES, person=b"epaxos handshake").digest()


# ------------------------------------------------------------------------------------------------------ the codec


def encode_hello(hello: Hello) -> bytes:
    """The first bytes of a link."""
    body = cbor.dumps({name: getattr(hello, name) for name in _CHECKS})
    return PREFIX.pack(MAGIC, hello.lowest, hello.highest, len(body)) + body


def body_length(prefix: bytes) -> int:
    """How many bytes of body stand behind the `PREFIX.size` bytes of `prefix`. Raises ProtocolError."""
    magic, _, _, length = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise ProtocolError(f"not a replica: its first bytes are {magic!r}")
    if not 1 <= length <= MAX_BODY_BYTES:
        raise ProtocolError(f"a hello of {length} bytes; at most {MAX_BODY_BYTES} are allowed")
    return int(length)


def decode_hello(prefix: bytes, body: bytes) -> Hello:
    """The hello in `prefix`, which `body_length` has seen, and `body`. Raises ProtocolError naming what is wrong."""
    _, lowest, highest, _ = PREFIX.unpack(prefix)
    if not lowest <= highest:
        raise ProtocolError(f"hello: versions {lowest} to {highest} are none")
    table = cbor.loads(body)
    if type(table) is not dict:
        raise ProtocolError("hello: not a map")
    for name, allowed in _CHECKS.items():
        if name not in table or not allowed(table[name]):
            raise ProtocolError(f"hello: {name} is {table.get(name)!r:.80}")
    return Hello(lowest=lowest, highest=highest, **{name: table[name] for name in _CHECKS})


def encode_verdict(why_not: str = "") -> bytes:
    """The answer to a hello; no text accepts it."""
    text = why_not.encode()[:MAX_TEXT_BYTES]
    return VERDICT.pack(len(text)) + text


def verdict_length(prefix: bytes) -> int:
    """How many bytes of text stand behind the `VERDICT.size` bytes of `prefix`. Raises ProtocolError."""
    (length,) = VERDICT.unpack(prefix)
    if length > MAX_TEXT_BYTES:
        raise ProtocolError(f"a verdict of {length} bytes; at most {MAX_TEXT_BYTES} are allowed")
    return int(length)


def decode_verdict(text: bytes) -> str:
    """Why the other end refuses us; empty when it does not. Made fit to be shown."""
    shown = text.decode(errors="replace")
    return "".join(char if char.isprintable() else "?" for char in shown)


def _name(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_NAME_CHARS and value.isprintable()


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "cluster": _name,
    "replica": _integer(0, MAX_REPLICAS - 1),
    "name": _name,
    "disk": is_disk,
    "incarnation": _integer(1, MAX_U64),
    "n": _integer(1, MAX_REPLICAS),
    "protocol": _name,
    "conflict": _integer(0, MAX_U64),
    "secret": lambda value: isinstance(value, bytes) and len(value) == FINGERPRINT_BYTES,
}
"""The names in the body, in order, and what their values may be."""


# ------------------------------------------------------------------------------------------------------ the checks


def objection(
    mine: Hello, theirs: Hello, *, names: tuple[str, ...], expected: ReplicaId | None, known: Acquaintance | None
) -> str:
    """Why `mine` does not talk to `theirs`; empty when it does.

    `names` are those of my configuration by id, `expected` is whom I called (None: I was called), and `known` how the
    replica of that name was met before (None: it was not, and is taken at its word).
    """
    if max(mine.lowest, theirs.lowest) > min(mine.highest, theirs.highest):
        return _differ("wire versions", f"{mine.lowest}-{mine.highest}", f"{theirs.lowest}-{theirs.highest}")
    for name, what in _EQUAL.items():
        if getattr(mine, name) != getattr(theirs, name):
            return _differ(what, getattr(mine, name), getattr(theirs, name))
    if mine.secret != theirs.secret:
        return "the secrets of the two configurations differ"
    if theirs.replica >= mine.n or theirs.name != names[theirs.replica]:
        here = names[theirs.replica] if theirs.replica < mine.n else "nobody"
        return f"replica {theirs.replica} is {here} here, {theirs.name} there"
    if theirs.replica == mine.replica:
        return f"both ends are {mine.name}"
    if expected is not None and theirs.replica != expected:
        return f"{names[expected]} was called, {theirs.name} answered"
    if known is None:
        return ""
    if theirs.disk != known.disk:
        return (
            f"{theirs.name} came with another disk than the one known here: its data was lost or replaced, and a "
            "replica that forgot its votes must not vote under this name again. Start it on the data directory that it "
            f"had; without that, {LOST}"
        )
    if theirs.incarnation < known.incarnation:
        return (
            f"incarnation {theirs.incarnation} of {theirs.name} is over: {known.incarnation} was seen. Either it runs "
            "twice, or on an old copy of its data, which must not be used"
        )
    return ""


_EQUAL: Final = {
    "cluster": "cluster",
    "n": "number of replicas",
    "protocol": "protocol",
    "conflict": "version of the conflict function",
}


def _differ(what: str, here: object, there: object) -> str:
    return f"{what}: {here} here, {there} there"


def version(mine: Hello, theirs: Hello) -> int:
    """The version a link between the two speaks: the highest that both do."""
    return min(mine.highest, theirs.highest)
