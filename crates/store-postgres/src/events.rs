//! Where Redis is: at one address, behind Sentinels, or a Cluster; and how to get in.
//!
//! Each connection is made anew from what the Sentinels or the Cluster say then, so that a failover costs a broken
//! connection and nothing else. Nothing here prints a password.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, RedisError, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::time::timeout;
use url::Url;

use crate::{
    config::{decode, parse_url, password, read_secret},
    fault::Fault,
};

const WHAT: &str = "the Redis URL";
/// Longest to wait for an answer.
const ANSWER: Duration = Duration::from_secs(3);
const SCHEMES: &[&str] =
    &["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"];

/// Where Redis is.
#[derive(Clone)]
pub(crate) struct Events {
    /// Of one Redis, of the Sentinels, or of members of the Cluster; each with user and password of Redis.
    urls: Vec<Url>,
    form: Form,
    password: Option<PathBuf>,
    roots: Option<PathBuf>,
    /// For messages.
    pub(crate) name: String,
}

#[derive(Clone)]
enum Form {
    Alone,
    Sentinel {
        /// What the Sentinels call it.
        master: String,
        database: i64,
        /// The Sentinels' own.
        password: Option<PathBuf>,
    },
    Cluster,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Events {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let refuse = |why: &str| Fault::Url { what: WHAT, why: why.into() };
        let mut urls = Vec::new();
        for one in each_host(text) {
            urls.push(parse_url(WHAT, &one, SCHEMES)?);
        }
        let url = urls.first().cloned().ok_or_else(|| refuse("it must name a host"))?;
        let (secure, form) = match url.scheme().split_once('+') {
            Some((redis, form)) => (redis == "rediss", form),
            None => (url.scheme() == "rediss", ""),
        };
        let (mut file, mut roots, mut sentinel_file) = (None, None, None);
        for (name, value) in url.query_pairs() {
            let value = PathBuf::from(&*value);
            match &*name {
                "passwordFile" => file = Some(value),
                "sslrootcert" => roots = Some(value),
                "sentinelPasswordFile" if form == "sentinel" => sentinel_file = Some(value),
                other => return Err(refuse(&format!("parameter {other:?} is not known"))),
            }
        }
        if file.is_some() && password(WHAT, &url)?.is_some() {
            return Err(refuse("it has both a password and a passwordFile"));
        }
        if roots.is_some() && !secure {
            return Err(refuse("sslrootcert is for rediss"));
        }
        let path = decode(WHAT, url.path().trim_start_matches('/'))?;
        let number = |text: &str| text.parse::<u8>().map(i64::from);
        let form = match form {
            "" if urls.len() > 1 => {
                return Err(refuse(
                    "it must name exactly one host, or say redis+sentinel:// or redis+cluster://",
                ));
            }
            "" if !path.is_empty() && number(&path).is_err() => {
                return Err(refuse("its path must be the number of a database"));
            }
            "" => Form::Alone,
            "cluster" if !path.is_empty() => return Err(refuse("a Cluster has no numbered databases")),
            "cluster" => Form::Cluster,
            _ => {
                let (master, database) = path.split_once('/').unwrap_or((&path, "0"));
                let database = number(database)
                    .map_err(|_| refuse("after its master comes the number of a database"))?;
                if master.is_empty() {
                    return Err(refuse(
                        "it must have the form redis+sentinel://SENTINEL:26379,SENTINEL:26379/MASTER",
                    ));
                }
                Form::Sentinel { master: master.to_owned(), database, password: sentinel_file }
            }
        };
        let default = if matches!(form, Form::Sentinel { .. }) { 26379 } else { 6379 };
        let (mut shown, mut plain) = (Vec::new(), Vec::new());
        for url in urls {
            let host = decode(WHAT, url.host_str().unwrap_or_default())?;
            if host.is_empty() {
                return Err(refuse("it must name a host"));
            }
            let port = url.port().unwrap_or(default);
            shown.push(format!("{host}:{port}"));
            plain.push(as_redis(&url, secure, port, matches!(form, Form::Alone))?);
        }
        let mut name = shown.join(",");
        if let Form::Sentinel { master, .. } = &form {
            name = format!("{master} of {name}");
        }
        Ok(Self { urls: plain, form, password: file, roots, name })
    }

    /// What an answer means to who set this up.
    pub(crate) fn fault(&self, error: &RedisError) -> Fault {
        let why = match (error.code(), error.detail(), &self.form) {
            (Some("MOVED" | "ASK" | "CLUSTERDOWN"), _, Form::Alone | Form::Sentinel { .. }) => {
                "it is part of a Redis Cluster: say redis+cluster://HOST:PORT,HOST:PORT".to_owned()
            }
            (_, Some(detail), Form::Cluster) if detail.contains("cluster support disabled") => {
                "it is no Redis Cluster: say redis://HOST:PORT".to_owned()
            }
            (_, Some(detail), _) if detail.starts_with("unknown command") => format!(
                "it has no streams ({detail}); name a Redis 6.2 or newer, or none: the servers then wake each other by PostgreSQL",
                detail = detail.trim_end()
            ),
            _ if error.kind() == ErrorKind::MasterNameNotFoundBySentinel => {
                "no Sentinel that answers knows a master of this name that works".to_owned()
            }
            (Some(code), Some(detail), _) => format!("{code} {detail}"),
            (_, Some(detail), _) => detail.to_owned(),
            _ => error.to_string(),
        };
        Fault::Events { server: self.name.clone(), why }
    }

    /// A connection to whoever takes writes now.
    pub(crate) async fn connect(&self) -> Result<Connection, Fault> {
        let fault = |error: RedisError| self.fault(&error);
        let secret = self.password.as_deref().map(read_secret).transpose()?;
        let mut nodes = Vec::new();
        for url in &self.urls {
            let mut url = url.clone();
            url.set_password(secret.as_deref().or(url.password().map(str::to_owned).as_deref()))
                .map_err(|()| Fault::Url { what: WHAT, why: "it cannot hold a password".into() })?;
            nodes.push(url);
        }
        let root_cert = self.roots.as_ref().map(|path| {
            std::fs::read(path).map_err(|error| Fault::File {
                what: "certificate",
                path: path.clone(),
                source: Arc::new(error),
            })
        });
        let certificates =
            root_cert.transpose()?.map(|root| TlsCertificates { client_tls: None, root_cert: Some(root) });
        let client = match &self.form {
            Form::Cluster => {
                return self.cluster(nodes, certificates).await.map(Connection::Cluster).map_err(fault);
            }
            Form::Alone => {
                let node = nodes.swap_remove(0);
                match certificates {
                    None => Client::open(node),
                    Some(certificates) => Client::build_with_tls(node, certificates),
                }
            }
            Form::Sentinel { master, database, password } => {
                let own = password.as_deref().map(read_secret).transpose()?;
                self.master(master, *database, own, nodes, certificates).await
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        let connection = client.map_err(fault)?.get_multiplexed_async_connection_with_config(&config).await;
        connection.map(Connection::One).map_err(fault)
    }

    /// Asks one Sentinel after the other.
    async fn master(
        &self,
        name: &str,
        database: i64,
        own: Option<String>,
        sentinels: Vec<Url>,
        certificates: Option<TlsCertificates>,
    ) -> RedisResult<Client> {
        let infos = sentinels.into_iter().map(IntoConnectionInfo::into_connection_info);
        let infos: Vec<ConnectionInfo> = infos.collect::<RedisResult<_>>()?;
        let addresses: Vec<ConnectionAddr> = infos.iter().map(|info| info.addr().clone()).collect();
        let secure = addresses.iter().any(|address| matches!(address, ConnectionAddr::TcpTls { .. }));
        let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?
            .set_client_to_redis_db(database);
        let redis = infos.first().map(ConnectionInfo::redis_settings);
        if let Some(user) = redis.and_then(redis::RedisConnectionInfo::username) {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(secret) = redis.and_then(redis::RedisConnectionInfo::password) {
            builder = builder.set_client_to_redis_password(secret);
        }
        if let Some(secret) = own {
            builder = builder.set_client_to_sentinel_password(secret);
        }
        if secure {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        let mut client = builder.build()?;
        let asked = timeout(ANSWER, client.async_get_client()).await;
        asked.unwrap_or_else(|_| Err((ErrorKind::MasterNameNotFoundBySentinel, "no Sentinel answers").into()))
    }

    async fn cluster(
        &self,
        nodes: Vec<Url>,
        certificates: Option<TlsCertificates>,
    ) -> RedisResult<ClusterConnection> {
        let mut builder =
            ClusterClient::builder(nodes).connection_timeout(ANSWER).response_timeout(ANSWER).retries(1);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        let connection = timeout(ANSWER * 2, builder.build()?.get_async_connection()).await;
        connection.unwrap_or_else(|_| Err((ErrorKind::Io, "no member of the Cluster answers").into()))
    }

    /// Finds out at the start what waiting would not cure: a wrong password, no streams. A Redis that
    /// does not answer is no error: the store works without it.
    pub(crate) async fn probe(&self) -> Result<(), Fault> {
        let asked = timeout(ANSWER * 2, async {
            let mut connection = self.connect().await?;
            // Reading and writing, without making anything.
            let (mut length, mut add) = (redis::cmd("XLEN"), redis::cmd("XADD"));
            length.arg("keelson:probe");
            add.arg("keelson:probe").arg("NOMKSTREAM").arg("*").arg("k").arg("");
            for command in [length, add] {
                let asked = command.query_async::<Value>(&mut connection).await;
                asked.map_err(|error| self.fault(&error))?;
            }
            Ok(())
        });
        match asked.await {
            Ok(Err(fault @ Fault::Events { .. })) if lasting(&fault) => Err(fault),
            Ok(Err(fault @ (Fault::File { .. } | Fault::Url { .. } | Fault::Tls(_)))) => Err(fault),
            Ok(Err(fault)) => {
                tracing::warn!(%fault, "working without Redis until it answers");
                Ok(())
            }
            Ok(Ok(_)) => Ok(()),
            Err(_) => {
                tracing::warn!(server = self.name, "Redis does not answer, working without it until it does");
                Ok(())
            }
        }
    }
}

fn lasting(fault: &Fault) -> bool {
    let Fault::Events { why, .. } = fault else { return false };
    [
        "WRONGPASS",
        "Redis Cluster",
        "NOAUTH",
        "NOPERM",
        "it has no streams",
        "Password authentication failed",
        "invalid password",
    ]
    .iter()
    .any(|words| why.contains(words))
}

/// The same URL once for each of its hosts, which are separated by commas: no URL has several.
fn each_host(text: &str) -> Vec<String> {
    let Some((scheme, rest)) = text.split_once("://") else { return vec![text.to_owned()] };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    hosts.split(',').map(|host| format!("{scheme}://{user}{host}{after}")).collect()
}

/// As the client library reads it: its own schemes, nothing of ours.
fn as_redis(url: &Url, secure: bool, port: u16, with_path: bool) -> Result<Url, Fault> {
    let scheme = if secure { "rediss" } else { "redis" };
    let rest = url.as_str().split_once("://").map_or("", |(_, rest)| rest);
    let mut plain = parse_url(WHAT, &format!("{scheme}://{rest}"), &["redis", "rediss"])?;
    plain.set_query(None);
    if !with_path {
        plain.set_path("");
    }
    let refused = plain.set_port(Some(port));
    refused.map_err(|()| Fault::Url { what: WHAT, why: "it must name a host".into() })?;
    Ok(plain)
}

/// To one Redis, or to all of a Cluster.
#[derive(Clone)]
pub(crate) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(command),
            Self::Cluster(cluster) => cluster.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let parsed = Events::parse(text);
        match expected {
            Ok(name) => {
                let parsed = parsed.unwrap();
                assert_eq!(parsed.name, name, "{text}");
                assert!(!format!("{parsed:?}").contains("hunter2"));
                for url in parsed.urls {
                    url.into_connection_info().unwrap();
                }
            }
            Err(part) => {
                let message = parsed.unwrap_err().to_string();
                assert!(message.contains(part), "{text}: {message}");
                assert!(!message.contains("hunter2"), "{message}");
            }
        }
    }

    #[test]
    fn urls() {
        check("redis://:hunter2@localhost", Ok("localhost:6379"));
        check("rediss://a:hunter2@h:7000/3?sslrootcert=/x", Ok("h:7000"));
        check("redis+sentinel://:hunter2@s1,s2:7,[::1]:8/main", Ok("main of s1:26379,s2:7,[::1]:8"));
        check("rediss+sentinel://s1/main/2?sentinelPasswordFile=/x", Ok("main of s1:26379"));
        check("redis+cluster://a:hunter2@h1:1,h2", Ok("h1:1,h2:6379"));
        check("http://:hunter2@localhost", Err("must begin with redis://"));
        check("redis://:hunter2@h1,h2", Err("exactly one host, or say redis+sentinel://"));
        check("redis://:hunter2@h1,", Err("host"));
        check("redis://h/main", Err("number of a database"));
        check("redis://h?sslrootcert=/x", Err("sslrootcert is for rediss"));
        check("redis://h?sentinelPasswordFile=/x", Err("\"sentinelPasswordFile\" is not known"));
        check("redis://:hunter2@h?passwordFile=/x", Err("both a password"));
        check("redis+sentinel://:hunter2@s1", Err("/MASTER"));
        check("redis+sentinel://s1/main/x", Err("number of a database"));
        check("redis+cluster://h/1", Err("no numbered databases"));
        check("redis+cluster://:hunter2@h:99999", Err("port"));
    }
}
