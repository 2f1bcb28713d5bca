//! Bad input over every endpoint, against the running program: a clear problem document each, nothing stored, no 500.

mod cases;
mod fuzz;
mod generated;
mod stage;

use crate::support::client::{Answer, Caller};
use hyper::Method;
use hyper::body::Bytes;
use serde_json::Value;
use stage::Stage;
use std::collections::HashMap;

/// One bad request and what must come of it.
pub struct Case {
    name: String,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    status: u16,
    /// The last part of the problem's type.
    problem: &'static str,
    /// What the detail must say: where there is a field, its path.
    says: String,
}

impl Case {
    /// A request as `caller` makes it, with its refusal still to be told.
    pub fn new(name: &str, caller: &Caller, method: Method, path: &str) -> Self {
        let mut headers =
            vec![("x-gw-ims-org-id", caller.organization.clone()), ("x-sandbox-name", caller.sandbox.clone())];
        headers.extend(caller.key.iter().map(|key| ("authorization", format!("Bearer {key}"))));
        let (name, path) = (format!("{method} {path}: {name}"), path.to_owned());
        Self { name, method, path, headers, body: Bytes::new(), status: 0, problem: "", says: String::new() }
    }

    pub fn json(self, body: &Value) -> Self {
        self.raw(body.to_string())
    }

    pub fn raw(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.with("content-type", "application/json")
    }

    /// One more header of this name.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(one, _)| *one != name);
        self
    }

    pub fn refused(mut self, status: u16, problem: &'static str, says: &str) -> Self {
        (self.status, self.problem, self.says) = (status, problem, says.to_owned());
        self
    }

    async fn send(&self, caller: &Caller) -> Result<Answer, String> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        caller.raw(self.method.clone(), &self.path, &headers, self.body.clone()).await
    }

    /// What is wrong with the answer; none: nothing.
    fn fault(&self, answer: &Answer) -> Option<String> {
        if let Some(why) = problem_fault(answer) {
            return Some(why);
        }
        let document = answer.json();
        let of = |key: &str| document[key].as_str().unwrap_or("").to_owned();
        let (problem, detail) = (of("type"), of("detail"));
        let wanted = format!("urn:esito:problem:{}", self.problem);
        let as_wanted = answer.status == self.status && problem == wanted && detail.contains(&self.says);
        (!as_wanted).then(|| {
            let Self { status, problem: kind, says, .. } = self;
            format!("wanted {status} {kind} {says:?}, got {} {problem} {detail:?}", answer.status)
        })
    }
}

/// Why an answer is no problem document as it should be; none: it is one.
pub fn problem_fault(answer: &Answer) -> Option<String> {
    let document = answer.json();
    let keys: Vec<&str> = document.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let texts =
        ["type", "title", "detail"].iter().all(|key| document[key].as_str().is_some_and(|text| !text.is_empty()));
    let whole = answer.header("content-type") == "application/problem+json"
        && keys == ["detail", "report", "status", "title", "type"]
        && texts
        && document["status"] == answer.status
        && document["report"]["additionalContext"].is_object()
        && (400..500).contains(&answer.status);
    (!whole).then(|| format!("no problem document: {} {:?} {}", answer.status, answer.headers, answer.text()))
}

/// Sends all the cases; returns what is wrong with the answers.
async fn faults(stage: &Stage, cases: &[Case]) -> Vec<String> {
    let mut faults = Vec::new();
    for case in cases {
        let answered = case.send(&stage.admin).await;
        let fault = match &answered {
            Ok(answer) => case.fault(answer),
            Err(error) => Some(format!("no answer: {error}")),
        };
        faults.extend(fault.map(|fault| format!("{}: {fault}", case.name)));
        if stage.trace().await != stage.trace_before {
            panic!("{}: something was stored", case.name);
        }
    }
    faults
}

/// Each cause has a type, a status and a title of its own.
fn check_causes(cases: &[Case]) {
    let mut statuses = HashMap::new();
    for case in cases {
        let status = *statuses.entry(case.problem).or_insert(case.status);
        assert_eq!(status, case.status, "{} has two statuses", case.problem);
    }
    let causes = statuses.len();
    assert!(causes >= 20, "only {causes} causes");
    println!("{causes} causes");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_cause_and_nothing_is_stored() {
    let stage = Stage::set().await;
    let before = stage.everything().await;
    let mut cases = cases::executions(&stage);
    cases.extend(cases::access(&stage));
    cases.extend(cases::webhooks(&stage));
    cases.extend(cases::campaigns(&stage));
    cases.extend(cases::channels(&stage));
    cases.extend(cases::administration(&stage));
    cases.extend(cases::lookups(&stage));
    check_causes(&cases);
    let faults = faults(&stage, &cases).await;
    assert_eq!(stage.everything().await, before, "something was stored");
    println!("{} cases", cases.len());
    assert!(cases.len() >= 110 && faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
    assert!(!stage.server.log().contains("ended in a panic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_what_no_operation_takes() {
    let stage = Stage::set().await;
    let before = stage.everything().await;
    let cases = generated::cases(&stage).await;
    let faults = faults(&stage, &cases).await;
    assert_eq!(stage.everything().await, before, "something was stored");
    println!("{} cases", cases.len());
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_bodies_are_taken_or_refused_as_documented() {
    fuzz::run(&Stage::set().await).await;
}
