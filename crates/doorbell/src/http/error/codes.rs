//! Every code that an error answer has: its status, what it means and what to do. The pages of the codes are made of it.

/// A code. Once it is out, neither it nor what it means changes.
#[derive(Debug)]
pub(in crate::http) struct Code {
    pub(in crate::http) name: &'static str,
    /// The statuses that it comes with.
    pub(in crate::http) statuses: &'static [u16],
    pub(in crate::http) means: &'static str,
    /// What whoever is answered so can do.
    pub(in crate::http) remedy: &'static str,
}

/// Where the page of a code stands, without its name.
pub(in crate::http) const PAGES: &str = "/docs/errors/";

/// The code of this name.
pub(in crate::http) fn find(name: &str) -> Option<&'static Code> {
    ALL.iter().find(|code| code.name == name)
}

const fn code(name: &'static str, statuses: &'static [u16], means: &'static str, remedy: &'static str) -> Code {
    Code { name, statuses, means, remedy }
}

const COME_AGAIN: &str = "Nothing was stored or changed. Come again after the seconds that `Retry-After` names.";

/// By status, then by name.
pub(in crate::http) const ALL: &[Code] = &[
    code(
        "body_broken",
        &[400],
        "The connection broke before the body was there whole.",
        "Send it again. If it happens often, a proxy on the way gives up too early.",
    ),
    code(
        "body_unreadable",
        &[400],
        "The signature is right, but the body, or the header that names the event, is not what the provider sends.",
        "Compare with the provider's page in the docs: the content type is often set wrong. `doorbell sources deliveries` shows what came.",
    ),
    code(
        "invalid_request",
        &[400],
        "A parameter, a header or the body is not what the call takes.",
        "`detail` says which one and what it may be. The same request will be refused again.",
    ),
    code("tls_required", &[400], "Plain HTTP came where the gateway speaks TLS.", "Use `https://` in the URL."),
    code(
        "key_expired",
        &[401],
        "The key ended by itself; `detail` says when.",
        "An owner makes another one with `doorbell keys create`.",
    ),
    code(
        "key_invalid",
        &[401],
        "The key that was shown is not known: it was mistyped or removed, or the run of this token has ended.",
        "Look at the keys with `doorbell keys`, or make one with `doorbell keys create`.",
    ),
    code(
        "key_missing",
        &[401],
        "No key was shown, or not as a bearer token.",
        "Send `Authorization: Bearer dbk_…`; `doorbell keys create` makes a key. Calls of a run may show its lease instead.",
    ),
    code(
        "signature_mismatch",
        &[401],
        "No secret of the source made this signature of these bytes.",
        "Compare the secret at the sender with the credential, and look for a proxy that changes the body. The troubleshooting guide goes through the causes.",
    ),
    code(
        "signature_missing",
        &[401],
        "The delivery has no signature, or none that can be read.",
        "Set the secret at the sender. A source that takes unsigned deliveries says `allow_unsigned = true`.",
    ),
    code(
        "timestamp_out_of_range",
        &[401],
        "The signed time is too long ago, or in the future: the delivery may be a replay by a stranger.",
        "Check the clocks of both machines. A sender that is late for a reason needs a larger `tolerance` of the source.",
    ),
    code(
        "not_allowed",
        &[403],
        "The key is good, and its role may not do this.",
        "Use a key with the role that `detail` names. Trying again does not help.",
    ),
    code(
        "not_from_here",
        &[403],
        "Of `/mcp` only: a web page asks, or the gateway was asked for by a name that is not its own.",
        "Ask by the host of `[gateway] public_url`, an address, or this machine's name, and not from a web page.",
    ),
    code(
        "not_found",
        &[404],
        "There is no such thing, or it is not the caller's: both are answered the same.",
        "Check the id or the name, and whose key it is that asks.",
    ),
    code(
        "method_not_allowed",
        &[405],
        "The path is there and does not take this method.",
        "`Allow` names those that it takes, where it is known.",
    ),
    code(
        "not_acceptable",
        &[406],
        "Of `/mcp` only: the client takes none of the forms in which the server answers.",
        "Send `Accept: application/json, text/event-stream`.",
    ),
    code(
        "body_too_slow",
        &[408],
        "Nothing of the body came for 10 seconds, or not all of it within 60.",
        "Send it again. Nothing was stored.",
    ),
    code(
        "agent_disabled",
        &[409],
        "The agent has `scale = 0`: it starts nothing.",
        "Give it a larger `scale`, then ask again.",
    ),
    code(
        "agent_missing",
        &[409],
        "The run's agent is not in the configuration any more.",
        "Bring the agent back; its runs are held until then.",
    ),
    code(
        "agent_out_of_force",
        &[409],
        "The agent was declared, and cannot be read as things stand: a source that it names is gone, for example.",
        "`detail` says why. Mend that, or declare the agent anew.",
    ),
    code("agent_paused", &[409], "The agent is paused, so that its runs are held.", "Resume the agent first."),
    code(
        "call_cycle",
        &[409],
        "An agent would call itself, directly or by way of others.",
        "Let one of the agents on the way do the work itself.",
    ),
    code(
        "call_too_deep",
        &[409],
        "Too many agents have called each other in a row.",
        "Let one of the agents on the way do the work itself.",
    ),
    code(
        "callback_failed",
        &[409],
        "Of MCP Events only: the URL that is to be told of events did not answer the question whether it wants them.",
        "`detail` says what it answered: let it echo the challenge, then subscribe again.",
    ),
    code(
        "cannot_sign",
        &[409],
        "No sample can be signed for this webhook: its provider signs with a key that only the provider has.",
        "Let the provider send a test delivery.",
    ),
    code(
        "copy_failed",
        &[409],
        "A backup cannot be written to where it is to be; nothing is wrong with the store.",
        "`detail` names the file: make room there, or choose another place.",
    ),
    code(
        "folder_stays",
        &[409],
        "The folder of a run cannot be removed, so that its event cannot be forgotten.",
        "`detail` says why. Mend that on the gateway's machine, then ask again.",
    ),
    code(
        "idempotency_mismatch",
        &[409],
        "The same `Idempotency-Key` was used for something else: another call, or another body.",
        "Use another key for another wish.",
    ),
    code(
        "idempotency_unknown",
        &[409],
        "The gateway ended while it carried out the first request with this `Idempotency-Key`: it may have been done or not.",
        "Look at what there is. Then, if it was not done, ask again with another key.",
    ),
    code(
        "lease_lost",
        &[409],
        "The lease is over: the run has ended, or it is tried again under another one.",
        "Stop the work on this run. What is told of it is not taken any more.",
    ),
    code(
        "managed_by_file",
        &[409],
        "The agent has files in the project, and is changed there.",
        "Edit its `config.toml`; saved changes are taken over. Its webhooks and pauses can be changed through the API.",
    ),
    code(
        "no_workers",
        &[409],
        "The agent is not of type \"worker\": its runs are not fetched.",
        "Ask for runs of agents with `type = \"worker\"` only.",
    ),
    code(
        "not_asking",
        &[409],
        "The run asks nothing, or has been answered already.",
        "Look at the run: `waitsFor` says what it waits for.",
    ),
    code(
        "not_failed",
        &[409],
        "The run did not fail, so there is nothing to try again.",
        "Look at its `state`. To do it once more all the same, replay its event.",
    ),
    code(
        "not_held",
        &[409],
        "The run is not held, or waits for something that cannot be hurried.",
        "`detail` says how it goes on.",
    ),
    code("not_paused", &[409], "It is not paused, so there is nothing to resume.", "Nothing needs to be done."),
    code(
        "not_reached",
        &[409],
        "The gateway could not send itself a sample at its public URL.",
        "`detail` says why. Check `[gateway] public_url`; `doorbell doctor` looks at the whole way.",
    ),
    code(
        "not_started",
        &[409],
        "The event is stored and starts nothing: the agent is disabled, or its queue is full.",
        "Look at the event's outcomes. It can be replayed later.",
    ),
    code(
        "overlap_full",
        &[409],
        "Too many earlier secrets of this webhook still verify.",
        "Wait until one of them ends, or rotate with `overlap` = `0s`.",
    ),
    code(
        "overtaken",
        &[409],
        "Newer work of the same key has replaced the run.",
        "Nothing: the newer run does the work.",
    ),
    code(
        "queue_full",
        &[409, 429],
        "The agent's queue is full. A delivery is answered so (429) if every agent that wants it rejects it; nothing was stored then.",
        "Try again later; senders come again by themselves. `work_queue_size` and `when_full` of the agent say how much waits.",
    ),
    code("replay_over", &[409], "The replay has ended already.", "Look at its `state`."),
    code("run_over", &[409], "The run has ended already.", "Look at its `state`."),
    code(
        "runs_unfinished",
        &[409],
        "Runs of the event are not over, so that it cannot be forgotten yet.",
        "Wait for them, or ask with `cancel=true` to end them first.",
    ),
    code(
        "step_differs",
        &[409],
        "The step has another result already, and keeps it.",
        "Read the result that is kept, and go on by it.",
    ),
    code(
        "steps_full",
        &[409],
        "The run has as many steps as are kept, or their results are too large together.",
        "Keep fewer or smaller results.",
    ),
    code("too_many_agents", &[409], "As many agents are declared as may be.", "Remove some that are not used."),
    code(
        "too_many_challenges",
        &[409],
        "Of MCP Events only: too many URLs are asked at once whether they want events.",
        "Subscribe again a little later.",
    ),
    code(
        "too_many_subscriptions",
        &[409],
        "Of MCP Events only: the key has as many subscriptions as one may have.",
        "Unsubscribe from what is not used.",
    ),
    code(
        "too_many_webhooks",
        &[409],
        "The agent has as many active webhooks as may be.",
        "Delete one that is not used.",
    ),
    code("webhook_inactive", &[409], "The webhook is deactivated and takes nothing.", "Activate it first."),
    code(
        "cursor_pruned",
        &[410],
        "Events after this place were removed: they were older than is kept.",
        "Begin again without the cursor, or from 0: the oldest that there is.",
    ),
    code(
        "forgotten",
        &[410],
        "What the event said was removed for good.",
        "Nothing: it cannot be read, and not be replayed.",
    ),
    code(
        "precondition_failed",
        &[412],
        "What is there has another `ETag` than `If-Match` names: somebody changed it meanwhile. Or there is something, and `If-None-Match` wants nothing.",
        "Read it again, make the change there, and send it with the new `ETag`.",
    ),
    code(
        "body_too_large",
        &[413],
        "The body is larger than is taken: `max_body` for deliveries, 2 MB for calls of the API.",
        "Send less, or allow more in `[gateway] max_body`.",
    ),
    code(
        "content_encoding",
        &[415],
        "The body is compressed. A signature is of the bytes as they come.",
        "Send it without `Content-Encoding`.",
    ),
    code(
        "content_type",
        &[415],
        "The body is of a type that the provider does not send, or that the call does not take.",
        "Choose the content type that the provider's page in the docs names.",
    ),
    code(
        "host_not_allowed",
        &[421],
        "Management was asked for by a host's name that is not known to be the gateway's.",
        "Ask by the address or by `public_url`, or name the host in `allowed_hosts` of `[gateway]`.",
    ),
    code(
        "invalid_agent",
        &[422],
        "The declaration of an agent is wrong.",
        "`errors` has everything that is, by field: mend all of it, then send it again.",
    ),
    code(
        "rate_limited",
        &[429],
        "More requests came than are taken in this time.",
        "Come again after the seconds that `Retry-After` names.",
    ),
    code(
        "too_many_connections",
        &[429],
        "The address has as many connections as one may have.",
        "Close some, or keep them and send one request after the other on each; `max_connections_per_address` of `[gateway]` is the bound.",
    ),
    code(
        "too_many_executions",
        &[429],
        "Too many runs that the agent's own webhook started are not over.",
        "Wait until some have ended; `Retry-After` says when it is worth asking.",
    ),
    code(
        "too_many_failures",
        &[429],
        "Too many signatures or keys of this address were refused, so that wrong ones are not looked at for a while. A right one is taken.",
        "Mend the key or the secret, and come again after the seconds that `Retry-After` names.",
    ),
    code(
        "too_many_secrets",
        &[429],
        "A sender shows its secret too often, or more were shown than are kept.",
        "The owner looks at `doorbell sources captured`, takes the right one, and forgets the others.",
    ),
    code(
        "too_many_streams",
        &[429],
        "As many streams of server-sent events are open as one key, or all of them, may have.",
        "End some that nobody reads, or come again after the seconds that `Retry-After` names: what came meanwhile is sent first, after `Last-Event-ID`.",
    ),
    code("mcp_failed", &[500], "Of `/mcp` only: the message could not be answered.", "The gateway's log says more."),
    code(
        "store_damaged",
        &[500],
        "What is stored of it cannot be read. Asking again does not help.",
        "The gateway's log says what. `doorbell doctor` looks at the store; a backup may have it whole.",
    ),
    code(
        "certificate_unavailable",
        &[503],
        "What the signature is checked with could not be fetched from the provider.",
        COME_AGAIN,
    ),
    code("closing", &[503], "The gateway shuts down.", COME_AGAIN),
    code(
        "master_key_unavailable",
        &[503],
        "The secrets of webhooks made at run time cannot be sealed or opened: the master key is missing or another one.",
        "Give the gateway its master key, see `docs/webhooks.md`. Nothing is lost: senders come again.",
    ),
    code("over_budget", &[503], "Too many bytes are on their way at once.", COME_AGAIN),
    code("secret_not_kept", &[503], "What the sender shows when it is set up could not be kept.", COME_AGAIN),
    code(
        "secret_unavailable",
        &[503],
        "The secrets of this webhook cannot be opened now.",
        "Give the gateway its master key, see `docs/webhooks.md`. Senders come again by themselves.",
    ),
    code("store_unavailable", &[503], "The database did not take it.", COME_AGAIN),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_by_status_and_name_and_each_says_what_to_do() {
        let places: Vec<(u16, &str)> = ALL.iter().map(|code| (code.statuses[0], code.name)).collect();
        assert!(places.is_sorted(), "{places:?}");
        for code in ALL {
            assert!(!code.means.is_empty() && !code.remedy.is_empty(), "{}", code.name);
            assert!(code.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", code.name);
            assert_eq!(ALL.iter().filter(|other| other.name == code.name).count(), 1, "{}", code.name);
        }
    }

    /// What the source says to the constructors of refusals; codes that come from elsewhere are held against the list when
    /// they are answered (`Failure::new`).
    #[test]
    fn every_code_that_the_source_names_is_in_the_list() {
        let mut found = 0;
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let starts = ["Failure::new(", "Self::new(StatusCode", "Conflict(", "Gone("];
                let calls =
                    starts.iter().flat_map(|start| text.match_indices(start).map(|(at, start)| at + start.len()));
                for at in calls {
                    let rest: String = text[at..].chars().take(120).collect();
                    let first = rest.split_once('"').filter(|(before, _)| !before.contains([';', '{', ')']));
                    let Some(name) = first.and_then(|(_, rest)| rest.split('"').next()) else { continue };
                    if !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                        continue;
                    }
                    assert!(find(name).is_some(), "{}: {name} is not in the list of codes", path.display());
                    found += 1;
                }
            }
        }
        assert!(found > 50, "{found}");
    }
}
