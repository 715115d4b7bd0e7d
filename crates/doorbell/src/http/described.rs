//! What the parts of handlers' signatures mean for the document.

use std::net::SocketAddr;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::response::Response;
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use schemars::JsonSchema;
use serde_json::Value;

use super::Shared;
use super::api::{Named, Sent, Wish};
use super::audit::{Asks, Target};
use super::auth::{By, Introduced, KeyRemoved, LocalOrKnown};
use super::document::{Described, Sketch};
use super::error::Failure;
use super::leases::Speaking;

macro_rules! says_nothing {
    ($($name:ty),* $(,)?) => {
        $(impl Described for $name {
            fn describe(_: &mut Sketch<'_>) {}
        })*
    };
}

// What is taken of a raw request, and answered as a raw response, the route says itself.
says_nothing!(State<Shared>, HeaderMap, ConnectInfo<SocketAddr>, KeyRemoved, Request, Response);

impl Described for By {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.needs_key();
    }
}

impl Described for Introduced {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.needs_key();
    }
}

impl Described for Asks {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.needs_key();
    }
}

impl Described for LocalOrKnown {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.needs_key_or_lease();
        sketch.refuses("not_found");
    }
}

impl Described for Speaking {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.needs_key_or_lease();
    }
}

impl Described for Named {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.refuses("not_found");
    }
}

impl<T> Described for Path<T> {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.refuses("not_found");
    }
}

impl<T> Described for Result<Path<T>, PathRejection> {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.refuses("not_found");
    }
}

impl<T: JsonSchema> Described for Result<Query<T>, QueryRejection> {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.query::<T>();
    }
}

impl<T: JsonSchema> Described for Sent<T> {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.body::<T>(true);
    }
}

impl<T: JsonSchema> Described for Wish<T> {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.body::<T>(false);
    }
}

impl Described for Bytes {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.body::<Value>(true);
    }
}

impl<T: JsonSchema> Described for Json<T> {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.json::<T>(sketch.status);
    }
}

impl<T: Described> Described for (Extension<Target>, T) {
    fn describe(sketch: &mut Sketch<'_>) {
        T::describe(sketch);
    }
}

impl<T: Described> Described for (StatusCode, Extension<Target>, T) {
    fn describe(sketch: &mut Sketch<'_>) {
        T::describe(sketch);
    }
}

impl<T: Described, V> Described for (StatusCode, [(HeaderName, V); 1], Extension<Target>, T) {
    fn describe(sketch: &mut Sketch<'_>) {
        T::describe(sketch);
    }
}

impl<T: Described> Described for (StatusCode, T) {
    fn describe(sketch: &mut Sketch<'_>) {
        T::describe(sketch);
    }
}

impl<T: Described, V> Described for ([(HeaderName, V); 1], T) {
    fn describe(sketch: &mut Sketch<'_>) {
        T::describe(sketch);
    }
}

impl<T: Described, V> Described for (StatusCode, [(HeaderName, V); 1], T) {
    fn describe(sketch: &mut Sketch<'_>) {
        T::describe(sketch);
    }
}

impl Described for StatusCode {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.empty(sketch.status);
    }
}

impl Described for &'static str {
    fn describe(sketch: &mut Sketch<'_>) {
        sketch.content(sketch.status, "text/plain");
    }
}

impl<T: Described> Described for Result<T, Failure> {
    fn describe(sketch: &mut Sketch<'_>) {
        T::describe(sketch);
        sketch.refuses("store_unavailable");
        sketch.refuses("store_damaged");
    }
}
