//! Verifiers that trust pinned public keys and nothing else.
//!
//! Names, dates and issuers in a certificate are ignored: a device without a battery-backed clock must connect, and
//! there is no authority. What is *not* ignored is the signature of the handshake: without it anyone who has seen the
//! certificate could show it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};

use crate::identity::Pin;

/// The dialled end showed a key that is not pinned.
#[derive(Debug, thiserror::Error)]
#[error("identity {found} is not the pinned one")]
pub(crate) struct PinRejected {
    pub(crate) expected: Vec<Pin>,
    pub(crate) found: Pin,
}

/// A caller showed a key that is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("identity {found} is not allowed")]
pub(crate) struct CallerRejected {
    pub(crate) found: Pin,
}

fn rejected(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, Error> {
    Pin::of_certificate(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// TLS 1.2 is never negotiated.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not offered".to_owned()))
}

/// Accepts a server by the pin of its key.
#[derive(Debug)]
pub(crate) struct PinnedServer {
    pub(crate) expected: Vec<Pin>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = pin_of(end_entity)?;
        if self.expected.contains(&found) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rejected(PinRejected { expected: self.expected.clone(), found }))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Asks at each handshake whether a pin is allowed.
pub(crate) type Allow = Arc<dyn Fn(&Pin) -> bool + Send + Sync>;

/// Accepts a client if the pin of its key is allowed.
pub(crate) struct PinnedClient {
    pub(crate) allow: Allow,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for PinnedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedClient")
    }
}

impl ClientCertVerifier for PinnedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let found = pin_of(end_entity)?;
        if (self.allow)(&found) {
            return Ok(ClientCertVerified::assertion());
        }
        Err(rejected(CallerRejected { found }))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
