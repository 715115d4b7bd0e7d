// The protocol's own TypeScript client as an agent: over HTTP and over `doorbell mcp`, it looks for an event, asks why it did what it
// did, replays it, and reads the run and its log. Prints what it saw. Its client checks every answer against the tool's schema.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const { MCP_URL, MCP_KEY, MCP_PROGRAM, MCP_PROJECT } = process.env;

async function scenario(transport) {
  const client = new Client({ name: "judge", version: "1.0.0" });
  await client.connect(transport);
  const call = async (name, args) => await client.callTool({ name, arguments: args });
  const tools = (await client.listTools()).tools;
  const event = (await call("events_list", { event: "github.issues.opened" })).structuredContent.events.at(-1);
  const why = (await call("events_explain", { id: event.id })).structuredContent;
  const again = (await call("events_replay", { id: event.id })).structuredContent;
  const id = again.outcomes[0].runId;
  let run;
  do {
    run = (await call("runs_get", { id })).structuredContent;
  } while (!run.finishedAt);
  const log = (await call("runs_logs", { id })).structuredContent;
  const resource = await client.readResource({ uri: `doorbell://runs/${id}` });
  const templates = (await client.listResourceTemplates()).resourceTemplates;
  const wrong = await call("events_get", { id: 7 });
  const all = {};
  for (const name of ["runs_list", "agents_list", "sources_list", "stats"]) {
    all[name] = Object.keys((await call(name, {})).structuredContent).length;
  }
  await call("events_get", { id: event.id });
  await call("agents_get", { agent: "triage" });
  await call("triggers_test", { trigger: { source: "acme" } });
  await client.close();
  return {
    tools: tools.length,
    matched: why.verdicts[0].matched,
    state: run.state,
    lines: log.lines.map((line) => line.text),
    resource: JSON.parse(resource.contents[0].text).log.over,
    templates: templates.length,
    refused: wrong.isError && wrong.content[0].text,
  };
}

const http = new StreamableHTTPClientTransport(new URL(MCP_URL), {
  requestInit: { headers: { Authorization: `Bearer ${MCP_KEY}` } },
});
const stdio = new StdioClientTransport({ command: MCP_PROGRAM, args: ["mcp", "--project", MCP_PROJECT], stderr: "inherit" });
console.log(JSON.stringify([await scenario(http), await scenario(stdio)]));
