//! What a certificate says beyond its name, and requests for one.
//!
//! A request is an ordinary PKCS #10 one (RFC 2986). Of what it says only the key counts, and that whoever asks has the key: the name is the
//! token's or the former certificate's to say.

use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SignatureAlgorithm};
use ring::rand::SecureRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use sixnines_core::domain::admission::Fingerprint;
use sixnines_core::ids::NodeId;

use super::der::{BIT_STRING, INTEGER, Reader, SEQUENCE, VERSION, seconds};
use super::{PkiError, certificate_name, fingerprint, library};

/// The end of a certificate that has none: the first second of 4096.
pub const NO_END: u64 = 67_090_118_400;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number; no two certificates of an authority have the same.
    pub serial: Vec<u8>,
    /// The admission that it was issued on. 0: it was made with its domain.
    pub admission: u64,
    /// When it was issued, by its authority's clock, in seconds since 1970; its validity begins in 1970 whenever that was. 0: not known.
    pub issued: u64,
    /// Its last second, since 1970; [`NO_END`] or later: it has none.
    pub ends: u64,
    /// Whose it is.
    pub public_key: PublicKey,
}

impl Facts {
    /// Reads a certificate. `None` if it is none, or not one with a key of ours.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let mut body = Reader(Reader(Reader(certificate).expect(SEQUENCE)?.content).expect(SEQUENCE)?.content);
        let first = body.next()?;
        let serial = if first.tag == VERSION { body.expect(INTEGER)? } else { first };
        let (_algorithm, _issuer) = (body.expect(SEQUENCE)?, body.expect(SEQUENCE)?);
        let mut validity = Reader(body.expect(SEQUENCE)?.content);
        let (_begins, ends) = (validity.next()?, validity.next()?);
        let _subject = body.expect(SEQUENCE)?;
        let public_key = PublicKey::read(body.expect(SEQUENCE)?.whole)?;
        let serial = serial.content.to_vec();
        let (admission, issued) = read_serial(&serial).unwrap_or_default();
        Some(Self { admission, issued, serial, ends: seconds(ends)?, public_key })
    }

    /// The serial number as people compare it.
    pub fn serial_text(&self) -> String {
        self.serial.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The serial numbers that we give: these bytes, the admission, the second of issue, five random bytes. Those of other making (an earlier
/// version's have 20 bytes) count as of admission 0.
const SERIAL_KIND: [u8; 2] = [1, 0x39];
const SERIAL_BYTES: usize = 19;

/// A serial number that nobody has had yet.
pub(super) fn serial(admission: u64) -> Result<[u8; SERIAL_BYTES], PkiError> {
    let issued = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
    let mut serial = [0; SERIAL_BYTES];
    serial[..2].copy_from_slice(&SERIAL_KIND);
    serial[2..10].copy_from_slice(&admission.to_be_bytes());
    serial[10..14].copy_from_slice(&issued.to_be_bytes());
    ring::rand::SystemRandom::new().fill(&mut serial[14..]).map_err(library("random numbers"))?;
    Ok(serial)
}

/// Admission and second of issue.
pub(super) fn read_serial(serial: &[u8]) -> Option<(u64, u64)> {
    let rest = serial.strip_prefix(&SERIAL_KIND).filter(|_| serial.len() == SERIAL_BYTES)?;
    let (admission, rest) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*admission), u64::from(u32::from_be_bytes(*rest.first_chunk()?))))
}

/// A public key on P-256, as a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

/// RFC 5480: what stands before an uncompressed point on P-256 in its public key info.
const P256_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl PublicKey {
    fn read(info: &[u8]) -> Option<Self> {
        let point = info.strip_prefix(&P256_INFO)?;
        (point.len() == 65 && point[0] == 4).then(|| Self(point.to_vec()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// By which the control log knows it.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.0)
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A key pair that was made here, and the request to certify it. The private key leaves this machine in no case.
pub struct Request {
    /// The private key, for the node's file.
    pub key_pem: String,
    /// The request as DER.
    pub der: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

/// A request that nothing can be certified on. The asker's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a request for a key on P-256.
    #[error("it is no certificate request for a key on P-256")]
    Unreadable,
    /// Whoever asks does not have the key.
    #[error("its signature was not made with the key that it names")]
    Signature,
}

impl Request {
    /// Makes a key pair and a request for this node.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn make(domain: &str, node: NodeId) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(library("node key"))?;
        let name = certificate_name(domain, node);
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(library("node name"))?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let request = params.serialize_request(&key).map_err(library("certificate request"))?;
        Ok(Self { key_pem: key.serialize_pem(), der: request.der().to_vec() })
    }

    /// The key that a request is for, once it is clear that whoever asks has it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn key(der: &[u8]) -> Result<PublicKey, RequestError> {
        let read = || {
            let mut request = Reader(Reader(der).expect(SEQUENCE)?.content);
            let info = request.expect(SEQUENCE)?;
            let _algorithm = request.expect(SEQUENCE)?;
            let signature = request.expect(BIT_STRING)?.content.strip_prefix(&[0])?;
            let mut info_body = Reader(info.content);
            let (_version, _subject) = (info_body.expect(INTEGER)?, info_body.expect(SEQUENCE)?);
            Some((PublicKey::read(info_body.expect(SEQUENCE)?.whole)?, info.whole, signature))
        };
        let (key, info, signature) = read().ok_or(RequestError::Unreadable)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.0).verify(info, signature).map_err(|_| RequestError::Signature)?;
        Ok(key)
    }
}
