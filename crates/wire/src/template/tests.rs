use super::*;

fn content(html: &str) -> Content {
    Content { subject: Some("s".to_owned()), html: Some(html.to_owned()), ..Content::default() }
}

fn personal(context: &str) -> Personalization {
    let raw = |text: &str| Some(RawValue::from_string(text.to_owned()).unwrap());
    Personalization { context: raw(context), profile: raw(r#"{"person":{"name":{"firstName":"Zoë"}}}"#) }
}

fn html(template: &str, context: &str) -> Result<String, RenderError> {
    let template = Template::compile(Channel::Email, &content(template)).unwrap();
    template.render(&personal(context)).map(|rendered| rendered.html.unwrap())
}

fn fault(template: &str) -> String {
    let faults = Template::compile(Channel::Email, &content(template)).expect_err(template);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].path, "$.content.html");
    faults[0].message.clone()
}

#[test]
fn escapes_in_html_only() {
    let all = "{{context.x}} {{{context.x}}} {{profile.person.name.firstName}}".to_owned();
    let content =
        Content { subject: Some(all.clone()), html: Some(all.clone()), text: Some(all), strict_variables: true };
    let template = Template::compile(Channel::Email, &content).unwrap();
    let rendered = template.render(&personal(r#"{"x":"<b> & 'c'"}"#)).unwrap();
    assert_eq!(rendered.html.unwrap(), "&lt;b&gt; &amp; &#x27;c&#x27; <b> & 'c' Zoë");
    assert_eq!(rendered.text.unwrap(), "<b> & 'c' <b> & 'c' Zoë");
    assert_eq!(rendered.subject.unwrap(), "<b> & 'c' <b> & 'c' Zoë");
}

#[test]
fn blocks_and_comparisons_work() {
    let list = r#"{"items":[{"n":"a","q":1},{"n":"b","q":2}],"vip":true,"deep":{"k":"v"},"key":"k"}"#;
    assert_eq!(
        html("{{#each context.items}}{{@index}}{{n}}{{#unless @last}},{{/unless}}{{/each}}", list).unwrap(),
        "0a,1b"
    );
    assert_eq!(
        html("{{#if context.vip}}VIP{{else}}-{{/if}}{{#if context.no}}!{{else if context.vip}}ok{{/if}}", list)
            .unwrap(),
        "VIPok"
    );
    assert_eq!(html("{{#each context.items as |i|}}{{#if (gt i.q 1)}}{{i.n}}{{/if}}{{/each}}", list).unwrap(), "b");
    assert_eq!(html("{{#with context.deep}}{{k}}{{/with}}{{lookup context.deep context.key}}", list).unwrap(), "vv");
    assert_eq!(
        html("{{#if (and context.vip (not context.no))}}y{{/if}}{{#eq context.key 'k'}}k{{/eq}}", list).unwrap(),
        "yk"
    );
    assert_eq!(html("{{#each context.none}}x{{else}}empty{{/each}}", list).unwrap(), "empty");
    assert_eq!(html("{{!-- {{#if}} --}}{{! c }}a", list).unwrap(), "a");
}

#[test]
fn sms_has_text_only() {
    let content = Content { text: Some("Code {{context.code}} & more".to_owned()), ..content("{{#if") };
    let rendered = Template::compile(Channel::Sms, &content).unwrap().render(&personal(r#"{"code":42}"#)).unwrap();
    assert_eq!(rendered, Rendered { text: Some("Code 42 & more".to_owned()), ..Rendered::default() });
}

#[test]
fn a_missing_variable_renders_empty_or_fails() {
    assert_eq!(html("[{{context.a.b}}|{{nothing}}]", "{}").unwrap(), "[|]");
    let strict = Content { strict_variables: true, ..content("ok\n {{context.a.b}}") };
    let template = Template::compile(Channel::Email, &strict).unwrap();
    let error = template.render(&personal("{}")).unwrap_err();
    assert_eq!(error.to_string(), "html: the variable context.a.b is missing (line 2, column 2)");
    let tested = Content { strict_variables: true, ..content("{{#if context.a}}{{context.a}}{{else}}-{{/if}}") };
    let rendered = Template::compile(Channel::Email, &tested).unwrap().render(&Personalization::default());
    assert_eq!(rendered.unwrap().html.unwrap(), "-", "a test for presence is no use");
}

#[test]
fn the_reserved_system_does_not_show() {
    assert_eq!(html("[{{context.system.x}}]{{context.y}}", r#"{"system":{"x":1},"y":2}"#).unwrap(), "[]2");
}

#[test]
fn a_subject_is_one_line() {
    let content = Content { subject: Some("Hi\n {{context.x}}\t!".to_owned()), ..content("x") };
    let rendered = Template::compile(Channel::Email, &content).unwrap();
    let rendered = rendered.render(&personal(r#"{"x":"a\r\nBcc: evil@example.com\u0000\u2028b"}"#)).unwrap();
    assert_eq!(rendered.subject.unwrap(), "Hi a Bcc: evil@example.com b !");
}

#[test]
fn syntax_errors_say_where() {
    assert!(fault("a\nb {{#if context.x}}").starts_with("line 2, column "), "{}", fault("a\nb {{#if context.x}}"));
    assert!(fault("x {{#if a}}y{{/each}}").contains("\"if\" was opened"));
    assert!(fault("\n{{> footer}}").starts_with("line 2, column 1: partials"));
    assert!(fault("{{#> footer}}x{{/footer}}").contains("partials"));
    assert!(fault("{{#*inline \"a\"}}x{{/inline}}").contains("decorators"));
    assert!(fault("{{* set x=1}}").contains("decorators"));
    assert!(fault("{{upper context.x}}").contains("no helper \"upper\""));
    assert!(fault("{{#if (upper context.x)}}y{{/if}}").contains("no helper \"upper\""));
    assert!(fault("{{log context.x}}").contains("no helper"));
    assert!(fault("{{{{raw}}}} {{x}} {{{{/raw}}}}").contains("no helper \"raw\""));
    assert!(fault("{{if context.x}}").contains("{{#if …}}"));
    assert!(fault("{{#if}}a{{/if}}").contains("one argument"));
    assert!(fault("{{#if (eq 1)}}a{{/if}}").contains("two arguments"));
    assert!(fault("{{eq}}").contains("two arguments"));
    assert!(fault("{{esito_toll 0 0}}").contains("reserved"));
}

#[test]
fn depth_is_bounded_and_nothing_overflows() {
    for (open, close) in [("{{#if a}}", "{{/if}}"), ("{{#each a}}", "{{/each}}"), ("{{#with a}}", "")] {
        assert!(fault(&(open.repeat(2_000) + &close.repeat(2_000))).contains("line"), "{open}");
    }
    let chain = format!("{{{{#if a}}}}{}{{{{/if}}}}", "{{else if b}}".repeat(450));
    assert!(fault(&chain).contains("nested"));
    assert!(fault(&("{{else if b}}".repeat(4_000))).contains("too many"));
    let inside = format!("{{{{#if {}}}}}{{{{/if}}}}", "(not ".repeat(5_000) + "a" + &")".repeat(5_000));
    assert!(!fault(&inside).is_empty());
    let literal = format!("{{{{#each {}{}}}}}{{{{/each}}}}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(!fault(&literal).is_empty());
    assert_eq!(html(&("{{#if context.a}}".repeat(90) + "x" + &"{{/if}}".repeat(90)), r#"{"a":1}"#).unwrap(), "x");
}

#[test]
fn tags_times_bytes_are_bounded() {
    assert!(fault(&"{{a}}".repeat(100_000)).contains("too many"));
    assert!(fault(&("{{a}}".repeat(2_500) + &"x".repeat(500_000))).contains("too many"));
    assert!(html(&"{{context.a}} and some words\n".repeat(1_500), r#"{"a":1}"#).is_ok());
}

#[test]
fn output_is_bounded() {
    let big = format!(r#"{{"x":"{}","l":[{}1]}}"#, "y".repeat(50_000), "1,".repeat(999));
    let limit = MAX_RENDERED_BYTES;
    assert_eq!(
        html("{{#each context.l}}{{../context.x}}{{/each}}", &big),
        Err(RenderError::TooLong { part: Part::Html, limit })
    );
    let content = Content { subject: Some("{{context.x}}".to_owned()), ..content("x") };
    let error = Template::compile(Channel::Email, &content).unwrap().render(&personal(&big)).unwrap_err();
    assert_eq!(error, RenderError::TooLong { part: Part::Subject, limit: MAX_SUBJECT_BYTES });
}

#[test]
fn silent_loops_are_bounded() {
    let list = format!(r#"{{"l":[{}1],"m":"{}"}}"#, "1,".repeat(40_000), "z".repeat(90_000));
    for template in [
        "{{#each context.l}}{{#each @root.context.l}}{{#each @root.context.l}}{{/each}}{{/each}}{{/each}}",
        "{{#each context.l}}{{#if (lookup @root.context 'l')}}{{/if}}{{/each}}",
        "{{#each context.l}}{{#if (eq @root.context.m @root.context.m)}}{{/if}}{{/each}}",
        "{{#with (lookup context 'l')}}{{#each this}}{{#if ../this}}{{/if}}{{/each}}{{/with}}",
    ] {
        assert_eq!(html(template, &list), Err(RenderError::TooMuchWork(Part::Html)), "{template}");
    }
    assert_eq!(html("{{#each context.l}}{{this}}{{/each}}", &list).unwrap().len(), 40_001);
}

#[test]
fn what_does_not_loop_is_bounded_too() {
    let big = format!(r#"{{"m":"{}"}}"#, "z".repeat(900_000));
    let compares = |times| "{{eq context.m context.m}}".repeat(times);
    assert_eq!(html(&compares(1_000), &big), Err(RenderError::TooMuchWork(Part::Html)));
    assert_eq!(html(&compares(100), &big).unwrap(), "true".repeat(100));
}

#[test]
fn data_that_cannot_be_read_is_an_error() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(html("x", &deep), Err(RenderError::Data("context")));
    assert_eq!(html("{{context.x}}{{this}}", "[1]").unwrap_err().to_string().split(':').next(), Some("html"));
}

#[test]
fn the_largest_template_compiles() {
    let tags = 1_000_000_000 / (512 * 1024);
    let source = "{{a}}".repeat(tags) + &"x".repeat(512 * 1024 - 5 * tags);
    Template::compile(Channel::Email, &content(&source)).unwrap();
}
