//! TLS 1.3 between two ends that know each other's public keys.
//!
//! * Key exchange: X25519MLKEM768 first (recorded traffic stays closed to a later quantum computer: whoever opens
//!   device-A traffic and holds edge B's key reads everything), X25519 as the only other.
//! * Ciphers: the three of TLS 1.3. A dialling end without AES instructions puts ChaCha20-Poly1305 first.
//! * No session tickets, no 0-RTT (replayable), no server name: every connection is a full, mutually authenticated
//!   handshake.
//! * ALPN `pponnx`: another TLS service on the port is noticed at once.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, NamedGroup, ProtocolVersion, ServerConfig};

use crate::error::NetError;
use crate::identity::{Identity, Pin};
use crate::verify::{Allow, PinnedClient, PinnedServer};

/// Application protocol both ends name.
const ALPN: &[u8] = b"pponnx";

/// The name a client must give to the library; never sent, never compared.
const NAME: &str = "pponnx.invalid";

/// What a handshake agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsFacts {
    /// Protocol version: always TLS 1.3.
    pub version: ProtocolVersion,
    /// Group of the key exchange.
    pub group: NamedGroup,
    /// Cipher suite.
    pub suite: CipherSuite,
}

impl TlsFacts {
    pub(crate) fn of(state: &rustls::CommonState) -> Option<TlsFacts> {
        Some(TlsFacts {
            version: state.protocol_version()?,
            group: state.negotiated_key_exchange_group()?.name(),
            suite: state.negotiated_cipher_suite()?.suite(),
        })
    }
}

/// Pin of the key the peer proved to hold.
pub(crate) fn peer_pin(state: &rustls::CommonState) -> Option<Pin> {
    Pin::of_certificate(state.peer_certificates()?.first()?).ok()
}

fn provider(aes_instructions: bool) -> CryptoProvider {
    let (aes128, aes256) = (cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384);
    let chacha = cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    let cipher_suites = if aes_instructions { vec![aes128, chacha, aes256] } else { vec![chacha, aes128, aes256] };
    CryptoProvider {
        cipher_suites,
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

/// Whether this processor has AES instructions: most x86-64, no Raspberry Pi before the 5.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    return false;
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

/// Configuration of the dialling end. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) own: Pin,
}

impl ClientTls {
    /// Authenticates as `identity`, and accepts only a peer with one of the `expected` pins (more than one while a key
    /// is being replaced).
    ///
    /// # Errors
    /// [`NetError::Identity`] or [`NetError::Tls`] if the identity is unusable.
    pub fn new(identity: &Identity, expected: &[Pin]) -> Result<ClientTls, NetError> {
        ClientTls::with_provider(identity, expected, provider(has_aes()))
    }

    fn with_provider(identity: &Identity, expected: &[Pin], provider: CryptoProvider) -> Result<ClientTls, NetError> {
        let verifier = PinnedServer { expected: expected.to_vec(), algorithms: algorithms(&provider) };
        let resolver = SingleCertAndKey::from(identity.certified_key()?);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(NetError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(resolver));
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(ClientTls { config: Arc::new(config), own: identity.pin() })
    }

    /// Pin of our own identity.
    pub fn own_pin(&self) -> Pin {
        self.own
    }

    pub(crate) fn server_name() -> Result<ServerName<'static>, NetError> {
        ServerName::try_from(NAME).map_err(|_| NetError::Tls(rustls::Error::General("fixed server name".to_owned())))
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientTls({})", self.own)
    }
}

/// Configuration of the listening end. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) own: Pin,
}

impl ServerTls {
    /// Authenticates as `identity`, and asks `allow` at every handshake whether a caller's pin is welcome: look it up
    /// in whatever is current then, so that devices come and go without a restart.
    ///
    /// # Errors
    /// [`NetError::Identity`] or [`NetError::Tls`] if the identity is unusable.
    pub fn new(
        identity: &Identity,
        allow: impl Fn(&Pin) -> bool + Send + Sync + 'static,
    ) -> Result<ServerTls, NetError> {
        let provider = provider(has_aes());
        let allow: Allow = Arc::new(allow);
        let verifier = PinnedClient { allow, algorithms: algorithms(&provider) };
        let resolver = SingleCertAndKey::from(identity.certified_key()?);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(NetError::Tls)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(resolver));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(ServerTls { config: Arc::new(config), own: identity.pin() })
    }

    /// Pin of our own identity.
    pub fn own_pin(&self) -> Pin {
        self.own
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerTls({})", self.own)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use rustls::HandshakeKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// A handshake in memory, a byte from the server, and what the client saw of it.
    async fn meet(client: &ClientTls, server: &ServerTls) -> (TlsFacts, HandshakeKind) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let connector = TlsConnector::from(client.config.clone());
        let acceptor = TlsAcceptor::from(server.config.clone());
        let name = ClientTls::server_name().unwrap();
        let (stream, accepted) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        let (mut stream, mut accepted) = (stream.unwrap(), accepted.unwrap());
        accepted.write_u8(7).await.unwrap();
        accepted.flush().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 7);
        let state = stream.get_ref().1;
        (TlsFacts::of(state).unwrap(), state.handshake_kind().unwrap())
    }

    #[tokio::test]
    async fn the_dialling_end_chooses_the_cipher_by_its_processor() {
        let (device, edge) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let server = ServerTls::new(&edge, |_| true).unwrap();
        for (aes, suite) in
            [(false, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256), (true, CipherSuite::TLS13_AES_128_GCM_SHA256)]
        {
            let client = ClientTls::with_provider(&device, &[edge.pin()], provider(aes)).unwrap();
            assert_eq!(meet(&client, &server).await.0.suite, suite);
        }
    }

    #[tokio::test]
    async fn every_handshake_is_a_full_one() {
        let (device, edge) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let server = ServerTls::new(&edge, |_| true).unwrap();
        let client = ClientTls::new(&device, &[edge.pin()]).unwrap();
        // A caller that would gladly resume gets no ticket either.
        let mut resuming = (*client.config).clone();
        resuming.resumption = Resumption::in_memory_sessions(8);
        let resuming = ClientTls { config: Arc::new(resuming), own: client.own };
        for client in [client, resuming] {
            for _ in 0..3 {
                assert_eq!(meet(&client, &server).await.1, HandshakeKind::Full);
            }
        }
    }

    #[tokio::test]
    async fn an_end_without_the_hybrid_group_still_meets() {
        let (device, edge) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let server = ServerTls::new(&edge, |_| true).unwrap();
        let old = CryptoProvider { kx_groups: vec![kx_group::X25519], ..provider(true) };
        let client = ClientTls::with_provider(&device, &[edge.pin()], old).unwrap();
        assert_eq!(meet(&client, &server).await.0.group, NamedGroup::X25519);
    }
}
