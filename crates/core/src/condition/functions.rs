//! The functions of expressions.

use std::borrow::Cow;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::types::Type;
use super::value::Value;
use super::{Failure, Meter};

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    ToText,
    ToWhole,
    ToReal,
    ToFlag,
    ToMoment,
    ToSpan,
    Part(Part),
}

/// A part of a time (in UTC), or a unit of a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    FullYear,
    Month,
    DayOfYear,
    DayOfMonth,
    Date,
    DayOfWeek,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `f(x)`.
    Plain,
    /// `x.f()`.
    OfValue,
    /// Both.
    Either,
}

/// What a function takes and gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) function: Function,
    pub(super) form: Form,
    /// The types that its first argument, or what it is called on, may have.
    pub(super) first: &'static [Type],
    /// The type of its second argument, if it takes one.
    pub(super) second: Option<Type>,
    pub(super) result: Type,
}

const fn of_value(
    name: &'static str,
    function: Function,
    first: &'static [Type],
    second: Option<Type>,
    result: Type,
) -> Signature {
    Signature { name, function, form: Form::OfValue, first, second, result }
}

const fn plain(name: &'static str, function: Function, first: &'static [Type], result: Type) -> Signature {
    Signature { name, function, form: Form::Plain, first, second: None, result }
}

const fn part(name: &'static str, part: Part, first: &'static [Type]) -> Signature {
    of_value(name, Function::Part(part), first, None, Type::Whole)
}

const MOMENT: &[Type] = &[Type::Moment];
const TIME: &[Type] = &[Type::Moment, Type::Span];
const SCALAR: &[Type] = &[Type::Text, Type::Whole, Type::Real, Type::Flag, Type::Moment, Type::Span];

/// All functions but `matches`, which takes a pattern and not a value.
pub(super) const SIGNATURES: [Signature; 20] = [
    Signature {
        name: "size",
        function: Function::Size,
        form: Form::Either,
        first: &[Type::Text, Type::List, Type::Map],
        second: None,
        result: Type::Whole,
    },
    of_value("contains", Function::Contains, &[Type::Text], Some(Type::Text), Type::Flag),
    of_value("startsWith", Function::StartsWith, &[Type::Text], Some(Type::Text), Type::Flag),
    of_value("endsWith", Function::EndsWith, &[Type::Text], Some(Type::Text), Type::Flag),
    plain("string", Function::ToText, SCALAR, Type::Text),
    plain("int", Function::ToWhole, &[Type::Whole, Type::Real, Type::Text, Type::Moment], Type::Whole),
    plain("double", Function::ToReal, &[Type::Real, Type::Whole, Type::Text], Type::Real),
    plain("bool", Function::ToFlag, &[Type::Flag, Type::Text], Type::Flag),
    plain("timestamp", Function::ToMoment, &[Type::Moment, Type::Text, Type::Whole], Type::Moment),
    plain("duration", Function::ToSpan, &[Type::Span, Type::Text], Type::Span),
    part("getFullYear", Part::FullYear, MOMENT),
    part("getMonth", Part::Month, MOMENT),
    part("getDayOfYear", Part::DayOfYear, MOMENT),
    part("getDayOfMonth", Part::DayOfMonth, MOMENT),
    part("getDate", Part::Date, MOMENT),
    part("getDayOfWeek", Part::DayOfWeek, MOMENT),
    part("getHours", Part::Hours, TIME),
    part("getMinutes", Part::Minutes, TIME),
    part("getSeconds", Part::Seconds, TIME),
    part("getMilliseconds", Part::Milliseconds, TIME),
];

impl Signature {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SIGNATURES.iter().find(|signature| signature.name == name)
    }

    /// How it is to be called, for a message.
    pub(super) fn usage(&self) -> String {
        let second = if self.second.is_some() { "y" } else { "" };
        match self.form {
            Form::Plain => format!("{}(x)", self.name),
            Form::OfValue | Form::Either => format!("x.{}({second})", self.name),
        }
    }
}

/// Calls a function with the arguments that its signature says.
pub(super) fn call<'a>(
    function: Function,
    arguments: &[Value<'a>],
    meter: &mut Meter<'_>,
) -> Result<Value<'a>, Failure> {
    for argument in arguments {
        if let Value::Text(text) = argument {
            meter.spend_on_text(text.len())?;
        }
    }
    let name = SIGNATURES.iter().find(|signature| signature.function == function).map_or("", |found| found.name);
    let Some(first) = arguments.first() else { return Err(Failure::Failed(format!("`{name}` wants a value"))) };
    let texts = |test: fn(&str, &str) -> bool| match arguments {
        [Value::Text(text), Value::Text(part)] => Ok(Value::Flag(test(text, part))),
        [Value::Text(_), other] | [other, ..] => Err(unsuited(name, other)),
        [] => Err(Failure::Failed(format!("`{name}` wants a value"))),
    };
    match function {
        Function::Size => Ok(Value::Whole(size(first).ok_or_else(|| unsuited(name, first))?)),
        Function::Contains => texts(|text, part| text.contains(part)),
        Function::StartsWith => texts(|text, part| text.starts_with(part)),
        Function::EndsWith => texts(|text, part| text.ends_with(part)),
        Function::ToText => to_text(first).map(Value::Text).ok_or_else(|| unsuited(name, first)),
        Function::ToWhole => to_whole(first).map(Value::Whole),
        Function::ToReal => to_real(first).map(Value::Real),
        Function::ToFlag => to_flag(first).map(Value::Flag),
        Function::ToMoment => to_moment(first).map(Value::Moment),
        Function::ToSpan => to_span(first).map(Value::Span),
        Function::Part(part) => match first {
            Value::Moment(moment) => Ok(Value::Whole(part_of_moment(part, *moment))),
            Value::Span(span) => part_of_span(part, *span).map(Value::Whole).ok_or_else(|| unsuited(name, first)),
            other => Err(unsuited(name, other)),
        },
    }
}

pub(super) fn unsuited(name: &str, value: &Value<'_>) -> Failure {
    Failure::Failed(format!("`{name}` cannot be used on {}: {value}", value.kind().name()))
}

fn unreadable(what: &str, value: &Value<'_>) -> Failure {
    Failure::Failed(format!("{value} cannot be read as {what}"))
}

fn size(value: &Value<'_>) -> Option<i64> {
    let size = match value {
        Value::Text(text) => text.chars().count(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return None,
    };
    i64::try_from(size).ok()
}

fn to_text<'a>(value: &Value<'a>) -> Option<Cow<'a, str>> {
    Some(match value {
        Value::Text(text) => text.clone(),
        Value::Flag(flag) => flag.to_string().into(),
        Value::Whole(number) => number.to_string().into(),
        Value::Real(number) => number.to_string().into(),
        Value::Moment(moment) => moment.to_string().into(),
        Value::Span(span) => format!("{}s", span.as_secs_f64()).into(),
        Value::Null | Value::List(_) | Value::Map(_) => return None,
    })
}

fn to_whole(value: &Value<'_>) -> Result<i64, Failure> {
    match value {
        Value::Whole(number) => Ok(*number),
        // The bounds are exact: the next decimal number inside them is a whole number of 64 bits.
        Value::Real(number) if *number > i64::MIN as f64 && *number < i64::MAX as f64 => Ok(*number as i64),
        Value::Text(text) => text.parse().map_err(|_| unreadable("a whole number", value)),
        Value::Moment(moment) => Ok(moment.as_second()),
        other => Err(unreadable("a whole number", other)),
    }
}

fn to_real(value: &Value<'_>) -> Result<f64, Failure> {
    match value {
        Value::Real(number) => Ok(*number),
        Value::Whole(number) => Ok(*number as f64),
        Value::Text(text) => text.parse().map_err(|_| unreadable("a decimal number", value)),
        other => Err(unreadable("a decimal number", other)),
    }
}

/// The spellings of the specification.
fn to_flag(value: &Value<'_>) -> Result<bool, Failure> {
    match value {
        Value::Flag(flag) => Ok(*flag),
        Value::Text(text) => match text.as_ref() {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(unreadable("true or false", value)),
        },
        other => Err(unreadable("true or false", other)),
    }
}

fn to_moment(value: &Value<'_>) -> Result<Timestamp, Failure> {
    let read = match value {
        Value::Moment(moment) => Some(*moment),
        Value::Whole(seconds) => Timestamp::from_second(*seconds).ok(),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| unreadable("a time such as \"2026-01-31T12:00:00Z\"", value))
}

fn to_span(value: &Value<'_>) -> Result<SignedDuration, Failure> {
    let read = match value {
        Value::Span(span) => Some(*span),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| unreadable("a duration such as \"1h30m\"", value))
}

/// Months, days of the month (`getDayOfMonth`) and of the year count from 0, days of the week from Sunday.
fn part_of_moment(part: Part, moment: Timestamp) -> i64 {
    let time = moment.to_zoned(TimeZone::UTC);
    match part {
        Part::FullYear => time.year().into(),
        Part::Month => i64::from(time.month()) - 1,
        Part::DayOfYear => i64::from(time.day_of_year()) - 1,
        Part::DayOfMonth => i64::from(time.day()) - 1,
        Part::Date => time.day().into(),
        Part::DayOfWeek => time.weekday().since(Weekday::Sunday).into(),
        Part::Hours => time.hour().into(),
        Part::Minutes => time.minute().into(),
        Part::Seconds => time.second().into(),
        Part::Milliseconds => time.millisecond().into(),
    }
}

/// The whole duration in a unit; the milliseconds are those beyond the second.
fn part_of_span(part: Part, span: SignedDuration) -> Option<i64> {
    match part {
        Part::Hours => Some(span.as_hours()),
        Part::Minutes => Some(span.as_mins()),
        Part::Seconds => Some(span.as_secs()),
        Part::Milliseconds => Some(i64::from(span.subsec_millis())),
        _ => None,
    }
}
