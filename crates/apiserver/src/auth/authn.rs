//! From the credentials of a request to a user.

use std::{collections::HashMap, path::Path, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use meta::{Clock, Status};
use resource::{User, View};

use super::{AUTHENTICATED, UNAUTHENTICATED};
use crate::{pki::Identity, tokens::Tokens};

/// Authenticates requests: client certificate, then bearer token, then anonymous.
pub struct Authenticator {
    tokens: Option<Arc<Tokens>>,
    statics: StaticTokens,
    anonymous: bool,
    view: Arc<dyn View>,
    clock: Arc<dyn Clock>,
}

impl Authenticator {
    /// Certificates only, and anonymous users; other ways are added with the methods below.
    pub fn new(view: Arc<dyn View>, clock: Arc<dyn Clock>) -> Self {
        Self { tokens: None, statics: StaticTokens::default(), anonymous: true, view, clock }
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

    /// Refuses requests without credentials instead of treating them as `system:anonymous`.
    #[must_use]
    pub fn without_anonymous(mut self) -> Self {
        self.anonymous = false;
        self
    }

    /// The user of a certificate that TLS has verified; `None` when it names nobody.
    pub fn certificate(der: &[u8]) -> Option<User> {
        let Identity { common_name, organizations } = Identity::of(der)?;
        let mut groups = organizations;
        groups.push(AUTHENTICATED.to_owned());
        Some(User { name: common_name, groups, ..User::default() })
    }

    /// The user of a request. `certified` is that of the connection's certificate. A bad token is refused
    /// (401), not taken for anonymous.
    pub fn authenticate(
        &self,
        certified: Option<&Arc<User>>,
        headers: &HeaderMap,
    ) -> Result<Arc<User>, Status> {
        if let Some(user) = certified {
            return Ok(user.clone());
        }
        match headers.get(AUTHORIZATION) {
            Some(value) => {
                let token = value.to_str().ok().and_then(bearer).ok_or_else(Status::unauthorized)?;
                self.token(token, &[]).map(|(user, _)| Arc::new(user))
            }
            None if self.anonymous => Ok(Arc::new(User {
                name: "system:anonymous".to_owned(),
                groups: vec![UNAUTHENTICATED.to_owned()],
                ..User::default()
            })),
            None => Err(Status::unauthorized()),
        }
    }

    /// The user of a bearer token and the audiences it is good for, out of `audiences` (empty: this
    /// server's own).
    pub fn token(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), Status> {
        let own = self.tokens.as_ref().map(|t| t.audiences().to_vec()).unwrap_or_default();
        if let Some(user) = self.statics.get(token) {
            let good: Vec<String> = match audiences {
                [] => own,
                asked => asked.iter().filter(|a| own.contains(a)).cloned().collect(),
            };
            return if good.is_empty() && !audiences.is_empty() {
                Err(Status::unauthorized())
            } else {
                Ok((user.clone(), good))
            };
        }
        let tokens = self.tokens.as_ref().filter(|t| t.issued(token)).ok_or_else(Status::unauthorized)?;
        match tokens.verify(token, audiences, self.clock.now(), &*self.view) {
            Ok(accepted) => Ok((accepted.user, accepted.audiences)),
            Err(error) => {
                tracing::debug!(%error, "bearer token refused");
                Err(Status::unauthorized())
            }
        }
    }
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
            users.insert(token.to_owned(), user);
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

    fn authenticate(authorization: Option<&str>) -> Result<String, u16> {
        let statics = StaticTokens::parse("# staff\nt0ken,ann,7,\"dev,ops\"\n").unwrap();
        let clock = Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let authenticator = Authenticator::new(Arc::new(Objects::default()), clock).with_static(statics);
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let user = authenticator.authenticate(None, &headers).map_err(|status| status.code)?;
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
    }
}
