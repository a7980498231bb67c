use super::*;
use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

fn pem(common_name: &str, organization: Option<&str>, names: &[SanType]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.subject_alt_names = names.to_vec();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn usages(list: &[&str]) -> Vec<String> {
    list.iter().map(|usage| (*usage).to_owned()).collect()
}

#[test]
fn reads_what_the_request_says() {
    let ip = SanType::IpAddress([10, 0, 0, 1].into());
    let request = Request::parse(pem("ann", Some("dev"), &[dns("a.b"), ip]).as_bytes()).unwrap();
    assert_eq!(request.common_name, "ann");
    assert_eq!(request.organizations, ["dev"]);
    assert_eq!(request.dns_names, ["a.b"]);
    assert_eq!(request.ip_addresses, [IpAddr::from([10, 0, 0, 1])]);
    request.verify().unwrap();
}

#[test]
fn what_is_no_request_is_refused() {
    let good = pem("ann", None, &[]);
    let certificate = good.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    let cut = good.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, l)| format!("{l}\n"));
    let cut: String = cut.collect();
    for (text, expected) in [
        ("", CsrError::Pem),
        ("hello", CsrError::Pem),
        (certificate.as_str(), CsrError::Pem),
        (cut.as_str(), CsrError::Malformed),
    ] {
        assert_eq!(Request::parse(text.as_bytes()).unwrap_err(), expected, "{text:.40}");
    }
    let long = vec![b'a'; PEM_BYTES_MAX + 1];
    assert!(matches!(Request::parse(&long), Err(CsrError::TooLong(_))));
}

/// The subject of another request under this one's key and signature: what a thief of requests would send.
#[test]
fn a_request_that_its_key_did_not_sign_is_told() {
    let (mine, theirs) = (pem("aaa", None, &[]), pem("bbb", None, &[]));
    let der = |text: &str| parse_x509_pem(text.as_bytes()).unwrap().1.contents;
    let mut forged = der(&mine);
    let at = forged.windows(3).position(|w| w == b"aaa").unwrap();
    forged[at..at + 3].copy_from_slice(b"bbb");
    let forged = Request::from_der(forged).unwrap();
    assert_eq!(forged.common_name, "bbb");
    assert_eq!(forged.verify(), Err(CsrError::Signature));
    Request::from_der(der(&theirs)).unwrap().verify().unwrap();
    let mut longer = der(&theirs);
    longer.push(0);
    assert_eq!(Request::from_der(longer), Err(CsrError::Malformed));
}

#[test]
fn each_signer_takes_its_own() {
    let node = Some("system:nodes");
    let client = ["digital signature", "client auth"];
    let server = ["digital signature", "key encipherment", "server auth"];
    let host = [dns("n1")];
    for (signer, name, organization, names, use_for, expected) in [
        (KUBELET_CLIENT, "system:node:n1", node, &[][..], &client[..], ""),
        (KUBELET_CLIENT, "system:node:", node, &[], &client, "common name"),
        (KUBELET_CLIENT, "ann", node, &[], &client, "common name"),
        (KUBELET_CLIENT, "system:node:n1", None, &[], &client, "organization"),
        (KUBELET_CLIENT, "system:node:n1", Some("system:masters"), &[], &client, "organization"),
        (KUBELET_CLIENT, "system:node:n1", node, &host, &client, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, "system:node:n1", node, &[], &server, "usages did not match"),
        (KUBELET_CLIENT, "system:node:n1", node, &[], &["client auth"], "usages did not match"),
        (KUBELET_SERVING, "system:node:n1", node, &host, &server, ""),
        (KUBELET_SERVING, "system:node:n1", node, &[], &server, "at least one DNS or IP"),
        (KUBELET_SERVING, "system:node:n1", node, &host, &client, "usages did not match"),
        (API_CLIENT, "ann", Some("dev"), &[], &client, ""),
        (API_CLIENT, "ann", None, &[], &server, "invalid usage for client certificate: server auth"),
        (API_CLIENT, "ann", None, &[], &["digital signature"], "missing required usage"),
        (LEGACY_UNKNOWN, "anything", None, &host, &server, ""),
    ] {
        let request = Request::parse(pem(name, organization, names).as_bytes()).unwrap();
        let told = accepts(signer, &request, &usages(use_for)).unwrap().err();
        let told = told.map_or_else(String::new, |refused| refused.to_string());
        assert!(
            if expected.is_empty() { told.is_empty() } else { told.contains(expected) },
            "{signer} {told:?}"
        );
    }
    let request = Request::parse(pem("ann", None, &[]).as_bytes()).unwrap();
    assert_eq!(accepts("example.com/mine", &request, &[]), None);
}

/// Two common names, of which one reader takes the first and another the last.
#[test]
fn two_common_names_are_refused() {
    // subject: SEQUENCE { SET { SEQ { 2.5.4.3, UTF8String } } twice }, spliced into a good request.
    let rdn = |name: &[u8]| {
        let mut value = vec![0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, u8::try_from(name.len()).unwrap()];
        value.extend(name);
        let mut sequence = vec![0x30, u8::try_from(value.len()).unwrap()];
        sequence.extend(value);
        let mut set = vec![0x31, u8::try_from(sequence.len()).unwrap()];
        set.extend(sequence);
        set
    };
    let good = parse_x509_pem(pem("a", None, &[]).as_bytes()).unwrap().1.contents;
    let parsed = Request::from_der(good.clone()).unwrap();
    let twice = [rdn(b"a"), rdn(b"b")].concat();
    let subject = [vec![0x30, u8::try_from(twice.len()).unwrap()], twice].concat();
    let at = good.windows(parsed.subject.len()).position(|w| w == parsed.subject).unwrap();
    let grown = subject.len() - parsed.subject.len();
    let mut der = good.clone();
    der.splice(at..at + parsed.subject.len(), subject);
    // The two sequences around it: short or 0x81 lengths.
    for head in [0, if good[1] & 0x80 == 0 { 2 } else { 2 + usize::from(good[1] & 0x7f) }] {
        let (value, place) = match good[head + 1] {
            0x81 => (usize::from(good[head + 2]), head + 2),
            0x82 => (usize::from(good[head + 2]) << 8 | usize::from(good[head + 3]), head + 3),
            short => (usize::from(short), head + 1),
        };
        let low = value & 0xff;
        assert!(
            low + grown < 0x80 || good[head + 1] > 0x80 && low + grown < 0x100,
            "test needs a longer form"
        );
        der[place] = u8::try_from(low + grown).unwrap();
    }
    assert_eq!(Request::from_der(der), Err(CsrError::CommonNames));
}

proptest! {
    /// Whatever bytes come, there is an answer.
    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(Request::from_der(bytes.clone()));
        drop(Request::parse(&bytes));
        certificates(&bytes).ok();
    }

    /// Bytes outside what is signed may have several forms (the frame is not signed); what is said may not.
    #[test]
    fn one_changed_byte_changes_nothing_that_is_said(at in 0_usize..250, flip in 1_u8..) {
        let good = parse_x509_pem(pem("system:node:n1", Some("system:nodes"), &[]).as_bytes()).unwrap().1.contents;
        let said = Request::from_der(good.clone()).unwrap();
        let mut der = good;
        let at = at % der.len();
        der[at] ^= flip;
        if let Some(read) = Request::from_der(der).ok().filter(|request| request.verify().is_ok()) {
            prop_assert_eq!(Request { der: Vec::new(), ..read }, Request { der: Vec::new(), ..said });
        }
    }
}
