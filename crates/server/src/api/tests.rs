//! Tests of the whole.

/// The committed document is the generated one: whoever changes the API sees it in the diff.
#[test]
fn the_committed_openapi_document_is_up_to_date() {
    let generated = super::openapi().to_pretty_json().unwrap() + "\n";
    let committed = include_str!("../../../../openapi.json");
    assert!(generated == committed, "the API changed: run `cargo run -- openapi > openapi.json` at the root and commit it");
}
