//! What happened, in order: the same seed must give the same.

use model::clock::Timestamp;
use std::collections::VecDeque;
use std::fmt;

/// How many lines are kept to be shown.
const LINES_KEPT: usize = 4_000;

/// The lines of a run, and a digest of all of them (FNV-1a).
#[derive(Debug)]
pub struct Trace {
    is_shown: bool,
    digest: u64,
    count: u64,
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty trace; shown as it grows, or not.
    pub fn new(is_shown: bool) -> Self {
        Self { is_shown, digest: 0xcbf2_9ce4_8422_2325, count: 0, lines: VecDeque::new() }
    }

    /// Adds a line.
    pub fn note(&mut self, since_start: i64, what: fmt::Arguments<'_>) {
        let line = format!("{:>9.3}  {what}", Millis(since_start));
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.is_shown {
            println!("{line}");
        }
        self.count += 1;
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// A digest of all lines.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// How many lines there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last lines.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// Milliseconds, shown as seconds.
struct Millis(i64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// The milliseconds from `start` to `now`.
pub fn millis_since(start: Timestamp, now: Timestamp) -> i64 {
    now.millis() - start.millis()
}
