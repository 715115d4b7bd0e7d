//! The providers that are built in.

use std::sync::Arc;

use super::Provider;
use super::declared;
use super::discord::Discord;
use super::github::Github;
use super::hubspot::Hubspot;
use super::linear::Linear;
use super::mintlify::Mintlify;
use super::paypal::Paypal;
use super::sentry::Sentry;
use super::slack::Slack;
use super::sns::Sns;
use super::standard::Standard;
use super::stripe::Stripe;
use super::twilio::Twilio;
use super::twitter::Twitter;

/// Every provider that a source can have by its type alone, in the order in which they are listed. `generic` is none of
/// them: it is built from the keys of its source.
pub fn built_in() -> Vec<Arc<dyn Provider>> {
    let mut all: Vec<Arc<dyn Provider>> = vec![
        Arc::new(Github),
        Arc::new(Sentry),
        Arc::new(Linear::default()),
        Arc::new(Mintlify),
        Arc::new(Slack::default()),
        Arc::new(Discord::default()),
        Arc::new(Twitter),
        Arc::new(Stripe::default()),
        Arc::new(Standard::default()),
        Arc::new(Twilio),
        Arc::new(Hubspot::default()),
        Arc::new(Sns::default()),
        Arc::new(Paypal::default()),
    ];
    all.extend(declared::providers().map(|provider| provider as Arc<dyn Provider>));
    all
}
