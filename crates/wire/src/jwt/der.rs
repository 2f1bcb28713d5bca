//! As much of DER (X.690) as it takes to tell one key from another.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// The content of the element at the start of `input`, if it has this tag, and what follows the element.
pub(super) fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = input.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        _ => long_length(usize::from(first & 0x7f), rest)?,
    };
    rest.split_at_checked(len)
}

/// The content of the element at the start of `input`, whatever follows it.
pub(super) fn content(input: &[u8], tag: u8) -> Option<&[u8]> {
    element(input, tag).map(|(content, _)| content)
}

/// An INTEGER's magnitude, big-endian without leading zeros, and what follows it.
pub(super) fn unsigned(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, rest) = element(input, INTEGER)?;
    let zeros = content.iter().take_while(|byte| **byte == 0).count();
    Some((&content[zeros..], rest))
}

fn long_length(bytes: usize, rest: &[u8]) -> Option<(usize, &[u8])> {
    if !(1..=4).contains(&bytes) {
        return None;
    }
    let (len, rest) = rest.split_at_checked(bytes)?;
    Some((len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest))
}
