//! Which templates compile: Handlebars without what reaches out of the template, within bounds.

use handlebars::Template;
use handlebars::template::{HelperTemplate, Parameter, TemplateElement};

/// The name of the hidden helper that counts a render's work. Templates that write it do not compile.
pub(super) const TOLL: &str = "esito_toll";

/// Helpers that only make sense around a block.
const BLOCK_HELPERS: [&str; 4] = ["if", "unless", "each", "with"];

/// Helpers that yield a value.
const VALUE_HELPERS: [&str; 10] = ["lookup", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or", "not"];

/// How deep blocks, `else if` branches and subexpressions may be nested together.
const MAX_DEPTH: usize = 100;

/// The parser finds the line of each tag by counting from the start, so its time grows with tags times bytes:
/// this is about a second of it.
const MAX_TAGS_TIMES_BYTES: usize = 1_000_000_000;

/// The most tags of a template.
const MAX_TAGS: usize = 5_000;

/// Compiles a template, or says what is wrong with it and where. One without blocks cannot go round: its weight is known
/// once and for all, and no expression in it takes it.
pub(super) fn compile(source: &str) -> Result<(Template, Option<Weight>), String> {
    check_size(source)?;
    let mut template = Template::compile(source).map_err(|error| {
        let reason = error.reason().to_string();
        match error.pos() {
            Some((line, column)) => format!("line {line}, column {column}: {reason}"),
            None => reason,
        }
    })?;
    let weight = weigh(&mut template, 0, false)?;
    if template.elements.iter().any(|element| matches!(element, TemplateElement::HelperBlock(_))) {
        put_toll(&mut template, weight)?;
        return Ok((template, None));
    }
    Ok((template, Some(weight)))
}

/// Bounds the parser's time, and the length of an `else if` chain, which becomes a nesting only after parsing.
fn check_size(source: &str) -> Result<(), String> {
    if source.contains(TOLL) {
        return Err(format!("the name {TOLL} is reserved"));
    }
    let mut tags = 0_usize;
    let mut branches = 0;
    for tag in source.split("{{").skip(1) {
        tags += 1;
        let inner = tag.trim_start_matches(|c: char| c == '~' || c.is_whitespace());
        branches += usize::from(inner.starts_with("else") || inner.starts_with('^'));
    }
    if tags > MAX_TAGS || branches > MAX_TAGS / 10 || tags.saturating_mul(source.len()) > MAX_TAGS_TIMES_BYTES {
        return Err(format!("{tags} tags in {} bytes are too many; shorten the template", source.len()));
    }
    Ok(())
}

/// What one round of a block costs: elements that cost little, and elements that may copy or compare whole values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub plain: usize,
    pub heavy: usize,
}

/// Checks a block's elements and weighs them. `derived` says that the block's values are computed ones, which the renderer
/// copies at each use.
fn weigh(template: &mut Template, depth: usize, derived: bool) -> Result<Weight, String> {
    // The round itself costs something, or an empty block could go round for ever.
    let mut weight = Weight { plain: 1, heavy: 0 };
    let places = &template.mapping;
    for (index, element) in template.elements.iter_mut().enumerate() {
        weight.plain += 1;
        weight.heavy += usize::from(derived);
        check_element(element, depth, derived, &mut weight).map_err(|message| match places.get(index) {
            Some(place) if !message.starts_with("line ") => {
                format!("line {}, column {}: {message}", place.0, place.1)
            }
            _ => message,
        })?;
    }
    Ok(weight)
}

/// Puts the expression that takes a block's weight in front of its elements.
fn put_toll(template: &mut Template, weight: Weight) -> Result<(), String> {
    let toll = format!("{{{{{TOLL} {} {}}}}}", weight.plain, weight.heavy);
    let toll = Template::compile(&toll).map_err(|error| error.reason().to_string())?;
    template.mapping.splice(0..0, toll.mapping);
    template.elements.splice(0..0, toll.elements);
    Ok(())
}

fn check_element(
    element: &mut TemplateElement,
    depth: usize,
    derived: bool,
    weight: &mut Weight,
) -> Result<(), String> {
    match element {
        TemplateElement::RawString(_) | TemplateElement::Comment(_) => Ok(()),
        TemplateElement::Expression(helper) | TemplateElement::HtmlExpression(helper) => {
            if is_call(helper) {
                check_value_helper(helper, depth, weight)
            } else {
                check_parameter(&helper.name, depth, weight)
            }
        }
        TemplateElement::HelperBlock(helper) => check_block(helper, depth, derived, weight),
        TemplateElement::PartialExpression(_) | TemplateElement::PartialBlock(_) => {
            Err("partials ({{> …}}) are not supported; write the content here".to_owned())
        }
        TemplateElement::DecoratorExpression(_) | TemplateElement::DecoratorBlock(_) => {
            Err("decorators ({{* …}}) are not supported".to_owned())
        }
        _ => Err("this kind of tag is not supported".to_owned()),
    }
}

/// A name with arguments is a call; a helper's name alone is one too, and then lacks its arguments.
fn is_call(helper: &HelperTemplate) -> bool {
    let called = || helper.name.as_name().is_some_and(|name| is_block_helper(name) || is_value_helper(name));
    !helper.params.is_empty() || !helper.hash.is_empty() || called()
}

fn is_block_helper(name: &str) -> bool {
    BLOCK_HELPERS.contains(&name)
}

fn is_value_helper(name: &str) -> bool {
    VALUE_HELPERS.contains(&name)
}

fn check_block(helper: &mut HelperTemplate, depth: usize, derived: bool, weight: &mut Weight) -> Result<(), String> {
    if depth >= MAX_DEPTH {
        return Err(format!("blocks are nested more than {MAX_DEPTH} deep"));
    }
    let name = helper.name.as_name().unwrap_or_default();
    if !is_block_helper(name) && !is_value_helper(name) {
        return Err(unknown(name));
    }
    if !is_block_helper(name) {
        check_arity(name, helper.params.len())?;
    } else if helper.params.len() != 1 {
        return Err(format!("#{name} takes one argument, here are {}", helper.params.len()));
    }
    let changes_scope = matches!(name, "each" | "with");
    for parameter in helper.params.iter().chain(helper.hash.values()) {
        check_parameter(parameter, depth + 1, weight)?;
    }
    let computed = helper.params.iter().any(|parameter| !matches!(parameter, Parameter::Path(_)));
    let derived = derived || (changes_scope && computed);
    for block in [&mut helper.template, &mut helper.inverse].into_iter().flatten() {
        let weight = weigh(block, depth + 1, derived)?;
        put_toll(block, weight)?;
    }
    Ok(())
}

fn check_value_helper(helper: &HelperTemplate, depth: usize, weight: &mut Weight) -> Result<(), String> {
    let name = helper.name.as_name().unwrap_or_default();
    if is_block_helper(name) {
        return Err(format!("{name} is a block: write {{{{#{name} …}}}}…{{{{/{name}}}}}"));
    }
    if !is_value_helper(name) {
        return Err(unknown(name));
    }
    check_arity(name, helper.params.len())?;
    weight.heavy += 1;
    for parameter in helper.params.iter().chain(helper.hash.values()) {
        check_parameter(parameter, depth + 1, weight)?;
    }
    Ok(())
}

fn check_parameter(parameter: &Parameter, depth: usize, weight: &mut Weight) -> Result<(), String> {
    if depth >= MAX_DEPTH {
        return Err(format!("expressions are nested more than {MAX_DEPTH} deep"));
    }
    match parameter {
        Parameter::Subexpression(inner) => match inner.as_element() {
            TemplateElement::Expression(helper) if is_call(helper) => check_value_helper(helper, depth + 1, weight),
            // `(x)` calls x without arguments, which none of the helpers takes.
            _ => Err("an expression in parentheses needs a helper with arguments".to_owned()),
        },
        Parameter::Name(_) | Parameter::Path(_) | Parameter::Literal(_) => Ok(()),
        _ => Err("this kind of argument is not supported".to_owned()),
    }
}

fn check_arity(name: &str, arguments: usize) -> Result<(), String> {
    let fits = match name {
        "not" => arguments == 1,
        "and" | "or" => arguments >= 2,
        _ => arguments == 2,
    };
    let wanted = match name {
        "not" => "one argument",
        "and" | "or" => "at least two arguments",
        _ => "two arguments",
    };
    if fits { Ok(()) } else { Err(format!("{name} takes {wanted}, here are {arguments}")) }
}

fn unknown(name: &str) -> String {
    format!("there is no helper {name:?}; there are #{}, and {}", BLOCK_HELPERS.join(", #"), VALUE_HELPERS.join(", "))
}
