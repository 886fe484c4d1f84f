//! Who is who: a CA of the domain's own, one certificate per node, and the TLS settings that insist on both.
//!
//! A node's certificate names it as `n1.lab.sixnines` (node, domain). Whoever dials checks that exact name; whoever is dialled
//! checks that the name is a member's. Access ends by leaving the committed member list, not by a date: a board whose clock
//! battery is dead boots in 1970 and must still be let in, so certificates are valid from then on. Those that an authority was told to
//! limit have an end as well. A certificate's serial number bears its *admission*; each member has a lowest one that counts
//! (`sixnines_core::domain::admission`), so that an expelled node's certificates are refused while its successor's are not.
//!
//! There is no other mode: TLS 1.3, both ends authenticated, no tickets (a resumed session would skip the member list), no
//! early data (it can be replayed).

mod certificate;
mod der;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sixnines_core::domain::admission::Fingerprint;
use sixnines_core::ids::NodeId;

pub use certificate::{Facts, NO_END, PublicKey, Request, RequestError};
pub use tls::{Abroad, Members, pinned_config};
pub use token::{Token, TokenError};

/// Longest name of a domain: with the node and the suffix it must fit a DNS label and stay readable.
pub const DOMAIN_CHARS_MAX: usize = 40;

/// The domain's own CA. Its key stays on the machine where `nines init` ran.
#[derive(Debug)]
pub struct Authority {
    domain: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a node shows to others and what it believes.
#[derive(Debug)]
pub struct Identity {
    domain: String,
    node: NodeId,
    ca: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// Why a key or certificate could not be made, stored or loaded. The operator's to mend; nothing was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Not usable in a certificate's name.
    #[error("domain name {0:?}: want 1 to {DOMAIN_CHARS_MAX} of a-z, 0-9 and inner hyphens, such as \"lab-2\"")]
    DomainName(String),
    /// There is something already, and it may be in use.
    #[error("{} exists: remove it first if the domain is to begin anew", .0.display())]
    Exists(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what its name says.
    #[error("{} holds no usable {what}: {reason}", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that others than its owner can read.
    #[error("{} can be read by others (mode {mode:03o}): chmod 600 {}", .path.display(), .path.display())]
    KeyMode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The certificate is of another CA, or names something else.
    #[error("{} is no certificate for {name} by this domain's CA: {reason}", .path.display())]
    WrongCertificate {
        /// Which.
        path: PathBuf,
        /// Who it should name.
        name: String,
        /// What the check said.
        reason: String,
    },
    /// The TLS library refused what we made of it. A bug of ours, or a damaged key.
    #[error("the TLS library refused the {what}: {reason}")]
    Library {
        /// What it refused.
        what: &'static str,
        /// In its words.
        reason: String,
    },
}

/// The name in a node's certificate, such as `n1.lab.sixnines`.
pub fn certificate_name(domain: &str, node: NodeId) -> String {
    format!("{node}.{domain}.sixnines")
}

/// The file names of a node's certificate and key in a directory.
pub fn node_files(dir: &Path, node: NodeId) -> (PathBuf, PathBuf) {
    (dir.join(format!("{node}.pem")), dir.join(format!("{node}.key")))
}

/// The file names of the CA's certificate and key in a directory.
pub fn ca_files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ca.pem"), dir.join("ca.key"))
}

impl Authority {
    /// Makes a CA for a domain that has none.
    ///
    /// # Errors
    /// [`PkiError::DomainName`], [`PkiError::Library`].
    pub fn create(domain: &str) -> Result<Self, PkiError> {
        check_domain(domain)?;
        let key = KeyPair::generate().map_err(library("CA key"))?;
        let params = ca_params(domain);
        let certificate_pem = params.self_signed(&key).map_err(library("CA certificate"))?.pem();
        Ok(Self { domain: domain.to_owned(), certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads the CA of `domain` from `ca.pem` and `ca.key`, to issue more certificates.
    ///
    /// # Errors
    /// [`PkiError`], with the file that is wrong.
    pub fn load(dir: &Path, domain: &str) -> Result<Self, PkiError> {
        check_domain(domain)?;
        let (certificate, key) = ca_files(dir);
        let certificate_pem = read(&certificate)?;
        let key_pem = read_key(&key)?;
        let pair = KeyPair::from_pem(&key_pem).map_err(|e| content(&key, "private key", &e))?;
        let shown = Facts::of(&parse_certificate(&certificate, &certificate_pem)?).map(|facts| facts.public_key);
        if shown.as_ref().map(PublicKey::bytes) != Some(pair.public_key_raw()) {
            return Err(content(&key, "key of this authority", &"it does not belong to the certificate beside it"));
        }
        Ok(Self { domain: domain.to_owned(), certificate_pem, issuer: Issuer::new(ca_params(domain), pair) })
    }

    /// Writes `ca.pem` and, readable by the owner alone, `ca.key`.
    ///
    /// # Errors
    /// [`PkiError::Exists`] if either file is there, [`PkiError::Write`].
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        let (certificate, key) = ca_files(dir);
        write_pair(&certificate, &self.certificate_pem, &key, &self.issuer.key().serialize_pem())
    }

    /// Makes a node's certificate and key in memory, for the founding of a domain: without an end, of admission 0.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn issue(&self, node: NodeId) -> Result<Issued, PkiError> {
        self.issue_until(node, None)
    }

    /// The same with an end, in seconds since 1970.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn issue_until(&self, node: NodeId, ends: Option<u64>) -> Result<Issued, PkiError> {
        let key = KeyPair::generate().map_err(library("node key"))?;
        Ok(Issued {
            domain: self.domain.clone(),
            node,
            ca_pem: self.certificate_pem.clone(),
            certificate_pem: self.sign(node, &key, 0, ends)?,
            key_pem: key.serialize_pem(),
        })
    }

    /// Certifies that a key is a node's, on this admission. The certificate as PEM; no two have the same serial number.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn certify(&self, node: NodeId, key: &PublicKey, admission: u64, ends: Option<u64>) -> Result<String, PkiError> {
        self.sign(node, key, admission, ends)
    }

    /// The CA's certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The SHA-256 of the CA's certificate, by which others know it.
    ///
    /// # Errors
    /// [`PkiError::Content`] if `ca.pem` holds no certificate.
    pub fn fingerprint(&self) -> Result<Fingerprint, PkiError> {
        let (path, _key) = ca_files(Path::new(""));
        Ok(fingerprint(&parse_certificate(&path, &self.certificate_pem)?))
    }

    fn sign(&self, node: NodeId, key: &impl PublicKeyData, admission: u64, ends: Option<u64>) -> Result<String, PkiError> {
        let name = certificate_name(&self.domain, node);
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(library("node name"))?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from_slice(&certificate::serial(admission)?));
        if let Some(ends) = ends {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(ends.min(NO_END));
        }
        Ok(params.signed_by(key, &self.issuer).map_err(library("node certificate"))?.pem())
    }
}

/// A fresh certificate with its key, to be carried to its node.
pub struct Issued {
    domain: String,
    node: NodeId,
    ca_pem: String,
    certificate_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("domain", &self.domain).field("node", &self.node).finish_non_exhaustive()
    }
}

impl Issued {
    /// Writes the certificate (`n1.pem`), the key (`n1.key`, for its owner alone) and, unless it is there, the CA's certificate.
    ///
    /// # Errors
    /// [`PkiError::Exists`], [`PkiError::Write`].
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        let (certificate, key) = node_files(dir, self.node);
        write_pair(&certificate, &self.certificate_pem, &key, &self.key_pem)?;
        let (ca, _stays_with_the_authority) = ca_files(dir);
        if ca.exists() { Ok(()) } else { write_new(&ca, &self.ca_pem, 0o644) }
    }

    /// The identity itself, without files.
    ///
    /// # Errors
    /// [`PkiError::Content`] would be a bug.
    pub fn identity(&self) -> Result<Identity, PkiError> {
        let here = Path::new("memory");
        Ok(Identity {
            domain: self.domain.clone(),
            node: self.node,
            ca: parse_certificate(here, &self.ca_pem)?,
            certificate: parse_certificate(here, &self.certificate_pem)?,
            key: parse_key(here, &self.key_pem)?,
        })
    }
}

impl Identity {
    /// Reads `ca.pem`, `n1.pem` and `n1.key`, and checks that they belong together.
    ///
    /// # Errors
    /// [`PkiError`], with the file that is wrong and what would be right.
    pub fn load(dir: &Path, domain: &str, node: NodeId) -> Result<Self, PkiError> {
        check_domain(domain)?;
        let (ca_path, _key_of_the_ca) = ca_files(dir);
        let (certificate_path, key_path) = node_files(dir, node);
        let identity = Self {
            domain: domain.to_owned(),
            node,
            ca: parse_certificate(&ca_path, &read(&ca_path)?)?,
            certificate: parse_certificate(&certificate_path, &read(&certificate_path)?)?,
            key: parse_key(&key_path, &read_key(&key_path)?)?,
        };
        identity.check(&certificate_path, &key_path)?;
        Ok(identity)
    }

    /// The domain's name.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whose identity it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What this node's certificate says.
    ///
    /// # Panics
    /// Never: it was checked when it was loaded.
    pub fn facts(&self) -> Facts {
        Facts::of(&self.certificate).expect("a certificate that the TLS library has accepted")
    }

    /// The SHA-256 of the CA's certificate.
    pub fn authority(&self) -> Fingerprint {
        fingerprint(&self.ca)
    }

    /// The same node and key with another certificate.
    ///
    /// # Errors
    /// [`PkiError::WrongCertificate`] if it is not this node's, of this CA, for this key.
    pub fn renewed(&self, certificate_pem: &str) -> Result<Self, PkiError> {
        let path = Path::new("the renewed certificate");
        let certificate = parse_certificate(path, certificate_pem)?;
        let (domain, ca, key) = (self.domain.clone(), self.ca.clone(), self.key.clone_key());
        let renewed = Self { domain, node: self.node, ca, certificate, key };
        renewed.check(path, path)?;
        Ok(renewed)
    }

    /// The same certificate, with the CA of another identity.
    #[cfg(test)]
    pub(crate) fn trusting(self, other: &Self) -> Self {
        Self { ca: other.ca.clone(), ..self }
    }

    /// Bytes that only this node knows and that outlive its process, for the purpose that `label` names.
    pub fn derive(&self, label: &str) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.key.secret_der());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::hmac::sign(&key, label.as_bytes()).as_ref());
        bytes
    }
}

/// Puts a renewed certificate in the place of the one that a node has, in one step.
///
/// # Errors
/// [`PkiError::Write`]; the former one is in its place then.
pub fn save_renewed(dir: &Path, node: NodeId, certificate_pem: &str) -> Result<(), PkiError> {
    let (path, _key_stays) = node_files(dir, node);
    let beside = path.with_extension("pem.new");
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&beside)?;
        file.write_all(certificate_pem.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(|source| PkiError::Write { path: path.clone(), source })
}

/// Writes what an admitted node is known by: its certificate, its key (for its owner alone) and the CA's certificate.
///
/// # Errors
/// [`PkiError::Exists`], [`PkiError::Write`].
pub fn save_admitted(dir: &Path, node: NodeId, ca_pem: &str, certificate_pem: &str, key_pem: &str) -> Result<(), PkiError> {
    let (certificate, key) = node_files(dir, node);
    write_pair(&certificate, certificate_pem, &key, key_pem)?;
    write_new(&ca_files(dir).0, ca_pem, 0o644)
}

/// The SHA-256 of some bytes.
pub fn fingerprint(bytes: &[u8]) -> Fingerprint {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Fingerprint(hash)
}

/// Whether this can be a domain's name.
///
/// # Errors
/// [`PkiError::DomainName`].
pub fn check_domain(domain: &str) -> Result<(), PkiError> {
    let fits = (1..=DOMAIN_CHARS_MAX).contains(&domain.len());
    let plain = domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let inner = !domain.starts_with('-') && !domain.ends_with('-');
    if fits && plain && inner { Ok(()) } else { Err(PkiError::DomainName(domain.to_owned())) }
}

/// The same for the same domain, so that a CA that was loaded issues under the name that its certificate bears.
fn ca_params(domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{domain}.sixnines CA"));
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn library<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> PkiError {
    move |e| PkiError::Library { what, reason: e.to_string() }
}

fn parse_certificate(path: &Path, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| content(path, "certificate", &e))
}

fn parse_key(path: &Path, pem: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| content(path, "private key", &e))
}

fn content(path: &Path, what: &'static str, reason: &dyn std::fmt::Display) -> PkiError {
    PkiError::Content { path: path.to_owned(), what, reason: reason.to_string() }
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
}

fn read_key(path: &Path) -> Result<String, PkiError> {
    let metadata = fs::metadata(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PkiError::KeyMode { path: path.to_owned(), mode });
    }
    read(path)
}

/// The key first: a certificate whose key could not be written would look complete.
fn write_pair(certificate: &Path, certificate_pem: &str, key: &Path, key_pem: &str) -> Result<(), PkiError> {
    if certificate.exists() {
        return Err(PkiError::Exists(certificate.to_owned()));
    }
    write_new(key, key_pem, 0o600)?;
    write_new(certificate, certificate_pem, 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => PkiError::Exists(path.to_owned()),
        _ => PkiError::Write { path: path.to_owned(), source },
    })
}
