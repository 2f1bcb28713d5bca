//! `esito openapi`.

use super::{Failure, Outcome, print_line};

/// Prints the OpenAPI document of the API.
pub fn run() -> Outcome {
    let document = crate::api::openapi().to_pretty_json();
    print_line(&document.map_err(|error| Failure::new(error.to_string()))?)
}
