//! A text for readers without HTML.

use html2text::config;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
    // A document can be tangled in ways that the library does not expect; a panic there must not cost the message.
    let laid_out = catch_unwind(AssertUnwindSafe(|| lay_out(html))).ok().flatten();
    laid_out.unwrap_or_else(|| without_tags(html)).trim().to_owned()
}

fn lay_out(html: &str) -> Option<String> {
    if html.len() > MAX_LAID_OUT_BYTES {
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

/// Whether the document's depth and its tables' widths are within what layout can bear.
fn is_tame(document: &html2text::RcDom) -> bool {
    let mut waiting = vec![(document.document.clone(), 0)];
    while let Some((node, depth)) = waiting.pop() {
        if depth > MAX_DEPTH {
            return false;
        }
        if let html2text::Element { ref attrs, .. } = node.data {
            let span = |value: &str| value.trim().parse().unwrap_or(1_usize);
            let spans = |name: &str| matches!(name, "colspan" | "rowspan");
            let attrs = attrs.borrow();
            if attrs.iter().any(|one| spans(&one.name.local) && span(&one.value) > MAX_COLUMNS) {
                return false;
            }
        }
        waiting.extend(node.children.borrow().iter().map(|child| (child.clone(), depth + 1)));
    }
    true
}

/// What stands between the tags, but for scripts and styles; the commonest character references are resolved.
fn without_tags(html: &str) -> String {
    let mut text = String::with_capacity(html.len() / 2);
    let mut rest = html;
    while let Some((before, from_tag)) = rest.split_once('<') {
        text.push_str(before);
        rest = after_tag(from_tag, &mut text);
    }
    text.push_str(rest);
    let text = text.replace("&nbsp;", " ").replace("&lt;", "<").replace("&gt;", ">");
    let text = text.replace("&quot;", "\"").replace("&#x27;", "'").replace("&#39;", "'").replace("&amp;", "&");
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Passes over a tag, and over an element that is not for reading; a tag that ends a block becomes a line break.
fn after_tag<'a>(from_tag: &'a str, text: &mut String) -> &'a str {
    let end = |from: &'a str, mark: &str| from.split_once(mark).map_or("", |(_, after)| after);
    if from_tag.starts_with("!--") {
        return end(from_tag, "-->");
    }
    let name_length = from_tag.find(|c: char| !c.is_ascii_alphanumeric() && c != '/').unwrap_or(from_tag.len());
    let name = from_tag[..name_length].to_ascii_lowercase();
    if matches!(name.trim_matches('/'), "p" | "div" | "br" | "tr" | "li" | "h1" | "h2" | "h3" | "table" | "title") {
        text.push('\n');
    }
    match name.as_str() {
        "script" => end(end(from_tag, "</script"), ">"),
        "style" => end(end(from_tag, "</style"), ">"),
        _ => end(from_tag, ">"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_out_and_keeps_links() {
        let html = "<html><head><style>p {color: red}</style></head><body><h1>Hi Zoë</h1><p>Your <b>code</b> is <a href=\"https://acme.example/c?a=1&amp;b=2\">here</a>.</p><ul><li>one<li>two</ul></body></html>";
        let text = text_of(html);
        for part in ["Hi Zoë", "code", "https://acme.example/c?a=1&b=2", "* one", "* two"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("color"), "{text}");
        assert_eq!(text_of(""), "");
    }

    #[test]
    fn tangled_documents_lose_their_tags_only() {
        let deep = format!("{}<p>code 42</p>", "<div>".repeat(30_000));
        let wide = "<table><tr><td colspan=4000000000>code 42</td></tr></table>";
        let long = format!("<style>x</style><p>code 42</p>{}", "<i></i>".repeat(50_000));
        let tables = format!("{}code 42", "<table><tr><td>".repeat(3_000));
        for html in [deep.as_str(), wide, &long, &tables] {
            assert_eq!(text_of(html), "code 42");
        }
        assert_eq!(without_tags("a<br>b &lt;c&gt; &amp;amp; <script>if (a<b) {}</script>d<!-- <p> -->e<"), "a\nb <c> &amp; de");
    }
}
