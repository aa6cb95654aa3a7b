//! The network between a client and a server, which a test can cut.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Works,
    /// Nothing comes through, and nobody is told.
    Stalls,
    /// Both ends are told that the other one is done.
    Ends,
    /// Both ends are reset.
    Resets,
}

/// Passes on what goes between clients and one server.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    network: watch::Sender<Network>,
    accepts: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, state) = watch::channel(Network::Works);
        let accepts = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(connect(client, server, state.clone()));
            }
        });
        Self {
            address,
            network,
            accepts,
        }
    }

    /// Of the connections that are there.
    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

async fn connect(client: TcpStream, server: TcpStream, mut network: watch::Receiver<Network>) {
    tokio::select! {
        () = pass(&client, &server) => return,
        () = pass(&server, &client) => return,
        _ = network.wait_for(|network| *network != Network::Works) => {}
    }
    let end = network.wait_for(|network| *network != Network::Stalls);
    // Where the test is over, so is the network.
    let is_reset = end.await.is_ok_and(|end| *end == Network::Resets);
    if is_reset {
        client.set_zero_linger().unwrap();
        server.set_zero_linger().unwrap();
    } else {
        // What has arrived and is not read makes a reset of an end.
        drain(&client);
        drain(&server);
    }
}

async fn pass(from: &TcpStream, to: &TcpStream) {
    let mut bytes = [0; 4096];
    while from.readable().await.is_ok() {
        let mut rest = match from.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => &bytes[..count],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        while !rest.is_empty() {
            if to.writable().await.is_err() {
                return;
            }
            match to.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

fn drain(stream: &TcpStream) {
    let mut bytes = [0; 4096];
    while stream.try_read(&mut bytes).is_ok_and(|count| count > 0) {}
}
