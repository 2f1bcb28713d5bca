use super::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn it(english: &str) -> String {
    said(Language::Italian, english)
}

fn is_known(english: &str) -> bool {
    let mut left = MOST_SENTENCES;
    italian(english, &mut left).is_some()
}

#[test]
fn sentences_have_holes_and_others_within() {
    for (english, expected) in [
        ("is required", "è obbligatorio"),
        ("must be from 1 to 30", "deve essere da 1 a 30"),
        ("expected a number, found a string", "deve essere un numero, non un testo"),
        ("\"x\" is not a UUID", "\"x\" non è un UUID"),
        (
            "$query.from: expected an RFC 3339 date and time such as 2026-01-31T12:00:00Z",
            "$query.from: deve essere una data con ora RFC 3339, come 2026-01-31T12:00:00Z",
        ),
        ("eq is a block: write {{#eq …}}…{{/eq}}", "eq è un blocco: scrivere {{#eq …}}…{{/eq}}"),
        ("the endpoint answered 503 Service Unavailable", "l'endpoint ha risposto 503 Service Unavailable"),
        (
            "no connection to [::1]:9: no answer within 50 ms (the last of 2 addresses, all tried)",
            "nessuna connessione a [::1]:9: nessuna risposta entro 50 ms (l'ultimo di 2 indirizzi, tutti provati)",
        ),
        ("no connection to 10.0.0.1:9: Some fault", "nessuna connessione a 10.0.0.1:9: Some fault"),
        (
            "not allowed to connect to a.example: 10.0.0.1 is a private address; \
             an operator can open it with egress.allow_networks",
            "non è permesso collegarsi a a.example: 10.0.0.1 è un indirizzo privato; \
             chi gestisce il server può permetterlo con egress.allow_networks",
        ),
        (
            "the endpoint answered 302 Found, a redirect, which is not followed; its target is /x: y",
            "l'endpoint ha risposto 302 Found, un reindirizzamento, che non si segue; la sua destinazione è /x: y",
        ),
        (
            "given up without another try: the time is up, and the endpoint keeps failing; \
             what it said last: no answer within 5 s",
            "abbandonata senza un altro tentativo: il tempo è scaduto e l'endpoint continua a non rispondere bene; \
             l'ultimo errore: nessuna risposta entro 5 s",
        ),
        ("the organization id \"is required\" is taken", "l'id dell'organizzazione \"is required\" è già in uso"),
    ] {
        assert_eq!(it(english), expected);
        assert_eq!(said(Language::English, english), english);
    }
}

#[test]
fn what_is_not_known_stays_as_it_is() {
    let (long, nested) = ("x".repeat(LONGEST) + ": is required", "TLS: ".repeat(500) + "is required");
    for text in ["", "{a}", "è obbligatorio", "orders: paid", "orders is not paid", "Is required", &long, &nested] {
        assert_eq!(it(text), text);
    }
}

#[test]
fn a_text_that_is_long_in_vain_is_left_in_time() {
    let text = "TLS: the token URL: ".repeat(300) + "x";
    let mut left = MOST_SENTENCES;
    assert_eq!((italian(&text, &mut left), left), (None, 0));
}

/// What libraries say within the API's sentences.
#[test]
fn what_libraries_say_is_known() {
    let mut errors: Vec<String> =
        ["https://", "https://a:x/", "https://[::g]/", "https://1.2.3.4.5/", "x", "https://a b/"]
            .iter()
            .map(|text| url::Url::parse(text).unwrap_err().to_string())
            .collect();
    let json =
        ["[", "{", "\"", "", "{\"a\" 1}", "[1 2]", "{\"a\":1 \"b\"}", "nul", "x", "{1:2}", "[1,]", "{} x", "\"\\x\""];
    errors.extend(json.iter().map(|text| serde_json::from_str::<Value>(text).unwrap_err().to_string()));
    errors.push(serde_json::from_str::<serde_json::Map<String, Value>>("[]").unwrap_err().to_string());
    // As Linux numbers them.
    errors.extend([32, 101, 104, 111, 113].map(|code| std::io::Error::from_raw_os_error(code).to_string()));
    let unknown: Vec<&String> = errors.iter().filter(|text| !is_known(text)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// Where the API's sentences are written. Of the databases only what is marked as one.
const SOURCES: [&str; 11] = [
    "model/src",
    "server/src/api",
    "wire/src/address.rs",
    "wire/src/jwt.rs",
    "wire/src/jwt/private_pem.rs",
    "wire/src/template.rs",
    "wire/src/template",
    "outbound/src/webhook",
    "store/src/shared",
    "store/src/sqlite",
    "store/src/postgres",
];

/// No page shows these: the API's description, what goes to the log, the token's check, and what is no sentence.
const NOT_SAID: [&str; 8] = [
    "a sample for a test",
    "Basic {}",
    "Bearer {}",
    "looked up",
    "too much work",
    "cursor",
    "a connection to an endpoint ended",
    "the server stops",
];

/// What stands before a literal that nobody is told, or only a developer.
const UNTOLD: [&str; 11] = [
    ".expect(",
    "tracing::",
    "debug_struct(",
    "description(Some(",
    ".comment(",
    "panic!(",
    "Corrupt(",
    "Unavailable(",
    "header::CACHE_CONTROL,",
    "write!(f,",
    ".contains(",
];

/// What stands before a sentence among SQL, or before a word that is one.
const TOLD: [&str; 4] = ["let why =", "Conflict::Taken(format!(", "StoreError::NotFound(", "Problem::NotFound("];

fn files(path: PathBuf, found: &mut BTreeSet<PathBuf>) {
    let name = path.file_name().unwrap().to_str().unwrap();
    if path.is_dir() && !matches!(name, "tests" | "testdata") {
        for entry in std::fs::read_dir(&path).unwrap() {
            files(entry.unwrap().path(), found);
        }
    } else if name.ends_with(".rs") && !matches!(name, "tests.rs" | "document.rs" | "throwaway.rs") {
        found.insert(path);
    }
}

/// A literal: what stands before it in its statement, and its text with `{}` for each hole.
type Literal = (String, String);

/// The literals of a source, but those of comments, attributes and tests. An error's text is in an attribute.
fn literals(source: &str, found: &mut Vec<Literal>) {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let (mut rest, mut before) = (source, String::new());
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '\'' => rest.chars().take(if rest.starts_with("'\\") { 4 } else { 3 }).map(char::len_utf8).sum(),
            '#' if rest.starts_with("#![") || (rest.starts_with("#[") && !rest.starts_with("#[error(")) => {
                attribute(rest)
            }
            'r' if rest.starts_with("r#\"") => rest[3..].find("\"#").unwrap() + 5,
            '"' => {
                let length = quoted(rest);
                let is_format =
                    ["format!(", "format_args!(", "#[error("].iter().any(|end| before.trim_end().ends_with(end));
                found.push((before.trim_end().to_owned(), text_of(&rest[1..length - 1], is_format)));
                length
            }
            _ => {
                if matches!(c, ';' | '{' | '}') {
                    before.clear();
                }
                before.push(c);
                c.len_utf8()
            }
        };
        // A lifetime looks like a character at first.
        let length = if c == '\'' && !rest[..length].ends_with('\'') { 1 } else { length };
        rest = &rest[length..];
    }
}

/// The length of a literal with its quotation marks.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.unwrap().0 + 1
}

fn attribute(text: &str) -> usize {
    let (mut at, mut depth) = (text.find('[').unwrap(), 0);
    loop {
        let c = text[at..].chars().next().unwrap();
        depth += i32::from(c == '[') - i32::from(c == ']');
        at += if c == '"' { quoted(&text[at..]) } else { c.len_utf8() };
        if depth == 0 {
            return at;
        }
    }
}

/// A literal's text, with `{}` for the holes of a format.
fn text_of(literal: &str, is_format: bool) -> String {
    let mut text = String::new();
    let mut chars = literal.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                Some('n') => text.push('\n'),
                Some(other) => text.push(other),
                None => {}
            },
            '{' | '}' if is_format && chars.next_if_eq(&c).is_some() => text.push(c),
            '{' if is_format => {
                while chars.next().is_some_and(|c| c != '}') {}
                text.push_str("{}");
            }
            _ => text.push(c),
        }
    }
    text
}

fn sources() -> Vec<Literal> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut paths, mut found) = (BTreeSet::new(), Vec::new());
    SOURCES.iter().for_each(|path| files(crates.join(path), &mut paths));
    for path in paths {
        let mut own = Vec::new();
        literals(&std::fs::read_to_string(&path).unwrap(), &mut own);
        let is_whole = path.components().all(|part| part.as_os_str() != "store")
            || path.ends_with("shared/change.rs")
            || path.ends_with("shared/replaying.rs");
        own.retain(|(before, _)| is_whole || TOLD.iter().any(|mark| before.ends_with(mark)));
        found.append(&mut own);
    }
    found
}

/// Whether it is something for people: words with a space between, beside the holes. What is marked is one, too.
fn is_sentence((before, text): &Literal) -> bool {
    let words = text.replace("{}", "");
    let has_word = words.as_bytes().windows(2).any(|two| two.iter().all(u8::is_ascii_lowercase));
    let is_told = TOLD.iter().any(|mark| before.ends_with(mark));
    let is_untold = UNTOLD.iter().any(|mark| before.contains(mark)) || NOT_SAID.contains(&text.as_str());
    has_word && (is_told || text.trim().contains(' ')) && !is_untold
}

#[test]
fn all_that_the_api_says_has_an_italian() {
    let found = sources();
    let sentences: BTreeSet<&str> = found.iter().filter(|one| is_sentence(one)).map(|one| one.1.as_str()).collect();
    assert!(sentences.len() > 250, "{}", sentences.len());
    // A hole may hold a sentence.
    let missing: Vec<&&str> = sentences.iter().filter(|text| !is_known(&text.replace("{}", "is required"))).collect();
    assert!(missing.is_empty(), "locales/api.it.txt has no Italian for {missing:#?}");
}

/// The pairs before those of libraries.
fn own() -> impl Iterator<Item = (&'static str, &'static str)> {
    let file = include_str!("../../../locales/api.it.txt");
    let (own, _) = file.split_once("# What others say").unwrap();
    let lines = own.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut lines = lines.map(|line| line.split_at(3));
    std::iter::from_fn(move || {
        let (("en ", english), Some(("it ", italian))) = (lines.next()?, lines.next()) else {
            panic!("en and it go in turn");
        };
        Some((english, italian))
    })
}

fn written(pattern: &Pattern) -> String {
    let text = |piece: &Piece| if let Piece::Text(text) = *piece { text } else { "{}" };
    pattern.0.iter().map(text).collect()
}

#[test]
fn each_pair_is_said_and_has_the_same_holes() {
    for pair in &*ITALIAN {
        let holes = |pattern: &Pattern| {
            let mut holes: Vec<Piece> = pattern.0.iter().copied().filter(|p| matches!(p, Piece::Hole(_))).collect();
            holes.sort_unstable_by_key(|hole| format!("{hole:?}"));
            holes
        };
        assert_eq!(holes(&pair.english), holes(&pair.italian), "{pair:?}");
        assert!(pair.english.weight() > 0, "{pair:?} is everything");
    }
    let literals: BTreeSet<String> = sources().into_iter().map(|literal| literal.1).collect();
    let mut seen = BTreeSet::new();
    for (english, _) in own() {
        let text = written(&Pattern::read(english));
        // What is written on its own is put before or after other things.
        let alone = [text.as_str(), text.trim_start_matches("{}"), text.trim_end_matches("{}")];
        assert!(alone.iter().any(|text| literals.contains(*text)), "nobody says {english}");
        assert!(seen.insert(english), "{english} is there twice");
    }
}
