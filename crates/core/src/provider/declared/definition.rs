//! A definition, read from TOML and checked whole: every mistake is reported at once, with its place.

use std::borrow::Cow;

use http::{HeaderName, Method};

use super::handshake::{Handshake, Response};
use super::place::{Places, refuse_query};
use super::reading::{Identity, Naming};
use super::section::{At, InvalidDefinition, Part, Problems, Section, suggestion};
use super::signature::{Proof, Scheme, schemes};
use crate::provider::paths::Paths;
use crate::provider::{CredentialType, FilterField, Sample};

/// The most places that a definition may have, so that reading a delivery stays quick.
const MOST_PLACES: usize = 1000;

/// A provider as its file says it.
#[derive(Debug, Clone)]
pub struct Definition {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) aliases: Vec<Cow<'static, str>>,
    pub(super) credential: CredentialType,
    pub(super) schemes: Vec<Scheme>,
    pub(super) naming: Naming,
    pub(super) identity: Identity,
    pub(super) context: Vec<(String, Places)>,
    pub(super) filters: Vec<FilterField>,
    pub(super) handshakes: Vec<Handshake>,
    /// What every stored event is answered, where the protocol wants an answer of its own.
    pub(super) answer: Option<Response>,
    pub(super) methods: Vec<Method>,
    pub(super) secret_headers: Vec<Cow<'static, str>>,
    /// Headers that the sender sends with everything.
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) samples: Vec<Sample>,
    /// The headers of each sample.
    pub(super) sample_headers: Vec<Vec<(HeaderName, String)>>,
    pub(super) setup: String,
    pub(super) identity_text: String,
    pub(super) paths: Paths,
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    /// If it is not TOML, or anything in it cannot be: everything that is wrong, in the order of the text.
    pub fn parse(text: &str) -> Result<Self, Vec<InvalidDefinition>> {
        let document = toml_edit::Document::parse(text).map_err(|error| {
            let message = format!("not TOML: {}", error.message());
            vec![InvalidDefinition { message, help: None, span: error.span() }]
        })?;
        let problems = Problems::default();
        let root = Section::new(document.as_table(), None, &problems);
        let definition = read(&root);
        let mut problems = problems.take();
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        match definition {
            Some(definition) if problems.is_empty() => Ok(definition),
            _ => Err(problems),
        }
    }

    /// The type of its sources.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn read(root: &Section<'_, '_>) -> Option<Definition> {
    let name = name(root);
    let title = root.text("title").map(|title| title.value.to_owned());
    let aliases = root.texts("aliases");
    for alias in aliases.iter().filter(|alias| !is_name(alias.value)) {
        root.problem(&alias.span, format!("{:?} is no name: {NAMES}", alias.value));
    }
    let schemes = schemes(root);
    let naming = Naming::read(root);
    let identity = Identity::read(root);
    let context = context(root);
    let filters = filters(root, &context);
    let handshakes = Handshake::read_all(root);
    let answer = root.section("answer").map(|answer| Response::read(&answer));
    let methods = methods(root, &handshakes);
    let headers = root.section("headers").map(|headers| header_values(&headers)).unwrap_or_default();
    let (samples, sample_headers) = samples(root);
    let (setup, identity_text) = guide(root);
    let paths = paths(root, &naming, &identity, &context, &handshakes, answer.as_ref());
    let credential = credential(root, name.unwrap_or("unnamed"));
    root.finish();
    let name = name?.to_owned();
    Some(Definition {
        title: title.unwrap_or_else(|| name.clone()),
        name,
        aliases: aliases.iter().map(|alias| Cow::Owned(alias.value.to_owned())).collect(),
        credential,
        secret_headers: secret_headers(&schemes),
        schemes,
        naming,
        identity,
        context,
        filters,
        handshakes,
        answer,
        methods,
        headers,
        samples,
        sample_headers,
        setup: setup.unwrap_or_else(|| USUAL_SETUP.to_owned()),
        identity_text: identity_text.unwrap_or_else(|| USUAL_IDENTITY.to_owned()),
        paths: paths?,
    })
}

const NAMES: &str = "small letters, digits, `-` and `_`, at most 64";
const USUAL_SETUP: &str = "1. Keep the secret that the sender signs with: `doorbell creds add {secret}`.\n2. Give the sender the URL `{url}`.\n";
const USUAL_IDENTITY: &str = "Its definition says what is signed, and what makes two deliveries the same.";

/// `[a-z0-9][a-z0-9_-]{0,63}`.
fn is_name(text: &str) -> bool {
    let small = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 64
        && text.bytes().next().is_some_and(small)
        && text.bytes().all(|byte| small(byte) || byte == b'-' || byte == b'_')
}

fn is_field(text: &str) -> bool {
    is_name(text) && !text.contains('-')
}

fn name<'t>(root: &Section<'t, '_>) -> Option<&'t str> {
    let name = root.needed_text("name")?;
    if is_name(name.value) {
        return Some(name.value);
    }
    root.problem(&name.span, format!("{:?} is no name: {NAMES}", name.value));
    None
}

fn credential(root: &Section<'_, '_>, name: &str) -> CredentialType {
    let (mut kind, mut field) = (format!("{}_webhook_secret", name.replace('-', "_")), "secret".to_owned());
    if let Some(section) = root.section("credential") {
        for (key, value) in [("type", &mut kind), ("field", &mut field)] {
            if let Some(text) = section.text(key) {
                if !is_field(text.value) {
                    section.problem(&text.span, format!("{:?} is no name of a credential's {key}", text.value));
                }
                text.value.clone_into(value);
            }
        }
        section.finish();
    }
    CredentialType { name: Cow::Owned(kind), field: Cow::Owned(field) }
}

fn context(root: &Section<'_, '_>) -> Vec<(String, Places)> {
    let Some(section) = root.section("context") else { return Vec::new() };
    let mut context = Vec::new();
    for (key, parts) in section.free() {
        let places = Places::of(&section, parts);
        refuse_query(&section, &key.span, &places);
        if matches!(key.value, "event" | "action") || !is_field(key.value) {
            section.problem(&key.span, format!("`{}` is no field of a context: small letters, digits and `_`; `event` and `action` have sections of their own", key.value));
        }
        context.push((key.value.to_owned(), places));
    }
    context
}

fn filters(root: &Section<'_, '_>, context: &[(String, Places)]) -> Vec<FilterField> {
    let field = |name: &str, fields: Vec<String>| FilterField {
        name: Cow::Owned(name.to_owned()),
        context: fields.into_iter().map(Cow::Owned).collect::<Vec<_>>().into(),
        only_for: Cow::Borrowed(&[]),
    };
    let mut filters = vec![field("events", vec!["event".to_owned()]), field("actions", vec!["action".to_owned()])];
    let Some(section) = root.section("filters") else { return filters };
    for (key, parts) in section.free() {
        if !is_field(key.value) || filters.iter().any(|known| known.name == key.value) {
            let message = format!("`{}` is no name of a filter, or there is one already", key.value);
            section.problem(&key.span, message);
        }
        let mut fields = Vec::new();
        for part in parts {
            let Part::Text(text) = part.value else {
                section.problem(&part.span, "a filter is a field of the context, or a list of some");
                continue;
            };
            if !context.iter().any(|(known, _)| known == text) {
                let help = suggestion(text, context.iter().map(|(known, _)| known.as_str()), "its fields are");
                section.problem_with_help(&part.span, format!("the context has no field `{text}`"), help);
            }
            fields.push(text.to_owned());
        }
        filters.push(field(key.value, fields));
    }
    filters
}

fn methods(root: &Section<'_, '_>, handshakes: &[Handshake]) -> Vec<Method> {
    let mut methods = Vec::new();
    for text in root.texts("methods") {
        match text.value {
            "POST" => methods.push(Method::POST),
            "PUT" => methods.push(Method::PUT),
            other => root.problem(&text.span, format!("deliveries come by `POST` or `PUT`, not by {other:?}")),
        }
    }
    if methods.is_empty() {
        methods.push(Method::POST);
    }
    for handshake in handshakes.iter().filter(|handshake| !handshake.signed) {
        if !methods.contains(&handshake.method) {
            methods.push(handshake.method.clone());
        }
    }
    methods
}

fn header_values(section: &Section<'_, '_>) -> Vec<(HeaderName, String)> {
    let mut headers = Vec::new();
    for (key, value) in section.free_texts() {
        let Ok(name) = key.value.parse::<HeaderName>() else {
            section.problem(&key.span, format!("{:?} is not the name of a header", key.value));
            continue;
        };
        if value.value.is_empty() || !value.value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            section.problem(&value.span, "a header is visible ASCII");
        }
        headers.push((name, value.value.to_owned()));
    }
    headers
}

fn samples(root: &Section<'_, '_>) -> (Vec<Sample>, Vec<Vec<(HeaderName, String)>>) {
    let (mut samples, mut headers) = (Vec::new(), Vec::new());
    for section in root.sections("sample") {
        let event = section.needed_text("event").map(|text| text.value.to_owned());
        let about = section.text("about").map(|text| text.value.to_owned()).unwrap_or_default();
        let body = section.needed_text("body").map(|text| text.value.to_owned());
        headers.push(section.section("headers").map(|headers| header_values(&headers)).unwrap_or_default());
        section.finish();
        samples.push(Sample {
            event: Cow::Owned(event.unwrap_or_default()),
            about: Cow::Owned(about),
            body: Cow::Owned(body.unwrap_or_default()),
        });
    }
    (samples, headers)
}

fn guide(root: &Section<'_, '_>) -> (Option<String>, Option<String>) {
    let Some(section) = root.section("guide") else { return (None, None) };
    let text = |key: &'static str| section.text(key).map(|At { value, .. }| value.to_owned());
    let guide = (text("setup"), text("identity"));
    section.finish();
    guide
}

fn paths(
    root: &Section<'_, '_>,
    naming: &Naming,
    identity: &Identity,
    context: &[(String, Places)],
    handshakes: &[Handshake],
    answer: Option<&Response>,
) -> Option<Paths> {
    let mut pointers = Vec::new();
    naming.pointers(&mut pointers);
    identity.pointers(&mut pointers);
    context.iter().for_each(|(_, places)| places.pointers(&mut pointers));
    handshakes.iter().for_each(|handshake| handshake.pointers(&mut pointers));
    answer.into_iter().for_each(|answer| answer.pointers(&mut pointers));
    if pointers.len() > MOST_PLACES {
        root.problem(&None, format!("there are {} pointers, and {MOST_PLACES} at most", pointers.len()));
        return None;
    }
    Paths::new(pointers).map_err(|error| root.problem(&None, error.to_string())).ok()
}

/// The headers of tokens.
fn secret_headers(schemes: &[Scheme]) -> Vec<Cow<'static, str>> {
    let shown = schemes.iter().filter(|scheme| !matches!(scheme.proof, Proof::Signature(_)));
    shown.map(|scheme| Cow::Owned(scheme.header.as_str().to_owned())).collect()
}
