"""A queue that hands out each job at most once. In three terminals:

python jobs.py CA put wash dry fold      # and again, with other jobs, whenever there is more to do
python jobs.py VA work alice
python jobs.py IR work bob
"""

import json
import sys
from collections.abc import Iterable

import trio

import epaxos

QUEUE = [b"jobs"]
"""Every command touches the whole queue, so all of them execute in one order everywhere."""


class Jobs(epaxos.StateMachine):
    """`put JOB`, `take WORKER` (the job, or nothing), `done JOB`, `list`."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.taken: dict[str, str] = {}
        """Job -> worker. A job whose worker died stays here: it may have been begun, so it is for people to decide."""

    def apply(self, command: bytes) -> bytes:
        verb, _, what = command.decode().partition(" ")
        if verb == "put":
            self.waiting.append(what)
        elif verb == "take" and self.waiting:
            job = self.waiting.pop(0)
            self.taken[job] = what
            return job.encode()
        elif verb == "done":
            self.taken.pop(what, None)
        elif verb == "list":
            return json.dumps([self.waiting, self.taken], sort_keys=True).encode()
        return b""

    def save(self) -> Iterable[bytes]:
        return [json.dumps([self.waiting, self.taken], sort_keys=True).encode()]

    def load(self, chunks: Iterable[bytes]) -> None:
        self.waiting, self.taken = json.loads(b"".join(chunks))


async def work(replica: epaxos.Replica, worker: str) -> None:
    """Take a job for each one that was put. In a session a command may be asked again: it takes effect once."""
    async with replica.session() as session:

        async def surely(command: str) -> str:
            number = session.take()
            while True:
                try:
                    return (await session.propose(command.encode(), writes=QUEUE, number=number)).decode()
                except epaxos.Unknown:
                    print("no answer yet to", command, file=sys.stderr)

        async for entry in replica.log():
            if entry.payload.startswith(b"put ") and (job := await surely(f"take {worker}")):
                print(worker, "has", job, flush=True)
                await surely(f"done {job}")


async def main(name: str, verb: str, *words: str) -> None:
    config = epaxos.Config.load("cluster.toml")
    async with epaxos.open_replica(config, name, Jobs(), data=name) as replica:
        if verb == "work":
            await work(replica, *words)
        for job in words:
            await replica.propose(f"put {job}".encode(), writes=QUEUE)
        waiting, taken = json.loads(await replica.read(b"list", reads=QUEUE))
        print(len(waiting), "wait,", len(taken), "are being done", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
