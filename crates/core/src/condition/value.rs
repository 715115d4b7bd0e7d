//! Values while an expression is evaluated. What comes from the event is borrowed from it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;

use super::types::Type;
use super::{Failure, Meter};

/// The longest value that a sentence shows, in characters.
const LONGEST_SHOWN: usize = 80;

#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text(Cow<'a, str>),
    List(List<'a>),
    Map(Map<'a>),
    Moment(Timestamp),
    Span(SignedDuration),
}

#[derive(Debug, Clone)]
pub(super) enum List<'a> {
    OfEvent(&'a [Json]),
    Made(Arc<[Value<'a>]>),
}

#[derive(Debug, Clone)]
pub(super) enum Map<'a> {
    OfEvent(&'a serde_json::Map<String, Json>),
    Made(Arc<[(Value<'a>, Value<'a>)]>),
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::OfEvent(list) => list.len(),
            Self::Made(list) => list.len(),
        }
    }

    pub(super) fn get(&self, place: usize) -> Option<Value<'a>> {
        match self {
            Self::OfEvent(list) => list.get(place).map(Value::of_json),
            Self::Made(list) => list.get(place).cloned(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|place| self.get(place))
    }
}

impl<'a> Map<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::OfEvent(map) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    pub(super) fn get(&self, key: &Value<'_>, meter: &mut Meter<'_>) -> Result<Option<Value<'a>>, Failure> {
        match self {
            Self::OfEvent(map) => match key {
                Value::Text(key) => Ok(map.get(key.as_ref()).map(Value::of_json)),
                _ => Ok(None),
            },
            Self::Made(map) => {
                for (own, value) in map.iter() {
                    if own.equals(key, meter)? {
                        return Ok(Some(value.clone()));
                    }
                }
                Ok(None)
            }
        }
    }

    pub(super) fn keys(&self) -> Box<dyn Iterator<Item = Value<'a>> + '_> {
        match self {
            Self::OfEvent(map) => Box::new(map.keys().map(|key| Value::text(key))),
            Self::Made(map) => Box::new(map.iter().map(|(key, _)| key.clone())),
        }
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// Whole numbers beyond 64 bits are decimal ones.
    pub(super) fn of_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Flag(*flag),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Self::Whole(whole),
                None => Self::Real(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::text(text),
            Json::Array(list) => Self::List(List::OfEvent(list)),
            Json::Object(map) => Self::Map(Map::OfEvent(map)),
        }
    }

    pub(super) fn kind(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Flag(_) => Type::Flag,
            Self::Whole(_) => Type::Whole,
            Self::Real(_) => Type::Real,
            Self::Text(_) => Type::Text,
            Self::List(_) => Type::List,
            Self::Map(_) => Type::Map,
            Self::Moment(_) => Type::Moment,
            Self::Span(_) => Type::Span,
        }
    }

    /// Whether both are the same; values of different types are not, but numbers are compared as numbers.
    pub(super) fn equals(&self, other: &Value<'_>, meter: &mut Meter<'_>) -> Result<bool, Failure> {
        meter.spend(1)?;
        Ok(match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Flag(a), Value::Flag(b)) => a == b,
            (Self::Text(a), Value::Text(b)) => {
                meter.spend_on_text(a.len().min(b.len()))?;
                a == b
            }
            (Self::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(&b, meter)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Map(a), Value::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for key in a.keys() {
                    match (a.get(&key, meter)?, b.get(&key, meter)?) {
                        (Some(a), Some(b)) if a.equals(&b, meter)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Self::Moment(a), Value::Moment(b)) => a == b,
            (Self::Span(a), Value::Span(b)) => a == b,
            _ => numbers(self, other) == Some(Ordering::Equal),
        })
    }

    /// How both are ordered; none if they are not.
    pub(super) fn order(&self, other: &Value<'_>, meter: &mut Meter<'_>) -> Result<Option<Ordering>, Failure> {
        Ok(match (self, other) {
            (Self::Flag(a), Value::Flag(b)) => Some(a.cmp(b)),
            (Self::Text(a), Value::Text(b)) => {
                meter.spend_on_text(a.len().min(b.len()))?;
                Some(a.cmp(b))
            }
            (Self::Moment(a), Value::Moment(b)) => Some(a.cmp(b)),
            (Self::Span(a), Value::Span(b)) => Some(a.cmp(b)),
            _ => numbers(self, other),
        })
    }
}

fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Whole(a), Value::Whole(b)) => Some(a.cmp(b)),
        (Value::Real(a), Value::Real(b)) => a.partial_cmp(b),
        (Value::Whole(a), Value::Real(b)) => mixed(*a, *b),
        (Value::Real(a), Value::Whole(b)) => mixed(*b, *a).map(Ordering::reverse),
        _ => None,
    }
}

/// A whole number against a decimal one, exactly: not every whole number is a decimal one of 64 bits.
fn mixed(whole: i64, real: f64) -> Option<Ordering> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if real.is_nan() {
        None
    } else if real >= BEYOND {
        Some(Ordering::Less)
    } else if real < -BEYOND {
        Some(Ordering::Greater)
    } else {
        // What is cut off decides if the rest is equal.
        let cut = real.trunc();
        Some(whole.cmp(&(cut as i64)).then_with(|| 0.0f64.partial_cmp(&(real - cut)).unwrap_or(Ordering::Equal)))
    }
}

/// As a sentence shows it: short, and a list or map by its size if it is long.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
            Self::Text(text) => match text.char_indices().nth(LONGEST_SHOWN) {
                Some((end, _)) => write!(f, "{:?}…", &text[..end]),
                None => write!(f, "{text:?}"),
            },
            Self::List(list) => match list {
                List::OfEvent(list) if list.len() <= 8 && short(list) => write!(f, "{}", Json::from(list.to_vec())),
                _ => write!(f, "a list of {}", list.len()),
            },
            Self::Map(map) => write!(f, "a map of {}", map.len()),
            Self::Moment(moment) => moment.fmt(f),
            Self::Span(span) => write!(f, "{span:#}"),
        }
    }
}

/// Whether all of these fit on a line.
fn short(list: &[Json]) -> bool {
    list.iter().all(|value| match value {
        Json::String(text) => text.len() <= LONGEST_SHOWN / 2,
        Json::Array(_) | Json::Object(_) => false,
        _ => true,
    })
}
