use super::*;
use crate::testing::Objects;

const NOW: &str = "2026-01-01T00:00:00Z";

fn tokens() -> Tokens {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    Tokens::new(Signer::from_pem(&key).unwrap(), "https://kubernetes.default.svc")
}

fn core(plural: &str) -> GroupResource {
    GroupResource::new("", plural)
}

fn objects() -> Objects {
    Objects::default()
        .with(&core("serviceaccounts"), json!({"metadata": {"name": "bot", "namespace": "dev", "uid": "s1"}}))
        .with(&core("pods"), json!({"metadata": {"name": "p", "namespace": "dev", "uid": "p1"}}))
}

fn grant() -> Grant {
    Grant {
        namespace: "dev".into(),
        account: "bot".into(),
        account_uid: "s1".into(),
        seconds: 600,
        pod: Some(Bound { name: "p".into(), uid: "p1".into() }),
        id: "j".into(),
        ..Grant::default()
    }
}

fn verify(tokens: &Tokens, token: &str, after_seconds: i64, view: &Objects) -> Result<Accepted, TokenError> {
    let now: Timestamp = NOW.parse().unwrap();
    let now = now.checked_add(jiff::SignedDuration::from_secs(after_seconds)).unwrap();
    tokens.verify(token, &[], now, view)
}

#[test]
fn names_its_bearer() {
    let (tokens, view) = (tokens(), objects());
    let token = tokens.issue(&grant(), NOW.parse().unwrap()).unwrap();
    assert!(tokens.issued(&token));
    assert!(!tokens.issued("a.b.c"));
    let Accepted { user, audiences } = verify(&tokens, &token, 5, &view).unwrap();
    assert_eq!(user.name, "system:serviceaccount:dev:bot");
    assert_eq!(user.uid, "s1");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:dev", "system:authenticated"]);
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=j"]);
    assert_eq!(audiences, ["https://kubernetes.default.svc"]);
}

#[test]
fn stops_working() {
    let (tokens, view) = (tokens(), objects());
    let now: Timestamp = NOW.parse().unwrap();
    let token = tokens.issue(&grant(), now).unwrap();
    assert_eq!(verify(&tokens, &token, 600, &view), Err(TokenError::Time));
    assert_eq!(verify(&tokens, &token, -1, &view), Err(TokenError::Time));
    let foreign = Grant { audiences: vec!["vault".into()], ..grant() };
    let foreign = tokens.issue(&foreign, now).unwrap();
    assert!(matches!(verify(&tokens, &foreign, 0, &view), Err(TokenError::Audience { .. })));
    assert!(tokens.verify(&foreign, &["vault".into()], now, &view).is_ok());
    let other = Grant { account_uid: "s2".into(), ..grant() };
    let other = tokens.issue(&other, now).unwrap();
    assert!(matches!(
        verify(&tokens, &other, 0, &view),
        Err(TokenError::Unbound { kind: "serviceaccount", .. })
    ));
    view.remove(&core("pods"), "dev", "p");
    assert!(matches!(verify(&tokens, &token, 0, &view), Err(TokenError::Unbound { kind: "pod", .. })));
}

#[test]
fn outlives_the_beginning_of_a_deletion_only_shortly() {
    let tokens = tokens();
    let going = json!({"metadata": {"name": "p", "namespace": "dev", "uid": "p1", "deletionTimestamp": NOW}});
    let view = objects().with(&core("pods"), going);
    let token = tokens.issue(&grant(), NOW.parse().unwrap()).unwrap();
    assert!(verify(&tokens, &token, 60, &view).is_ok());
    assert!(verify(&tokens, &token, 61, &view).is_err());
}

#[test]
fn requests_are_checked() {
    use meta::Object;
    use resource::{Act as _, Acted, Attributes, Context, Operation, User};
    let view = objects().with(
        &core("pods"),
        json!({"metadata": {"name": "p", "namespace": "dev", "uid": "p1"}, "spec": {"serviceAccountName": "bot"}}),
    );
    let request = TokenRequest(Arc::new(tokens()));
    let attributes = Attributes {
        user: User::default(),
        operation: Operation::Create,
        resource: core("serviceaccounts"),
        version: "v1".into(),
        kind: "ServiceAccount".into(),
        subresource: "token".into(),
        namespace: "dev".into(),
        name: "bot".into(),
        dry_run: false,
        options: json!(null),
        notes: std::sync::Arc::default(),
        kind_version: meta::GroupVersion::new("", "v1"),
    };
    let clock = meta::Fixed::new(NOW.parse().unwrap());
    let random = meta::Seeded::new(1);
    let cx = Context { attributes: &attributes, view: &view, clock: &clock, random: &random };
    let account = view.get(&core("serviceaccounts"), "dev", "bot").unwrap().object().unwrap();
    let ask = |spec: Value| {
        let body = Object::from_value(json!({ "spec": spec })).unwrap();
        match request.act(&cx, Some(&account), &body) {
            Ok(Acted::Answer(answer)) => Ok(answer),
            Ok(other) => panic!("{other:?}"),
            Err(status) => Err(status.code),
        }
    };
    let pod = |name: &str, uid: &str| json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
    let answer = ask(json!({"expirationSeconds": 600, "boundObjectRef": pod("p", "p1")})).unwrap();
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-01T00:10:00Z");
    let token = answer["status"]["token"].as_str().unwrap();
    assert!(request.0.verify(token, &[], NOW.parse().unwrap(), &view).is_ok());
    assert_eq!(ask(json!({"expirationSeconds": 5})).unwrap_err(), 422);
    assert_eq!(ask(json!({"boundObjectRef": pod("absent", "")})).unwrap_err(), 404);
    assert_eq!(ask(json!({"boundObjectRef": pod("p", "p2")})).unwrap_err(), 409);
    assert_eq!(ask(json!({"boundObjectRef": {"kind": "Job", "name": "j"}})).unwrap_err(), 400);
}

/// The Secret's labels, whether its token is good, and whether its use is told of.
#[test]
fn uses_of_secrets_tokens_are_told_of_once_a_day() {
    let check = |kind: &str, labels: Value, good: bool, told: bool| {
        let (used, mut uses) = legacy::uses();
        let tokens = tokens().telling(used);
        let metadata = json!({"name": "s", "namespace": "dev", "uid": "x1", "labels": labels});
        let view = objects().with(&core("secrets"), json!({"metadata": metadata, "type": kind}));
        let secret = Some(Bound { name: "s".into(), uid: "x1".into() });
        let grant = Grant { pod: None, secret, ..grant() };
        let token = tokens.issue(&grant, NOW.parse().unwrap()).unwrap();
        assert_eq!(verify(&tokens, &token, 5, &view).is_ok(), good, "{labels}");
        assert_eq!(uses.try_recv().ok(), told.then(|| ObjectKey::new("dev", "s")), "{kind} {labels}");
    };
    let (kind, last) = ("kubernetes.io/service-account-token", "kubernetes.io/legacy-token-last-used");
    check(kind, json!({}), true, true);
    check(kind, json!({last: "2025-12-31"}), true, true);
    check(kind, json!({last: "2026-01-01"}), true, false);
    check("Opaque", json!({}), true, false);
    let invalid = json!({"kubernetes.io/legacy-token-invalid-since": "2025-12-01"});
    check(kind, invalid.clone(), false, false);
    check("Opaque", invalid, true, false);
}

#[tokio::test]
async fn a_use_is_written_into_the_secret() {
    use crate::rest::{Caller, Duplicates, Parts, Rest};
    let store = store::Memory::new();
    let registry = Arc::new(crate::Registry::new());
    registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
    let cache = Arc::new(crate::Cache::load(&store, &registry).await.unwrap());
    let (rest, _task) = Rest::start(Parts {
        store: Arc::new(store),
        cache,
        registry,
        admission: Vec::new(),
        clock: Arc::new(meta::Fixed::new(NOW.parse().unwrap())),
        random: Arc::new(meta::Seeded::new(1)),
    });
    let secrets = rest.registry().resolve("", "v1", "secrets").unwrap();
    let object = meta::Object::from_value(json!({"metadata": {"name": "s", "namespace": "dev"}})).unwrap();
    rest.create(&Caller::server(), &secrets, "dev", object, Duplicates::default()).await.unwrap();
    let (used, uses) = legacy::uses();
    for name in ["s", "s", "gone"] {
        used.send(ObjectKey::new("dev", name)).await.unwrap();
    }
    drop(used);
    legacy::run(rest.clone(), uses, tokio_util::sync::CancellationToken::new()).await;
    let get = |plural: &str, namespace: &str, name: &str| {
        rest.cache().kind(&core(plural)).get(&ObjectKey::new(namespace, name)).unwrap()
    };
    let secret = get("secrets", "dev", "s");
    assert_eq!(secret.header.labels.get("kubernetes.io/legacy-token-last-used"), Some("2026-01-01"));
    let name = "kube-apiserver-legacy-service-account-token-tracking";
    let since = get("configmaps", "kube-system", name).object().unwrap();
    assert_eq!(since.str(&["data", "since"]), Some("2026-01-01"));
}
