//! What a campaign's content comes to for a sample of a recipient: by the sender's own templates, and sending nothing.

use model::campaign::Content;
use model::execution::Personalization;
use model::webhook::Channel;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use wire::template::{Rendered, Template};

/// What a form has for a sample at first.
pub const SAMPLE: &str = r#"{
  "context": {"order": "A-1"},
  "profile": {"person": {"name": {"firstName": "Jane", "lastName": "Roe"}}}
}"#;

/// Why there is no preview.
#[derive(Debug)]
pub enum Failed {
    /// Fields of the form are at fault: by their JSON path, and why.
    Faults(Vec<(String, String)>),
    /// A recipient like the sample would be excluded, for this reason.
    Excluded(String),
}

/// What an execution brings for a recipient.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    context: Option<Map<String, Value>>,
    profile: Option<Map<String, Value>>,
}

/// Renders a content for a sample.
pub fn render(channel: Channel, content: &Content, sample: &str) -> Result<Rendered, Failed> {
    let fault = |path: &str, why: String| Failed::Faults(vec![(path.to_owned(), why)]);
    let sample = if sample.is_empty() { "{}" } else { sample };
    let sample: Sample = serde_json::from_str(sample).map_err(|error| fault("$.sample", error.to_string()))?;
    let template = Template::compile(channel, content)
        .map_err(|faults| Failed::Faults(faults.into_iter().map(|fault| (fault.path, fault.message)).collect()))?;
    let raw = |map: Option<Map<String, Value>>| -> Result<Option<Box<RawValue>>, Failed> {
        map.map(|map| to_raw_value(&map)).transpose().map_err(|error| fault("$.sample", error.to_string()))
    };
    let personalization = Personalization { context: raw(sample.context)?, profile: raw(sample.profile)? };
    template.render(&personalization).map_err(|error| Failed::Excluded(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(html: &str, strict_variables: bool) -> Content {
        Content {
            subject: Some("Order {{context.order}}".to_owned()),
            html: Some(html.to_owned()),
            text: None,
            strict_variables,
        }
    }

    #[test]
    fn a_sample_is_rendered_as_the_sender_does() {
        let html = "<p>{{profile.person.name.firstName}} {{context.order}}{{context.gone}}</p>";
        let sample = r#"{"context": {"order": "<1>"}, "profile": {"person": {"name": {"firstName": "Ann"}}}}"#;
        let rendered = render(Channel::Email, &content(html, false), sample).unwrap();
        assert_eq!(rendered.subject.as_deref(), Some("Order <1>"));
        assert_eq!(rendered.html.as_deref(), Some("<p>Ann &lt;1&gt;</p>"));
        let excluded = render(Channel::Email, &content(html, true), sample).unwrap_err();
        assert!(matches!(&excluded, Failed::Excluded(why) if why.contains("context.gone")), "{excluded:?}");
        assert!(render(Channel::Email, &content("x", false), SAMPLE).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let path = |html, sample| match render(Channel::Email, &content(html, false), sample) {
            Err(Failed::Faults(faults)) => faults[0].0.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(path("{{#if x}}", "{}"), "$.content.html");
        for sample in ["{", "[]", r#"{"order": 1}"#, r#"{"context": 1}"#] {
            assert_eq!(path("x", sample), "$.sample", "{sample}");
        }
    }
}
