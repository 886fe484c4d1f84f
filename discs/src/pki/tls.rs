//! TLS settings for QUIC, and the check of the name on the certificate.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use sixnines_core::ids::NodeId;

use super::{Identity, PkiError, certificate_name, content, library};

/// Which protocol this is, among all that speak TLS. Its versions are in the `Hello`, where a refusal can say more.
const ALPN: &[u8] = b"sixnines";

/// The committed member list: who may connect. Shared with the TLS checks, so that a change counts at once.
#[derive(Debug)]
pub struct Members {
    domain: String,
    nodes: RwLock<BTreeSet<NodeId>>,
}

impl Members {
    /// The members of `domain`.
    pub fn new(domain: &str, nodes: impl IntoIterator<Item = NodeId>) -> Arc<Self> {
        Arc::new(Self { domain: domain.to_owned(), nodes: RwLock::new(nodes.into_iter().collect()) })
    }

    /// Replaces the list. Connections that stand are not touched.
    pub fn set(&self, nodes: impl IntoIterator<Item = NodeId>) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes.into_iter().collect();
    }

    /// The one member that the certificate names. `None` if it names none, or more than one.
    pub fn named_by(&self, certificate: &CertificateDer<'_>) -> Option<NodeId> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let mut named = nodes.iter().copied().filter(|node| names(&parsed, &certificate_name(&self.domain, *node)));
        let node = named.next()?;
        named.next().is_none().then_some(node)
    }
}

fn names(certificate: &ParsedCertificate<'_>, name: &str) -> bool {
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(certificate, &name).is_ok())
}

impl Identity {
    /// For dialling: our certificate, the domain's CA, and the exact name that is dialled.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn client_config(&self) -> Result<ClientConfig, PkiError> {
        let verifier = self.server_verifier()?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(library("TLS version"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(library("certificate or key"))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }

    /// For being dialled: our certificate, the domain's CA, and a name on the member list.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn server_config(&self, members: Arc<Members>) -> Result<ServerConfig, PkiError> {
        let chain = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(library("CA certificate"))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(library("TLS version"))?
            .with_client_cert_verifier(Arc::new(MemberVerifier { chain, members }))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(library("certificate or key"))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// Whether our own files belong together, in the words of the check that a peer would make.
    pub(super) fn check(&self, certificate_path: &Path, key_path: &Path) -> Result<(), PkiError> {
        let name = certificate_name(&self.domain, self.node);
        let server_name = ServerName::try_from(name.clone()).map_err(library("node name"))?;
        self.server_verifier()?
            .verify_server_cert(&self.certificate, &[], &server_name, &[], UnixTime::now())
            .map_err(|e| PkiError::WrongCertificate { path: certificate_path.to_owned(), name, reason: e.to_string() })?;
        match self.client_config() {
            Err(PkiError::Library { reason, .. }) => Err(content(key_path, "key for this certificate", &reason)),
            other => other.map(|_usable| ()),
        }
    }

    fn server_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, PkiError> {
        WebPkiServerVerifier::builder_with_provider(self.roots()?, provider()).build().map_err(library("CA certificate"))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).map_err(library("CA certificate"))?;
        Ok(Arc::new(roots))
    }
}

/// ring, TLS 1.3, and AES-128 first: the fastest where the processor has AES, which is on every board we know.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// A certificate of our CA that names a member, and no other.
#[derive(Debug)]
struct MemberVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    members: Arc<Members>,
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // The name of our CA is nobody's business before it has shown that it knows us.
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        match self.members.named_by(end_entity) {
            Some(_member) => Ok(verified),
            None => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
