//! What clients of a frontend are told: where it is, and lines that make Bazel use it. Pure.
//!
//! Bazel must ask for a platform and an instance name to the letter, so these come from the pools that the frontend's
//! schedulers have. What a scheduler of another namespace serves is not known here.

use kube::ResourceExt;

use crate::{
    observe::World,
    types::{BuildbarnFrontend, Platform, Route},
    validate,
    verdict::Wrong,
};

/// Port of the frontend.
const PORT: i32 = 8980;
/// Actions at a time, where Bazel would take the number of its own processors.
const JOBS: u32 = 64;

/// Where clients connect: what the user says, else the load balancer, else a node, else the Service's name.
pub(super) fn endpoint(world: &World<BuildbarnFrontend>) -> String {
    let (name, namespace, spec) = (world.name(), world.namespace(), &world.object.spec);
    let service = world.services.iter().find(|service| service.name_any() == name);
    let balancer = service
        .and_then(|service| service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first())
        .and_then(|ingress| ingress.hostname.as_ref().or(ingress.ip.as_ref()));
    let node_port = service
        .and_then(|service| service.spec.as_ref())
        .filter(|spec| spec.type_.as_deref() == Some("NodePort"))
        .and_then(|spec| spec.ports.as_ref()?.first()?.node_port);
    let at = |host: &str, port: i32| match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let address = match (&spec.external_host, balancer, node_port, &world.node_address) {
        (Some(given), ..) if has_port(given) => given.clone(),
        (Some(given), _, node_port, _) => at(given, node_port.unwrap_or(PORT)),
        (None, Some(balancer), ..) => at(balancer, PORT),
        (None, None, Some(port), Some(node)) => at(node, port),
        _ => at(&format!("{name}.{namespace}.svc.cluster.local"), PORT),
    };
    format!("{}://{address}", if spec.tls.is_some() { "grpcs" } else { "grpc" })
}

/// Whether a host was given with its port.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(before, port)| {
        port.parse::<u16>().is_ok() && (before.ends_with(']') || !before.contains(':'))
    })
}

/// Lines that make Bazel use the farm: `--config=remote` for the first pool by name, and a configuration for each
/// further platform, named after its pool.
pub(super) fn bazelrc(world: &World<BuildbarnFrontend>, endpoint: &str) -> String {
    let spec = &world.object.spec;
    if spec.cache_only == Some(true) {
        return line("build", &format!("--remote_cache={endpoint}"));
    }
    let mut text = String::new();
    for Target { config, instance_name, platform } in targets(world) {
        let command = format!("build:{config}");
        text.push_str(&line(&command, &format!("--remote_executor={endpoint}")));
        if !instance_name.is_empty() {
            text.push_str(&line(&command, &format!("--remote_instance_name={instance_name}")));
        }
        text.push_str(&line(&command, &format!("--jobs={JOBS}")));
        for property in platform.properties {
            let option = format!("--remote_default_exec_properties={}={}", property.name, property.value);
            text.push_str(&line(&command, &option));
        }
    }
    text
}

/// One line, with its option in quotes where Bazel would take it apart.
fn line(command: &str, option: &str) -> String {
    if option.contains(|c: char| c.is_whitespace() || "\"'\\#".contains(c)) {
        let option = option.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("{command} \"{option}\"\n");
    }
    format!("{command} {option}\n")
}

/// What a build can ask for.
struct Target {
    config: String,
    instance_name: String,
    platform: Platform,
}

fn targets(world: &World<BuildbarnFrontend>) -> Vec<Target> {
    let (farm, whole) = (&world.farm, [Route::default()]);
    let given = &world.object.spec.schedulers;
    let routes = if given.is_empty() { whole.as_slice() } else { given.as_slice() };
    let mut targets: Vec<Target> = Vec::new();
    for worker in &farm.workers {
        let Ok(scheduler) = farm.scheduler(worker.spec.scheduler_ref.as_ref()) else { continue };
        let mut wrong = Wrong::default();
        let pool = validate::pool(worker, Some(scheduler), &mut wrong);
        if !wrong.0.is_empty() {
            continue;
        }
        let reaches = |route: &&Route| {
            route.address.is_none()
                && farm
                    .scheduler(route.scheduler_ref.as_ref())
                    .is_ok_and(|of| of.name_any() == scheduler.name_any())
        };
        let Some(instance_name) =
            routes.iter().filter(reaches).find_map(|route| instance_name(route, &pool.prefix))
        else {
            continue;
        };
        let several = pool.runners.len() > 1;
        for runner in pool.runners {
            let known =
                |target: &Target| target.instance_name == instance_name && target.platform == runner.platform;
            if targets.iter().any(known) {
                continue;
            }
            let config = match (targets.is_empty(), several) {
                (true, _) => "remote".to_owned(),
                (false, false) => format!("remote-{}", worker.name_any()),
                (false, true) => format!("remote-{}-{}", worker.name_any(), runner.name),
            };
            targets.push(Target { config, instance_name: instance_name.clone(), platform: runner.platform });
        }
    }
    if targets.is_empty() {
        let first = routes.first().and_then(|route| route.instance_name_prefix.clone());
        let instance_name = first.unwrap_or_default();
        targets.push(Target { config: "remote".to_owned(), instance_name, platform: Platform::default() });
    }
    targets
}

/// The instance name by which a client of this route comes to a pool that serves `served` and what is below it, if it
/// can: the route's prefix is taken off, and another may be put on.
fn instance_name(route: &Route, served: &str) -> Option<String> {
    let text = |given: &Option<String>| given.clone().unwrap_or_default();
    let (taken, put) = (text(&route.instance_name_prefix), text(&route.add_instance_name_prefix));
    if below(&put, served).is_some() {
        return Some(taken);
    }
    let rest = below(served, &put)?;
    Some([taken.as_str(), rest].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
}

/// What is left of an instance name below a prefix.
fn below<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    match name.strip_prefix(prefix)? {
        rest if prefix.is_empty() || rest.is_empty() => Some(rest),
        rest => rest.strip_prefix('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_lead_through_a_route_to_a_pool() {
        let check = |taken: &str, put: &str, served: &str, wanted: Option<&str>| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let route = Route {
                instance_name_prefix: some(taken),
                add_instance_name_prefix: some(put),
                ..Route::default()
            };
            assert_eq!(instance_name(&route, served).as_deref(), wanted, "{taken} {put} {served}");
        };
        check("", "", "", Some(""));
        check("ci", "", "", Some("ci"));
        check("ci", "main", "", Some("ci"));
        check("", "", "team", Some("team"));
        check("ci", "", "team/a", Some("ci/team/a"));
        check("ci", "team", "team/a", Some("ci/a"));
        check("ci", "team/a", "team", Some("ci"));
        check("ci", "te", "team", None);
        check("ci", "other", "team", None);
    }

    #[test]
    fn options_that_bazel_would_take_apart_are_quoted() {
        assert_eq!(line("build", "--a=b"), "build --a=b\n");
        assert_eq!(line("build", "--a=b c\"#"), "build \"--a=b c\\\"#\"\n");
    }

    #[test]
    fn a_host_may_bring_its_port() {
        let all = ["a.b:443", "a.b", "[::1]:443", "::1", "[::1]"].map(has_port);
        assert_eq!(all, [true, false, true, false, false]);
    }
}
