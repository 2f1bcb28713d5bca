//! The OpenAPI document: what the handlers say about themselves, and what holds for all of them.

use super::problem::{PROBLEM_JSON, ProblemDocument};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    ResponseBuilder, SecurityRequirement,
};

const DESCRIPTION: &str = "\
Sends transactional email and SMS on an API call and posts signed feedback events to a webhook of yours.

Every call carries `Authorization: Bearer <API key>` and works in the sandbox that `x-gw-ims-org-id` and \
`x-sandbox-name` name. Every refusal is a problem document (RFC 9457) whose `type` tells the cause. Lists come in \
pages: `nextCursor` of one is `cursor` of the next.";

const SECURITY: &str = "apiKey";

/// The document before the operations are added.
pub fn base() -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Esito")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(license))
        .build();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new()
        .security_scheme(SECURITY, bearer)
        .schema_from::<ProblemDocument>()
        .schema_from::<super::problem::ProblemReport>()
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new(SECURITY, [""; 0])]))
        .build()
}

/// Adds the problems that an operation can answer because of what it takes.
pub fn finish(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        operations(item).for_each(add_problems);
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

fn add_problems(operation: &mut Operation) {
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let is_in_path = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Path,
        RefOr::Ref(_) => false,
    };
    let (in_path, any) = (parameters.iter().any(is_in_path), !parameters.is_empty());
    let body = operation.request_body.is_some();
    // An operation that is open to everybody says so with a requirement of its own; all others take the document's.
    let needs_key = operation.security.is_none();
    let problems = [
        (any || body, "400", "The request is not valid: the detail names the field, header or parameter."),
        (needs_key, "401", "No valid API key."),
        (needs_key, "403", "The API key does not allow this."),
        (in_path || needs_key, "404", "There is no such resource or sandbox."),
        (body, "413", "The body is too large."),
        (body, "415", "The body is not declared as JSON."),
        (needs_key, "503", "The store does not answer; `Retry-After` says when to come again."),
    ];
    for (_, status, description) in problems.into_iter().filter(|(applies, ..)| *applies) {
        let said = operation.responses.responses.entry(status.to_owned());
        said.or_insert_with(|| RefOr::T(problem(description)));
    }
}

fn problem(description: &str) -> utoipa::openapi::Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDocument"))).build();
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build()
}
