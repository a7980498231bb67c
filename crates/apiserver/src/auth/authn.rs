//! From the credentials of a request to a user.
//!
//! Guarantees: each way in is asked in one order (front proxy, client certificate, bearer token, anonymous); bad
//! credentials are refused (401), not taken for anonymous. A token is looked for in the file, among bootstrap tokens
//! and this server's own before somebody outside is asked: its issuer, then the webhook.

use std::{collections::HashMap, net::IpAddr, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::{HeaderMap, header::AUTHORIZATION};
use meta::{Clock, Status, metrics::Exposition};
use resource::{User, View};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    AUTHENTICATED, FrontProxy, TokenWebhook, UNAUTHENTICATED, bootstrap_token, memo::Memo, oidc::Oidc,
    token_cache::TokenCache,
};
use crate::{http::TlsError, pki::Identity, tokens::Tokens};

/// How long the answer of a token issuer is good for, as upstream's token cache.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Answers remembered.
const REMEMBERED_MAX: usize = 4096;

/// Authenticates requests.
pub struct Authenticator {
    tokens: Option<Arc<Tokens>>,
    statics: StaticTokens,
    bootstrap_tokens: bool,
    /// Replaced when their file changes.
    issuers: ArcSwap<Issuers>,
    webhook: Option<TokenWebhook>,
    /// Of what is remembered of the answers of both.
    cache: Arc<TokenCache>,
    proxies: Option<Proxies>,
    anonymous: ArcSwap<Anonymous>,
    view: Arc<dyn View>,
    clock: Arc<dyn Clock>,
}

/// Who is let in without credentials, as `system:anonymous`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    Off,
    /// Everybody.
    On,
    /// Who asks for one of these paths.
    Paths(Vec<String>),
}

/// Token issuers, and what their keys said of tokens.
struct Issuers {
    list: Vec<Oidc>,
    remembered: Memo<Option<User>>,
}

impl Issuers {
    fn new(list: Vec<Oidc>, clock: &Arc<dyn Clock>, counts: &Arc<TokenCache>) -> Self {
        let mut remembered = Memo::new(clock.clone(), REMEMBERED_MAX);
        remembered.count(counts);
        Self { list, remembered }
    }

    async fn user(&self, token: &str) -> Option<User> {
        let issuer = self.list.iter().find(|issuer| issuer.issued(token))?;
        let ask = async {
            let user = issuer.authenticate(token).await;
            let user = user.inspect_err(|error| tracing::debug!(%error, "bearer token refused")).ok();
            Ok::<_, std::convert::Infallible>((user, REMEMBERED))
        };
        match self.remembered.get(&[token], ask).await {
            Ok(user) => user,
            Err(never) => match never {},
        }
    }
}

struct Proxies {
    headers: FrontProxy,
    /// Of the cluster's own authority.
    clients: Arc<dyn ClientCertVerifier>,
    /// Of the proxies' authority.
    proxies: Arc<dyn ClientCertVerifier>,
}

/// What is known of the other side of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// The user of its client certificate.
    user: Option<Arc<User>>,
    /// Whether it may name users in headers.
    vouches: bool,
}

impl Authenticator {
    /// Certificates only, and anonymous users; other ways are added with the methods below.
    pub fn new(view: Arc<dyn View>, clock: Arc<dyn Clock>) -> Self {
        let cache = Arc::default();
        Self {
            tokens: None,
            statics: StaticTokens::default(),
            bootstrap_tokens: false,
            issuers: ArcSwap::from_pointee(Issuers::new(Vec::new(), &clock, &cache)),
            webhook: None,
            cache,
            proxies: None,
            anonymous: ArcSwap::from_pointee(Anonymous::On),
            view,
            clock,
        }
    }

    /// Accepts service-account tokens.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Arc<Tokens>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Accepts the tokens of a file.
    #[must_use]
    pub fn with_static(mut self, statics: StaticTokens) -> Self {
        self.statics = statics;
        self
    }

    /// Accepts bootstrap tokens.
    #[must_use]
    pub fn with_bootstrap_tokens(mut self) -> Self {
        self.bootstrap_tokens = true;
        self
    }

    /// Accepts the tokens of these issuers, and of no others any more.
    pub fn set_issuers(&self, issuers: Vec<Oidc>) {
        self.issuers.store(Arc::new(Issuers::new(issuers, &self.clock, &self.cache)));
    }

    /// Who is let in without credentials from now on; the others are refused.
    pub fn set_anonymous(&self, anonymous: Anonymous) {
        self.anonymous.store(Arc::new(anonymous));
    }

    /// Accepts the tokens that a webhook knows.
    #[must_use]
    pub fn with_webhook(mut self, mut webhook: TokenWebhook) -> Self {
        webhook.count(&self.cache);
        self.webhook = Some(webhook);
        self
    }

    /// Believes the headers of proxies whose certificates `proxy_ca_pem` signed. TLS must ask for certificates
    /// of both authorities; which one a certificate is of is checked here again.
    pub fn with_front_proxy(
        mut self,
        headers: FrontProxy,
        client_ca_pem: &str,
        proxy_ca_pem: &str,
    ) -> Result<Self, TlsError> {
        let (clients, proxies) = (verifier(client_ca_pem)?, verifier(proxy_ca_pem)?);
        self.proxies = Some(Proxies { headers, clients, proxies });
        Ok(self)
    }

    /// What `/metrics` says of it.
    pub(crate) fn expose(&self, out: &mut Exposition) {
        self.cache.expose(out);
    }

    /// Whether requests without credentials are somebody, for some paths at least.
    pub(crate) fn takes_anonymous(&self) -> bool {
        **self.anonymous.load() != Anonymous::Off
    }

    /// The user of a certificate that TLS has verified; `None` when it names nobody.
    pub fn certificate(der: &[u8]) -> Option<User> {
        let Identity { common_name, organizations } = Identity::of(der)?;
        let mut groups = organizations;
        groups.push(AUTHENTICATED.to_owned());
        Some(User { name: common_name, groups, ..User::default() })
    }

    /// What a connection's certificates, verified by TLS, say; the leaf comes first.
    pub fn peer(&self, chain: &[CertificateDer<'_>], address: Option<IpAddr>) -> Peer {
        let Some((leaf, between)) = chain.split_first() else {
            return Peer { address, ..Peer::default() };
        };
        // A verified certificate that names nobody is nobody, not somebody.
        let user = || Self::certificate(leaf).map(Arc::new);
        let Some(proxies) = &self.proxies else {
            return Peer { address, user: user(), vouches: false };
        };
        let seconds = u64::try_from(self.clock.now().as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let is_of =
            |verifier: &Arc<dyn ClientCertVerifier>| verifier.verify_client_cert(leaf, between, now).is_ok();
        let name = Identity::of(leaf).map(|identity| identity.common_name).unwrap_or_default();
        let vouches = is_of(&proxies.proxies) && proxies.headers.allows(&name);
        // A proxy's certificate is not a user's, whatever it says.
        let user = if is_of(&proxies.clients) { user() } else { None };
        Peer { address, user, vouches }
    }

    /// The user of a request for a path on a connection. A bad token is refused (401), not taken for anonymous.
    pub async fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<Arc<User>, Status> {
        if let Some(proxies) = self.proxies.as_ref().filter(|_| peer.vouches)
            && let Some(user) = proxies.headers.user(headers)
        {
            return Ok(Arc::new(user));
        }
        if let Some(user) = &peer.user {
            return Ok(user.clone());
        }
        match headers.get(AUTHORIZATION) {
            Some(value) => {
                let token = value.to_str().ok().and_then(bearer).ok_or_else(Status::unauthorized)?;
                self.token(token, &[]).await.map(|(user, _)| Arc::new(user))
            }
            None if self.anonymous.load().lets_in(path) => Ok(Arc::new(User {
                name: "system:anonymous".to_owned(),
                groups: vec![UNAUTHENTICATED.to_owned()],
                ..User::default()
            })),
            None => Err(Status::unauthorized()),
        }
    }

    /// The user of a bearer token and the audiences it is good for, out of `audiences` (empty: this
    /// server's own). 401 when nobody knows it.
    pub async fn token(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), Status> {
        if let Some(known) = self.own(token, audiences) {
            return Ok(known);
        }
        // Not the guard: it must not be held while somebody is asked.
        let issuers = self.issuers.load_full();
        if let Some(known) = issuers.user(token).await.and_then(|user| self.for_own(user, audiences)) {
            return Ok(known);
        }
        if let Some(webhook) = &self.webhook {
            match webhook.authenticate(token, audiences).await {
                Ok(Some(known)) => return Ok(known),
                Ok(None) => tracing::debug!("bearer token refused by the webhook"),
                Err(error) => tracing::warn!(error, "Failed to make webhook authenticator request"),
            }
        }
        Err(Status::unauthorized())
    }

    /// The same of tokens that are known here.
    fn own(&self, token: &str, audiences: &[String]) -> Option<(User, Vec<String>)> {
        if let Some(user) = self.statics.get(token) {
            return self.for_own(user.clone(), audiences);
        }
        if self.bootstrap_tokens && bootstrap_token::split(token).is_some() {
            let user = bootstrap_token::user(token, &*self.view, self.clock.now())?;
            return self.for_own(user, audiences);
        }
        let tokens = self.tokens.as_ref().filter(|tokens| tokens.issued(token))?;
        let accepted = tokens.verify(token, audiences, self.clock.now(), &*self.view);
        let accepted = accepted.inspect_err(|error| tracing::debug!(%error, "bearer token refused"));
        accepted.ok().map(|accepted| (accepted.user, accepted.audiences))
    }

    /// Tokens that name no audience are for this server.
    fn for_own(&self, user: User, audiences: &[String]) -> Option<(User, Vec<String>)> {
        let own = self.tokens.as_ref().map(|t| t.audiences().to_vec()).unwrap_or_default();
        let good: Vec<String> = match audiences {
            [] => own,
            asked => asked.iter().filter(|a| own.contains(a)).cloned().collect(),
        };
        (!good.is_empty() || audiences.is_empty()).then_some((user, good))
    }
}

impl Anonymous {
    fn lets_in(&self, path: &str) -> bool {
        match self {
            Self::Off => false,
            Self::On => true,
            Self::Paths(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }
}

fn verifier(ca_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|_| TlsError::Pem("client authority"))?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(TlsError::Verifier)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

/// Tokens that a file gives users, upstream's `--token-auth-file`: lines of
/// `token,user,uid[,"group1,group2"]`.
#[derive(Clone, Default)]
pub struct StaticTokens(HashMap<String, User>);

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StaticTokensError {
    /// It cannot be read.
    #[error("read token file")]
    Read(#[source] std::io::Error),
    /// A line has too few columns or an empty one.
    #[error("token file line {0}: want token,user,uid[,\"group1,group2\"]")]
    Line(usize),
    /// Two users have one token.
    #[error("token file line {0}: the token is in an earlier line already")]
    Twice(usize),
}

impl StaticTokens {
    /// Reads a token file.
    pub fn read(path: &Path) -> Result<Self, StaticTokensError> {
        Self::parse(&std::fs::read_to_string(path).map_err(StaticTokensError::Read)?)
    }

    /// Parses the content of a token file. Quotes are only needed around several groups.
    pub fn parse(text: &str) -> Result<Self, StaticTokensError> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut columns = line.splitn(4, ',').map(|column| column.trim().trim_matches('"'));
            let (token, name, uid) = (columns.next(), columns.next(), columns.next());
            let (Some(token), Some(name), Some(uid)) = (token, name, uid) else {
                return Err(StaticTokensError::Line(number + 1));
            };
            if token.is_empty() || name.is_empty() {
                return Err(StaticTokensError::Line(number + 1));
            }
            let given = columns.next().unwrap_or_default();
            let mut groups: Vec<String> =
                given.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect();
            groups.push(AUTHENTICATED.to_owned());
            let user = User { name: name.to_owned(), uid: uid.to_owned(), groups, ..User::default() };
            if users.insert(token.to_owned(), user).is_some() {
                return Err(StaticTokensError::Twice(number + 1));
            }
        }
        Ok(Self(users))
    }

    fn get(&self, token: &str) -> Option<&User> {
        self.0.get(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Objects;
    use http::HeaderValue;
    use meta::Timestamp;

    fn authenticate(authorization: Option<&str>) -> Result<String, u16> {
        let statics = StaticTokens::parse("# staff\nt0ken,ann,7,\"dev,ops\"\n").unwrap();
        let clock = Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let authenticator = Authenticator::new(Arc::new(Objects::default()), clock).with_static(statics);
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let user =
            futures::FutureExt::now_or_never(authenticator.authenticate(&Peer::default(), &headers, "/"))
                .unwrap();
        let user = user.map_err(|status| status.code)?;
        Ok(format!("{} {}", user.name, user.groups.join(",")))
    }

    #[test]
    fn names_the_user() {
        assert_eq!(authenticate(None).unwrap(), "system:anonymous system:unauthenticated");
        assert_eq!(authenticate(Some("Bearer t0ken")).unwrap(), "ann dev,ops,system:authenticated");
        assert_eq!(authenticate(Some("bearer  t0ken ")).unwrap(), "ann dev,ops,system:authenticated");
        for bad in ["Bearer x", "Bearer", "Bearer ", "Basic dDp0", "t0ken", "Bearer a.b.c"] {
            assert_eq!(authenticate(Some(bad)), Err(401), "{bad}");
        }
        assert!(StaticTokens::parse("a,b").is_err());
        assert!(StaticTokens::parse(",b,c").is_err());
        assert!(matches!(StaticTokens::parse("a,b,c\na,d,e"), Err(StaticTokensError::Twice(2))));
    }

    #[test]
    fn some_paths_need_no_credentials() {
        let clock = Arc::new(meta::Fixed::new(Timestamp::UNIX_EPOCH));
        let authenticator = Authenticator::new(Arc::new(Objects::default()), clock);
        let code = |path: &str| {
            let (peer, headers) = (Peer::default(), HeaderMap::new());
            let user = authenticator.authenticate(&peer, &headers, path);
            futures::FutureExt::now_or_never(user).unwrap().map_or_else(|status| status.code, |_| 0)
        };
        assert_eq!(code("/api"), 0);
        authenticator.set_anonymous(Anonymous::Paths(vec!["/livez".to_owned()]));
        assert_eq!((code("/livez"), code("/livez/ping"), code("/api")), (0, 401, 401));
        authenticator.set_anonymous(Anonymous::Off);
        assert_eq!(code("/livez"), 401);
    }

    /// A certificate counts for what its own authority is for, and headers only behind a proxy's.
    #[test]
    fn a_front_proxy_vouches_and_nobody_else() {
        use crate::pki::{Authority, Leaf};
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (clients, proxies) =
            (Authority::create("ca", now).unwrap(), Authority::create("ca", now).unwrap());
        let header = http::HeaderName::from_static;
        let headers = FrontProxy {
            allowed_names: vec!["front".to_owned()],
            username_headers: vec![header("x-remote-user")],
            uid_headers: Vec::new(),
            group_headers: vec![header("x-remote-group")],
            extra_prefixes: Vec::new(),
        };
        let clock = Arc::new(meta::Fixed::new(now));
        let authenticator = Authenticator::new(Arc::new(Objects::default()), clock)
            .with_front_proxy(headers, &clients.pair().cert_pem, &proxies.pair().cert_pem)
            .unwrap();
        let mut named = HeaderMap::new();
        named.insert("x-remote-user", HeaderValue::from_static("ann"));
        named.insert("x-remote-group", HeaderValue::from_static("system:masters"));
        for (authority, name, expected) in [
            (Some(&proxies), "front", "ann"),
            (Some(&proxies), "other", "system:anonymous"),
            (Some(&clients), "front", "front"),
            (Some(&clients), "bob", "bob"),
            (None, "", "system:anonymous"),
        ] {
            let chain: Vec<CertificateDer<'_>> = authority
                .map(|authority| authority.issue(&Leaf::client(name, None), now).unwrap())
                .map(|pair| CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).unwrap())
                .into_iter()
                .collect();
            let peer = authenticator.peer(&chain, None);
            let user = futures::FutureExt::now_or_never(authenticator.authenticate(&peer, &named, "/"))
                .unwrap()
                .unwrap();
            assert_eq!(user.name, expected);
        }
    }
}
