//! What the API says, in the visitor's language. Its English is a contract with programs, so it is not the API that
//! translates: its sentences are found again in `locales/api.it.txt`, which has the Italian of each.

use super::language::Language;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The longest text that is looked at, in bytes. The API's own are much shorter.
const LONGEST: usize = 8 * 1024;

/// How many sentences are looked for in a text. Others than the API have a say in what is within a sentence, and could make
/// it one that is long in vain.
const MOST_SENTENCES: usize = 100;

static ITALIAN: LazyLock<Vec<Pair>> = LazyLock::new(|| pairs(include_str!("../../locales/api.it.txt")));

/// What the API says, in this language; what is not known stays as it is.
pub fn said(language: Language, english: &str) -> String {
    let mut left = MOST_SENTENCES;
    let translated = match language {
        Language::English => None,
        Language::Italian if english.len() > LONGEST => None,
        Language::Italian => italian(english, &mut left),
    };
    translated.unwrap_or_else(|| english.to_owned())
}

/// A sentence in both languages.
#[derive(Debug)]
struct Pair {
    english: Pattern,
    italian: Pattern,
}

/// A sentence with holes.
#[derive(Debug)]
struct Pattern(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Text(&'static str),
    /// Its name is a letter.
    Hole(char),
}

/// The pairs of a file in the order in which they are tried, within a rank those first that say most themselves.
fn pairs(file: &'static str) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut english = None;
    for line in file.lines() {
        if let Some(text) = line.strip_prefix("en ") {
            english = Some(text);
        } else if let (Some(text), Some(english)) = (line.strip_prefix("it "), english.take()) {
            pairs.push(Pair { english: Pattern::read(english), italian: Pattern::read(text) });
        }
    }
    pairs.sort_by_key(|pair| (pair.english.rank(), Reverse(pair.english.weight())));
    pairs
}

/// The Italian of a sentence, which may have others in it; so many may still be looked for.
fn italian(english: &str, left: &mut usize) -> Option<String> {
    if english.is_empty() {
        return Some(String::new());
    }
    *left = left.checked_sub(1)?;
    ITALIAN.iter().find_map(|pair| {
        let mut filled = BTreeMap::new();
        for (hole, text) in pair.english.holes(english)? {
            let text = if hole.is_ascii_uppercase() { italian(text, left)? } else { text.to_owned() };
            filled.insert(hole, text);
        }
        Some(pair.italian.fill(&filled))
    })
}

impl Pattern {
    /// A hole is a letter in braces; other braces are text.
    fn read(text: &'static str) -> Self {
        let mut pieces = Vec::new();
        let (mut rest, mut from) = (text, 0);
        while let Some(at) = rest.get(from..).and_then(|later| later.find('{')).map(|at| at + from) {
            match rest.as_bytes().get(at + 1..at + 3) {
                Some([name, b'}']) if name.is_ascii_alphabetic() => {
                    pieces.extend([Piece::Text(&rest[..at]), Piece::Hole(char::from(*name))]);
                    (rest, from) = (&rest[at + 3..], 0);
                }
                _ => from = at + 1,
            }
        }
        pieces.push(Piece::Text(rest));
        pieces.retain(|piece| *piece != Piece::Text(""));
        Self(pieces)
    }

    /// What is said after another sentence belongs to the whole, so it comes off first. What begins with something that varies
    /// might take another's beginning for that, so it comes last.
    fn rank(&self) -> u8 {
        match self.0.first() {
            Some(Piece::Hole('A'..='Z')) => 0,
            Some(Piece::Hole(_)) => 2,
            _ => 1,
        }
    }

    /// How much of it is text.
    fn weight(&self) -> usize {
        let length = |piece: &Piece| if let Piece::Text(text) = piece { text.len() } else { 0 };
        self.0.iter().map(length).sum()
    }

    /// What a text has in the holes, if it is this sentence. Each hole ends where the text after it first comes, so that
    /// this takes one walk.
    fn holes<'a>(&self, text: &'a str) -> Option<Vec<(char, &'a str)>> {
        let (mut found, mut rest, mut open) = (Vec::new(), text, None);
        for (index, piece) in self.0.iter().enumerate() {
            match *piece {
                Piece::Hole(name) => open = Some(name),
                Piece::Text(own) => {
                    let is_last = index + 1 == self.0.len();
                    let (before, after) = match open {
                        None => ("", rest.strip_prefix(own)?),
                        Some(_) if is_last => (rest.strip_suffix(own)?, ""),
                        Some(_) => rest.split_once(own)?,
                    };
                    found.extend(open.take().map(|name| (name, before)));
                    rest = after;
                }
            }
        }
        match open {
            Some(name) => found.push((name, rest)),
            None if rest.is_empty() => {}
            None => return None,
        }
        Some(found)
    }

    fn fill(&self, filled: &BTreeMap<char, String>) -> String {
        let text = |piece: &Piece| match *piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Hole(name) => filled.get(&name).cloned().unwrap_or_default(),
        };
        self.0.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests;
