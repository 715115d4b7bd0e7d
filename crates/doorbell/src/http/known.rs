//! Answers held against the document, where the gateway is built to be tested: one that is not in it is a bug that shows.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::response::Response;
use http::{Method, StatusCode};

use super::document::codes_of;
use super::error::Code;

/// What each operation may answer, by method and path: the codes of a status, none for success.
type Known = BTreeMap<(String, String), BTreeMap<u16, Vec<String>>>;

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let document = super::openapi();
        let mut known = Known::new();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                let answers = operation["responses"].as_object().into_iter().flatten().map(|(status, answer)| {
                    let codes = codes_of(&document, answer).map(str::to_owned);
                    (status.parse().unwrap_or_default(), codes.collect())
                });
                known.insert((method.to_uppercase(), path.clone()), answers.collect());
            }
        }
        known
    })
}

/// Panics if an answer of a route is not in the document.
pub(super) fn check(method: &Method, path: &str, response: &Response) {
    let status = response.status();
    let code = response.extensions().get::<Code>().map(|Code(code)| *code);
    // A method that the path does not take has no operation.
    if status == StatusCode::METHOD_NOT_ALLOWED {
        return;
    }
    let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
    // A handler that is given every method refuses some in its own words.
    let Some(answers) = known().get(&(method.to_string(), path.to_owned())) else { return };
    let is_known = answers
        .get(&status.as_u16())
        .is_some_and(|codes| code.is_none_or(|code| codes.iter().any(|known| known == code)));
    assert!(is_known, "{method} {path} answered {status} {code:?}, which the document does not know");
}
