//! Ids: a prefix that says what it names, and 128 time-ordered bits as 26 Crockford base32 characters.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Timestamp;

/// What an [`Id`] names.
pub trait Kind {
    /// The text before the underscore: three letters.
    const PREFIX: &'static str;
}

/// A time-ordered id of one kind of thing.
pub struct Id<K>(u128, PhantomData<fn() -> K>);

/// Marker of [`EventId`].
#[derive(Debug)]
pub enum OfEvent {}
/// Marker of [`RunId`].
#[derive(Debug)]
pub enum OfRun {}
/// Marker of the ids `ntf_…`: one message to one receiver.
#[derive(Debug)]
pub enum OfNotification {}
/// Marker of [`KeyId`].
#[derive(Debug)]
pub enum OfKey {}
/// Marker of [`ReplayId`].
#[derive(Debug)]
pub enum OfReplay {}
/// Marker of [`WebhookId`].
#[derive(Debug)]
pub enum OfWebhook {}
/// Marker of [`SubscriptionId`].
#[derive(Debug)]
pub enum OfSubscription {}

impl Kind for OfEvent {
    const PREFIX: &'static str = "evt";
}
impl Kind for OfRun {
    const PREFIX: &'static str = "run";
}
impl Kind for OfNotification {
    const PREFIX: &'static str = "ntf";
}
impl Kind for OfKey {
    const PREFIX: &'static str = "key";
}
impl Kind for OfReplay {
    const PREFIX: &'static str = "rpl";
}
impl Kind for OfWebhook {
    const PREFIX: &'static str = "whk";
}
impl Kind for OfSubscription {
    const PREFIX: &'static str = "sub";
}

/// `evt_…`: a stored event.
pub type EventId = Id<OfEvent>;
/// `run_…`: one piece of work for one agent.
pub type RunId = Id<OfRun>;
/// `key_…`: an API key (its public name, not the key).
pub type KeyId = Id<OfKey>;
/// `rpl_…`: events that are carried out once more.
pub type ReplayId = Id<OfReplay>;
/// `whk_…`: a webhook that was made at run time.
pub type WebhookId = Id<OfWebhook>;
/// `sub_…`: a subscription of MCP Events. It is no time-ordered one: the same wish has the same id.
pub type SubscriptionId = Id<OfSubscription>;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH: usize = 26;

/// What a digit of the alphabet stands for, in either case.
pub(crate) fn digit(byte: u8) -> Option<usize> {
    ALPHABET.iter().position(|known| *known == byte.to_ascii_uppercase())
}

impl<K> Id<K> {
    /// 48 bits of milliseconds, then 80 random bits, as a ULID has them (<https://github.com/ulid/spec>).
    pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
        let millis = u128::try_from(at.as_millis()).unwrap_or(0) & 0xFFFF_FFFF_FFFF;
        let random = random.iter().fold(0u128, |bits, byte| (bits << 8) | u128::from(*byte));
        Self((millis << 80) | random, PhantomData)
    }

    /// The id with these 16 bytes, as a store keeps it.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes), PhantomData)
    }

    /// The 16 bytes, in the order in which ids sort.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// The text is not an id of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected `{0}_` and 26 characters of 0-9 A-Z without I, L, O, U")]
pub struct InvalidId(&'static str);

impl<K: Kind> FromStr for Id<K> {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId(K::PREFIX);
        let digits = text.strip_prefix(K::PREFIX).and_then(|rest| rest.strip_prefix('_')).ok_or(invalid.clone())?;
        if digits.len() != LENGTH || digits.as_bytes()[0] > b'7' {
            return Err(invalid);
        }
        let mut bits = 0u128;
        for digit in digits.bytes() {
            let value = self::digit(digit).ok_or(invalid.clone())?;
            bits = (bits << 5) | value as u128;
        }
        Ok(Self(bits, PhantomData))
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written at once, so that a text is made of it in one piece.
        let mut text = [b'_'; 4 + LENGTH];
        text[..3].copy_from_slice(K::PREFIX.as_bytes());
        for (i, slot) in text[4..].iter_mut().enumerate() {
            *slot = ALPHABET[(self.0 >> (5 * (LENGTH - 1 - i))) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K: Kind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

// By hand, because a derive would ask the same of the marker.
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back_from_its_text(bytes: [u8; 16]) {
            let id = EventId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
            prop_assert_eq!(id.to_string().len(), 30);
        }

        #[test]
        fn no_text_makes_reading_an_id_panic(text: String) {
            let _ = text.parse::<RunId>();
        }
    }

    #[test]
    fn ids_sort_by_time_in_bytes_and_in_text() {
        let early = RunId::new(Timestamp::from_millis(1), [255; 10]);
        let late = RunId::new(Timestamp::from_millis(2), [0; 10]);
        assert!(early < late && early.to_bytes() < late.to_bytes() && early.to_string() < late.to_string());
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let event = EventId::new(Timestamp::from_millis(1), [7; 10]);
        assert!(event.to_string().parse::<RunId>().is_err());
        assert!("evt_".parse::<EventId>().is_err());
        assert!("evt_ZZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<EventId>().is_err(), "more than 128 bits");
    }
}
