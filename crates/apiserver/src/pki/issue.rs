//! Issuing one certificate, and judging whether an issued one still fits.

use std::{collections::BTreeSet, time::Duration};

use meta::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use ring::rand::SecureRandom as _;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::PkiError;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an authority is valid.
const AUTHORITY_DAYS: u32 = 3650;
/// How long a leaf is valid, as kubeadm's.
const LEAF_DAYS: u32 = 365;
/// A leaf with less left than this is issued anew.
const RENEW_BEFORE_SECONDS: i64 = 30 * 24 * 3600;

/// A certificate and its private key, both PEM.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    /// Certificate.
    pub cert_pem: String,
    /// Private key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(certificate and private key)")
    }
}

/// What a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// CN: the user name of a client.
    pub common_name: String,
    /// O: the group of a client. One, because rcgen writes one attribute of a type.
    pub organization: Option<String>,
    /// DNS names and IP addresses of a server.
    pub names: Vec<String>,
    /// May be presented by a server.
    pub server: bool,
    /// May be presented by a client.
    pub client: bool,
}

impl Leaf {
    /// A client known by `common_name` in `group`.
    pub fn client(common_name: &str, group: Option<&str>) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organization: group.map(str::to_owned),
            client: true,
            ..Self::default()
        }
    }

    /// A server reached under `names`.
    pub fn server(common_name: &str, names: &[String]) -> Self {
        Self { common_name: common_name.to_owned(), names: names.to_vec(), server: true, ..Self::default() }
    }
}

/// Who a client certificate says its holder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// CN.
    pub common_name: String,
    /// Every O.
    pub organizations: Vec<String>,
}

impl Identity {
    /// Reads a certificate that TLS has verified; `None` when it has no CN, or more than one, of which
    /// readers could take either.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let texts = |mut values: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| -> Vec<String> {
            values.drain(..).filter_map(|v| v.as_str().ok()).map(str::to_owned).collect()
        };
        let mut common_names = texts(cert.subject().iter_common_name().collect());
        let common_name = common_names.pop().filter(|name| common_names.is_empty() && !name.is_empty())?;
        let organizations = texts(cert.subject().iter_organization().collect());
        Some(Self { common_name, organizations })
    }
}

/// Until when a certificate is good; `None` when it cannot be read.
pub(crate) fn not_after(der: &[u8]) -> Option<meta::Timestamp> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    meta::Timestamp::from_second(cert.validity().not_after.timestamp()).ok()
}

/// A certificate authority that can sign.
pub struct Authority {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
    subject: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// A new authority, valid for ten years from an hour before `now` (clocks differ).
    pub fn create(common_name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let issue = || -> Result<Pair, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::CrlSign,
            ];
            valid(&mut params, now, AUTHORITY_DAYS);
            params.serial_number = Some(serial()?);
            let cert = params.self_signed(&key)?;
            Ok(Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
        };
        let failed = |source| PkiError::Issue { subject: common_name.to_owned(), source };
        let pair = issue().map_err(failed)?;
        Self::from_pem(&pair.cert_pem, &pair.key_pem).map_err(failed)
    }

    /// An authority from its files.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(cert_pem, KeyPair::from_pem(key_pem)?)?;
        let der = der_of(cert_pem).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let subject = parsed.subject().as_raw().to_vec();
        Ok(Self {
            pair: Pair { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() },
            issuer,
            subject,
        })
    }

    /// Its own certificate and key.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Signs a new key for `leaf`, valid for a year from an hour before `now`.
    pub fn issue(&self, leaf: &Leaf, now: Timestamp) -> Result<Pair, PkiError> {
        let issue = || -> Result<Pair, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(leaf.names.clone())?;
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
            if let Some(organization) = &leaf.organization {
                params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
            }
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            if leaf.server {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            }
            if leaf.client {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
            }
            params.use_authority_key_identifier_extension = true;
            params.serial_number = Some(serial()?);
            valid(&mut params, now, LEAF_DAYS);
            let cert = params.signed_by(&key, &self.issuer)?;
            Ok(Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
        };
        issue().map_err(|source| PkiError::Issue { subject: leaf.common_name.clone(), source })
    }

    /// Whether `pair` was issued by this authority for `leaf`, its key belongs to it, and it has at least
    /// 30 days left.
    pub fn still_fits(&self, pair: &Pair, leaf: &Leaf, now: Timestamp) -> bool {
        let fits = || -> Option<bool> {
            let der = der_of(&pair.cert_pem)?;
            let (_, cert) = X509Certificate::from_der(&der).ok()?;
            let identity = Identity::of(&der)?;
            let wanted: BTreeSet<&str> = leaf.names.iter().map(String::as_str).collect();
            let names = names_of(&cert);
            let usage = cert.extended_key_usage().ok()??.value.clone();
            let key = KeyPair::from_pem(&pair.key_pem).ok()?;
            Some(
                cert.issuer().as_raw() == self.subject
                    && cert.validity().not_after.timestamp() - now.as_second() > RENEW_BEFORE_SECONDS
                    && identity.common_name == leaf.common_name
                    && identity.organizations.iter().eq(&leaf.organization)
                    && names.iter().map(String::as_str).collect::<BTreeSet<_>>() == wanted
                    && (usage.server_auth, usage.client_auth) == (leaf.server, leaf.client)
                    && cert.public_key().subject_public_key.data.as_ref() == key.public_key_raw(),
            )
        };
        fits().unwrap_or(false)
    }
}

fn der_of(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

fn serial() -> Result<SerialNumber, rcgen::Error> {
    serial_bytes().map(|bytes| SerialNumber::from_slice(&bytes))
}

/// 16 random bytes with the sign bit clear, as RFC 5280 wants.
pub(super) fn serial_bytes() -> Result<[u8; 16], rcgen::Error> {
    let mut bytes = [0_u8; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x01;
    }
    Ok(bytes)
}

fn valid(params: &mut CertificateParams, now: Timestamp, days: u32) {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = now - Duration::from_secs(3600);
    params.not_after = now + DAY * days;
}

fn names_of(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return Vec::new() };
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(text).collect()
}
