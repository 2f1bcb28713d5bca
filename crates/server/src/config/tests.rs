use super::*;

fn read(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("esito.toml");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let flags: Vec<_> = flags.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    load(Some(&path), environment, &flags).map(|loaded| loaded.config)
}

fn faults(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    read(file, environment, flags).unwrap_err().0.into_iter().map(|fault| fault.message).collect()
}

#[test]
fn the_example_names_every_key_with_its_default() {
    let example = include_str!("../../../../esito.example.toml");
    assert_eq!(read(example, &[], &[]).unwrap().to_json(), Config::default().to_json());
    for key in KEYS.iter().filter(|key| !key.environment_only) {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(example.lines().any(|line| line.starts_with(&format!("{name} = "))), "{name} is missing");
    }
}

#[test]
fn what_is_printed_reads_back() {
    let config = read("", &[("ESITO_EGRESS__ALLOW_NETWORKS", "10.0.0.0/8")], &[("log.format", "json")]).unwrap();
    let again = read(&config.to_toml(), &[], &[]).unwrap();
    assert_eq!(again.to_json(), config.to_json());
    assert_eq!(config.to_json()["egress"]["allow_networks"], serde_json::json!(["10.0.0.0/8"]));
}

#[test]
fn a_postgresql_database_is_named_by_its_url_and_shown_without_its_password() {
    for url in ["postgres://esito:hush@db.example:5433/esito?sslmode=require", "postgresql:///e?user=x&password=hush"] {
        let config = read(&format!("[database]\nurl = \"{url}\""), &[], &[]).unwrap();
        assert!(matches!(&config.database, Database::Postgres(kept) if kept.expose_secret() == url));
        let shown = config.to_json()["database"]["url"].as_str().unwrap().to_owned();
        assert!(!shown.contains("hush") && shown.starts_with("postgres"), "{shown}");
        assert!(!format!("{config:?}").contains("hush"));
    }
    let bad = faults("[database]\nurl = \"postgres://esito:hush@db.example/e?sslmode=maybe\"", &[], &[]);
    assert!(bad[0].starts_with("database.url: expected") && !bad[0].contains("hush"), "{bad:?}");
}

#[test]
fn flags_count_over_variables_and_variables_over_the_file() {
    let file = "listen = \"127.0.0.1:1\"\n[shutdown]\ndrain_seconds = 1\n[limits]\nmax_waiting_messages = 1";
    let environment = [("ESITO_SHUTDOWN__DRAIN_SECONDS", "2"), ("ESITO_LIMITS__MAX_WAITING_MESSAGES", "2")];
    let config = read(file, &environment, &[("limits.max_waiting_messages", "3")]).unwrap();
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.shutdown.drain, Duration::from_secs(2));
    assert_eq!(config.limits.max_waiting_messages, 3);
}

#[test]
fn a_list_in_a_variable_has_commas_and_may_be_empty() {
    let networks = |value: &str| {
        let file = "[egress]\nallow_networks = [\"192.168.0.0/16\"]";
        read(file, &[("ESITO_EGRESS__ALLOW_NETWORKS", value)], &[]).unwrap().egress.allow_networks
    };
    let expected: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    assert_eq!(networks("127.0.0.0/8, ::1/128"), expected);
    assert_eq!(networks(""), []);
}

#[test]
fn dns_servers_are_addresses_with_port_53_unless_they_say_another() {
    let file = "[egress]\ndns_servers = [\"10.0.0.2\", \"10.0.0.3:5353\", \"fd00::2\", \"[fd00::3]:5353\"]";
    let shown = read(file, &[], &[]).unwrap().to_json()["egress"]["dns_servers"].clone();
    assert_eq!(shown, serde_json::json!(["10.0.0.2:53", "10.0.0.3:5353", "[fd00::2]:53", "[fd00::3]:5353"]));
    let variable = [("ESITO_EGRESS__DNS_SERVERS", "10.0.0.2,[fd00::3]:5353")];
    assert_eq!(read(file, &variable, &[]).unwrap().egress.dns_servers.len(), 2);
    for bad in ["dns.example.com", "10.0.0.2:0", "10.0.0.2:65536", "10.0.0.0/8", "[fe80::1%2]:53", "udp://10.0.0.2"] {
        let fault = faults("", &[("ESITO_EGRESS__DNS_SERVERS", bad)], &[]).remove(0);
        assert!(fault.starts_with("egress.dns_servers: expected a list of IP addresses"), "{fault}");
        assert!(fault.ends_with(&format!("found {bad:?}")), "{fault}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let one = |file: &str| faults(file, &[], &[]).remove(0);
    assert_eq!(one("[egress]\nalow_http = true"), "there is no key egress.alow_http; the nearest is egress.allow_http");
    assert_eq!(one("[egres]\nallow_http = true"), "there is no key egres.allow_http; the nearest is egress.allow_http");
    assert_eq!(one("allow_http = true"), "there is no key allow_http; the nearest is egress.allow_http");
    assert_eq!(one("lisen = \"\""), "there is no key lisen; the nearest is listen");
    assert_eq!(one("[shutdwn]"), "there is no key shutdwn; the nearest is shutdown.drain_seconds");
    let variable = faults("", &[("ESITO_EGRESS_ALLOW_HTTP", "true")], &[]);
    assert_eq!(variable, ["there is no such setting; the nearest is ESITO_EGRESS__ALLOW_HTTP"]);
    let flag = faults("", &[], &[("log.fmt", "json")]);
    assert_eq!(flag, ["there is no key log.fmt; the nearest is log.format"]);
}

#[test]
fn variables_of_others_are_left_alone() {
    let environment = [("ESITO_CONFIG", "x"), ("ESITO_API_KEY", "x"), ("ESITOR", "vi"), ("PATH", "/bin")];
    assert!(read("", &environment, &[]).is_ok());
}

#[test]
fn a_wrong_type_names_the_key_and_what_is_expected() {
    let one = |file: &str| faults(file, &[], &[]).remove(0);
    assert_eq!(one("[egress]\nallow_http = \"yes\""), "egress.allow_http: expected true or false, found \"yes\"");
    assert_eq!(
        one("[shutdown]\ndrain_seconds = -1"),
        "shutdown.drain_seconds: expected a whole number of seconds up to 3600, found -1"
    );
    assert_eq!(one("egress = 3"), "egress is a table of keys: write [egress]");
    assert!(one("[listen]\nport = 3").starts_with("listen: expected an IP address and a port"));
    assert!(one("[database]\nurl = \"sqlite::memory:\"").starts_with("database.url: expected \"sqlite:\""));
    assert!(one("[egress]\nallow_networks = [\"10.0.0.0/33\"]").starts_with("egress.allow_networks: expected a list"));
    assert!(one("public_url = \"ftp://x\"").starts_with("public_url: expected an http or https URL"));
    assert!(one("listen = \"127.0.0.1:8025\"\nlisten = 3").starts_with("line 2: "));
}

#[test]
fn every_fault_is_told() {
    let environment = [("ESITO_LOG__LEVEL", "loud"), ("ESITO_LOG__FORM", "text")];
    assert_eq!(faults("lisen = 3\n[log]\nformat = 7", &environment, &[("listen", "x")]).len(), 5);
}

#[test]
fn the_master_key_comes_from_the_environment_alone_and_is_never_shown() {
    let text = STANDARD_KEY;
    let refused = faults(&format!("[secrets]\nmaster_key = \"{text}\""), &[], &[]).remove(0);
    assert_eq!(refused, "secrets.master_key is taken from the variable ESITO_SECRETS__MASTER_KEY only");
    assert!(!faults("", &[], &[("secrets.master_key", text)])[0].contains(text));
    let short = faults("", &[("ESITO_SECRETS__MASTER_KEY", "c2hvcnQ=")], &[]).remove(0);
    assert!(short.contains("32 bytes") && !short.contains("c2hvcnQ="));
    let environment = [("ESITO_SECRETS__MASTER_KEY", text), ("ESITO_SECRETS__MASTER_KEY_COMMAND", "echo hunter2")];
    let config = read("", &environment, &[]).unwrap();
    assert_eq!(config.to_json()["secrets"]["master_key"]["set"], true);
    for shown in [format!("{config:?}"), config.to_toml(), config.to_json().to_string()] {
        assert!(!shown.contains(text) && !shown.contains("hunter2"), "{shown}");
    }
}

const STANDARD_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn the_public_url_is_the_bound_address_unless_set() {
    let bound: SocketAddr = "127.0.0.1:4711".parse().unwrap();
    assert_eq!(Config::default().public_url(bound), "http://127.0.0.1:4711");
    let config = read("public_url = \"https://esito.example.com/\"", &[], &[]).unwrap();
    assert_eq!(config.public_url(bound), "https://esito.example.com");
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let missing = load(Some(Path::new("/nonexistent/esito.toml")), [], &[]).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/esito.toml: cannot be read"));
}
