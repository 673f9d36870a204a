"""A queue that hands out each job at most once. In three terminals:

python jobs.py CA put wash dry fold      # and again, with other jobs, whenever there is more to do
python jobs.py VA work alice
python jobs.py IR work bob
"""

import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import trio

import epaxos

QUEUE = [b"jobs"]
"""Every command touches the whole queue, so all of them execute in one order everywhere."""


class Jobs(epaxos.StateMachine):
    """`put JOB`, `take WORKER` (`NUMBER JOB`, or nothing), `done NUMBER`, `list`."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.count = 0
        """Of jobs that were taken: each gets a number, for two may have one name."""
        self.taken: dict[str, list[str]] = {}
        """Number -> job and worker. Of a worker that died it stays here: it may have been begun, so people decide."""

    def apply(self, command: bytes) -> bytes:
        verb, _, what = command.decode().partition(" ")
        if verb == "put":
            self.waiting.append(what)
        elif verb == "take" and self.waiting:
            self.count += 1
            job = self.waiting.pop(0)
            self.taken[str(self.count)] = [job, what]
            return f"{self.count} {job}".encode()
        elif verb == "done":
            self.taken.pop(what, None)
        elif verb == "list":
            return json.dumps([self.waiting, self.count, self.taken], sort_keys=True).encode()
        return b""

    def save(self) -> Iterable[bytes]:
        return [self.apply(b"list")]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.waiting, self.count, self.taken = json.loads(b"".join(chunks))


async def work(replica: epaxos.Replica, worker: str) -> None:
    """Take a job for each one that was put. In a session a command may be asked again: it takes effect once."""
    seen = 0
    while True:
        try:
            async with replica.session() as session:
                async for entry in replica.log(after=seen):
                    if entry.payload.startswith(b"put "):
                        take = partial(session.propose, b"take " + worker.encode(), number=session.take())
                        number, _, job = (await surely(take)).partition(" ")
                        if job:
                            print(worker, "has", job, flush=True)
                            await surely(partial(replica.propose, b"done " + number.encode()))  # once more does no harm
                    seen = entry.cursor
        except epaxos.Rejected as error:
            if error.reason != "session_closed":  # as after an hour without a job: the next session goes on from here
                raise


async def surely(propose: Callable[..., Awaitable[bytes]]) -> str:
    """What came of a proposal, made as often as it takes."""
    while True:
        try:
            return (await propose(writes=QUEUE)).decode()
        except epaxos.Unknown:
            print("no answer yet", file=sys.stderr)


async def main(name: str, verb: str, *words: str) -> None:
    config = epaxos.Config.load("cluster.toml")
    async with epaxos.open_replica(config, name, Jobs(), data=name) as replica:
        if verb == "work":
            await work(replica, *words)
        for job in words:
            await replica.propose(f"put {job}".encode(), writes=QUEUE)
        waiting, _, taken = json.loads(await replica.read(b"list", reads=QUEUE))
        print(len(waiting), "wait,", len(taken), "are being done", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
