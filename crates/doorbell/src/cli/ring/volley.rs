//! Many deliveries, and what became of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use doorbell_client::{Answer, Sender, Sent};
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tokio::time::Instant;

use super::Bell;

/// What became of many deliveries.
#[derive(Debug, Default)]
pub(super) struct Volley {
    /// New events.
    pub(super) accepted: u64,
    /// Of events that were there already.
    pub(super) duplicate: u64,
    /// Refused with 401: what a tampered delivery should be.
    pub(super) unauthorized: u64,
    /// Refused, 401 included.
    pub(super) rejected: u64,
    /// Without an answer.
    pub(super) failed: u64,
    /// Why, and how often.
    pub(super) causes: BTreeMap<String, u64>,
    /// Of those that were answered, sorted.
    pub(super) latencies: Vec<Duration>,
    /// From the first one to the last answer.
    pub(super) took: Duration,
}

/// Different causes that are told apart.
const MOST_CAUSES: usize = 20;

/// Sends `count` deliveries, at most `rate` a second, and waits for at most `concurrency` answers at once.
pub(super) async fn fire(
    bell: &Bell,
    sender: &Sender,
    count: u64,
    concurrency: usize,
    rate: Option<f64>,
) -> anyhow::Result<Volley> {
    let bar = progress(count)?;
    let begun = Instant::now();
    let shots = futures_util::stream::iter(0..count).map(|number| async move {
        if let Some(rate) = rate {
            tokio::time::sleep_until(begun + Duration::from_secs_f64(number as f64 / rate)).await;
        }
        bell.ring(sender).await
    });
    let mut answers = std::pin::pin!(shots.buffer_unordered(concurrency));
    let mut volley = Volley::default();
    while let Some(answer) = answers.next().await {
        volley.count(answer);
        bar.inc(1);
    }
    bar.finish_and_clear();
    volley.took = begun.elapsed();
    volley.latencies.sort_unstable();
    Ok(volley)
}

/// On standard error, and only if that is a terminal.
fn progress(count: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len}  {rate}  {eta}")?;
    let rate = |state: &ProgressState, text: &mut dyn Write| {
        // Nothing keeps a text in memory from being written.
        let _ = write!(text, "{:.0}/s", state.per_sec());
    };
    Ok(ProgressBar::new(count).with_style(style.with_key("rate", rate)))
}

impl Volley {
    fn count(&mut self, answer: anyhow::Result<Sent>) {
        let sent = match answer {
            Ok(sent) => sent,
            Err(error) => {
                self.failed += 1;
                return self.cause(format!("{error:#}"));
            }
        };
        self.latencies.push(sent.latency);
        match sent.answer {
            Answer::Receipt(receipt) if receipt.duplicate => self.duplicate += 1,
            _ if (200..300).contains(&sent.status) => self.accepted += 1,
            answer => {
                self.rejected += 1;
                self.unauthorized += u64::from(sent.status == 401);
                match answer {
                    Answer::Problem(problem) => self.cause(format!("{} {}", sent.status, problem.code)),
                    _ => self.cause(sent.status.to_string()),
                }
            }
        }
    }

    fn cause(&mut self, cause: String) {
        let known = self.causes.len() < MOST_CAUSES || self.causes.contains_key(&cause);
        *self.causes.entry(if known { cause } else { "others".to_owned() }).or_default() += 1;
    }

    /// The latency that `percent` of the answered deliveries did not exceed.
    pub(super) fn percentile(&self, percent: u32) -> Duration {
        percentile(&self.latencies, percent)
    }
}

/// By nearest rank; zero of nothing.
fn percentile(sorted: &[Duration], percent: u32) -> Duration {
    let rank = (sorted.len() * percent as usize).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use doorbell_client::api::{Problem, Receipt};

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let hundred = (1..=100).map(Duration::from_millis).collect::<Vec<_>>();
        for (percent, millis) in [(0, 1), (50, 50), (90, 90), (99, 99), (100, 100)] {
            assert_eq!(percentile(&hundred, percent), Duration::from_millis(millis), "p{percent}");
        }
        let two = [Duration::from_millis(1), Duration::from_millis(9)];
        assert_eq!((percentile(&two, 50), percentile(&two, 90)), (two[0], two[1]));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    fn sent(status: u16, answer: Answer) -> anyhow::Result<Sent> {
        Ok(Sent { status, answer, latency: Duration::from_millis(1) })
    }

    #[test]
    fn every_answer_counts_once() {
        let text = |text: &str| text.to_owned();
        let receipt = |duplicate| {
            let (delivery_id, event) = (text("evt_1"), text("github.push"));
            Answer::Receipt(Receipt { received: true, delivery_id, event, runs: vec![], duplicate, deliveries: vec![] })
        };
        let problem = |status| {
            Answer::Problem(Problem {
                kind: Box::default(),
                status,
                code: text("code"),
                title: text("t"),
                detail: text("d"),
                errors: Vec::new(),
            })
        };
        let mut volley = Volley::default();
        for answer in [
            sent(200, receipt(false)),
            sent(200, receipt(true)),
            sent(200, Answer::Other(text("ok"))),
            sent(401, problem(401)),
            sent(429, problem(429)),
            sent(502, Answer::Other(text("<html>"))),
            Err(anyhow::anyhow!("refused")),
        ] {
            volley.count(answer);
        }
        let counts = (volley.accepted, volley.duplicate, volley.rejected, volley.unauthorized, volley.failed);
        assert_eq!(counts, (2, 1, 3, 1, 1));
        let causes = volley.causes.into_iter().collect::<Vec<_>>();
        assert_eq!(causes, [(text("401 code"), 1), (text("429 code"), 1), (text("502"), 1), (text("refused"), 1)]);
    }

    #[test]
    fn causes_without_end_are_not_all_kept() {
        let mut volley = Volley::default();
        (0..1000).for_each(|n| volley.cause(n.to_string()));
        assert_eq!(volley.causes.len(), MOST_CAUSES + 1);
        assert_eq!(volley.causes.values().sum::<u64>(), 1000);
    }
}
