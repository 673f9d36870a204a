"""The shell in virtual time: everything that `open_replica` touches, in memory, under trio's `MockClock`.

`network` stands in for TCP, `disk` for a data directory, and `cluster` runs replicas on both. None of them uses a
thread or a file, so a clock that jumps whenever nobody can go on gives exact times:

    async def main() -> None:
        async with open_cluster(config, Ledger) as cluster:
            cluster.network.delay("CA", "VA", us=30_000)
            cluster.disks["IR"].sync_us = 1_000
            await cluster.start()
            await cluster.replicas["CA"].propose(b"command")

    trio.run(main, clock=MockClock(autojump_threshold=0))
"""
