//! TLS settings for QUIC, and the check of the name on the certificate.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
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
use sixnines_core::domain::admission::Fingerprint;
use sixnines_core::ids::NodeId;

use super::{Facts, Identity, PkiError, certificate_name, check_domain, content, fingerprint, library, parse_certificate, read};

/// Which protocol this is, among all that speak TLS. Its versions are in the `Hello`, where a refusal can say more.
const ALPN: &[u8] = b"sixnines";
/// The same for the door, where tokens are shown and certificates renewed.
const DOOR_ALPN: &[u8] = b"sixnines-door";

/// The committed member list: who may connect, with which certificates. Shared with the TLS checks, so that a change counts at once.
#[derive(Debug)]
pub struct Members {
    domain: String,
    nodes: RwLock<BTreeMap<NodeId, Allowed>>,
}

/// Who may connect as this node.
#[derive(Debug)]
struct Allowed {
    /// What its certificate names.
    name: String,
    /// The lowest admission that counts.
    lowest: u64,
    /// Who certifies it, if that is not this domain's authority.
    authority: Option<Arc<Chains>>,
}

/// A node of another domain, by what it is to that domain, and that domain's authority.
#[derive(Clone, Debug)]
pub struct Abroad {
    domain: String,
    node: NodeId,
    authority: Arc<Chains>,
}

/// The checks that a certificate is of one authority.
#[derive(Debug)]
struct Chains {
    authority: Fingerprint,
    client: Arc<dyn ClientCertVerifier>,
    server: Arc<WebPkiServerVerifier>,
}

impl Chains {
    fn of(authority: &CertificateDer<'static>) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(library("CA certificate"))?;
        let roots = Arc::new(roots);
        let client = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider()).build().map_err(library("CA certificate"))?;
        let server = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(library("CA certificate"))?;
        Ok(Self { authority: fingerprint(authority), client, server })
    }
}

impl Abroad {
    /// The nodes `nodes` of `domain`, whose authority has the certificate in this file.
    ///
    /// # Errors
    /// [`PkiError`], with the file that is wrong.
    pub fn of(domain: &str, authority: &Path, nodes: impl IntoIterator<Item = NodeId>) -> Result<Vec<Self>, PkiError> {
        check_domain(domain)?;
        let authority = Arc::new(Chains::of(&parse_certificate(authority, &read(authority)?)?)?);
        Ok(nodes.into_iter().map(|node| Self { domain: domain.to_owned(), node, authority: Arc::clone(&authority) }).collect())
    }

    /// Its domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Its number there.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl PartialEq for Abroad {
    fn eq(&self, other: &Self) -> bool {
        (&self.domain, self.node, self.authority.authority) == (&other.domain, other.node, other.authority.authority)
    }
}

impl Eq for Abroad {}

impl Members {
    /// The members of `domain`, each with the lowest admission whose certificates count.
    pub fn new(domain: &str, nodes: impl IntoIterator<Item = (NodeId, u64)>) -> Arc<Self> {
        let members = Self { domain: domain.to_owned(), nodes: RwLock::default() };
        members.set(nodes);
        Arc::new(members)
    }

    /// Replaces the list. Connections that stand are not touched.
    pub fn set(&self, nodes: impl IntoIterator<Item = (NodeId, u64)>) {
        self.set_all(nodes.into_iter().map(|(node, lowest)| (node, lowest, None)));
    }

    /// The same with nodes of other domains among them, each under the number that it has here.
    pub fn set_all(&self, nodes: impl IntoIterator<Item = (NodeId, u64, Option<Abroad>)>) {
        let allowed = |(node, lowest, abroad): (NodeId, u64, Option<Abroad>)| {
            let name = abroad.as_ref().map_or_else(|| certificate_name(&self.domain, node), |a| certificate_name(&a.domain, a.node));
            (node, Allowed { name, lowest, authority: abroad.map(|a| a.authority) })
        };
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes.into_iter().map(allowed).collect();
    }

    /// The one member that the certificate names and whose certificate counts. `None` if it names none, or more than one.
    pub fn named_by(&self, certificate: &CertificateDer<'_>) -> Option<NodeId> {
        self.check(certificate).ok()
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<NodeId, CertificateError> {
        let (node, lowest, _) = self.who(certificate)?;
        let facts = Facts::of(certificate).ok_or(CertificateError::BadEncoding)?;
        if facts.admission >= lowest { Ok(node) } else { Err(CertificateError::Revoked) }
    }

    /// Who certifies the one that a certificate names, if that is another domain's authority: each may speak for its own domain alone.
    fn authority(&self, certificate: &CertificateDer<'_>) -> Option<Arc<Chains>> {
        self.who(certificate).ok()?.2
    }

    fn who(&self, certificate: &CertificateDer<'_>) -> Result<(NodeId, u64, Option<Arc<Chains>>), CertificateError> {
        let parsed = ParsedCertificate::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let mut named = nodes.iter().filter(|(_, allowed)| names(&parsed, &allowed.name));
        match (named.next(), named.next()) {
            (Some((node, allowed)), None) => Ok((*node, allowed.lowest, allowed.authority.clone())),
            _ => Err(CertificateError::NotValidForName),
        }
    }
}

fn names(certificate: &ParsedCertificate<'_>, name: &str) -> bool {
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(certificate, &name).is_ok())
}

impl Identity {
    /// For dialling: our certificate, the domain's CA, and the exact name that is dialled, which is a member's.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn client_config(&self, members: Arc<Members>) -> Result<ClientConfig, PkiError> {
        let verifier = Arc::new(ServerVerifier { chain: self.server_verifier()?, members });
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
        config.enable_sni = false; // it would be the only name that travels in clear: who is dialled is checked here, and known there
        Ok(config)
    }

    /// For showing oneself at another node's door.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn visitor_config(&self, members: Arc<Members>) -> Result<ClientConfig, PkiError> {
        let mut config = self.client_config(members)?;
        config.alpn_protocols = vec![DOOR_ALPN.to_vec()];
        Ok(config)
    }

    /// For being dialled: our certificate, the domain's CA, and a name on the member list.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn server_config(&self, members: Arc<Members>) -> Result<ServerConfig, PkiError> {
        let chain = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider()).build();
        self.serve(chain.map_err(library("CA certificate"))?, members, vec![self.certificate.clone()], ALPN)
    }

    /// For a door: the CA's certificate is shown as well, to who knows no more than its hash, and a visitor may come without a certificate: it has
    /// to show a token then. One that shows a certificate has to be a member.
    ///
    /// # Errors
    /// [`PkiError::Library`].
    pub fn door_config(&self, members: Arc<Members>) -> Result<ServerConfig, PkiError> {
        let chain = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider()).allow_unauthenticated().build();
        self.serve(chain.map_err(library("CA certificate"))?, members, vec![self.certificate.clone(), self.ca.clone()], DOOR_ALPN)
    }

    fn serve(&self, chain: Arc<dyn ClientCertVerifier>, members: Arc<Members>, shown: Vec<CertificateDer<'static>>, alpn: &[u8]) -> Result<ServerConfig, PkiError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(library("TLS version"))?
            .with_client_cert_verifier(Arc::new(MemberVerifier { chain, members }))
            .with_single_cert(shown, self.key.clone_key())
            .map_err(library("certificate or key"))?;
        config.alpn_protocols = vec![alpn.to_vec()];
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
        match self.client_config(Members::new(&self.domain, [])) {
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

/// For who has no certificate yet and knows the CA by its hash: whoever answers has to show a CA certificate with that hash, and one of its own
/// that this CA has made out to exactly the name that is dialled.
///
/// # Errors
/// [`PkiError::Library`].
pub fn pinned_config(authority: Fingerprint) -> Result<ClientConfig, PkiError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(library("TLS version"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier { authority, provider: provider() }))
        .with_no_client_auth();
    config.alpn_protocols = vec![DOOR_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
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
        let authority = self.members.authority(end_entity);
        let verified = authority.as_ref().map_or(&self.chain, |a| &a.client).verify_client_cert(end_entity, intermediates, now)?;
        self.members.check(end_entity)?;
        Ok(verified)
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
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

/// A certificate of our CA with the name that is dialled, which counts.
#[derive(Debug)]
struct ServerVerifier {
    chain: Arc<WebPkiServerVerifier>,
    members: Arc<Members>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = self.members.authority(end_entity);
        let chain = authority.as_ref().map_or(&self.chain, |a| &a.server);
        let verified = chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.members.check(end_entity)?;
        Ok(verified)
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

/// See [`pinned_config`].
#[derive(Debug)]
struct PinVerifier {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(ca) = intermediates.iter().find(|c| fingerprint(c) == self.authority) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let chain = chain.map_err(|_| CertificateError::BadEncoding)?;
        chain.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
