//! What can go wrong between a client and a gateway.

use crate::api::Problem;

/// A question to the gateway was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer: nothing listens there, the connection broke, or it took too long.
    #[error("cannot reach the gateway at {url}")]
    Unreachable {
        /// The gateway's URL, without user name and password.
        url: String,
        /// What failed.
        source: reqwest::Error,
    },
    /// The gateway refused, and says why.
    #[error("{} ({} {})", .0.detail, .0.status, .0.code)]
    Api(Problem),
    /// What was named is no URL of a gateway.
    #[error("{0}")]
    NoUrl(String),
    /// The question cannot be asked, or the answer is not one of this API.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// Whether no connection could be made: as a rule, no gateway runs there.
    pub fn nobody_listens(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.is_connect())
    }

    /// The HTTP status of the answer, if the gateway refused.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api(problem) => Some(problem.status),
            Self::Unreachable { .. } | Self::NoUrl(_) | Self::Unexpected(_) => None,
        }
    }
}

/// The refusal that an answer with a status beyond 2xx stands for.
pub(crate) fn refusal(status: u16, body: &[u8]) -> Error {
    match serde_json::from_slice::<Problem>(body) {
        // The status line decides: a proxy in between may have changed it.
        Ok(problem) => Error::Api(Problem { status, ..problem }),
        Err(_) => Error::Api(Problem {
            kind: "about:blank".into(),
            status,
            code: "unknown".to_owned(),
            title: "no problem document".to_owned(),
            detail: match excerpt(body) {
                text if text.is_empty() => "the answer has no body".to_owned(),
                text => format!("the answer is not one of Doorbell's: {text}"),
            },
            errors: Vec::new(),
        }),
    }
}

/// The beginning of a body as one line of text, to be shown in an error.
pub(crate) fn excerpt(body: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(body);
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(MOST) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_document_is_read() {
        let body = br#"{"status":404,"code":"not_found","title":"Not Found","detail":"there is no such run"}"#;
        let error = refusal(404, body);
        assert_eq!(error.to_string(), "there is no such run (404 not_found)");
        assert_eq!(error.status(), Some(404));
    }

    #[test]
    fn an_answer_from_something_else_shows_its_beginning() {
        let error = refusal(502, b"<html>\n  <h1>Bad Gateway</h1>").to_string();
        assert_eq!(error, "the answer is not one of Doorbell's: <html> <h1>Bad Gateway</h1> (502 unknown)");
        assert!(refusal(502, &[b'x'; 10_000]).to_string().len() < 400, "it is cut");
    }
}
