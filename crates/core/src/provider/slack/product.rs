//! Which of Slack's products a delivery is of.

use std::borrow::Cow;

use crate::delivery::Delivery;
use crate::provider::{Unreadable, proof};

/// What a delivery carries.
pub(super) enum Product<'d> {
    /// An envelope of the Events API: JSON.
    Event(&'d str),
    /// A slash command: the fields of a form.
    Command(Form<'d>),
    /// An interaction: JSON in the field `payload` of a form.
    Interaction(Cow<'d, str>),
}

/// The fields of a form.
pub(super) struct Form<'d>(Vec<(Cow<'d, str>, Cow<'d, str>)>);

impl<'d> Product<'d> {
    /// Tells the products apart by content type and fields.
    pub(super) fn of(delivery: &'d Delivery) -> Result<Self, Unreadable> {
        // The content type is not signed: JSON that is called a form would let a replayer choose what its texts mean.
        if delivery.is_form() && !delivery.body.trim_ascii_start().starts_with(b"{") {
            let mut form = Form(form_urlencoded::parse(&delivery.body).collect());
            return match form.0.iter().position(|(name, _)| name == "payload") {
                Some(at) => Ok(Self::Interaction(form.0.swap_remove(at).1)),
                None if form.field("command").is_some() => Ok(Self::Command(form)),
                None => Err(Unreadable::broken("the form has neither a `payload` nor a `command`")),
            };
        }
        let kind = delivery.content_type();
        if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/json") {
            return Err(Unreadable::wrong_type(
                "the content type is neither application/json (events) nor application/x-www-form-urlencoded (commands \
                 and interactions)",
            ));
        }
        proof::text_of(delivery).map(Self::Event)
    }
}

impl Form<'_> {
    /// A field that is not empty.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        (!value.is_empty()).then_some(value.as_ref())
    }
}
