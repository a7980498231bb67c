use super::*;
use proptest::prelude::*;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::json;
use std::sync::Mutex as StdMutex;

const ISSUER: &str = "https://issuer.example";
const NOW: i64 = 1_800_000_000;

/// An issuer whose keys a test changes.
#[derive(Default)]
struct Fake {
    keys: StdMutex<Vec<Value>>,
    fetches: StdMutex<usize>,
}

impl KeySource for Fake {
    fn fetch(&self) -> BoxFuture<'_, Result<Value, String>> {
        *self.fetches.lock().unwrap() += 1;
        let keys = self.keys.lock().unwrap().clone();
        let answer = if keys.is_empty() { Err("down".to_owned()) } else { Ok(json!({ "keys": keys })) };
        Box::pin(std::future::ready(answer))
    }
}

struct Signer(EcdsaKeyPair, &'static str);

impl Signer {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap(), id)
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "kid": self.1, "use": "sig",
            "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..]),
        })
    }

    fn token(&self, header: Value, claims: &Value) -> String {
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    }

    fn good(&self, change: impl Fn(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        self.token(json!({"alg": "ES256", "kid": self.1}), &claims)
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "keelson", "sub": "ann", "exp": NOW + 60, "groups": ["dev", "system:masters"]})
}

fn options() -> OidcOptions {
    OidcOptions {
        issuer: ISSUER.to_owned(),
        audiences: vec!["keelson".to_owned()],
        algorithms: vec![Algorithm::Rs256, Algorithm::Es256],
        mapping: Mapping {
            username: Source::Claim { name: "sub".to_owned(), prefix: "oidc:".to_owned() },
            groups: Some(Source::Claim { name: "groups".to_owned(), prefix: String::new() }),
            uid: None,
            extra: Vec::new(),
            required_claims: Vec::new(),
            claim_rules: Vec::new(),
            user_rules: Vec::new(),
            reserves_system: true,
        },
    }
}

struct World {
    oidc: Oidc,
    source: Arc<Fake>,
    clock: Arc<meta::Fixed>,
}

fn world(options: OidcOptions, keys: Vec<Value>) -> World {
    let source = Arc::new(Fake { keys: StdMutex::new(keys), ..Fake::default() });
    let clock = Arc::new(meta::Fixed::new(Timestamp::from_second(NOW).unwrap()));
    World { oidc: Oidc::new(options, source.clone(), clock.clone()), source, clock }
}

#[tokio::test]
async fn a_good_token_is_a_user_without_the_clusters_own_groups() {
    let signer = Signer::new("a");
    let World { oidc, .. } = world(options(), vec![signer.jwk()]);
    let token = signer.good(|_| {});
    assert!(oidc.issued(&token));
    let user = oidc.authenticate(&token).await.unwrap();
    assert_eq!(user.name, "oidc:ann");
    assert_eq!(user.groups, ["dev", "system:authenticated"]);
    // RSA, signed elsewhere.
    let known: Value = serde_json::from_str(include_str!("rs256.json")).unwrap();
    let World { oidc, .. } = world(options(), vec![known["jwk"].clone()]);
    assert_eq!(oidc.authenticate(known["token"].as_str().unwrap()).await.unwrap().name, "oidc:ann");
}

#[tokio::test]
async fn bad_tokens_are_nobody() {
    let signer = Signer::new("a");
    let check = async |token: String, change: &dyn Fn(&mut OidcOptions), expected: OidcError| {
        let mut options = options();
        change(&mut options);
        let World { oidc, .. } = world(options, vec![signer.jwk()]);
        assert_eq!(oidc.authenticate(&token).await, Err(expected), "{token}");
    };
    let claim = |name: &str| OidcError::Claim(name.to_owned());
    let same: &dyn Fn(&mut OidcOptions) = &|_| {};
    check(signer.good(|c| c["exp"] = json!(NOW)), same, OidcError::Time).await;
    check(signer.good(|c| c["nbf"] = json!(NOW + 1)), same, OidcError::Time).await;
    check(signer.good(|c| c["exp"] = json!("never")), same, claim("exp")).await;
    check(signer.good(|c| drop(c.as_object_mut().unwrap().remove("exp"))), same, claim("exp")).await;
    check(signer.good(|c| c["aud"] = json!(["other"])), same, claim("aud")).await;
    check(signer.good(|c| c["iss"] = json!("https://evil.example")), same, claim("iss")).await;
    check(signer.good(|c| c["sub"] = json!("")), same, claim("sub")).await;
    check(signer.good(|c| c["groups"] = json!([1])), same, claim("groups")).await;
    check(signer.good(|_| {}), &|o| o.mapping.required_claims = vec![("hd".into(), "x".into())], claim("hd"))
        .await;
    let reserved = OidcError::Reserved("system:admin".to_owned());
    let named = |o: &mut OidcOptions, claim: &str| {
        o.mapping.username = Source::Claim { name: claim.to_owned(), prefix: String::new() };
    };
    check(signer.good(|c| c["sub"] = json!("system:admin")), &|o| named(o, "sub"), reserved).await;
    let mail: &dyn Fn(&mut OidcOptions) = &|o| named(o, "email");
    let unverified = |c: &mut Value| (c["email"], c["email_verified"]) = (json!("a@b.c"), json!(false));
    check(signer.good(unverified), mail, claim("email_verified")).await;

    // Another's signature, another algorithm, no algorithm, the public key taken for a secret.
    let thief = Signer::new("a");
    check(thief.good(|_| {}), same, OidcError::Signature).await;
    for algorithm in ["none", "HS256", "None", "", "ES512"] {
        check(signer.token(json!({"alg": algorithm, "kid": "a"}), &claims()), same, OidcError::Algorithm)
            .await;
    }
    check(signer.token(json!({"alg": "RS256", "kid": "a"}), &claims()), same, OidcError::Signature).await;
    check(signer.good(|_| {}), &|o| o.algorithms = vec![Algorithm::Rs256], OidcError::Algorithm).await;
    check(signer.token(json!({"alg": "ES256", "crit": ["b64"]}), &claims()), same, OidcError::Malformed)
        .await;
    let good = signer.good(|_| {});
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let mut other = claims();
    other["sub"] = json!("root");
    let forged = format!("{head}.{}.{signature}", BASE64.encode(other.to_string()));
    check(forged, same, OidcError::Signature).await;
    check(format!("{head}.{}.", BASE64.encode(claims().to_string())), same, OidcError::Signature).await;
    for malformed in ["", "a.b.c", "..", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
        let World { oidc, .. } = world(options(), vec![signer.jwk()]);
        assert!(oidc.authenticate(malformed).await.is_err());
    }
}

#[tokio::test]
async fn keys_rotate_and_a_forged_key_id_costs_one_fetch() {
    let (first, second) = (Signer::new("1"), Signer::new("2"));
    let World { oidc, source, clock } = world(options(), vec![first.jwk()]);
    let far = |c: &mut Value| c["exp"] = json!(NOW + 100_000);
    let fetches = || *source.fetches.lock().unwrap();
    oidc.authenticate(&first.good(far)).await.unwrap();
    assert_eq!(fetches(), 1);
    // Unknown key ids within the pause: nothing is asked.
    for _ in 0..5 {
        assert_eq!(oidc.authenticate(&second.good(far)).await, Err(OidcError::Signature));
    }
    assert_eq!(fetches(), 1);
    *source.keys.lock().unwrap() = vec![second.jwk()];
    clock.set(Timestamp::from_second(NOW + 11).unwrap());
    oidc.authenticate(&second.good(far)).await.unwrap();
    assert_eq!(oidc.authenticate(&first.good(far)).await, Err(OidcError::Signature), "no longer published");
    assert_eq!(fetches(), 2);
    // An issuer that is down: what is known is good for a while, then no longer.
    source.keys.lock().unwrap().clear();
    clock.set(Timestamp::from_second(NOW + 600).unwrap());
    oidc.authenticate(&second.good(far)).await.unwrap();
    clock.set(Timestamp::from_second(NOW + 7200).unwrap());
    assert!(matches!(oidc.authenticate(&second.good(far)).await, Err(OidcError::Keys(_))));
}

#[tokio::test]
async fn expressions_say_who_it_is() {
    use schema::cel::Expression;
    let expression = |source: &str, name: &str| Expression::compile(source, &[name]).unwrap();
    let claim = |source: &str| Source::Expression(expression(source, "claims"));
    let rule =
        |source: &str, name: &str| Rule { expression: expression(source, name), message: "no".to_owned() };
    let signer = Signer::new("a");
    let token = signer.good(|c| {
        c["roles"] = json!("dev,ops");
        c["n"] = json!({"id": "7"});
        c["jti"] = json!("t1");
    });
    let check = async |change: &dyn Fn(&mut Mapping), expected: Result<(&str, &[&str]), &str>| {
        let mut options = options();
        options.mapping.reserves_system = false;
        change(&mut options.mapping);
        let World { oidc, .. } = world(options, vec![signer.jwk()]);
        let user = oidc.authenticate(&token).await.map_err(|error| error.to_string());
        let seen = user.as_ref().map(|user| (user.name.as_str(), user.groups.clone()));
        match (seen, expected) {
            (Ok((name, groups)), Ok(expected)) => {
                assert_eq!(
                    (name, groups),
                    (expected.0, expected.1.iter().map(|g| (*g).to_owned()).collect())
                );
            }
            (Err(why), Err(words)) => assert!(why.contains(words), "{why}"),
            (seen, expected) => panic!("{seen:?} is not {expected:?}"),
        }
    };
    let groups = &["dev", "ops", "system:authenticated"][..];
    check(&|m| m.groups = Some(claim("claims.roles.split(',')")), Ok(("oidc:ann", groups))).await;
    let all = &["dev", "system:masters", "system:authenticated"][..];
    check(&|m| m.username = claim("'x:' + claims.sub"), Ok(("x:ann", all))).await;
    check(&|m| m.groups = Some(claim("claims.?none.orValue('')")), Ok(("oidc:ann", &all[2..]))).await;
    for (change, words) in [
        (
            &(|m: &mut Mapping| m.username = claim("claims.none")) as &dyn Fn(&mut Mapping),
            "no such key: none",
        ),
        (&|m| m.username = claim("''"), "empty username via CEL expression is not allowed"),
        (&|m| m.username = claim("1"), "must return a string"),
        (&|m| m.groups = Some(claim("[1]")), "must return a string or a list of strings"),
        (&|m| m.claim_rules = vec![rule("claims.sub == 'bob'", "claims")], "claims.sub == 'bob'' failed: no"),
        (&|m| m.claim_rules = vec![rule("claims.sub", "claims")], "must return a boolean"),
        (
            &|m| m.user_rules = vec![rule("user.groups.all(g, !g.startsWith('system:'))", "user")],
            "user info validation rule: validation expression",
        ),
    ] {
        check(change, Err(words)).await;
    }
    let mut options = options();
    options.mapping.uid = Some(claim("claims.n.id"));
    options.mapping.extra = vec![("a.org/x".to_owned(), expression("[claims.sub, '']", "claims"))];
    options.mapping.user_rules = vec![rule("user.uid == '7' && user.extra['a.org/x'] == ['ann']", "user")];
    let World { oidc, .. } = world(options, vec![signer.jwk()]);
    let user = oidc.authenticate(&token).await.unwrap();
    assert_eq!(user.uid, "7");
    assert_eq!(user.extra["a.org/x"], ["ann"]);
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=t1"]);
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "[A-Za-z0-9_.=-]{0,300}", set in ".{0,200}") {
        drop(Parts::read(&text));
        let set = serde_json::from_str(&set).unwrap_or(Value::String(set));
        drop(Keys::read(&set));
        drop(user(&options(), &set, Timestamp::UNIX_EPOCH));
    }
}
