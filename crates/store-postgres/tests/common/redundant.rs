//! Redis with somebody to take over: a master and a replica that a Sentinel watches, and a Cluster.
#![allow(dead_code, reason = "each test file uses its part")]

use super::{PASSWORD, Redis, free_port, wait_for};

/// A Redis that others may replicate, or that replicates.
fn member(more: &[String]) -> Redis {
    Redis::with(|_, port| {
        let own = ["--port", &port.to_string(), "--requirepass", PASSWORD, "--masterauth", PASSWORD];
        own.map(str::to_owned).into_iter().chain(more.iter().cloned()).collect()
    })
}

/// What the replica lacks from now on stays at its master: their link is cut, and not made again.
pub(crate) fn cut_off(master: &Redis, replica: &Redis) {
    replica.command(&["CONFIG", "SET", "masterauth", "another"]);
    master.command(&["CLIENT", "KILL", "TYPE", "replica"]);
}

/// Waits until the replica has what its master has.
fn replicates(replica: &Redis) {
    wait_for("replication", || replica.ask(&["ROLE"]).get(3).is_some_and(|state| state == "connected"));
}

/// A master, its replica, and a Sentinel that makes one of the other.
pub(crate) struct Watched {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    sentinel: Redis,
}

impl Watched {
    pub(crate) fn start() -> Self {
        let master = member(&[]);
        let replica = member(&["--replicaof".into(), "127.0.0.1".into(), master.port.to_string()]);
        replicates(&replica);
        let sentinel = Redis::sentinel(&format!(
            "requirepass {PASSWORD}\n\
             sentinel monitor main 127.0.0.1 {} 1\n\
             sentinel auth-pass main {PASSWORD}\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n",
            master.port
        ));
        let knows = || sentinel.ask(&["INFO", "sentinel"]).concat().contains("slaves=1");
        wait_for("the Sentinel", knows);
        Self { master, replica, sentinel }
    }

    /// The Sentinels, of which the first does not answer.
    pub(crate) fn url(&self, password_file: &std::path::Path) -> String {
        let (away, here) = (free_port(), self.sentinel.port);
        format!(
            "redis+sentinel://:{PASSWORD}@127.0.0.1:{away},127.0.0.1:{here}/main?sentinelPasswordFile={}",
            password_file.display()
        )
    }
}

/// Two masters with half of the keys each, and a replica of each.
pub(crate) struct Cluster {
    /// Masters and replicas, in pairs.
    pub(crate) pairs: Vec<(Redis, Redis)>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let ports: Vec<String> = (0..4).map(|_| free_port().to_string()).collect();
        let start = |at: usize| {
            member(&["--cluster-enabled".into(), "yes".into(), "--cluster-port".into(), ports[at].clone()])
        };
        let all: Vec<Redis> = (0..4).map(start).collect();
        all[0].command(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
        all[1].command(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
        for at in 1..4 {
            all[0].command(&["CLUSTER", "MEET", "127.0.0.1", &all[at].port.to_string(), &ports[at]]);
        }
        let info = |of: &Redis| of.ask(&["CLUSTER", "INFO"]).concat();
        wait_for("the Cluster", || {
            all.iter()
                .all(|one| info(one).contains("cluster_known_nodes:4") && info(one).contains("state:ok"))
        });
        for at in 2..4 {
            let id = all[at - 2].ask(&["CLUSTER", "MYID"]).concat();
            all[at].command(&["CLUSTER", "REPLICATE", &id]);
        }
        all[2..].iter().for_each(replicates);
        let mut all = all.into_iter();
        let (a, b) = (all.next().unwrap(), all.next().unwrap());
        let pairs = [a, b].into_iter().zip(all).collect();
        Self { pairs }
    }

    /// All of its members: a connection begins at one of those that are named.
    pub(crate) fn url(&self) -> String {
        let members = self.pairs.iter().flat_map(|(master, replica)| [master, replica]);
        let hosts: Vec<String> = members.map(|member| format!("127.0.0.1:{}", member.port)).collect();
        format!("redis+cluster://:{PASSWORD}@{}", hosts.join(","))
    }
}
