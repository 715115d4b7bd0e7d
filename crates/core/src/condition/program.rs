//! A checked expression, ready to be evaluated.

use std::fmt;

use super::facts::Field;
use super::functions::Function;
use super::pattern::Pattern;
use super::types::{Arithmetic, Order, Type};

/// A checked expression.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) root: Node,
    /// What its value is, as far as that is known.
    pub(super) kind: Type,
    /// Every value of the event that it reads, each once, as they come.
    pub(super) paths: Vec<Path>,
}

/// A value of the event: `event.body.labels[0].name`.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) field: Field,
    pub(super) steps: Vec<Step>,
    /// As it is shown.
    pub(super) text: String,
}

/// A step into a map or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Name(String),
    Place(i64),
}

impl Path {
    /// The first steps of it.
    pub(super) fn up_to(&self, steps: usize) -> Self {
        let steps = self.steps[..steps].to_vec();
        let text = steps.iter().fold(format!("event.{}", self.field.name()), |text, step| text + &step.text());
        Self { field: self.field, steps, text }
    }

    /// The field of the event that it starts with.
    pub(super) fn start(&self) -> Self {
        self.up_to(0)
    }
}

impl Step {
    /// As it is written behind a path.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Name(name) if is_identifier(name) => format!(".{name}"),
            Self::Name(name) => format!("[{name:?}]"),
            Self::Place(place) => format!("[{place}]"),
        }
    }
}

/// As a sentence names what is not there.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "field {name:?}"),
            Self::Place(place) => write!(f, "element {place}"),
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// One part of an expression.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text(String),
    Path(Path),
    /// The element that a loop looks at.
    Item,
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Select(Box<Node>, String),
    Index(Box<[Node; 2]>),
    /// Whether a value of the event is there.
    HasPath(Path),
    /// Whether a map has this field.
    Has(Box<Node>, String),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Choose(Box<[Node; 3]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    Order(Order, Box<[Node; 2]>),
    Equal(Box<[Node; 2]>),
    Unequal(Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Matches(Box<Node>, Box<Pattern>),
    Call(Function, Box<[Node]>),
    Loop(Loop, Box<LoopParts>),
}

impl Node {
    /// As a sentence names it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Path(path) => format!("`{}`", path.text),
            Self::Item => "an element".to_owned(),
            Self::Select(_, name) => format!("`{name}`"),
            _ => "a part of it".to_owned(),
        }
    }
}

/// What a loop makes of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loop {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

/// The parts of a loop.
#[derive(Debug)]
pub(super) struct LoopParts {
    /// What it goes through: the elements of a list, or the keys of a map.
    pub(super) range: Node,
    /// The elements it takes; none: all.
    pub(super) condition: Option<Node>,
    /// What it makes of each, for `map`.
    pub(super) value: Option<Node>,
}

impl Loop {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "exists" => Self::Exists,
            "exists_one" | "existsOne" => Self::ExistsOne,
            "map" => Self::Map,
            "filter" => Self::Filter,
            _ => return None,
        })
    }

    pub(super) fn kind(self) -> Type {
        match self {
            Self::All | Self::Exists | Self::ExistsOne => Type::Flag,
            Self::Map | Self::Filter => Type::List,
        }
    }
}
