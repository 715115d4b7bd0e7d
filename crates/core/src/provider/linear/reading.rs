//! What Linear's bodies say.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::event::Context;
use crate::provider::paths::{Found, Paths};
use crate::provider::{encode_hex, is_name, json};
use aws_lc_rs::digest;

pub(super) static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    Paths::known(&[
        "/type",
        "/action",
        "/url",
        "/organizationId",
        "/actor/id",
        "/actor/type",
        "/actor/name",
        "/actor/email",
        "/actor/url",
        "/data/id",
        "/data/number",
        "/data/identifier",
        "/data/title",
        "/data/name",
        "/data/description",
        "/data/body",
        "/data/url",
        "/data/priorityLabel",
        "/data/creator/email",
        "/data/creator/name",
        "/data/creatorId",
        "/data/user/email",
        "/data/user/name",
        "/data/userId",
        "/data/assignee/email",
        "/data/assignee/name",
        "/data/assigneeId",
        "/data/labels/*/name",
        "/data/state/name",
        "/data/team/key",
        "/data/team/name",
        "/data/project/name",
        "/data/issue/number",
        "/data/issue/identifier",
        "/data/issue/title",
        "/data/issue/url",
        "/data/issue/creator/email",
        "/data/issue/labels/*/name",
        "/data/issue/team/key",
        "/agentSession/id",
        "/agentSession/url",
        "/agentSession/issue/identifier",
        "/agentSession/issue/title",
        "/agentSession/issue/description",
        "/agentSession/issue/url",
        "/agentSession/issue/team/key",
        "/agentSession/comment/body",
        "/agentSession/creator/name",
        "/agentSession/creator/email",
        "/agentActivity/content/body",
        "/notification/type",
        "/notification/issue/identifier",
        "/notification/issue/title",
        "/notification/issue/url",
        "/notification/comment/body",
        "/notification/actor/name",
        "/issueData/identifier",
        "/issueData/title",
        "/issueData/url",
    ])
});

/// Everything of a body that stays the same when it is sent again: all of it but the time of sending.
#[derive(Default)]
struct Lasting(Option<digest::Context>);

impl<'de> json::Object<'de> for Lasting {
    fn field(&mut self, name: &str, value: &mut json::Cursor<'de>) -> Result<(), json::Stop> {
        if name == "webhookTimestamp" {
            return json::skip(value);
        }
        let digest = self.0.get_or_insert_with(|| digest::Context::new(&digest::SHA256));
        for part in [name, json::raw(value)?] {
            digest.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(part.as_bytes());
        }
        Ok(())
    }
}

/// The id of the delivery: a digest of the body without the time of sending.
pub(super) fn id_of(text: &str) -> Result<String, crate::provider::json::NotJson> {
    let Lasting(digest) = json::read(text)?;
    let digest = digest.unwrap_or_else(|| digest::Context::new(&digest::SHA256)).finish();
    Ok(format!("sha256:{}", encode_hex(digest.as_ref())))
}

/// Describes the event named `event`.
pub(super) fn describe(event: &str, found: &Found<'_, '_>) -> Context {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.text(pointer));
    let action = found.text("/action").filter(|action| is_name(action));
    let mut context = Context::default();
    context.set("event", event);
    people(found, action.as_deref(), &mut context);
    context.set_some("action", action);
    let url = first(&["/url", "/data/url", "/agentSession/issue/url", "/agentSession/url"]);
    let url = url.or_else(|| first(&["/data/issue/url", "/notification/issue/url", "/issueData/url"]));
    context.set_some("org", found.text("/organizationId"));
    context.set_some("workspace", workspace(found, url.as_deref()));
    let team = ["/data/team/key", "/data/issue/team/key", "/agentSession/issue/team/key", "/data/team/name"];
    context.set_some("team", first(&team));
    context.set_some("project", found.text("/data/project/name"));
    context.set_some("number", found.number("/data/number").or_else(|| found.number("/data/issue/number")));
    let identifier = ["/data/identifier", "/data/issue/identifier", "/agentSession/issue/identifier"];
    let identifier = first(&identifier).or_else(|| first(&["/notification/issue/identifier", "/issueData/identifier"]));
    context.set_some("identifier", identifier);
    let title = ["/data/title", "/data/issue/title", "/agentSession/issue/title", "/data/name"];
    context.set_some("title", first(&title).or_else(|| first(&["/notification/issue/title", "/issueData/title"])));
    let is_comment = event == "issue_comment";
    let body = if is_comment { None } else { first(&["/data/description", "/data/body"]) };
    context.set_some("body", body.or_else(|| first(&["/agentSession/issue/description"])));
    let comment = if is_comment { found.text("/data/body") } else { None };
    let said = ["/agentActivity/content/body", "/agentSession/comment/body", "/notification/comment/body"];
    context.set_some("comment", comment.or_else(|| first(&said)));
    context.set_some("url", url);
    let mut labels = found.texts("/data/labels/*/name");
    labels.extend(found.texts("/data/issue/labels/*/name"));
    context.set_some("labels", (!labels.is_empty()).then_some(labels));
    context.set_some("state", found.text("/data/state/name"));
    context.set_some("priority", found.text("/data/priorityLabel"));
    context.set_some("notification", found.text("/notification/type"));
    context.set_some("session", found.text("/agentSession/id"));
    context.set_some("id", found.text("/data/id"));
    context
}

fn people(found: &Found<'_, '_>, action: Option<&str>, context: &mut Context) {
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| found.text(pointer));
    let made = |pointer| if action == Some("create") { found.text(pointer) } else { None };
    let about = ["/data/issue/creator/email", "/data/creator/email", "/data/user/email", "/agentSession/creator/email"];
    let author_name = first(&["/data/creator/name", "/data/user/name", "/agentSession/creator/name"]);
    let author_name = author_name.or_else(|| made("/actor/name"));
    let author = first(&about).or_else(|| made("/actor/email"));
    context.set_some("author", author.or_else(|| author_name.clone()));
    context.set_some("author_name", author_name);
    context.set_some("author_id", first(&["/data/creatorId", "/data/userId"]));
    context.set_some("assignee", first(&["/data/assignee/email", "/data/assignee/name"]));
    context.set_some("assignee_name", found.text("/data/assignee/name"));
    context.set_some("assignee_id", found.text("/data/assigneeId"));
    context.set_some("comment_author", first(&["/data/user/email", "/data/user/name"]));
    let sender = first(&["/actor/email", "/actor/name", "/actor/id", "/notification/actor/name"]);
    context
        .set_some("sender", sender.or_else(|| first(&["/agentSession/creator/email", "/agentSession/creator/name"])));
    context.set_some("sender_name", found.text("/actor/name"));
    context.set_some("sender_id", found.text("/actor/id"));
    context.set_some("sender_type", found.text("/actor/type"));
}

/// The workspace's name in a URL of Linear: `https://linear.app/acme/issue/ENG-1`.
fn workspace<'u>(found: &'u Found<'_, '_>, url: Option<&'u str>) -> Option<String> {
    let actor = found.text("/actor/url");
    let named = |url: &str| {
        let rest = url.strip_prefix("https://linear.app/")?;
        let name = rest.split('/').next().filter(|name| !name.is_empty())?;
        Some(name.to_owned())
    };
    url.and_then(named).or_else(|| actor.as_ref().map(Cow::as_ref).and_then(named))
}
