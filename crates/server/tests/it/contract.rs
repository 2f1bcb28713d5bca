//! What callers and endpoints rely on, over HTTP.

mod access;
mod addresses;
mod deliveries;
mod feed;
mod idempotency;
mod secrets;
mod versions;

use serde_json::Value;

const UNITARY: &str = "/ajo/im/executions/unitary";
const HIGH_THROUGHPUT: &str = "/ajo/im/executions/highthroughput";
const SIMULATOR: &str = "simulator.esito.test";

#[track_caller]
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => panic!("no text: {other}"),
    }
}

fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().unwrap()
}
