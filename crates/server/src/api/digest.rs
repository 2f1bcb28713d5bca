//! A digest of a parsed body, which tells a repetition from a conflict: the order of keys and white space do not count,
//! the order of lists does.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Number, Value};

/// The first 16 bytes of SHA-256 over the canonical form.
pub fn of(body: &Value) -> [u8; 16] {
    let mut text = Vec::with_capacity(1024);
    write(body, &mut text);
    let hash = digest(&SHA256, &text);
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_ref()[..16]);
    short
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            out.push(b'{');
            // The map keeps its keys in order only as long as no crate turns on `preserve_order`.
            if fields.keys().is_sorted() {
                write_fields(fields.iter(), out);
            } else {
                let mut sorted: Vec<_> = fields.iter().collect();
                sorted.sort_unstable_by_key(|(name, _)| *name);
                write_fields(sorted.into_iter(), out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                write(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Value::Number(number) => write_number(number, out),
        scalar => write_scalar(scalar, out),
    }
}

fn write_fields<'a>(fields: impl Iterator<Item = (&'a String, &'a Value)>, out: &mut Vec<u8>) {
    for (name, value) in fields {
        write_scalar(name, out);
        out.push(b':');
        write(value, out);
        out.push(b',');
    }
}

/// `1`, `1.0` and `1e0` are the same number.
fn write_number(number: &Number, out: &mut Vec<u8>) {
    /// Up to here every whole number is a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = number.as_f64().filter(|value| number.is_f64() && value.fract() == 0.0 && value.abs() <= EXACT);
    match whole {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        Some(value) => write_scalar(&(value as i64), out),
        None => write_scalar(number, out),
    }
}

fn write_scalar<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("scalars are JSON and a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(text: &str) -> [u8; 16] {
        of(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_counts_and_what_does_not() {
        let body = digest_of(r#"{"a":[1,2],"b":{"c":"é","d":null}}"#);
        assert_eq!(body, digest_of(" { \"b\" : {\"d\":null, \"c\":\"\\u00e9\"},\n\"a\":[1.0, 2e0]}"));
        assert_eq!(digest_of("-0.0"), digest_of("0"));
        for other in [
            r#"{"a":[2,1],"b":{"c":"é","d":null}}"#,
            r#"{"a":[1,2],"b":{"c":"é"}}"#,
            r#"{"a":["1",2],"b":{"c":"é","d":null}}"#,
            r#"{"a":[1,2.5],"b":{"c":"é","d":null}}"#,
        ] {
            assert_ne!(body, digest_of(other), "{other}");
        }
    }
}
