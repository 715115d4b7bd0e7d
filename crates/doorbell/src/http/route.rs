//! A route: how it is served, and what the document says of it. There is no other way to serve a path, so none is undocumented.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::routing::{MethodFilter, MethodRouter, any, on};
use http::{Method, StatusCode};

use super::document::{DescribedHandler, Sketch};
use super::{Shared, known};

/// Who may ask.
pub(super) const ANY_KEY: &[&str] = &["owner", "viewer", "agent", "run"];
/// Who may change what is an agent's.
pub(super) const CHANGERS: &[&str] = &["owner", "agent"];
/// Who may change what is everybody's.
pub(super) const OWNERS: &[&str] = &["owner"];

type Describe = Box<dyn Fn(&mut Sketch<'_>) + Send + Sync>;

/// A path and a method, who carries it out, and what is said of it.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) method: Method,
    /// What programs call it by.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) tag: &'static str,
    served: Option<MethodRouter<Shared>>,
    describe: Vec<Describe>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

/// What is said of a route first: its path, what programs call it by, and what it does.
type Said = (&'static str, &'static str, &'static str);

impl Route {
    fn new<H, D>(method: Method, said: Said, served: Option<MethodRouter<Shared>>) -> Self
    where
        H: DescribedHandler<D>,
    {
        let (path, id, summary) = said;
        let signature: fn(&mut Sketch<'_>) = H::describe;
        Self { path, method, id, summary, tag: "", served, describe: vec![Box::new(signature)] }
    }

    fn on<H, T, D>(method: Method, filter: MethodFilter, said: Said, handler: H) -> Self
    where
        H: Handler<T, Shared> + DescribedHandler<D>,
        T: 'static,
    {
        Self::new::<H, D>(method, said, Some(on(filter, handler)))
    }

    pub(super) fn get<H, T, D>(said: Said, handler: H) -> Self
    where
        H: Handler<T, Shared> + DescribedHandler<D>,
        T: 'static,
    {
        Self::on(Method::GET, MethodFilter::GET, said, handler)
    }

    pub(super) fn post<H, T, D>(said: Said, handler: H) -> Self
    where
        H: Handler<T, Shared> + DescribedHandler<D>,
        T: 'static,
    {
        Self::on(Method::POST, MethodFilter::POST, said, handler)
    }

    pub(super) fn put<H, T, D>(said: Said, handler: H) -> Self
    where
        H: Handler<T, Shared> + DescribedHandler<D>,
        T: 'static,
    {
        Self::on(Method::PUT, MethodFilter::PUT, said, handler)
    }

    pub(super) fn patch<H, T, D>(said: Said, handler: H) -> Self
    where
        H: Handler<T, Shared> + DescribedHandler<D>,
        T: 'static,
    {
        Self::on(Method::PATCH, MethodFilter::PATCH, said, handler)
    }

    pub(super) fn delete<H, T, D>(said: Said, handler: H) -> Self
    where
        H: Handler<T, Shared> + DescribedHandler<D>,
        T: 'static,
    {
        Self::on(Method::DELETE, MethodFilter::DELETE, said, handler)
    }

    /// A handler that is given every method, and refuses those that it does not take itself. Documented as POST.
    pub(super) fn any<H, T, D>(said: Said, handler: H) -> Self
    where
        H: Handler<T, Shared> + DescribedHandler<D>,
        T: 'static,
    {
        Self::new::<H, D>(Method::POST, said, Some(any(handler)))
    }

    /// A further method that the handler of another route is given, too: documented only.
    pub(super) fn also<H, T, D>(method: Method, said: Said, _handler: H) -> Self
    where
        H: Handler<T, Shared> + DescribedHandler<D>,
        T: 'static,
    {
        Self::new::<H, D>(method, said, None)
    }

    fn with(mut self, describe: impl Fn(&mut Sketch<'_>) + Send + Sync + 'static) -> Self {
        self.describe.push(Box::new(describe));
        self
    }

    /// The status of success, if it is not 200.
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.describe.insert(0, Box::new(move |sketch| sketch.status = status));
        self
    }

    /// Who may; others with a good key are answered with `not_allowed`.
    pub(super) fn by(self, roles: &'static [&'static str]) -> Self {
        self.with(move |sketch| sketch.allow(roles))
    }

    /// The lease of a run reaches it, too, as long as it holds.
    pub(super) fn by_lease(self) -> Self {
        self.refuses(&["lease_lost"])
    }

    /// Codes that it may be answered with, beside those that follow from what it takes.
    pub(super) fn refuses(self, codes: &'static [&'static str]) -> Self {
        self.with(move |sketch| codes.iter().for_each(|code| sketch.refuses(code)))
    }

    /// A code with a status that is not the first of its statuses.
    pub(super) fn refuses_as(self, status: StatusCode, code: &'static str) -> Self {
        self.with(move |sketch| sketch.refuses_as(status, code))
    }

    /// An answer whose type the handler does not name.
    pub(super) fn json<T: schemars::JsonSchema + 'static>(self, status: StatusCode) -> Self {
        self.with(move |sketch| sketch.json::<T>(status))
    }

    /// An answer that is not JSON.
    pub(super) fn content(self, status: StatusCode, media_type: &'static str) -> Self {
        self.with(move |sketch| sketch.content(status, media_type))
    }

    /// Server-sent events, the data of each of which is such a JSON.
    pub(super) fn stream<T: schemars::JsonSchema + 'static>(self) -> Self {
        self.with(|sketch| sketch.stream::<T>())
    }

    /// An answer without a body.
    pub(super) fn empty(self, status: StatusCode) -> Self {
        self.with(move |sketch| sketch.empty(status))
    }

    /// A body of anything, or none.
    pub(super) fn body(self, what: &'static str) -> Self {
        self.with(move |sketch| sketch.any_body(what))
    }

    /// A header that it goes by.
    pub(super) fn header(self, name: &'static str, what: &'static str) -> Self {
        self.with(move |sketch| sketch.header(name, what))
    }

    /// Draws what is said of it.
    pub(super) fn describe(&self, sketch: &mut Sketch<'_>) {
        self.describe.iter().for_each(|describe| describe(sketch));
    }
}

/// A group of routes under a heading.
pub(super) fn group(tag: &'static str, routes: Vec<Route>) -> Vec<Route> {
    routes.into_iter().map(|route| Route { tag, ..route }).collect()
}

/// The router that serves them.
pub(super) fn serve(routes: Vec<Route>) -> Router<Shared> {
    routes.into_iter().fold(Router::new(), |router, route| match route.served {
        Some(served) => router.route(route.path, checked(served, route.path)),
        None => router,
    })
}

/// Where the gateway is built to be tested, an answer that the document does not know is a bug that shows.
fn checked(served: MethodRouter<Shared>, path: &'static str) -> MethodRouter<Shared> {
    if !cfg!(debug_assertions) {
        return served;
    }
    served.layer(from_fn(async move |request: Request, next: Next| {
        let method = request.method().clone();
        let response = next.run(request).await;
        known::check(&method, path, &response);
        response
    }))
}
