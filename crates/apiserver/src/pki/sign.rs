//! Signing somebody else's request.
//!
//! Guarantees: the certificate says what the request says of its holder and nothing more; it is never an
//! authority's; it does not outlive the authority. The form is written here because rcgen keeps one value of
//! a subject attribute where requests have several organizations.

use jiff::SignedDuration;
use meta::Timestamp;
use rcgen::{KeyPair, SigningKey as _};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer as _, X509Certificate},
};
use yasna::{DERWriter, Tag, models::ObjectIdentifier, tags};

use super::{Authority, issue::serial_bytes};

/// Validity when none is asked for, and the longest (upstream `--cluster-signing-duration`).
const SECONDS_MAX: i64 = 365 * 24 * 3600;
/// Shortest validity.
const SECONDS_MIN: i64 = 600;
/// How long before now it is valid already: clocks differ.
const BACKDATE_SECONDS: i64 = 300;

/// Why a request is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SignError {
    #[error(transparent)]
    Request(#[from] csr::CsrError),
    #[error("usage {0:?} is not known")]
    Usage(String),
    #[error("the certificate authority cannot sign: {0}")]
    Authority(&'static str),
}

impl Authority {
    /// The certificate for `request` with these usages, PEM. `seconds` is how long it shall be valid; at most a
    /// year, and no longer than the authority.
    pub fn sign(
        &self,
        request: &csr::Request,
        usages: &[String],
        seconds: Option<i64>,
        now: Timestamp,
    ) -> Result<String, SignError> {
        request.verify()?;
        let usages = Usages::read(usages)?;
        let broken = SignError::Authority;
        let der = CertificateDer::from_pem_slice(self.pair().cert_pem.as_bytes());
        let der = der.map_err(|_| broken("its certificate is damaged"))?;
        let (_, authority) =
            X509Certificate::from_der(&der).map_err(|_| broken("its certificate is damaged"))?;
        let key = KeyPair::from_pem(&self.pair().key_pem).map_err(|_| broken("its key is damaged"))?;
        let algorithm = algorithm(&key).ok_or(broken("its kind of key is not supported"))?;
        let after = now.as_second() + seconds.unwrap_or(SECONDS_MAX).clamp(SECONDS_MIN, SECONDS_MAX);
        let after = after.min(authority.validity().not_after.timestamp());
        if after <= now.as_second() {
            return Err(broken("it has expired"));
        }
        let before = now - SignedDuration::from_secs(BACKDATE_SECONDS);
        let after = Timestamp::from_second(after).map_err(|_| broken("the time is out of range"))?;
        let serial = serial_bytes().map_err(|_| broken("no random numbers"))?;
        let key_id = authority.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let body = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                // Version 3.
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                writer.next().write_bigint_bytes(&serial, true);
                writer.next().write_der(&algorithm);
                writer.next().write_der(authority.subject().as_raw());
                writer.next().write_sequence(|writer| {
                    time(writer.next(), before);
                    time(writer.next(), after);
                });
                writer.next().write_der(&request.subject);
                writer.next().write_der(&request.public_key);
                writer.next().write_tagged(Tag::context(3), |writer| {
                    writer.write_sequence(|writer| {
                        let mut add = |oid: &[u64], critical: bool, value: Vec<u8>| {
                            extension(writer.next(), oid, critical, &value);
                        };
                        usages.write(&mut add);
                        // An end entity.
                        add(&[2, 5, 29, 19], true, yasna::construct_der(|w| w.write_sequence(|_| ())));
                        if let Some(id) = &key_id {
                            add(&[2, 5, 29, 35], false, key_identifier(id));
                        }
                        names(request, &mut add);
                    });
                });
            });
        });
        let signature = key.sign(&body).map_err(|_| broken("signing failed"))?;
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                writer.next().write_der(&algorithm);
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem(&der))
    }
}

type Add<'a> = dyn FnMut(&[u64], bool, Vec<u8>) + 'a;

fn extension(writer: DERWriter<'_>, oid: &[u64], critical: bool, value: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(value);
    });
}

fn key_identifier(id: &[u8]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(id));
        });
    })
}

/// RFC 5280 section 4.1.2.5: two digits for the year until 2049.
fn time(writer: DERWriter<'_>, at: Timestamp) {
    let short = at.strftime("%Y").to_string().as_str() < "2050";
    let (tag, text) = if short {
        (tags::TAG_UTCTIME, at.strftime("%y%m%d%H%M%SZ").to_string())
    } else {
        (tags::TAG_GENERALIZEDTIME, at.strftime("%Y%m%d%H%M%SZ").to_string())
    };
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(text.as_bytes()));
}

fn names(request: &csr::Request, add: &mut Add<'_>) {
    let csr::Request { dns_names, ip_addresses, emails, uris, .. } = request;
    let texts = emails.iter().map(|e| (1, e)).chain(dns_names.iter().map(|d| (2, d)));
    let mut all: Vec<(u64, Vec<u8>)> =
        texts.chain(uris.iter().map(|u| (6, u))).map(|(tag, text)| (tag, text.as_bytes().to_vec())).collect();
    all.extend(ip_addresses.iter().map(|address| match address {
        std::net::IpAddr::V4(four) => (7, four.octets().to_vec()),
        std::net::IpAddr::V6(six) => (7, six.octets().to_vec()),
    }));
    if all.is_empty() {
        return;
    }
    let value = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for (tag, bytes) in &all {
                writer.next().write_tagged_implicit(Tag::context(*tag), |writer| writer.write_bytes(bytes));
            }
        });
    });
    add(&[2, 5, 29, 17], false, value);
}

/// The AlgorithmIdentifier of the authority's signatures.
fn algorithm(key: &KeyPair) -> Option<Vec<u8>> {
    let algorithm = key.algorithm();
    let (oid, null): (&[u64], bool) = if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 {
        (&[1, 2, 840, 10045, 4, 3, 2], false)
    } else if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
        (&[1, 2, 840, 10045, 4, 3, 3], false)
    } else if *algorithm == rcgen::PKCS_ED25519 {
        (&[1, 3, 101, 112], false)
    } else if *algorithm == rcgen::PKCS_RSA_SHA256 {
        (&[1, 2, 840, 113549, 1, 1, 11], true)
    } else {
        return None;
    };
    Some(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
            if null {
                writer.next().write_null();
            }
        });
    }))
}

/// Usages as the two extensions have them.
#[derive(Default)]
struct Usages {
    /// Bits of KeyUsage by their number in RFC 5280 section 4.2.1.3.
    bits: Vec<u8>,
    purposes: Vec<&'static [u64]>,
}

impl Usages {
    fn read(list: &[String]) -> Result<Self, SignError> {
        let mut usages = Self::default();
        for usage in list {
            let purpose: &'static [u64] = match usage.as_str() {
                "signing" | "digital signature" => &[0],
                "content commitment" => &[1],
                "key encipherment" => &[2],
                "data encipherment" => &[3],
                "key agreement" => &[4],
                "cert sign" => &[5],
                "crl sign" => &[6],
                "encipher only" => &[7],
                "decipher only" => &[8],
                "any" => &[2, 5, 29, 37, 0],
                "server auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 1],
                "client auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 2],
                "code signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 3],
                "email protection" | "s/mime" => &[1, 3, 6, 1, 5, 5, 7, 3, 4],
                "ipsec end system" => &[1, 3, 6, 1, 5, 5, 7, 3, 5],
                "ipsec tunnel" => &[1, 3, 6, 1, 5, 5, 7, 3, 6],
                "ipsec user" => &[1, 3, 6, 1, 5, 5, 7, 3, 7],
                "timestamping" => &[1, 3, 6, 1, 5, 5, 7, 3, 8],
                "ocsp signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 9],
                "microsoft sgc" => &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3],
                "netscape sgc" => &[2, 16, 840, 1, 113730, 4, 1],
                other => return Err(SignError::Usage(other.to_owned())),
            };
            match *purpose {
                [bit] => usages.bits.push(u8::try_from(bit).unwrap_or(0)),
                _ if usages.purposes.contains(&purpose) => {}
                _ => usages.purposes.push(purpose),
            }
        }
        Ok(usages)
    }

    fn write(&self, add: &mut Add<'_>) {
        if let Some(highest) = self.bits.iter().max() {
            let mut bytes = [0_u8; 2];
            for bit in &self.bits {
                if let Some(byte) = bytes.get_mut(usize::from(bit / 8)) {
                    *byte |= 0x80 >> (bit % 8);
                }
            }
            let length = usize::from(*highest) + 1;
            let used = bytes.get(..length.div_ceil(8)).unwrap_or(&bytes);
            add(&[2, 5, 29, 15], true, yasna::construct_der(|w| w.write_bitvec_bytes(used, length)));
        }
        if !self.purposes.is_empty() {
            let value = yasna::construct_der(|writer| {
                writer.write_sequence(|writer| {
                    for oid in &self.purposes {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                    }
                });
            });
            add(&[2, 5, 29, 37], false, value);
        }
    }
}

fn pem(der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while let Some((line, more)) =
        rest.split_at_checked(64.min(rest.len())).filter(|(line, _)| !line.is_empty())
    {
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Identity;
    use rcgen::{CertificateParams, DnType, SanType};
    use rustls::pki_types::UnixTime;

    fn request(names: &[SanType]) -> csr::Request {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "system:node:n1");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.subject_alt_names = names.to_vec();
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        csr::Request::parse(pem.as_bytes()).unwrap()
    }

    fn usages(list: &[&str]) -> Vec<String> {
        list.iter().map(|usage| (*usage).to_owned()).collect()
    }

    /// What TLS, which trusts nobody's word, makes of it.
    fn verified(authority: &Authority, pem: &str, at: Timestamp) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pair().cert_pem.as_bytes()).unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.as_second() as u64));
        verifier.build().unwrap().verify_client_cert(&leaf, &[], at).is_ok()
    }

    #[test]
    fn a_client_certificate_says_what_was_asked_and_ends_in_time() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let authority = Authority::create("ca", now).unwrap();
        let client = usages(&["digital signature", "client auth"]);
        let request = request(&[SanType::DnsName("n1.example".try_into().unwrap())]);
        let pem = authority.sign(&request, &client, Some(3600), now).unwrap();
        assert_eq!(csr::certificates(pem.as_bytes()), Ok(now.as_second() + 3600));
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let identity = Identity::of(&der).unwrap();
        assert_eq!(identity.common_name, "system:node:n1");
        assert_eq!(identity.organizations, ["system:nodes"]);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert!(!parsed.is_ca());
        assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
        let late = now + SignedDuration::from_secs(3601);
        assert!(verified(&authority, &pem, now) && !verified(&authority, &pem, late));
        let other = Authority::create("ca", now).unwrap();
        assert!(!verified(&other, &pem, now), "another authority of the same name");
        let server = authority.sign(&request, &usages(&["server auth"]), None, now).unwrap();
        assert!(!verified(&authority, &server, now), "a server's certificate is no client's");
        assert_eq!(csr::certificates(server.as_bytes()), Ok(now.as_second() + SECONDS_MAX));
    }

    #[test]
    fn nothing_outlives_the_authority_and_every_usage_has_a_form() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let authority = Authority::create("ca", now).unwrap();
        let request = request(&[]);
        let late: Timestamp = "2035-12-20T00:00:00Z".parse().unwrap();
        let ends = csr::certificates(authority.sign(&request, &[], None, late).unwrap().as_bytes()).unwrap();
        assert!(ends < late.as_second() + 30 * 24 * 3600);
        let gone: Timestamp = "2037-01-01T00:00:00Z".parse().unwrap();
        assert!(matches!(authority.sign(&request, &[], None, gone), Err(SignError::Authority(_))));
        for usage in csr::USAGES {
            let pem = authority.sign(&request, &usages(&[usage]), None, now).unwrap();
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            let parsed = parsed
                .iter_extensions()
                .all(|e| !matches!(e.parsed_extension(), ParsedExtension::ParseError { .. }));
            assert!(parsed, "{usage}");
        }
        assert!(authority.sign(&request, &usages(&["fly"]), None, now).is_err());
    }
}
