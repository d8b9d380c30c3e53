// npm's redis-semaphore under the same load as the others: TASKS tasks, each on a key of its own.
//
// Each line on stdin is a number of operations; after them, a line of JSON is written to stdout.
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const ioredis = require('ioredis')
const { Semaphore, Mutex } = require('redis-semaphore')

const [url, namespace, kind, tasks] = process.argv.slice(2)
const client = new (ioredis.Redis ?? ioredis)(url)
const options = { lockTimeout: 30000 }

async function task(number, operations) {
  const key = `${namespace}:${kind}:${number}`
  const slot = kind === 'Mutex' ? new Mutex(client, key, options) : new Semaphore(client, key, 1, options)
  for (let done = 0; done < operations; done++) {
    await slot.acquire()
    await slot.release()
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const operations = Math.floor(Number(line) / Number(tasks))
  const started = performance.now()
  await Promise.all(Array.from({ length: Number(tasks) }, (_, number) => task(number, operations)))
  console.log(JSON.stringify({ operations: operations * Number(tasks), ms: performance.now() - started }))
}
client.disconnect()
