//! What sets a webhook up: requests that get an answer of their own, signed or not.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::Definition;
use super::place::{Equals, Places, Said, Template};
use super::section::Section;
use crate::delivery::Delivery;
use crate::event::Value;
use crate::provider::{Answer, Greeting, paths::Paths};
use crate::secret::Secret;

use super::reading::text_of;

/// The longest body of an unsigned request that is looked into: anybody can send one.
const LONGEST_GREETING: usize = 16 * 1024;

const METHODS: [(&str, &Method); 3] = [("POST", &Method::POST), ("GET", &Method::GET), ("HEAD", &Method::HEAD)];

/// A request that sets a webhook up.
#[derive(Debug, Clone)]
pub(super) struct Handshake {
    pub(super) signed: bool,
    pub(super) method: Method,
    /// The event, or event and action, that it is.
    event: Option<String>,
    /// What must be there.
    has: Places,
    /// What must stand somewhere.
    equals: Equals,
    /// Where the sender shows the secret that it will sign with.
    pub(super) secret: Places,
    pub(super) answer: Option<Response>,
    /// What all of it looks for.
    paths: Paths,
}

/// An answer, with values of the request in it.
#[derive(Debug, Clone)]
pub(super) struct Response {
    status: StatusCode,
    content_type: &'static str,
    body: Option<Template>,
}

const CONTENT_TYPES: [(&str, &str); 2] = [("application/json", "application/json"), ("text/plain", "text/plain")];

impl Handshake {
    pub(super) fn read_all(root: &Section<'_, '_>) -> Vec<Self> {
        root.sections("handshake").iter().map(Self::read).collect()
    }

    fn read(section: &Section<'_, '_>) -> Self {
        let signed = section.flag("signed").unwrap_or(true);
        let mut handshake = Self {
            signed,
            method: Method::POST,
            event: None,
            has: Places::read(section, "has"),
            equals: Equals::read(section, "equals"),
            secret: Places::default(),
            answer: section.section("answer").map(|answer| Response::read(&answer)),
            paths: Paths::known(&[]),
        };
        match signed {
            true => handshake.event = section.text("event").map(|event| event.value.to_owned()),
            false => {
                handshake.method = section.word("method", &METHODS).map_or(Method::POST, Method::clone);
                handshake.secret = Places::read(section, "secret");
                if handshake.method == Method::POST && handshake.has.is_empty() && handshake.equals.is_empty() {
                    let message = "an unsigned handshake by POST would take every delivery: say what it `has`, or what `equals` what";
                    section.problem(&None, message);
                }
            }
        }
        if signed && handshake.event.is_none() && handshake.has.is_empty() && handshake.equals.is_empty() {
            section.problem(&None, "a handshake is known by its `event`, by what it `has`, or by what `equals` what");
        }
        section.finish();
        let mut pointers = Vec::new();
        handshake.pointers(&mut pointers);
        // Pointers were checked where they were read.
        handshake.paths = Paths::new(pointers).unwrap_or_else(|_| Paths::known(&[]));
        handshake
    }

    /// Adds the pointers that are looked for.
    pub(super) fn pointers(&self, all: &mut Vec<String>) {
        self.has.pointers(all);
        self.secret.pointers(all);
        self.equals.pointers(all);
        if let Some(body) = self.answer.as_ref().and_then(|answer| answer.body.as_ref()) {
            body.pointers(all);
        }
    }

    fn fits(&self, said: &Said<'_>) -> bool {
        let there = |place: &super::place::Place| !said.raw(place).is_empty();
        self.has.0.iter().all(there) && self.equals.hold(said)
    }

    /// The same under a good signature.
    pub(super) fn is(&self, said: &Said<'_>, event: &str, action: Option<&str>) -> bool {
        let named = |name: &String| match action {
            None => name == event,
            Some(action) => {
                name == event || name.strip_prefix(event).and_then(|rest| rest.strip_prefix('.')) == Some(action)
            }
        };
        self.signed && self.event.as_ref().is_none_or(named) && self.fits(said)
    }

    /// What an unsigned request gets, if it is this one.
    pub(super) fn greet(&self, delivery: &Delivery) -> Option<Greeting> {
        if self.signed || self.method != delivery.method || delivery.body.len() > LONGEST_GREETING {
            return None;
        }
        // What has no body can still be known by its query and its headers.
        let found = text_of(delivery).ok().and_then(|text| self.paths.find(text).ok());
        let said = Said { delivery, found };
        if !self.fits(&said) {
            return None;
        }
        let answer = match &self.answer {
            Some(answer) => answer.fill(&said)?,
            None => Answer::empty(StatusCode::OK),
        };
        if self.secret.is_empty() {
            return Some(Greeting::Answer(answer));
        }
        // A number or a flag is no secret.
        let Some(Value::Text(shown)) = self.secret.value(&said) else { return None };
        let secret = Secret::new(shown);
        Some(Greeting::Secret { secret, answer })
    }
}

impl Response {
    pub(super) fn read(section: &Section<'_, '_>) -> Self {
        let status = section.number("status").map_or(StatusCode::OK, |status| {
            let code = u16::try_from(status.value).ok().and_then(|code| StatusCode::from_u16(code).ok());
            code.filter(StatusCode::is_success).unwrap_or_else(|| {
                section.problem(&status.span, "`status` is one of success: 200 to 299");
                StatusCode::OK
            })
        });
        let content_type = section.word("content_type", &CONTENT_TYPES);
        let body = Template::read(section, "body").map(|body| body.value);
        section.finish();
        Self { status, content_type: content_type.unwrap_or("application/json"), body }
    }

    pub(super) fn pointers(&self, all: &mut Vec<String>) {
        self.body.iter().for_each(|body| body.pointers(all));
    }

    /// Filled with what the request says; none if a place in it has no value.
    pub(super) fn fill(&self, said: &Said<'_>) -> Option<Answer> {
        let Some(body) = &self.body else { return Some(Answer::empty(self.status)) };
        let text = match self.content_type {
            "application/json" => body.fill(said, escaped)?,
            _ => body.fill(said, |text| Cow::Borrowed(text))?,
        };
        Some(Answer { status: self.status, content_type: Some(self.content_type), body: Bytes::from(text) })
    }
}

/// As it stands between the quotes of a JSON text.
fn escaped(text: &str) -> Cow<'_, str> {
    let quoted = serde_json::Value::from(text).to_string();
    Cow::Owned(quoted[1..quoted.len() - 1].to_owned())
}

impl Definition {
    /// The handshake that a signed delivery is.
    pub(super) fn handshake(&self, said: &Said<'_>, event: &str, action: Option<&str>) -> Option<&Handshake> {
        self.handshakes.iter().find(|handshake| handshake.is(said, event, action))
    }
}
