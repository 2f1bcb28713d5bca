//! Secrets in memory: never printed, never serialized in the clear.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// A secret field of a resource. Reads show `{"set":true}`; the same object written back means "as it was".
#[derive(Clone, Default)]
pub struct Secret(Option<SecretString>);

impl Secret {
    /// A secret with this value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Some(SecretString::from(value.into())))
    }

    /// The value; none where the caller wrote `{"set":true}` and the stored one is meant.
    pub fn value(&self) -> Option<&SecretString> {
        self.0.as_ref()
    }

    /// The value in the clear, empty where it is not at hand.
    pub fn expose(&self) -> &str {
        self.0.as_ref().map_or("", |value| value.expose_secret())
    }
}

impl From<SecretString> for Secret {
    fn from(value: SecretString) -> Self {
        Self(Some(value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Two secrets are the same setting when their values are; not for checking credentials, which needs constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.value().map(ExposeSecret::expose_secret) == other.value().map(ExposeSecret::expose_secret)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Set { set: true }.serialize(serializer)
    }
}

#[derive(Serialize, Deserialize)]
struct Set {
    set: bool,
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or {\"set\":true} to keep the stored secret")
            }
            fn visit_str<E>(self, value: &str) -> Result<Secret, E> {
                Ok(Secret::new(value))
            }
            fn visit_string<E>(self, value: String) -> Result<Secret, E> {
                Ok(Secret::new(value))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
                let set = Set::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                match set.set {
                    true => Ok(Secret(None)),
                    false => Err(serde::de::Error::custom("write a string, null, or {\"set\":true}")),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl utoipa::PartialSchema for Secret {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Type};
        let written = ObjectBuilder::new().schema_type(Type::String).description(Some("Written, never read back."));
        let read = ObjectBuilder::new()
            .property("set", ObjectBuilder::new().schema_type(Type::Boolean))
            .required("set")
            .description(Some("What a read shows; written back, it keeps the stored secret."));
        AnyOfBuilder::new().item(written).item(read).into()
    }
}
impl utoipa::ToSchema for Secret {}

/// A resource's secrets by the path of their field, such as `authentication.secret`. This is what the store seals.
#[derive(Clone, Default)]
pub struct SecretMap(BTreeMap<String, SecretString>);

impl SecretMap {
    /// Adds or replaces one.
    pub fn insert(&mut self, path: impl Into<String>, value: SecretString) {
        self.0.insert(path.into(), value);
    }

    /// Adds all of another map.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The secret at a path.
    pub fn get(&self, path: &str) -> Option<&SecretString> {
        self.0.get(path)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Plain JSON, for the envelope only.
    pub fn to_plain_json(&self) -> secrecy::SecretSlice<u8> {
        let plain: BTreeMap<&str, &str> = self.0.iter().map(|(k, v)| (k.as_str(), v.expose_secret())).collect();
        serde_json::to_vec(&plain).expect("a map of strings is JSON").into()
    }

    /// Reads what [`SecretMap::to_plain_json`] wrote.
    pub fn from_plain_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let plain: BTreeMap<String, String> = serde_json::from_slice(bytes)?;
        Ok(Self(plain.into_iter().map(|(k, v)| (k, SecretString::from(v))).collect()))
    }
}

impl fmt::Debug for SecretMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A resource with secret fields, each at a path that is the same before and after an edit of other fields.
pub trait HasSecrets {
    /// Every secret field that this resource has at present, with its path.
    fn secret_fields(&mut self) -> Vec<(String, &mut Option<Secret>)>;

    /// Takes the values out, leaving the fields empty: what remains may be stored as it is.
    fn take_secrets(&mut self) -> SecretMap {
        let mut map = SecretMap::default();
        for (path, field) in self.secret_fields() {
            if let Some(value) = field.take().and_then(|secret| secret.0) {
                map.insert(path, value);
            }
        }
        map
    }

    /// Fills fields that hold no value of their own from `map`: after a load, or for an edit that omits a secret.
    fn fill_secrets(&mut self, map: &SecretMap) {
        for (path, field) in self.secret_fields() {
            if field.as_ref().is_none_or(|secret| secret.0.is_none()) {
                *field = map.get(&path).cloned().map(Secret::from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_that_it_is_set() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#"{"set":true}"#);
        assert!(!format!("{secret:?}").contains("hunter2"));
        let kept: Secret = serde_json::from_str(r#"{"set":true}"#).unwrap();
        assert!(kept.value().is_none());
        assert!(serde_json::from_str::<Secret>(r#"{"set":false}"#).is_err());
        assert!(serde_json::from_str::<Secret>("7").is_err());
    }
}
