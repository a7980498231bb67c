//! One address for several API servers: passes each connection on to the first that takes it.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Listens until the test's process ends.
pub(crate) struct Balancer {
    pub(crate) port: u16,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Balancer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let servers = behind.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let servers = servers.lock().unwrap().clone();
                let server = servers.iter().find_map(|server| TcpStream::connect(server).ok());
                // Without a server the connection is closed, as a balancer would.
                if let Some(server) = server {
                    join(client, server).unwrap();
                }
            }
        });
        Self { port, behind }
    }

    /// Puts a server behind the address.
    pub(crate) fn add(&self, server: SocketAddr) {
        self.behind.lock().unwrap().push(server);
    }
}

fn join(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    for (mut from, mut to) in [(client, server), (server_too, client_too)] {
        thread::spawn(move || {
            // However it ends, both ends are told.
            drop(io::copy(&mut from, &mut to));
            drop(from.shutdown(Shutdown::Both));
            drop(to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}
