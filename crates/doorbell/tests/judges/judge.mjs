// The makers' own SDKs as judges: prints requests as JSON, each with the SDK's verdict on it. Run by the integration tests, which
// send them to a gateway and compare. Where an SDK only verifies, the request is signed with Node's crypto, and the SDK's
// verdict is still what counts.
import { createHmac, createPrivateKey, createPublicKey, randomUUID, sign as signWith } from "node:crypto";

import { Signature as HubSpot } from "@hubspot/api-client";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import { verifyWebhookSignature as notionVerifies } from "@notionhq/client";
import * as octokit from "@octokit/webhooks-methods";
import { ApiVersion, shopifyApi } from "@shopify/shopify-api";
import "@shopify/shopify-api/adapters/node";
import { verifyKey as discordVerifies } from "discord-interactions";
import * as standard from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as Svix } from "svix";
import twilio from "twilio";
import autohook from "twitter-autohook";

const now = Math.floor(Date.now() / 1000);
const base = process.env.PUBLIC_URL;
const hmac = (secret, text, encoding = "hex") => createHmac("sha256", secret).update(text).digest(encoding);
const verdict = async (judge) => {
  try {
    return Boolean(await judge());
  } catch {
    return false;
  }
};

// One request, and the same with a changed body and with another secret. `sign` makes headers, `judge` is the SDK's word.
async function cases(provider, { secret, other, body, sign, judge, query = "" }) {
  const url = `${base}/v1/webhooks/${provider}/${provider}${query}`;
  const made = [];
  const add = async (what, headers, text) => {
    const valid = await verdict(() => judge({ headers, body: text, secret, url }));
    made.push({ provider, what, secret, headers, body: text, query, valid });
  };
  const good = await sign({ body, secret, url });
  await add("genuine", good, body);
  await add("with a changed body", good, body.replace("4711", "4712"));
  await add("signed with another secret", await sign({ body, secret: other, url }), body);
  return made;
}

const header = (headers, name) => headers[Object.keys(headers).find((known) => known.toLowerCase() === name.toLowerCase())];
const json = { "content-type": "application/json" };
const whsec = (text) => `whsec_${Buffer.from(text).toString("base64")}`;
const shopify = (secret) =>
  shopifyApi({ apiKey: "key", apiSecretKey: secret, hostName: "shop.example.com", apiVersion: ApiVersion.October25 ?? Object.values(ApiVersion)[0],
    isEmbeddedApp: false, logger: { level: 0 } });

// An Ed25519 key from its seed (RFC 8410 writes it behind these bytes).
const pair = (fill) => {
  const seed = Buffer.alloc(32, fill);
  const key = createPrivateKey({ key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]), format: "der", type: "pkcs8" });
  return { key, public: createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32).toString("hex") };
};
const [discord, stranger] = [pair(7), pair(8)];
const pairs = { [discord.public]: discord, [stranger.public]: stranger };

const all = [
  cases("github", {
    secret: "It's a Secret to Everybody", other: "another", body: '{"action":"opened","number":4711}',
    sign: async ({ body, secret }) => ({ ...json, "X-GitHub-Event": "issues", "X-GitHub-Delivery": randomUUID(),
      "X-Hub-Signature-256": await octokit.sign(secret, body) }),
    judge: ({ headers, body, secret }) => octokit.verify(secret, body, header(headers, "X-Hub-Signature-256")),
  }),
  cases("stripe", {
    secret: "whsec_test_of_the_judges", other: "whsec_another",
    body: JSON.stringify({ id: `evt_${now}`, object: "event", type: "charge.succeeded", data: { object: { amount: 4711 } } }),
    sign: ({ body, secret }) => ({ ...json, "Stripe-Signature": Stripe.webhooks.generateTestHeaderString({ payload: body, secret, timestamp: now }) }),
    judge: ({ headers, body, secret }) => Stripe.webhooks.constructEvent(body, header(headers, "Stripe-Signature"), secret),
  }),
  cases("standard", {
    secret: whsec("the secret of the judges"), other: whsec("another secret of theirs"), body: '{"type":"invoice.paid","data":{"amount":4711}}',
    sign: ({ body, secret }) => {
      const id = `msg_${randomUUID()}`;
      const signature = new standard.Webhook(secret).sign(id, new Date(now * 1000), body);
      return { ...json, "webhook-id": id, "webhook-timestamp": String(now), "webhook-signature": signature };
    },
    judge: ({ headers, body, secret }) => new standard.Webhook(secret).verify(body, headers),
  }),
  cases("svix", {
    secret: whsec("the secret of the judges"), other: whsec("another secret of theirs"), body: '{"type":"invoice.paid","data":{"amount":4711}}',
    sign: ({ body, secret }) => {
      const id = `msg_${randomUUID()}`;
      const signature = new Svix(secret).sign(id, new Date(now * 1000), body);
      return { ...json, "svix-id": id, "svix-timestamp": String(now), "svix-signature": signature };
    },
    judge: ({ headers, body, secret }) => new Svix(secret).verify(body, headers),
  }),
  cases("discord", {
    secret: discord.public, other: stranger.public,
    body: '{"version":1,"application_id":"4711","type":1,"event":{"type":"APPLICATION_AUTHORIZED","timestamp":"2026-11-21T08:00:00","data":{"user":{"id":"1"}}}}',
    sign: ({ body, secret }) => ({ ...json, "X-Signature-Timestamp": String(now),
      "X-Signature-Ed25519": signWith(null, Buffer.from(now + body), pairs[secret].key).toString("hex") }),
    judge: ({ headers, body, secret }) =>
      discordVerifies(body, header(headers, "X-Signature-Ed25519"), header(headers, "X-Signature-Timestamp"), secret),
  }),
  cases("twitter", {
    secret: "a consumer secret", other: "another", body: '{"for_user_id":"4711","tweet_create_events":[{"id_str":"1","text":"hello","user":{"id_str":"2"}}]}',
    sign: ({ body, secret }) => ({ ...json, "x-twitter-webhooks-signature": `sha256=${hmac(secret, body, "base64")}` }),
    judge: ({ headers, body, secret }) => autohook.validateSignature(headers, { consumer_secret: secret }, body),
  }),
  cases("linear", {
    secret: "lin_wh_of_the_judges", other: "lin_wh_another",
    body: JSON.stringify({ action: "create", type: "Issue", webhookTimestamp: Date.now(), data: { id: "4711", title: "It fails" } }),
    sign: ({ body, secret }) => ({ ...json, "Linear-Event": "Issue", "Linear-Delivery": randomUUID(), "Linear-Signature": hmac(secret, body) }),
    judge: ({ headers, body, secret }) =>
      new LinearWebhookClient(secret).verify(Buffer.from(body), header(headers, "Linear-Signature"), JSON.parse(body).webhookTimestamp),
  }),
  cases("shopify", {
    secret: "shpss_of_the_judges", other: "shpss_another", body: '{"id":4711,"name":"#1001","total_price":"12.00"}',
    sign: ({ body, secret }) => ({ ...json, "X-Shopify-Topic": "orders/create", "X-Shopify-Shop-Domain": "judges.myshopify.com",
      "X-Shopify-API-Version": "2025-10", "X-Shopify-Webhook-Id": randomUUID(), "X-Shopify-Hmac-Sha256": hmac(secret, body, "base64") }),
    judge: async ({ headers, body, secret }) =>
      (await shopify(secret).webhooks.validate({ rawBody: body, rawRequest: { method: "POST", url: "/", headers }, rawResponse: {} })).valid,
  }),
  cases("twilio", {
    secret: "0123456789abcdef0123456789abcdef", other: "fedcba98765432100123456789abcdef", body: "MessageSid=SM4711&From=%2B14158675309&Body=hello+there&SmsStatus=received", query: "?foo=1",
    sign: ({ body, secret, url }) => ({ "content-type": "application/x-www-form-urlencoded",
      "X-Twilio-Signature": twilio.getExpectedTwilioSignature(secret, url, Object.fromEntries(new URLSearchParams(body))) }),
    judge: ({ headers, body, secret, url }) =>
      twilio.validateRequest(secret, header(headers, "X-Twilio-Signature"), url, Object.fromEntries(new URLSearchParams(body))),
  }),
  cases("notion", {
    secret: "secret_of_the_judges", other: "secret_another",
    body: '{"id":"0c1d9d2e-4711-4a52-8f1d-7f9a3f0b1c2d","type":"page.created","workspace_id":"w","entity":{"id":"p","type":"page"}}',
    sign: ({ body, secret }) => ({ ...json, "X-Notion-Signature": `sha256=${hmac(secret, body)}` }),
    judge: ({ headers, body, secret }) =>
      notionVerifies({ body, signature: header(headers, "X-Notion-Signature"), verificationToken: secret }),
  }),
  cases("hubspot", {
    secret: "a client secret", other: "another", body: '[{"eventId":4711,"subscriptionType":"contact.creation","portalId":1,"objectId":2,"occurredAt":1790000000000}]',
    sign: ({ body, secret, url }) => {
      const timestamp = now * 1000;
      const signature = HubSpot.getSignature("POST", "v3", { clientSecret: secret, url, requestBody: body, timestamp });
      return { ...json, "X-HubSpot-Request-Timestamp": String(timestamp), "X-HubSpot-Signature-v3": signature };
    },
    judge: ({ headers, body, secret, url }) =>
      HubSpot.isValid({ method: "POST", signatureVersion: "v3", clientSecret: secret, url, requestBody: body,
        signature: header(headers, "X-HubSpot-Signature-v3"), timestamp: Number(header(headers, "X-HubSpot-Request-Timestamp")) }),
  }),
];

console.log(JSON.stringify((await Promise.all(all)).flat()));
