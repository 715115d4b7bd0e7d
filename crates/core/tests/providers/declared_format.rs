//! The format of declared providers: what a definition may say, what is wrong in one, and a user's own from end to end.

use std::sync::Arc;

use doorbell_core::delivery::Delivery;
use doorbell_core::provider::declared::{Declared, Definition, InvalidDefinition, shipped};
use doorbell_core::provider::{Answer, Greeting, Provider, Unsent, encode_hex};
use doorbell_core::secret::Secret;
use doorbell_core::source::{Dedup, NamedKey, Source};
use doorbell_core::verify::{RejectionCode, verify};
use http::Method;
use proptest::prelude::*;

use super::{NOW, as_json, delivery, read, refusal, signed, source};

const DOCS: &str = include_str!("../../../../docs/own-providers.md");

/// The smallest definition, with more behind it.
fn with(more: &str) -> String {
    format!("name = \"own\"\n[event]\nfrom = \"/type\"\n{more}")
}

fn token(more: &str) -> Result<Declared, Vec<InvalidDefinition>> {
    let text = with(&format!("[[signature]]\nscheme = \"token\"\nheader = \"X-Token\"\n{more}"));
    Definition::parse(&text).map(Declared::new)
}

/// What is wrong, and where.
fn problems(text: &str) -> Vec<(String, String)> {
    let problems = Definition::parse(text).unwrap_err();
    let shown = |problem: InvalidDefinition| {
        let help = problem.help.map(|help| format!(" ({help})")).unwrap_or_default();
        (format!("{}{help}", problem.message), problem.span.map(|span| text[span].to_owned()).unwrap_or_default())
    };
    problems.into_iter().map(shown).collect()
}

#[test]
fn a_misspelt_scheme_hides_no_other_mistake() {
    let text = with(
        "[[signature]]\nscheme = \"hmca\"\nheader = \"a b\"\nencodign = \"hex\"\nalgorithm = \"sha3\"\n[context]\nx = \"/a~3\"\n",
    );
    let said = problems(&text);
    let has = |word: &str| said.iter().any(|(message, _)| message.contains(word));
    assert!(has("did you mean `hmac`") && has("is not the name of a header") && has("`encodign`"), "{said:?}");
    assert!(has("`algorithm` cannot be") && has("/a~3") && said.len() == 5, "{said:?}");
}

#[test]
fn the_provider_of_the_documentation_works_from_end_to_end() {
    let example = DOCS.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let shop = Declared::new(Definition::parse(example).unwrap_or_else(|problems| panic!("{problems:?}")));
    assert_eq!(shop.credential().name, "acme_shop_webhook_secret");
    let source = source(shop, &["new", "old"]);
    let body = source.provider().samples()[0].body.to_string();
    let order = signed(&source, "order.created", body, |_| {});
    let event = read(&source, &order).unwrap();
    assert_eq!(event.event_type(), "acme-shop.order.created");
    assert_eq!(event.delivery_keys(), ["id:delivery-1"]);
    assert_eq!(
        as_json(event.context()),
        serde_json::json!({"event": "order", "action": "created", "number": 1042, "title": "Order 1042 of Kim Sato",
            "labels": ["first"], "sender": "kim", "shop": "berlin"})
    );
    // Another maker's signature of the same, while the secret changes.
    let old = source.keys()[1].key.mac(&[b"1790000000.", &order.body]).unwrap();
    let mut during = Delivery::clone(&order);
    let both = format!("t=1790000000, v1=00ff, v2=x, v1={}", encode_hex(old.as_ref()));
    during.headers.insert("acme-signature", both.parse().unwrap());
    assert_eq!(verify(&source, &Arc::new(during)).unwrap().key().unwrap().instance, "1");
    let changed = Delivery { body: order.body.slice(1..), ..Delivery::clone(&order) };
    assert_eq!(refusal(&source, &Arc::new(changed)), RejectionCode::SignatureMismatch);
    // The handshake's answer holds what was asked, escaped.
    let asked = r#"{"event":"webhook.verify","challenge":"a\"b"}"#;
    let event = read(&source, &signed(&source, "webhook.verify", asked, |_| {})).unwrap();
    assert!(event.is_handshake());
    let answer = source.provider().answer(&event, false).unwrap();
    assert_eq!(answer, Answer::json(r#"{"challenge":"a\"b"}"#));
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_place() {
    let text = r#"name = "Own Provider"
titel = "Own"
[[signature]]
scheme = "hmac"
header = "X Signature"
algorithm = "md5"
signed = "{timestamp}.{body}"
[event]
from = "type"
[context]
repo = "/repo"
[filters]
repos = "rep"
"#;
    let told = problems(text);
    let about = |word: &str| {
        told.iter().find(|(message, _)| message.contains(word)).unwrap_or_else(|| panic!("{word}: {told:#?}"))
    };
    assert_eq!(about("is no name:").1, "\"Own Provider\"");
    assert_eq!(about("unknown key `titel`").1, "titel");
    assert!(about("unknown key `titel`").0.contains("did you mean `title`?"));
    assert_eq!(about("is not the name of a header").1, "\"X Signature\"");
    assert!(about("`algorithm` cannot be \"md5\"").0.contains("`sha256`"));
    assert_eq!(about("belong together").1, "\"{timestamp}.{body}\"");
    assert_eq!(about("is no place").1, "\"type\"");
    assert!(about("has no field `rep`").0.contains("did you mean `repo`?"));
    assert_eq!(told.len(), 7, "{told:#?}");
    let broken = problems("name = \"own\nx");
    assert_eq!(broken.len(), 1);
    assert!(broken[0].0.starts_with("not TOML"));
}

#[test]
fn what_would_prove_nothing_is_no_definition() {
    let signature = |keys: &str| with(&format!("[[signature]]\nscheme = \"hmac\"\nheader = \"X-S\"\n{keys}"));
    for (text, expected) in [
        (with(""), "nothing would prove the sender"),
        (signature("signed = \"{timestamp}\"\ntimestamp_header = \"X-T\""), "no `{body}`"),
        (signature("timestamp_header = \"X-T\""), "one that is not signed proves nothing"),
        (signature("signed = \"{id}.{body}\""), "`id_header` and `{id}`"),
        (signature("id_header = \"X-I\""), "`id_header` and `{id}`"),
        (signature("tolerance = \"5m\""), "there is none"),
        (signature("signed = \"{url}{body}\""), "braces stand around"),
        (signature("tolerance = \"soon\"\nsigned = \"{timestamp}{body}\"\ntimestamp_header = \"X-T\""), "is no time"),
        (signature("prefix = \" x\""), "cannot stand at the beginning"),
        (signature("pairs = { separator = \"\" , signature = \"v1\" }"), "`separator` is empty"),
        (signature("pairs = {}"), "`signature` is missing"),
        (signature("[[signature]]\nscheme = \"hmac\"\nheader = \"X-S\""), "never asked"),
        (signature("[[signature]]\nscheme = \"hmac\"\nheader = \"X-O\"\nsecret = \"base64\""), "one secret for both"),
        (signature("[[signature]]\nscheme = \"ed25519\"\nheader = \"X-O\"\nsecret = \"text\""), "`hex` or `base64`"),
        (signature("[[signature]]\nscheme = \"ed25519\"\nheader = \"X-O\""), "`ed25519` beside another scheme"),
        (signature("[[signature]]\nscheme = \"bearer\"\nheader = \"X-O\""), "unknown key `header`"),
        (signature("[[handshake]]\nsigned = false"), "would take every delivery"),
        (signature("[[handshake]]"), "a handshake is known by"),
        (signature("[[handshake]]\nevent = \"ping\"\nsecret = \"/s\""), "unknown key `secret`"),
        (signature("[context]\nq = \"query:q\""), "unsigned handshakes only"),
        (signature("[context]\nevent = \"/e\""), "no field of a context"),
        (signature("[answer]\nstatus = 404"), "200 to 299"),
        (signature("[answer]\nbody = \"{/open\""), "not closed"),
        (signature("[headers]\nX-A = \"\u{1}\""), "not TOML"),
        (signature("[headers]\nX-A = \"\\u0001\""), "visible ASCII"),
        (signature("[delivery]\nid = 7"), "cannot be this"),
        (signature(&format!("[delivery]\nid = \"{}\"", "/(a)".repeat(50_000))), "4 `(a|b)` at most"),
        (signature(&format!("[delivery]\nid = \"/({})\"", "a|".repeat(100))), "more than 64 pointers"),
        ("name = \"own\"\n[[signature]]\nscheme = \"bearer\"".to_owned(), "`[event]` is missing"),
        ("name = \"own\"\n[[signature]]\nscheme = \"bearer\"\n[event]".to_owned(), "has none of"),
    ] {
        let told = problems(&text);
        assert!(told.iter().any(|(message, _)| message.contains(expected)), "{expected}: {told:?}\n{text}");
    }
}

#[test]
fn a_public_key_verifies_what_its_private_half_signed() {
    let text = with(
        "[[signature]]\nscheme = \"ed25519\"\nheader = \"X-S\"\nsigned = \"{timestamp}{body}\"\ntimestamp_header = \"X-T\"\ntimestamp_unit = \"milliseconds\"",
    );
    let provider = Declared::new(Definition::parse(&text).unwrap());
    assert_eq!(provider.signing_field(), Some("private_key"));
    let pair = provider.prepare_signing(&Secret::new(encode_hex(&[7; 32]))).unwrap();
    let source = source(provider.clone(), &[&encode_hex(pair.public().unwrap())]);
    let sent = provider.sign(Some(&pair), Unsent::new("a", r#"{"type":"a"}"#, "1", NOW));
    let sent = delivery(&sent.headers, sent.body);
    assert_eq!(read(&source, &sent).unwrap().name(), "a");
    let other = Delivery { body: r#"{"type":"b"}"#.into(), ..Delivery::clone(&sent) };
    assert_eq!(refusal(&source, &Arc::new(other)), RejectionCode::SignatureMismatch);
    let unsigned = provider.sign(Some(&source.keys()[0].key), Unsent::new("a", "{}", "1", NOW));
    assert!(!unsigned.headers.iter().any(|(name, _)| name == "x-s"), "a public key cannot sign");
    for bad in ["", "00", "zz", &"00".repeat(32)] {
        assert!(provider.prepare(&Secret::new(bad)).is_err(), "{bad}");
    }
}

#[test]
fn an_unsigned_handshake_may_be_known_by_its_query_or_its_body() {
    let own = token(
        r#"
[[handshake]]
signed = false
method = "GET"
has = "query:challenge"
answer = { content_type = "text/plain", body = "{query:challenge}" }
[[handshake]]
signed = false
equals = { "/type" = "verification" }
answer = { status = 202, body = '{"challenge":"{/challenge}"}' }
"#,
    )
    .unwrap();
    assert_eq!(own.methods(), [Method::POST, Method::GET]);
    let ask = |method: Method, query: &str, body: &'static str| {
        let base = Delivery::clone(&delivery::<&str, &str>(&[], body));
        let asked = Delivery { method, url: format!("https://hooks.example.com/webhooks/own{query}"), ..base };
        match own.greet(&[], &asked).unwrap() {
            Some(Greeting::Answer(answer)) => {
                Some((answer.status.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap()))
            }
            _ => None,
        }
    };
    assert_eq!(ask(Method::GET, "?a=b&challenge=x%20y", ""), Some((200, "x y".to_owned())));
    assert_eq!(ask(Method::GET, "?a=b", ""), None);
    assert_eq!(ask(Method::GET, "?challenge=x&challenge=y", ""), None, "of two, none is the one");
    assert_eq!(ask(Method::POST, "?challenge=x", ""), None);
    let body = r#"{"type":"verification","challenge":7}"#;
    assert_eq!(ask(Method::POST, "", body), Some((202, r#"{"challenge":"7"}"#.to_owned())));
    assert_eq!(ask(Method::POST, "", r#"{"type":"verification"}"#), None, "without what the answer needs");
    assert_eq!(ask(Method::POST, "", r#"{"type":"other","challenge":7}"#), None);
}

#[test]
fn names_are_mapped_stripped_and_spelled() {
    let text = r#"name = "own"
[[signature]]
scheme = "token"
header = "X-Token"
prefix = "Token "
[event]
from = "header:X-Event"
names = { "Old Name" = "new" }
strip_prefix = "evt:"
spelling = "snake"
[action]
from = ["/missing", "/action"]
strip_suffix = "!"
spelling = "lower"
"#;
    let own = Declared::new(Definition::parse(text).unwrap());
    let source = source(own, &["t"]);
    let name = |event: &str, body: &str| {
        let headers = [("X-Token", "Token t"), ("X-Event", event)];
        read(&source, &delivery(&headers, body.to_owned())).unwrap().event_type()
    };
    assert_eq!(name("Old Name", "{}"), "own.new");
    assert_eq!(name("evt:Issue Opened", r#"{"action":"DONE!"}"#), "own.issue_opened.done");
    assert_eq!(name("pullRequest", r#"{"action":""}"#), "own.pull_request");
    let unsigned = delivery(&[("X-Token", "t"), ("X-Event", "a")], "{}");
    assert_eq!(refusal(&source, &unsigned), RejectionCode::SignatureMismatch, "without the prefix");
    let sent = signed(&source, "new", "{}", |_| {});
    assert_eq!(sent.headers["x-event"], "Old Name");
    assert_eq!(sent.headers["x-token"], "Token t");
}

#[test]
fn what_is_not_there_is_no_value() {
    let own = token("[context]\nbranch = { from = \"/ref\", after = \"refs/heads/\" }\nboth = \"{/a}-{/b}\"\nn = \"/n\"\nbig = \"/big\"\nyes = \"/yes\"\nlist = \"/l/*\"\n").unwrap();
    let source = source(own, &["t"]);
    let context = |body: &str| {
        let event = read(&source, &delivery(&[("X-Token", "t")], body.to_owned())).unwrap();
        as_json(event.context())
    };
    assert_eq!(
        context(
            r#"{"type":"x","ref":"refs/tags/v1","a":"1","n":7,"big":123456789012345678901234567890,"yes":false,"l":["a",1,null,{}]}"#
        ),
        serde_json::json!({"event": "x", "n": 7, "big": "123456789012345678901234567890", "yes": false, "list": ["a", "1"]})
    );
    assert_eq!(
        context(r#"{"type":"x","ref":"refs/heads/main","a":"1","b":2,"n":null,"l":[]}"#),
        serde_json::json!({"event": "x", "branch": "main", "both": "1-2"})
    );
}

fn fuzzed() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "[[signature]]",
        "[event]",
        "[action]",
        "[context]",
        "[[handshake]]",
        "[delivery]",
        "[[sample]]",
        "\n",
        " = ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "from",
        "scheme",
        "\"hmac\"",
        "pairs",
        "/a/b",
        "{/a}",
        "(a|b)",
        "header:",
        "'''",
        "signed",
        "{body}",
        "tolerance",
        "\"5m\"",
        "true",
        "7",
        "é",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_text_makes_reading_a_definition_panic(text in prop_oneof![".{0,200}", fuzzed()]) {
        check(&text);
    }

    #[test]
    fn no_change_of_a_good_definition_makes_it_panic(which in 0_usize..21, at in 0_usize..5000, cut in 0_usize..60, put in "[\"'{}=\\[\\]#a-z/|()\n0-9.]{0,6}") {
        let text = shipped()[which].1;
        // What stands before the samples says the most.
        let text = &text[..text.find("[[sample]]").unwrap_or(text.len())];
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (from, to) = (floor(at % text.len()), floor(at % text.len() + cut));
        check(&format!("{}{put}{}", &text[..from], &text[to..]));
    }
}

/// Either it is read and can be used, or every mistake has a message and a place in the text.
fn check(text: &str) {
    match Definition::parse(text) {
        Ok(definition) => {
            let provider = Declared::new(definition);
            let Ok(key) = provider.prepare(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")) else { return };
            let sent = provider.sign(Some(&key), Unsent::new("a.b", r#"{"type":"a.b","update_id":1}"#, "1", NOW));
            let keys = vec![NamedKey { instance: "a".to_owned(), key }];
            let source = Arc::new(Source::new("own", Arc::new(provider.clone()), keys, false, Dedup::Id).unwrap());
            let sent = delivery(&sent.headers, sent.body);
            let _ = (verify(&source, &sent), provider.read(&sent), provider.greet(source.keys(), &sent).is_ok());
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.message.is_empty());
                assert!(problem.span.is_none_or(|span| text.get(span).is_some()));
            }
        }
    }
}
