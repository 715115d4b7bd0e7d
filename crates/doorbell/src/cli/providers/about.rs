//! What is known of a provider, in one piece: for people, for scripts and for the documents.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use doorbell_core::delivery::Delivery;
use doorbell_core::event::Event;
use doorbell_core::provider::{Provider, Sample, Unsent};
use doorbell_core::source::{Dedup, Source};
use doorbell_core::time::Timestamp;
use doorbell_core::verify;
use http::{HeaderMap, Method};
use serde::Serialize;

/// What is known of a provider.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct About {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) title: String,
    credential: CredentialShown,
    methods: Vec<String>,
    pub(super) tolerance_seconds: Option<u64>,
    pub(super) filters: Vec<FilterShown>,
    identity: String,
    setup: String,
    /// How the maker writes names of events, and how they are written here.
    names: Vec<Named>,
    samples: Vec<SampleShown>,
}

/// A name of an event as its maker writes it, and as it is here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    makers: String,
    here: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CredentialShown {
    #[serde(rename = "type")]
    kind: String,
    field: String,
    /// The field of a test key to ring with.
    signing_field: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FilterShown {
    pub(super) name: String,
    context: Vec<String>,
    only_for: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SampleShown {
    event: String,
    about: String,
    /// As it is read.
    types: Vec<String>,
    handshake: bool,
    /// What it is answered, where its protocol wants an answer of its own.
    answer: Option<String>,
    /// What filters and prompts have of it.
    context: serde_json::Value,
}

/// What the example's agent does: something that needs no account, and shows what an agent is given.
const RUNTIME: &str = "
[runtime]
type = \"command\"
command = [\"cat\"]           # prints the prompt that an agent gets; for one, in place of both lines: preset = \"claude\"
";

impl About {
    pub(in crate::cli) fn new(provider: &Arc<dyn Provider>) -> Self {
        let (guide, credential) = (provider.guide(), provider.credential());
        let texts = |list: &[std::borrow::Cow<'static, str>]| list.iter().map(ToString::to_string).collect();
        let filters = provider.filters().iter().map(|field| FilterShown {
            name: field.name.to_string(),
            context: texts(&field.context),
            only_for: texts(&field.only_for),
        });
        Self {
            name: provider.name().to_owned(),
            aliases: texts(provider.aliases()),
            title: guide.title.into_owned(),
            credential: CredentialShown {
                kind: credential.name.into_owned(),
                field: credential.field.into_owned(),
                signing_field: provider.signing_field().map(str::to_owned),
            },
            methods: provider.methods().iter().map(ToString::to_string).collect(),
            tolerance_seconds: provider.tolerance().map(|tolerance| tolerance.as_secs()),
            filters: filters.collect(),
            identity: guide.identity.trim().to_owned(),
            setup: guide.setup.trim().to_owned(),
            names: provider.samples().iter().filter_map(|sample| name_of(provider, sample)).collect(),
            samples: provider.samples().iter().map(|sample| show_sample(provider, sample)).collect(),
        }
    }

    /// `github_webhook_secret`, or with a field that is not the usual one `discord_bot (public_key)`.
    pub(super) fn credential_in_words(&self) -> String {
        match self.credential.field.as_str() {
            "secret" => self.credential.kind.clone(),
            field => format!("{} ({field})", self.credential.kind),
        }
    }

    /// The URL of an example's source.
    fn url_of(&self, source: &str) -> String {
        format!("https://hooks.example.com/v1/webhooks/{}/{source}", self.name)
    }

    /// The steps, with an example's URL and credential in them.
    fn setup_of(&self, source: &str) -> String {
        let url = self.url_of(source);
        self.setup.replace("{url}", &url).replace("{secret}", &format!("{}:{source}", self.credential.kind))
    }

    /// What of the example is the reader's own.
    fn yours(&self, source: &str) -> String {
        format!(
            "`{source}` and `{}` are examples: choose a name for the source; `doorbell sources` prints the URL that it \
             really has.",
            self.url_of(source)
        )
    }

    /// How a secret is kept.
    fn command(&self, source: &str) -> String {
        match self.credential.field.as_str() {
            "secret" => format!("doorbell creds add {}:{source}", self.credential.kind),
            field => format!("doorbell creds add {}:{source} --field {field}", self.credential.kind),
        }
    }

    /// A source and an agent that can be copied: as they stand, a project that works.
    fn example(&self, source: &str) -> String {
        let mut text = format!(
            "# config.toml\n[webhooks.{source}]\ntype = \"{}\"\ncredential = \"{source}\"\n\n# agents/triage/config.toml\n\
             [[webhooks]]\nsource = \"{source}\"\n",
            self.name
        );
        let by_event = self.filters.iter().find(|filter| filter.context.iter().any(|field| field == "event"));
        let sample = self.samples.iter().find(|sample| !sample.handshake);
        if let (Some(filter), Some(sample)) = (by_event, sample) {
            let _ = writeln!(text, "{} = [\"{}\"]", filter.name, sample.name_of(&self.name));
        }
        text.push_str(RUNTIME);
        text
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("Type", self.name.clone())];
        if !self.aliases.is_empty() {
            facts.push(("Also called", self.aliases.join(", ")));
        }
        facts.push(("Credential", self.credential_in_words()));
        if let Some(field) = &self.credential.signing_field {
            facts.push(("Test key", format!("its field `{field}`, to ring with")));
        }
        facts.push(("Methods", self.methods.join(", ")));
        facts.push(match self.tolerance_seconds {
            Some(seconds) => {
                ("Signs a time", format!("yes; `tolerance` is {seconds} s unless the source says another"))
            }
            None => ("Signs a time", "no".to_owned()),
        });
        facts
    }

    /// For the terminal.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{}\n\n", self.title);
        for (name, value) in self.facts() {
            let _ = writeln!(text, "{name:<13} {}", value.replace('`', ""));
        }
        let _ = write!(
            text,
            "\nSet up\n\n{}\n\n{}\n\n{}\n",
            self.setup_of("acme").trim(),
            self.yours("acme"),
            self.identity
        );
        if !self.filters.is_empty() {
            text.push_str("\nFilters\n\n");
            for filter in &self.filters {
                let _ = writeln!(text, "  {:<16} {}", filter.name, filter.in_words(""));
            }
        }
        if let Some(names) = self.names_in_words() {
            let _ = write!(text, "\n{names}\n");
        }
        if !self.samples.is_empty() {
            text.push_str("\nSamples\n\n");
            for sample in &self.samples {
                let _ = writeln!(text, "  {:<32} {}", sample.event, sample.in_words(""));
            }
        }
        let _ = write!(text, "\nExample\n\n{}", self.example("acme"));
        text
    }

    /// A page of the documents.
    pub(in crate::cli) fn to_markdown(&self) -> String {
        let mut page = format!(
            "# {}\n\n<!-- Generated by `doorbell reference providers`: change the provider, not this page. -->\n\n",
            self.title
        );
        page.push_str("| | |\n|---|---|\n");
        for (name, value) in self.facts() {
            let value = if value.contains('`') || name == "Signs a time" { value } else { format!("`{value}`") };
            let _ = writeln!(page, "| {name} | {value} |");
        }
        let _ = write!(page, "\n## Set it up\n\n{}\n\n{}\n", self.setup_of("acme").trim(), self.yours("acme"));
        let _ = write!(page, "\n```sh\n{}\n```\n\n```toml\n{}```\n", self.command("acme"), self.example("acme"));
        let _ = write!(page, "\n## What is signed, and what is the same event\n\n{}\n", self.identity);
        if !self.filters.is_empty() {
            page.push_str("\n## Filters\n\n| filter | held against |\n|---|---|\n");
            for filter in &self.filters {
                let _ = writeln!(page, "| `{}` | {} |", filter.name, filter.in_words("`"));
            }
        }
        if let Some(names) = self.names_in_words() {
            let _ = write!(page, "\n{names}\n");
        }
        if let Some(first) = self.samples.first() {
            page.push_str("\n## Samples\n\n| sample | what it shows |\n|---|---|\n");
            for sample in &self.samples {
                let _ = writeln!(page, "| `{}` | {} |", sample.event, sample.in_words("`").replace('|', "\\|"));
            }
            let _ = write!(page, "\n```sh\ndoorbell ring {} {}\n```\n", self.name, first.event);
            let context = serde_json::to_string_pretty(&first.context).unwrap_or_default();
            let _ = write!(page, "\nWhat filters and prompts have of `{}`:\n\n```json\n{context}\n```\n", first.event);
        }
        page
    }

    /// How names are spelled here, by examples that are spelled otherwise by their maker.
    fn names_in_words(&self) -> Option<String> {
        let other: Vec<String> =
            self.names.iter().map(|Named { makers, here }| format!("`{makers}` is `{here}`")).collect();
        let shown = other[..other.len().min(3)].join(", ");
        (!other.is_empty()).then(|| format!("{} writes names of events otherwise: {shown} here.", self.title))
    }

    /// Its line in the index of the documents.
    pub(in crate::cli) fn to_row(&self) -> String {
        let time = if self.tolerance_seconds.is_some() { "yes" } else { "" };
        format!("| [{}]({}.md) | `{}` | `{}` | {time} |", self.title, self.name, self.name, self.credential.kind)
    }

    pub(in crate::cli) fn name(&self) -> &str {
        &self.name
    }
}

impl FilterShown {
    fn in_words(&self, mark: &str) -> String {
        let list = |names: &[String]| names.iter().map(|name| format!("{mark}{name}{mark}")).collect::<Vec<_>>();
        let fields = list(&self.context).join(" or ");
        match self.only_for.is_empty() {
            true => fields,
            false => format!("{fields}; of {} only, others pass it", list(&self.only_for).join(", ")),
        }
    }
}

impl SampleShown {
    fn in_words(&self, mark: &str) -> String {
        let mut text = self.about.clone();
        if self.handshake {
            text.push_str("; a handshake: it starts only agents that name it");
        }
        if let Some(answer) = &self.answer {
            let _ = write!(text, "; answered with {mark}{answer}{mark}");
        }
        text
    }

    /// As a trigger names it: `issues.opened`.
    fn name_of(&self, provider: &str) -> String {
        let read = self.types.first().and_then(|kind| kind.strip_prefix(provider)?.strip_prefix('.'));
        read.unwrap_or(&self.event).to_owned()
    }
}

fn show_sample(provider: &Arc<dyn Provider>, sample: &Sample) -> SampleShown {
    let events = read_unsigned(provider, sample);
    let first = events.first();
    let answer = first.and_then(|event| provider.answer(event, true));
    SampleShown {
        event: sample.event.to_string(),
        about: sample.about.to_string(),
        types: events.iter().map(Event::event_type).collect(),
        handshake: first.is_some_and(Event::is_handshake),
        answer: answer.map(|answer| {
            let body = String::from_utf8_lossy(&answer.body).trim().to_owned();
            format!("{} {body}", answer.status.as_u16()).trim().to_owned()
        }),
        context: first.map_or_else(
            || serde_json::Value::Null,
            |event| {
                let fields = event.context().iter().map(|(name, value)| (name, serde_json::to_value(value).ok()));
                serde_json::to_value(fields.collect::<BTreeMap<_, _>>()).unwrap_or_default()
            },
        ),
    }
}

/// How the maker writes the name of a sample's event, where that is another one.
fn name_of(provider: &Arc<dyn Provider>, sample: &Sample) -> Option<Named> {
    let events = read_unsigned(provider, sample);
    let event = events.first().filter(|event| !event.is_handshake())?;
    let makers = provider.makers_name(event.delivery())?;
    let here = event.event_type().strip_prefix(provider.name())?.strip_prefix('.')?.to_owned();
    (makers != here).then_some(Named { makers, here })
}

/// What a sample says to a source that checks nothing.
fn read_unsigned(provider: &Arc<dyn Provider>, sample: &Sample) -> Vec<Event> {
    let url = "https://hooks.example.com/";
    // A time of its own, so that what is generated stays the same.
    let now = Timestamp::from_seconds(1_790_000_000);
    let body = sample.body.to_string();
    let signed = provider.sign(None, Unsent { url, ..Unsent::new(&sample.event, body, "sample", now) });
    let headers = signed.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    let delivery = Delivery {
        method: Method::POST,
        url: url.to_owned(),
        headers: headers.collect::<HeaderMap>(),
        body: signed.body,
        received_at: now,
        certificate: None,
    };
    let source = Source::new("sample", Arc::clone(provider), Vec::new(), true, Dedup::Id);
    let Ok(source) = source else { return Vec::new() };
    let verified = verify::verify(&Arc::new(source), &Arc::new(delivery));
    verified.ok().and_then(|verified| Event::read(&verified).ok()).unwrap_or_default()
}
