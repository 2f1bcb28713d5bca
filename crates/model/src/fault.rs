//! Faults in what a caller wrote: each names the field by its JSON path and says how to mend it.

use serde::Serialize;
use utoipa::ToSchema;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// The field, as a JSON path such as `$.recipients[0].userId`.
    pub path: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// The faults of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// More than these are not listed: a body can have thousands.
const LISTED: usize = 20;

impl Faults {
    /// Adds one.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < LISTED {
            self.0.push(Fault { path: path.into(), message: message.into() });
        }
    }

    /// Adds one unless `holds`.
    pub fn require(&mut self, holds: bool, path: &str, message: &str) {
        if !holds {
            self.add(path, message);
        }
    }

    /// A name for people: 1 to 200 characters, none of them a control character.
    pub fn check_name(&mut self, path: &str, name: &str) {
        let fits = !name.trim().is_empty() && name.chars().count() <= 200 && !name.chars().any(char::is_control);
        self.require(fits, path, "must have 1 to 200 characters, without control characters");
    }

    /// The faults, if any.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The faults in the order found.
    pub fn list(&self) -> &[Fault] {
        &self.0
    }
}
