"""Slack's own SDK as a judge: prints requests as JSON, each with its verdict. See judge.mjs."""

import json
import time

from slack_sdk.signature import SignatureVerifier

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"


def case(what, secret, signed, sent, age=0):
    timestamp = str(int(time.time()) - age)
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=signed)
    headers = {
        "content-type": "application/json",
        "x-slack-request-timestamp": timestamp,
        "x-slack-signature": signature,
    }
    valid = SignatureVerifier(SECRET).is_valid_request(sent, headers)
    return {"provider": "slack", "what": what, "secret": SECRET, "headers": headers, "body": sent, "query": "", "valid": valid}


def event(number):
    inner = {"type": "app_mention", "user": "U4711", "text": "hello", "channel": "C1", "ts": str(number)}
    return json.dumps({"type": "event_callback", "team_id": "T1", "event_id": f"Ev{number}", "event": inner})


print(
    json.dumps(
        [
            case("genuine", SECRET, event(1), event(1)),
            case("with a changed body", SECRET, event(1), event(2)),
            case("signed with another secret", "another", event(1), event(1)),
            case("of ten minutes ago", SECRET, event(1), event(1), age=600),
        ]
    )
)
