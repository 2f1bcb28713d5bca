//! What every channel does before it sends: check the address and render the content.

use super::Sent;
use lru::LruCache;
use model::clock::Timestamp;
use model::execution::{DueMessage, Personalization, is_email_address, is_phone_number};
use model::fault::Fault;
use model::ids::CampaignVersionId;
use model::outcome::{Exclusion, Failure, Verdict};
use model::webhook::Channel;
use std::sync::{Arc, Mutex, PoisonError};
use store::work::LiveVersion;
use wire::template::{Rendered, Template};

/// A message that is ready to be sent.
#[derive(Debug)]
pub struct Prepared<'m> {
    /// The address or number, checked.
    pub address: &'m str,
    /// The content.
    pub rendered: Rendered,
}

/// Checks a message's address and renders its content.
///
/// # Errors
/// What the message comes to, where it cannot be sent: excluded, or an error where the campaign itself is broken.
pub fn prepare<'m>(
    message: &'m DueMessage,
    version: &LiveVersion,
    templates: &Templates,
    now: Timestamp,
) -> Result<Prepared<'m>, Box<Sent>> {
    let ended = |verdict| Box::new(Sent::decided(verdict, now));
    let address = check_address(message, version.settings.channel);
    let address = address.map_err(|exclusion| ended(Verdict::Exclude(exclusion)))?;
    let template = templates.get(version);
    let template = template.as_ref().as_ref().map_err(|fault| {
        // Templates are checked when they are written, so this campaign was stored by another way.
        let reason = format!("the campaign's content does not compile: {}: {}", fault.path, fault.message);
        ended(Verdict::Error(Failure::admin(reason)))
    })?;
    let nothing = Personalization::default();
    let rendered = template.render(message.personalization.as_deref().unwrap_or(&nothing));
    let rendered = rendered.map_err(|error| ended(Verdict::Exclude(Exclusion::rendering_error(error.to_string()))))?;
    Ok(Prepared { address, rendered })
}

fn check_address(message: &DueMessage, channel: Channel) -> Result<&str, Exclusion> {
    match (channel, message.recipient.address.as_deref()) {
        (Channel::Email, None) => Err(Exclusion::no_email_address("the recipient has no email address")),
        (Channel::Email, Some(address)) if !is_email_address(address) => {
            Err(Exclusion::malformed_email_address("the email address is not one that can be sent to"))
        }
        (Channel::Sms, None) => Err(Exclusion::no_phone_number("the recipient has no telephone number")),
        (Channel::Sms, Some(number)) if !is_phone_number(number) => {
            Err(Exclusion::no_phone_number("the telephone number is not in international form, such as +39021234567"))
        }
        (_, Some(address)) => Ok(address),
    }
}

/// The most bytes of content whose templates are kept compiled.
const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// A compiled content, or its first fault.
type Compiled = Arc<Result<Template, Fault>>;

/// The campaign versions' compiled templates; those used last are kept. Versions never change, so none goes stale.
#[derive(Debug, Default)]
pub struct Templates(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    templates: LruCache<CampaignVersionId, (usize, Compiled)>,
    bytes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { templates: LruCache::unbounded(), bytes: 0 }
    }
}

impl Templates {
    /// The version's templates, compiled at its first use.
    pub fn get(&self, version: &LiveVersion) -> Compiled {
        if let Some((_, compiled)) = self.kept().templates.get(&version.id) {
            return compiled.clone();
        }
        let content = &version.settings.content;
        let compiled = Template::compile(version.settings.channel, content).map_err(|faults| {
            let unknown = || Fault { path: "$.content".to_owned(), message: "it is empty".to_owned() };
            faults.into_iter().next().unwrap_or_else(unknown)
        });
        let compiled = Arc::new(compiled);
        let texts = [&content.subject, &content.html, &content.text];
        let bytes = 1024 + texts.into_iter().flatten().map(String::len).sum::<usize>();
        self.kept().keep(version.id, bytes, compiled.clone());
        compiled
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, id: CampaignVersionId, bytes: usize, compiled: Compiled) {
        self.bytes += bytes;
        if let Some((_, (replaced, _))) = self.templates.push(id, (bytes, compiled)) {
            self.bytes -= replaced;
        }
        while self.bytes > KEPT_BYTES && self.templates.len() > 1 {
            let Some((_, (dropped, _))) = self.templates.pop_lru() else {
                break;
            };
            self.bytes -= dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{message, version};
    use super::*;
    use crate::channel::Sent;

    fn verdict(message: &DueMessage, version: &LiveVersion) -> Verdict {
        match *prepare(message, version, &Templates::default(), Timestamp(7)).unwrap_err() {
            Sent::Decided { outcome, planned: None } if outcome.occurred_at == Timestamp(7) => outcome.verdict,
            other => panic!("{other:?}"),
        }
    }

    fn exclusion(message: &DueMessage, version: &LiveVersion) -> String {
        verdict(message, version).exclusion().unwrap().code.clone()
    }

    #[test]
    fn addresses_are_checked_first() {
        let (email, sms) = (version(Channel::Email), version(Channel::Sms));
        assert_eq!(exclusion(&message(None), &email), "050020");
        assert_eq!(exclusion(&message(Some("jane")), &email), "050024");
        assert_eq!(exclusion(&message(Some("a@b.example\r\nRCPT TO:<x@y.example>")), &email), "050024");
        assert_eq!(exclusion(&message(None), &sms), "050153");
        assert_eq!(exclusion(&message(Some("0212")), &sms), "050153");
    }

    #[test]
    fn what_does_not_render_is_excluded() {
        let mut version = version(Channel::Email);
        version.settings.content.text = Some("{{context.code}}".to_owned());
        let message = message(Some("jane.roe@example.com"));
        let prepared = prepare(&message, &version, &Templates::default(), Timestamp(7)).unwrap();
        assert_eq!(prepared.address, "jane.roe@example.com");
        assert_eq!(prepared.rendered.text.as_deref(), Some(""));
        version.settings.content.strict_variables = true;
        assert_eq!(exclusion(&message, &version), "050302");
        version.settings.content.text = Some("{{#if".to_owned());
        let verdict = verdict(&message, &version);
        assert_eq!(verdict.failure().unwrap().code, "25");
        assert!(matches!(verdict, Verdict::Error(_)));
    }

    #[test]
    fn templates_are_kept_within_bounds() {
        let templates = Templates::default();
        let mut version = version(Channel::Email);
        let first = templates.get(&version);
        assert!(Arc::ptr_eq(&first, &templates.get(&version)));
        for number in 0..100 {
            version.id = CampaignVersionId(uuid::Uuid::from_u128(number));
            version.settings.content.html = Some("x".repeat(500_000));
            templates.get(&version);
        }
        let kept = templates.kept();
        assert!(kept.bytes <= KEPT_BYTES && kept.templates.len() > 60, "{}", kept.templates.len());
        assert_eq!(kept.bytes, kept.templates.iter().map(|(_, (bytes, _))| bytes).sum::<usize>());
    }
}
