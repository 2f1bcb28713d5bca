//! The table.

mod access;
mod administration;
mod campaigns;
mod channels;
mod executions;
mod webhooks;

pub use access::access;
pub use administration::{administration, lookups};
pub use campaigns::campaigns;
pub use channels::channels;
pub use executions::executions;
pub use webhooks::webhooks;

use super::Case;
use crate::support::client::Caller;
use hyper::Method;
use serde_json::Value;

const UNITARY: &str = "/ajo/im/executions/unitary";
const HIGH_THROUGHPUT: &str = "/ajo/im/executions/highthroughput";
const WEBHOOKS: &str = "/v1/feedback-webhooks";
const CAMPAIGNS: &str = "/v1/campaigns";
const CHANNELS: &str = "/v1/channel-configurations";
const NOBODY: &str = "01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11";

/// `base` with `value` at a path such as `recipients.0.type`.
fn put(base: &Value, path: &str, value: Value) -> Value {
    let mut changed = base.clone();
    let mut place = &mut changed;
    for step in path.split('.') {
        place = match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        };
    }
    *place = value;
    changed
}

/// `base` without the field at a path.
fn cut(base: &Value, path: &str) -> Value {
    let mut changed = base.clone();
    let (parent, field) = path.rsplit_once('.').map_or(("", path), |(parent, field)| (parent, field));
    let pointer: String = parent.split('.').filter(|step| !step.is_empty()).map(|step| format!("/{step}")).collect();
    let parent = changed.pointer_mut(&pointer).unwrap().as_object_mut().unwrap();
    parent.remove(field).unwrap();
    changed
}

/// How the detail writes a path: `$.recipients[0].type`.
fn shown(path: &str) -> String {
    let step = |step: &str| if step.parse::<usize>().is_ok() { format!("[{step}]") } else { format!(".{step}") };
    format!("${}: ", path.split('.').map(step).collect::<String>())
}

/// A body with faults of its own field: each is 400 and named by its path.
struct Table<'a> {
    caller: &'a Caller,
    method: Method,
    path: String,
    base: Value,
    cases: Vec<Case>,
}

impl<'a> Table<'a> {
    fn new(caller: &'a Caller, method: Method, path: &str, base: Value) -> Self {
        Self { caller, method, path: path.to_owned(), base, cases: Vec::new() }
    }

    fn body(&mut self, name: &str, body: &Value, says: &str) {
        let case = Case::new(name, self.caller, self.method.clone(), &self.path).json(body);
        self.cases.push(case.refused(400, "validation", says));
    }

    /// The field is not as it must be.
    fn wrong(&mut self, path: &str, value: Value) {
        let name = format!("{path} = {}", value.to_string().chars().take(60).collect::<String>());
        self.body(&name, &put(&self.base, path, value), &shown(path));
    }

    /// The same with the fault somewhere within the field, or beside it.
    fn wrong_at(&mut self, path: &str, value: Value, at: &str) {
        let name = format!("{path} = {}", value.to_string().chars().take(60).collect::<String>());
        self.body(&name, &put(&self.base, path, value), &shown(at));
    }

    fn missing(&mut self, paths: &[&str]) {
        for path in paths {
            self.body(&format!("no {path}"), &cut(&self.base, path), &format!("{}is required", shown(path)));
        }
    }

    fn all_wrong(&mut self, path: &str, values: &[Value]) {
        for value in values {
            self.wrong(path, value.clone());
        }
    }
}
