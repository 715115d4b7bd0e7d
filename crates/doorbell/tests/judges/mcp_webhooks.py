"""The protocol's own Python client as an agent that sees to its own webhook, and subscribes: see mcp_webhooks.mjs."""

import asyncio
import hashlib
import hmac
import json
import os
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Request, Result

URL, KEY = os.environ["MCP_URL"], os.environ["MCP_KEY"]
CALLBACK, SECRET = os.environ["MCP_CALLBACK"], os.environ["MCP_SECRET"]
AGENT = "triage"


class Anything(Result, extra="allow"):
    """Whatever is answered."""


async def ring(sender, url, secret, number):
    body = json.dumps({"event": "deploy", "number": number}).encode()
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"content-type": "application/json", "x-webhook-signature": signature}
    answer = await sender.post(url, content=body, headers=headers)
    return answer.status_code, answer.json()


async def scenario(client, sender):
    async def call(tool, /, **arguments):
        return (await client.call_tool(tool, arguments)).structured_content

    made = await call("webhooks_create", agent=AGENT, name="deploys")
    webhook, url, secret = made["webhookId"], made["url"], made["signingSecret"]
    listed = json.dumps(await call("webhooks_list", agent=AGENT))
    first, receipt = await ring(sender, url, secret, 11)
    found = (await call("events_list", source=webhook))["events"][0]
    why = await call("events_explain", id=found["id"])
    again = await call("events_replay", id=found["id"])
    renewed = (await call("webhooks_rotate_secret", agent=AGENT, id=webhook, overlap="0s"))["signingSecret"]
    old, _ = await ring(sender, url, secret, 12)
    new, _ = await ring(sender, url, renewed, 13)
    await call("webhooks_delete", agent=AGENT, id=webhook)
    gone, _ = await ring(sender, url, renewed, 14)
    delivery = {"mode": "webhook", "url": CALLBACK, "secret": SECRET}
    wish = {"name": "acme", "arguments": {}, "delivery": delivery}
    subscribe = Request[dict[str, Any], str](method="events/subscribe", params=wish)
    subscribed = await client.session.send_request(subscribe, Anything)
    return {
        "shownOnce": secret not in listed and renewed != secret,
        "found": found["id"] == receipt["deliveryId"],
        "matched": why["verdicts"][0]["matched"],
        "replayed": len(again["outcomes"]),
        "statuses": [first, old, new, gone],
        "subscription": subscribed.model_dump()["id"],
    }


async def main():
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http,
        httpx2.AsyncClient(timeout=60) as sender,
        Client(streamable_http_client(URL, http_client=http)) as client,
    ):
        print(json.dumps(await scenario(client, sender)))


asyncio.run(main())
