use super::*;
use std::fmt::Write as _;

mod kms;

fn configured(keys: &[(&str, u8)], identity: &str) -> Encryption {
    let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
                    - resources: [secrets, widgets.example.org]\n  providers:\n"
        .to_owned();
    if identity == "first" {
        text.push_str("  - identity: {}\n");
    }
    for (name, byte) in keys {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let secret = STANDARD.encode([*byte; 32]);
        writeln!(text, "  - aesgcm: {{keys: [{{name: {name}, secret: {secret}}}]}}").unwrap();
    }
    if identity == "last" {
        text.push_str("  - identity: {}\n");
    }
    Encryption::parse(&text).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

async fn load(store: &dyn Store) -> std::result::Result<Vec<(String, Bytes)>, String> {
    use std::error::Error as _;
    let mut found = Vec::new();
    let mut stream = store.load();
    while let Some(item) = stream.next().await {
        match item {
            Ok(Loaded::Object(stored)) => found.push((stored.key.as_str().to_owned(), stored.value)),
            Ok(Loaded::At(_)) => {}
            Err(error) => return Err(error.source().map(ToString::to_string).unwrap_or_default()),
        }
    }
    found.sort();
    Ok(found)
}

const SECRET: &str = "core/secrets/ns/s";

#[tokio::test]
async fn what_is_named_is_sealed_and_the_rest_is_not() {
    let inner = Arc::new(store::Memory::new());
    let sealed = Sealed::new(inner.clone(), configured(&[("a", 1)], "last"));
    let widget = "example.org/widgets/ns/w";
    let plain = "core/configmaps/ns/c";
    for name in [SECRET, widget, plain] {
        sealed.commit(vec![Write::create(key(name), "hunter2 hunter2")]).await.unwrap();
    }
    for (name, value) in load(&*inner).await.unwrap() {
        let hidden = !value.windows(7).any(|w| w == b"hunter2");
        assert_eq!(hidden, name != plain, "{name}");
        assert_eq!(value.starts_with(b"k8s:enc:aesgcm:v1:a:"), hidden);
    }
    assert!(load(&sealed).await.unwrap().iter().all(|(_, value)| value == "hunter2 hunter2"));
    // A clash and a follower see the plain form too.
    let clash = sealed.commit(vec![Write::create(key(SECRET), "x")]).await.unwrap();
    assert!(matches!(&clash[..], [Outcome::Clash(Some(stored))] if stored.value == "hunter2 hunter2"));
    let first = sealed.follow(Revision(0)).next().await.unwrap().unwrap();
    assert_eq!(first.value.unwrap(), "hunter2 hunter2");
    assert_eq!(sealed.reseal().await.unwrap(), 0);
}

#[tokio::test]
async fn keys_rotate_and_plain_values_become_sealed() {
    let inner = Arc::new(store::Memory::new());
    inner.commit(vec![Write::create(key(SECRET), "plain")]).await.unwrap();
    for (keys, prefix) in [
        (&[("a", 1)][..], "k8s:enc:aesgcm:v1:a:"),
        (&[("b", 2), ("a", 1)][..], "k8s:enc:aesgcm:v1:b:"),
        (&[("b", 2)][..], "k8s:enc:aesgcm:v1:b:"),
    ] {
        let sealed = Sealed::new(inner.clone(), configured(keys, "last"));
        assert_eq!(load(&sealed).await.unwrap()[0].1, "plain");
        sealed.reseal().await.unwrap();
        assert_eq!(load(&sealed).await.unwrap()[0].1, "plain");
        assert_eq!(sealed.reseal().await.unwrap(), 0, "nothing is left to do");
        assert!(load(&*inner).await.unwrap()[0].1.starts_with(prefix.as_bytes()), "{prefix}");
    }
    // Back to plain: identity first.
    let sealed = Sealed::new(inner.clone(), configured(&[("b", 2)], "first"));
    load(&sealed).await.unwrap();
    assert_eq!(sealed.reseal().await.unwrap(), 1);
    assert_eq!(load(&*inner).await.unwrap()[0].1, "plain");
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_said_and_nothing_is_lost() {
    let inner = Arc::new(store::Memory::new());
    let sealed = Sealed::new(inner.clone(), configured(&[("a", 1)], "last"));
    sealed.commit(vec![Write::create(key(SECRET), "hunter2")]).await.unwrap();
    let before = load(&*inner).await.unwrap();
    let fails = async |encryption, words: &str| {
        let other = Sealed::new(inner.clone(), encryption);
        let error = load(&other).await.unwrap_err();
        assert!(error.contains(words) && error.contains("core/secrets/ns/s"), "{error}");
        assert!(!error.contains("hunter2"));
        assert_eq!(load(&*inner).await.unwrap(), before);
    };
    fails(configured(&[("b", 1)], "last"), "encrypted with the key \"a\"").await;
    fails(configured(&[("a", 2)], "last"), "does not open with the key \"a\"").await;
    fails(Encryption::default(), "encrypted with the key \"a\"").await;

    // One object's ciphertext in another's place, a changed byte, a cut value, another form.
    let (_, value) = &before[0];
    let mut flipped = value.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    for (place, value) in [
        ("core/secrets/ns/other", value.clone()),
        (SECRET, Bytes::from(flipped)),
        (SECRET, value.slice(..value.len() - 20)),
        (SECRET, Bytes::from_static(b"k8s:enc:kms:v2:x:yz")),
        (SECRET, Bytes::from_static(b"k8s:enc:aesgcm:v1:")),
    ] {
        let inner = Arc::new(store::Memory::new());
        inner.commit(vec![Write::create(key(place), value)]).await.unwrap();
        let sealed = Sealed::new(inner, configured(&[("a", 1)], "last"));
        assert!(load(&sealed).await.is_err(), "{place}");
    }
    // Plain where only sealed is allowed: somebody wrote past the server.
    let inner = Arc::new(store::Memory::new());
    inner.commit(vec![Write::create(key(SECRET), "planted")]).await.unwrap();
    let error = load(&Sealed::new(inner, configured(&[("a", 1)], ""))).await.unwrap_err();
    assert!(error.contains("is not encrypted"), "{error}");
}

#[test]
fn configurations_are_checked_without_showing_secrets() {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    let secret = "c2VjcmV0IGlzIHNlY3VyZQ=="; // 16 bytes
    let rule = |resources: &str, provider: &str| {
        format!("{head}resources:\n- resources: {resources}\n  providers:\n  - {provider}\n")
    };
    let keyed = |form: &str, length: usize| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        format!("{form}: {{keys: [{{name: k, secret: {}}}]}}", STANDARD.encode(vec![1; length]))
    };
    let aes =
        |name: &str, secret: &str| format!("aesgcm: {{keys: [{{name: '{name}', secret: '{secret}'}}]}}");
    for (text, wrong) in [
        (rule("[secrets]", &keyed("secretbox", 32)), None),
        (rule("[secrets]", &keyed("aescbc", 24)), None),
        (rule("[secrets]", &keyed("secretbox", 16)), Some("the secret must be base64 of 32 bytes")),
        (rule("[secrets]", &keyed("aescbc", 8)), Some("of 16, 24 or 32 bytes")),
        (
            rule("[secrets]", &format!("{{{}, {}}}", keyed("aescbc", 16), keyed("aesgcm", 16))),
            Some("exactly one"),
        ),
        (rule("[secrets, '*.apps', '*.', '*.*', a.b.c]", &aes("k", secret)), None),
        (rule("['*']", &aes("k", secret)), Some("is no resource")),
        (rule("['a.*']", &aes("k", secret)), Some("is no resource")),
        (rule("[]", &aes("k", secret)), Some("names no resource")),
        (rule("[secrets]", &aes("a:b", secret)), Some("without a colon")),
        (rule("[secrets]", &aes("k", "c2hvcnQ=")), Some("16 or 32 bytes")),
        (rule("[secrets]", &aes("k", "topsecret!")), Some("16 or 32 bytes")),
        (
            rule("[secrets]", "kms: {apiVersion: v2, name: x, endpoint: 'unix:///run/x.sock', timeout: 1s}"),
            None,
        ),
        (rule("[secrets]", "kms: {name: x}"), Some("missing field `endpoint`")),
        (rule("[secrets]", "kms: {name: x, endpoint: 'unix:///x'}"), Some("apiVersion must be v2")),
        (
            rule("[secrets]", "kms: {apiVersion: v2, name: 'a:b', endpoint: 'unix:///x'}"),
            Some("without a colon"),
        ),
        (rule("[secrets]", "kms: {apiVersion: v2, name: x, endpoint: 'tcp://x'}"), Some("must be unix://")),
        (
            rule("[secrets]", "kms: {apiVersion: v2, name: x, endpoint: 'unix:///x', timeout: 0s}"),
            Some("above zero"),
        ),
        (
            rule("[secrets]", "kms: {apiVersion: v2, name: x, endpoint: 'unix:///x', cachesize: 9}"),
            Some("of v1 only"),
        ),
        (
            rule(
                "[secrets]",
                &format!("{{kms: {{apiVersion: v2, name: x, endpoint: 'unix:///x'}}, {}}}", aes("k", secret)),
            ),
            Some("exactly one"),
        ),
        (
            rule(
                "[secrets]",
                "kms: {apiVersion: v2, name: x, endpoint: 'unix:///x'}\n  - kms: {apiVersion: v2, name: x, endpoint: 'unix:///y'}",
            ),
            Some("used twice"),
        ),
        (rule("[secrets]", "{}"), Some("exactly one")),
        (rule("[secrets]", "aesgcm: {keys: []}"), Some("exactly one")),
        (rule("[secrets]", "identity: {x: 1}"), Some("unknown field")),
        ("kind: Pod\napiVersion: v1\n".to_owned(), Some("want apiserver.config.k8s.io/v1")),
        ("{".to_owned(), Some("not valid YAML")),
    ] {
        match (Encryption::parse(&text), wrong) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => {
                let error = error.to_string();
                assert!(error.contains(words), "{error}\n{text}");
                assert!(!error.contains("topsecret"), "{error}");
            }
            (Ok(_), Some(words)) => panic!("accepted, want {words}: {text}"),
            (Err(error), None) => panic!("{error}: {text}"),
        }
    }
    let made = generate(&meta::Seeded::new(1)).unwrap();
    assert_ne!(made, generate(&meta::Seeded::new(1)).unwrap(), "the secret is not from the seed");
    assert!(Encryption::parse(&made).is_ok());
}

#[test]
fn every_form_opens_what_it_sealed_and_nothing_else() {
    let random = SystemRandom::new();
    let (here, there) = (key(SECRET), key("core/secrets/ns/other"));
    for (form, length) in [
        (Form::AesGcm, 16),
        (Form::AesGcm, 32),
        (Form::AesCbc, 16),
        (Form::AesCbc, 24),
        (Form::AesCbc, 32),
        (Form::Secretbox, 32),
    ] {
        let made = SealingKey::new(form, "k", &vec![1; length]).unwrap();
        let other = SealingKey::new(form, "k", &vec![2; length]).unwrap();
        for value in [&b""[..], b"x", b"sixteen bytes!!!", &[7; 1000]] {
            let sealed = made.seal(&here, value, &random).unwrap();
            assert_ne!(sealed, made.seal(&here, value, &random).unwrap(), "a nonce is used once");
            let head = [form.mark(), b"k:"].concat();
            let body = sealed.strip_prefix(&head[..]).unwrap();
            assert_eq!(made.open(&here, body).as_deref(), Some(value), "{form:?}");
            assert_ne!(other.open(&here, body).as_deref(), Some(value), "{form:?}");
            assert_eq!(made.open(&there, body).is_some(), form != Form::AesGcm, "{form:?}");
            if form != Form::AesCbc {
                let mut flipped = body.to_vec();
                *flipped.last_mut().unwrap() ^= 1;
                assert!(made.open(&here, &flipped).is_none(), "{form:?}");
            }
            for cut in [0, 5, 16, 24] {
                assert_ne!(
                    made.open(&here, &body[..cut.min(body.len() - 1)]).as_deref(),
                    Some(value),
                    "{form:?}"
                );
            }
        }
    }
    // As `openssl enc -aes-N-cbc -K 0101.. -iv 0202..` writes it.
    for (length, hex) in [
        (16, "240a58635a141f4b2fa33f15c75cf441"),
        (24, "103cb4017baf56769b2e78cc8b612eef"),
        (32, "977113388480786a106a5367ea0670eb"),
    ] {
        let made = SealingKey::new(Form::AesCbc, "k", &vec![1; length]).unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        assert_eq!(made.open(&here, &[&[2; 16][..], &bytes].concat()).unwrap(), "hunter2");
    }
}

#[tokio::test]
async fn a_value_of_another_form_is_sealed_anew() {
    let inner = Arc::new(store::Memory::new());
    let with = |form: &str| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let secret = |byte: u8| STANDARD.encode([byte; 32]);
        let entry =
            |form: &str, byte| format!("  - {form}: {{keys: [{{name: k, secret: {}}}]}}\n", secret(byte));
        let rest: String =
            ["aesgcm", "aescbc", "secretbox"].iter().filter(|f| **f != form).map(|f| entry(f, 1)).collect();
        Encryption::parse(&format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: \
             [secrets]\n  providers:\n{}{rest}",
            entry(form, 1)
        ))
        .unwrap()
    };
    let first = Sealed::new(inner.clone(), with("secretbox"));
    first.commit(vec![Write::create(key(SECRET), "hunter2")]).await.unwrap();
    for form in ["aescbc", "aesgcm", "secretbox"] {
        let sealed = Sealed::new(inner.clone(), with(form));
        assert_eq!(load(&sealed).await.unwrap()[0].1, "hunter2");
        assert_eq!(sealed.reseal().await.unwrap(), 1);
        let mark = format!("k8s:enc:{form}:v1:k:");
        assert!(load(&*inner).await.unwrap()[0].1.starts_with(mark.as_bytes()), "{mark}");
    }
}

/// A memory store behind one key for everything.
struct Home(Arc<store::Memory>, String);

impl store::conformance::Home for Home {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Store>>> {
        let sealed = Sealed::new(self.0.clone(), Encryption::parse(&self.1).unwrap());
        std::future::ready(Ok(Arc::new(sealed) as Arc<dyn Store>)).boxed()
    }
}

fn home() -> Home {
    let text = generate(&meta::Seeded::new(1)).unwrap().replace("[secrets]", "['*.*']");
    Home(Arc::new(store::Memory::new()), text)
}

store::store_conformance!(home());
