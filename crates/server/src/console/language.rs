//! The languages of the console: its texts by key, from `locales/`.

use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource, FluentValue};
use std::sync::LazyLock;

/// A language that the console speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    Italian,
}

type Bundle = FluentBundle<FluentResource>;

static ENGLISH: LazyLock<Bundle> = LazyLock::new(|| bundle(Language::English));
static ITALIAN: LazyLock<Bundle> = LazyLock::new(|| bundle(Language::Italian));

fn bundle(language: Language) -> Bundle {
    let resource = FluentResource::try_new(language.source().to_owned()).expect("the locales are tested");
    let mut bundle = FluentBundle::new_concurrent(vec![language.code().parse().expect("a language's code")]);
    // The marks would be in attributes and in what is copied, too.
    bundle.set_use_isolating(false);
    bundle.add_resource(resource).expect("each key is there once");
    bundle
}

impl Language {
    /// All of them; the first is for whoever accepts none.
    pub const ALL: [Self; 2] = [Self::English, Self::Italian];

    /// Its code (BCP 47).
    pub fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Italian => "it",
        }
    }

    /// Its own name.
    pub fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Italian => "Italiano",
        }
    }

    /// What stands before each three digits of a number.
    pub fn group_mark(self) -> char {
        match self {
            Self::English => ',',
            Self::Italian => '.',
        }
    }

    /// What stands before a number's decimal places.
    pub fn decimal_mark(self) -> char {
        match self {
            Self::English => '.',
            Self::Italian => ',',
        }
    }

    /// The language of this code.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.code() == code)
    }

    /// The one that `Accept-Language` prefers (RFC 9110 section 12.5.4).
    pub fn accepted(header: &str) -> Self {
        let weighed = header.split(',').filter_map(|part| {
            let (range, parameters) = part.split_once(';').unwrap_or((part, ""));
            let primary = range.trim().split('-').next()?.to_ascii_lowercase();
            let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse::<f64>().ok())?;
            Some((Self::parse(&primary)?, weight)).filter(|(_, weight)| *weight > 0.0)
        });
        // Of equals the first.
        let best = weighed.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map_or(Self::English, |(language, _)| language)
    }

    fn source(self) -> &'static str {
        match self {
            Self::English => include_str!("../../locales/en.ftl"),
            Self::Italian => include_str!("../../locales/it.ftl"),
        }
    }

    /// The text of this key.
    pub fn text(self, key: &str) -> String {
        self.text_with(key, &[])
    }

    /// The text of this key, with what it has places for.
    pub fn text_with(self, key: &str, values: &[(&str, FluentValue<'_>)]) -> String {
        let bundle = match self {
            Self::English => &*ENGLISH,
            Self::Italian => &*ITALIAN,
        };
        let pattern = bundle.get_message(key).and_then(|message| message.value());
        debug_assert!(pattern.is_some(), "no text {key}");
        let Some(pattern) = pattern else { return key.to_owned() };
        let mut arguments = FluentArgs::with_capacity(values.len());
        for (name, value) in values {
            arguments.set((*name).to_owned(), value.clone());
        }
        bundle.format_pattern(pattern, Some(&arguments), &mut Vec::new()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The keys of a locale, each with the names of its places.
    fn keys(language: Language) -> BTreeMap<String, Vec<String>> {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut key = String::new();
        for line in language.source().lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, _)) =
                line.split_once(" =").filter(|_| line.starts_with(|c: char| c.is_ascii_lowercase()))
            {
                key = name.to_owned();
                assert!(keys.insert(key.clone(), Vec::new()).is_none(), "{key} is there twice");
            }
            for place in line.split('$').skip(1) {
                let name: String = place.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
                let places = keys.get_mut(&key).unwrap();
                if !places.contains(&name) {
                    places.push(name);
                }
            }
        }
        keys.values_mut().for_each(|places| places.sort());
        keys
    }

    #[test]
    fn both_languages_have_the_same_keys_and_places() {
        let english = keys(Language::English);
        assert!(english.len() > 50);
        assert_eq!(english, keys(Language::Italian));
        for language in Language::ALL {
            for key in english.keys() {
                assert!(!language.text(key).is_empty(), "{key}");
            }
        }
    }

    #[test]
    fn every_key_of_a_template_exists_and_none_is_left_over() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut used = String::new();
        for folder in ["templates", "src/console"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                // Folders below have no texts of the console.
                let path = entry.unwrap().path();
                if path.is_file() {
                    used += &std::fs::read_to_string(path).unwrap();
                }
            }
        }
        let english = keys(Language::English);
        for part in used.split(".t(\"").skip(1).chain(used.split(".tn(\"").skip(1)).chain(used.split(".tx(\"").skip(1))
        {
            let key = part.split('"').next().unwrap();
            assert!(english.contains_key(key), "a template names {key}");
        }
        for key in english.keys() {
            // Keys of states and the like are put together of a prefix and a value.
            let is_named = used.contains(&format!("\"{key}\""));
            let is_composed = [
                "state-",
                "role-",
                "error-",
                "auth-",
                "channel-",
                "event-",
                "group-",
                "relay-tls-",
                "window-",
                "attempt-error-",
            ]
            .iter()
            .any(|prefix| key.starts_with(prefix));
            assert!(is_named || is_composed, "nothing names {key}");
        }
    }

    #[test]
    fn the_preferred_language_is_found() {
        let expected = [
            ("", Language::English),
            ("it", Language::Italian),
            ("it-IT,it;q=0.9,en;q=0.8", Language::Italian),
            ("de, en;q=0.5, it;q=0.7", Language::Italian),
            ("en, it", Language::English),
            ("it;q=0, en;q=0.1", Language::English),
            ("fr;q=x, *", Language::English),
        ];
        for (header, language) in expected {
            assert_eq!(Language::accepted(header), language, "{header}");
        }
    }
}
