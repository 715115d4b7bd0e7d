//! The challenge-response check: an HMAC of a text that a stranger chose, given only where it can never be the
//! signature of an event.

use serde_json::json;

use super::PREFIX;
use crate::provider::{Answer, Greeting, address, encode_base64};
use crate::source::NamedKey;
use crate::verify::Rejection;

/// Longer than any token so far.
const LONGEST_TOKEN: usize = 1000;

/// Answers a check with the first key: X shows no signature by which another could be chosen.
pub(super) fn answer(keys: &[NamedKey], url: &str) -> Result<Greeting, Rejection> {
    let mut tokens = address::query(url).filter_map(|(name, value)| (name == "crc_token").then_some(value));
    let token = tokens.next().ok_or_else(|| Rejection::missing("a GET request is a check, and its `crc_token`"))?;
    if tokens.next().is_some() {
        return Err(Rejection::mismatch("`crc_token` is there more than once"));
    }
    if token.is_empty() || token.len() > LONGEST_TOKEN {
        return Err(Rejection::mismatch(format!("`crc_token` is empty, or over {LONGEST_TOKEN} bytes")));
    }
    if starts_like_an_object(&token) {
        return Err(Rejection::mismatch(
            "`crc_token` starts like the body of an event: the answer would be a signature of it, for anybody",
        ));
    }
    let mac = keys.first().and_then(|named| named.key.mac(&[token.as_bytes()]));
    let mac = mac.ok_or_else(|| Rejection::mismatch("the source has no secret to answer a check with"))?;
    let response = json!({ "response_token": format!("{PREFIX}{}", encode_base64(mac.as_ref())) });
    Ok(Greeting::Answer(Answer::json(response.to_string())))
}

/// Whether a reader of JSON that is more lenient than ours, which skips whatever cannot be seen, would find an object.
fn starts_like_an_object(token: &str) -> bool {
    let unseen = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{fffd}' | '\u{fffe}')
    };
    token.trim_start_matches(unseen).starts_with('{')
}
