//! PKCS#10 certificate requests as CertificateSigningRequests carry them, and what the built-in signers take.
//!
//! Guarantees: what [`Request`] says is all that a signer may put into a certificate; a request that two
//! readers could understand differently (two common names, text that is no text, bytes behind the end) is
//! refused. Pure; knows no API object, no key and no authority.

mod signers;

use std::net::IpAddr;

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
    prelude::FromDer as _,
    x509::AttributeTypeAndValue,
};

pub use signers::{
    API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, Refused, USAGES, accepts, is_for_own_name,
};

/// Longest request that is looked at; one with a large key and a hundred names has a tenth of it.
const PEM_BYTES_MAX: usize = 64 << 10;
/// Most names in one request.
const NAMES_MAX: usize = 256;

/// A request, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// CN; empty when there is none.
    pub common_name: String,
    /// Every O, in order.
    pub organizations: Vec<String>,
    /// DNS names among the subject alternative names.
    pub dns_names: Vec<String>,
    /// IP addresses among them.
    pub ip_addresses: Vec<IpAddr>,
    /// Mail addresses among them.
    pub emails: Vec<String>,
    /// URIs among them.
    pub uris: Vec<String>,
    /// The subject, DER.
    pub subject: Vec<u8>,
    /// The public key with its algorithm (SubjectPublicKeyInfo), DER.
    pub public_key: Vec<u8>,
    der: Vec<u8>,
}

/// Why a text is no usable request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CsrError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    #[error("the request has {0} bytes, at most 65536 are read")]
    TooLong(usize),
    #[error("not a PKCS#10 certificate request")]
    Malformed,
    #[error("the subject has more than one common name")]
    CommonNames,
    #[error("the subject has a name that is not text")]
    Text,
    #[error("a subject alternative name is of a kind that no signer issues, or there are more than 256")]
    Names,
    #[error("the signature of the request does not fit its public key, or its kind of key is not supported")]
    Signature,
}

impl Request {
    /// Reads the first PEM block of `pem`. Does not check the signature: see [`Request::verify`].
    pub fn parse(pem: &[u8]) -> Result<Self, CsrError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(CsrError::TooLong(pem.len()));
        }
        let (_, block) = parse_x509_pem(pem).map_err(|_| CsrError::Pem)?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(CsrError::Pem);
        }
        Self::from_der(block.contents)
    }

    fn from_der(der: Vec<u8>) -> Result<Self, CsrError> {
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &request.certification_request_info;
        let mut common_names = texts(info.subject.iter_common_name())?.into_iter();
        let common_name = common_names.next().unwrap_or_default();
        if common_names.next().is_some() {
            return Err(CsrError::CommonNames);
        }
        let mut this = Self {
            common_name,
            organizations: texts(info.subject.iter_organization())?,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            der: Vec::new(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => this.name(&names.general_names)?,
                ParsedExtension::ParseError { .. } => return Err(CsrError::Malformed),
                _ => {}
            }
        }
        drop(request);
        this.der = der;
        Ok(this)
    }

    fn name(&mut self, names: &[GeneralName<'_>]) -> Result<(), CsrError> {
        for name in names {
            match name {
                GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
                GeneralName::URI(name) => self.uris.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => self.ip_addresses.push(address(bytes)?),
                _ => return Err(CsrError::Names),
            }
        }
        let count = self.dns_names.len() + self.emails.len() + self.uris.len() + self.ip_addresses.len();
        if count > NAMES_MAX { Err(CsrError::Names) } else { Ok(()) }
    }

    /// Checks that whoever made the request holds the private key: its signature is that of its key.
    pub fn verify(&self) -> Result<(), CsrError> {
        let (_, request) = X509CertificationRequest::from_der(&self.der).map_err(|_| CsrError::Malformed)?;
        request.verify_signature().map_err(|_| CsrError::Signature)
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, CsrError> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).map_err(|_| CsrError::Names)
}

fn texts<'a>(values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Result<Vec<String>, CsrError> {
    values.map(|value| value.as_str().map(str::to_owned).map_err(|_| CsrError::Text)).collect()
}

/// Whether `pem` is one or more `CERTIFICATE` blocks that parse, and nothing else but blank space; when the
/// first of them ends (seconds since 1970).
pub fn certificates(pem: &[u8]) -> Result<i64, &'static str> {
    let mut ends = None;
    for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| "is not PEM")?;
        if block.label != "CERTIFICATE" {
            return Err("only CERTIFICATE PEM blocks are allowed");
        }
        let parsed = x509_parser::certificate::X509Certificate::from_der(&block.contents);
        let (_, certificate) = parsed.map_err(|_| "contains a block that is no certificate")?;
        ends.get_or_insert(certificate.validity().not_after.timestamp());
    }
    ends.ok_or("must contain at least one PEM block of a certificate")
}

#[cfg(test)]
mod tests;
