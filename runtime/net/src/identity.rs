//! Identities: a key pair with a certificate around it, and the pin by which others know it.
//!
//! An `identity` file is PEM text: the certificate, then the private key (PKCS #8, ECDSA P-256). The certificate is
//! only the envelope TLS wants; its name and dates mean nothing.

use std::fmt;
use std::str::FromStr;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

/// An identity or pin that cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Key or certificate could not be made.
    #[error("cannot make an identity: {0}")]
    Generate(String),
    /// The text holds no certificate.
    #[error("the identity holds no readable certificate: {0}; run `pponnx keygen` to make a new one")]
    Certificate(String),
    /// The text holds no private key.
    #[error("the identity holds no readable private key: {0}; run `pponnx keygen` to make a new one")]
    PrivateKey(String),
    /// Certificate and key belong to different pairs.
    #[error(
        "certificate and private key of the identity do not belong together; run `pponnx keygen` to make a new one"
    )]
    Mismatch,
    /// Not the text form of a pin.
    #[error("{0:?} is not a pin; a pin is `pponnx-pin:` and 64 hexadecimal digits, as `pponnx keygen` prints it")]
    PinText(String),
}

/// Name of a public key: BLAKE3 of its SubjectPublicKeyInfo (DER). It survives a new certificate for the same key.
///
/// By hand: `openssl x509 -in identity -pubkey -noout | openssl pkey -pubin -outform der | b3sum`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin(pub [u8; 32]);

/// What the text form of a pin begins with.
const PIN_PREFIX: &str = "pponnx-pin:";

impl Pin {
    /// Pin of the key in a certificate.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] if it is no X.509 certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Pin, IdentityError> {
        let parsed =
            ParsedCertificate::try_from(certificate).map_err(|error| IdentityError::Certificate(error.to_string()))?;
        Ok(Pin(*blake3::hash(parsed.subject_public_key_info().as_ref()).as_bytes()))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PIN_PREFIX)?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Pin, IdentityError> {
        let wrong = || IdentityError::PinText(text.chars().take(100).collect());
        let digits = text.trim().strip_prefix(PIN_PREFIX).ok_or_else(wrong)?.as_bytes();
        let mut pin = [0; 32];
        if digits.len() != 2 * pin.len() {
            return Err(wrong());
        }
        for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            for &digit in pair {
                let value = char::from(digit).to_digit(16).ok_or_else(wrong)?;
                *byte = (*byte << 4) | value as u8;
            }
        }
        Ok(Pin(pin))
    }
}

/// A private key with its certificate. Not `Clone`, no `Debug` of the key; the key's bytes are zeroised on drop.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: Zeroizing<Vec<u8>>,
    text: Zeroizing<String>,
    pin: Pin,
}

impl Identity {
    /// A fresh identity from the system's random source.
    ///
    /// # Errors
    /// [`IdentityError::Generate`].
    pub fn generate() -> Result<Identity, IdentityError> {
        let failed = |error: rcgen::Error| IdentityError::Generate(error.to_string());
        let mut pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "pponnx");
        params.distinguished_name = name;
        params.not_before = date_time_ymd(2020, 1, 1);
        // RFC 5280, 4.1.2.5: "no well-defined expiration date".
        params.not_after = date_time_ymd(9999, 12, 31);
        let certificate = params.self_signed(&pair).map_err(failed)?;
        let key = Zeroizing::new(pair.serialized_der().to_vec());
        let key_text = Zeroizing::new(pair.serialize_pem());
        pair.zeroize();
        let text = Zeroizing::new([certificate.pem().as_str(), key_text.as_str()].concat());
        Identity::of_parts(certificate.der().clone(), key, text)
    }

    /// Reads the text of an `identity` file: the first certificate and the first PKCS #8 key in it, in any order.
    ///
    /// # Errors
    /// [`IdentityError`] naming the part that is missing, broken or does not fit.
    pub fn from_pem(text: &str) -> Result<Identity, IdentityError> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| IdentityError::Certificate(error.to_string()))?;
        let mut key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| IdentityError::PrivateKey(error.to_string()))?;
        let bytes = Zeroizing::new(key.secret_pkcs8_der().to_vec());
        key.zeroize();
        Identity::of_parts(certificate, bytes, Zeroizing::new(text.to_owned()))
    }

    fn of_parts(
        certificate: CertificateDer<'static>,
        key: Zeroizing<Vec<u8>>,
        text: Zeroizing<String>,
    ) -> Result<Identity, IdentityError> {
        let pin = Pin::of_certificate(&certificate)?;
        let identity = Identity { certificate, key, text, pin };
        identity.certified_key()?;
        Ok(identity)
    }

    /// The text of the `identity` file. Holds the private key: write it with mode 0600.
    pub fn to_pem(&self) -> &Zeroizing<String> {
        &self.text
    }

    /// The pin by which others know this identity.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Certificate and signing key, as rustls wants them.
    pub(crate) fn certified_key(&self) -> Result<CertifiedKey, IdentityError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.as_slice()));
        let signer = any_supported_type(&key).map_err(|error| IdentityError::PrivateKey(error.to_string()))?;
        let certified = CertifiedKey::new(vec![self.certificate.clone()], signer);
        certified.keys_match().map_err(|_| IdentityError::Mismatch)?;
        Ok(certified)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.pin)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use rcgen::PublicKeyData;

    #[test]
    fn text_reads_back_to_the_same_identity() {
        let identity = Identity::generate().unwrap();
        let again = Identity::from_pem(identity.to_pem()).unwrap();
        assert_eq!(again.pin(), identity.pin());
        assert_eq!(again.key.as_slice(), identity.key.as_slice());
        assert_ne!(Identity::generate().unwrap().pin(), identity.pin());
    }

    #[test]
    fn key_and_certificate_of_two_identities_are_refused() {
        let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let marker = "-----BEGIN PRIVATE KEY-----";
        let certificate = a.to_pem().split(marker).next().unwrap().to_owned();
        let key = b.to_pem().split(marker).nth(1).unwrap().to_owned();
        let mixed = format!("{certificate}{marker}{key}");
        assert_eq!(Identity::from_pem(&mixed).unwrap_err(), IdentityError::Mismatch);
        assert!(matches!(Identity::from_pem(&certificate).unwrap_err(), IdentityError::PrivateKey(_)));
        assert!(matches!(Identity::from_pem(&format!("{marker}{key}")).unwrap_err(), IdentityError::Certificate(_)));
        assert!(matches!(Identity::from_pem("").unwrap_err(), IdentityError::Certificate(_)));
    }

    #[test]
    fn pin_text_reads_back_and_nothing_else_does() {
        let pin = Identity::generate().unwrap().pin();
        let text = pin.to_string();
        assert_eq!(text.len(), 75);
        assert_eq!(text.parse::<Pin>().unwrap(), pin);
        assert_eq!(text.to_uppercase().replace("PPONNX-PIN", "pponnx-pin").parse::<Pin>().unwrap(), pin);
        for wrong in [&text[1..], &text[..74], &text.replace(':', "-"), &format!("{text}0"), "", "pponnx-pin:é"] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
        let with_a_letter = format!("pponnx-pin:{}g", "0".repeat(63));
        assert!(with_a_letter.parse::<Pin>().is_err());
        let with_a_sign = format!("pponnx-pin:+{}", "0".repeat(63));
        assert!(with_a_sign.parse::<Pin>().is_err());
    }

    #[test]
    fn pin_is_the_hash_of_the_public_key_alone() {
        // A second certificate around the same key, with another name, has the same pin.
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let one = CertificateParams::new(vec!["one".to_owned()]).unwrap().self_signed(&pair).unwrap();
        let two = CertificateParams::new(vec!["two".to_owned()]).unwrap().self_signed(&pair).unwrap();
        assert_ne!(one.der(), two.der());
        assert_eq!(Pin::of_certificate(one.der()).unwrap(), Pin::of_certificate(two.der()).unwrap());
        assert_eq!(
            Pin::of_certificate(one.der()).unwrap().0,
            *blake3::hash(&pair.subject_public_key_info()).as_bytes()
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let identity = Identity::generate().unwrap();
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.pin()));
    }
}
