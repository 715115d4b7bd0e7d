//! Pages for people: the API and the codes of errors, made of the document and of the list of codes. They load nothing.

use std::fmt::Write;
use std::sync::OnceLock;

use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde_json::Value;

use super::api::Named;
use super::document::{PROBLEM, codes_of, resolve};
use super::error::Failure;
use super::error::codes::{self, Code};
use super::route::Route;

const HTML: &str = "text/html";

/// What describes the whole API.
pub(super) fn api() -> Vec<Route> {
    vec![
        Route::get(("/openapi.json", "getDocument", "This document"), document).json::<Value>(StatusCode::OK),
        Route::get(("/docs/api", "readDocument", "This document, for people"), api_page).content(StatusCode::OK, HTML),
    ]
}

/// Where `type` of an error leads.
pub(super) fn errors() -> Vec<Route> {
    vec![
        Route::get(("/docs/errors", "listErrors", "The codes of errors, for people"), errors_page)
            .content(StatusCode::OK, HTML),
        Route::get(
            ("/docs/errors/{code}", "readError", "A code, for people: what it means and what to do"),
            error_page,
        )
        .content(StatusCode::OK, HTML),
    ]
}

/// The document, made once.
fn made() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(super::openapi)
}

async fn document() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| made().to_string().into()).clone();
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

async fn api_page() -> Response {
    static PAGE: OnceLock<String> = OnceLock::new();
    page(PAGE.get_or_init(|| describe_api(made())).clone())
}

async fn errors_page() -> Response {
    let mut text =
        "<h1>Errors</h1><p>Every error is a problem document (RFC 9457) with a stable <code>code</code>.</p>"
            .to_owned();
    codes::ALL.iter().for_each(|code| describe_code(&mut text, code));
    page(whole("Errors", &text))
}

async fn error_page(Named(name): Named) -> Result<Response, Failure> {
    let code = codes::find(&name).ok_or_else(Failure::not_found)?;
    let mut text = String::new();
    describe_code(&mut text, code);
    text.push_str("<p><a href=\"/docs/errors\">All codes</a></p>");
    Ok(page(whole(code.name, &text)))
}

fn page(text: String) -> Response {
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    ([(CONTENT_SECURITY_POLICY, policy), (X_CONTENT_TYPE_OPTIONS, "nosniff")], Html(text)).into_response()
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
    code{font-family:ui-monospace,monospace}h2{margin-top:3rem}h3{margin-top:2rem}table{border-collapse:collapse;width:100%}\
    td{border-top:1px solid #8884;padding:.3rem .8rem .3rem 0;vertical-align:top}summary{cursor:pointer}pre{overflow:auto}";

fn whole(title: &str, text: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{} – Doorbell</title><style>{STYLE}</style></head><body>{text}</body></html>\n",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escaped, with what stands in backticks as code.
fn words(text: &str) -> String {
    let parts = escape(text);
    let parts = parts.split('`').enumerate();
    parts.map(|(i, part)| if i % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

fn statuses(code: &Code) -> String {
    let named = code.statuses.iter().filter_map(|status| StatusCode::from_u16(*status).ok());
    named.map(|status| status.to_string()).collect::<Vec<_>>().join(", ")
}

fn describe_code(text: &mut String, code: &Code) {
    let _ = write!(
        text,
        "<h2 id=\"{0}\"><a href=\"{1}{0}\"><code>{0}</code></a></h2><p>{2}</p><p>{3}</p><p>{4}</p>",
        code.name,
        codes::PAGES,
        statuses(code),
        words(code.means),
        words(code.remedy)
    );
}

fn describe_api(document: &Value) -> String {
    let mut text = format!(
        "<h1>Doorbell {}</h1><p>{}</p><p><a href=\"/openapi.json\">The document</a>, <a href=\"/docs/errors\">the codes of errors</a></p>",
        escape(document["info"]["version"].as_str().unwrap_or_default()),
        words(document["info"]["description"].as_str().unwrap_or_default())
    );
    let tags = document["tags"].as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str());
    for tag in tags {
        let _ = write!(text, "<h2 id=\"{0}\">{0}</h2>", escape(tag));
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                if operation["tags"][0] == tag {
                    describe_operation(&mut text, method, path, operation);
                }
            }
        }
    }
    text.push_str("<h2>Types</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = write!(text, "<h3 id=\"type-{0}\">{0}</h3>", escape(name));
        describe_schema(&mut text, schema);
    }
    whole("API", &text)
}

fn describe_operation(text: &mut String, method: &str, path: &str, operation: &Value) {
    let id = escape(operation["operationId"].as_str().unwrap_or_default());
    let summary = words(operation["summary"].as_str().unwrap_or_default());
    let (method, path) = (method.to_uppercase(), escape(path));
    let _ = write!(text, "<h3 id=\"{id}\"><code>{method} {path}</code></h3><p>{summary}.");
    let roles: Vec<&str> =
        operation["security"].as_array().into_iter().flatten().filter_map(|one| one["key"][0].as_str()).collect();
    if !roles.is_empty() {
        let _ = write!(text, " Keys: {}.", roles.join(", "));
    }
    text.push_str("</p>");
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let rows = parameters.map(|parameter| {
        let of = |name: &str| parameter[name].as_str().unwrap_or_default();
        let what = format!("{}, {}", of("in"), kind(&parameter["schema"]));
        row(&[&format!("<code>{}</code>", escape(of("name"))), &what, &words(of("description"))])
    });
    table(text, rows.collect());
    let body = &operation["requestBody"];
    if let Some(schema) = body["content"]["application/json"].get("schema") {
        let _ = write!(text, "<p>Body: {}</p>", words(body["description"].as_str().unwrap_or("JSON.")));
        describe_schema(text, schema);
    }
    let responses = operation["responses"].as_object().into_iter().flatten();
    let rows = responses.map(|(status, answer)| {
        let contents = resolve(made(), answer)["content"].as_object().into_iter().flatten();
        let kinds = contents.map(|(media_type, content)| match media_type.as_str() {
            PROBLEM => link_codes(codes_of(made(), answer)),
            "application/json" => kind(&content["schema"]),
            other => escape(other),
        });
        row(&[status, &kinds.collect::<Vec<_>>().join(" or ")])
    });
    table(text, rows.collect());
}

fn link_codes<'a>(codes: impl Iterator<Item = &'a str>) -> String {
    let links = codes.map(|code| format!("<a href=\"{}{code}\"><code>{code}</code></a>", codes::PAGES));
    links.collect::<Vec<_>>().join(", ")
}

fn describe_schema(text: &mut String, schema: &Value) {
    if let Some(description) = schema["description"].as_str() {
        let _ = write!(text, "<p>{}</p>", words(description));
    }
    let required = schema["required"].as_array();
    let fields = schema["properties"].as_object().into_iter().flatten();
    let rows = fields.map(|(name, field)| {
        let is_required = required.is_some_and(|required| required.iter().any(|one| one == name));
        let mark = if is_required { "" } else { "?" };
        let description = words(field["description"].as_str().unwrap_or_default());
        row(&[&format!("<code>{}</code>{mark}", escape(name)), &kind(field), &description])
    });
    table(text, rows.collect());
}

fn row(cells: &[&str]) -> String {
    format!("<tr>{}</tr>", cells.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>())
}

fn table(text: &mut String, rows: Vec<String>) {
    if !rows.is_empty() {
        let _ = write!(text, "<table>{}</table>", rows.concat());
    }
}

/// The type of a field, in a word, with a link where it has a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        return format!("<a href=\"#type-{0}\">{0}</a>", escape(name));
    }
    let all = |list: &Value| list.as_array().into_iter().flatten().map(kind).collect::<Vec<_>>().join(" or ");
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(name) => escape(name),
        Value::Array(names) => escape(&names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")),
        _ if schema["const"].is_string() => {
            format!("<code>{}</code>", escape(schema["const"].as_str().unwrap_or_default()))
        }
        _ if schema["anyOf"].is_array() => all(&schema["anyOf"]),
        _ if schema["oneOf"].is_array() => all(&schema["oneOf"]),
        _ => "any".to_owned(),
    }
}

/// The page of the docs that lists the codes, as `docs/errors.md` has it.
pub(super) fn errors_reference() -> String {
    let mut page = HEAD.to_owned();
    for code in codes::ALL {
        let _ = write!(page, "\n## {}\n\n{}. {}\n\n{}\n", code.name, statuses(code), code.means, code.remedy);
    }
    page
}

const HEAD: &str = "# Errors\n\nEvery error answer is `application/problem+json` (RFC 9457):\n\n```json\n\
    {\"type\":\"/docs/errors/not_found\",\"status\":404,\"code\":\"not_found\",\"title\":\"Not Found\",\"detail\":\"there is nothing here\"}\n```\n\n\
    `code` is stable: programs go by it. `detail` is for people, says what to do, and may change. `type` leads to the page of the code, which the\n\
    gateway serves itself, without a key. `errors` lists what is wrong by field, where there are fields. `Retry-After` says when to come again,\n\
    where that is of use. This page is made of the code's own list.\n";
