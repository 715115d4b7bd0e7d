//! Evaluation: a walk through the expression that pays for every step.

use std::sync::Arc;

use super::facts::Facts;
use super::functions;
use super::program::{Loop, LoopParts, Node, Path, Program, Step};
use super::types::{Arithmetic, Order};
use super::value::{List, Map, Value};
use super::{Failure, Meter};

type Outcome<'a> = Result<Value<'a>, Failure>;

/// The value of an expression for an event.
pub(super) fn evaluate<'a>(program: &'a Program, facts: &'a Facts, meter: &mut Meter<'_>) -> Outcome<'a> {
    meter.begin();
    Walk { facts, meter, item: None }.value(&program.root)
}

/// A value of the event.
pub(super) fn look_up<'a>(path: &'a Path, facts: &'a Facts) -> Outcome<'a> {
    match look_for(path, facts)? {
        Found::There(value) => Ok(value),
        Found::Missing(name) => Err(Failure::Failed(format!("`{name}` is missing"))),
    }
}

enum Found<'a> {
    There(Value<'a>),
    /// Of all that is on the path, this is the first that is not there.
    Missing(String),
}

fn look_for<'a>(path: &'a Path, facts: &'a Facts) -> Result<Found<'a>, Failure> {
    let Some(mut value) = facts.get(path.field).map_err(Failure::Failed)? else {
        return Ok(Found::Missing(path.start().text));
    };
    for (n, step) in path.steps.iter().enumerate() {
        let next = match (&value, step) {
            (Value::Map(Map::OfEvent(map)), Step::Name(name)) => map.get(name).map(Value::of_json),
            (Value::List(list), Step::Place(place)) => usize::try_from(*place).ok().and_then(|place| list.get(place)),
            (other, step) => {
                let (name, kind) = (path.up_to(n).text, other.kind().name());
                return Err(Failure::Failed(format!("`{name}` is {kind}, which has no {step}")));
            }
        };
        match next {
            Some(next) => value = next,
            None => return Ok(Found::Missing(path.up_to(n + 1).text)),
        }
    }
    Ok(Found::There(value))
}

struct Walk<'a, 'm, 's> {
    facts: &'a Facts,
    meter: &'m mut Meter<'s>,
    /// What the loop looks at; there is one loop at a time.
    item: Option<Value<'a>>,
}

impl<'a> Walk<'a, '_, '_> {
    fn value(&mut self, node: &'a Node) -> Outcome<'a> {
        self.meter.spend(1)?;
        Ok(match node {
            Node::Null => Value::Null,
            Node::Flag(flag) => Value::Flag(*flag),
            Node::Whole(number) => Value::Whole(*number),
            Node::Real(number) => Value::Real(*number),
            Node::Text(text) => Value::text(text),
            Node::Path(path) => {
                self.meter.spend(path.steps.len() as u64)?;
                look_up(path, self.facts)?
            }
            Node::Item => self.current()?,
            Node::List(parts) => self.list(parts)?,
            Node::Map(entries) => self.map(entries)?,
            Node::Select(of, name) => self.select(of, name)?,
            Node::Index(both) => self.index(both)?,
            Node::HasPath(path) => Value::Flag(self.has_path(path)?),
            Node::Has(of, name) => Value::Flag(self.has(of, name)?),
            Node::Not(of) => Value::Flag(!self.flag(of)?),
            Node::Negate(of) => self.negate(of)?,
            Node::And(both) => Value::Flag(self.either(both, false)?),
            Node::Or(both) => Value::Flag(self.either(both, true)?),
            Node::Choose(parts) => {
                let [condition, yes, no] = parts.as_ref();
                if self.flag(condition)? { self.value(yes)? } else { self.value(no)? }
            }
            Node::Arithmetic(operator, both) => self.arithmetic(*operator, both)?,
            Node::Order(order, both) => Value::Flag(self.order(*order, both)?),
            Node::Equal(both) => Value::Flag(self.equal(both)?),
            Node::Unequal(both) => Value::Flag(!self.equal(both)?),
            Node::In(both) => Value::Flag(self.is_in(both)?),
            Node::Matches(of, pattern) => {
                let subject = self.value(of)?;
                Value::Flag(pattern.is_in(&subject, self.meter)?)
            }
            Node::Call(function, arguments) => {
                let arguments = arguments.iter().map(|node| self.value(node)).collect::<Result<Vec<_>, _>>()?;
                functions::call(*function, &arguments, self.meter)?
            }
            Node::Loop(kind, parts) => self.run(*kind, parts)?,
        })
    }

    fn current(&mut self) -> Outcome<'a> {
        if let Some(Value::Text(text)) = &self.item {
            self.meter.spend_on_text(text.len())?;
        }
        self.item.clone().ok_or_else(|| Failure::Failed("there is no loop here".to_owned()))
    }

    fn flag(&mut self, node: &'a Node) -> Result<bool, Failure> {
        match self.value(node)? {
            Value::Flag(flag) => Ok(flag),
            other => Err(failed(format!("{} was expected to be true or false, and is {other}", node.name()))),
        }
    }

    fn list(&mut self, parts: &'a [Node]) -> Outcome<'a> {
        let parts = parts.iter().map(|node| self.value(node)).collect::<Result<Arc<[_]>, _>>()?;
        Ok(Value::List(List::Made(parts)))
    }

    fn map(&mut self, entries: &'a [(Node, Node)]) -> Outcome<'a> {
        let mut made: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.value(key)?;
            if !matches!(key, Value::Text(_) | Value::Whole(_) | Value::Flag(_)) {
                return Err(failed(format!("{key} cannot be the key of a map")));
            }
            for (earlier, _) in &made {
                if earlier.equals(&key, self.meter)? {
                    return Err(failed(format!("the map has the key {key} twice")));
                }
            }
            let value = self.value(value)?;
            made.push((key, value));
        }
        Ok(Value::Map(Map::Made(made.into())))
    }

    fn select(&mut self, of: &'a Node, name: &'a str) -> Outcome<'a> {
        let found = match self.value(of)? {
            Value::Map(map) => map.get(&Value::text(name), self.meter)?,
            other => return Err(failed(format!("{} is {}, which has no `{name}`", of.name(), other.kind().name()))),
        };
        found.ok_or_else(|| failed(format!("{} has no `{name}`", of.name())))
    }

    fn has(&mut self, of: &'a Node, name: &'a str) -> Result<bool, Failure> {
        match self.value(of)? {
            Value::Map(map) => Ok(map.get(&Value::text(name), self.meter)?.is_some()),
            other => Err(failed(format!("{} is {}, which has no fields", of.name(), other.kind().name()))),
        }
    }

    /// Only the last step may be missing: `has(event.body.a.b)` wants `event.body.a`.
    fn has_path(&mut self, path: &'a Path) -> Result<bool, Failure> {
        match look_for(path, self.facts)? {
            Found::There(_) => Ok(true),
            Found::Missing(name) if name == path.text => Ok(false),
            Found::Missing(name) => Err(failed(format!("`{name}` is missing"))),
        }
    }

    fn index(&mut self, both: &'a [Node; 2]) -> Outcome<'a> {
        let [of, index] = both;
        let (container, key) = (self.value(of)?, self.value(index)?);
        let found = match (&container, &key) {
            (Value::List(list), Value::Whole(place)) => usize::try_from(*place).ok().and_then(|place| list.get(place)),
            (Value::Map(map), key) => map.get(key, self.meter)?,
            (other, key) => {
                return Err(failed(format!("{} is {}, which has no [{key}]", of.name(), other.kind().name())));
            }
        };
        found.ok_or_else(|| failed(format!("{} has no [{key}]", of.name())))
    }

    fn negate(&mut self, of: &'a Node) -> Outcome<'a> {
        match self.value(of)? {
            Value::Whole(number) => {
                number.checked_neg().map(Value::Whole).ok_or_else(|| failed("a number is too large"))
            }
            Value::Real(number) => Ok(Value::Real(-number)),
            other => Err(failed(format!("there is no -{other}"))),
        }
    }

    /// `&&` (decided by false) and `||` (decided by true). As in CEL, what decides on one side makes up for a failure
    /// on the other.
    fn either(&mut self, both: &'a [Node; 2], decides: bool) -> Result<bool, Failure> {
        let [left, right] = both;
        let left = match self.flag(left) {
            Ok(flag) if flag == decides => return Ok(decides),
            Err(failure @ (Failure::Costly | Failure::Stopped)) => return Err(failure),
            left => left,
        };
        match self.flag(right) {
            Ok(flag) if flag == decides => Ok(decides),
            Ok(_) => left,
            Err(failure @ (Failure::Costly | Failure::Stopped)) => Err(failure),
            Err(failure) => Err(left.err().unwrap_or(failure)),
        }
    }

    fn equal(&mut self, both: &'a [Node; 2]) -> Result<bool, Failure> {
        let [left, right] = both;
        let (left, right) = (self.value(left)?, self.value(right)?);
        left.equals(&right, self.meter)
    }

    fn order(&mut self, order: Order, both: &'a [Node; 2]) -> Result<bool, Failure> {
        let [left, right] = both;
        let (left, right) = (self.value(left)?, self.value(right)?);
        let Some(found) = left.order(&right, self.meter)? else {
            return Err(failed(format!("{left} and {right} have no order")));
        };
        Ok(match order {
            Order::Less => found.is_lt(),
            Order::LessOrEqual => found.is_le(),
            Order::Greater => found.is_gt(),
            Order::GreaterOrEqual => found.is_ge(),
        })
    }

    fn is_in(&mut self, both: &'a [Node; 2]) -> Result<bool, Failure> {
        let [wanted, container] = both;
        let (wanted, container) = (self.value(wanted)?, self.value(container)?);
        match container {
            Value::List(list) => {
                for element in list.iter() {
                    if element.equals(&wanted, self.meter)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::Map(map) => Ok(map.get(&wanted, self.meter)?.is_some()),
            other => {
                Err(failed(format!("`in` wants a list or a map, and {} is {}", both[1].name(), other.kind().name())))
            }
        }
    }

    fn arithmetic(&mut self, operator: Arithmetic, both: &'a [Node; 2]) -> Outcome<'a> {
        let [left, right] = both;
        let (left, right) = (self.value(left)?, self.value(right)?);
        if let (Arithmetic::Add, Value::Text(a), Value::Text(b)) = (operator, &left, &right) {
            self.meter.spend_on_new_text(a.len() + b.len())?;
            return Ok(Value::Text([a.as_ref(), b.as_ref()].concat().into()));
        }
        if let (Arithmetic::Add, Value::List(a), Value::List(b)) = (operator, &left, &right) {
            self.meter.spend((a.len() + b.len()) as u64)?;
            return Ok(Value::List(List::Made(a.iter().chain(b.iter()).collect())));
        }
        let result =
            if matches!(operator, Arithmetic::Divide | Arithmetic::Remainder) && matches!(right, Value::Whole(0)) {
                return Err(failed(format!("{left} {} 0 has no value", operator.symbol())));
            } else {
                calculate(operator, &left, &right)
            };
        result.ok_or_else(|| {
            let sum = format!("{left} {} {right}", operator.symbol());
            match operator.result(left.kind(), right.kind()) {
                Some(_) => failed(format!("{sum} is too large")),
                None => failed(format!("there is no {sum}: {} and {}", left.kind().name(), right.kind().name())),
            }
        })
    }

    fn run(&mut self, kind: Loop, parts: &'a LoopParts) -> Outcome<'a> {
        let range = self.value(&parts.range)?;
        let items: Box<dyn Iterator<Item = Value<'a>>> = match &range {
            Value::List(list) => Box::new(list.iter()),
            Value::Map(map) => map.keys(),
            other => {
                return Err(failed(format!(
                    "{} is {}, which has no elements",
                    parts.range.name(),
                    other.kind().name()
                )));
            }
        };
        let result = match kind {
            Loop::All => self.fold(items, parts, false).map(Value::Flag),
            Loop::Exists => self.fold(items, parts, true).map(Value::Flag),
            Loop::ExistsOne => self.collect(items, parts).map(|found| Value::Flag(found.len() == 1)),
            Loop::Map | Loop::Filter => self.collect(items, parts).map(|found| Value::List(List::Made(found.into()))),
        };
        self.item = None;
        result
    }

    /// `all` (decided by false) and `exists` (decided by true); a failure counts only if nothing decides.
    fn fold(
        &mut self,
        items: impl Iterator<Item = Value<'a>>,
        parts: &'a LoopParts,
        decides: bool,
    ) -> Result<bool, Failure> {
        let mut result = Ok(!decides);
        for item in items {
            self.item = Some(item);
            match parts.condition.as_ref().map_or(Ok(true), |condition| self.flag(condition)) {
                Ok(flag) if flag == decides => return Ok(decides),
                Ok(_) => {}
                Err(failure @ (Failure::Costly | Failure::Stopped)) => return Err(failure),
                Err(failure) => result = Err(failure),
            }
        }
        result
    }

    fn collect(
        &mut self,
        items: impl Iterator<Item = Value<'a>>,
        parts: &'a LoopParts,
    ) -> Result<Vec<Value<'a>>, Failure> {
        let mut found = Vec::new();
        for item in items {
            self.meter.spend(1)?;
            self.item = Some(item);
            if let Some(condition) = &parts.condition
                && !self.flag(condition)?
            {
                continue;
            }
            found.push(match &parts.value {
                Some(value) => self.value(value)?,
                None => self.current()?,
            });
        }
        Ok(found)
    }
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::Failed(message.into())
}

/// None if there is no such sum, or it is too large.
fn calculate<'a>(operator: Arithmetic, left: &Value<'a>, right: &Value<'a>) -> Option<Value<'a>> {
    use Arithmetic::{Add, Divide, Multiply, Remainder, Subtract};
    Some(match (operator, left, right) {
        (Add, Value::Whole(a), Value::Whole(b)) => Value::Whole(a.checked_add(*b)?),
        (Subtract, Value::Whole(a), Value::Whole(b)) => Value::Whole(a.checked_sub(*b)?),
        (Multiply, Value::Whole(a), Value::Whole(b)) => Value::Whole(a.checked_mul(*b)?),
        (Divide, Value::Whole(a), Value::Whole(b)) => Value::Whole(a.checked_div(*b)?),
        (Remainder, Value::Whole(a), Value::Whole(b)) => Value::Whole(a.checked_rem(*b)?),
        (Add, Value::Real(a), Value::Real(b)) => Value::Real(a + b),
        (Subtract, Value::Real(a), Value::Real(b)) => Value::Real(a - b),
        (Multiply, Value::Real(a), Value::Real(b)) => Value::Real(a * b),
        (Divide, Value::Real(a), Value::Real(b)) => Value::Real(a / b),
        (Add, Value::Moment(a), Value::Span(b)) | (Add, Value::Span(b), Value::Moment(a)) => {
            Value::Moment(a.checked_add(*b).ok()?)
        }
        (Subtract, Value::Moment(a), Value::Span(b)) => Value::Moment(a.checked_sub(*b).ok()?),
        (Subtract, Value::Moment(a), Value::Moment(b)) => Value::Span(a.duration_since(*b)),
        (Add, Value::Span(a), Value::Span(b)) => Value::Span(a.checked_add(*b)?),
        (Subtract, Value::Span(a), Value::Span(b)) => Value::Span(a.checked_sub(*b)?),
        _ => return None,
    })
}
