// ioredis against the replica at the given port: commands of every type, a pipeline, a transaction.
const assert = require("node:assert");
const Redis = require("ioredis");

async function main() {
  const kv = new Redis({ port: Number(process.argv[2]), host: "127.0.0.1" });
  assert.equal(await kv.set("io:k", "v"), "OK");
  assert.equal(await kv.get("io:k"), "v");
  assert.equal(await kv.incrby("io:n", 5), 5);
  await kv.hset("io:h", { a: "1", b: "2" });
  assert.deepEqual(await kv.hgetall("io:h"), { a: "1", b: "2" });
  await kv.sadd("io:s", "x", "y");
  assert.deepEqual((await kv.smembers("io:s")).sort(), ["x", "y"]);
  await kv.rpush("io:l", "1", "2", "3");
  assert.deepEqual(await kv.lrange("io:l", 0, -1), ["1", "2", "3"]);
  const piped = await kv.pipeline().set("io:p", "1").incr("io:p").get("io:p").exec();
  assert.deepEqual(piped, [[null, "OK"], [null, 2], [null, "2"]]);
  const applied = await kv.multi().set("io:t", "1").incr("io:t").lpush("io:t", "x").exec();
  assert.equal(applied[1][1], 2);
  assert.match(applied[2][0].message, /^WRONGTYPE/);
  await kv.watch("io:w");
  const other = kv.duplicate();
  await other.set("io:w", "changed");
  assert.equal(await kv.multi().set("io:w", "mine").exec(), null);
  const found = [];
  for await (const keys of kv.scanStream({ match: "io:*", count: 100 })) found.push(...keys);
  assert.equal(found.length, 8);
  await assert.rejects(kv.call("NOSUCH"), /unknown command 'NOSUCH'/);
  await Promise.all([kv.quit(), other.quit()]);
  console.log("done");
}

main();
