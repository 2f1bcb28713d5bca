//! The recipients of an execution: their shape, their faults, and where each gets its message.

use model::execution::{MAX_CONTEXT_BYTES, Personalization, RECIPIENTS};
use model::fault::Faults;
use model::webhook::Channel;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use std::collections::HashSet;
use store::work::NewRecipient;
use utoipa::ToSchema;

/// The most bytes of a userId or an address: far more than any that works.
const MAX_ADDRESS_BYTES: usize = 1024;
const MAX_NAMESPACE_BYTES: usize = 128;

/// Where a recipient's profile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecipientType {
    /// Known to the caller's profile store; Esito takes what the call itself brings.
    Aep,
    /// Known to the caller only.
    External,
}

/// The addresses that the caller gives.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelData {
    /// For email.
    email_address: Option<String>,
    /// For SMS.
    mobile_phone_number: Option<String>,
}

/// A recipient.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecipientRequest {
    /// `aep` or `external`; high throughput takes `external` only.
    #[serde(rename = "type")]
    kind: RecipientType,
    /// The caller's id of the person, unique in the call.
    #[schema(min_length = 1, example = "jane.roe@example.com")]
    user_id: String,
    /// The namespace of that id. In `email` and `phone` the id is an address.
    #[schema(min_length = 1, example = "email")]
    namespace: String,
    /// Addresses; they go before those of the profile.
    channel_data: Option<ChannelData>,
    /// What templates see as `profile`; also gives `personalEmail.address` and `mobilePhone.number`.
    #[schema(value_type = Option<Object>)]
    profile: Option<Map<String, Value>>,
    /// What templates see as `context`; at most 200 kB, `system` is reserved.
    #[schema(value_type = Option<Object>)]
    context: Option<Map<String, Value>>,
    /// Accepted and not used.
    #[schema(value_type = Option<String>)]
    #[expect(dead_code, reason = "documented as accepted")]
    merge_policy_name: Option<IgnoredAny>,
    /// Accepted and not used.
    #[schema(value_type = Option<String>)]
    #[expect(dead_code, reason = "documented as accepted")]
    merge_policy_schema: Option<IgnoredAny>,
}

/// What the store takes for these recipients; `external_only` refuses the others.
pub fn check(recipients: Vec<RecipientRequest>, external_only: bool, faults: &mut Faults) -> Vec<NewRecipient> {
    if !RECIPIENTS.contains(&recipients.len()) {
        faults.add("$.recipients", format!("must have 1 to 20 recipients, has {}", recipients.len()));
        return Vec::new();
    }
    check_unique(&recipients, faults);
    let mut taken = Vec::with_capacity(recipients.len());
    for (index, recipient) in recipients.into_iter().enumerate() {
        let path = format!("$.recipients[{index}]");
        if external_only && recipient.kind != RecipientType::External {
            faults.add(format!("{path}.type"), "must be external for high throughput");
        }
        taken.push(recipient.take(&path, faults));
    }
    taken
}

fn check_unique(recipients: &[RecipientRequest], faults: &mut Faults) {
    let mut seen = HashSet::with_capacity(recipients.len());
    for (index, recipient) in recipients.iter().enumerate() {
        if !seen.insert(recipient.user_id.as_str()) {
            faults.add(format!("$.recipients[{index}].userId"), "is there twice; each recipient may be there once");
        }
    }
}

impl RecipientRequest {
    fn take(self, path: &str, faults: &mut Faults) -> NewRecipient {
        check_text(faults, path, "userId", &self.user_id, MAX_ADDRESS_BYTES);
        check_text(faults, path, "namespace", &self.namespace, MAX_NAMESPACE_BYTES);
        let email = self.address(Channel::Email, path, faults);
        let phone = self.address(Channel::Sms, path, faults);
        let personalization = Personalization {
            context: check_context(self.context, path, faults),
            profile: self.profile.map(|profile| raw(&profile)),
        };
        NewRecipient { user_id: self.user_id, namespace: self.namespace, email, phone, personalization }
    }

    /// Where the person is reached on the channel: the first of `channelData`, the profile, and the `userId` where its
    /// namespace is the channel's own. A malformed address is an outcome, not a fault; one that could forge a header is.
    fn address(&self, channel: Channel, path: &str, faults: &mut Faults) -> Option<String> {
        let (place, found) = self.find_address(channel, path, faults)?;
        if place != "userId" {
            check_text(faults, path, place, found, MAX_ADDRESS_BYTES);
        }
        Some(found.to_owned())
    }

    fn find_address(&self, channel: Channel, path: &str, faults: &mut Faults) -> Option<(&'static str, &str)> {
        let data = self.channel_data.as_ref();
        let (place, given) = match channel {
            Channel::Email => ("channelData.emailAddress", data.and_then(|data| data.email_address.as_deref())),
            Channel::Sms => {
                ("channelData.mobilePhoneNumber", data.and_then(|data| data.mobile_phone_number.as_deref()))
            }
        };
        if let Some(address) = given.filter(|address| !address.trim().is_empty()) {
            return Some((place, address));
        }
        let (place, group, field) = match channel {
            Channel::Email => ("profile.personalEmail.address", "personalEmail", "address"),
            Channel::Sms => ("profile.mobilePhone.number", "mobilePhone", "number"),
        };
        let profile = self.profile.as_ref();
        match profile.and_then(|profile| profile.get(group)?.get(field)) {
            Some(Value::String(address)) if !address.trim().is_empty() => {
                return Some((place, address));
            }
            None | Some(Value::String(_) | Value::Null) => {}
            Some(_) => faults.add(format!("{path}.{place}"), "must be a string"),
        }
        let is_address = self.namespace.eq_ignore_ascii_case(channel.namespace());
        (is_address && !self.user_id.is_empty()).then_some(("userId", self.user_id.as_str()))
    }
}

fn check_text(faults: &mut Faults, path: &str, place: &str, text: &str, most: usize) {
    if text.trim().is_empty() {
        faults.add(format!("{path}.{place}"), "must not be empty");
    } else if text.chars().any(char::is_control) {
        faults.add(format!("{path}.{place}"), "must have no control characters or line breaks");
    } else if text.len() > most {
        faults.add(format!("{path}.{place}"), format!("must have at most {most} bytes"));
    }
}

fn check_context(context: Option<Map<String, Value>>, path: &str, faults: &mut Faults) -> Option<Box<RawValue>> {
    let context = context?;
    if context.contains_key("system") {
        faults.add(format!("{path}.context.system"), "is reserved; choose another name");
    }
    let raw = raw(&context);
    if raw.get().len() > MAX_CONTEXT_BYTES {
        faults.add(format!("{path}.context"), format!("must have at most 200 kB, has {} bytes", raw.get().len()));
    }
    Some(raw)
}

fn raw(object: &Map<String, Value>) -> Box<RawValue> {
    to_raw_value(object).expect("a JSON object is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shape::{self, Mode};
    use serde_json::json;

    fn take(recipients: Value, external_only: bool) -> Result<Vec<NewRecipient>, Vec<String>> {
        let recipients = shape::read(recipients, Mode::Lenient, "$.recipients").unwrap();
        let mut faults = Faults::default();
        let taken = check(recipients, external_only, &mut faults);
        faults
            .into_result()
            .map(|()| taken)
            .map_err(|faults| faults.list().iter().map(|fault| fault.path.clone()).collect())
    }

    fn addresses(recipient: Value) -> (Option<String>, Option<String>) {
        let mut recipient = recipient;
        recipient["type"] = json!("external");
        let mut taken = take(json!([recipient]), true).unwrap();
        let one = taken.remove(0);
        (one.email, one.phone)
    }

    #[test]
    fn where_the_address_comes_from() {
        let some = |text: &str| Some(text.to_owned());
        let profile = json!({"personalEmail": {"address": "p@b.example"}, "mobilePhone": {"number": "+392"}});
        let channel_data = json!({"emailAddress": "c@b.example", "mobilePhoneNumber": "+391"});
        let all =
            json!({"userId": "u@b.example", "namespace": "Email", "profile": profile, "channelData": channel_data});
        assert_eq!(addresses(all), (some("c@b.example"), some("+391")));
        let profile = json!({"userId": "u@b.example", "namespace": "email", "profile": profile, "channelData": {"emailAddress": " "}});
        assert_eq!(addresses(profile), (some("p@b.example"), some("+392")));
        assert_eq!(addresses(json!({"userId": "u@b.example", "namespace": "EMAIL"})), (some("u@b.example"), None));
        assert_eq!(
            addresses(json!({"userId": "+393", "namespace": "phone", "profile": {"mobilePhone": null}})),
            (None, some("+393"))
        );
        assert_eq!(addresses(json!({"userId": "42", "namespace": "ECID"})), (None, None));
        assert_eq!(addresses(json!({"userId": "no address", "namespace": "email"})), (some("no address"), None));
    }

    #[test]
    fn every_fault_is_named() {
        let faults = take(
            json!([
                {"type": "aep", "userId": "a", "namespace": "email", "channelData": {"emailAddress": "a@b.example\r\nBcc: x@y.example"}},
                {"type": "external", "userId": "a", "namespace": "", "context": {"system": 1}},
                {"type": "external", "userId": "b\n", "namespace": "ECID", "profile": {"mobilePhone": {"number": 7}}},
                {"type": "external", "userId": "c", "namespace": "ECID", "context": {"text": "x".repeat(205_000)}},
            ]),
            true,
        );
        assert_eq!(
            faults.unwrap_err(),
            [
                "$.recipients[1].userId",
                "$.recipients[0].type",
                "$.recipients[0].channelData.emailAddress",
                "$.recipients[1].namespace",
                "$.recipients[1].context.system",
                "$.recipients[2].userId",
                "$.recipients[2].profile.mobilePhone.number",
                "$.recipients[3].context",
            ]
        );
        assert_eq!(take(json!([]), false).unwrap_err(), ["$.recipients"]);
    }

    #[test]
    fn twenty_one_are_too_many() {
        let some = |count| {
            (0..count).map(|i| json!({"type": "aep", "userId": i.to_string(), "namespace": "ECID"})).collect::<Value>()
        };
        assert_eq!(take(some(20), false).unwrap().len(), 20);
        assert_eq!(take(some(21), false).unwrap_err(), ["$.recipients"]);
    }
}
