//! The relays of the bench: one takes every mail, the other takes the data and never says what became of it.

use super::super::{Failure, Outcome, print_line};
use clap::Args;
use std::io;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The arguments of the relays: none.
#[derive(Debug, Args)]
pub struct Relays;

impl Relays {
    /// Serves both until the process is ended.
    pub async fn run(self) -> Outcome {
        let failed = |error: io::Error| Failure::new(error.to_string());
        let (good, hanging) = (bind().await.map_err(failed)?, bind().await.map_err(failed)?);
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        print_line(&format!("ports {} {}", port(&good).map_err(failed)?, port(&hanging).map_err(failed)?))?;
        tokio::select! {
            ended = accept(good, false) => ended,
            ended = accept(hanging, true) => ended,
        }
        .map_err(failed)
    }
}

async fn bind() -> io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await
}

async fn accept(listener: TcpListener, hangs: bool) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // A client that breaks off loses nothing here.
        tokio::spawn(async move { drop(converse(socket, hangs).await) });
    }
}

/// As much of RFC 5321 as a client needs to hand over mail.
async fn converse(socket: TcpStream, hangs: bool) -> io::Result<()> {
    let mut stream = BufReader::new(socket);
    stream.write_all(b"220 relay.bench ESMTP\r\n").await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let answer = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_slice() {
            b"EHLO" => "250-relay.bench\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            b"DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                if !read_mail(&mut stream, &mut line).await? {
                    return Ok(());
                }
                if hangs {
                    std::future::pending::<()>().await;
                }
                "250 2.0.0 queued\r\n"
            }
            b"QUIT" => return stream.write_all(b"221 2.0.0 bye\r\n").await,
            _ => "250 2.0.0 ok\r\n",
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Reads to the dot on a line of its own; false where the client broke off.
async fn read_mail(stream: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        line.clear();
        match stream.read_until(b'\n', line).await? {
            0 => return Ok(false),
            _ if line == b".\r\n" => return Ok(true),
            _ => {}
        }
    }
}
