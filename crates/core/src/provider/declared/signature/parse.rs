//! `[[signature]]`: how a sender proves itself, as a definition says it.

use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::secret::clash;
use super::time::{Time, Unit};
use super::{Form, Kind, Piece, Proof, Scheme, Signature, Signing, Written};
use crate::provider::declared::place::header_name;
use crate::provider::declared::section::{At, Section, Span};
use crate::provider::generic::{Algorithm, Encoding};

const USUAL_TOLERANCE: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Copy)]
enum Word {
    Hmac,
    Ed25519,
    Token,
    Bearer,
    Basic,
}

const SCHEMES: [(&str, Word); 5] = [
    ("hmac", Word::Hmac),
    ("ed25519", Word::Ed25519),
    ("token", Word::Token),
    ("bearer", Word::Bearer),
    ("basic", Word::Basic),
];
const ALGORITHMS: [(&str, Algorithm); 3] =
    [("sha256", Algorithm::Sha256), ("sha1", Algorithm::Sha1), ("sha512", Algorithm::Sha512)];
const ENCODINGS: [(&str, Encoding); 2] = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];
const FORMS: [(&str, Form); 4] =
    [("text", Form::Text), ("hex", Form::Hex), ("base64", Form::Base64), ("whsec", Form::Whsec)];
const UNITS: [(&str, Unit); 3] =
    [("seconds", Unit::Seconds), ("milliseconds", Unit::Milliseconds), ("rfc3339", Unit::Rfc3339)];

/// Reads every `[[signature]]`.
pub(in super::super) fn schemes(root: &Section<'_, '_>) -> Vec<Scheme> {
    let sections = root.sections("signature");
    if sections.is_empty() {
        root.problem_with_help(
            &None,
            "there is no `[[signature]]`: nothing would prove the sender",
            "a table `[[signature]]` says how: `scheme = \"hmac\"`, `header = \"X-Signature\"`",
        );
    }
    let mut schemes: Vec<Scheme> = Vec::new();
    for section in sections {
        let Some(scheme) = scheme(&section) else { continue };
        if schemes.iter().any(|known| clash(known, &scheme)) {
            let message = "two signatures of one kind have the same `algorithm` and the same form of `secret`: a source has one \
                           secret for both";
            section.problem(&None, message);
        }
        if schemes
            .iter()
            .any(|known| known.kind() != scheme.kind() && [known.kind(), scheme.kind()].contains(&Kind::Ed25519))
        {
            let message =
                "`ed25519` beside another scheme: a source has one secret for both, and a public key must never be one";
            section.problem(&None, message);
        }
        if let Some(hidden) = schemes.iter().find(|known| hides(known, &scheme)) {
            section.problem(&None, format!("this one is never asked: `{}` above decides before it", hidden.header));
        }
        schemes.push(scheme);
    }
    schemes
}

/// Whether the first one is meant wherever the second one is.
fn hides(first: &Scheme, second: &Scheme) -> bool {
    let same_proof = match (&first.proof, &second.proof) {
        (Proof::Bearer, other) => matches!(other, Proof::Bearer),
        (Proof::Basic, other) => matches!(other, Proof::Basic),
        _ => first.kind() == second.kind(),
    };
    first.header == second.header && same_proof && (first.when.is_none() || first.when == second.when)
}

fn scheme(section: &Section<'_, '_>) -> Option<Scheme> {
    let word = match section.has("scheme") {
        true => section.word("scheme", &SCHEMES),
        false => section.needed_text("scheme").and(None),
    };
    let when = section.text("when").and_then(|name| header_name(section, &name));
    let Some(word) = word else {
        check_anyway(section);
        return None;
    };
    let scheme = match word {
        Word::Bearer => Some(Scheme { proof: Proof::Bearer, header: AUTHORIZATION, when }),
        Word::Basic => Some(Scheme { proof: Proof::Basic, header: AUTHORIZATION, when }),
        Word::Token => header(section).map(|header| {
            let prefix = prefix(section);
            Scheme { proof: Proof::Token(prefix), header, when }
        }),
        Word::Hmac => {
            let algorithm = section.word("algorithm", &ALGORITHMS).unwrap_or_default();
            signed(section, Signing::Hmac(algorithm), when)
        }
        Word::Ed25519 => signed(section, Signing::Ed25519, when),
    };
    section.finish();
    scheme
}

/// Without a scheme, which keys belong here cannot be said; what can be is said all the same, not after the next try.
fn check_anyway(section: &Section<'_, '_>) {
    if let Some(name) = section.text("header") {
        header_name(section, &name);
    }
    prefix(section);
    section.word("algorithm", &ALGORITHMS);
    section.word("encoding", &ENCODINGS);
    section.word("secret", &FORMS);
    written(section);
    template(section);
    section.word("timestamp_unit", &UNITS);
    for key in ["timestamp_header", "id_header"] {
        if let Some(name) = section.text(key) {
            header_name(section, &name);
        }
    }
    section.text("tolerance");
    section.finish();
}

fn header(section: &Section<'_, '_>) -> Option<HeaderName> {
    section.needed_text("header").and_then(|name| header_name(section, &name))
}

/// White space around a header's value is not part of it, so a prefix cannot begin with it.
fn prefix(section: &Section<'_, '_>) -> String {
    let Some(At { value, span }) = section.text("prefix") else { return String::new() };
    if value.starts_with(' ') || !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        section.problem(&span, format!("{value:?} cannot stand at the beginning of a header"));
    }
    value.to_owned()
}

fn signed(section: &Section<'_, '_>, algorithm: Signing, when: Option<HeaderName>) -> Option<Scheme> {
    let header = header(section);
    let encoding = section.word("encoding", &ENCODINGS).unwrap_or_default();
    let form = section.word("secret", &FORMS);
    let form = form.unwrap_or(if algorithm == Signing::Ed25519 { Form::Hex } else { Form::Text });
    if algorithm == Signing::Ed25519 && matches!(form, Form::Text | Form::Whsec) {
        section.problem(&None, "a public key of Ed25519 is written in `hex` or `base64`: say which one with `secret`");
    }
    let written = written(section);
    let beside = matches!(&written, Written::Pairs { time: Some(_), .. });
    let (pieces, template) = template(section);
    let time = time(section, beside, pieces.contains(&Piece::Time), &template);
    let id = section.text("id_header");
    if id.is_some() != pieces.contains(&Piece::Id) {
        let message = "`id_header` and `{id}` in `signed` belong together: an id that is not signed proves nothing";
        section.problem(&template, message);
    }
    let id = id.and_then(|name| header_name(section, &name));
    let signature = Signature { algorithm, form, encoding, written, signed: pieces, time, id };
    Some(Scheme { proof: Proof::Signature(Box::new(signature)), header: header?, when })
}

fn written(section: &Section<'_, '_>) -> Written {
    let Some(pairs) = section.section("pairs") else { return Written::Alone(prefix(section)) };
    let text = |key: &'static str, usual: &str| match pairs.text(key) {
        Some(At { value: "", span }) => {
            pairs.problem(&span, format!("`{key}` is empty"));
            usual.to_owned()
        }
        Some(text) => text.value.to_owned(),
        None => usual.to_owned(),
    };
    let (separator, assign) = (text("separator", ","), text("assign", "="));
    let signature = pairs.needed_text("signature").map(|name| name.value.to_owned()).unwrap_or_default();
    let time = pairs.text("timestamp").map(|name| name.value.to_owned());
    pairs.finish();
    Written::Pairs { separator, assign, signature, time }
}

/// `signed`: the body, and what is signed with it.
fn template(section: &Section<'_, '_>) -> (Vec<Piece>, Span) {
    let Some(At { value, span }) = section.text("signed") else { return (vec![Piece::Body], None) };
    let mut pieces = Vec::new();
    let mut rest = value;
    while let Some(open) = rest.find('{') {
        let (literal, behind) = (&rest[..open], &rest[open..]);
        let known = [("{body}", Piece::Body), ("{timestamp}", Piece::Time), ("{id}", Piece::Id)];
        let Some((name, piece)) = known.into_iter().find(|(name, _)| behind.starts_with(name)) else {
            section.problem(&span, "in `signed`, braces stand around `body`, `timestamp` or `id` only");
            return (vec![Piece::Body], span);
        };
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        pieces.push(piece);
        rest = &behind[name.len()..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    if !pieces.contains(&Piece::Body) {
        section.problem(&span, "`signed` has no `{body}`: anybody could put another body under a signature");
    }
    (pieces, span)
}

fn time(section: &Section<'_, '_>, beside: bool, is_signed: bool, template: &Span) -> Option<Time> {
    let header = section.text("timestamp_header");
    let unit = section.word("timestamp_unit", &UNITS);
    let tolerance = section.text("tolerance").map(|text| {
        duration(text.value).unwrap_or_else(|| {
            section
                .problem(&text.span, format!("{:?} is no time: a number with `s`, `m` or `h`, as in `5m`", text.value));
            USUAL_TOLERANCE
        })
    });
    let there = beside || header.is_some();
    if there != is_signed {
        let message = "a time (`timestamp_header`, or `timestamp` in `pairs`) and `{timestamp}` in `signed` belong together: one \
                       that is not signed proves nothing";
        section.problem(template, message);
    } else if !there && (unit.is_some() || tolerance.is_some()) {
        section.problem(&None, "`timestamp_unit` and `tolerance` are about a signed time, and there is none");
    }
    if beside && header.is_some() {
        section.problem(&None, "the time stands in `timestamp_header` or in `pairs`, not in both");
    }
    let header = header.and_then(|name| header_name(section, &name));
    there.then(|| Time { header, unit: unit.unwrap_or(Unit::Seconds), tolerance: tolerance.unwrap_or(USUAL_TOLERANCE) })
}

/// `90s`, `5m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let number = digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    u64::from(number).checked_mul(factor).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Some(Duration::from_secs(3600)));
        for bad in ["", "5", "m", "-1s", "+1s", "0s", "1d", "1.5h", "5 m", "99999999999h", "5ä", "ä"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
