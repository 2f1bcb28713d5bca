//! Texts as string literals of other languages. What is filled in may be anybody's, so a literal is plain ASCII, on one
//! line, and ends where it should: all else is escaped, signs that turn the direction of writing too.

use std::fmt::Write as _;

/// In double quotes, with what is not plain escaped by `escape`.
fn quoted(text: &str, escape: impl Fn(&mut String, char)) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => literal.extend(['\\', c]),
            ' '..='~' => literal.push(c),
            c => escape(&mut literal, c),
        }
    }
    literal.push('"');
    literal
}

fn push(literal: &mut String, escape: std::fmt::Arguments<'_>) {
    literal.write_fmt(escape).expect("a string takes all");
}

/// Python, "String and Bytes literals": without a prefix, so neither bytes nor formatted.
pub fn python(text: &str) -> String {
    quoted(text, |literal, c| match u32::from(c) {
        code @ ..=0xffff => push(literal, format_args!("\\u{code:04x}")),
        code => push(literal, format_args!("\\U{code:08x}")),
    })
}

/// Go, "String literals": an interpreted one, which has Python's escapes.
pub fn go(text: &str) -> String {
    python(text)
}

/// JavaScript (ECMA-262, section 12.9.4): not a template, so `${` means nothing.
pub fn javascript(text: &str) -> String {
    quoted(text, |literal, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            push(literal, format_args!("\\u{unit:04x}"));
        }
    })
}

/// Rust, "String literals": for a value, not for a format.
pub fn rust(text: &str) -> String {
    quoted(text, |literal, c| push(literal, format_args!("\\u{{{:x}}}", u32::from(c))))
}

/// A word of the shell (POSIX, "Single-Quotes"): nothing in it is special but its end.
pub fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\"; import os #\\\n`${x}` 'é\u{202e}\u{2028}😀\0";

    #[test]
    fn a_literal_is_one_line_of_ascii_and_ends_where_it_should() {
        let same = r#""a\"; import os #\\\u000a`${x}` '\u00e9\u202e\u2028"#;
        assert_eq!(python(HOSTILE), format!(r#"{same}\U0001f600\u0000""#));
        assert_eq!(go(HOSTILE), python(HOSTILE));
        assert_eq!(javascript(HOSTILE), format!(r#"{same}\ud83d\ude00\u0000""#));
        let expected = r#""a\"; import os #\\\u{a}`${x}` '\u{e9}\u{202e}\u{2028}\u{1f600}\u{0}""#;
        assert_eq!(rust(HOSTILE), expected);
        assert_eq!(shell("it's $HOME"), r"'it'\''s $HOME'");
        // JavaScript's is JSON's too.
        assert_eq!(serde_json::from_str::<String>(&javascript(HOSTILE)).unwrap(), HOSTILE);
    }
}
