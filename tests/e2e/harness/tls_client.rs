//! A client that speaks TLS and tells what it was shown.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use serde_json::Value;

use super::authority::Authority;
use super::message::{Kind, Message, Trouble};
use super::{PATIENCE, latin1};

/// Somebody who connects again and again, resuming sessions where that is possible.
#[derive(Clone, Debug)]
pub struct TlsCaller(Arc<ClientConfig>);

/// One of its connections.
#[derive(Debug)]
pub struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl TlsCaller {
    /// Trusts this authority, and shows a certificate if it is given one.
    pub fn new(authority: &Authority, own: Option<&Value>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate_in(&authority.file("ca.pem"))).expect("it is an authority");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        Self(Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let file = |which: &str| own[which].as_str().expect("a file").to_owned();
                let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
                builder.with_client_auth_cert(vec![certificate_in(&file("chain"))], key).expect("they fit")
            }
        }))
    }

    /// Connects to `ip:port`, and asks for `localhost`.
    pub fn connect(&self, address: &str) -> io::Result<TlsClient> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        let mut client = TlsClient { stream: StreamOwned::new(connection, socket), buffer: Vec::new() };
        while client.stream.conn.is_handshaking() {
            client.stream.conn.complete_io(&mut client.stream.sock)?;
        }
        Ok(client)
    }

    /// One request on a connection of its own. With TLS 1.3 only its answer shows whether the caller's certificate was taken.
    pub fn get(&self, address: &str) -> io::Result<TlsClient> {
        let mut client = self.connect(address)?;
        client.get("/")?;
        Ok(client)
    }
}

impl TlsClient {
    pub fn get(&mut self, path: &str) -> io::Result<Message> {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Message> {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.ask(&[head.as_bytes(), body].concat())
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Message> {
        self.stream.write_all(request)?;
        self.stream.flush()?;
        loop {
            match Message::parse(Kind::ResponseTo("GET"), &self.buffer, false) {
                Ok(message) => {
                    self.buffer.drain(..message.raw.len());
                    return Ok(message);
                }
                Err(Trouble::Malformed(why)) => {
                    return Err(io::Error::other(format!("{why}: {}", latin1(&self.buffer))));
                }
                Err(Trouble::Unfinished) => {}
            }
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// What the other side has shown.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.stream.conn.peer_certificates().expect("the handshake is over")[0].clone().into_owned()
    }

    pub fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// The first certificate of a file.
pub fn certificate_in(file: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap_or_else(|error| panic!("{file}: {error}"))
}
