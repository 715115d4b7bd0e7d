//! The context of GitHub's events: what filters, prompts and people use.

use std::borrow::Cow;

use super::payload::{Named, Payload, Person, Subject};
use crate::event::Context;
use crate::provider::is_name;

/// Describes the event named `event`.
pub(super) fn describe(event: &str, payload: &Payload<'_>) -> Context {
    let mut context = Context::default();
    context.set("event", event);
    let action = payload.action.as_deref().filter(|action| is_name(action));
    context.set_some("action", action);
    place(payload, &mut context);
    subject(payload, &mut context);
    people(payload, action, &mut context);
    branches(payload, &mut context);
    outcome(payload, &mut context);
    sender(payload, &mut context);
    context
}

fn place(payload: &Payload<'_>, context: &mut Context) {
    let repo = payload.repository.as_ref().and_then(|repository| repository.full_name.as_deref());
    let owner = repo.and_then(|repo| repo.split_once('/')).map(|(owner, _)| owner);
    let account = payload.installation.as_ref().and_then(|installation| login(installation.account.as_ref()));
    context.set_some("repo", repo);
    context.set_some("org", login(payload.organization.as_ref()).or(owner).or(account));
}

fn subject(payload: &Payload<'_>, context: &mut Context) {
    let about = payload.subject();
    let first_pull_request = || about?.pull_requests.as_ref()?.iter().find_map(|pull_request| pull_request.number);
    let commit = payload.head_commit.as_ref().or_else(|| about?.head_commit.as_ref());
    let headline = || commit?.message.as_deref()?.lines().next();
    let title = about.and_then(|about| about.title.as_deref().or(about.name.as_deref()).or(about.tag.as_deref()));
    let body = about.and_then(|about| about.body.as_deref().or(about.description.as_deref()));
    // Of a commit status; elsewhere the description at the top is the repository's.
    let described = || payload.state.as_ref().and(payload.description.as_deref());
    let url = |of: &Subject<'_>| of.html_url.as_deref().or(of.target_url.as_deref()).map(str::to_owned);
    context.set_some("number", about.and_then(|about| about.number).or_else(first_pull_request).or(payload.number));
    context.set_some("title", title.or_else(headline).or_else(described));
    context.set_some("body", body);
    context.set_some(
        "url",
        payload
            .remark()
            .and_then(url)
            .or_else(|| about.and_then(url))
            .or_else(|| payload.compare.as_deref().or(payload.target_url.as_deref()).map(str::to_owned)),
    );
}

fn people(payload: &Payload<'_>, action: Option<&str>, context: &mut Context) {
    let about = payload.subject();
    let committer = payload.head_commit.as_ref().and_then(|commit| commit.author.as_ref()?.username.as_deref());
    let pusher = payload.pusher.as_ref().and_then(|pusher| pusher.name.as_deref());
    let author = about.and_then(|about| login(about.user.as_ref()));
    // The one that was just assigned says more than the first in the list. The one that was just unassigned is
    // nobody's assignee.
    let assigned = payload.assignee.as_ref().filter(|_| action != Some("unassigned"));
    let assignee = assigned.or_else(|| about?.assignee.as_ref());
    let logins = |people: &Vec<Person<'_>>| -> Vec<String> {
        people.iter().filter_map(|person| person.login.as_deref()).map(str::to_owned).collect()
    };
    context.set_some("author", author.or(committer).or(pusher));
    context.set_some("assignee", login(assignee));
    context.set_some("assignees", about.and_then(|about| about.assignees.as_ref()).map(logins));
    context.set_some("labels", about.and_then(|about| about.labels.as_deref()).map(names));
    context.set_some("label", payload.label.as_ref().and_then(|label| label.name.as_deref()));
}

fn branches(payload: &Payload<'_>, context: &mut Context) {
    let about = payload.subject();
    let of_subject = about.and_then(|about| {
        let head = about.head.as_ref().or(about.check_suite.as_ref()).and_then(|tip| tip.branch.as_deref());
        head.or(about.head_branch.as_deref()).or_else(|| branch_of(about.head_ref.as_deref()?))
    });
    let (branch, tag) = match (payload.reference.as_deref(), payload.ref_type.as_deref()) {
        (Some(name), Some("branch")) => (Some(name), None),
        (Some(name), Some("tag")) => (None, Some(name)),
        (Some(full), _) => (branch_of(full), full.strip_prefix("refs/tags/")),
        (None, _) => (payload.branch.as_deref(), None),
    };
    let deployed = || payload.part("deployment")?.reference.as_deref().filter(|name| !is_commit(name));
    let base = about.and_then(|about| match &about.base {
        Some(base) => base.branch.as_deref(),
        None => branch_of(about.base_ref.as_deref()?),
    });
    context.set_some("branch", of_subject.or(branch).or_else(deployed));
    context.set_some("branches", payload.branches.as_deref().map(names));
    context.set_some("base", base);
    context.set_some("tag", about.and_then(|about| about.tag.as_deref()).or(tag));
}

fn outcome(payload: &Payload<'_>, context: &mut Context) {
    let about = payload.subject();
    let remark = payload.remark();
    context.set_some("comment", remark.and_then(|remark| remark.body.as_deref()));
    context.set_some("comment_author", remark.and_then(|remark| login(remark.user.as_ref())));
    context.set_some("review", payload.review.as_ref().and_then(|review| review.state.as_deref()));
    context.set_some("state", about.and_then(|about| about.state.as_deref()).or(payload.state.as_deref()));
    context.set_some("conclusion", about.and_then(|about| about.conclusion.as_deref()));
}

fn sender(payload: &Payload<'_>, context: &mut Context) {
    let sender = payload.sender.as_ref();
    context.set_some("sender", login(sender));
    context.set_some("sender_type", sender.and_then(|sender| sender.kind.as_deref()));
    context.set_some("installation", payload.installation.as_ref().and_then(|installation| installation.id));
}

fn login<'p>(person: Option<&'p Person<'_>>) -> Option<&'p str> {
    person?.login.as_deref()
}

fn names(list: &[Named<'_>]) -> Vec<String> {
    list.iter().filter_map(|named| named.name.as_ref()).map(Cow::to_string).collect()
}

fn branch_of(reference: &str) -> Option<&str> {
    reference.strip_prefix("refs/heads/")
}

/// A deployment's ref may be a branch, a tag or the hash of a commit.
fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|digit| digit.is_ascii_hexdigit())
}
