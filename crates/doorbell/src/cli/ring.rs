//! `doorbell ring`: plays a provider, with signed samples.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use doorbell_client::api::Receipt;
use doorbell_client::{Answer, EventQuery, Sender, Sent};
use doorbell_core::provider::{Provider, Sample, Signed, find_sample};
use doorbell_core::source::Source;

pub(super) use self::report::Expectation;
pub(super) use self::signing::Signer;
use self::target::{choose, is_url};
use super::completions;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{self, Table};
use super::providers::all_of;
use super::random;
use crate::config::{Config, is_named};

mod report;
mod signing;
mod target;
mod volley;

/// Send a gateway what a provider would send: a sample, signed with the source's own secret
///
/// Without an event, it lists the provider's samples.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RingArgs {
    /// The provider to play, e.g. `github`, or the source to ring by its name
    #[arg(value_name = "PROVIDER|SOURCE", add = completions::provider_names())]
    provider: String,
    /// The event to send: `issues.opened`, or `issues` for the first sample of it
    #[arg(add = completions::samples())]
    event: Option<String>,
    /// The source to send it to, or a URL [default: the project's only source of that provider]
    #[arg(long, value_name = "SOURCE|URL", add = completions::sources())]
    to: Option<String>,
    /// Send this body instead of the sample's
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Change the delivery after it was signed: it works if the gateway refuses it
    #[arg(long, conflicts_with = "unsigned")]
    tamper: bool,
    /// Leave the signature out: it works if the gateway refuses it
    #[arg(long)]
    unsigned: bool,
    /// Sign it with a time that is too long ago: it works if the gateway refuses it
    #[arg(long, conflicts_with_all = ["tamper", "unsigned"])]
    stale: bool,
    /// How many to send, each with a delivery id of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
    /// How many a second, at most: `50`, or `50/s`
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<f64>,
    /// How many to wait for at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
}

const EXAMPLES: &str = "\
Examples:
  doorbell ring github                              list the samples
  doorbell ring github issues.opened
  doorbell ring github push --file body.json --to acme-github
  doorbell ring github issues.opened --tamper       see that it is refused
  doorbell ring standard invoice.paid --stale       see that a replay is refused
  doorbell ring github issues.opened --count 1000 --rate 200/s";

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    let rate = number.parse::<f64>().ok().filter(|rate| (0.001..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| "not a number of deliveries a second, like 50 or 0.5/s".to_owned())
}

/// A delivery that can be sent again and again.
#[derive(Debug)]
struct Bell {
    signer: Signer,
    expectation: Expectation,
}

pub(super) async fn run(context: &Context, args: RingArgs) -> anyhow::Result<ExitCode> {
    let Some(event) = &args.event else {
        if let Some(option) = sends(&args) {
            let message =
                format!("{option} is about what is sent, and no EVENT says what: without one, samples are listed");
            let hint =
                format!("`doorbell ring {}` lists them; with --file, any name of an event will do", args.provider);
            return Err(Failure::usage(message).hint(hint).into());
        }
        list(context, &args.provider)?;
        return Ok(ExitCode::SUCCESS);
    };
    let config = context.config().inspect_err(|_| {
        output::note("ring signs with the secrets of the project's files; a gateway that runs goes on with what was in force before");
    })?;
    let source = choose(&config.sources, &args.provider, args.to.as_deref())?;
    let url = url(context, source, args.to.as_deref())?;
    let sender = Sender::new(&url)?;
    let bell = Bell::new(Arc::clone(source), event, &args, seen_as(context, &config, &url))?;
    if args.count == 1 {
        let signed = bell.next();
        let sent = sender.post(&signed.headers, signed.body.clone()).await;
        let sent = sent.map_err(|error| explain(error.into(), args.to.as_deref()))?;
        let here = !args.to.as_deref().is_some_and(is_url);
        let became = if here && is_in_its_words(&sent) { became(context, &bell, signed).await } else { None };
        let code = report::one(context, bell.expectation, &sent, became.as_ref(), bell.signer.handshake())?;
        hint(&bell, args.to.as_deref(), sent.status);
        return Ok(code);
    }
    let before = if args.to.as_deref().is_some_and(is_url) { None } else { dropped(context).await };
    let result = volley::fire(&bell, &sender, args.count, usize::from(args.concurrency), args.rate).await?;
    let code = report::many(context, bell.expectation, &result)?;
    if bell.expectation != Expectation::Accepted && result.unauthorized == 0 && result.accepted > 0 {
        hint(&bell, args.to.as_deref(), 200);
    }
    if let (Some(before), Some(after)) = (before, dropped(context).await) {
        report::drops(&before, &after);
    }
    Ok(code)
}

/// An option that only makes sense where something is sent.
fn sends(args: &RingArgs) -> Option<&'static str> {
    let given = [
        ("--file", args.file.is_some()),
        ("--to", args.to.is_some()),
        ("--tamper", args.tamper),
        ("--unsigned", args.unsigned),
        ("--stale", args.stale),
        ("--count", args.count > 1),
        ("--rate", args.rate.is_some()),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
}

/// What explains an answer that may surprise.
fn hint(bell: &Bell, to: Option<&str>, status: u16) {
    let source = bell.signer.source.name();
    if bell.expectation != Expectation::Accepted && bell.signer.source.keys().is_empty() && (200..300).contains(&status)
    {
        output::note(format!(
            "hint: source `{source}` has `allow_unsigned = true`: nothing that is sent to it is refused for its signature"
        ));
    }
    if status == 404 && to.is_some_and(is_url) {
        output::note(
            "hint: nothing takes deliveries at that URL: `doorbell sources` prints those of the project's sources",
        );
    }
}

/// How many runs of each agent were dropped so far; none if the gateway does not say.
async fn dropped(context: &Context) -> Option<BTreeMap<String, u64>> {
    let stats = context.client().ok()?.stats().await.ok()?;
    Some(stats.agents.into_iter().map(|agent| (agent.name, agent.dropped)).collect())
}

fn list(context: &Context, name: &str) -> anyhow::Result<()> {
    let all = all_of(context);
    let of_source = || Some(context.config().ok()?.sources.get(name)?.shared_provider());
    let found = all.iter().find(|provider| is_named(provider.as_ref(), name)).cloned().or_else(of_source);
    let Some(provider) = found else {
        return Err(Failure::usage(format!("there is no provider `{name}`")).hint(known(&all)).into());
    };
    if context.json {
        let samples = provider.samples().iter();
        let samples = samples.map(|sample| serde_json::json!({"event": sample.event, "about": sample.about}));
        return output::json(&serde_json::json!({"samples": samples.collect::<Vec<_>>()}));
    }
    let mut table = Table::new(&["EVENT", "WHAT IT SHOWS"]).wrapping_last();
    provider.samples().iter().for_each(|sample| table.row([&*sample.event, &*sample.about]));
    Ok(table.print()?)
}

fn known(all: &[Arc<dyn Provider>]) -> String {
    let mut names: Vec<&str> = all.iter().map(|provider| provider.name()).collect();
    names.sort_unstable();
    format!("there are: {}", names.join(", "))
}

fn url(context: &Context, source: &Source, to: Option<&str>) -> anyhow::Result<String> {
    match to.filter(|to| is_url(to)) {
        Some(url) => Ok(url.to_owned()),
        None => {
            let gateway = context.senders_url()?;
            Ok(format!("{gateway}/v1/webhooks/{}/{}", source.provider().name(), source.name()))
        }
    }
}

/// The URL that the gateway takes a delivery to `url` to be for: by its public name, which some protocols sign. A URL
/// that leads elsewhere is taken as it is.
fn seen_as(context: &Context, config: &Config, url: &str) -> String {
    let Some(public) = &config.gateway.public_url else { return url.to_owned() };
    let here = context.senders_url().ok().filter(|_| context.asks_the_project());
    match here.and_then(|here| url.strip_prefix(here.as_str()).map(str::to_owned)) {
        Some(path) if path.starts_with('/') => format!("{public}{path}"),
        _ => url.to_owned(),
    }
}

/// A URL that was named is not the project's gateway, so nothing is to be said about that one.
fn explain(error: anyhow::Error, to: Option<&str>) -> anyhow::Error {
    match error.downcast_ref::<doorbell_client::Error>() {
        Some(doorbell_client::Error::Unreachable { .. }) if to.is_some_and(is_url) => {
            Failure::new(Exit::Unreachable, format!("{error:#}")).into()
        }
        _ => error,
    }
}

/// The body in a file; `-` is standard input, as elsewhere.
fn read_body(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return std::fs::read(path);
    }
    let mut body = Vec::new();
    io::stdin().lock().read_to_end(&mut body)?;
    Ok(body)
}

impl Bell {
    fn new(source: Arc<Source>, event: &str, args: &RingArgs, url: String) -> anyhow::Result<Self> {
        let samples = source.provider().samples();
        let sample = find_sample(samples, event);
        let body = match (&args.file, sample) {
            (Some(path), _) => read_body(path).with_context(|| format!("cannot read {}", path.display()))?.into(),
            (None, Some(sample)) => Bytes::from(sample.body.to_string()),
            (None, None) => return Err(no_sample(source.provider(), samples, event).into()),
        };
        // With a body of one's own, the event is what was said: `issues` needs no action.
        let event = sample.filter(|_| args.file.is_none()).map_or(event, |sample| &*sample.event).to_owned();
        let expectation = match () {
            () if args.tamper => Expectation::TamperedIsRefused,
            () if args.unsigned => Expectation::UnsignedIsRefused,
            () if args.stale => Expectation::StaleIsRefused,
            () => Expectation::Accepted,
        };
        if args.stale && source.provider().tolerance().is_none() {
            let message = format!("`{}` signs no time, so no delivery of it is too old", source.provider().name());
            return Err(Failure::usage(message).hint("one that was sent before is recognised by its id").into());
        }
        let key = signing::key_of(&source)?;
        let signer = Signer { source, key, event, body, url };
        if !args.unsigned {
            signer.check(expectation)?;
        }
        Ok(Self { signer, expectation })
    }

    /// A delivery of its own.
    fn next(&self) -> Signed {
        self.signer.sign(self.expectation, &random::uuid())
    }

    /// Sends it once, as a delivery of its own.
    async fn ring(&self, sender: &Sender) -> anyhow::Result<Sent> {
        let signed = self.next();
        Ok(sender.post(&signed.headers, signed.body).await?)
    }
}

/// Whether it was taken, and answered in the words of its protocol, which say nothing of the event.
fn is_in_its_words(sent: &Sent) -> bool {
    (200..300).contains(&sent.status) && matches!(sent.answer, Answer::Other(_))
}

/// The newest events of a source that are looked through for the one that was rung.
const MOST_LOOKED_AT: u32 = 50;

/// What the project's gateway made of a delivery, which its protocol's own answer does not say; none if nobody knows.
async fn became(context: &Context, bell: &Bell, signed: Signed) -> Option<Receipt> {
    let source = &bell.signer.source;
    let read = source.provider().read(&bell.signer.delivery(signed)).ok()?;
    let delivery_id = read.into_iter().next()?.delivery_id?;
    let query =
        EventQuery { source: Some(source.name().to_owned()), limit: Some(MOST_LOOKED_AT), ..EventQuery::default() };
    let events = context.client().ok()?.events(&query).await.ok()?.events;
    let event = events.into_iter().find(|event| event.delivery_id.as_ref() == Some(&delivery_id))?;
    Some(Receipt {
        received: true,
        delivery_id: event.id,
        event: event.event_type,
        runs: event.outcomes.into_iter().filter_map(|outcome| outcome.run_id).collect(),
        duplicate: event.duplicates > 0,
        deliveries: Vec::new(),
    })
}

fn no_sample(provider: &dyn Provider, samples: &[Sample], event: &str) -> Failure {
    let known = samples.iter().map(|sample| &*sample.event).collect::<Vec<_>>().join(", ");
    Failure::usage(format!("`{}` has no sample `{event}`", provider.name()))
        .hint(format!("give a body with --file, or choose one of: {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!(parse_rate("50/s"), Ok(50.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for wrong in ["", "0", "-1", "NaN", "inf", "1/m", "fast"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
