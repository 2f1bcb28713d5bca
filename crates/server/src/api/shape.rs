//! From a JSON value, or a query, to a typed one, with every fault at its path.
//!
//! `serde_json`'s own deserializer names no path, repeats what the caller wrote (which may be a secret) and takes unknown
//! fields; this one is as small and does none of that. A field that is null counts as omitted.

use model::fault::Fault;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};
use std::fmt::{self, Write};

/// What is tolerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An unknown field is a fault.
    Strict,
    /// Unknown fields are ignored.
    Lenient,
    /// As strict; numbers and booleans are written as text.
    Texts,
}

/// Reads `value`; a fault's path begins with `root`.
pub fn read<T: DeserializeOwned>(value: Value, mode: Mode, root: &str) -> Result<T, Fault> {
    T::deserialize(Shape { value, mode }).map_err(|error| error.into_fault(root))
}

struct Shape {
    value: Value,
    mode: Mode,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// A fault; its path is collected from the inside out.
#[derive(Debug)]
struct ShapeError {
    path: Vec<Step>,
    message: String,
}

impl ShapeError {
    fn within(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    fn into_fault(self, root: &str) -> Fault {
        let mut path = root.to_owned();
        for step in self.path.iter().rev() {
            let written = match step {
                Step::Key(key) => write!(path, ".{key}"),
                Step::Index(index) => write!(path, "[{index}]"),
            };
            written.expect("a String takes everything");
        }
        Fault { path, message: self.message }
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ShapeError {}

impl Error for ShapeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), message: message.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, found {}", wanted(expected), kind(found)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}", wanted(expected)))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("must be one of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom("is required").within(Step::Key(field.to_owned()))
    }
}

/// What serde calls a type, in the words of JSON.
fn wanted(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    match name.as_str() {
        "u8" | "u16" | "u32" | "u64" => "a whole number of at least 0, within the range".to_owned(),
        "i32" | "i64" => "a whole number, within the range".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        // The derive of serde names the Rust type, which is nothing to the caller.
        _ if name.starts_with("struct ") => "an object".to_owned(),
        _ => name,
    }
}

fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map => "an object",
        _ => "something else",
    }
}

fn kind_of(value: &Value) -> Unexpected<'static> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(_) => Unexpected::Float(0.0),
        Value::String(_) => Unexpected::Str(""),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

impl Shape {
    fn text(&self) -> Option<&str> {
        if self.mode == Mode::Texts { self.value.as_str() } else { None }
    }
}

macro_rules! read_text {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
            match self.text() {
                None => self.deserialize_any(visitor),
                Some(text) => match text.parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(ShapeError::custom(concat!("expected ", $what))),
                },
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Shape {
    type Error = ShapeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), next: 0, mode: self.mode }),
            Value::Object(fields) => visitor.visit_map(Fields::of(fields, self.mode)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ShapeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let Value::Object(mut fields) = self.value else {
            return Err(ShapeError::invalid_type(kind_of(&self.value), &"an object"));
        };
        fields.retain(|_, value| !value.is_null());
        let unknown = fields.keys().find(|key| !known.contains(&key.as_str()));
        if let Some(key) = unknown.filter(|_| self.mode != Mode::Lenient) {
            return Err(ShapeError::custom(unknown_field(key, known)).within(Step::Key(key.clone())));
        }
        visitor.visit_map(Fields::of(fields, self.mode))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let Value::String(text) = self.value else {
            return Err(ShapeError::unknown_variant("", variants));
        };
        let text: StringDeserializer<ShapeError> = text.into_deserializer();
        visitor.visit_enum(text)
    }

    read_text! {
        deserialize_u32 visit_u32 u32, "a whole number of at least 0";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_bool visit_bool bool, "true or false";
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

fn unknown_field(key: &str, known: &[&str]) -> String {
    let likeness = |name: &&&str| (strsim::jaro_winkler(key, name) * 1000.0) as u32;
    match known.iter().max_by_key(likeness) {
        Some(name) if likeness(&name) > 850 => {
            format!("there is no such field; did you mean {name}?")
        }
        _ => "there is no such field; remove it".to_owned(),
    }
}

struct Items {
    items: std::vec::IntoIter<Value>,
    next: usize,
    mode: Mode,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ShapeError> {
        let Some(value) = self.items.next() else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        let read = seed.deserialize(Shape { value, mode: self.mode });
        read.map(Some).map_err(|error| error.within(Step::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields {
    fields: serde_json::map::IntoIter,
    current: Option<(String, Value)>,
    mode: Mode,
}

impl Fields {
    fn of(fields: Map<String, Value>, mode: Mode) -> Self {
        Self { fields: fields.into_iter(), current: None, mode }
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = ShapeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ShapeError> {
        self.current = self.fields.next();
        let Some((key, _)) = &self.current else {
            return Ok(None);
        };
        let key: StringDeserializer<ShapeError> = key.clone().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ShapeError> {
        let (key, value) = self.current.take().ok_or_else(|| ShapeError::custom("a value without a key"))?;
        let read = seed.deserialize(Shape { value, mode: self.mode });
        read.map_err(|error| error.within(Step::Key(key)))
    }
}

#[cfg(test)]
mod tests;
