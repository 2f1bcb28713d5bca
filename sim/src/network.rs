//! The network: names, connections, and what goes wrong with them.

use crate::endpoint;
use crate::ledger::ProcessState;
use crate::world::World;
use async_trait::async_trait;
use outbound::webhook::guard::{Dial, RawStream};
use outbound::webhook::{Resolve, ResolveError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio_util::either::Either;

/// How much a connection holds that nobody has read.
const CONNECTION_BYTES: usize = 16 * 1024;
/// Longer than anything waits for DNS or a connection.
const TOO_LONG: Duration = Duration::from_secs(20);
/// Nobody listens at addresses of this network.
const NOBODY: Ipv4Addr = Ipv4Addr::new(93, 184, 217, 1);
/// No request may go there.
const FORBIDDEN: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The network as one process sees it.
#[derive(Debug)]
pub struct Net {
    /// The world.
    pub world: Arc<World>,
    /// The process.
    pub process: Arc<ProcessState>,
}

/// The address of a sandbox's endpoint.
fn address_of(sandbox: usize) -> IpAddr {
    IpAddr::from(Ipv4Addr::new(93, 184, 216, u8::try_from(sandbox).unwrap_or(0) + 1))
}

fn sandbox_at(address: IpAddr) -> Option<usize> {
    (0..16).find(|sandbox| address_of(*sandbox) == address)
}

fn sandbox_named(name: &str) -> Option<usize> {
    name.strip_prefix("hook")?.strip_suffix(".example")?.parse().ok()
}

#[async_trait]
impl Resolve for Net {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.world.step();
        self.process.stand.pass().await;
        let sandbox = sandbox_named(name).ok_or(ResolveError::NotFound)?;
        let trouble = self.world.trouble(sandbox);
        let (fails, kind, pause) =
            self.world.throw(|dice| (dice.chance(trouble * 0.15), dice.between(0, 5), dice.millis(0, 15)));
        tokio::time::sleep(pause).await;
        let found = match (fails, kind) {
            (true, 0) => Err(ResolveError::NotFound),
            (true, 1) => Err(ResolveError::Failed("SERVFAIL".to_owned())),
            (true, 2) => {
                tokio::time::sleep(TOO_LONG).await;
                Err(ResolveError::Timeout)
            }
            (true, 3) => Ok(vec![IpAddr::from(FORBIDDEN)]),
            (true, _) => Ok(vec![IpAddr::from(NOBODY), address_of(sandbox)]),
            _ => Ok(vec![address_of(sandbox)]),
        };
        self.process.stand.pass().await;
        found
    }
}

#[async_trait]
impl Dial for Net {
    async fn dial(&self, address: SocketAddr) -> io::Result<(RawStream, IpAddr)> {
        self.world.step();
        self.process.stand.pass().await;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        if address.ip() == IpAddr::from(FORBIDDEN) {
            self.world.violation(format!("dialled {address}"));
        }
        let sandbox = sandbox_at(address.ip()).ok_or_else(refused)?;
        let trouble = self.world.trouble(sandbox);
        let (fails, hangs, pause) =
            self.world.throw(|dice| (dice.chance(trouble * 0.2), dice.chance(0.3), dice.millis(0, 15)));
        tokio::time::sleep(if fails && hangs { TOO_LONG } else { pause }).await;
        self.process.stand.pass().await;
        if fails {
            return Err(refused());
        }
        let (near, far) = duplex(CONNECTION_BYTES);
        let number = self.world.throw(|dice| dice.draw());
        let server = endpoint::Server {
            world: Arc::clone(&self.world),
            process: Arc::clone(&self.process),
            sandbox,
            line: number,
        };
        tokio::spawn(server.serve(far));
        let line = Line { stream: near, process: Arc::clone(&self.process), world: Arc::clone(&self.world), number };
        Ok((Either::Right(Box::new(line)), address.ip()))
    }
}

/// A connection, which stands still with its process.
#[derive(Debug)]
struct Line {
    stream: DuplexStream,
    process: Arc<ProcessState>,
    world: Arc<World>,
    number: u64,
}

/// What was under way is so no more, even if the endpoint notices later.
impl Drop for Line {
    fn drop(&mut self) {
        let now = self.world.now();
        self.world.ledger(|ledger| ledger.end_requests(Some(self.number), now));
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.process.stand.poll_pass(cx));
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.process.stand.poll_pass(cx));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
