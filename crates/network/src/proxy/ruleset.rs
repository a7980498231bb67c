//! The fragments of all services as one nftables table, and the scripts that bring the kernel from
//! what it holds to that.
//!
//! Guarantees: a script names only what changed; applied as one transaction it never leaves a moment
//! in which a service that exists before and after is not served. When two services claim the same
//! address and port, the first by namespace and name has it until it goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::Ipv4Addr,
};

use meta::ObjectKey;

use crate::proxy::{
    base::TABLE,
    plan::{Fragment, Front, Table},
};

/// What the table holds for services.
#[derive(Debug, Default)]
pub struct Ruleset {
    fragments: BTreeMap<ObjectKey, Fragment>,
    chains: BTreeMap<String, Vec<String>>,
    affinity: BTreeSet<String>,
    claims: BTreeMap<(Table, String), BTreeMap<ObjectKey, String>>,
    udp: BTreeMap<Front, BTreeMap<ObjectKey, BTreeSet<Ipv4Addr>>>,
    touched: Touched,
}

/// What the kernel holds of the things that were changed since the last script.
#[derive(Debug, Default)]
struct Touched {
    chains: BTreeMap<String, Option<Vec<String>>>,
    affinity: BTreeMap<String, bool>,
    elements: BTreeMap<(Table, String), Option<String>>,
    udp: BTreeMap<Front, BTreeSet<Ipv4Addr>>,
}

/// A change to carry out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// One transaction for `nft -f`; empty when nothing changed.
    pub script: String,
    /// Chains and sets that are out of use. They are empty, and can be deleted once the kernel has
    /// let go of the map elements that led to them.
    pub stale_chains: BTreeSet<String>,
    /// The same for sets.
    pub stale_sets: BTreeSet<String>,
    /// Connections to forget.
    pub flushes: Vec<Flush>,
}

/// Tracked UDP connections that no longer lead where they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flush {
    /// Where the client sends to.
    pub front: Front,
    /// Only those sent on to this endpoint.
    pub endpoint: Option<Ipv4Addr>,
}

impl Ruleset {
    /// Takes the new plan of one service; `None` when it is gone.
    pub fn replace(&mut self, service: &ObjectKey, fragment: Option<Fragment>) {
        let new = fragment.unwrap_or_default();
        let old = self.fragments.remove(service).unwrap_or_default();
        for name in old.chains.keys().chain(new.chains.keys()) {
            let before = self.chains.get(name);
            self.touched.chains.entry(name.clone()).or_insert_with(|| before.cloned());
        }
        for name in old.affinity.keys().chain(new.affinity.keys()) {
            let before = self.affinity.contains(name);
            self.touched.affinity.entry(name.clone()).or_insert(before);
        }
        for at in old.elements.keys().chain(new.elements.keys()) {
            let before = self.claims.get(at).and_then(winner);
            self.touched.elements.entry(at.clone()).or_insert_with(|| before.cloned());
        }
        for front in old.udp.keys().chain(new.udp.keys()) {
            let before = self.udp.get(front).and_then(winner);
            self.touched.udp.entry(*front).or_insert_with(|| before.cloned().unwrap_or_default());
        }
        for name in old.chains.keys() {
            self.chains.remove(name);
        }
        for name in old.affinity.keys() {
            self.affinity.remove(name);
        }
        for at in old.elements.keys() {
            withdraw(&mut self.claims, at, service);
        }
        for front in old.udp.keys() {
            withdraw(&mut self.udp, front, service);
        }
        self.chains.extend(new.chains.iter().map(|(name, rules)| (name.clone(), rules.clone())));
        self.affinity.extend(new.affinity.keys().cloned());
        for (at, verdict) in &new.elements {
            self.claims.entry(at.clone()).or_default().insert(service.clone(), verdict.clone());
        }
        for (front, endpoints) in &new.udp {
            self.udp.entry(*front).or_default().insert(service.clone(), endpoints.clone());
        }
        if new != Fragment::default() {
            self.fragments.insert(service.clone(), new);
        }
    }

    /// The script for what changed since the last one. The kernel is taken to hold what the last
    /// script said; after a failure take [`Ruleset::rewrite`].
    pub fn update(&mut self) -> Update {
        let touched = std::mem::take(&mut self.touched);
        let mut out = Update::default();
        let mut script = Script::default();
        for (name, before) in &touched.affinity {
            match (before, self.affinity.contains(name)) {
                (false, true) => script.affinity(name),
                (true, false) => {
                    out.stale_sets.insert(name.clone());
                }
                (true, true) | (false, false) => {}
            }
        }
        let written: Vec<(&String, &Vec<String>)> = touched
            .chains
            .iter()
            .filter_map(|(name, before)| {
                let now = self.chains.get(name)?;
                (before.as_ref() != Some(now)).then_some((name, now))
            })
            .collect();
        for (name, _) in &written {
            script.line(format_args!("add chain {TABLE} {name}"));
        }
        for (name, rules) in written {
            if touched.chains.get(name).is_some_and(Option::is_some) {
                script.line(format_args!("flush chain {TABLE} {name}"));
            }
            script.rules(name, rules);
        }
        for ((table, key), before) in &touched.elements {
            let now = self.claims.get(&(*table, key.clone())).and_then(winner);
            if before.as_ref() != now {
                if before.is_some() {
                    script.line(format_args!("delete element {TABLE} {} {{ {key} }}", table.name()));
                }
                if let Some(verdict) = now {
                    script.element(*table, key, verdict);
                }
            }
        }
        for (name, before) in touched.chains {
            if before.is_some() && !self.chains.contains_key(&name) {
                script.line(format_args!("flush chain {TABLE} {name}"));
                out.stale_chains.insert(name);
            }
        }
        for (front, before) in touched.udp {
            let now = self.udp.get(&front).and_then(winner);
            if before.is_empty() && now.is_some_and(|n| !n.is_empty()) {
                out.flushes.push(Flush { front, endpoint: None });
            }
            let gone = before.into_iter().filter(|ip| now.is_none_or(|n| !n.contains(ip)));
            out.flushes.extend(gone.map(|ip| Flush { front, endpoint: Some(ip) }));
        }
        out.script = script.0;
        out
    }

    /// The script that makes the table anew, whatever is there, in one transaction.
    pub fn rewrite(&mut self, base: &str) -> Update {
        self.touched = Touched::default();
        let mut script = Script(base.to_owned());
        for name in &self.affinity {
            script.affinity(name);
        }
        for name in self.chains.keys() {
            script.line(format_args!("add chain {TABLE} {name}"));
        }
        for (name, rules) in &self.chains {
            script.rules(name, rules);
        }
        for ((table, key), claims) in &self.claims {
            if let Some(verdict) = winner(claims) {
                script.element(*table, key, verdict);
            }
        }
        let flushes = self.udp.keys().map(|front| Flush { front: *front, endpoint: None }).collect();
        Update { script: script.0, flushes, ..Update::default() }
    }

    /// Whether a chain or set of this name is in use.
    pub fn uses(&self, name: &str) -> bool {
        self.chains.contains_key(name) || self.affinity.contains(name)
    }

    /// Number of services that need anything here.
    pub fn services(&self) -> usize {
        self.fragments.len()
    }
}

/// Deletes what went out of use.
pub(super) fn delete(chains: &BTreeSet<String>, sets: &BTreeSet<String>) -> String {
    let mut script = Script::default();
    for name in chains {
        script.line(format_args!("delete chain {TABLE} {name}"));
    }
    for name in sets {
        script.line(format_args!("delete set {TABLE} {name}"));
    }
    script.0
}

fn winner<T>(claims: &BTreeMap<ObjectKey, T>) -> Option<&T> {
    claims.first_key_value().map(|(_, claim)| claim)
}

fn withdraw<K: Ord, T>(claims: &mut BTreeMap<K, BTreeMap<ObjectKey, T>>, at: &K, service: &ObjectKey) {
    if let Some(of_services) = claims.get_mut(at) {
        of_services.remove(service);
        if of_services.is_empty() {
            claims.remove(at);
        }
    }
}

#[derive(Default)]
struct Script(String);

impl Script {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn rules(&mut self, chain: &str, rules: &[String]) {
        for rule in rules {
            self.line(format_args!("add rule {TABLE} {chain} {rule}"));
        }
    }

    fn affinity(&mut self, name: &str) {
        self.line(format_args!("add set {TABLE} {name} {{ type ipv4_addr; flags dynamic,timeout; }}"));
    }

    fn element(&mut self, table: Table, key: &str, verdict: &str) {
        if verdict.is_empty() {
            self.line(format_args!("add element {TABLE} {} {{ {key} }}", table.name()));
        } else {
            self.line(format_args!("add element {TABLE} {} {{ {key} : {verdict} }}", table.name()));
        }
    }
}

#[cfg(test)]
mod tests;
