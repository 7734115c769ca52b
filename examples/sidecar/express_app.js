const crypto = require("node:crypto")
const express = require("express")

/** Whether the sidecar has signed this request, with this key, in the last five minutes. */
function isGenuine(key, headers, body) {
  const match = /^t=(\d+),v2=([0-9a-f]{64})$/.exec(headers["dms-signature-v2"] ?? "")
  if (!match) return false
  const lines = Object.keys(headers)
    .filter((name) => /^(dms|ce)-/.test(name) && !name.startsWith("dms-signature"))
    .sort()
    .map((name) => `${name}:${headers[name]}\n`)
  const wanted = crypto.createHmac("sha256", key).update(`${match[1]}\n${lines.join("")}\n`).update(body).digest("hex")
  const age = Math.abs(Date.now() / 1000 - Number(match[1]))
  return crypto.timingSafeEqual(Buffer.from(wanted), Buffer.from(match[2])) && age < 300
}

const app = express()
app.use(express.raw({ type: () => true, limit: "1mb" })) // the signature is over the bytes of the body

app.get("/health", (request, response) => response.status(204).end())

app.post("/orders", (request, response) => {
  if (!isGenuine(process.env.SIGNATURE_KEY, request.headers, request.body)) {
    return response.status(401).send("the signature is wrong") // rejected: a dead letter with this reason
  }
  const order = JSON.parse(request.body) // an exception answers 500: redelivered
  if (!("id" in order)) return response.status(422).send("an order needs an id") // rejected
  console.log("got", order.id, request.get("Dms-Message-Id"))
  response.status(204).end() // done
})

// What becomes of one message of a batch.
function verdict(message) {
  if (!("id" in message.body)) return { outcome: "reject", error: "an order needs an id" }
  console.log("got", message.body.id, message.message_id)
  return "done" // or { outcome: "retry", error: … }
}

app.post("/orders/batch", (request, response) => {
  if (!isGenuine(process.env.SIGNATURE_KEY, request.headers, request.body)) {
    return response.status(401).send("the signature is wrong") // each message is rejected
  }
  response.json(JSON.parse(request.body).map(verdict))
})

app.listen(8080, "127.0.0.1")
