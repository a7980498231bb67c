//! PostgreSQL and Redis behind TLS, with certificates that the tests make, password files and an ACL user.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::{path::Path, time::Duration};

use common::{Postgres, Redis, open, postgres, private, run};
use futures::StreamExt;
use meta::Revision;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use store::{Key, Store, Write};
use store_postgres::Config;

fn key(name: &str) -> Key {
    Key::parse(&format!("core/configmaps/default/{name}")).unwrap()
}

/// An authority in a directory, and what it has signed.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn make(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        private(&directory.join(format!("{name}.crt")), &certificate.pem());
        Self(Issuer::new(params, key))
    }

    /// `NAME.crt` and `NAME.key`, for 127.0.0.1 where it is a server.
    fn sign(&self, directory: &Path, name: &str, server: bool) {
        let names = if server { vec!["127.0.0.1".to_owned()] } else { Vec::new() };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        private(&directory.join(format!("{name}.crt")), &certificate.pem());
        private(&directory.join(format!("{name}.key")), &key.serialize_pem());
    }
}

fn certificates(directory: &Path) {
    let ours = Authority::make(directory, "ours");
    Authority::make(directory, "other");
    ours.sign(directory, "server", true);
    ours.sign(directory, "admin", false);
}

/// Fails with a message that has this in it.
fn refused(config: Config, part: &str) {
    let fault = run(open(config.with_patience(Duration::from_millis(300)))).unwrap_err().to_string();
    assert!(fault.contains(part), "{fault}");
    assert!(!fault.contains("hunter2"), "{fault}");
}

#[test]
fn postgresql_behind_tls_with_a_client_certificate_and_a_password_file() {
    let mut files = std::path::PathBuf::new();
    let server = Postgres::with(true, |directory| {
        certificates(directory);
        directory.clone_into(&mut files);
        let at = |name: &str| directory.join(name).display().to_string();
        // Only by TLS, with a certificate of the user, and the password as well.
        let rules = "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n";
        private(&directory.join("hba"), rules);
        vec![
            "ssl=on".into(),
            format!("ssl_cert_file={}", at("server.crt")),
            format!("ssl_key_file={}", at("server.key")),
            format!("ssl_ca_file={}", at("ours.crt")),
            format!("hba_file={}", at("hba")),
        ]
    });
    let at = |name: &str| files.join(name).display().to_string();
    let url = |roots: &str, rest: &str| {
        format!(
            "postgres://admin@127.0.0.1:{}/postgres?sslmode=verify-full&sslrootcert={}{rest}",
            server.port,
            at(roots)
        )
    };
    let certificate = format!("&sslcert={}&sslkey={}", at("admin.crt"), at("admin.key"));
    let secret = format!("{certificate}&passwordFile={}", at("secret"));
    let parse = |url: String| Config::parse(&url).unwrap();
    run(async {
        let store = open(parse(url("ours.crt", &secret))).await.unwrap();
        store.commit(vec![Write::create(key("a"), "1")]).await.unwrap();
        let change = store.follow(Revision(0)).next().await.unwrap().unwrap();
        assert_eq!((change.revision, change.key), (Revision(1), key("a")));
    });
    refused(parse(url("other.crt", &secret)), "certificate");
    refused(parse(url("ours.crt", &certificate)), "password");
    refused(parse(url("ours.crt", &format!("&passwordFile={}", at("secret")))), "certificate");
    let named = url("ours.crt", &secret).replace("127.0.0.1", "localhost");
    refused(parse(named), "certificate");
    let plain = format!(
        "postgres://admin@127.0.0.1:{}/postgres?sslmode=disable&passwordFile={}",
        server.port,
        at("secret")
    );
    refused(parse(plain), "no encryption");
    std::fs::write(files.join("wrong"), "hunter3\n").unwrap();
    let wrong = format!("{certificate}&passwordFile={}", at("wrong"));
    refused(parse(url("ours.crt", &wrong)), "check user, password and database");
}

#[test]
fn redis_behind_tls_with_an_acl_user_who_may_no_more_than_is_needed() {
    let mut files = std::path::PathBuf::new();
    let redis = Redis::with(|directory, port| {
        certificates(directory);
        directory.clone_into(&mut files);
        private(&directory.join("redis-password"), "hunter2\n");
        let at = |name: &str| directory.join(name).display().to_string();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut settings = words(&format!("--port 0 --tls-port {port} --tls-auth-clients no"));
        settings.extend(words(&format!("--tls-cert-file {}", at("server.crt"))));
        settings.extend(words(&format!(
            "--tls-key-file {} --tls-ca-cert-file {}",
            at("server.key"),
            at("ours.crt")
        )));
        // As `examples/ha` says: this user, on these keys, with these commands.
        let user = "--user default off --user keelson on >hunter2 ~keelson:* -@all +@connection +@stream";
        settings.extend(words(user));
        // Who may only read.
        settings.extend(words("--user reader on >hunter2 ~keelson:* -@all +@connection +xlen +xread +xinfo"));
        settings
    });
    let at = |name: &str| files.join(name).display().to_string();
    let events = |user: &str, roots: &str| {
        format!(
            "rediss://{user}@127.0.0.1:{}?passwordFile={}&sslrootcert={}",
            redis.port,
            at("redis-password"),
            at(roots)
        )
    };
    let database = postgres().database();
    let config =
        |events: &str| Config::parse(&postgres().url(&database)).unwrap().with_events(events).unwrap();
    run(async {
        let (one, two) = (
            open(config(&events("keelson", "ours.crt"))).await.unwrap(),
            open(config(&events("keelson", "ours.crt"))).await.unwrap(),
        );
        let mut changes = two.follow(Revision(0));
        // Until something has come by Redis: the first may be read from the log.
        for number in 1.. {
            one.commit(vec![Write::put(key("a"), number.to_string())]).await.unwrap();
            assert_eq!(changes.next().await.unwrap().unwrap().revision, Revision(number));
            if two.statistics().bus > 0 {
                break;
            }
        }
    });
    refused(config(&events("somebody", "ours.crt")), "Redis at 127.0.0.1");
    refused(config(&events("reader", "ours.crt")), "xadd");
    run(async {
        // Nobody can tell who answers there, so nothing is sent; the log does the work, as while Redis is away.
        let store = open(config(&events("keelson", "other.crt"))).await.unwrap();
        store.commit(vec![Write::put(key("b"), "1")]).await.unwrap();
        assert_eq!(store.statistics().bus, 0);
    });
}
