//! What a declared provider sends, imitated: to ring a gateway with.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::Definition;
use crate::provider::{Key, Signed, Unsent, find_sample};

/// The request, in the way that the key can sign, or unsigned in the first way.
pub(super) fn sign(definition: &Definition, key: Option<&Key>, unsent: &Unsent<'_>) -> Signed {
    let body = body(definition, unsent);
    let takes = |key: &Key| definition.schemes.iter().find(|scheme| scheme.takes(key));
    let scheme = key.and_then(takes).or_else(|| definition.schemes.first());
    let mut request = Request { headers: Vec::new() };
    request.set("content-type", "application/json".to_owned());
    for (name, value) in &definition.headers {
        request.set(name.as_str(), filled(value, unsent));
    }
    if let Some(name) = definition.identity.id.header() {
        request.set(name.as_str(), unsent.delivery_id.to_owned());
    }
    if let Some((name, value)) = definition.naming.header_for(unsent.event) {
        request.set(&name, value);
    }
    let sample = find_sample(&definition.samples, unsent.event).map(|sample| &*sample.event);
    let at = definition.samples.iter().position(|known| Some(&*known.event) == sample);
    for (name, value) in at.map(|at| definition.sample_headers[at].as_slice()).unwrap_or_default() {
        request.set(name.as_str(), filled(value, unsent));
    }
    let Some(scheme) = scheme else { return Signed { headers: request.headers, body } };
    let (mut time, mut id) = (String::new(), "");
    if let Some(signature) = scheme.signature() {
        if let Some(name) = &signature.id {
            id = unsent.delivery_id;
            request.set(name.as_str(), id.to_owned());
        }
        if let Some(signed) = &signature.time {
            time = signed.write(unsent.now);
            signed.header.iter().for_each(|name| request.set(name.as_str(), time.clone()));
        }
    }
    if let Some(proof) = key.and_then(|key| scheme.prove(key, &time, id, &body)) {
        request.set(scheme.header.as_str(), proof);
    }
    Signed { headers: request.headers, body }
}

struct Request {
    headers: Vec<(String, String)>,
}

impl Request {
    /// Sets a header, if it can be one: an event of somebody's own may have any name.
    fn set(&mut self, name: &str, value: String) {
        let (Ok(name), Ok(_)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) else { return };
        self.headers.retain(|(known, _)| known != name.as_str());
        if !value.is_empty() {
            self.headers.push((name.to_string(), value));
        }
    }
}

/// The body; a sample's own with an id and a time of this delivery.
fn body(definition: &Definition, unsent: &Unsent<'_>) -> Bytes {
    match definition.samples.iter().any(|sample| sample.body.as_bytes() == unsent.body) {
        true => Bytes::from(filled(&String::from_utf8_lossy(&unsent.body), unsent)),
        false => unsent.body.clone(),
    }
}

fn filled(text: &str, unsent: &Unsent<'_>) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    text.replace("{delivery_id}", unsent.delivery_id)
        .replace("{now}", &unsent.now.to_string())
        .replace("{now_seconds}", &unsent.now.as_seconds().to_string())
        .replace("{now_milliseconds}", &unsent.now.as_millis().to_string())
}
