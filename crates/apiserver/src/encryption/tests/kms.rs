//! A store whose keys a plugin keeps.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use prost::Message as _;
use tokio::net::UnixListener;

use super::*;
use crate::{
    encryption::kms::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusResponse},
    testing_grpc::{self, Answering},
};

/// How a plugin behaves.
#[derive(Clone)]
struct Manners {
    key: &'static str,
    version: &'static str,
    health: &'static str,
    /// The key it says it encrypted with, if that is another.
    other_key: Option<&'static str>,
    encrypts: bool,
    annotation: &'static str,
    /// Answers nothing but this code.
    fails: Option<&'static str>,
}

const GOOD: Manners = Manners {
    key: "k1",
    version: "v2",
    health: "ok",
    other_key: None,
    encrypts: true,
    annotation: "version.example.com",
    fails: None,
};

/// A plugin that adds its key's name to what it encrypts and turns every bit around.
struct Plugin {
    directory: tempfile::TempDir,
    manners: Arc<Mutex<Manners>>,
    decrypted: Arc<AtomicUsize>,
    /// Calls that were answered with an error.
    refused: Arc<AtomicUsize>,
}

impl Plugin {
    fn start(manners: Manners) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("kms.sock")).unwrap();
        let (decrypted, refused) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let manners = Arc::new(Mutex::new(manners));
        let answering: Answering = {
            let (manners, decrypted, refused) = (manners.clone(), decrypted.clone(), refused.clone());
            Arc::new(move |path, message| {
                let answered = answer(&manners.lock().unwrap(), &decrypted, path, message);
                refused.fetch_add(usize::from(answered.is_err()), SeqCst);
                answered
            })
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                testing_grpc::serve(stream, answering.clone());
            }
        });
        Self { directory, manners, decrypted, refused }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("kms.sock")
    }

    fn behave(&self, manners: Manners) {
        *self.manners.lock().unwrap() = manners;
    }

    fn sealed(&self, inner: &Arc<store::Memory>) -> Arc<Sealed> {
        Arc::new(Sealed::new(inner.clone(), configured(&self.socket(), "secrets")))
    }
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

fn answer(
    manners: &Manners,
    decrypted: &AtomicUsize,
    path: &str,
    message: &[u8],
) -> std::result::Result<Vec<u8>, &'static str> {
    if let Some(code) = manners.fails {
        return Err(code);
    }
    let annotations = || [(manners.annotation.to_owned(), b"1".to_vec())].into();
    match path {
        "/v2.KeyManagementService/Status" => Ok(StatusResponse {
            version: manners.version.to_owned(),
            healthz: manners.health.to_owned(),
            key_id: manners.key.to_owned(),
        }
        .encode_to_vec()),
        "/v2.KeyManagementService/Encrypt" => {
            let EncryptRequest { plaintext, uid } = EncryptRequest::decode(message).unwrap();
            assert_eq!((plaintext.len(), uid.len()), (32, 32));
            let hidden = [manners.key.as_bytes(), &turned(&plaintext)].concat();
            Ok(EncryptResponse {
                ciphertext: if manners.encrypts { hidden } else { plaintext },
                key_id: manners.other_key.unwrap_or(manners.key).to_owned(),
                annotations: annotations(),
            }
            .encode_to_vec())
        }
        "/v2.KeyManagementService/Decrypt" => {
            let DecryptRequest { ciphertext, uid: _, key_id, annotations: given } =
                DecryptRequest::decode(message).unwrap();
            assert_eq!(given, annotations());
            decrypted.fetch_add(1, SeqCst);
            let hidden = ciphertext.strip_prefix(key_id.as_bytes()).ok_or("3")?;
            Ok(DecryptResponse { plaintext: turned(hidden) }.encode_to_vec())
        }
        other => panic!("{other}"),
    }
}

fn configured(socket: &Path, resources: &str) -> Encryption {
    Encryption::parse(&format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: ['{resources}']\n  \
         providers:\n  - kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}'}}\n  - identity: {{}}\n",
        socket.display()
    ))
    .unwrap()
}

#[tokio::test]
async fn a_plugin_keeps_the_keys_and_changes_them() {
    let plugin = Plugin::start(GOOD);
    let inner = Arc::new(store::Memory::new());
    let first = plugin.sealed(&inner);
    first.begin().await.unwrap();
    for n in 0..20 {
        let name = key(&format!("core/secrets/ns/s{n}"));
        first.commit(vec![Write::create(name, "hunter2 hunter2")]).await.unwrap();
    }
    let kept = load(&*inner).await.unwrap();
    for (_, value) in &kept {
        assert!(value.starts_with(b"k8s:enc:kms:v2:vault:") && !value.windows(7).any(|w| w == b"hunter2"));
    }
    let clash = first.commit(vec![Write::create(key("core/secrets/ns/s1"), "x")]).await.unwrap();
    assert!(matches!(&clash[..], [Outcome::Clash(Some(stored))] if stored.value == "hunter2 hunter2"));
    assert_eq!(plugin.decrypted.load(SeqCst), 0, "its own seed is known");

    // The next process asks for the seed once, and has one of its own.
    let second = plugin.sealed(&inner);
    second.begin().await.unwrap();
    let all = load(&*second).await.unwrap();
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(|(_, value)| value == "hunter2 hunter2"));
    assert_eq!(plugin.decrypted.load(SeqCst), 1);
    assert_eq!(second.reseal().await.unwrap(), 0, "the same key of the plugin is no reason to write");

    // A new key: what is written from now on is under it, and what was opens.
    plugin.behave(Manners { key: "k2", ..GOOD });
    let (kms, writes) = second.encryption.plugins().next().unwrap();
    assert!(writes);
    kms.ask().await;
    second.commit(vec![Write::create(key("core/secrets/ns/new"), "hunter2 hunter2")]).await.unwrap();
    assert_eq!(load(&*second).await.unwrap().len(), 21);
    assert_eq!(second.reseal().await.unwrap(), 20);
    let third = plugin.sealed(&inner);
    third.begin().await.unwrap();
    load(&*third).await.unwrap();
    assert_eq!(third.reseal().await.unwrap(), 0);

    // Moved, changed, and what is no envelope.
    for (place, value) in [
        ("core/secrets/ns/other", kept[0].1.clone()),
        (SECRET, Bytes::from([&kept[0].1[..kept[0].1.len() - 1], b"x"].concat())),
        (SECRET, Bytes::from_static(b"k8s:enc:kms:v2:vault:xyz")),
        (SECRET, Bytes::from_static(b"k8s:enc:kms:v2:vault:")),
    ] {
        let inner = Arc::new(store::Memory::new());
        inner.commit(vec![Write::create(key(place), value)]).await.unwrap();
        let error = load(&*plugin.sealed(&inner)).await.unwrap_err();
        assert!(error.contains(place) && error.contains("the KMS plugin \"vault\""), "{error}");
    }
}

#[tokio::test]
async fn without_its_plugin_nothing_is_sealed_and_nothing_else_suffers() {
    let plugin = Plugin::start(GOOD);
    let inner = Arc::new(store::Memory::new());
    let sealed = plugin.sealed(&inner);
    sealed.begin().await.unwrap();
    sealed.commit(vec![Write::create(key(SECRET), "hunter2")]).await.unwrap();
    let (kms, _) = sealed.encryption.plugins().next().unwrap();

    // For a while the key is good as it is, and readiness tells.
    plugin.behave(Manners { fails: Some("14"), ..GOOD });
    kms.ask().await;
    assert!(sealed.healthy().unwrap_err().contains("gRPC status 14"));
    sealed.commit(vec![Write::create(key("core/secrets/ns/b"), "hunter2")]).await.unwrap();

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(181)).await;
    tokio::time::resume();
    let batch = ["core/configmaps/ns/a", "core/secrets/ns/c", "core/configmaps/ns/d"];
    let outcomes =
        sealed.commit(batch.iter().map(|name| Write::create(key(name), "x")).collect()).await.unwrap();
    let [Outcome::Done(_), Outcome::Refused { why }, Outcome::Done(_)] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert!(
        why.contains("core/secrets/ns/c cannot be encrypted: the plugin has not confirmed its key"),
        "{why}"
    );
    assert_eq!(load(&*sealed).await.unwrap().len(), 4, "what is there is read as before");

    plugin.behave(GOOD);
    kms.ask().await;
    sealed.healthy().unwrap();
    sealed.commit(vec![Write::create(key("core/secrets/ns/c"), "x")]).await.unwrap();

    // A process that never saw the seed cannot read, and says so.
    plugin.behave(Manners { fails: Some("14"), ..GOOD });
    let error = load(&*plugin.sealed(&inner)).await.unwrap_err();
    assert!(error.contains("gRPC status 14"), "{error}");
}

/// Another server's seed is asked for when its first value comes, and the plugin may be away in that moment.
#[tokio::test]
async fn who_follows_waits_for_the_plugin() {
    let plugin = Plugin::start(GOOD);
    let inner = Arc::new(store::Memory::new());
    let (one, other) = (plugin.sealed(&inner), plugin.sealed(&inner));
    one.begin().await.unwrap();
    other.begin().await.unwrap();
    plugin.behave(Manners { fails: Some("14"), ..GOOD });
    one.commit(vec![Write::create(key(SECRET), "hunter2")]).await.unwrap();
    let mut changes = other.follow(Revision(0));
    let first = async { changes.next().await.unwrap().unwrap() };
    let back = async {
        while plugin.refused.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        plugin.behave(GOOD);
    };
    let (first, ()) = tokio::join!(first, back);
    assert_eq!(first.value.unwrap(), "hunter2");
}

#[tokio::test]
async fn plugins_that_cannot_be_trusted_give_no_key() {
    let plugin = Plugin::start(GOOD);
    for (manners, words) in [
        (Manners { version: "v1", ..GOOD }, "speaks version \"v1\""),
        (Manners { health: "sealed", ..GOOD }, "not healthy: \"sealed\""),
        (Manners { key: "", ..GOOD }, "names no key"),
        (Manners { other_key: Some("k0"), ..GOOD }, "encrypted with the key \"k0\""),
        (Manners { encrypts: false, ..GOOD }, "did not encrypt"),
        (Manners { annotation: "unqualified", ..GOOD }, "fully qualified"),
    ] {
        plugin.behave(manners);
        let sealed = plugin.sealed(&Arc::new(store::Memory::new()));
        let (kms, _) = sealed.encryption.plugins().next().unwrap();
        kms.ask().await;
        let problem = sealed.healthy().unwrap_err();
        assert!(problem.contains(words), "{problem}");
        assert!(kms.usable().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_does_not_start_without_the_plugin_that_writes() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let sealed = Sealed::new(Arc::new(store::Memory::new()), configured(&socket, "secrets"));
    let began = Instant::now();
    let error = sealed.begin().await.unwrap_err().to_string();
    assert!(error.contains("\"vault\" gives no key") && error.contains("kms.sock"), "{error}");
    assert!(began.elapsed() >= PLUGIN_MAX && began.elapsed() < PLUGIN_MAX * 2);
}

/// A memory store whose keys a plugin keeps, from when it is first opened.
#[derive(Default)]
struct Home(Arc<store::Memory>, tokio::sync::OnceCell<Plugin>);

impl store::conformance::Home for Home {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Store>>> {
        async {
            let plugin = self.1.get_or_init(async || Plugin::start(GOOD)).await;
            let sealed = Sealed::new(self.0.clone(), configured(&plugin.socket(), "*.*"));
            sealed.begin().await.unwrap();
            Ok(Arc::new(sealed) as Arc<dyn Store>)
        }
        .boxed()
    }
}

store::store_conformance!(Home::default());
