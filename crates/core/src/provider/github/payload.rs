//! The fields of GitHub's payloads that are read. Everything GitHub reports on looks much the same (a number, a title,
//! somebody who made it, a link), so one [`Subject`] serves issues, pull requests, runs, checks, releases and alerts.

use std::borrow::Cow;

use crate::provider::json::{Cursor, Object, Stop, list, number, object, skip, text};

type Text<'a> = Option<Cow<'a, str>>;

/// What an event may be about. Where a payload has several, it is about the first one here.
const SUBJECTS: [&str; 15] = [
    "issue",
    "pull_request",
    "discussion",
    "release",
    "workflow_job",
    "deployment_status",
    "deployment",
    "check_run",
    "check_suite",
    "workflow_run",
    "milestone",
    "alert",
    "merge_group",
    "package",
    "registry_package",
];

/// The top level of a payload.
#[derive(Default)]
pub(super) struct Payload<'a> {
    pub(super) action: Text<'a>,
    pub(super) reference: Text<'a>,
    pub(super) ref_type: Text<'a>,
    pub(super) branch: Text<'a>,
    pub(super) branches: Option<Vec<Named<'a>>>,
    pub(super) compare: Text<'a>,
    pub(super) target_url: Text<'a>,
    pub(super) description: Text<'a>,
    pub(super) state: Text<'a>,
    pub(super) number: Option<i64>,
    pub(super) repository: Option<Repository<'a>>,
    pub(super) organization: Option<Person<'a>>,
    pub(super) installation: Option<Installation<'a>>,
    pub(super) sender: Option<Person<'a>>,
    pub(super) assignee: Option<Person<'a>>,
    pub(super) label: Option<Named<'a>>,
    pub(super) comment: Option<Subject<'a>>,
    pub(super) review: Option<Subject<'a>>,
    pub(super) head_commit: Option<Commit<'a>>,
    pub(super) pusher: Option<Person<'a>>,
    subjects: Vec<(&'static str, Subject<'a>)>,
}

/// An issue, a pull request, a run, a check, a release, a comment, …
#[derive(Default)]
pub(super) struct Subject<'a> {
    pub(super) number: Option<i64>,
    pub(super) title: Text<'a>,
    pub(super) name: Text<'a>,
    pub(super) body: Text<'a>,
    pub(super) description: Text<'a>,
    pub(super) html_url: Text<'a>,
    pub(super) target_url: Text<'a>,
    pub(super) user: Option<Person<'a>>,
    pub(super) assignee: Option<Person<'a>>,
    pub(super) assignees: Option<Vec<Person<'a>>>,
    pub(super) labels: Option<Vec<Named<'a>>>,
    pub(super) state: Text<'a>,
    pub(super) conclusion: Text<'a>,
    pub(super) reference: Text<'a>,
    pub(super) head_branch: Text<'a>,
    pub(super) head: Option<Tip<'a>>,
    pub(super) base: Option<Tip<'a>>,
    pub(super) head_ref: Text<'a>,
    pub(super) base_ref: Text<'a>,
    pub(super) tag: Text<'a>,
    pub(super) check_suite: Option<Tip<'a>>,
    pub(super) pull_requests: Option<Vec<Numbered>>,
    pub(super) head_commit: Option<Commit<'a>>,
}

/// A user, an organisation, a bot; or the name in a commit.
#[derive(Default)]
pub(super) struct Person<'a> {
    pub(super) login: Text<'a>,
    pub(super) username: Text<'a>,
    pub(super) name: Text<'a>,
    pub(super) kind: Text<'a>,
}

/// A label, or a branch in a list of them.
#[derive(Default)]
pub(super) struct Named<'a> {
    pub(super) name: Text<'a>,
}

/// One end of a pull request, or the branch of a check suite.
#[derive(Default)]
pub(super) struct Tip<'a> {
    pub(super) branch: Text<'a>,
}

/// A pull request in the list of a run.
#[derive(Default)]
pub(super) struct Numbered {
    pub(super) number: Option<i64>,
}

/// The newest commit of a push.
#[derive(Default)]
pub(super) struct Commit<'a> {
    pub(super) message: Text<'a>,
    pub(super) author: Option<Person<'a>>,
}

/// The repository.
#[derive(Default)]
pub(super) struct Repository<'a> {
    pub(super) full_name: Text<'a>,
}

/// The installation of a GitHub App.
#[derive(Default)]
pub(super) struct Installation<'a> {
    pub(super) id: Option<i64>,
    pub(super) account: Option<Person<'a>>,
}

impl<'a> Payload<'a> {
    /// What the event is about.
    pub(super) fn subject(&self) -> Option<&Subject<'a>> {
        SUBJECTS.iter().find_map(|name| self.part(name))
    }

    /// The part of this name.
    pub(super) fn part(&self, name: &str) -> Option<&Subject<'a>> {
        self.subjects.iter().find(|(found, _)| *found == name).map(|(_, subject)| subject)
    }

    /// A comment or a review: what was said about the subject.
    pub(super) fn remark(&self) -> Option<&Subject<'a>> {
        self.comment.as_ref().or(self.review.as_ref())
    }
}

impl<'de> Object<'de> for Payload<'de> {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "action" => self.action = text(value)?,
            "ref" => self.reference = text(value)?,
            "ref_type" => self.ref_type = text(value)?,
            "branch" => self.branch = text(value)?,
            "branches" => self.branches = list(value)?,
            "compare" => self.compare = text(value)?,
            "target_url" => self.target_url = text(value)?,
            "description" => self.description = text(value)?,
            "state" => self.state = text(value)?,
            "number" => self.number = number(value)?,
            "repository" => self.repository = object(value)?,
            "organization" => self.organization = object(value)?,
            "installation" => self.installation = object(value)?,
            "sender" => self.sender = object(value)?,
            "assignee" => self.assignee = object(value)?,
            "label" => self.label = object(value)?,
            "comment" => self.comment = object(value)?,
            "review" => self.review = object(value)?,
            "head_commit" => self.head_commit = object(value)?,
            "pusher" => self.pusher = object(value)?,
            _ => match SUBJECTS.iter().find(|subject| **subject == name) {
                Some(name) => {
                    let subject = object(value)?;
                    self.subjects.retain(|(found, _)| found != name);
                    self.subjects.extend(subject.map(|subject| (*name, subject)));
                }
                None => skip(value)?,
            },
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Subject<'de> {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "number" => self.number = number(value)?,
            "title" => self.title = text(value)?,
            "name" => self.name = text(value)?,
            "body" => self.body = text(value)?,
            "description" => self.description = text(value)?,
            "html_url" => self.html_url = text(value)?,
            "target_url" => self.target_url = text(value)?,
            // Whoever made it: an issue has a user, a release an author, a deployment a creator, a run an actor.
            "user" | "author" | "creator" | "actor" => self.user = object(value)?.or(self.user.take()),
            "assignee" => self.assignee = object(value)?,
            "assignees" => self.assignees = list(value)?,
            "labels" => self.labels = list(value)?,
            "state" => self.state = text(value)?,
            "conclusion" => self.conclusion = text(value)?,
            "ref" => self.reference = text(value)?,
            "head_branch" => self.head_branch = text(value)?,
            "head" => self.head = object(value)?,
            "base" => self.base = object(value)?,
            "head_ref" => self.head_ref = text(value)?,
            "base_ref" => self.base_ref = text(value)?,
            "tag_name" => self.tag = text(value)?,
            "check_suite" => self.check_suite = object(value)?,
            "pull_requests" => self.pull_requests = list(value)?,
            "head_commit" => self.head_commit = object(value)?,
            _ => skip(value)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Person<'de> {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "login" => self.login = text(value)?,
            "username" => self.username = text(value)?,
            "name" => self.name = text(value)?,
            "type" => self.kind = text(value)?,
            _ => skip(value)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Named<'de> {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "name" => self.name = text(value)?,
            _ => skip(value)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Tip<'de> {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "ref" | "head_branch" => self.branch = text(value)?,
            _ => skip(value)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Numbered {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "number" => self.number = number(value)?,
            _ => skip(value)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Commit<'de> {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "message" => self.message = text(value)?,
            "author" => self.author = object(value)?,
            _ => skip(value)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Repository<'de> {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "full_name" => self.full_name = text(value)?,
            _ => skip(value)?,
        }
        Ok(())
    }
}

impl<'de> Object<'de> for Installation<'de> {
    fn field(&mut self, name: &str, value: &mut Cursor<'de>) -> Result<(), Stop> {
        match name {
            "id" => self.id = number(value)?,
            "account" => self.account = object(value)?,
            _ => skip(value)?,
        }
        Ok(())
    }
}
