//! Which addresses a sink may be at.
//!
//! A sink is what the operator configured, loopback and private networks included. But a name leads
//! where its DNS says, and nobody configures on purpose an address that is only ever reached by
//! mistake or by deceit: those of the link, behind which a cloud keeps the credentials of the
//! machine, of many hosts at once, or of none. So the addresses of a name are looked at each time it
//! is dialled, after the lookup and before the connection, and there is no second lookup between: for
//! sinks of the kinds `http` and `postgres`, and for the platforms that are asked. The other kinds do
//! not come by here, and dial wherever a name leads.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// Where clouds answer for a machine's credentials, outside the link-local ranges: Alibaba, Oracle;
/// then Amazon and Google over IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether a sink may be there.
pub fn is_allowed(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_out = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    !is_out && !address.is_multicast() && !METADATA.contains(&address)
}

/// A host as it stands in a URL is an address at which no sink may be. Names are looked at later.
pub fn is_forbidden_literal(host: &str) -> bool {
    host.parse().is_ok_and(|address| !is_allowed(address))
}

/// A name leads nowhere; a fragment without it.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The resolver of the system knows no address of it, or cannot ask.
    #[error("its name has no address")]
    Unknown,
    /// It has some, and no sink may be at any of them.
    #[error("its name leads to no address that is allowed")]
    Forbidden,
}

/// The addresses of that host at which a sink may be, as the system's resolver tells.
///
/// # Errors
/// With a [`LookupError`] inside.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((host, port)).await;
    // What the resolver says is in the language of the system and of no kind that could be told.
    let found = found.map_err(|_| io::Error::new(io::ErrorKind::NotFound, LookupError::Unknown))?;
    let allowed: Vec<SocketAddr> = found.filter(|found| is_allowed(found.ip())).collect();
    if allowed.is_empty() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, LookupError::Forbidden));
    }
    Ok(allowed)
}

/// [`lookup`] for the HTTP client, which sets the port itself.
#[derive(Clone, Copy, Debug)]
pub struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move { lookup(name.as_str(), 0).await.map(Vec::into_iter) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_on_loopback_or_any_network_but_not_behind_the_link() {
        for allowed in
            ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "203.0.113.9", "2001:db8::1", "fd12::1"]
        {
            assert!(is_allowed(allowed.parse().unwrap()), "{allowed}");
            assert!(!is_forbidden_literal(allowed), "{allowed}");
        }
        for forbidden in [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "169.254.169.254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
        ] {
            assert!(!is_allowed(forbidden.parse().unwrap()), "{forbidden}");
            assert!(is_forbidden_literal(forbidden), "{forbidden}");
        }
        assert!(!is_forbidden_literal("app.example"));
    }

    /// Numbers that only the resolver of the system takes for an address go through it.
    #[tokio::test]
    async fn another_way_to_write_an_address_leads_nowhere_either() {
        for host in ["2852039166", "0xa9fea9fe", "169.254.43518", "0"] {
            assert!(!is_forbidden_literal(host));
            assert!(lookup(host, 80).await.is_err(), "{host}");
        }
        assert!(lookup("localhost", 80).await.is_ok());
    }
}
