//! What an SMTP reply means for the message and its recipient: a failure's type and public code.
//!
//! Replies carry a code (RFC 5321 section 4.2), often an enhanced status code (RFC 3463) and free text, and servers
//! lie in the first two: `550 5.7.1` may be an unknown user, `554 5.7.1` a refusal to relay. So the clear words of a
//! text come first, then the enhanced code, then the plain one: one table, from the most telling rule to the least.
//!
//! A temporary reply (4xx) that stands when retries are given up never proves an address bad, whatever its words: it
//! is never `Hard`.

use model::outcome::FailureType;
use regex::RegexSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// A failure's type and public code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// How final the failure is.
    pub failure_type: FailureType,
    /// The public code, such as `10`.
    pub code: &'static str,
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $failure_type:ident $code:literal;)*) => {
        impl Classified {$(
            $(#[$doc])*
            pub const $name: Self = Self { failure_type: FailureType::$failure_type, code: $code };
        )*}
    };
}

classes! {
    /// Nothing can be said.
    UNDETERMINED = Ignored "1";
    /// The address does not exist, or is closed.
    INVALID_RECIPIENT = Hard "10";
    /// The address exists, and does not take this mail.
    RECIPIENT_REFUSED = Hard "15";
    /// Some trouble at the other side.
    SOFT_BOUNCE = Soft "20";
    /// The domain's name servers do not answer.
    DNS_FAILURE = Soft "21";
    /// The mailbox is full.
    MAILBOX_FULL = Soft "22";
    /// The message is larger than the other side takes.
    MESSAGE_TOO_LARGE = Ignored "23";
    /// The other side did not answer in time.
    TIMEOUT = Ignored "24";
    /// Something that the operator has to mend: credentials, the sender's domain, the relay's account.
    ADMIN_FAILURE = Ignored "25";
    /// The content could not be taken, for no clear reason.
    GENERIC = Ignored "40";
    /// Refused by a policy: sender authentication, reverse DNS, a rule of the house.
    MAIL_BLOCK = Ignored "50";
    /// The sending address has a bad name.
    SPAM_BLOCK = Ignored "51";
    /// The content looks like spam, or worse.
    SPAM_CONTENT = Ignored "52";
    /// The server is not one that passes mail on for us.
    RELAYING_DENIED = Soft "54";
    /// Slowed down: greylisting and rates.
    TRANSIENT = Ignored "70";
    /// The sender is asked to prove to be human.
    CHALLENGE_RESPONSE = Soft "100";
}

/// An enhanced status code: class, subject and detail (RFC 3463 section 2).
pub type EnhancedCode = (u8, u16, u16);

/// Says what a reply means. Without `enhanced`, one is looked for in the text; several lines may be given with their
/// line breaks and their repeated codes, or joined.
pub fn classify(code: u16, enhanced: Option<EnhancedCode>, text: &str) -> Classified {
    let text = bounded(text);
    let enhanced = enhanced.or_else(|| parse_enhanced(text));
    let matched = MATCHER.matches(&canonical(code, enhanced, text)).iter().next();
    let found = matched.map_or(Classified::UNDETERMINED, |index| RULES[index].1);
    if (400..500).contains(&code) && found.failure_type == FailureType::Hard {
        return Classified::SOFT_BOUNCE;
    }
    found
}

/// The enhanced status code in a reply's text: at its start, after a plain code, or set off by a bracket or `#`.
/// Numbers that only look like one (versions, addresses) are passed over.
pub fn parse_enhanced(text: &str) -> Option<EnhancedCode> {
    let mut after_code = true;
    for word in bounded(text).split([' ', '\t', '\r', '\n', '-']).filter(|word| !word.is_empty()) {
        let bare = word.trim_start_matches(['#', '(', '[', '<', '"']);
        let set_off = bare.len() < word.len();
        if let Some(enhanced) = read_enhanced(bare).filter(|_| after_code || set_off) {
            return Some(enhanced);
        }
        after_code = is_reply_code(word);
    }
    None
}

/// A longer text is judged by its start: real replies have at most a few lines of 512 bytes (RFC 5321, 4.5.3.1.5).
const MAX_TEXT_BYTES: usize = 4096;

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

fn is_reply_code(word: &str) -> bool {
    matches!(word.as_bytes(), [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'])
}

/// Reads `class.subject.detail`; punctuation may follow, digits and letters may not.
fn read_enhanced(word: &str) -> Option<EnhancedCode> {
    let word = word.trim_end_matches([':', ';', ',', ')', ']', '>', '.', '"']);
    let mut parts = word.split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !matches!(class, "2" | "4" | "5") {
        return None;
    }
    Some((class.parse().ok()?, read_number(subject)?, read_number(detail)?))
}

/// One to three digits.
fn read_number(digits: &str) -> Option<u16> {
    let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// What the rules are matched against: `550 5.1.1 the words`, the codes once, `-` for a missing enhanced one, and
/// the words of all lines with single spaces.
fn canonical(code: u16, enhanced: Option<EnhancedCode>, text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 16);
    let written = match enhanced {
        Some((class, subject, detail)) => write!(line, "{code} {class}.{subject}.{detail}"),
        None => write!(line, "{code} -"),
    };
    written.expect("writing to a string does not fail");
    for words in text.lines().map(without_codes) {
        for word in words.split_whitespace() {
            line.push(' ');
            line.push_str(word);
        }
    }
    line
}

/// A line of a reply without the codes it starts with.
fn without_codes(line: &str) -> &str {
    let mut rest = line.trim_start();
    if rest.get(..3).is_some_and(is_reply_code) {
        let tail = &rest[3..];
        if let Some(words) = tail.strip_prefix([' ', '-']) {
            rest = words;
        }
    }
    match rest.split_once(' ') {
        Some((first, words)) if read_enhanced(first).is_some() => words,
        _ => rest,
    }
}

static MATCHER: LazyLock<RegexSet> = LazyLock::new(|| {
    let patterns = RULES.iter().map(|(pattern, _)| format!("(?i){pattern}"));
    RegexSet::new(patterns).expect("the table's patterns are tested")
});

/// The rules, the most telling first. Each is matched against the canonical line.
#[rustfmt::skip]
const RULES: &[(&str, Classified)] = &[
    // Not the recipient at all: our right to use the server, our sender, our account.
    (r"relay(ing)?( access)?( is)? (denied|not permitted|not allowed|prohibited|disabled|not available)", Classified::RELAYING_DENIED),
    (r"unable to relay|(do not|don't|not permitted to|cannot|will not|won't) relay|rejecting relay|not a (relay|gateway)|relay not (permitted|allowed)|not local; please try|rcpthosts", Classified::RELAYING_DENIED),
    (r"domain of sender|sender address rejected|sender (verify|verification|domain)|invalid (sender|envelope from)|send as this sender|sendasdenied|sender (is )?not (allowed|authorized|permitted)|bad sender|sender unknown", Classified::ADMIN_FAILURE),
    (r"authentication (is )?(required|failed|unsuccessful|credentials invalid)|must (authenticate|issue a starttls)|(client|session) (was )?not authenticated|username and password not accepted|encryption (is )?required|requires? (tls|encryption|starttls)", Classified::ADMIN_FAILURE),
    (r"(sending|sender|daily|hourly)[a-z' ]{0,20} (quota|limit)[a-z ]{0,10} (exceeded|reached)", Classified::ADMIN_FAILURE),

    // The mailbox is there, but cannot take more; then the message's own size.
    (r"over ?quota|quota (is )?(exceed|full|reached)|(exceed|out of|above|beyond)[a-z' ]{0,40}quota|disk quota", Classified::MAILBOX_FULL),
    (r"(mailbox|mail box|inbox|account|mailfolder|maildir)[^.;]{0,40} (is |are )?(full\b|exceed|over (its|the|their) (limit|size))|mailbox size limit|mailbox_full|full mailbox|mailfull", Classified::MAILBOX_FULL),
    (r"exceeded storage allocation|(out of|insufficient|not enough|over|exceed\w*)( (the|its|their|allocated|mailbox|user|maximum|disk))* (storage|space)|storage (quota|limit)", Classified::MAILBOX_FULL),
    (r"(message|mail|size|data)[a-z' ]{0,30} (is )?too (large|big|long)|exceed(s|ed)?[a-z' ]{0,40} size|(message|mail|maximum) (file )?(size|length)[a-z ]{0,20} (exceed|violat)|size limit|toolarge", Classified::MESSAGE_TOO_LARGE),

    // A rate of the recipient's own, which comes with the status of a closed mailbox.
    (r"receiving (e?mail|messages) (at a rate|too (quickly|fast))", Classified::SOFT_BOUNCE),

    // Statuses that say the address is bad and are seldom used for anything else.
    (r"^5\d\d 5\.1\.(1|2|3|6|10) ", Classified::INVALID_RECIPIENT),

    // The sending address's name, then the sending domain's credentials, then the content.
    (r"spamhaus|spamcop|barracuda|sorbs|proofpoint|invaluement|senderscore|\b(dns|rh?s?)bl\b|\b[rd]bl\b|black ?list|block ?list|block list|deny ?list|blocked using", Classified::SPAM_BLOCK),
    (r"unusual (rate|amount) of unsolicited|user complaints|(poor|low|bad|very low)[a-z ]{0,20} reputation|reputation of|reputation (is|score|too)|banned sending ip|known spam source|tss0\d|s31[45]0|listed (at|in|on|by) |spam source|suspicious (ip|activity|behaviou?r)|ip address (is |has been )?(blocked|banned|rejected)|blocked[a-z ]{0,20} ip", Classified::SPAM_BLOCK),
    (r"\b(dmarc|spf|dkim)\b|sender policy framework|unauthenticated|sender authentication|(reverse|forward.confirmed) ?(dns|hostname|lookup)|\b(ptr|rdns)\b|cannot find your (reverse )?hostname|helo command rejected|not authorized to send e?mail directly", Classified::MAIL_BLOCK),
    (r"(message|content|mail|text|attachment)[a-z'\- ]{0,60} (spam|virus|unsolicited|phish\w*|malware|malicious|junk|bulk|forbidden|banned)|(spam|virus|malware|phishing|junk)[a-z'\- ]{0,20} (message|content|mail|detected|found|score|filter|rejected|probability|refused)|(infected|contains?) [a-z ]{0,20}(virus|malware)|(rejected|refused|blocked|classified|identified|detected|flagged)[a-z ]{0,20} (as|for|to be|due to|because of) [a-z ]{0,12}(spam|junk|virus)|message content (rejected|refused)|content (rejected|filter)|no spam|looks like spam|spamassassin|rspamd", Classified::SPAM_CONTENT),

    // Slowed down.
    (r"gr[ae]y-?list|rate.?limit|throttl|too many (concurrent |simultaneous )?(connections|messages|sessions|mails|emails)|too much mail|too fast|sending too", Classified::TRANSIENT),
    (r"challenge.response|confirm (that )?you are (a )?human|boxbe|spamarrest|verify that you are not a (spammer|robot)", Classified::CHALLENGE_RESPONSE),

    // Names that do not resolve for now.
    (r"servfail|(dns|name ?server|name service)[a-z: ]{0,20} (timeout|timed out|temporar|unavailable|failure)|temporary (dns|name|lookup|resolution)|try again later.{0,40} dns", Classified::DNS_FAILURE),
    (r"^4.*(host( or domain name)? not found|name service error|domain( name)? (not found|does(n't| not) exist)|unknown (host|domain)|unable to (resolve|look ?up)|mx lookup|dns)", Classified::DNS_FAILURE),

    // An "unavailable mailbox" that is a policy after all (GMX and others).
    (r"mailbox unavailable.{0,200}(policy|reputation|reject due)", Classified::MAIL_BLOCK),

    // The address is bad, in words.
    (r"(no such|unknown|invalid|non.?existent|nonexistent|inactive|undeliverable|unrouteable|unroutable|disabled|bad) (local )?(user|recipient|address|mailbox|mail box|account|person|alias|destination mailbox)", Classified::INVALID_RECIPIENT),
    (r"(user|recipient|address|mailbox|mail box|account|alias|addressee|customer)[^;]{0,80} (is )?(unknown|not found|not known|(does|did)( not|n't) exist|doesn't have|not exist|not listed|not a valid|isn't valid|is not valid|no longer (valid|active|in use|exists|available))", Classified::INVALID_RECIPIENT),
    // Words that say less: they count only close to what they are said of.
    (r"(user|recipient|address|mailbox|mail box|account|alias)[^;:.]{0,30} (is |has been |was )?(invalid|inactive|disabled|suspended|deactivated|closed|terminated|cancell?ed|unavailable|not available|deleted|expired|discontinued)", Classified::INVALID_RECIPIENT),
    (r"recipientnotfound|adrerr|null ?mx|no mailbox( here)?|(does|did)( not|n't) (exist|have (a|an) \S+ (account|mailbox))|not a valid (user|mailbox|recipient|address)|no such (name|address|user)|user unknown|unrouteable address|bad (recipient )?address syntax|malformed (recipient )?address|not our customer|no one (here )?by that name|undeliverable address", Classified::INVALID_RECIPIENT),
    // Exchange Online's way to say that it does not know the recipient.
    (r"^5\d\d 5\.4\.1 .*recipient address rejected", Classified::INVALID_RECIPIENT),

    // The address is good, and closed to us.
    (r"recipient[a-z<>@._: ]{0,80} (rejected|refused|restricted|denied|blocked)|resolver\.rst|(does not|doesn't|not) (currently )?accept(ing)? (e?mails?|messages)( from)?|only accepts|not allowed to (send|email|mail) to|restricted recipient|recipient (has )?(blocked|rejected|refused|opted)|blocked by (the )?(recipient|user)|permission to send to (this|the) recipient", Classified::RECIPIENT_REFUSED),

    // Names that do not resolve for good; silence.
    (r"host( or domain name)? not found|domain( name)? (not found|does(n't| not) exist)|no such (domain|host)|nxdomain|unknown (host|domain)|bad destination (host|system)|no valid mx|domain .{0,60} does not accept mail", Classified::INVALID_RECIPIENT),
    (r"timed? ?out|timeout|delivery time expired|lost connection|connection (refused|reset|dropped|closed)|no route to host|network is unreachable", Classified::TIMEOUT),

    // A policy in general terms.
    (r"policy|polic(y|ies) (violation|reason|restriction)|administrative(ly)? (prohibit|den|block|reject)|access (is )?denied|prohibited|not allowed|not authorized|not permitted|banned|blocked|denied by|message (was )?(rejected|refused)|rejected by (rule|filter|admin)|aup#", Classified::MAIL_BLOCK),

    // Enhanced status codes (RFC 3463, and the registry of RFC 5248).
    (r"^\d+ [45]\.1\.[78] ", Classified::ADMIN_FAILURE),
    (r"^\d+ [45]\.1\.\d+\b", Classified::INVALID_RECIPIENT),
    (r"^\d+ [45]\.2\.1\b", Classified::INVALID_RECIPIENT),
    (r"^\d+ [45]\.2\.2\b", Classified::MAILBOX_FULL),
    (r"^\d+ [45]\.(2\.3|3\.4)\b", Classified::MESSAGE_TOO_LARGE),
    (r"^\d+ [45]\.4\.[127]\b", Classified::TIMEOUT),
    (r"^\d+ [45]\.4\.[34]\b", Classified::DNS_FAILURE),
    (r"^\d+ [45]\.[234]\.", Classified::SOFT_BOUNCE),
    (r"^\d+ 5\.5\.[1-9]", Classified::ADMIN_FAILURE),
    (r"^\d+ [45]\.6\.", Classified::GENERIC),
    (r"^\d+ 5\.7\.8\b", Classified::ADMIN_FAILURE),
    (r"^\d+ 5\.7\.", Classified::MAIL_BLOCK),

    // Plain codes (RFC 5321; 521 and 556 of RFC 7504; 53x of RFC 4954).
    (r"^(550|551|553|521|556) ", Classified::INVALID_RECIPIENT),
    (r"^552 ", Classified::MAILBOX_FULL),
    (r"^(50\d|53\d|555) ", Classified::ADMIN_FAILURE),
    (r"^[45]\d\d ", Classified::SOFT_BOUNCE),
];

#[cfg(test)]
mod tests;
