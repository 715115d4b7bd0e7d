//! Expressions: what they are, what they say, and that none takes long.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

static GO: AtomicBool = AtomicBool::new(false);

fn facts_of(body: &Json) -> Facts {
    Facts {
        source: "github".to_owned(),
        integration_id: "acme".to_owned(),
        event_type: "github.issues.opened".to_owned(),
        idempotency_key: None,
        timestamp: 1_733_337_600,
        headers: json!({"x-github-event": "issues"}),
        context: json!({"event": "issues", "action": "opened", "repo": "acme/app", "number": 7, "labels": ["bug", "ui"]}),
        body: Body::new(body.to_string().into(), Some("application/json")),
    }
}

fn facts() -> Facts {
    facts_of(&json!({
        "issue": {"comments": 5, "title": "Grüße", "assignee": null, "score": 1.5, "id": 9_223_372_036_854_775_808_u64,
            "labels": [{"name": "bug"}, {"name": "p0"}]},
        "numbers": [1, 2, 3], "empty": [], "a-b": {"c d": true}, "at": "2026-01-31T12:00:00Z",
    }))
}

fn holds(source: &str) -> Result<bool, String> {
    let expression = Expression::condition(source).map_err(|flaw| flaw.to_string())?;
    expression.holds(&facts(), &mut Meter::new(&GO)).map_err(|failure| failure.to_string())
}

fn name(source: &str) -> Result<String, String> {
    let expression = Expression::key(source).map_err(|flaw| flaw.to_string())?;
    expression.name(&facts(), &mut Meter::new(&GO)).map_err(|failure| failure.to_string())
}

fn flaw(source: &str) -> Flaw {
    Expression::condition(source).expect_err(source)
}

#[test]
fn what_is_true_holds() {
    for source in [
        "event.body.issue.comments == 5 && event.context.repo == 'acme/app'",
        "event.source == 'github' && event.integration_id == 'acme' && event.event_type.startsWith('github.')",
        "event.headers['x-github-event'] == 'issues' && event.timestamp > 1",
        "event.body.issue.comments < 6 && event.body.issue.comments <= 5.0 && 5 >= event.body.issue.comments",
        "1 == 1.0 && 1 < 1.5 && 2 > 1.5 && 9223372036854775807 < 9223372036854775808.0 && -1.5 < -1",
        "event.body.issue.id > 9223372036854775807",
        "1 + 2 * 3 == 7 && 7 / 2 == 3 && -7 % 3 == -1 && 1.0 / 2.0 == 0.5 && 'a' + 'b' == 'ab'",
        "[1] + [2] == [1, 2] && {'a': [1]} == {'a': [1.0]} && [1, 2] != [1] && event.body.numbers == [1, 2, 3]",
        "[1, 2, 3] == event.body.numbers && [1, 2, 3] in [event.body.numbers]",
        "'bug' in event.context.labels && !('x' in event.context.labels) && 'repo' in event.context && 2 in [1, 2]",
        "event.body.issue.labels.exists(l, l.name == 'bug') && event.body.numbers.all(n, n > 0)",
        "event.body.issue.labels.exists_one(l, l['name'].startsWith('p')) && event.body.empty.all(n, false)",
        "event.body.numbers.map(n, n * 2) == [2, 4, 6] && event.body.numbers.filter(n, n > 1) == [2, 3]",
        "event.body.numbers.map(n, n > 1, n * 2) == [4, 6] && event.body['a-b'].all(k, k == 'c d')",
        "has(event.body.issue.comments) && !has(event.body.issue.nothing) && has(event.body.issue.assignee)",
        "!has(event.idempotency_key) && event.body.issue.assignee == null && {'a': {'b': 1}}.a.b == 1",
        "has({'a': 1}.a) && !has({'a': 1}.b) && [1, 2][1] == 2 && {1: 2}[1] == 2 && event.body['a-b']['c d']",
        "size(event.body.issue.title) == 5 && event.body.numbers.size() == 3 && size({'a': 1}) == 1",
        "event.body.issue.title.matches('^Gr.*e$') && matches(event.context.repo, r'^acme/\\w+$')",
        "event.body.issue.title.contains('ü') && event.context.repo.endsWith('app')",
        "string(1) == '1' && string(1.5) == '1.5' && string(true) == 'true' && int('12') == 12 && int(1.9) == 1",
        "double('1.5') == 1.5 && bool('true') && string(timestamp('2026-01-31T12:00:00Z')) == '2026-01-31T12:00:00Z'",
        "timestamp(event.body.at) > timestamp(event.timestamp) && timestamp(event.body.at) - timestamp('2026-01-31T11:00:00Z') == duration('1h')",
        "timestamp(event.body.at) + duration('1h30m') == timestamp('2026-01-31T13:30:00Z') && duration('90s') > duration('1m')",
        "timestamp(event.body.at).getFullYear() == 2026 && timestamp(event.body.at).getMonth() == 0",
        "timestamp(event.body.at).getDayOfWeek() == 6 && timestamp(event.body.at).getDate() == 31",
        "duration('90m').getHours() == 1 && duration('90m').getMinutes() == 90 && string(duration('1.5s')) == '1.5s'",
        "int(timestamp(event.body.at)) == 1769860800 && timestamp(event.body.at).getHours() == 12",
        "(event.body.issue.comments > 3 ? 'many' : 'few') == 'many'",
        "false || true && !false // a comment",
    ] {
        assert_eq!(holds(source), Ok(true), "{source}");
    }
}

#[test]
fn a_side_that_decides_makes_up_for_a_failure_on_the_other() {
    for (source, holds_) in [
        ("event.body.nothing == 1 || true", true),
        ("true || event.body.nothing == 1", true),
        ("event.body.nothing == 1 && false", false),
        ("[0, 1].exists(x, 1 / x == 1)", true),
        ("[0, 1].all(x, 1 / x == 2)", false),
    ] {
        assert_eq!(holds(source), Ok(holds_), "{source}");
    }
    assert_eq!(holds("event.body.nothing == 1 && true"), Err("`event.body.nothing` is missing".to_owned()));
    assert_eq!(holds("[0, 1].all(x, 1 / x == 1)"), Err("1 / 0 has no value".to_owned()));
}

#[test]
fn a_failure_says_what_the_event_has() {
    for (source, why) in [
        ("event.body.pull.title == 'x'", "`event.body.pull` is missing"),
        ("event.body.issue.comments.x == 1", "`event.body.issue.comments` is a whole number, which has no field \"x\""),
        ("event.body.numbers[3] == 1", "`event.body.numbers[3]` is missing"),
        ("has(event.body.pull.title)", "`event.body.pull` is missing"),
        ("event.body.issue.title < 3", "\"Grüße\" and 3 have no order"),
        ("event.body.issue.title + 1 == 2", "there is no \"Grüße\" + 1: a text and a whole number"),
        ("event.body.issue.comments", "it is a whole number, and must be true or false"),
        ("event.body.issue.comments.startsWith('x')", "`startsWith` cannot be used on a whole number: 5"),
        (
            "event.body.issue.title && true",
            "`event.body.issue.title` was expected to be true or false, and is \"Grüße\"",
        ),
        ("event.body.numbers.all(n, n.x == 1)", "an element is a whole number, which has no `x`"),
        ("event.idempotency_key == 'x'", "`event.idempotency_key` is missing"),
        ("int(event.body.issue.title) == 1", "\"Grüße\" cannot be read as a whole number"),
        ("9223372036854775807 + event.body.numbers[0] == 1", "9223372036854775807 + 1 is too large"),
        ("{'a': 1, event.context.action: 2, 'opened': 3} == {}", "the map has the key \"opened\" twice"),
    ] {
        assert_eq!(holds(source), Err(why.to_owned()), "{source}");
    }
}

#[test]
fn a_key_is_a_text_a_number_or_a_flag() {
    assert_eq!(name("event.context.repo + '#' + string(event.context.number)"), Ok("acme/app#7".to_owned()));
    assert_eq!(name("event.context.number"), Ok("7".to_owned()));
    assert_eq!(name("event.body.issue.score"), Ok("1.5".to_owned()));
    assert_eq!(name("event.context.number == 7"), Ok("true".to_owned()));
    assert_eq!(name("event.body.issue.assignee"), Err("it is null, and must be a text or a number".to_owned()));
    assert_eq!(name("event.body.numbers"), Err("it is a list, and must be a text or a number".to_owned()));
    assert_eq!(name("event.context.milestone"), Err("`event.context.milestone` is missing".to_owned()));
    assert_eq!(name("[1]"), Err("a key is a text or a number; this is a list".to_owned()));
    assert!(name(&format!("'{}'", "x".repeat(LONGEST_KEY))).is_ok());
    assert!(name(&format!("'{}' + event.source", "x".repeat(LONGEST_KEY))).unwrap_err().contains("518 bytes"));
}

#[test]
fn a_flaw_names_the_place_and_what_to_write() {
    for (source, message, at, help) in [
        ("event.boddy.x == 1", "an event has no `boddy`", ".", "event.body"),
        ("body.x == 1", "unknown name `body`", "body", "`event.body`"),
        ("nothing == 1", "unknown name `nothing`", "nothing", "event.context"),
        ("event == null", "`event` cannot be used as a whole", "event", "event.body"),
        ("'ü' == event.contxt.x", "an event has no `contxt`", ".", "event.context"),
        ("event.body.a.foo(1)", "there is no function `foo`", "(", "startsWith"),
        ("event.body.a == 1u", "there are no unsigned numbers here", "1u", "write 1"),
        ("event.body.a == b'x'", "there are no bytes here", "b'x'", "text"),
        ("event.body.a.matches(event.body.b)", "the pattern of `matches` must be written out", ".", "sender"),
        ("has(event)", "`has` wants a field", "(", "has(event.body.issue)"),
        ("'üü' == 'ü' §", "not CEL: token recognition error at: '§'", "§", ""),
        ("event.body.a\n  == 'ü' 'b'", "not CEL: unexpected ''b''", "'", ""),
        ("", "the expression is empty", "", "leave the key out"),
    ] {
        let found = flaw(source);
        assert_eq!((found.message.as_str(), &source[found.at.clone()]), (message, at), "{source}");
        assert!(found.help.as_deref().unwrap_or_default().contains(help), "{source}: {found:?}");
    }
}

#[test]
fn what_can_never_work_is_a_flaw() {
    for (source, message) in [
        ("event.body.a ==", "not CEL: unexpected end"),
        ("event.body..x", "not CEL: no viable alternative at input '..'"),
        ("event.body.a = 1", "not CEL: token recognition error at: '= '"),
        ("1 + 1", "a condition is true or false; this is a whole number"),
        ("event.source", "a condition is true or false; this is a text"),
        ("event.source + 1 == 'x'", "`+` cannot be used between a text and a whole number"),
        ("event.source < 1", "a text and a whole number have no order"),
        ("event.timestamp == '1'", "a whole number is never equal to a text"),
        ("!event.source", "`!` wants true or false; this is a text"),
        ("event.source && true", "`&&` wants true or false; this is a text"),
        ("-'a' == 1", "`-` wants a whole number or a decimal number; this is a text"),
        ("'a' in event.source", "`in` wants a list or a map; this is a text"),
        ("event.source.x == 1", "`event.source` is a text and has no fields"),
        ("event.source.all(x, true)", "`all` wants a list or a map; this is a text"),
        ("size(1) == 1", "`size` wants a text or a list or a map; this is a whole number"),
        ("contains('a', 'b')", "`contains` is used as x.contains(y)"),
        ("'a'.string() == 'a'", "`string` is used as string(x)"),
        ("'a'.contains('b', 'c')", "`contains` is used as x.contains(y)"),
        ("[1].map(x)", "`map` is used as list.map(x, value)"),
        ("[1].all(x)", "`all` is used as list.all(x, condition)"),
        ("[1].all(event, true)", "`event` cannot be the name of an element"),
        ("[1].all(1, true)", "`all` wants a name for the element first: list.all(x, …)"),
        ("[1].all(x, true) && x == 1", "unknown name `x`"),
        ("'a'.matches('(')", "not a regular expression: error: unclosed group"),
        ("x{a: 1}", "there are no message types here"),
    ] {
        assert_eq!(flaw(source).message, message, "{source}");
    }
}

#[test]
fn loops_inside_or_behind_loops_are_refused() {
    for source in [
        "event.body.a.all(x, event.body.b.exists(y, x == y))",
        "event.body.a.map(x, x.b).exists(y, y == 1)",
        "[1].filter(x, size(event.body.a.map(y, y)) > 0) == []",
        "size([event.body.a.map(x, x)].map(y, y.map(z, z))) == 1",
        "event.body.a.existsOne(x, [1].all(y, true))",
    ] {
        assert!(flaw(source).message.contains("cannot be inside or behind another"), "{source}");
    }
    assert_eq!(holds("[1].all(x, x == 1) && [2].exists(x, x == 2)"), Ok(true), "beside each other they can be");
}

#[test]
fn nothing_that_is_deep_or_long_reaches_the_parser() {
    for deep in ["(".repeat(200_000), "[".repeat(4000), "{1:".repeat(1300), "size(".repeat(800), "-(".repeat(2000)] {
        let source = format!("{deep}true");
        let message = flaw(&source).message;
        assert!(message.contains("nested deeper") || message.contains("are the most"), "{message}");
    }
    let chains = ["!".repeat(4000) + "true", "-".repeat(4000) + "1", "true".to_owned() + &" && true".repeat(500)];
    let more = ["event.body".to_owned() + &".b".repeat(2000), "1".to_owned() + &"+1".repeat(2000), "a?".repeat(1300)];
    let rest = ["event.body".to_owned() + &"[0]".repeat(1300), "true?true:".repeat(400) + "true"];
    for source in chains.iter().chain(&more).chain(&rest) {
        let _ = Expression::condition(source);
    }
    let long = vec!["1"; MOST_PARTS].join(",");
    assert!(flaw(&format!("1 in [{long}]")).message.contains("more than 512 parts"));
}

#[test]
fn patterns_are_bounded() {
    assert!(flaw(&format!("'a'.matches('{}')", "a".repeat(LONGEST_PATTERN + 1))).message.contains("256"));
    assert!(flaw("'a'.matches('((a{100}){100}){100}')").message.contains("too large"));
    let long = facts_of(&json!({"text": "x".repeat(LONGEST_SUBJECT + 1)}));
    let expression = Expression::condition("event.body.text.matches('x')").unwrap();
    let failure = expression.holds(&long, &mut Meter::new(&GO)).unwrap_err().to_string();
    assert!(failure.contains("searches 65536 bytes at most"), "{failure}");
}

/// Expressions that would take minutes, over the largest bodies that they get.
#[test]
fn what_would_take_long_is_cut_off() {
    let numbers: Vec<u32> = (0..90_000).collect();
    let list = facts_of(&json!({"a": numbers, "b": [-1], "text": "x".repeat(60_000), "copies": vec!["y"; 50_000]}));
    for source in [
        "event.body.a.all(x, !(x in event.body.b) && x in event.body.a)",
        "event.body.a.exists(x, -1 in event.body.a)",
        "event.body.a.all(x, event.body.a == event.body.a)",
        "event.body.a.all(x, !event.body.text.matches('(x+x+)+y'))",
        "event.body.a.all(x, !event.body.text.contains('y'))",
        "size(event.body.copies.map(x, event.body.text + x)) == 0",
        "event.body.a.all(x, size(event.body.a + event.body.a) > 0)",
        "event.body.copies.all(x, string(event.body.text) != x && event.body.text < 'z')",
    ] {
        let expression = Expression::condition(source).unwrap();
        let mut meter = Meter::new(&GO);
        assert_eq!(expression.holds(&list, &mut meter), Err(Failure::Costly), "{source}");
        let cheap = Expression::condition("event.body.b == [-1]").unwrap();
        assert_eq!(cheap.holds(&list, &mut meter), Ok(true), "the others of the event still have their share");
    }
    let expression = Expression::condition("event.body.a.all(x, x in event.body.a)").unwrap();
    let mut meter = Meter::new(&GO);
    let tries = (0..10).map(|_| expression.holds(&list, &mut meter)).collect::<Vec<_>>();
    assert!(tries.iter().all(|result| *result == Err(Failure::Costly)));
    let cheap = Expression::condition("event.body.b == [-1]").unwrap();
    assert_eq!(cheap.holds(&list, &mut meter), Err(Failure::Costly), "all of an event together are bounded, too");
}

#[test]
fn evaluation_ends_when_nobody_waits_for_it() {
    let stop = AtomicBool::new(true);
    let expression = Expression::condition("event.body.numbers.all(x, x > 0)").unwrap();
    assert_eq!(expression.holds(&facts(), &mut Meter::new(&stop)), Err(Failure::Stopped));
}

#[test]
fn the_body_is_json_or_a_form_or_text() {
    let read = |bytes: &[u8], content_type| {
        let mut facts = facts();
        facts.body = Body::new(bytes.to_vec().into(), content_type);
        let expression = Expression::key("string(event.body.a)").unwrap();
        expression.name(&facts, &mut Meter::new(&GO)).or_else(|_| {
            let whole = Expression::key("event.body").unwrap();
            whole.name(&facts, &mut Meter::new(&GO)).map_err(|failure| failure.to_string())
        })
    };
    let form = Some("application/x-www-form-urlencoded; charset=utf-8");
    assert_eq!(read(b"\xef\xbb\xbf{\"a\":1}", None), Ok("1".to_owned()));
    assert_eq!(read(b"payload=%7B%22a%22%3A2%7D", form), Ok("2".to_owned()));
    assert_eq!(read(b"a=3&a=4", form), Ok("3".to_owned()));
    assert_eq!(read(b"hello", None), Ok("hello".to_owned()));
    assert_eq!(read(b"", None), Ok(String::new()));
    assert_eq!(read(b"\xff", None), Err("`event.body` is not text".to_owned()));
    assert!(read(b"{\"a\":", None).unwrap_err().contains("no JSON that can be read"));
    assert!(read("[".repeat(1000).as_bytes(), None).unwrap_err().contains("no JSON that can be read"));
    assert!(read(&vec![b' '; LARGEST_BODY + 1], None).unwrap_err().contains("1048576 at most"));
}

#[test]
fn operands_are_shown_with_their_values() {
    let expression = Expression::condition(
        "event.body.issue.comments < 3 && event.body.issue.comments > 1 && event.body.numbers == [] \
         && event.body.issue == {} && event.body.x == 1 && has(event.body.y.z) && event.body['a-b'].x == 1",
    );
    assert_eq!(
        expression.unwrap().operands(&facts()),
        [
            "event.body.issue.comments = 5",
            "event.body.numbers = [1,2,3]",
            "event.body.issue = a map of 6",
            "`event.body.x` is missing",
            "event.body.y.z: `event.body.y` is missing",
            "`event.body[\"a-b\"].x` is missing",
        ]
    );
}

#[test]
fn an_expression_that_was_stored_is_read_again() {
    let written = Expression::condition("event.source == 'github'").unwrap();
    let read: Expression = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
    assert_eq!(read, written);
    assert_eq!(read.holds(&facts(), &mut Meter::new(&GO)), Ok(true));
    let broken: Expression = serde_json::from_str("\"event.nothing\"").unwrap();
    let failure = broken.holds(&facts(), &mut Meter::new(&GO)).unwrap_err().to_string();
    assert_eq!(failure, "this version cannot read it: an event has no `nothing`");
}

fn soup() -> impl Strategy<Value = String> {
    let tokens = prop::sample::select(vec![
        "event",
        ".body",
        ".context",
        ".x",
        "[0]",
        "['a']",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "?",
        ":",
        ",",
        "&&",
        "||",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "==",
        "!=",
        "<",
        "in ",
        "1",
        "0",
        "1.5",
        "'a'",
        "\"b\"",
        "r'\\'",
        "'''",
        "true",
        "null",
        ".all(x,",
        ".map(x,",
        ".exists(x,",
        "x",
        "has(",
        "size(",
        ".matches('a+')",
        "string(",
        "1u",
        "b'c'",
        " ",
        "\n",
        "//",
        "ü",
        "\\",
        "-9223372036854775808",
        "9223372036854775807",
        "duration('1h')",
        "timestamp(1)",
        "int(",
    ]);
    prop::collection::vec(tokens, 0..30).prop_map(|tokens| tokens.concat())
}

/// Expressions that are mostly right.
fn sensible() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "event.body",
        "event.body.a",
        "event.body.a[0]",
        "event.body.b.c",
        "event.context.number",
        "event.timestamp",
        "1",
        "-1",
        "0",
        "1.5",
        "'a'",
        "null",
        "true",
        "[1, 'a', null]",
        "{'a': 1}",
        "9223372036854775807",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        let operators = vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"];
        prop_oneof![
            (inner.clone(), prop::sample::select(operators), inner.clone())
                .prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.exists(x, x == {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.map(x, [x, {b}])")),
            inner.clone().prop_map(|a| format!("size({a})")),
            inner.clone().prop_map(|a| format!("string({a})")),
            inner.clone().prop_map(|a| format!("int({a})")),
            inner.clone().prop_map(|a| format!("(!{a})")),
            inner.prop_map(|a| format!("has({a}.c)")),
        ]
    })
}

fn document() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[abc]", inner, 0..4).prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// Whatever is a condition can be evaluated; whatever is not says where it is wrong.
fn try_out(source: &str, body: &Json) -> Result<(), TestCaseError> {
    match Expression::condition(source) {
        Ok(expression) => {
            let facts = facts_of(body);
            let first = expression.holds(&facts, &mut Meter::new(&GO));
            prop_assert_eq!(expression.holds(&facts, &mut Meter::new(&GO)), first, "twice the same");
            let _ = expression.operands(&facts);
        }
        Err(flaw) => {
            prop_assert!(source.get(flaw.at.clone()).is_some(), "{:?} in {:?}", flaw, source);
            prop_assert!(!flaw.message.contains("cannot be read"), "{:?}", flaw);
        }
    }
    let _ = Expression::key(source);
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_has_a_flaw(source in ".{0,60}", body in document()) {
        try_out(&source, &body)?;
    }

    #[test]
    fn any_tokens_are_an_expression_or_have_a_flaw(source in soup(), body in document()) {
        try_out(&source, &body)?;
    }

    #[test]
    fn expressions_that_are_mostly_right_are_evaluated_or_fail(source in sensible(), body in document()) {
        try_out(&source, &body)?;
    }
}
