//! What the body of a feedback event says, for those who have it as JSON.

use serde_json::Value;

/// Whom it is about: the address, or what stands for the recipient where there is none.
pub fn recipient_of(event: &Value) -> Option<&str> {
    let identities = event["identityMap"].as_object().into_iter().flat_map(|map| map.values());
    let identities: Vec<&Value> = identities.filter_map(Value::as_array).flatten().collect();
    let primary = identities.iter().find(|identity| identity["primary"] == true);
    primary.or(identities.first()).and_then(|identity| identity["id"].as_str())
}
