//! Bodies. Each is JSON, whatever its content type says: `curl -d` says another one. A page of somebody else's gains nothing by
//! that, as every request shows its key or lease itself.
//!
//! They are objects: derived readers would take a list for the fields in their order, and an empty one for a wish of which nothing is
//! said.

use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};

use crate::http::Shared;
use crate::http::error::Failure;

/// What was sent: an object.
#[derive(Debug)]
pub(in crate::http) struct Sent<T>(pub(in crate::http) T);

/// What is asked for, in an object; nothing, if the body is empty.
#[derive(Debug)]
pub(in crate::http) struct Wish<T>(pub(in crate::http) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Sent<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Failure> {
        read(&whole(request, shared).await?).map(|Object(sent)| Self(sent))
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Shared> for Wish<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Failure> {
        let bytes = whole(request, shared).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        read(&bytes).map(|Object(wish)| Self(wish))
    }
}

/// The whole of a body.
pub(in crate::http) async fn whole(request: Request, shared: &Shared) -> Result<Bytes, Failure> {
    Bytes::from_request(request, shared).await.map_err(|error| match error.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => Failure::new(status, "body_too_large", error.body_text()),
        _ => Failure::new(StatusCode::BAD_REQUEST, "invalid_request", plain(&error.body_text())),
    })
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    match Json::from_bytes(bytes) {
        Ok(Json(read)) => Ok(read),
        Err(error) => Err(Failure::new(StatusCode::BAD_REQUEST, "invalid_request", plain(&error.body_text()))),
    }
}

/// What is wrong, without the words of the library that found it.
pub(in crate::http) fn plain(text: &str) -> String {
    const PREFIXES: [&str; 3] = [
        "Failed to deserialize the JSON body into the target type: ",
        "Failed to deserialize query string: ",
        "Failed to parse the request body as JSON: ",
    ];
    PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text).to_owned()
}

/// Read from an object and from nothing else.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OfObject(PhantomData))
    }
}

struct OfObject<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OfObject<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}
