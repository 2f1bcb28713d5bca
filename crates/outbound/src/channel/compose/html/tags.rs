//! The tags of an HTML document, found in one pass.
//!
//! The real parser's time grows with the square of the nesting, and it makes millions of nodes out of a few kilobytes of
//! unclosed formatting tags. So only documents whose tags are nested well, as this can see, are given to it.

/// A tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag<'a> {
    /// Its name, as written; empty for comments and the like.
    pub(super) name: &'a str,
    /// Whether it is an end tag.
    pub(super) is_end: bool,
    /// What stands between the name and the end.
    attributes: &'a str,
    /// Whether its quotes are closed where it seems to end. If they are not, it may end elsewhere.
    is_whole: bool,
}

/// A piece of a document.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Tag(Tag<'a>),
}

impl<'a> Tag<'a> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The target in `href`, where it is quoted.
    pub(super) fn link(&self) -> Option<&'a str> {
        let (_, value) = self.attributes.split_once("href=")?;
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        value[1..].split_once(quote).map(|(target, _)| target)
    }
}

/// The pieces in their order.
pub(super) fn pieces(html: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = html;
    let mut raw = None;
    std::iter::from_fn(move || {
        let (piece, after) = match raw.take() {
            Some(name) => raw_text(rest, name),
            None => next_piece(rest)?,
        };
        rest = after;
        if let Piece::Tag(tag) = piece
            && !tag.is_end
            && (tag.is("script") || tag.is("style"))
        {
            raw = Some(tag.name);
        }
        Some(piece)
    })
}

/// What stands before an element's end tag, whatever it looks like.
fn raw_text<'a>(html: &'a str, name: &str) -> (Piece<'a>, &'a str) {
    let is_end = |at: &usize| {
        html.as_bytes()[at + 2..].get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    };
    let end = html.match_indices("</").map(|(at, _)| at).find(is_end).unwrap_or(html.len());
    (Piece::Text(&html[..end]), &html[end..])
}

fn next_piece(html: &str) -> Option<(Piece<'_>, &str)> {
    let text = |end: usize| (Piece::Text(&html[..end]), &html[end..]);
    match html.find('<') {
        None if html.is_empty() => return None,
        None => return Some(text(html.len())),
        Some(0) => {}
        Some(start) => return Some(text(start)),
    }
    let inner = &html[1..];
    if inner.starts_with("!--") {
        // `<!-->` is a whole comment.
        let end = [("-->", 3), ("--!>", 4)].map(|(mark, length)| inner[1..].find(mark).map(|at| 1 + at + length));
        let end = end.into_iter().flatten().min().unwrap_or(inner.len());
        return Some((Piece::Tag(Tag { name: "", is_end: false, attributes: "", is_whole: true }), &inner[end..]));
    }
    let (is_end, body) = inner.strip_prefix('/').map_or((false, inner), |body| (true, body));
    let is_named = body.starts_with(|c: char| c.is_ascii_alphabetic());
    if !is_named && !is_end && !body.starts_with(['!', '?']) {
        return Some(text(1));
    }
    let (end, is_whole) = end_of_tag(body);
    let (inside, after) = (&body[..end], body[end..].strip_prefix('>').unwrap_or_default());
    let name_end = inside.find(|c: char| c.is_ascii_whitespace() || c == '/').unwrap_or(inside.len());
    let (name, attributes) = if is_named { inside.split_at(name_end) } else { ("", "") };
    Some((Piece::Tag(Tag { name, is_end, attributes, is_whole }), after))
}

/// Where the first `>` is, and whether it stands outside quotes.
fn end_of_tag(body: &str) -> (usize, bool) {
    let mut quote = None;
    for (index, byte) in body.bytes().enumerate() {
        match byte {
            b'>' => return (index, quote.is_none()),
            b'"' | b'\'' if quote.is_none() => quote = Some(byte),
            _ if quote == Some(byte) => quote = None,
            _ => {}
        }
    }
    (body.len(), false)
}

/// Elements without content.
const VOID: [&str; 14] =
    ["br", "hr", "img", "meta", "link", "input", "area", "base", "col", "embed", "param", "source", "track", "wbr"];

/// Elements whose end tag may be left out.
const OPEN_ENDED: [&str; 14] =
    ["p", "li", "td", "th", "tr", "tbody", "thead", "tfoot", "dd", "dt", "option", "colgroup", "html", "body"];

/// Elements in which tags are text.
const RAW: [&str; 10] =
    ["style", "script", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "noscript", "plaintext"];

/// Elements with rules of their own about what is a tag.
const FOREIGN: [&str; 4] = ["svg", "math", "template", "frameset"];

/// Whether every element ends where it should, none is deeper than `max_depth`, and nothing is in the document that
/// makes it hard to tell. False says nothing bad about a document.
pub(super) fn are_nested_well(html: &str, max_depth: usize) -> bool {
    let mut open: Vec<&str> = Vec::new();
    for piece in pieces(html) {
        let Piece::Tag(tag) = piece else { continue };
        let is_raw = open.last().is_some_and(|name| is_one_of(name, &RAW));
        let fits = match tag {
            _ if is_raw => tag.is_end && close(&mut open, tag.name),
            Tag { name: "", .. } => true,
            Tag { is_whole: false, .. } => false,
            Tag { is_end: true, name, .. } => is_one_of(name, &VOID) || close(&mut open, name),
            Tag { name, .. } => begin(&mut open, name),
        };
        if !fits || open.len() > max_depth {
            return false;
        }
    }
    true
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|one| name.eq_ignore_ascii_case(one))
}

fn begin<'a>(open: &mut Vec<&'a str>, name: &'a str) -> bool {
    if is_one_of(name, &FOREIGN) {
        return false;
    }
    if is_one_of(name, &VOID) {
        return true;
    }
    // `<li>` ends the `<li>` before it; that other tags do so too is of no matter, it only makes for less depth.
    if is_one_of(name, &OPEN_ENDED) && open.last().is_some_and(|last| last.eq_ignore_ascii_case(name)) {
        open.pop();
    }
    open.push(name);
    true
}

/// Ends an element, and what is open-ended within it.
fn close(open: &mut Vec<&str>, name: &str) -> bool {
    while let Some(last) = open.pop() {
        if last.eq_ignore_ascii_case(name) {
            return true;
        }
        if !is_one_of(last, &OPEN_ENDED) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_mails_are_nested_well() {
        for html in [
            "plain & simple",
            "<!DOCTYPE html><HTML><head><title>a > b</title><style>p{}</style></head><body><p>a<p>b<br/><img src='x'></body></html>",
            "<table><tr><td>a<td>b<tr><td>c</table><ul><li>x<li>y</ul>",
            "<!--[if mso]><table><tr><td><![endif]--><div title=\"it's\">a < b</div><!-- x --!>",
            "<!--><b></b>",
            "<p><script>if (a<b) {'}</SCRIPT></p>",
        ] {
            assert!(are_nested_well(html, 10), "{html}");
        }
    }

    #[test]
    fn what_could_hide_depth_is_not_nested_well() {
        for html in [
            "<b><i></b></i>",
            "<div><table></div></table>",
            "<div title=\"</div>\">",
            "<div a\"><div>",
            "<div><title></div></title></div>",
            "<div><style></stylex></div></style>",
            "<div><!--><div>-->",
            "</div>",
            "<svg><input></svg>",
            "<p><b></p>",
            &"<i>".repeat(11),
        ] {
            let closed = format!("{html}</x>");
            assert!(!are_nested_well(&closed, 10), "{html}");
        }
    }
}
