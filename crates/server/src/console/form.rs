//! A form as it was typed, with what is wrong with it.

use super::inside::Refusal;
use super::page::{Fields, Frame};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Number, Value, json};

/// A form.
#[derive(Clone, Debug, Default)]
pub struct Form {
    pub fields: Fields,
    /// The fields that are at fault, by their JSON path, and why, in the visitor's language.
    pub faults: Vec<(String, String)>,
    /// What is wrong with all of it.
    pub trouble: Option<String>,
}

impl From<Fields> for Form {
    fn from(fields: Fields) -> Self {
        Self { fields, ..Self::default() }
    }
}

impl Form {
    pub fn text(&self, name: &str) -> &str {
        self.fields.text(name)
    }

    /// Whether a field has this value.
    pub fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == value
    }

    /// Whether a box is ticked.
    pub fn is_set(&self, name: &str) -> bool {
        self.fields.is_set(name)
    }

    /// Whether the box of this name and value is ticked.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.fields.all(name).any(|one| one == value)
    }

    /// Why the field of this path is at fault; a path that ends with `*` has all below it.
    pub fn fault(&self, path: &str) -> Option<&str> {
        let matches = |fault: &&(String, String)| match path.strip_suffix('*') {
            Some(start) => fault.0.starts_with(start),
            None => fault.0 == path,
        };
        self.faults.iter().find(matches).map(|fault| fault.1.as_str())
    }

    /// The form with these fields at fault, as the API names them and says why.
    pub fn at_fault(mut self, f: &Frame, faults: Vec<(String, String)>) -> Self {
        self.faults = faults.into_iter().map(|(path, why)| (path, f.said(why))).collect();
        self
    }

    /// The form with what the API says is wrong with it, and the status of its page. What has nothing to do with a form is
    /// a page of its own.
    #[expect(clippy::result_large_err, reason = "either is what its handler answers with")]
    pub fn refused(mut self, f: &Frame, refusal: Refusal) -> Result<(StatusCode, Self), Response> {
        let is_of_forms =
            [StatusCode::BAD_REQUEST, StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED].contains(&refusal.status);
        if !is_of_forms {
            return Err(f.trouble(&refusal));
        }
        if refusal.faults.is_empty() {
            self.trouble = Some(f.said(refusal.detail));
        }
        Ok((refusal.status, self.at_fault(f, refusal.faults)))
    }
}

/// The fields of a form for JSON's texts and numbers; others are no fields.
pub fn fields_of<'a>(values: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), text(value)?))).collect()
}

/// A number as JSON; what is none goes on as it was typed, for the API to say so.
pub fn number(text: &str) -> Value {
    serde_json::from_str::<Number>(text).map_or_else(|_| json!(text), Value::Number)
}
