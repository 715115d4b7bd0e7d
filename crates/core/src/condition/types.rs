//! The types of values, as far as they can be known before there is an event.

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// It depends on the event.
    Any,
    Null,
    Flag,
    Whole,
    Real,
    Text,
    List,
    Map,
    Moment,
    Span,
}

/// An operator of numbers, and of a few others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// An operator of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Type {
    /// As a sentence says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Null => "null",
            Self::Flag => "true or false",
            Self::Whole => "a whole number",
            Self::Real => "a decimal number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Moment => "a time",
            Self::Span => "a duration",
        }
    }

    /// Whether a value of this type can be where `other` is wanted.
    pub(super) fn fits(self, other: Self) -> bool {
        self == Self::Any || other == Self::Any || self == other
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Whole | Self::Real)
    }

    /// Whether values of both types can be equal. Anything can be compared with null.
    pub(super) fn can_equal(self, other: Self) -> bool {
        self.fits(other) || (self.is_number() && other.is_number()) || self == Self::Null || other == Self::Null
    }

    /// Whether one of these can be less than the other.
    pub(super) fn can_order(self, other: Self) -> bool {
        let ordered = |kind| !matches!(kind, Self::Null | Self::List | Self::Map);
        ordered(self) && ordered(other) && (self.fits(other) || (self.is_number() && other.is_number()))
    }
}

impl Arithmetic {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    /// The type of the result; none if there can be none.
    pub(super) fn result(self, left: Type, right: Type) -> Option<Type> {
        use Type::{Any, List, Moment, Real, Span, Text, Whole};
        Some(match (self, left, right) {
            (_, Any, Any) => Any,
            (_, Whole, Whole) => Whole,
            (Self::Add | Self::Subtract | Self::Multiply | Self::Divide, Real, Real) => Real,
            (Self::Add, Text, Text) => Text,
            (Self::Add, List, List) => List,
            (Self::Add, Moment, Span) | (Self::Add, Span, Moment) | (Self::Subtract, Moment, Span) => Moment,
            (Self::Add | Self::Subtract, Span, Span) | (Self::Subtract, Moment, Moment) => Span,
            (_, Any, known) | (_, known, Any) => {
                let partners = [Whole, Real, Text, List, Moment, Span];
                let either =
                    |other: &Type| self.result(known, *other).is_some() || self.result(*other, known).is_some();
                return partners.iter().any(either).then_some(Any);
            }
            _ => return None,
        })
    }
}
