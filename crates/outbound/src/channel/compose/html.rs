//! A text for readers without HTML.

mod tags;

use html2text::config;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tags::{Piece, pieces};

/// Longer HTML is not laid out, only stripped of its tags: laying out takes long, and such mails are cut by most
/// readers anyway.
const MAX_LAID_OUT_BYTES: usize = 256 * 1024;

/// Layout recurses once for each level of elements.
const MAX_DEPTH: usize = 100;

/// A table with more columns is none that a text could show.
const MAX_COLUMNS: usize = 100;

/// The width of the text.
const WIDTH: usize = 76;

/// The text of an HTML document: laid out, with the links' targets as footnotes; where the document is too large or too
/// tangled for that, only without its tags.
pub fn text_of(html: &str) -> String {
    // The libraries are made for documents of good faith; a panic there must not cost the message.
    let laid_out = catch_unwind(AssertUnwindSafe(|| lay_out(html))).ok().flatten();
    laid_out.unwrap_or_else(|| without_tags(html)).trim().to_owned()
}

fn lay_out(html: &str) -> Option<String> {
    if html.len() > MAX_LAID_OUT_BYTES || !tags::are_nested_well(html, MAX_DEPTH) {
        return None;
    }
    let config = config::plain().allow_width_overflow().no_table_borders().no_link_wrapping();
    let document = config.parse_html(html.as_bytes()).ok()?;
    if !is_tame(&document) {
        return None;
    }
    let tree = config.dom_to_render_tree(&document).ok()?;
    config.render_to_string(tree, WIDTH).ok()
}

/// Whether the document's depth and its tables' widths are within what layout can bear. The parser adds elements that
/// the tags do not name, such as a table's body.
fn is_tame(document: &html2text::RcDom) -> bool {
    let mut waiting = vec![(document.document.clone(), 0)];
    while let Some((node, depth)) = waiting.pop() {
        if depth > 2 * MAX_DEPTH {
            return false;
        }
        if let html2text::Element { ref attrs, .. } = node.data {
            let columns = |value: &str| value.trim().parse().unwrap_or(1_usize);
            let spans = |name: &str| matches!(name, "colspan" | "rowspan");
            let attrs = attrs.borrow();
            if attrs.iter().any(|one| spans(&one.name.local) && columns(&one.value) > MAX_COLUMNS) {
                return false;
            }
        }
        waiting.extend(node.children.borrow().iter().map(|child| (child.clone(), depth + 1)));
    }
    true
}

/// What stands between the tags, with the links' targets; the commonest character references are resolved.
fn without_tags(html: &str) -> String {
    let mut text = String::with_capacity(html.len() / 2);
    let mut link = None;
    let mut skipped: Option<&str> = None;
    for piece in pieces(html) {
        match piece {
            Piece::Text(words) if skipped.is_none() => text.push_str(words),
            Piece::Tag(tag) if tag.is_end && skipped.is_some_and(|name| tag.is(name)) => skipped = None,
            Piece::Tag(tag) if skipped.is_none() => {
                if !tag.is_end && (tag.is("script") || tag.is("style")) {
                    skipped = Some(tag.name);
                } else if tag.is("a") {
                    if let Some(target) = link.take() {
                        text.push_str(&format!(" ({target})"));
                    }
                    link = tag.link();
                } else if BREAKS.iter().any(|name| tag.is(name)) {
                    text.push('\n');
                }
            }
            _ => {}
        }
    }
    let text = text.replace("&nbsp;", " ").replace("&lt;", "<").replace("&gt;", ">");
    let text = text.replace("&quot;", "\"").replace("&#x27;", "'").replace("&#39;", "'").replace("&#x3D;", "=");
    let text = text.replace("&amp;", "&");
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Tags that end a line.
const BREAKS: [&str; 12] = ["p", "div", "br", "hr", "tr", "li", "h1", "h2", "h3", "h4", "table", "title"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_out_and_keeps_links() {
        let html = "<!DOCTYPE html><html><head><style>p > b {color: red}</style></head><body><h1>Hi Zoë</h1><p>Your <b>code</b> is <a href=\"https://acme.example/c?a=1&amp;b=2\">here</a>.</p><ul><li>one<li>two</ul><br><!-- no --></body></html>";
        let text = text_of(html);
        for part in ["Hi Zoë", "**code**", "https://acme.example/c?a=1&b=2", "* one", "* two"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("color") && !text.contains("no"), "{text}");
        assert_eq!(text_of(""), "");
    }

    #[test]
    fn tangled_documents_lose_their_tags_only() {
        let deep = format!("{}<p>code 42</p>", "<div>".repeat(30_000));
        let hidden = format!("{}<p>code 42</p>", "<div><table></div></table>".repeat(9_000));
        let quoted = format!("{}<p>code 42</p>", "<div title=\"</div>\">".repeat(12_000));
        let formatted: String = (0..3_000).map(|number| format!("<b id={number}><p>")).collect();
        let formatted = formatted + "code 42";
        let wide = "<table><tr><td colspan=4000000000>code 42</td></tr></table>";
        let long = format!("<style>x</style><p>code 42</p>{}", "<i></i>".repeat(50_000));
        let tables = format!("{}code 42", "<table><tr><td>".repeat(3_000));
        let closed = format!("{}code 42{}", "<table><tr><td>".repeat(3_000), "</table>".repeat(3_000));
        for html in [deep.as_str(), &formatted, wide, &long, &tables, &closed] {
            assert_eq!(text_of(html), "code 42");
        }
        assert!(text_of(&hidden).ends_with("code 42") && text_of(&quoted).ends_with("code 42"));
    }

    #[test]
    fn tags_are_stripped_with_care() {
        let html = "a<br>b &lt;c&gt; &amp;amp; <script>if (a<b) {}</script>d<!-- <p> -->e <a class=x href='https://x.example/?a&amp;b'>f</a> 1 < 2<";
        assert_eq!(without_tags(html), "a\nb <c> &amp; de f (https://x.example/?a&b) 1 < 2<");
    }
}
