use super::*;
use http::HeaderValue;
use uuid::Uuid;

fn caller(role: Role, ims_org: &str, sandboxes: Option<&[&str]>) -> Caller {
    let sandboxes = sandboxes.map(|names| names.iter().map(|&name| name.to_owned()).collect());
    Caller { key: Arc::new(key(role, ims_org, sandboxes)) }
}

fn key(role: Role, ims_org: &str, sandboxes: Option<Vec<String>>) -> ApiKey {
    ApiKey {
        id: ApiKeyId(Uuid::nil()),
        ims_org: ims_org.to_owned(),
        role,
        name: "k".to_owned(),
        sandboxes,
        expires_at: Some(Timestamp(5_000)),
        revoked_at: None,
        created_at: Timestamp(0),
        created_by: "esito".to_owned(),
    }
}

#[test]
fn roles_have_their_rights_and_no_others() {
    let rights = |role| {
        let caller = caller(role, "acme@EsitoOrg", None);
        [
            caller.check::<Sends>().is_ok(),
            caller.check::<ReadsOwn>().is_ok(),
            caller.check::<Reads>().is_ok(),
            caller.check::<Edits>().is_ok(),
            caller.check::<Administers>().is_ok(),
        ]
    };
    assert_eq!(rights(Role::Admin), [true, true, true, true, true]);
    assert_eq!(rights(Role::Operator), [true, true, true, true, false]);
    assert_eq!(rights(Role::Sender), [true, true, false, false, false]);
    assert_eq!(rights(Role::Viewer), [false, true, true, false, false]);
}

#[test]
fn only_an_unrestricted_admin_of_the_default_organization_crosses() {
    let enters = |caller: Caller, org| InOrganization::<ReadsOwn>::enter(caller, org).map(|entered| entered.ims_org);
    let foreign = Err(Problem::ForeignOrganization);
    assert_eq!(
        enters(caller(Role::Admin, DEFAULT_ORGANIZATION, None), Some("acme@EsitoOrg")),
        Ok("acme@EsitoOrg".into())
    );
    assert_eq!(enters(caller(Role::Operator, DEFAULT_ORGANIZATION, None), Some("acme@EsitoOrg")), foreign);
    assert_eq!(enters(caller(Role::Admin, DEFAULT_ORGANIZATION, Some(&["prod"])), Some("acme@EsitoOrg")), foreign);
    assert_eq!(enters(caller(Role::Admin, "acme@EsitoOrg", None), Some(DEFAULT_ORGANIZATION)), foreign);
    assert_eq!(enters(caller(Role::Admin, "acme@EsitoOrg", None), Some("")), foreign);
    assert_eq!(enters(caller(Role::Viewer, "acme@EsitoOrg", None), None), Ok("acme@EsitoOrg".into()));
}

#[test]
fn dead_keys_are_refused_and_say_why() {
    let live = Arc::new(key(Role::Admin, "a@EsitoOrg", None));
    assert!(Caller::live(Arc::clone(&live), Timestamp(4_999)).is_ok());
    let expired = Caller::live(Arc::clone(&live), Timestamp(5_000)).unwrap_err();
    assert_eq!(expired, Problem::Unauthenticated("the API key has expired"));
    let revoked = ApiKey { revoked_at: Some(Timestamp(1)), ..(*live).clone() };
    let revoked = Caller::live(Arc::new(revoked), Timestamp(2)).unwrap_err();
    assert_eq!(revoked, Problem::Unauthenticated("the API key was revoked"));
}

#[test]
fn headers_are_there_once() {
    let mut headers = HeaderMap::new();
    assert_eq!(required(&headers, SANDBOX_HEADER), Err(Problem::MissingHeader(SANDBOX_HEADER)));
    headers.append(SANDBOX_HEADER, HeaderValue::from_static("prod"));
    assert_eq!(required(&headers, SANDBOX_HEADER), Ok("prod"));
    headers.append(SANDBOX_HEADER, HeaderValue::from_static("dev"));
    assert_eq!(text(&headers, SANDBOX_HEADER), Err(Problem::MissingHeader(SANDBOX_HEADER)));
}

#[test]
fn keys_look_like_keys() {
    #[derive(Debug)]
    struct Sevens;
    impl Entropy for Sevens {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }
    let key = new_key(&Sevens);
    assert_eq!((key.len(), &key[..6]), (KEY_CHARS, KEY_PREFIX));
    assert_ne!(hash_key(&key), hash_key("esito_"));
}
