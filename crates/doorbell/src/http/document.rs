//! The OpenAPI document, made of the routes: what a handler takes and answers is read from the types of its signature.

use std::collections::{BTreeMap, BTreeSet};

use doorbell_client::api::Problem;
use http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::error::codes;
use super::route::{ANY_KEY, Route};

pub(super) const PROBLEM: &str = "application/problem+json";
const JSON: &str = "application/json";

/// What a part of a handler's signature means for the document.
pub(super) trait Described {
    fn describe(sketch: &mut Sketch<'_>);
}

/// A handler whose signature says all. `D` is what it takes.
pub(super) trait DescribedHandler<D> {
    fn describe(sketch: &mut Sketch<'_>);
}

macro_rules! described_handlers {
    ($($name:ident)*) => {
        impl<F, A, R, $($name,)*> DescribedHandler<($($name,)*)> for F
        where
            F: Fn($($name,)*) -> A,
            A: Future<Output = R>,
            R: Described,
            $($name: Described,)*
        {
            fn describe(sketch: &mut Sketch<'_>) {
                $(<$name as Described>::describe(sketch);)*
                R::describe(sketch);
            }
        }
    };
}

described_handlers!();
described_handlers!(A1);
described_handlers!(A1 A2);
described_handlers!(A1 A2 A3);
described_handlers!(A1 A2 A3 A4);
described_handlers!(A1 A2 A3 A4 A5);
described_handlers!(A1 A2 A3 A4 A5 A6);

/// The schemas of a document.
struct Schemas {
    /// What is answered: each type once, under its name.
    answered: SchemaGenerator,
    /// What is taken, in place: small, and not the same where a type is both.
    taken: SchemaGenerator,
    /// Refusals that more than one operation may answer.
    refused: Map<String, Value>,
}

/// The codes that an answer of a document may have; none: it is no refusal.
pub(super) fn codes_of<'a>(document: &'a Value, answer: &'a Value) -> impl Iterator<Item = &'a str> {
    let codes = resolve(document, answer)["content"][PROBLEM]["schema"]["properties"]["code"]["enum"].as_array();
    codes.into_iter().flatten().filter_map(Value::as_str)
}

/// What a document says of an answer, also where it only refers to it.
pub(super) fn resolve<'a>(document: &'a Value, answer: &'a Value) -> &'a Value {
    let to = answer["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
    to.and_then(|to| document.pointer(to)).unwrap_or(answer)
}

/// What is known of an operation so far.
pub(super) struct Sketch<'a> {
    schemas: &'a mut Schemas,
    /// Of success, as the handler answers it.
    pub(super) status: StatusCode,
    roles: Option<&'static [&'static str]>,
    /// Whether another proof in the body will do.
    key_may_be_left_out: bool,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// By status and media type.
    answers: BTreeMap<u16, BTreeMap<&'static str, Value>>,
    refusals: BTreeMap<u16, BTreeSet<&'static str>>,
}

impl Sketch<'_> {
    /// It takes a bearer key.
    pub(super) fn needs_key(&mut self) {
        self.roles = Some(ANY_KEY);
        for code in
            ["key_missing", "key_invalid", "key_expired", "rate_limited", "too_many_failures", "host_not_allowed"]
        {
            self.refuses(code);
        }
        // The lease of a run reaches some paths only.
        self.refuses("not_found");
        self.refuses("store_unavailable");
    }

    /// It takes a bearer key, or the lease of a run in its body.
    pub(super) fn needs_key_or_lease(&mut self) {
        self.needs_key();
        self.key_may_be_left_out = true;
    }

    pub(super) fn allow(&mut self, roles: &'static [&'static str]) {
        self.roles = Some(roles);
        self.refuses("not_allowed");
    }

    /// A code with the status that it mostly has.
    pub(super) fn refuses(&mut self, code: &'static str) {
        if let Some(status) = codes::find(code).and_then(|code| StatusCode::from_u16(code.statuses[0]).ok()) {
            self.refuses_as(status, code);
        }
    }

    pub(super) fn refuses_as(&mut self, status: StatusCode, code: &'static str) {
        self.refusals.entry(status.as_u16()).or_default().insert(code);
    }

    pub(super) fn json<T: JsonSchema>(&mut self, status: StatusCode) {
        let schema = self.schemas.answered.subschema_for::<T>().to_value();
        self.answers.entry(status.as_u16()).or_default().insert(JSON, schema);
    }

    pub(super) fn content(&mut self, status: StatusCode, media_type: &'static str) {
        let schema = if media_type.starts_with("text/") { json!({ "type": "string" }) } else { json!({}) };
        self.answers.entry(status.as_u16()).or_default().insert(media_type, schema);
    }

    /// Server-sent events: the schema is of one of them.
    pub(super) fn stream<T: JsonSchema>(&mut self) {
        let data = self.schemas.answered.subschema_for::<T>().to_value();
        let data = json!({ "type": "string", "contentMediaType": JSON, "contentSchema": data });
        let text = json!({ "type": "string" });
        let schema = json!({ "type": "object", "properties": { "event": text, "id": text, "data": data } });
        self.answers.entry(StatusCode::OK.as_u16()).or_default().insert("text/event-stream", schema);
    }

    pub(super) fn empty(&mut self, status: StatusCode) {
        self.answers.entry(status.as_u16()).or_default();
    }

    /// The parameters of a query.
    pub(super) fn query<T: JsonSchema>(&mut self) {
        let schema = self.schemas.taken.subschema_for::<T>().to_value();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let mut field = field.clone();
            let description = field.as_object_mut().and_then(|field| field.remove("description"));
            without_null(&mut field);
            let mut parameter = json!({ "name": name, "in": "query", "schema": field });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            if required.iter().any(|required| required == name) {
                parameter["required"] = json!(true);
            }
            self.parameters.push(parameter);
        }
        self.refuses("invalid_request");
    }

    pub(super) fn header(&mut self, name: &str, what: &str) {
        self.parameters
            .push(json!({ "name": name, "in": "header", "description": what, "schema": { "type": "string" } }));
    }

    /// A body of JSON, which may be left out if nothing needs to be said.
    pub(super) fn body<T: JsonSchema>(&mut self, required: bool) {
        let schema = self.schemas.taken.subschema_for::<T>().to_value();
        self.body = Some(json!({ "required": required, "content": { JSON: { "schema": schema } } }));
        self.refuses("invalid_request");
        self.refuses("body_too_large");
    }

    /// A body of anything, mostly JSON, or none.
    pub(super) fn any_body(&mut self, what: &str) {
        self.body = Some(json!({ "description": what, "content": { JSON: { "schema": {} } } }));
    }

    /// What it comes to.
    fn finish(self, route: &Route) -> Value {
        let mut operation = json!({ "operationId": route.id, "summary": route.summary, "tags": [route.tag] });
        let parameters: Vec<Value> = path_parameters(route.path).chain(self.parameters).collect();
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        let mut responses = Map::new();
        for (status, contents) in self.answers {
            let content = contents.into_iter().map(|(media_type, schema)| {
                let schema = json!({ "schema": schema });
                (media_type.to_owned(), schema)
            });
            let mut response = json!({ "description": reason(status) });
            let content: Map<String, Value> = content.collect();
            if !content.is_empty() {
                response["content"] = Value::Object(content);
            }
            responses.insert(status.to_string(), response);
        }
        for (status, codes) in self.refusals {
            let means = codes.iter().filter_map(|name| codes::find(name));
            let means: Vec<String> = means.map(|code| format!("`{}`: {}", code.name, code.means)).collect();
            let codes: Vec<&str> = codes.into_iter().collect();
            let content = json!({ "schema": {
                "$ref": "#/components/schemas/Problem",
                "properties": { "status": { "const": status }, "code": { "enum": codes } },
            } });
            let description = means.join("\n");
            if let Some(answer) = responses.get_mut(&status.to_string()) {
                answer["description"] = json!(description);
                answer["content"][PROBLEM] = content;
                continue;
            }
            // Most are refused alike: said once.
            let name = format!("{status}.{}", codes.join("."));
            responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
            let refusal = json!({ "description": description, "content": { PROBLEM: content } });
            self.schemas.refused.insert(name, refusal);
        }
        operation["responses"] = Value::Object(responses);
        let mut security: Vec<Value> = Vec::new();
        if self.key_may_be_left_out {
            security.push(json!({}));
        }
        // For a bearer scheme, the names are roles.
        security.extend(self.roles.into_iter().flatten().map(|role| json!({ "key": [role] })));
        operation["security"] = Value::Array(security);
        operation
    }
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

/// What may be left out of a query cannot be null there.
fn without_null(field: &mut Value) {
    if let Some(kinds) = field["type"].as_array() {
        let kinds: Vec<&Value> = kinds.iter().filter(|kind| *kind != "null").collect();
        if let [kind] = kinds.as_slice() {
            field["type"] = (*kind).clone();
        }
    }
}

/// What a path names, in order.
fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let segments: Vec<&str> = path.split('/').collect();
    let named: Vec<Value> = (1..segments.len())
        .filter_map(|i| {
            let name = segments[i].strip_prefix('{')?.strip_suffix('}')?;
            let of = segments[i - 1].trim_end_matches('s');
            let what = match (name, of) {
                ("provider", _) => "The name of a provider, e.g. `github`.".to_owned(),
                ("source", _) => "The name of a source.".to_owned(),
                ("name", of) => format!("The name of the {of}."),
                ("id", "execution") => "The id of the run.".to_owned(),
                ("id", "hook") => "The id of the webhook.".to_owned(),
                ("key", _) => "The key of the step.".to_owned(),
                ("code", _) => "The code of the error.".to_owned(),
                (_, of) => format!("The id of the {of}."),
            };
            let schema = json!({ "type": "string" });
            Some(json!({ "name": name, "in": "path", "required": true, "description": what, "schema": schema }))
        })
        .collect();
    named.into_iter()
}

/// The document of these routes.
pub(super) fn of(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let answered = settings.clone().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let taken = settings.with(|settings| settings.inline_subschemas = true);
    let mut schemas =
        Schemas { answered: answered.into_generator(), taken: taken.into_generator(), refused: Map::new() };
    schemas.answered.subschema_for::<Problem>();
    let mut paths = Map::new();
    let mut tags: Vec<&str> = Vec::new();
    for route in routes {
        let mut sketch = Sketch {
            schemas: &mut schemas,
            status: StatusCode::OK,
            roles: None,
            key_may_be_left_out: false,
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            refusals: BTreeMap::new(),
        };
        route.describe(&mut sketch);
        let operation = sketch.finish(route);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation;
        if !tags.contains(&route.tag) {
            tags.push(route.tag);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Doorbell",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "tags": tags.into_iter().map(|tag| json!({ "name": tag })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "responses": schemas.refused,
            "schemas": schemas.answered.take_definitions(true),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": KEYS } },
        },
    })
}

const ABOUT: &str = "A webhook gateway that starts agents. Bodies are JSON in camelCase, times RFC 3339 in UTC. Errors are problem documents \
    (RFC 9457): `code` is stable, and `type` leads to its page. What a key may not see does not exist for it: 404.";
const KEYS: &str = "An API key (`dbk_…`), or the token of a run (`dbr_…`). The names at an operation are the roles that may: `run` is the token of a run.";
