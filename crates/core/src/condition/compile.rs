//! From a source to a checked expression: known names, types that fit, nothing that could take forever.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};

use super::Flaw;
use super::facts::Field;
use super::fence::{self, MOST_PARTS};
use super::functions::{Form, SIGNATURES, Signature};
use super::pattern::Pattern;
use super::places::Places;
use super::program::{Loop, LoopParts, Node, Path, Program, Step};
use super::types::{Arithmetic, Order, Type};

/// The stack on which sources are parsed, in bytes: enough for the deepest that the fence lets through, also without
/// optimisation.
const STACK: usize = 16 << 20;

const LOOPS: &str = "all, exists, exists_one, map and filter";

/// Compiles a source.
pub(super) fn compile(source: &str) -> Result<Program, Flaw> {
    fence::check(source)?;
    let unreadable = |why: &str| Flaw { message: why.to_owned(), help: None, at: 0..source.len() };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel".to_owned()).stack_size(STACK);
        let compiling = thread.spawn_scoped(scope, || parse(source));
        let compiling = compiling.map_err(|_| unreadable("there is no thread left to read the expression on"))?;
        compiling.join().unwrap_or_else(|_| Err(unreadable("the expression cannot be read")))
    })
}

fn parse(source: &str) -> Result<Program, Flaw> {
    let places = Places(source);
    // Without its macros, so that `has` and the loops come as they are written.
    let parser = cel::Env::default().with_optional_support(false).parser();
    let (expression, info) = parser.parse_with_source_info(source).map_err(|errors| places.syntax(&errors))?;
    let mut lowering = Lowering { places, info, parts: 0, item: None, in_loop: None, paths: Vec::new() };
    let (root, kind) = lowering.lower(&expression)?;
    Ok(Program { root, kind, paths: lowering.paths })
}

struct Lowering<'s> {
    places: Places<'s>,
    info: SourceInfo,
    parts: usize,
    /// The name of the loop's element, while in its body.
    item: Option<String>,
    /// The loop that is being read.
    in_loop: Option<String>,
    paths: Vec<Path>,
}

type Typed = Result<(Node, Type), Flaw>;

impl Lowering<'_> {
    fn flaw(&self, at: &IdedExpr, message: impl Into<String>) -> Flaw {
        let at = match self.info.offset_for(at.id) {
            Some((start, end)) => self.places.span(start as usize, end as usize + 1),
            None => 0..self.places.0.len(),
        };
        Flaw { message: message.into(), help: None, at }
    }

    fn lower(&mut self, e: &IdedExpr) -> Typed {
        self.parts += 1;
        if self.parts > MOST_PARTS {
            let flaw = self.flaw(e, format!("the expression has more than {MOST_PARTS} parts"));
            return Err(flaw.help("plain filters such as `repos` take long lists"));
        }
        if let Some(path) = self.path(e)? {
            let kind = if path.steps.is_empty() { path.field.kind() } else { Type::Any };
            self.note(&path);
            return Ok((Node::Path(path), kind));
        }
        match &e.expr {
            Expr::Literal(value) => self.literal(e, value),
            Expr::Ident(name) if self.item.as_ref() == Some(name) => Ok((Node::Item, Type::Any)),
            Expr::Ident(name) => Err(self.unknown_name(e, name)),
            Expr::Select(select) => {
                let (of, kind) = self.lower(&select.operand)?;
                self.want(&select.operand, kind, &[Type::Map], &format!("`.{}` wants", select.field))?;
                Ok((Node::Select(Box::new(of), select.field.clone()), Type::Any))
            }
            Expr::List(list) => {
                let parts = list.elements.iter().map(|part| Ok(self.lower(part)?.0)).collect::<Result<_, _>>()?;
                Ok((Node::List(parts), Type::List))
            }
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { return Err(self.no_messages(e)) };
                    let (key, kind) = self.lower(&entry.key)?;
                    self.want(&entry.key, kind, &[Type::Text, Type::Whole, Type::Flag], "the key of a map is")?;
                    entries.push((key, self.lower(&entry.value)?.0));
                }
                Ok((Node::Map(entries), Type::Map))
            }
            Expr::Call(call) => self.call(e, call),
            Expr::Struct(_) => Err(self.no_messages(e)),
            Expr::Comprehension(_) | Expr::Unspecified => Err(self.flaw(e, "this cannot be read")),
        }
    }

    fn no_messages(&self, e: &IdedExpr) -> Flaw {
        self.flaw(e, "there are no message types here")
    }

    fn unknown_name(&self, e: &IdedExpr, name: &str) -> Flaw {
        if name == "event" {
            let flaw = self.flaw(e, "`event` cannot be used as a whole");
            return flaw.help(format!("name one of its fields: {}", Field::names()));
        }
        let flaw = self.flaw(e, format!("unknown name `{name}`"));
        match Field::named(name) {
            Some(field) => flaw.help(format!("did you mean `event.{}`?", field.name())),
            None => flaw.help(format!("what there is: {}", Field::names())),
        }
    }

    fn literal(&self, e: &IdedExpr, value: &LiteralValue) -> Typed {
        Ok(match value {
            LiteralValue::Null => (Node::Null, Type::Null),
            LiteralValue::Boolean(flag) => (Node::Flag(*flag.inner()), Type::Flag),
            LiteralValue::Int(number) => (Node::Whole(*number.inner()), Type::Whole),
            LiteralValue::Double(number) => (Node::Real(*number.inner()), Type::Real),
            LiteralValue::String(text) => (Node::Text(text.inner().to_owned()), Type::Text),
            LiteralValue::UInt(number) => {
                let flaw = self.flaw(e, "there are no unsigned numbers here");
                return Err(flaw.help(format!("write {}", number.inner())));
            }
            LiteralValue::Bytes(_) => return Err(self.flaw(e, "there are no bytes here").help("write a text")),
        })
    }

    fn note(&mut self, path: &Path) {
        if !self.paths.iter().any(|known| known.text == path.text) {
            self.paths.push(path.clone());
        }
    }

    /// The value of the event that is named: fields and literal indexes behind `event.FIELD`.
    fn path(&mut self, e: &IdedExpr) -> Result<Option<Path>, Flaw> {
        let (mut steps, mut at) = (Vec::new(), e);
        loop {
            at = match &at.expr {
                Expr::Select(select) => {
                    if matches!(&select.operand.expr, Expr::Ident(name) if name == "event") {
                        return self.path_of(at, &select.field, steps).map(Some);
                    }
                    steps.push(Step::Name(select.field.clone()));
                    &select.operand
                }
                Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                    match &call.args[1].expr {
                        Expr::Literal(LiteralValue::String(name)) => steps.push(Step::Name(name.inner().to_owned())),
                        Expr::Literal(LiteralValue::Int(place)) => steps.push(Step::Place(*place.inner())),
                        _ => return Ok(None),
                    }
                    &call.args[0]
                }
                _ => return Ok(None),
            }
        }
    }

    /// `steps` come last one first.
    fn path_of(&mut self, e: &IdedExpr, field: &str, mut steps: Vec<Step>) -> Result<Path, Flaw> {
        let Some(field) = Field::named(field) else {
            let flaw = self.flaw(e, format!("an event has no `{field}`"));
            return Err(flaw.help(format!("what there is: {}", Field::names())));
        };
        if !steps.is_empty() && !Type::Map.fits(field.kind()) {
            return Err(self.flaw(e, format!("`event.{}` is {} and has no fields", field.name(), field.kind().name())));
        }
        self.parts += steps.len();
        if self.parts > MOST_PARTS {
            return Err(self.flaw(e, format!("the expression has more than {MOST_PARTS} parts")));
        }
        steps.reverse();
        let whole = steps.len();
        Ok(Path { field, steps, text: String::new() }.up_to(whole))
    }

    /// Refuses a value that cannot be of any of these types. `why` goes on with them.
    fn want(&self, e: &IdedExpr, kind: Type, wanted: &[Type], why: &str) -> Result<(), Flaw> {
        if wanted.iter().any(|wanted| kind.fits(*wanted)) {
            return Ok(());
        }
        let names = wanted.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or ");
        Err(self.flaw(e, format!("{why} {names}; this is {}", kind.name())))
    }

    fn call(&mut self, e: &IdedExpr, call: &CallExpr) -> Typed {
        let name = call.func_name.as_str();
        match (&call.target, call.args.as_slice()) {
            (None, [of]) if name == operators::LOGICAL_NOT => {
                Ok((Node::Not(Box::new(self.flag(of, "!")?)), Type::Flag))
            }
            (None, [of]) if name == operators::NEGATE => {
                let (node, kind) = self.lower(of)?;
                self.want(of, kind, &[Type::Whole, Type::Real], "`-` wants")?;
                Ok((Node::Negate(Box::new(node)), kind))
            }
            (None, [condition, yes, no]) if name == operators::CONDITIONAL => {
                let condition = self.flag(condition, "? :")?;
                let ((yes, kind), (no, other)) = (self.lower(yes)?, self.lower(no)?);
                Ok((Node::Choose(Box::new([condition, yes, no])), if kind == other { kind } else { Type::Any }))
            }
            (None, [left, right]) if name.starts_with('_') || name.starts_with('@') => {
                self.operator(e, name, left, right)
            }
            (None, [of]) if name == operators::HAS => self.has(e, of),
            (Some(range), arguments) if Loop::named(name).is_some() => self.read_loop(e, name, range, arguments),
            (target, arguments) => {
                let of = target.as_deref();
                self.function(e, name, of, arguments)
            }
        }
    }

    fn flag(&mut self, e: &IdedExpr, operator: &str) -> Result<Node, Flaw> {
        let (node, kind) = self.lower(e)?;
        self.want(e, kind, &[Type::Flag], &format!("`{operator}` wants"))?;
        Ok(node)
    }

    fn operator(&mut self, e: &IdedExpr, name: &str, left: &IdedExpr, right: &IdedExpr) -> Typed {
        match name {
            operators::LOGICAL_AND => {
                return Ok((Node::And(Box::new([self.flag(left, "&&")?, self.flag(right, "&&")?])), Type::Flag));
            }
            operators::LOGICAL_OR => {
                return Ok((Node::Or(Box::new([self.flag(left, "||")?, self.flag(right, "||")?])), Type::Flag));
            }
            _ => {}
        }
        let ((a, of_a), (b, of_b)) = (self.lower(left)?, self.lower(right)?);
        let both = Box::new([a, b]);
        if let Some(operator) = arithmetic(name) {
            let Some(kind) = operator.result(of_a, of_b) else {
                let kinds = format!("{} and {}", of_a.name(), of_b.name());
                return Err(self.flaw(e, format!("`{}` cannot be used between {kinds}", operator.symbol())));
            };
            return Ok((Node::Arithmetic(operator, both), kind));
        }
        if let Some(order) = order(name) {
            if !of_a.can_order(of_b) {
                return Err(self.flaw(e, format!("{} and {} have no order", of_a.name(), of_b.name())));
            }
            return Ok((Node::Order(order, both), Type::Flag));
        }
        match name {
            operators::EQUALS | operators::NOT_EQUALS => {
                if !of_a.can_equal(of_b) {
                    return Err(self.flaw(e, format!("{} is never equal to {}", of_a.name(), of_b.name())));
                }
                let node = if name == operators::EQUALS { Node::Equal(both) } else { Node::Unequal(both) };
                Ok((node, Type::Flag))
            }
            operators::IN => {
                self.want(right, of_b, &[Type::List, Type::Map], "`in` wants")?;
                Ok((Node::In(both), Type::Flag))
            }
            operators::INDEX => {
                self.want(left, of_a, &[Type::List, Type::Map], "`[…]` wants")?;
                Ok((Node::Index(both), Type::Any))
            }
            _ => Err(self.flaw(e, "there is no such operator here")),
        }
    }

    fn has(&mut self, e: &IdedExpr, of: &IdedExpr) -> Typed {
        let Expr::Select(select) = &of.expr else {
            return Err(self.flaw(e, "`has` wants a field").help("for example has(event.body.issue)"));
        };
        if let Some(path) = self.path(of)? {
            self.note(&path);
            return Ok((Node::HasPath(path), Type::Flag));
        }
        let (node, kind) = self.lower(&select.operand)?;
        self.want(&select.operand, kind, &[Type::Map], "`has` wants a field of")?;
        Ok((Node::Has(Box::new(node), select.field.clone()), Type::Flag))
    }

    fn read_loop(&mut self, e: &IdedExpr, name: &str, range: &IdedExpr, arguments: &[IdedExpr]) -> Typed {
        let Some(kind) = Loop::named(name) else { return Err(self.unknown_function(e, name)) };
        if let Some(outer) = &self.in_loop {
            let message =
                format!("`{name}` inside or before `{outer}`: of {LOOPS}, one cannot be inside or behind another");
            return Err(self.flaw(e, message).help("put both conditions into one: list.exists(x, x.a && x.b)"));
        }
        self.in_loop = Some(name.to_owned());
        let (range_node, range_kind) = self.lower(range)?;
        self.want(range, range_kind, &[Type::List, Type::Map], &format!("`{name}` wants"))?;
        let (item, condition, value) = match (kind, arguments) {
            (Loop::Map, [item, value]) => (item, None, Some(value)),
            (Loop::Map, [item, condition, value]) => (item, Some(condition), Some(value)),
            (Loop::Map, _) => return Err(self.flaw(e, "`map` is used as list.map(x, value)")),
            (_, [item, condition]) => (item, Some(condition), None),
            _ => return Err(self.flaw(e, format!("`{name}` is used as list.{name}(x, condition)"))),
        };
        let Expr::Ident(own) = &item.expr else {
            return Err(self.flaw(item, format!("`{name}` wants a name for the element first: list.{name}(x, …)")));
        };
        if own == "event" || own.starts_with('.') {
            return Err(self.flaw(item, format!("`{own}` cannot be the name of an element")));
        }
        self.item = Some(own.clone());
        let condition = condition.map(|condition| self.flag(condition, name)).transpose()?;
        let value = value.map(|value| Ok(self.lower(value)?.0)).transpose()?;
        (self.item, self.in_loop) = (None, None);
        Ok((Node::Loop(kind, Box::new(LoopParts { range: range_node, condition, value })), kind.kind()))
    }

    fn function(&mut self, e: &IdedExpr, name: &str, target: Option<&IdedExpr>, arguments: &[IdedExpr]) -> Typed {
        let all: Vec<&IdedExpr> = target.into_iter().chain(arguments).collect();
        if name == "matches" {
            return self.matches(e, &all);
        }
        let Some(signature) = Signature::named(name) else { return Err(self.unknown_function(e, name)) };
        let form = if target.is_some() { Form::OfValue } else { Form::Plain };
        let wanted = 1 + usize::from(signature.second.is_some());
        if (signature.form != Form::Either && signature.form != form) || all.len() != wanted {
            return Err(self.flaw(e, format!("`{name}` is used as {}", signature.usage())));
        }
        let mut nodes = Vec::with_capacity(all.len());
        for (n, argument) in all.into_iter().enumerate() {
            let (node, kind) = self.lower(argument)?;
            let wanted = if n == 0 { signature.first } else { signature.second.as_slice() };
            self.want(argument, kind, wanted, &format!("`{name}` wants"))?;
            nodes.push(node);
        }
        Ok((Node::Call(signature.function, nodes.into()), signature.result))
    }

    fn matches(&mut self, e: &IdedExpr, arguments: &[&IdedExpr]) -> Typed {
        let [subject, pattern] = arguments else {
            return Err(self.flaw(e, "`matches` is used as text.matches(\"pattern\")"));
        };
        let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
            let flaw = self.flaw(pattern, "the pattern of `matches` must be written out");
            return Err(flaw.help("a sender must not choose what is searched for; `contains` takes any text"));
        };
        let compiled = Pattern::new(text.inner()).map_err(|message| self.flaw(pattern, message))?;
        let (node, kind) = self.lower(subject)?;
        self.want(subject, kind, &[Type::Text], "`matches` wants")?;
        Ok((Node::Matches(Box::new(node), Box::new(compiled)), Type::Flag))
    }

    fn unknown_function(&self, e: &IdedExpr, name: &str) -> Flaw {
        let names = SIGNATURES.map(|signature| signature.name).join(", ");
        let flaw = self.flaw(e, format!("there is no function `{name}`"));
        flaw.help(format!("the functions are has, matches, {LOOPS}, {names}"))
    }
}

impl Flaw {
    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    Some(match name {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Remainder,
        _ => return None,
    })
}

fn order(name: &str) -> Option<Order> {
    Some(match name {
        operators::LESS => Order::Less,
        operators::LESS_EQUALS => Order::LessOrEqual,
        operators::GREATER => Order::Greater,
        operators::GREATER_EQUALS => Order::GreaterOrEqual,
        _ => return None,
    })
}
