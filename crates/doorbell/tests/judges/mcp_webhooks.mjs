// The protocol's own TypeScript client as an agent that sees to its own webhook: it makes one, is shown the secret once, rings it with a
// signature of its own, finds and explains and replays the event, rotates, deletes; and it subscribes to the events of a source.
// Prints what it saw.
import { createHmac } from "node:crypto";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ResultSchema } from "@modelcontextprotocol/sdk/types.js";

const { MCP_URL, MCP_KEY, MCP_CALLBACK, MCP_SECRET } = process.env;

const client = new Client({ name: "judge", version: "1.0.0" });
await client.connect(
  new StreamableHTTPClientTransport(new URL(MCP_URL), { requestInit: { headers: { Authorization: `Bearer ${MCP_KEY}` } } }),
);
const call = async (name, args) => (await client.callTool({ name, arguments: args })).structuredContent;

async function ring(url, secret, number) {
  const body = JSON.stringify({ event: "deploy", number });
  const signature = createHmac("sha256", secret).update(body).digest("hex");
  const headers = { "content-type": "application/json", "x-webhook-signature": `sha256=${signature}` };
  const answer = await fetch(url, { method: "POST", headers, body });
  return { status: answer.status, body: await answer.json() };
}

const agent = "triage";
const made = await call("webhooks_create", { agent, name: "deploys" });
const listed = JSON.stringify(await call("webhooks_list", { agent }));
const first = await ring(made.url, made.signingSecret, 1);
const found = (await call("events_list", { source: made.webhookId })).events[0];
const why = await call("events_explain", { id: found.id });
const again = await call("events_replay", { id: found.id });
const rotated = await call("webhooks_rotate_secret", { agent, id: made.webhookId, overlap: "0s" });
const old = await ring(made.url, made.signingSecret, 2);
const renewed = await ring(made.url, rotated.signingSecret, 3);
await call("webhooks_delete", { agent, id: made.webhookId });
const gone = await ring(made.url, rotated.signingSecret, 4);
const delivery = { mode: "webhook", url: MCP_CALLBACK, secret: MCP_SECRET };
const params = { name: "acme", arguments: {}, delivery };
const subscribed = await client.request({ method: "events/subscribe", params }, ResultSchema);
await client.close();
console.log(
  JSON.stringify({
    shownOnce: !listed.includes(made.signingSecret) && rotated.signingSecret !== made.signingSecret,
    found: found.id === first.body.deliveryId,
    matched: why.verdicts[0].matched,
    replayed: again.outcomes.length,
    statuses: [first.status, old.status, renewed.status, gone.status],
    subscription: subscribed.id,
  }),
);
