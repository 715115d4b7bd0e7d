//! Account Activity: `for_user_id`, and lists of what happened.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use crate::event::Context;
use crate::provider::paths::{Found, Paths, elements};
use crate::provider::proof::content_id;
use crate::provider::{Reading, Unreadable, is_name};

/// Up to so many elements of a body get the names of their senders, which stand in a map beside the list.
const MOST_NAMED: usize = 20;

static ELEMENT: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/id",
        "/id_str",
        "/type",
        "/created_timestamp",
        "/timestamp_ms",
        "/text",
        "/lang",
        "/extended_tweet/full_text",
        "/in_reply_to_status_id_str",
        "/retweeted_status/id_str",
        "/quoted_status/id_str",
        "/user/id",
        "/user/id_str",
        "/user/screen_name",
        "/favorited_status/id_str",
        "/favorited_status/text",
        "/favorited_status/extended_tweet/full_text",
        "/favorited_status/user/screen_name",
        "/source/id",
        "/source/id_str",
        "/source/screen_name",
        "/target/id",
        "/target/id_str",
        "/target/screen_name",
        "/target/recipient_id",
        "/sender_id",
        "/last_read_event_id",
        "/message_create/sender_id",
        "/message_create/target/recipient_id",
        "/message_create/message_data/text",
        "/status/id",
        "/status/user_id",
    ])
});

/// Every element of every list, once: an event of its own each.
pub(super) fn read(text: &str, lists: &[&str]) -> Result<Vec<Reading>, Unreadable> {
    let broken = |error: &dyn std::fmt::Display| Unreadable::broken(format!("the body: {error}"));
    let pointer = |name: &str| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    let pointers = lists.iter().map(|name| pointer(name)).chain(["/for_user_id".to_owned(), "/users".to_owned()]);
    let paths = Paths::new(pointers).map_err(|error| broken(&error))?;
    let found = paths.find(text).map_err(|error| broken(&error))?;
    let user = found.id("/for_user_id");
    let (mut readings, mut seen) = (Vec::new(), HashSet::new());
    for name in lists {
        let list = found.raw(&pointer(name)).unwrap_or_default();
        for element in elements(list).map_err(|error| Unreadable::broken(format!("`{name}` is not a list: {error}")))? {
            let users = found.raw("/users").filter(|_| readings.len() < MOST_NAMED);
            let one = describe(name, user.as_deref(), element, users).map_err(|error| broken(&error))?;
            if seen.insert(one.delivery_id.clone()) {
                readings.push(one);
            }
        }
    }
    if readings.is_empty() {
        return Err(Unreadable::broken(format!("`{}` is empty", lists.join("`, `"))));
    }
    Ok(readings)
}

/// Where a post is to be seen.
pub(super) fn link(name: Option<&str>, id: &str) -> Option<String> {
    let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let by = name.filter(plain).unwrap_or("i");
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    is_id.then(|| format!("https://x.com/{by}/status/{id}"))
}

fn describe(
    list: &str,
    user: Option<&str>,
    element: &str,
    users: Option<&str>,
) -> Result<Reading, crate::provider::json::NotJson> {
    let found = ELEMENT.find(element)?;
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.id(pointer));
    let sender = first(&[
        "/user/id_str",
        "/user/id",
        "/source/id_str",
        "/source/id",
        "/message_create/sender_id",
        "/sender_id",
        "/status/user_id",
    ]);
    let named = first(&["/user/screen_name", "/source/screen_name"]).map(Cow::into_owned);
    let target =
        first(&["/target/id_str", "/target/id", "/target/recipient_id", "/message_create/target/recipient_id"]);
    let mut context = Context::default();
    context.set("event", if is_name(list) { list } else { "event" });
    context.set_some("action", found.text("/type").filter(|kind| is_name(kind)));
    context.set_some("user", user);
    context.set_some("sender", sender.clone());
    context.set_some("sender_name", named.or_else(|| name_in(users?, sender.as_deref()?)));
    context.set_some("target", target.clone());
    context.set_some("target_name", found.text("/target/screen_name"));
    content(&found, &mut context);
    let identity = match first(&["/id_str", "/id", "/status/id"]) {
        Some(id) => id.into_owned(),
        None => {
            moment(&found, sender.as_deref(), target.as_deref()).unwrap_or_else(|| content_id([element.as_bytes()]))
        }
    };
    // Two users who are subscribed and write to each other are told of it once each.
    let delivery_id = format!("{}:{list}:{identity}", user.unwrap_or("-"));
    Ok(Reading { context, delivery_id: Some(delivery_id), handshake: false })
}

/// The post or the message that it is about; of a like, the post that is liked.
fn content(found: &Found<'_, '_>, context: &mut Context) {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.id(pointer));
    let id = first(&["/favorited_status/id_str", "/status/id", "/id_str", "/id"]);
    let author = first(&["/favorited_status/user/screen_name", "/user/screen_name"]);
    if let Some(id) = id.as_deref().filter(|_| author.is_some()) {
        context.set_some("url", link(author.as_deref(), id));
    }
    context.set_some("author", author);
    context.set_some("id", id);
    context.set_some(
        "text",
        first(&[
            "/extended_tweet/full_text",
            "/text",
            "/favorited_status/extended_tweet/full_text",
            "/favorited_status/text",
            "/message_create/message_data/text",
        ]),
    );
    context.set_some("language", found.text("/lang"));
    context.set_some("reply_to", found.id("/in_reply_to_status_id_str"));
    context.set_some("repost_of", found.id("/retweeted_status/id_str"));
    context.set_some("quote_of", found.id("/quoted_status/id_str"));
}

/// Who did what to whom, and when: the identity of an element without an id. None if no time is said.
fn moment(found: &Found<'_, '_>, sender: Option<&str>, target: Option<&str>) -> Option<String> {
    let at = ["/created_timestamp", "/timestamp_ms"].iter().find_map(|pointer| found.id(pointer))?;
    let kind = found.text("/type").unwrap_or_default();
    let read = found.id("/last_read_event_id").unwrap_or_default();
    Some(format!("{kind}:{}:{}:{read}:{at}", sender.unwrap_or_default(), target.unwrap_or_default()))
}

/// The name of a user in the map that stands beside lists of messages.
fn name_in(users: &str, id: &str) -> Option<String> {
    let digits = id.bytes().all(|byte| byte.is_ascii_digit());
    let paths = digits.then(|| Paths::new([format!("/{id}/screen_name")]).ok()).flatten()?;
    let found = paths.find(users).ok()?;
    found.text(&format!("/{id}/screen_name")).map(Cow::into_owned)
}
