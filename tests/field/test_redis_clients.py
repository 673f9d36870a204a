"""Clients that people use, as they come, against three replicas."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import hiredis
import pytest
import redis
import trio
from redis.connection import Connection

from bench.cluster import ClusterSpec, LocalCluster, local_cluster
from tests.field import redis_py
from tests.field.pages import blocks

pytestmark = [pytest.mark.field, pytest.mark.trio]

WITHIN_S = 60.0
NAMES: Final = ("CA", "VA", "IR")
NODE: Final = Path(__file__).parent / "node"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """Three running replicas."""
    async with local_cluster(ClusterSpec(names=NAMES, directory=tmp_path)) as running:
        await running.wait_ready(within_s=WITHIN_S)
        yield running


async def run(*words: str, stdin: bytes = b"") -> str:
    """What a program prints. Raises when it fails, or is late."""
    with trio.fail_after(WITHIN_S):
        done = await trio.run_process(list(words), stdin=stdin, capture_stdout=True, capture_stderr=True, check=False)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, text
    return text


# ------------------------------------------------------------------------------------------------------------ redis-py


def of_strings(kv: redis.Redis) -> None:
    assert kv.set("k", "v") is True and kv.get("k") == b"v"
    assert kv.set("k", "w", nx=True) is None and kv.set("k", "w", get=True) == b"v"
    assert kv.mset({"a": 1, "b": 2}) is True and kv.mget("a", "b", "none") == [b"1", b"2", None]
    assert kv.msetnx({"a": 3, "c": 3}) is False and kv.getdel("a") == b"1"
    assert kv.append("b", "3") == 2 and kv.incr("b") == 24 and kv.decr("b", 4) == 20
    assert kv.setrange("k", 3, "x") == 4 and kv.getrange("k", 0, -1) == b"w\0\0x"
    assert kv.incrbyfloat("f", "0.1") == 0.1 and kv.incrbyfloat("f", "0.2") == 0.3


def of_keys(kv: redis.Redis) -> None:
    kv.mset({f"key:{i}": i for i in range(100)})
    assert sorted(kv.scan_iter(match="key:*", count=7)) == sorted(kv.keys("key:*"))
    assert len(kv.keys("key:*")) == 100 and kv.dbsize() >= 100
    assert kv.rename("key:1", "renamed") is True and kv.type("renamed") == b"string"
    assert kv.exists("renamed", "key:1") == 1 and kv.delete("renamed", "key:2") == 2
    with pytest.raises(redis.ResponseError, match="no such key"):
        kv.rename("key:1", "x")


def of_hashes(kv: redis.Redis) -> None:
    assert kv.hset("h", mapping={"a": 1, "b": 2}) == 2 and kv.hget("h", "a") == b"1"
    assert kv.hgetall("h") == {b"a": b"1", b"b": b"2"} and kv.hmget("h", "a", "c") == [b"1", None]
    assert kv.hincrby("h", "a", 5) == 6 and kv.hdel("h", "b") == 1 and kv.hkeys("h") == [b"a"]
    assert dict(kv.hscan_iter("h")) == {b"a": b"6"} and kv.hexists("h", "a") is True


def of_sets(kv: redis.Redis) -> None:
    assert kv.sadd("s", "a", "b", "c") == 3 and kv.smembers("s") == {b"a", b"b", b"c"}
    assert bool(kv.sismember("s", "a")) and kv.smismember("s", ["a", "z"]) == [1, 0]
    assert kv.spop("s") == b"a" and kv.scard("s") == 2 and set(kv.sscan_iter("s")) == {b"b", b"c"}


def of_lists(kv: redis.Redis) -> None:
    assert kv.rpush("l", "a", "b", "c") == 3 and kv.lrange("l", 0, -1) == [b"a", b"b", b"c"]
    assert kv.lpop("l") == b"a" and kv.rpop("l", 5) == [b"c", b"b"] and kv.lpop("l", 2) is None
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        kv.lpush("k", "x")


def of_pipelines(kv: redis.Redis) -> None:
    with kv.pipeline(transaction=False) as pipeline:
        for _ in range(200):
            pipeline.incr("piped")
        assert pipeline.execute() == list(range(1, 201))
    with kv.pipeline() as pipeline:
        assert pipeline.set("t", 1).incr("t").hgetall("h").execute() == [True, 2, {b"a": b"6"}]
    with kv.pipeline() as pipeline:
        pipeline.watch("t")
        kv.set("t", 10)
        pipeline.multi()
        with pytest.raises(redis.WatchError):
            pipeline.incr("t").execute()


def of_connections(kv: redis.Redis) -> None:
    assert kv.ping() is True and kv.echo("x") == b"x" and kv.client_id() > 0
    assert kv.info("replication")["role"] == "master" and kv.info("keyspace")["db0"]["keys"] > 0
    assert kv.config_get("maxmemory") == {"maxmemory": "0"} and kv.time()[0] > 0
    assert kv.wait(1, 0) == 1 and kv.command_count() > 80
    with pytest.raises(redis.ResponseError, match="unknown command 'GEOADD'"):
        kv.execute_command("GEOADD", "g")


PARTS: Final[tuple[Callable[[redis.Redis], None], ...]] = (
    *(of_strings, of_keys, of_hashes, of_sets, of_lists, of_pipelines, of_connections),
)


async def test_redis_py(cluster: LocalCluster) -> None:
    def exercise(name: str, protocol: int) -> None:
        with redis.Redis(port=cluster.port(name), protocol=protocol, client_name="me") as kv:
            kv.flushall()
            for part in PARTS:
                part(kv)

    for name, protocol in (("CA", 2), ("VA", 3)):
        await trio.to_thread.run_sync(exercise, name, protocol)


async def test_hiredis(cluster: LocalCluster) -> None:
    def exercise() -> None:
        connection = Connection(port=cluster.port("IR"))
        connection.connect()
        connection.send_packed_command([hiredis.pack_command(("SET", "hi", "redis"))])
        assert connection.read_response() == b"OK"
        connection.send_packed_command([hiredis.pack_command(("MGET", "hi", "none"))])
        assert connection.read_response() == [b"redis", None]
        connection.disconnect()

    await trio.to_thread.run_sync(exercise)


@pytest.mark.parametrize("dialect", [2, 3])
async def test_the_tests_of_redis_py_itself(cluster: LocalCluster, dialect: int) -> None:
    """Where they are: `.ci/run` fetches them."""
    assert redis_py.listed() > 130
    if not redis_py.FOLDER.is_dir():
        return
    with trio.fail_after(3 * WITHIN_S):
        words = redis_py.command(cluster.port("CA"), dialect)
        done = await trio.run_process(words, cwd=redis_py.FOLDER, capture_stdout=True, check=False)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    passed = re.search(r"(\d+) passed", text)
    assert passed and int(passed[1]) >= 100, text


# --------------------------------------------------------------------------------------------- redis-cli and its tools


async def test_redis_cli(cluster: LocalCluster) -> None:
    cli = ("redis-cli", "-p", str(cluster.port("CA")))
    script = b"set k v\nget k\nrpush l a b\nlrange l 0 -1\nmulti\nincr n\nincr n\nexec\nhset h f v\n"
    assert (await run(*cli, stdin=script)).split("\n")[:10] == [
        *("OK", "v", "2", "a", "b", "OK", "QUEUED", "QUEUED", "1", "2"),
    ]
    assert await run(*cli, "--no-raw", "hgetall", "h") == '1) "f"\n2) "v"\n'
    assert await run(*cli, "-3", "--no-raw", "hgetall", "h") == '1# "f" => "v"\n'
    many = b"".join(b"SET many:%d %d\r\n" % (i, i) for i in range(1_000))
    assert "errors: 0, replies: 1000" in await run(*cli, "--pipe", stdin=many)
    assert len((await run(*cli, "--scan", "--pattern", "many:*")).split()) == 1_000
    assert "# Replication" in await run(*cli, "info")


async def test_redis_benchmark(cluster: LocalCluster) -> None:
    tests = "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,lrange_100,mset"
    text = await run(
        *("redis-benchmark", "-p", str(cluster.port("VA")), "-n", "400", "-c", "10", "-P", "4", "-q", "-t", tests)
    )
    assert "Error" not in text and text.count("requests per second") == 15


def _has_node() -> bool:
    """Is node here, with the packages that `.ci/run` installs?"""
    return shutil.which("node") is not None and (NODE / "node_modules").is_dir()


def _programs() -> list[list[str]]:
    """Programs that talk to a replica by themselves and print `done`; those of node where they are installed."""
    programs = [
        [
            "python3",
            "-c",
            "import sys, socket; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
            "s.sendall(b'PING\\r\\n'); print({b'+PONG': 'done'}[s.recv(7).strip()])",
        ]
    ]
    if _has_node():
        programs += [["node", str(NODE / "ioredis.js")], ["node", str(NODE / "node-redis.js")]]
    return programs


@pytest.mark.parametrize("program", _programs(), ids=lambda program: Path(program[1]).stem)
async def test_a_program(cluster: LocalCluster, program: list[str]) -> None:
    assert await run(*program, str(cluster.port("IR"))) == "done\n"


async def test_the_program_of_the_page(cluster: LocalCluster, repository: Path) -> None:
    page = blocks(repository / "docs" / "how-to" / "use-any-redis-client.md")
    (program,) = [block.text for block in page if block.kind == "js"]
    program = program.replace("10.0.0.1", "127.0.0.1").replace("6379", str(cluster.port("VA")))
    if _has_node():
        with trio.fail_after(WITHIN_S):
            done = await trio.run_process(["node", "-e", program], cwd=NODE, capture_stdout=True)
        assert done.stdout == b"1\n"
