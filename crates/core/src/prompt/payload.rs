//! The body of an event as templates see it: parsed within bounds, whoever sent it.

use std::cell::Cell;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Audience, LONGEST_LIST, TemplateError};

/// Values, each field and each entry of a list, that are read. A value may take half a kilobyte of memory that took two bytes in the
/// body.
const MOST_VALUES: usize = 50_000;

/// The body, if it is JSON; null if it is not.
///
/// # Errors
/// If there is too much in it.
pub(super) fn read(body: &str, audience: Audience) -> Result<Value, TemplateError> {
    let left = Cell::new(MOST_VALUES);
    let mut json = serde_json::Deserializer::from_str(body);
    match (Reader { audience, left: &left }).deserialize(&mut json) {
        Ok(value) if json.end().is_ok() => Ok(value),
        Err(_) if left.get() == 0 => {
            let message = format!(
                "the body has more than {MOST_VALUES} values, which is too many for `event.payload`: use \
                 `event.context`, or have the agent read the file that DOORBELL_EVENT_FILE names"
            );
            Err(TemplateError { message, line: None })
        }
        _ => Ok(Value::Null),
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    audience: Audience,
    /// Values that may still come.
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(D::Error::custom("too many values")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(self.audience.text(text).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
            if self.audience == Audience::Model && values.len() == LONGEST_LIST {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        // Whoever sends it chooses the names, too.
        while let Some(name) = map.next_key::<String>()? {
            fields.insert(self.audience.text(&name), map.next_value_seed(self)?);
        }
        Ok(fields.into())
    }
}
