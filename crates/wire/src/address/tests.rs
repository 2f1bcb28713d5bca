use super::*;
use proptest::prelude::*;

fn policy(networks: &[&str]) -> EgressPolicy {
    let allow_networks = networks.iter().map(|net| net.parse().expect("a network")).collect();
    EgressPolicy { allow_networks, allow_http: false }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn kind_of(policy: &EgressPolicy, text: &str) -> &'static str {
    policy.allows_ip(ip(text)).map_or_else(|refusal| refusal.kind(), |()| "allowed")
}

#[test]
fn names_the_range_of_an_address() {
    let closed = EgressPolicy::default();
    for (address, kind) in [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", "allowed"),
        ("192.168.1.1", "private"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("100.64.0.1", "carrier-nat"),
        ("100.128.0.0", "allowed"),
        ("192.0.0.1", "protocol-assignment"),
        ("192.0.2.1", "documentation"),
        ("198.51.100.7", "documentation"),
        ("203.0.113.9", "documentation"),
        ("198.19.255.255", "benchmarking"),
        ("192.88.99.1", "relay-anycast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("1.1.1.1", "allowed"),
        ("8.8.8.8", "allowed"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::2", "unspecified"),
        ("::127.0.0.1", "loopback"),
        ("::10.0.0.1", "private"),
        ("::8.8.8.8", "not-global"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("::ffff:8.8.8.8", "allowed"),
        ("::ffff:0:127.0.0.1", "not-global"),
        ("64:ff9b::8.8.8.8", "nat64"),
        ("64:ff9b::10.0.0.1", "nat64"),
        ("64:ff9b:1::1", "nat64"),
        ("64:ff9b:1:ffff::1", "nat64"),
        ("64:ff9b:2::1", "not-global"),
        ("100::1", "discard"),
        ("100:0:0:1::1", "not-global"),
        ("2001::1", "teredo"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "teredo"),
        ("2001:2::1", "protocol-assignment"),
        ("2001:10::1", "orchid"),
        ("2001:2f:ffff::1", "orchid"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("3fff:1000::1", "allowed"),
        ("2002:7f00:1::1", "6to4"),
        ("2002:808:808::1", "6to4"),
        ("fc00::1", "unique-local"),
        ("fdff:ffff::1", "unique-local"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("fe80::1", "link-local"),
        ("febf::1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("1fff::1", "not-global"),
        ("4000::1", "not-global"),
        ("5f00::1", "not-global"),
        ("2606:4700:4700::1111", "allowed"),
        ("2a00:1450:4001::1", "allowed"),
    ] {
        assert_eq!(kind_of(&closed, address), kind, "{address}");
    }
}

#[test]
fn the_text_names_the_fault_and_the_mend() {
    let refusal = EgressPolicy::default().allows_ip(ip("::ffff:127.0.0.1")).expect_err("loopback");
    assert_eq!(
        refusal.to_string(),
        "::ffff:127.0.0.1 is a loopback address; an operator can open it with egress.allow_networks"
    );
}

#[test]
fn an_entry_opens_itself_in_both_forms_and_nothing_else() {
    let open = policy(&["127.0.0.0/8"]);
    assert_eq!(kind_of(&open, "127.0.0.1"), "allowed");
    assert_eq!(kind_of(&open, "::ffff:127.0.0.1"), "allowed");
    assert_eq!(kind_of(&open, "::127.0.0.1"), "loopback");
    assert_eq!(kind_of(&open, "::1"), "loopback");
    assert_eq!(kind_of(&open, "10.0.0.1"), "private");

    let open = policy(&["::ffff:10.0.0.0/104"]);
    assert_eq!(kind_of(&open, "10.1.2.3"), "allowed");
    assert_eq!(kind_of(&open, "::ffff:10.1.2.3"), "allowed");
    assert_eq!(kind_of(&open, "11.1.2.3"), "allowed");
    assert_eq!(kind_of(&open, "127.0.0.1"), "loopback");

    let open = policy(&["10.0.0.0/8"]);
    assert_eq!(kind_of(&open, "64:ff9b::10.0.0.1"), "nat64");
    assert_eq!(kind_of(&open, "2002:a00:1::1"), "6to4");
}

#[test]
fn opening_all_of_ipv6_opens_no_ipv4() {
    let open = policy(&["::/0"]);
    assert_eq!(kind_of(&open, "fd00::1"), "allowed");
    assert_eq!(kind_of(&open, "10.0.0.1"), "private");
    assert_eq!(kind_of(&open, "::ffff:10.0.0.1"), "private");
}

#[test]
fn filter_keeps_what_is_allowed_and_names_the_first_reason() {
    let closed = EgressPolicy::default();
    let mixed = ["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1"].map(ip);
    assert_eq!(closed.filter(mixed), Ok(vec![ip("1.1.1.1"), ip("2606:4700::1")]));
    let none = closed.filter(["10.0.0.1", "127.0.0.1"].map(ip)).expect_err("nothing remains");
    let range = ForbiddenRange::Private;
    assert_eq!(none, AddressRefusal::Forbidden { ip: ip("10.0.0.1"), range });
    assert_eq!(closed.filter([]), Err(AddressRefusal::NoAddress));
}

/// Hostile URLs, each with the kind of its refusal.
const HOSTILE: &[(&str, &str)] = &[
    ("https://127.0.0.1/", "loopback"),
    ("https://127.0.0.1:8443/hook", "loopback"),
    ("https://127.1/", "loopback"),
    ("https://127.0.1/", "loopback"),
    ("https://127.0.0.1./", "loopback"),
    ("https://2130706433/", "loopback"),
    ("https://017700000001/", "loopback"),
    ("https://0177.0.0.1/", "loopback"),
    ("https://0177.0.0.01/", "loopback"),
    ("https://0x7f000001/", "loopback"),
    ("https://0x7f.1/", "loopback"),
    ("https://0x7f.0x0.0x0.0x1/", "loopback"),
    ("https://0X7F.0.0.1/", "loopback"),
    ("https://127.0.0x.1/", "loopback"),
    ("https://127。0。0。1/", "loopback"),
    ("https://127%2e0%2e0%2e1/", "loopback"),
    ("https://１２７.０.０.１/", "loopback"),
    ("https://①②⑦.⓪.⓪.①/", "loopback"),
    ("https://%31%32%37.0.0.1/", "loopback"),
    ("https:127.0.0.1/", "loopback"),
    ("https:///127.0.0.1/", "loopback"),
    ("https:\\\\127.0.0.1\\", "loopback"),
    (" \t https://127.0.0.1/ \n", "loopback"),
    ("ht\ntps://127.0.\t0.1/", "loopback"),
    ("HTTPS://127.0.0.1/", "loopback"),
    ("https://0/", "unspecified"),
    ("https://0.0.0.0/", "unspecified"),
    ("https://0x0/", "unspecified"),
    ("https://0x/", "unspecified"),
    ("https://00000/", "unspecified"),
    ("https://0.1/", "unspecified"),
    ("https://2852039166/", "metadata"),
    ("https://169.254.169.254/latest/meta-data/", "metadata"),
    ("https://169.254.43518/", "metadata"),
    ("https://0xa9fea9fe/", "metadata"),
    ("https://0251.0376.0251.0376/", "metadata"),
    ("https://0xa9.254.0251.254/", "metadata"),
    ("https://025177524776/", "metadata"),
    ("https://100.100.100.200/", "metadata"),
    ("https://168.63.129.16/", "metadata"),
    ("https://169.254.0.1/", "link-local"),
    ("https://10.0.0.1/", "private"),
    ("https://10.1/", "private"),
    ("https://167772161/", "private"),
    ("https://012.1.2.3/", "private"),
    ("https://172.16.0.1/", "private"),
    ("https://192.168.0.1/", "private"),
    ("https://192.168.257/", "private"),
    ("https://0xc0a80001/", "private"),
    ("https://100.64.0.1/", "carrier-nat"),
    ("https://198.18.0.1/", "benchmarking"),
    ("https://192.0.2.1/", "documentation"),
    ("https://224.0.0.1/", "multicast"),
    ("https://240.0.0.1/", "reserved"),
    ("https://255.255.255.255/", "broadcast"),
    ("https://4294967295/", "broadcast"),
    ("https://[::]/", "unspecified"),
    ("https://[::1]/", "loopback"),
    ("https://[0:0:0:0:0:0:0:1]/", "loopback"),
    ("https://[0000:0000::0001]:443/", "loopback"),
    ("https://[::ffff:127.0.0.1]/", "loopback"),
    ("https://[::ffff:7f00:1]/", "loopback"),
    ("https://[::FFFF:7F00:0001]/", "loopback"),
    ("https://[::ffff:169.254.169.254]/", "metadata"),
    ("https://[::ffff:10.0.0.1]/", "private"),
    ("https://[::127.0.0.1]/", "loopback"),
    ("https://[::7f00:1]/", "loopback"),
    ("https://[64:ff9b::127.0.0.1]/", "nat64"),
    ("https://[64:ff9b::a9fe:a9fe]/", "nat64"),
    ("https://[64:ff9b:1::7f00:1]/", "nat64"),
    ("https://[2002:7f00:1::]/", "6to4"),
    ("https://[2002:a9fe:a9fe::1]/", "6to4"),
    ("https://[2001:0:7f00:1::]/", "teredo"),
    ("https://[fc00::1]/", "unique-local"),
    ("https://[fd00:ec2::254]/", "metadata"),
    ("https://[fe80::1]/", "link-local"),
    ("https://[fec0::1]/", "site-local"),
    ("https://[ff02::1]/", "multicast"),
    ("https://[2001:db8::1]/", "documentation"),
    ("https://[100::1]/", "discard"),
    ("https://[2001:10::1]/", "orchid"),
    ("https://[4000::1]/", "not-global"),
    ("https://localhost/", "loopback"),
    ("https://LOCALHOST/", "loopback"),
    ("https://localhost./", "loopback"),
    ("https://localhost../", "loopback"),
    ("https://foo.localhost/", "loopback"),
    ("https://foo.bar.localhost.:8443/", "loopback"),
    ("https://%6cocalhost/", "loopback"),
    ("https://ｌｏｃａｌｈｏｓｔ/", "loopback"),
    ("https://ⓛocalhost/", "loopback"),
    ("https://local\u{ad}host/", "loopback"),
    ("https://user@example.com/", "credentials"),
    ("https://user:pass@example.com/", "credentials"),
    ("https://:pass@example.com/", "credentials"),
    ("https://example.com:pass@127.0.0.1/", "credentials"),
    ("https://example.com@127.0.0.1/", "credentials"),
    ("https://example.com%40@127.0.0.1/", "credentials"),
    ("https://127.0.0.1#@example.com/", "fragment"),
    ("https://127.0.0.1\\@example.com/", "loopback"),
    ("https://example.com/#", "fragment"),
    ("https://example.com/a?b#c", "fragment"),
    ("https://example.com:0/", "port-zero"),
    ("https://example.com:65536/", "malformed"),
    ("https://example.com:-1/", "malformed"),
    ("https://", "malformed"),
    ("https://./", "no-host"),
    ("https://[::1/", "malformed"),
    ("https://[fe80::1%25eth0]/", "malformed"),
    ("https://256.256.256.256/", "malformed"),
    ("https://127.0.0.0.1/", "malformed"),
    ("https://1.2.3.4.5/", "malformed"),
    ("https://4294967296/", "malformed"),
    ("https://exa mple.com/", "malformed"),
    ("https://exa%00mple.com/", "malformed"),
    ("https://exa<mple.com/", "malformed"),
    ("//127.0.0.1/", "malformed"),
    ("127.0.0.1", "malformed"),
    ("", "malformed"),
    ("http://example.com/", "plain-http"),
    ("http://127.0.0.1/", "plain-http"),
    ("ftp://example.com/", "scheme"),
    ("file:///etc/passwd", "scheme"),
    ("file://127.0.0.1/etc/passwd", "scheme"),
    ("gopher://127.0.0.1:25/_HELO", "scheme"),
    ("dict://127.0.0.1:11211/stat", "scheme"),
    ("javascript:alert(1)", "scheme"),
    ("data:text/plain,hi", "scheme"),
    ("blob:https://example.com/x", "scheme"),
    ("localhost:8443/hook", "scheme"),
    ("ws://example.com/", "scheme"),
];

#[test]
fn hostile_urls_are_refused_for_the_right_reason() {
    assert!(HOSTILE.len() >= 60);
    let closed = EgressPolicy::default();
    for (url, kind) in HOSTILE {
        let refusal = closed.check_url(url).map(|url| url.to_string());
        assert_eq!(refusal.as_ref().map_err(UrlRefusal::kind), Err(*kind), "{url:?}");
    }
}

#[test]
fn ordinary_urls_pass() {
    let closed = EgressPolicy::default();
    for (url, read) in [
        ("https://example.com", "https://example.com/"),
        ("https://EXAMPLE.com:443/a?b=c", "https://example.com/a?b=c"),
        ("https://hooks.example.com:8443/x/y", "https://hooks.example.com:8443/x/y"),
        ("https://münchen.example/", "https://xn--mnchen-3ya.example/"),
        ("https://example.com./", "https://example.com./"),
        ("https://localhost.example.com/", "https://localhost.example.com/"),
        ("https://notlocalhost/", "https://notlocalhost/"),
        ("https://1.1.1.1/", "https://1.1.1.1/"),
        ("https://16843009/", "https://1.1.1.1/"),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
        ("https://@example.com/", "https://example.com/"),
    ] {
        let checked = closed.check_url(url).map(String::from);
        assert_eq!(checked, Ok(read.to_owned()), "{url}");
    }
}

#[test]
fn the_operator_opens_loopback_and_http() {
    for network in ["127.0.0.0/8", "127.0.0.1/32", "::1/128"] {
        assert!(policy(&[network]).check_url("https://localhost:8443/").is_ok(), "{network}");
    }
    assert!(policy(&["10.0.0.0/8"]).check_url("https://localhost/").is_err());
    let open = EgressPolicy { allow_http: true, ..policy(&["127.0.0.0/8"]) };
    assert!(open.check_url("http://127.0.0.1:9000/").is_ok());
    assert!(open.check_url("http://0x7f.1/").is_ok());
    assert!(open.check_url("http://user@127.0.0.1/").is_err());
    assert!(open.check_url("http://10.0.0.1/").is_err());
    assert!(open.check_url("ftp://127.0.0.1/").is_err());
}

#[test]
fn the_length_is_bounded_as_given_and_as_sent() {
    let closed = EgressPolicy::default();
    let of_length = |chars: usize, filler: &str| {
        let base = "https://example.com/";
        format!("{base}{}", filler.repeat(chars - base.len()))
    };
    assert!(closed.check_url(&of_length(MAX_URL_CHARS, "a")).is_ok());
    assert_eq!(closed.check_url(&of_length(MAX_URL_CHARS + 1, "a")), Err(UrlRefusal::TooLong));
    // Each `ü` is sent as six characters.
    assert_eq!(closed.check_url(&of_length(1000, "ü")), Err(UrlRefusal::TooLong));
}

#[test]
fn no_refusal_repeats_a_password() {
    let text = EgressPolicy::default().check_url("https://u:hunter2@example.com/").expect_err("credentials");
    assert!(!format!("{text} {text:?}").contains("hunter2"));
}

/// An address of the network, from arbitrary bits.
fn member_v4(net: Ipv4Net, bits: u32) -> Ipv4Addr {
    let host = u32::from(net.hostmask());
    Ipv4Addr::from(u32::from(net.network()) | (bits & host))
}

fn member_v6(net: Ipv6Net, bits: u128) -> Ipv6Addr {
    let host = u128::from(net.hostmask());
    Ipv6Addr::from(u128::from(net.network()) | (bits & host))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_member_of_a_v4_range_is_refused_in_both_forms(
        index in 0..FORBIDDEN_V4.len(), bits: u32,
    ) {
        let closed = EgressPolicy::default();
        let (net, _) = FORBIDDEN_V4[index];
        let member = member_v4(net, bits);
        prop_assert!(closed.allows_ip(member.into()).is_err());
        prop_assert!(closed.allows_ip(member.to_ipv6_mapped().into()).is_err());
        let octal = member.octets().map(|octet| format!("0{octet:o}")).join(".");
        let number = u32::from(member);
        let spellings = [
            format!("https://{member}/"),
            format!("https://{number}/"),
            format!("https://{number:#x}/"),
            format!("https://0{number:o}/"),
            format!("https://{octal}/"),
            format!("https://[{}]/", member.to_ipv6_mapped()),
        ];
        for url in spellings {
            prop_assert!(closed.check_url(&url).is_err(), "{url}");
        }
    }

    #[test]
    fn every_member_of_a_v6_range_is_refused(index in 0..FORBIDDEN_V6.len(), bits: u128) {
        let closed = EgressPolicy::default();
        let (net, _) = FORBIDDEN_V6[index];
        let member = member_v6(net, bits);
        prop_assert!(closed.allows_ip(member.into()).is_err());
        let url = format!("https://[{member}]/");
        prop_assert!(closed.check_url(&url).is_err());
    }

    #[test]
    fn nothing_outside_global_v6_is_allowed(bits: u128) {
        let ip = Ipv6Addr::from(bits);
        prop_assume!(!GLOBAL_V6.contains(&ip) && ip.to_ipv4_mapped().is_none());
        prop_assert!(EgressPolicy::default().allows_ip(ip.into()).is_err());
    }

    #[test]
    fn an_allowed_v4_network_opens_exactly_itself(
        index in 0..FORBIDDEN_V4.len(), bits: u32, other: u32, longer in 0..=8u8,
    ) {
        let (range, _) = FORBIDDEN_V4[index];
        let prefix = (range.prefix_len() + longer).min(32);
        let opened = Ipv4Net::new(member_v4(range, bits), prefix).expect("at most 32").trunc();
        let open = EgressPolicy { allow_networks: vec![opened.into()], allow_http: false };
        let inside = member_v4(opened, other);
        prop_assert!(open.allows_ip(inside.into()).is_ok());
        prop_assert!(open.allows_ip(inside.to_ipv6_mapped().into()).is_ok());
        for outside in [member_v4(range, other), Ipv4Addr::from(other)] {
            let closed = EgressPolicy::default().allows_ip(outside.into());
            if !opened.contains(&outside) {
                prop_assert_eq!(open.allows_ip(outside.into()), closed);
            }
        }
    }

    #[test]
    fn an_allowed_v6_network_opens_exactly_itself(
        index in 0..FORBIDDEN_V6.len(), bits: u128, other: u128, longer in 0..=16u8,
    ) {
        let (range, _) = FORBIDDEN_V6[index];
        let prefix = (range.prefix_len() + longer).min(128);
        let opened = Ipv6Net::new(member_v6(range, bits), prefix).expect("at most 128").trunc();
        let open = EgressPolicy { allow_networks: vec![opened.into()], allow_http: false };
        prop_assert!(open.allows_ip(member_v6(opened, other).into()).is_ok());
        let outside = member_v6(range, other);
        if !opened.contains(&outside) {
            prop_assert!(open.allows_ip(outside.into()).is_err());
        }
    }

    #[test]
    fn no_text_panics_and_what_passes_is_safe(text in "(https?:[/\\\\]{0,3})?\\PC{0,60}") {
        if let Ok(url) = EgressPolicy::default().check_url(&text) {
            prop_assert_eq!(url.scheme(), "https");
            prop_assert!(url.host().is_some() && url.username().is_empty());
        }
    }
}
