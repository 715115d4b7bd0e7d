//! As much of PromQL as it takes to read the dashboard's and the alerts' queries.

/// What a query asks for.
#[derive(Debug, Default)]
pub struct Query {
    pub selectors: Vec<Selector>,
    /// Labels that results are grouped by.
    pub grouped_by: Vec<String>,
}

#[derive(Debug)]
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<Matcher>,
    /// The function that it is the argument of.
    pub within: Option<String>,
    pub has_range: bool,
}

#[derive(Debug)]
pub struct Matcher {
    pub label: String,
    pub operator: String,
    pub value: String,
}

const AGGREGATIONS: [&str; 3] = ["max", "min", "sum"];
const FUNCTIONS: [&str; 6] = ["histogram_quantile", "increase", "predict_linear", "rate", "time", "vector"];
const OPERATORS: [&str; 15] = ["==", "!=", ">=", "<=", ">", "<", "+", "-", "*", "/", "%", "^", "and", "or", "unless"];

/// Reads a query.
///
/// # Errors
/// What is wrong, and what is left from there.
pub fn parse(text: &str) -> Result<Query, String> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, query: Query::default(), within: None };
    parser.expression()?;
    match parser.peek() {
        None => Ok(parser.query),
        Some(_) => Err(parser.unexpected("the end")),
    }
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            'a'..='z' | 'A'..='Z' | '_' | '0'..='9' => {
                let word = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
                rest.find(|c| !word(c)).unwrap_or(rest.len())
            }
            '"' => rest[1..].find('"').ok_or_else(|| format!("an open string: {rest}"))? + 2,
            '=' | '!' | '<' | '>' => {
                if rest[1..].starts_with(['=', '~']) {
                    2
                } else {
                    1
                }
            }
            '(' | ')' | '{' | '}' | '[' | ']' | ',' | '+' | '-' | '*' | '/' | '%' | '^' => 1,
            _ => return Err(format!("what is this: {rest}")),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<String>,
    next: usize,
    query: Query,
    within: Option<String>,
}

impl Parser {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.next).map(String::as_str)
    }

    fn take(&mut self) -> Option<String> {
        self.next += 1;
        self.tokens.get(self.next - 1).cloned()
    }

    fn takes(&mut self, token: &str) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.takes(token) { Ok(()) } else { Err(self.unexpected(token)) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        format!("expected {wanted}, found {:?}", &self.tokens[self.next.min(self.tokens.len())..])
    }

    fn expression(&mut self) -> Result<(), String> {
        self.operand()?;
        while self.peek().is_some_and(|token| OPERATORS.contains(&token)) {
            self.next += 1;
            for word in ["on", "ignoring", "group_left", "group_right"] {
                if self.takes(word) {
                    self.labels()?;
                }
            }
            self.operand()?;
        }
        Ok(())
    }

    fn operand(&mut self) -> Result<(), String> {
        let Some(token) = self.take() else { return Err(self.unexpected("an operand")) };
        match token.as_str() {
            "-" => self.operand(),
            "(" => {
                self.expression()?;
                self.expect(")")
            }
            word if word.starts_with(|c: char| c.is_ascii_digit()) => {
                word.parse::<f64>().map(drop).map_err(|_| format!("no number: {word}"))
            }
            word if AGGREGATIONS.contains(&word) => self.aggregation(),
            word if FUNCTIONS.contains(&word) => self.arguments(word),
            word if self.peek() == Some("(") => Err(format!("no function that is known: {word}")),
            word if word.starts_with(|c: char| c.is_ascii_alphabetic()) => self.selector(word),
            _ => Err(format!("no operand: {token}")),
        }
    }

    fn aggregation(&mut self) -> Result<(), String> {
        if self.takes("by") {
            let labels = self.labels()?;
            self.query.grouped_by.extend(labels);
        }
        self.expect("(")?;
        self.expression()?;
        self.expect(")")
    }

    fn labels(&mut self) -> Result<Vec<String>, String> {
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.takes(")") {
            labels.push(self.take().ok_or("an open list of labels")?);
            if self.peek() != Some(")") {
                self.expect(",")?;
            }
        }
        Ok(labels)
    }

    fn arguments(&mut self, function: &str) -> Result<(), String> {
        let outside = self.within.replace(function.to_owned());
        self.expect("(")?;
        while !self.takes(")") {
            self.expression()?;
            if self.peek() != Some(")") {
                self.expect(",")?;
            }
        }
        self.within = outside;
        Ok(())
    }

    fn selector(&mut self, metric: &str) -> Result<(), String> {
        let mut selector =
            Selector { metric: metric.to_owned(), matchers: Vec::new(), within: self.within.clone(), has_range: false };
        if self.takes("{") {
            while !self.takes("}") {
                selector.matchers.push(self.matcher()?);
                if self.peek() != Some("}") {
                    self.expect(",")?;
                }
            }
        }
        if self.takes("[") {
            self.duration()?;
            self.expect("]")?;
            selector.has_range = true;
        }
        if self.takes("offset") {
            self.duration()?;
        }
        self.query.selectors.push(selector);
        Ok(())
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let (Some(label), Some(operator), Some(value)) = (self.take(), self.take(), self.take()) else {
            return Err("an open selector".to_owned());
        };
        let known = ["=", "!=", "=~", "!~"].contains(&operator.as_str());
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).filter(|_| known);
        let value = value.ok_or_else(|| format!("no matcher: {label}{operator}"))?.to_owned();
        Ok(Matcher { label, operator, value })
    }

    fn duration(&mut self) -> Result<(), String> {
        let Some(text) = self.take() else { return Err("no duration".to_owned()) };
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[number.len()..];
        let right = number.parse::<u32>().is_ok() && ["s", "m", "h", "d", "w"].contains(&unit);
        if right { Ok(()) } else { Err(format!("no duration: {text}")) }
    }
}

#[test]
fn queries_are_read() {
    let query = parse("sum by (le, source) (rate(a_bucket{b=\"c\", d=~\"e|f\"}[5m] offset 1d)) / (x > 0) or vector(0)");
    let query = query.unwrap();
    assert_eq!(query.grouped_by, ["le", "source"]);
    let seen: Vec<_> = query.selectors.iter().map(|s| (s.metric.as_str(), s.within.as_deref(), s.has_range)).collect();
    assert_eq!(seen, [("a_bucket", Some("rate"), true), ("x", None, false)]);
    assert_eq!(query.selectors[0].matchers.len(), 2);
    for wrong in ["", "sum(", "rate(a[5])", "a{b=c}", "a b", "foo(a)", "a[5m", "a ==", "a{b=\"c}", "a & b"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
