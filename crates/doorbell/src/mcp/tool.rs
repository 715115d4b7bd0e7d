//! A tool: what is told of it, and how it is called.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool as Described, ToolAnnotations};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Desk;
use super::bounds::{brief, shorten};
use crate::ops::{self, Error, audit};

/// What a tool does to the world, so that people know what to let it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It only looks.
    Reads,
    /// It changes something here that can be changed back. Once more changes nothing more.
    Sets,
    /// It ends something. Once more changes nothing more.
    Ends,
    /// It makes something here, each time anew.
    Makes,
    /// It puts something new in the place of what was there, each time anew.
    Replaces,
    /// It starts agents, which act outside of the gateway.
    Starts,
}

impl Effect {
    fn annotations(self, title: &str) -> ToolAnnotations {
        let hints = ToolAnnotations::with_title(title).open_world(self == Self::Starts);
        match self {
            Self::Reads => hints.read_only(true),
            _ => hints
                .read_only(false)
                .destructive(matches!(self, Self::Ends | Self::Replaces))
                .idempotent(matches!(self, Self::Sets | Self::Ends)),
        }
    }

    /// In words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "only looks",
            Self::Sets => "changes something; doing it twice changes nothing more",
            Self::Ends => "ends something; doing it twice changes nothing more",
            Self::Makes => "makes something, each time anew",
            Self::Replaces => "puts something new in the place of what was there, each time anew",
            Self::Starts => "starts agents, each time anew",
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>;
type Call = Arc<dyn Fn(Desk, JsonObject) -> Answer + Send + Sync>;

/// A tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) effect: Effect,
    pub(super) input: Arc<JsonObject>,
    pub(super) output: Arc<JsonObject>,
    call: Call,
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tool {
    /// A tool that takes an `A` and answers an `R`. Its arguments and what it answers describe themselves.
    pub(super) fn new<A, R, F>(
        (name, title, effect): (&'static str, &'static str, Effect),
        description: &'static str,
        call: impl Fn(Desk, A) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Serialize + JsonSchema,
        F: Future<Output = Result<R, Error>> + Send + 'static,
    {
        let input = Arc::new(input_schema::<A>());
        let takes = Arc::clone(&input);
        let call: Call = Arc::new(move |desk, arguments| {
            let (call, takes) = (call.clone(), Arc::clone(&takes));
            Box::pin(async move {
                let wanted =
                    serde_json::from_value(Value::Object(arguments)).map_err(|error| misread(&error, &takes))?;
                let answer = call(desk, wanted).await?;
                // Whatever is answered has a JSON form: it is the API's.
                Ok(serde_json::to_value(&answer).unwrap_or_default())
            })
        });
        Self { name, title, description, effect, input, output: Arc::new(output_schema::<R>()), call }
    }

    /// As clients are told of it.
    pub(super) fn describe(&self) -> Described {
        Described::new(self.name, self.description, Arc::clone(&self.input))
            .with_title(self.title)
            .with_raw_output_schema(Arc::clone(&self.output))
            .with_annotations(self.effect.annotations(self.title))
    }

    /// Calls it. What could change something is noted in the audit log before it is done, and brought to its end also when the caller
    /// hangs up: in a task of its own.
    async fn noted(&self, desk: Desk, arguments: JsonObject) -> Result<Value, Error> {
        let (name, call) = (self.name, Arc::clone(&self.call));
        if self.effect == Effect::Reads {
            return call(desk, arguments).await;
        }
        let changed = ops::to_its_end(async move { note_change(name, &call, desk, arguments).await }).await;
        changed.unwrap_or_else(|| Err(Error::Conflict("closing", "the gateway shuts down".to_owned())))
    }

    /// What it answers; what it refuses is an answer, too, so that the agent reads why.
    pub(super) async fn call(&self, desk: Desk, arguments: JsonObject) -> CallToolResult {
        let by = desk.caller.name();
        match self.noted(desk, arguments).await {
            Ok(answer) => CallToolResult::structured(answer),
            Err(error) => {
                let (code, detail) = told(&error);
                tracing::debug!(tool = self.name, by, code, "mcp.refused");
                // No structured content: clients would hold it against the schema of what the tool answers.
                CallToolResult::error(vec![ContentBlock::text(format!("{code}: {detail}"))])
            }
        }
    }
}

async fn note_change(name: &str, call: &Call, desk: Desk, arguments: JsonObject) -> Result<Value, Error> {
    let app = Arc::clone(&desk.app);
    let target = target(&arguments);
    let change = desk.author.change(format!("MCP {name}"), target.clone());
    let seq = audit::begin(app.store.as_ref(), change).await?;
    let done = call(desk, arguments).await;
    match &done {
        Ok(answer) => audit::end_of_tool(app.store.as_ref(), seq, None, made(&target, answer)).await,
        Err(error) => audit::end_of_tool(app.store.as_ref(), seq, Some(error.tell().0), None).await,
    }
    done
}

/// What a call is about, as its arguments say: for the audit log, which has it as the path of the API's call has it.
fn target(arguments: &JsonObject) -> String {
    let named = ["agent", "id"].into_iter().filter_map(|key| arguments.get(key)?.as_str());
    named.collect::<Vec<_>>().join("/")
}

/// The same with what the call made, as its answer says.
fn made(target: &str, answer: &Value) -> Option<String> {
    let new = |key: &str| answer.get(key)?.as_str().filter(|id| !target.ends_with(id));
    let webhook = new("webhookId").map(|id| format!("{target}/{id}"));
    webhook.or_else(|| new("runId").map(|id| format!("{target}: {id}")))
}

/// What an agent is told of a refusal: the stable code, what happened and what to do.
pub(super) fn told(error: &Error) -> (&'static str, String) {
    let (code, detail) = error.tell();
    let hint = match error {
        Error::NotFound("event") => ", or it is not yours: events_list shows those that you can see",
        Error::NotFound("run") => ", or it is not yours: runs_list shows those that you can see",
        Error::NotFound("agent") => ", or it is not yours: agents_list shows those that you can see",
        Error::NotFound("source") => ", or it is not yours: sources_list shows those that you can see",
        Error::NotFound("webhook") => ", or it is not yours: webhooks_list shows those that you can see",
        Error::NotAllowed(_) => ". Ask a person to do it: trying again does not help",
        _ => "",
    };
    (code, format!("{}{hint}", super::bounds::shortened(&detail, 1000).unwrap_or(detail)))
}

/// Arguments that cannot be read: why, and what the tool takes.
fn misread(error: &serde_json::Error, takes: &JsonObject) -> Error {
    let error = error.to_string();
    let names = fields(takes).map(|(name, _, required)| format!("`{name}`{}", if required { "" } else { "?" }));
    let takes = names.collect::<Vec<_>>().join(", ");
    let takes = if takes.is_empty() { "nothing".to_owned() } else { takes };
    Error::Invalid(format!("the arguments cannot be read: {}. It takes {takes}", brief(&error)))
}

/// The fields of a schema, with what each is and whether it is required.
pub(super) fn fields(schema: &JsonObject) -> impl Iterator<Item = (&str, &Value, bool)> {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = move |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(move |(name, field)| (name.as_str(), field, is_required(name)))
}

fn input_schema<A: JsonSchema>() -> JsonObject {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<A>().to_value();
    tidy(&mut schema);
    without_null(&mut schema);
    object(schema)
}

fn output_schema<R: JsonSchema>() -> JsonObject {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<R>().to_value();
    tidy(&mut schema);
    say_less(&mut schema);
    object(schema)
}

fn object(schema: Value) -> JsonObject {
    let mut schema = match schema {
        Value::Object(schema) => schema,
        _ => JsonObject::new(),
    };
    // What our own types are called says nothing to anybody else.
    for of_ours in ["title", "description", "$schema"] {
        schema.remove(of_ours);
    }
    schema.entry("properties").or_insert_with(|| json!({}));
    schema
}

/// Takes away what only Rust knows: some clients refuse formats of numbers, or schemas that are no objects.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_of_numbers =
                |format: &str| ["int", "uint", "float", "double"].iter().any(|of| format.starts_with(of));
            if map.get("format").and_then(Value::as_str).is_some_and(is_of_numbers) {
                map.remove("format");
            }
            if let Some(Value::Object(properties)) = map.get_mut("properties") {
                properties.values_mut().filter(|field| field.is_boolean()).for_each(|field| *field = json!({}));
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// What need not be said may be left out; that it may be null as well confuses models and clients.
fn without_null(schema: &mut Value) {
    not_null(schema);
    let Value::Object(map) = schema else { return };
    map.values_mut().for_each(without_null);
}

fn not_null(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            map.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(one)] = choices.as_slice() {
            let one = one.clone();
            map.remove("anyOf");
            for (name, value) in one {
                map.entry(name).or_insert(value);
            }
        }
    }
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
}

/// Takes away what an answer's schema need not say, as the list of tools is read by every agent: what it would be by default, that
/// a count is not negative, what our own types are, and that what may be left out may be null: it is left out.
fn say_less(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("default");
    if map.get("minimum").and_then(Value::as_u64) == Some(0) {
        map.remove("minimum");
    }
    let required = map.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for (name, field) in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        if !required.iter().any(|one| one == name) {
            not_null(field);
        }
        say_less(field);
    }
    map.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten().for_each(say_less_of_type);
    map.get_mut("items").into_iter().for_each(say_less_of_type);
}

fn say_less_of_type(schema: &mut Value) {
    if let Value::Object(map) = schema {
        map.remove("description");
    }
    say_less(schema);
}

/// Cuts what an answer says in long texts. For texts that cannot be asked for in parts.
pub(super) fn cut<R: Serialize + DeserializeOwned>(answer: R) -> R {
    let Ok(mut value) = serde_json::to_value(&answer) else { return answer };
    shorten(&mut value);
    serde_json::from_value(value).unwrap_or(answer)
}
