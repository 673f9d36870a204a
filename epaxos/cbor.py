"""CBOR from strangers: plain values only, in the one form that our own encoder gives them.

Dates, big numbers, regular expressions, shared references and the other tagged extras are refused before anything is
built from them, so what comes out is made of `int` (64 bits and a sign), `bool`, `None`, `float`, `bytes`, `str`,
`list` and `dict`, nested a few levels deep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import cbor2

from epaxos.errors import ProtocolError

MAX_DEPTH: Final = 4

dumps: Final[Callable[[Any], bytes]] = cbor2.dumps


def _refuse(value: Any, immutable: bool) -> Any:
    raise ValueError("no tag is allowed here")


_TAGS: Final = dict.fromkeys((*range(512), 1004, 43000, 55799), _refuse)
"""Every tag that the library would otherwise act upon; the others come out as an object that no field accepts."""


def loads(data: bytes) -> Any:
    """The value in `data`, which must be exactly what `dumps` makes of it. Raises ProtocolError."""
    try:
        value = cbor2.loads(
            data, max_depth=MAX_DEPTH, semantic_decoders=_TAGS, allow_indefinite=False, allow_duplicate_keys=False
        )
        again = cbor2.dumps(value)
    except (cbor2.CBORError, ValueError) as error:
        raise ProtocolError(f"not CBOR: {error}") from None
    if again != data:
        raise ProtocolError("not CBOR: bytes behind the value, or a longer form than it needs")
    return value
