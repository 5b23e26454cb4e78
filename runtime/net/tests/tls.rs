//! Two ends over real loopback sockets, friendly and not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, RwLock};
use std::time::Duration;

use pponnx_net::{ClientTls, Connection, Deadline, Identity, Listener, NetError, Phase, Pin, ServerTls, connect};
use pponnx_wire::{Data, Invalid, Limits, Message, WireError, codec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Long enough never to pass on a slow machine; nothing here waits for it unless a test fails.
fn long() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// Passes in these tests; long enough for a connection to open on a busy machine.
fn short() -> Deadline {
    Deadline::after(Duration::from_millis(500))
}

struct Edge {
    addr: String,
    listener: Listener,
    tls: ServerTls,
}

async fn edge(identity: &Identity, allow: impl Fn(&Pin) -> bool + Send + Sync + 'static) -> Edge {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    Edge { addr, listener, tls: ServerTls::new(identity, allow).unwrap() }
}

impl Edge {
    async fn take(&self) -> Result<Connection, NetError> {
        self.listener.accept().await.unwrap().handshake(&self.tls, long()).await
    }
}

/// Both ends of a good connection.
async fn ends() -> (Connection, Connection) {
    let (device, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let pin = device.pin();
    let edge = edge(&server, move |p| *p == pin).await;
    let client = ClientTls::new(&device, &[server.pin()]).unwrap();
    let (a, b) = tokio::join!(connect(&edge.addr, &client, long()), edge.take());
    (a.unwrap(), b.unwrap())
}

#[tokio::test]
async fn right_pins_meet_in_tls13_with_the_hybrid_group() {
    let (device, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let pin = device.pin();
    let edge = edge(&server, move |p| *p == pin).await;
    let client = ClientTls::new(&device, &[Pin([0; 32]), server.pin()]).unwrap();
    let (a, b) = tokio::join!(connect(&edge.addr, &client, long()), edge.take());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.peer().pin, Some(server.pin()));
    assert_eq!(b.peer().pin, Some(device.pin()));
    assert_eq!(a.peer().addr.unwrap().to_string(), edge.addr);
    for end in [&a, &b] {
        let facts = end.peer().tls.unwrap();
        assert_eq!(format!("{:?} {:?}", facts.version, facts.group), "TLSv1_3 X25519MLKEM768");
        assert!(format!("{:?}", facts.suite).starts_with("TLS13_"), "{:?}", facts.suite);
    }
}

#[tokio::test]
async fn messages_and_payloads_arrive_and_are_counted() {
    let (a, b) = ends().await;
    let (sent, received) = (a.traffic(), b.traffic());
    let (_keep, mut writer) = a.split();
    let (mut reader, _keep) = b.split();
    reader.set_limits(Limits::with_payload(1 << 20));
    // Around the sizes at which gathering and direct reading begin, and one large.
    let sizes = [0, 1, 16_000, 16_384, 16_385, 65_536, 70_000, 1 << 20];
    let writing = tokio::spawn(async move {
        for (slot, size) in (0..).zip(sizes) {
            writer.write(&Message::Begin { request: slot.into() }).await.unwrap();
            let payload: Vec<u8> = (0..size).map(|i| (i * 7 + slot as usize) as u8).collect();
            let header = codec::encode_data_header(slot.into(), slot, size).unwrap();
            writer.write_data(&header, &payload).await.unwrap();
        }
        writer.close().await.unwrap();
    });
    for (slot, size) in (0u32..).zip(sizes) {
        assert_eq!(reader.read(long()).await.unwrap(), Message::Begin { request: slot.into() });
        let Message::Data(Data { request, slot: found, payload }) = reader.read(long()).await.unwrap() else {
            panic!("not data")
        };
        assert_eq!((request, found, payload.len()), (slot.into(), slot, size));
        assert!(payload.iter().enumerate().all(|(i, &byte)| byte == (i * 7 + slot as usize) as u8));
    }
    writing.await.unwrap();
    assert!(matches!(reader.read(long()).await, Err(NetError::Closed { mid_frame: false })));

    let (out, back) = (sent.sent(), received.received());
    let payload: u64 = sizes.iter().map(|&size| size as u64).sum();
    assert_eq!((out.frames, out.payload_bytes), (16, payload));
    assert_eq!(out.frame_bytes, payload + 8 * (5 + 8) + 8 * (5 + 12));
    assert_eq!((back.frames, back.frame_bytes, back.payload_bytes), (out.frames, out.frame_bytes, out.payload_bytes));
    assert!(out.socket_bytes > out.frame_bytes, "TLS adds bytes: {out:?}");
    assert_eq!(sent.received().frames, 0);
}

/// A TLS 1.3 client is done before the server has judged it: it learns of the refusal when it reads.
async fn rejected_client(addr: &str, client: &ClientTls) -> NetError {
    let mut connection = connect(addr, client, long()).await.unwrap();
    // The caller speaks first, as every handshake of ours does; the refusal must survive bytes that nobody reads.
    let data = Data { request: 1, slot: 1, payload: vec![0; 40_000] };
    let _ = connection.writer.write(&Message::Data(data)).await;
    let _ = connection.writer.flush().await;
    connection.reader.read(long()).await.unwrap_err()
}

#[tokio::test]
async fn a_caller_nobody_allowed_is_named_on_both_sides() {
    let (device, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let edge = edge(&server, |_| false).await;
    let client = ClientTls::new(&device, &[server.pin()]).unwrap();
    let (at_client, at_edge) = tokio::join!(rejected_client(&edge.addr, &client), edge.take());
    let at_edge = at_edge.unwrap_err();
    assert!(matches!(at_edge, NetError::UnknownPin { found } if found == device.pin()), "{at_edge}");
    assert!(at_edge.to_string().contains(&device.pin().to_string()), "{at_edge}");
    assert!(matches!(&at_client, NetError::Rejected { own, .. } if *own == device.pin()), "{at_client}");
    assert!(at_client.to_string().contains(&device.pin().to_string()), "{at_client}");
}

#[tokio::test]
async fn pins_may_change_while_an_edge_runs() {
    let (device, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let allowed = Arc::new(RwLock::new(Vec::<Pin>::new()));
    let list = allowed.clone();
    let edge = edge(&server, move |pin| list.read().unwrap().contains(pin)).await;
    let client = ClientTls::new(&device, &[server.pin()]).unwrap();
    for welcome in [false, true, false] {
        *allowed.write().unwrap() = if welcome { vec![device.pin()] } else { vec![server.pin()] };
        let calling = async {
            let connection = connect(&edge.addr, &client, long()).await.unwrap();
            let mut reader = connection.reader;
            reader.read(long()).await.unwrap_err()
        };
        let (_, taken) = tokio::join!(calling, async { edge.take().await.map(drop) });
        assert_eq!(taken.is_ok(), welcome);
    }
}

#[tokio::test]
async fn an_edge_with_another_key_is_refused_with_both_fingerprints() {
    let (device, server, other) =
        (Identity::generate().unwrap(), Identity::generate().unwrap(), Identity::generate().unwrap());
    let edge = edge(&server, |_| true).await;
    let client = ClientTls::new(&device, &[other.pin()]).unwrap();
    let (at_client, at_edge) = tokio::join!(connect(&edge.addr, &client, long()), edge.take());
    let at_client = at_client.unwrap_err();
    let NetError::PinMismatch { expected, found } = &at_client else { panic!("{at_client}") };
    assert_eq!((expected.as_slice(), *found), ([other.pin()].as_slice(), server.pin()));
    let text = at_client.to_string();
    assert!(text.contains(&other.pin().to_string()) && text.contains(&server.pin().to_string()), "{text}");
    let at_edge = at_edge.unwrap_err();
    assert!(matches!(&at_edge, NetError::Rejected { own, .. } if *own == server.pin()), "{at_edge}");
}

/// Knowing a certificate is not enough: the handshake must be signed with its key.
#[tokio::test]
async fn a_stolen_certificate_without_its_key_is_refused() {
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};

    /// Certificate of one identity, key of another. `CertifiedKey::new` does not compare them.
    fn forged(certificate: &Identity, key: &Identity) -> SingleCertAndKey {
        let certificate = CertificateDer::from_pem_slice(certificate.to_pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap();
        CertifiedKey::new(vec![certificate], aws_lc_rs::sign::any_supported_type(&key).unwrap()).into()
    }

    let (device, server, thief) =
        (Identity::generate().unwrap(), Identity::generate().unwrap(), Identity::generate().unwrap());

    // A false edge, towards our client.
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(forged(&server, &thief)));
    config.alpn_protocols = vec![b"pponnx".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let client = ClientTls::new(&device, &[server.pin()]).unwrap();
    let (fooled, _) = tokio::join!(connect(&addr, &client, long()), async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.map(drop)
    });
    let error = fooled.unwrap_err();
    assert!(matches!(&error, NetError::Tls(rustls::Error::InvalidCertificate(_))), "{error:?}");

    // A false device, towards our edge.
    let pin = device.pin();
    let edge = edge(&server, move |p| *p == pin).await;
    let mut config = (*trusting_client()).clone();
    config.client_auth_cert_resolver = Arc::new(forged(&device, &thief));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("pponnx.invalid").unwrap();
    let (_, fooled) = tokio::join!(
        async {
            let stream = TcpStream::connect(&edge.addr).await.unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            stream.read_u8().await
        },
        edge.take()
    );
    let error = fooled.unwrap_err();
    assert!(matches!(&error, NetError::Tls(rustls::Error::InvalidCertificate(_))), "{error:?}");
}

/// A rustls client that trusts anything, to play the attacker with.
fn trusting_client() -> Arc<rustls::ClientConfig> {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    struct Anything;
    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"pponnx".to_vec()];
    Arc::new(config)
}

#[tokio::test]
async fn a_caller_without_any_certificate_is_refused() {
    let server = Identity::generate().unwrap();
    let edge = edge(&server, |_| true).await;
    let connector = tokio_rustls::TlsConnector::from(trusting_client());
    let name = rustls::pki_types::ServerName::try_from("pponnx.invalid").unwrap();
    let (_, taken) = tokio::join!(
        async {
            let stream = TcpStream::connect(&edge.addr).await.unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            stream.read_u8().await
        },
        edge.take()
    );
    let error = taken.unwrap_err();
    assert!(matches!(&error, NetError::Tls(rustls::Error::NoCertificatesPresented)), "{error:?}");
}

#[tokio::test]
async fn garbage_at_the_tls_port_is_an_error_and_the_next_caller_is_served() {
    let (device, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let edge = edge(&server, |_| true).await;
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0xff; 200], &[22, 3, 1, 0, 2, 1, 0]] {
        let (_, taken) = tokio::join!(
            async {
                let mut stream = TcpStream::connect(&edge.addr).await.unwrap();
                stream.write_all(garbage).await.unwrap();
                stream.shutdown().await.unwrap();
                // Until the edge hangs up.
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
            },
            edge.take()
        );
        let error = taken.unwrap_err();
        assert!(matches!(error, NetError::Tls(_) | NetError::Closed { .. }), "{error:?}");
    }
    let client = ClientTls::new(&device, &[server.pin()]).unwrap();
    let (a, b) = tokio::join!(connect(&edge.addr, &client, long()), edge.take());
    assert!(a.is_ok() && b.is_ok());
}

#[tokio::test]
async fn an_edge_that_speaks_no_tls_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let device = Identity::generate().unwrap();
    let client = ClientTls::new(&device, &[device.pin()]).unwrap();
    let (dialled, _) = tokio::join!(connect(&addr, &client, long()), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = dialled.unwrap_err();
    assert!(matches!(error, NetError::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn another_tls_service_is_told_apart() {
    // Right key, wrong application protocol.
    let edge = edge(&Identity::generate().unwrap(), |_| true).await;
    let mut config = (*trusting_client()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls::pki_types::ServerName::try_from("pponnx.invalid").unwrap();
    let (_, taken) = tokio::join!(
        async {
            let stream = TcpStream::connect(&edge.addr).await.unwrap();
            connector.connect(name, stream).await.map(drop)
        },
        edge.take()
    );
    let error = taken.unwrap_err();
    assert!(matches!(&error, NetError::Tls(rustls::Error::NoApplicationProtocol)), "{error:?}");
}

#[tokio::test]
async fn silence_runs_into_the_deadline_in_every_phase() {
    // An edge that accepts and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = mute.local_addr().unwrap().to_string();
    let device = Identity::generate().unwrap();
    let client = ClientTls::new(&device, &[device.pin()]).unwrap();
    let error = connect(&addr, &client, short()).await.unwrap_err();
    assert!(matches!(error, NetError::Timeout { phase: Phase::Handshake, .. }), "{error:?}");

    // A caller that connects and says nothing.
    let edge = edge(&device, |_| true).await;
    let silent = TcpStream::connect(&edge.addr).await.unwrap();
    let incoming = edge.listener.accept().await.unwrap();
    let error = incoming.handshake(&edge.tls, short()).await.unwrap_err();
    assert!(matches!(error, NetError::Timeout { phase: Phase::Handshake, .. }), "{error:?}");
    drop(silent);

    // A peer that shakes hands and says nothing; afterwards the connection still works.
    let (mut a, mut b) = ends().await;
    let error = a.reader.read(short()).await.unwrap_err();
    assert!(matches!(error, NetError::Timeout { phase: Phase::Read, .. }), "{error:?}");
    b.writer.write(&Message::Ping { token: 3 }).await.unwrap();
    b.writer.flush().await.unwrap();
    assert_eq!(a.reader.read(long()).await.unwrap(), Message::Ping { token: 3 });
}

#[tokio::test]
async fn nobody_there_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let device = Identity::generate().unwrap();
    let client = ClientTls::new(&device, &[device.pin()]).unwrap();
    let error = connect(&addr, &client, long()).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { .. }) && error.to_string().contains(&addr), "{error}");
    let error = connect("no port here", &client, long()).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { .. }), "{error}");
    let taken = Listener::bind("127.0.0.1:0").await.unwrap();
    let error = Listener::bind(&taken.local_addr().unwrap().to_string()).await.unwrap_err();
    assert!(matches!(error, NetError::Listen { .. }), "{error}");
}

#[tokio::test]
async fn a_payload_larger_than_allowed_is_refused_over_tls() {
    let (mut a, mut b) = ends().await;
    a.reader.set_limits(Limits::with_payload(1000));
    let payload = vec![0; 1001];
    let header = codec::encode_data_header(0, 0, payload.len()).unwrap();
    b.writer.write_data(&header, &payload).await.unwrap();
    b.writer.flush().await.unwrap();
    let error = a.reader.read(long()).await.unwrap_err();
    assert!(
        matches!(&error, NetError::Wire(WireError::InvalidMessage(Invalid::Length { length: 1013, .. }))),
        "{error}"
    );
}

#[tokio::test]
async fn a_peer_that_vanishes_is_closed_and_not_silence() {
    let (mut a, b) = ends().await;
    drop(b);
    let error = a.reader.read(long()).await.unwrap_err();
    assert!(matches!(error, NetError::Closed { mid_frame: false }), "{error:?}");
}
