//! A campaign's content as Handlebars templates, rendered for one recipient.
//!
//! The language is Handlebars with its usual block helpers and comparisons, and nothing that reaches out of the
//! template: no partials, no decorators, no raw blocks, no logging.
//!
//! Templates and contexts come from customers, so compiling and rendering are bounded in time, in depth and in
//! output. What a helper may cost is known before it runs: each block starts with a hidden expression that takes the
//! weight of one round of it from the render's budget. A template without blocks is weighed once.

mod syntax;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderErrorReason, Renderable,
};
use model::campaign::Content;
use model::execution::Personalization;
use model::fault::Fault;
use model::webhook::Channel;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most bytes that one part of a message may have when rendered.
pub const MAX_RENDERED_BYTES: usize = 2 * 1024 * 1024;

/// The most bytes of a rendered subject.
pub const MAX_SUBJECT_BYTES: usize = 4 * 1024;

/// What one part's rendering may cost, in evaluations of an element.
const MAX_WORK: u64 = 1_000_000;

/// An evaluation that may copy or compare a value costs one more for as many bytes of context.
const BYTES_OF_ONE_WORK: u64 = 512;

/// A part of a message that has a template of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The subject of an email.
    Subject,
    /// The HTML body of an email.
    Html,
    /// The text body of an email, or the text of an SMS.
    Text,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject => "subject",
            Self::Html => "html",
            Self::Text => "text",
        })
    }
}

/// A campaign version's templates, compiled.
#[derive(Clone, Debug)]
pub struct Template {
    strict: bool,
    parts: Vec<(Part, Compiled)>,
}

/// A part's template.
#[derive(Clone, Debug)]
struct Compiled {
    template: handlebars::Template,
    /// Without blocks: what a render takes from its budget. Else the blocks take it.
    weight: Option<syntax::Weight>,
}

/// A message's content for one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Email: the subject, in one line.
    pub subject: Option<String>,
    /// Email: the HTML body.
    pub html: Option<String>,
    /// The text.
    pub text: Option<String>,
}

/// Why a content cannot be rendered for a recipient. The texts name variables of the template, never their values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// `strictVariables` is set and a variable is missing.
    #[error("{part}: the variable {variable} is missing (line {line}, column {column})")]
    MissingVariable {
        /// In which part.
        part: Part,
        /// The variable, as the template writes it.
        variable: String,
        /// Its line, from 1; 0 where unknown.
        line: usize,
        /// Its column, from 1; 0 where unknown.
        column: usize,
    },
    /// The output is longer than a part may be.
    #[error("{part}: the rendered text has more than {limit} bytes")]
    TooLong {
        /// In which part.
        part: Part,
        /// The most bytes.
        limit: usize,
    },
    /// The loops go round more often than a render may.
    #[error("{0}: rendering takes too many steps; loop over fewer elements")]
    TooMuchWork(Part),
    /// A helper cannot do with its arguments.
    #[error("{part}: {message}")]
    Helper {
        /// In which part.
        part: Part,
        /// What is wrong, and where.
        message: String,
    },
    /// `context` or `profile` is no JSON that can be read.
    #[error("{0} is not readable JSON (it may be nested too deeply)")]
    Data(&'static str),
}

impl Template {
    /// Compiles what the channel needs of a content; empty parts count as absent.
    ///
    /// # Errors
    /// A fault for each part that does not compile, with line and column.
    pub fn compile(channel: Channel, content: &Content) -> Result<Self, Vec<Fault>> {
        let sources = match channel {
            Channel::Email => {
                vec![(Part::Subject, &content.subject), (Part::Html, &content.html), (Part::Text, &content.text)]
            }
            Channel::Sms => vec![(Part::Text, &content.text)],
        };
        let (mut parts, mut faults) = (Vec::new(), Vec::new());
        for (part, source) in sources {
            let Some(source) = source.as_deref().filter(|source| !source.trim().is_empty()) else {
                continue;
            };
            match syntax::compile(source) {
                Ok((template, weight)) => parts.push((part, Compiled { template, weight })),
                Err(message) => faults.push(Fault { path: format!("$.content.{part}"), message }),
            }
        }
        if faults.is_empty() { Ok(Self { strict: content.strict_variables, parts }) } else { Err(faults) }
    }

    /// Renders every part for a recipient.
    ///
    /// # Errors
    /// Says which part failed and why.
    pub fn render(&self, personalization: &Personalization) -> Result<Rendered, RenderError> {
        let bytes = [&personalization.context, &personalization.profile];
        let bytes: usize = bytes.into_iter().flatten().map(|raw| raw.get().len()).sum();
        let context = Context::from(data_of(personalization)?);
        let mut rendered = Rendered::default();
        for (part, compiled) in &self.parts {
            let text = self.render_part(*part, compiled, &context, bytes)?;
            match part {
                Part::Subject => rendered.subject = Some(one_line(&text)),
                Part::Html => rendered.html = Some(text),
                Part::Text => rendered.text = Some(text),
            }
        }
        Ok(rendered)
    }

    fn render_part(
        &self,
        part: Part,
        compiled: &Compiled,
        context: &Context,
        context_bytes: usize,
    ) -> Result<String, RenderError> {
        let registry = match (part, self.strict) {
            (Part::Html, false) => &REGISTRIES.html,
            (Part::Html, true) => &REGISTRIES.html_strict,
            (_, false) => &REGISTRIES.text,
            (_, true) => &REGISTRIES.text_strict,
        };
        let limit = if part == Part::Subject { MAX_SUBJECT_BYTES } else { MAX_RENDERED_BYTES };
        let mut output = BoundedOutput { text: String::new(), limit, overflowed: false };
        let toll = Toll::new(context_bytes);
        let mut render_context = RenderContext::new(None);
        match compiled.weight {
            Some(weight) if !toll.take(weight) => return Err(RenderError::TooMuchWork(part)),
            Some(_) => {}
            None => render_context.register_local_helper(syntax::TOLL, Box::new(&toll)),
        }
        let result = compiled.template.render(registry, context, &mut render_context, &mut output);
        match result {
            Ok(()) => Ok(output.text),
            Err(_) if output.overflowed => Err(RenderError::TooLong { part, limit }),
            Err(_) if toll.is_used_up() => Err(RenderError::TooMuchWork(part)),
            Err(error) => Err(explain(part, &error)),
        }
    }
}

struct Registries {
    html: Handlebars<'static>,
    html_strict: Handlebars<'static>,
    text: Handlebars<'static>,
    text_strict: Handlebars<'static>,
}

static REGISTRIES: LazyLock<Registries> = LazyLock::new(|| Registries {
    html: registry(true, false),
    html_strict: registry(true, true),
    text: registry(false, false),
    text_strict: registry(false, true),
});

fn registry(escapes: bool, strict: bool) -> Handlebars<'static> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(strict);
    if !escapes {
        registry.register_escape_fn(handlebars::no_escape);
    }
    // The syntax check refuses these by name; without them not even a hole in it could reach them.
    for name in ["log", "raw", "len"] {
        registry.unregister_helper(name);
    }
    registry
}

/// `context` and `profile` as the template sees them. `context.system` is reserved: a caller's value does not show.
fn data_of(personalization: &Personalization) -> Result<Value, RenderError> {
    let read = |raw: &Option<Box<RawValue>>, name| match raw {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| RenderError::Data(name)),
        None => Ok(Value::Object(Map::new())),
    };
    let mut context: Value = read(&personalization.context, "context")?;
    if let Some(context) = context.as_object_mut() {
        context.remove("system");
    }
    let profile = read(&personalization.profile, "profile")?;
    Ok(Value::Object(Map::from_iter([("context".to_owned(), context), ("profile".to_owned(), profile)])))
}

/// A header cannot hold line breaks (RFC 5322 section 2.2), and other control characters do no good there either.
fn one_line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let words = text.split(breaks).filter(|piece| !piece.is_empty());
    let mut line = String::with_capacity(text.len());
    for piece in words {
        if !line.is_empty() && !line.ends_with(' ') && !piece.starts_with(' ') {
            line.push(' ');
        }
        line.push_str(piece);
    }
    line.trim().to_owned()
}

fn explain(part: Part, error: &handlebars::RenderError) -> RenderError {
    let (line, column) = (error.line_no.unwrap_or(0), error.column_no.unwrap_or(0));
    match error.reason() {
        RenderErrorReason::MissingVariable(variable) => {
            let variable = variable.clone().unwrap_or_else(|| "looked up".to_owned());
            RenderError::MissingVariable { part, variable, line, column }
        }
        reason => RenderError::Helper { part, message: format!("{reason} (line {line}, column {column})") },
    }
}

struct BoundedOutput {
    text: String,
    limit: usize,
    overflowed: bool,
}

impl Output for BoundedOutput {
    fn write(&mut self, segment: &str) -> Result<(), std::io::Error> {
        if self.text.len() + segment.len() > self.limit {
            self.overflowed = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.text.push_str(segment);
        Ok(())
    }
}

/// The helper behind the hidden expressions: takes a block's weight from the budget, and stops the render when
/// nothing is left.
struct Toll {
    left: AtomicU64,
    heavy_cost: u64,
}

impl Toll {
    fn new(context_bytes: usize) -> Self {
        let bytes = u64::try_from(context_bytes).unwrap_or(u64::MAX);
        Self { left: AtomicU64::new(MAX_WORK), heavy_cost: 1 + bytes / BYTES_OF_ONE_WORK }
    }

    /// Takes one round's weight from the budget; false: nothing is left.
    fn take(&self, weight: syntax::Weight) -> bool {
        let count = |elements| u64::try_from(elements).unwrap_or(u64::MAX);
        let cost = count(weight.plain).saturating_add(count(weight.heavy).saturating_mul(self.heavy_cost));
        let left = self.left.load(Ordering::Relaxed).saturating_sub(cost);
        self.left.store(left, Ordering::Relaxed);
        left > 0
    }

    fn is_used_up(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

impl HelperDef for &Toll {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        _: &mut dyn Output,
    ) -> HelperResult {
        let elements = |index| helper.param(index).and_then(|param| param.value().as_u64()).unwrap_or(0);
        let count = |index| usize::try_from(elements(index)).unwrap_or(usize::MAX);
        let has_some_left = self.take(syntax::Weight { plain: count(0), heavy: count(1) });
        if has_some_left { Ok(()) } else { Err(RenderErrorReason::Other("too much work".to_owned()).into()) }
    }
}

#[cfg(test)]
mod tests;
