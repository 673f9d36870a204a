"""Histories of clients that talk to a server in this process: an honest one, and one that lies now and then."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import trio

from epaxos.client import ResponseError
from epaxos.errors import Rejected, Unknown
from epaxos.testing.history import KEY_INCREMENTS_MAX, KEY_OPERATIONS_MAX, Action, History, Load, Reply, read
from epaxos.testing.record import Outcome, Part

pytestmark = pytest.mark.trio


class Server:
    """A key-value store in the plainest way. `lie` may change what it is about to do."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.errors: list[Exception] = []
        """To be raised by the next commands, which are applied all the same."""

    async def execute(self, *words: bytes) -> Reply:
        await trio.lowlevel.checkpoint()
        reply = self.apply(*words)
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        return reply

    def apply(self, verb: bytes, *words: bytes) -> Reply:
        if verb == b"GET":
            return self.values.get(words[0])
        if verb == b"MGET":
            return [self.values.get(key) for key in words]
        if verb in (b"SET", b"MSET"):
            self.values.update(zip(words[::2], words[1::2], strict=True))
            return b"OK"
        key, word = words
        if verb == b"APPEND":
            self.values[key] = self.values.get(key, b"") + word
            return len(self.values[key])
        self.values[key] = b"%d" % (int(self.values.get(key, b"0")) + int(word))
        return int(self.values[key])


class Forgetful(Server):
    """Answers every 50th write and does not carry it out."""

    writes = 0

    def apply(self, verb: bytes, *words: bytes) -> Reply:
        before = dict(self.values)
        reply = super().apply(verb, *words)
        self.writes += verb not in (b"GET", b"MGET")
        if self.writes % 50 == 49:
            self.values = before
        return reply


async def drive(server: Server, history: History, load: Load, *, clients: int = 5, each: int = 200) -> None:
    """Clients at once, then a reader of everything."""

    async def client(name: str) -> None:
        for _ in range(each):
            await history.call(name, load.next(), server.execute)

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(client, f"client {number}")
    for action in load.survey():
        await history.call("reader", action, server.execute)


async def test_an_honest_server_passes_and_keys_are_given_up_in_time() -> None:
    history = History()
    await drive(Server(), history, Load(Random(1), readers=1), each=300)
    judgement = history.judge()
    assert judgement.sound and not judgement.undecided
    per_key = Counter(part.key for entry in history.entries for part in entry.action.parts)
    increments = Counter(p.key for entry in history.entries for p in entry.action.parts if p.verb == "incrby")
    assert judgement.keys == len(per_key) > 9, "more keys than there are names"
    assert max(per_key.values()) <= KEY_OPERATIONS_MAX
    assert max(increments.values()) <= KEY_INCREMENTS_MAX
    values = [p.argument for entry in history.entries for p in entry.action.parts if p.verb in ("set", "append")]
    assert len(values) == len(set(values)) > 300
    assert "linearizable" in history.explain(judgement)


async def test_a_server_that_forgets_writes_is_found_and_explained() -> None:
    history = History()
    await drive(Forgetful(), history, Load(Random(2), readers=1, prefix="own:"))
    judgement = history.judge()
    assert judgement.broken
    key, operations = next(iter(judgement.broken.items()))
    assert key.startswith(b"own:")
    text = history.explain(judgement)
    assert f"the history of {key.decode()} is not linearizable" in text
    assert "client" in text and f"-> {operations[-1].result!r}" in text


async def test_outcomes_are_what_the_client_knows() -> None:
    server, history = Server(), History()
    write = Action((b"SET", b"k", b"v"), (Part(b"k", "set", b"v"),), pure=False)
    server.errors = [Unknown("later"), OSError("gone"), Rejected("busy"), ResponseError("ERR no")]
    assert await history.call("a", write, server.execute) is Outcome.UNKNOWN
    with pytest.raises(OSError):
        await history.call("a", write, server.execute)
    assert await history.call("a", write, server.execute) is Outcome.REJECTED
    assert await history.call("a", write, server.execute) is Outcome.REJECTED
    assert await history.call("a", read([b"k"]), server.execute) is Outcome.DONE
    with trio.CancelScope() as scope:
        scope.cancel()
        await history.call("a", write, server.execute)
    assert scope.cancelled_caught
    assert [entry.outcome.value for entry in history.entries] == [
        "unknown", "unknown", "rejected", "rejected", "done", "unknown",
    ]  # fmt: skip
    assert history.counts()[Outcome.UNKNOWN] == 3
    times = [moment for entry in history.entries for moment in (entry.invoked_ns, entry.returned_ns or 0)]
    assert times == sorted(set(times)), "no two are equal, also where the clock stands still"
    assert not history.judge().broken, "the write of unknown outcome took effect"


async def test_a_rejected_command_that_took_effect_is_found() -> None:
    server, history = Server(), History()
    server.errors = [Rejected("busy")]
    write = Action((b"SET", b"k", b"v"), (Part(b"k", "set", b"v"),), pure=False)
    await history.call("a", write, server.execute)
    await history.call("a", read([b"k"]), server.execute)
    assert list(history.judge().broken) == [b"k"]


async def test_reads_of_several_lists_that_no_order_explains_are_found() -> None:
    """Each list by itself is fine: the two appends overlap with both reads, which see them in opposite orders."""
    history = History()
    append = {key: Action((b"APPEND", key, b"<1>"), (Part(key, "append", b"<1>"),), pure=False) for key in (b"k", b"l")}
    both = read([b"k", b"l"])
    with history.recording("a", append[b"k"]) as one, history.recording("b", append[b"l"]) as other:
        with history.recording("c", both) as here, history.recording("d", both) as there:
            here.done([b"<1>", None])
            there.done([None, b"<1>"])
        one.done(3)
        other.done(3)
    judgement = history.judge()
    assert not judgement.broken and judgement.anomaly is not None and not judgement.sound
    assert "mget of c at " in history.explain(judgement)


@pytest.mark.parametrize(("words", "reply"), [((b"GET", b"k"), [b"v"]), ((b"MGET", b"k", b"l"), [b"v"])])
async def test_a_reply_of_the_wrong_kind_is_found(words: tuple[bytes, ...], reply: Reply) -> None:
    async def execute(*words: bytes) -> Reply:
        await trio.lowlevel.checkpoint()
        return reply

    history = History()
    await history.call("a", read(words[1:]), execute)
    assert set(history.judge().broken) == set(words[1:])


async def test_a_load_leaves_room_for_its_readers() -> None:
    with pytest.raises(ValueError, match="leave no operations"):
        Load(Random(1), readers=KEY_OPERATIONS_MAX)
