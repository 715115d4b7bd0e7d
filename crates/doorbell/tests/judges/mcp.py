"""The protocol's own Python client as an agent: see mcp.mjs. It speaks the newest version of the protocol and the older ones."""

import asyncio
import json
import os

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

URL, KEY = os.environ["MCP_URL"], os.environ["MCP_KEY"]
PROGRAM, PROJECT = os.environ["MCP_PROGRAM"], os.environ["MCP_PROJECT"]


async def scenario(server, mode):
    async with Client(server, mode=mode) as client:

        async def call(name, **arguments):
            return await client.call_tool(name, arguments)

        tools = (await client.list_tools()).tools
        found = await call("events_list", event="github.issues.opened")
        event = found.structured_content["events"][-1]
        why = (await call("events_explain", id=event["id"])).structured_content
        again = (await call("events_replay", id=event["id"])).structured_content
        run_id = again["outcomes"][0]["runId"]
        run = {}
        while not run.get("finishedAt"):
            run = (await call("runs_get", id=run_id)).structured_content
        log = (await call("runs_logs", id=run_id)).structured_content
        resource = await client.read_resource(f"doorbell://runs/{run_id}")
        templates = (await client.list_resource_templates()).resource_templates
        wrong = await call("events_get", id=7)
        for name in ["runs_list", "agents_list", "sources_list", "stats"]:
            await call(name)
        await call("events_get", id=event["id"])
        await call("agents_get", agent="triage")
        await call("triggers_test", trigger={"source": "acme"})
        return {
            "tools": len(tools),
            "matched": why["verdicts"][0]["matched"],
            "state": run["state"],
            "lines": [line["text"] for line in log["lines"]],
            "resource": json.loads(resource.contents[0].text)["log"]["over"],
            "templates": len(templates),
            "refused": wrong.is_error and wrong.content[0].text,
        }


async def main():
    seen = []
    for mode in ["legacy", "2026-07-28", "auto"]:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
            seen.append(await scenario(streamable_http_client(URL, http_client=http), mode))
        stdio = StdioServerParameters(command=PROGRAM, args=["mcp", "--project", PROJECT])
        seen.append(await scenario(stdio, mode))
    print(json.dumps(seen))


asyncio.run(main())
