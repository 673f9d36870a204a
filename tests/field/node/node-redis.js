// node-redis against the replica at the given port, in the newer dialect of the protocol.
const assert = require("node:assert");
const { createClient } = require("redis");

async function main() {
  const kv = await createClient({ url: `redis://127.0.0.1:${process.argv[2]}`, RESP: 3 }).connect();
  assert.equal(await kv.set("nr:k", "v"), "OK");
  assert.equal(await kv.get("nr:k"), "v");
  assert.equal(await kv.get("nr:none"), null);
  assert.equal(await kv.incrByFloat("nr:f", 0.5), "0.5");
  await kv.hSet("nr:h", { a: "1", b: "2" });
  assert.deepEqual({ ...(await kv.hGetAll("nr:h")) }, { a: "1", b: "2" });
  await kv.sAdd("nr:s", ["x", "y"]);
  assert.deepEqual([...(await kv.sMembers("nr:s"))].sort(), ["x", "y"]);
  await kv.rPush("nr:l", ["1", "2", "3"]);
  assert.deepEqual(await kv.lRange("nr:l", 0, -1), ["1", "2", "3"]);
  const replies = await kv.multi().set("nr:t", "1").incr("nr:t").hGetAll("nr:h").exec();
  assert.deepEqual([replies[0], replies[1], { ...replies[2] }], ["OK", 2, { a: "1", b: "2" }]);
  const many = await Promise.all(Array.from({ length: 100 }, () => kv.incr("nr:many")));
  assert.deepEqual(many, Array.from({ length: 100 }, (_, i) => i + 1));
  const found = [];
  for await (const keys of kv.scanIterator({ MATCH: "nr:*", COUNT: 100 })) found.push(...keys);
  assert.equal(found.length, 7);
  await kv.close();
  console.log("done");
}

main();
