//! The endpoint guard's pure rules: which URLs and addresses Esito may send a request to.
//!
//! A customer chooses the URL, so without these rules Esito would be a way into the operator's own network
//! (server-side request forgery, CWE-918). URLs are read as the WHATWG URL standard says, which turns every spelling
//! of an IPv4 literal (`0`, `2852039166`, `0x7f.1`, `017700000001`) into an address before it is judged.
//! The ranges are those of the IANA special-purpose registries (RFC 6890 and its updates), of the tunnels that carry
//! another address inside (RFC 4291, 6052, 3056, 4380) and the metadata services of the large clouds.
//!
//! The rules must hold at create, at edit and at every connect; a URL that passes [`EgressPolicy::check_url`] still
//! has a name whose addresses go through [`EgressPolicy::filter`] after each resolution.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// The longest URL taken, in characters, as given and as sent.
pub const MAX_URL_CHARS: usize = 2048;

/// What an operator opens beyond the public internet.
#[derive(Clone, Debug, Default)]
pub struct EgressPolicy {
    /// Networks that may be reached although they lie in a refused range.
    pub allow_networks: Vec<IpNet>,
    /// Whether plain `http` is accepted.
    pub allow_http: bool,
}

impl EgressPolicy {
    /// Whether a connection to `ip` is allowed, and if not, why.
    ///
    /// # Errors
    /// Names the range that forbids the address.
    pub fn allows_ip(&self, ip: IpAddr) -> Result<(), AddressRefusal> {
        match range_of(ip) {
            Some(range) if !self.opens(ip) => Err(AddressRefusal::Forbidden { ip, range }),
            _ => Ok(()),
        }
    }

    /// The allowed ones among `ips`, in their order: the only addresses that a connection may go to.
    ///
    /// # Errors
    /// When nothing remains: the first refusal, or [`AddressRefusal::NoAddress`] when there was nothing to begin with.
    pub fn filter(&self, ips: impl IntoIterator<Item = IpAddr>) -> Result<Vec<IpAddr>, AddressRefusal> {
        let mut first_refusal = None;
        let mut allowed = Vec::new();
        for ip in ips {
            match self.allows_ip(ip) {
                Ok(()) => allowed.push(ip),
                Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
            }
        }
        if allowed.is_empty() {
            return Err(first_refusal.unwrap_or(AddressRefusal::NoAddress));
        }
        Ok(allowed)
    }

    /// Reads a URL that requests may be sent to, checking everything that is known without resolving its name.
    ///
    /// # Errors
    /// Names what is wrong with the URL and how to mend it. No text repeats a password.
    pub fn check_url(&self, url: &str) -> Result<Url, UrlRefusal> {
        check_length(url)?;
        let parsed = Url::parse(url).map_err(UrlRefusal::Malformed)?;
        check_length(parsed.as_str())?;
        self.check_scheme(&parsed)?;
        check_parts(&parsed)?;
        self.check_host(&parsed)?;
        Ok(parsed)
    }

    fn check_scheme(&self, url: &Url) -> Result<(), UrlRefusal> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.allow_http => Ok(()),
            "http" => Err(UrlRefusal::PlainHttp),
            other => Err(UrlRefusal::Scheme(other.to_owned())),
        }
    }

    fn check_host(&self, url: &Url) -> Result<(), UrlRefusal> {
        match url.host().ok_or(UrlRefusal::NoHost)? {
            Host::Ipv4(ip) => self.allows_ip(ip.into()).map_err(UrlRefusal::Address),
            Host::Ipv6(ip) => self.allows_ip(ip.into()).map_err(UrlRefusal::Address),
            Host::Domain(name) => self.check_name(name),
        }
    }

    fn check_name(&self, name: &str) -> Result<(), UrlRefusal> {
        let bare = name.trim_end_matches('.');
        if bare.is_empty() {
            return Err(UrlRefusal::NoHost);
        }
        let local = bare == "localhost" || bare.ends_with(".localhost");
        if local && !self.opens_loopback() {
            return Err(UrlRefusal::LocalName(name.to_owned()));
        }
        Ok(())
    }

    fn opens_loopback(&self) -> bool {
        self.opens(Ipv4Addr::LOCALHOST.into()) || self.opens(Ipv6Addr::LOCALHOST.into())
    }

    /// Whether the operator opened `ip`. A v4 address and its v4-mapped form are one destination, so an entry of
    /// either form opens both.
    fn opens(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(v4) => self.allow_networks.iter().any(|net| opens_v4(net, v4)),
            IpAddr::V6(v6) => self.allow_networks.iter().any(|net| opens_v6(net, v6)),
        }
    }
}

/// Why no connection may go to an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    /// The address lies in a forbidden range.
    #[error("{ip} is {}; an operator can open it with egress.allow_networks", .range.phrase())]
    Forbidden {
        /// The address, as it was given.
        ip: IpAddr,
        /// The range it lies in.
        range: ForbiddenRange,
    },
    /// The name has no address at all.
    #[error("the name resolves to no address; check its spelling and its DNS records")]
    NoAddress,
}

impl AddressRefusal {
    /// The range's name, or `no-address`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Forbidden { range, .. } => range.as_str(),
            Self::NoAddress => "no-address",
        }
    }
}

/// Why a URL may not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefusal {
    /// Longer than [`MAX_URL_CHARS`].
    #[error("the URL is longer than {MAX_URL_CHARS} characters; shorten it")]
    TooLong,
    /// The WHATWG URL standard cannot read it.
    #[error("the URL cannot be read ({0}); write it as https://host/path")]
    Malformed(url::ParseError),
    /// `http` without the operator's leave.
    #[error("the URL uses plain http; use https (an operator can open http with egress.allow_http)")]
    PlainHttp,
    /// Neither `https` nor `http`.
    #[error("the URL's scheme is `{0}`; use https")]
    Scheme(String),
    /// A user name or password.
    #[error("the URL holds a user name or password; take it out and set an authentication instead")]
    Credentials,
    /// A fragment, which no request carries.
    #[error("the URL has a fragment (`#…`), which is never sent; take it out")]
    Fragment,
    /// No host, or only dots.
    #[error("the URL names no host; write it as https://host/path")]
    NoHost,
    /// Port 0, which nothing can listen on.
    #[error("the URL's port is 0; name the port the endpoint listens on")]
    PortZero,
    /// `localhost`, or a name under it (RFC 6761, section 6.3).
    #[error("`{0}` is the loopback's name; an operator can open it with egress.allow_networks")]
    LocalName(String),
    /// The host is an address that lies in a forbidden range.
    #[error(transparent)]
    Address(AddressRefusal),
}

impl UrlRefusal {
    /// A word for the cause: the range's name where an address is refused.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Malformed(_) => "malformed",
            Self::PlainHttp => "plain-http",
            Self::Scheme(_) => "scheme",
            Self::Credentials => "credentials",
            Self::Fragment => "fragment",
            Self::NoHost => "no-host",
            Self::PortZero => "port-zero",
            Self::LocalName(_) => ForbiddenRange::Loopback.as_str(),
            Self::Address(refusal) => refusal.kind(),
        }
    }
}

macro_rules! forbidden_ranges {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $phrase:literal;)*) => {
        /// The ranges that are refused unless an operator opens them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ForbiddenRange {$($(#[$doc])* $name,)*}

        impl ForbiddenRange {
            /// The range's name, for programs.
            pub fn as_str(self) -> &'static str {
                match self {$(Self::$name => $kind,)*}
            }

            /// What an address of the range is, with its article.
            fn phrase(self) -> &'static str {
                match self {$(Self::$name => $phrase,)*}
            }
        }
    };
}

forbidden_ranges! {
    /// `0.0.0.0/8` and `::`; many systems connect them to themselves.
    Unspecified = "unspecified", "an unspecified address";
    /// `127.0.0.0/8` and `::1`.
    Loopback = "loopback", "a loopback address";
    /// RFC 1918.
    Private = "private", "a private address";
    /// `fc00::/7` (RFC 4193).
    UniqueLocal = "unique-local", "a unique local address";
    /// `169.254.0.0/16` and `fe80::/10`.
    LinkLocal = "link-local", "a link-local address";
    /// `fec0::/10`, deprecated by RFC 3879 and still routed inside some networks.
    SiteLocal = "site-local", "a site-local address";
    /// A cloud's metadata service or its like, which hands credentials to whoever asks from inside.
    Metadata = "metadata", "a cloud metadata address";
    /// `100.64.0.0/10` (RFC 6598).
    CarrierNat = "carrier-nat", "a carrier-grade NAT address";
    /// `192.0.0.0/24` and `2001::/23`, what the IETF keeps for its protocols.
    ProtocolAssignment = "protocol-assignment", "an IETF protocol assignment";
    /// `192.0.2.0/24`, `198.51.100.0/24`, `203.0.113.0/24`, `2001:db8::/32` and `3fff::/20`.
    Documentation = "documentation", "a documentation address";
    /// `198.18.0.0/15` (RFC 2544).
    Benchmarking = "benchmarking", "a benchmarking address";
    /// `192.88.99.0/24`, the retired 6to4 relay (RFC 7526).
    RelayAnycast = "relay-anycast", "a 6to4 relay address";
    /// `224.0.0.0/4` and `ff00::/8`.
    Multicast = "multicast", "a multicast address";
    /// `255.255.255.255`.
    Broadcast = "broadcast", "the broadcast address";
    /// `240.0.0.0/4`.
    Reserved = "reserved", "a reserved address";
    /// `64:ff9b::/96` and `64:ff9b:1::/48`: a gateway would unpack any v4 address out of it.
    Nat64 = "nat64", "a NAT64 address";
    /// `2002::/16`, likewise.
    SixToFour = "6to4", "a 6to4 address";
    /// `2001::/32`, likewise.
    Teredo = "teredo", "a Teredo address";
    /// `2001:10::/28` and `2001:20::/28`: identifiers, not places.
    Orchid = "orchid", "an ORCHID identifier";
    /// `100::/64` (RFC 6666).
    Discard = "discard", "a discard-only address";
    /// Whatever else lies outside `2000::/3`, the only IPv6 space in public use.
    NotGlobal = "not-global", "not a global address";
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// The refused IPv4 ranges; the first that holds the address names it, so the narrow ones come first.
const FORBIDDEN_V4: &[(Ipv4Net, ForbiddenRange)] = &[
    (v4(0, 0, 0, 0, 8), ForbiddenRange::Unspecified),
    (v4(127, 0, 0, 0, 8), ForbiddenRange::Loopback),
    (v4(10, 0, 0, 0, 8), ForbiddenRange::Private),
    (v4(172, 16, 0, 0, 12), ForbiddenRange::Private),
    (v4(192, 168, 0, 0, 16), ForbiddenRange::Private),
    // AWS, Google, Azure and most others; then Alibaba, Oracle, and Azure's WireServer, which is public space that
    // answers only inside.
    (v4(169, 254, 169, 254, 32), ForbiddenRange::Metadata),
    (v4(100, 100, 100, 200, 32), ForbiddenRange::Metadata),
    (v4(192, 0, 0, 192, 32), ForbiddenRange::Metadata),
    (v4(168, 63, 129, 16, 32), ForbiddenRange::Metadata),
    (v4(169, 254, 0, 0, 16), ForbiddenRange::LinkLocal),
    (v4(100, 64, 0, 0, 10), ForbiddenRange::CarrierNat),
    (v4(192, 0, 0, 0, 24), ForbiddenRange::ProtocolAssignment),
    (v4(192, 0, 2, 0, 24), ForbiddenRange::Documentation),
    (v4(198, 51, 100, 0, 24), ForbiddenRange::Documentation),
    (v4(203, 0, 113, 0, 24), ForbiddenRange::Documentation),
    (v4(198, 18, 0, 0, 15), ForbiddenRange::Benchmarking),
    (v4(192, 88, 99, 0, 24), ForbiddenRange::RelayAnycast),
    (v4(224, 0, 0, 0, 4), ForbiddenRange::Multicast),
    (v4(255, 255, 255, 255, 32), ForbiddenRange::Broadcast),
    (v4(240, 0, 0, 0, 4), ForbiddenRange::Reserved),
];

/// The refused IPv6 ranges, in the same order of precedence. Embedded IPv4 addresses are judged before this.
const FORBIDDEN_V6: &[(Ipv6Net, ForbiddenRange)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), ForbiddenRange::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), ForbiddenRange::Loopback),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), ForbiddenRange::Metadata),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), ForbiddenRange::Metadata),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), ForbiddenRange::Nat64),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), ForbiddenRange::Nat64),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), ForbiddenRange::Discard),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), ForbiddenRange::Teredo),
    (v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28), ForbiddenRange::Orchid),
    (v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28), ForbiddenRange::Orchid),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), ForbiddenRange::ProtocolAssignment),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), ForbiddenRange::Documentation),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), ForbiddenRange::Documentation),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), ForbiddenRange::SixToFour),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), ForbiddenRange::UniqueLocal),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), ForbiddenRange::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), ForbiddenRange::SiteLocal),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), ForbiddenRange::Multicast),
];

/// The space that IANA gives out for public use (RFC 4291, section 2.4).
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// The shortest IPv6 prefix that speaks of v4-mapped addresses at all.
const MAPPED_PREFIX: u8 = 96;

fn range_of(ip: IpAddr) -> Option<ForbiddenRange> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => range_of_v4(ip),
        IpAddr::V6(ip) => range_of_v6(ip),
    }
}

fn range_of_v4(ip: Ipv4Addr) -> Option<ForbiddenRange> {
    FORBIDDEN_V4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, range)| *range)
}

fn range_of_v6(ip: Ipv6Addr) -> Option<ForbiddenRange> {
    if let Some((_, range)) = FORBIDDEN_V6.iter().find(|(net, _)| net.contains(&ip)) {
        return Some(*range);
    }
    // A v4-compatible address (`::a.b.c.d`) is named after what it embeds, but is refused in any case.
    let compatible = compatible_v4(ip).and_then(range_of_v4);
    compatible.or_else(|| (!GLOBAL_V6.contains(&ip)).then_some(ForbiddenRange::NotGlobal))
}

fn compatible_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0, 0, 0, 0, 0, 0, _, _] = ip.segments() else {
        return None;
    };
    let [.., a, b, c, d] = ip.octets();
    Some(Ipv4Addr::new(a, b, c, d))
}

fn opens_v4(net: &IpNet, ip: Ipv4Addr) -> bool {
    match net {
        IpNet::V4(net) => net.contains(&ip),
        // A wide entry such as `::/0` means the IPv6 network, not every IPv4 address by way of the mapped ones.
        IpNet::V6(net) => net.prefix_len() >= MAPPED_PREFIX && net.contains(&ip.to_ipv6_mapped()),
    }
}

fn opens_v6(net: &IpNet, ip: Ipv6Addr) -> bool {
    matches!(net, IpNet::V6(net) if net.contains(&ip))
}

fn check_length(url: &str) -> Result<(), UrlRefusal> {
    // Counting stops at the bound, whatever the length.
    match url.chars().nth(MAX_URL_CHARS) {
        Some(_) => Err(UrlRefusal::TooLong),
        None => Ok(()),
    }
}

fn check_parts(url: &Url) -> Result<(), UrlRefusal> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlRefusal::Credentials);
    }
    if url.fragment().is_some() {
        return Err(UrlRefusal::Fragment);
    }
    if url.port() == Some(0) {
        return Err(UrlRefusal::PortZero);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
