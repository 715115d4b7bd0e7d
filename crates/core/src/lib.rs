//! The pure core of Doorbell: everything that decides, nothing that does.
//!
//! No I/O, no clock, no environment, no randomness: time, random bytes and secrets come in as arguments, decisions
//! go out as values. In reading order, which is also the way of an event:
//!
//! 1. [`delivery`]: one HTTP request as it was received;
//! 2. [`provider`]: what is known about each kind of sender;
//! 3. [`source`]: a named endpoint of a provider with its keys;
//! 4. [`verify`]: the only door from a delivery to a [`verify::Verified`];
//! 5. [`event`]: what a verified delivery says, named, keyed and described; [`moment`]: when its id says it was made;
//! 6. [`pattern`], [`condition`], [`trigger`], [`matcher`]: which agents want it, and why the others do not;
//! 7. [`flow`], [`run`], [`retry`], [`wait`], [`cause`]: what becomes of a piece of work;
//! 8. [`envelope`], [`prompt`], [`occurrence`]: what the agent is handed, or who subscribed;
//! 9. [`search`]: how people find it again.

pub mod cause;
pub mod condition;
pub mod delivery;
pub mod envelope;
pub mod event;
pub mod flow;
pub mod id;
pub mod matcher;
pub mod moment;
pub mod occurrence;
pub mod pattern;
pub mod prompt;
pub mod provider;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod search;
pub mod secret;
pub mod source;
pub mod time;
pub mod trigger;
pub mod verify;
pub mod wait;
