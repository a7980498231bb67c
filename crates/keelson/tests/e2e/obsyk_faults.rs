//! Everything that a platform, and what stands before it, may answer: one agent and one platform for each, over
//! real sockets, all in one cluster. Each agent says what it meets, the others go on, and nothing is lost.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
};

use crate::{
    cluster::{Cluster, Runtime},
    obsyk::{Platform, agent, condition, deployment, differences, has_condition, secrets, wanted},
};

/// What is wrong, and what the agent says of it.
struct Case {
    name: &'static str,
    /// How the platform is started.
    arguments: &'static [&'static str],
    /// How it is started once it is healed.
    healed: &'static [&'static str],
    kind: &'static str,
    is: &'static str,
    /// A part of the message.
    says: &'static str,
}

const fn case(name: &'static str, arguments: &'static [&'static str]) -> Case {
    let (kind, is) = ("Available", "False PlatformUnavailable");
    Case { name, arguments, healed: &[], kind, is, says: "platform" }
}

/// The original contract, each change refused for what it says.
const PICKY: &[&str] = &["--no-batch", "--fault", "snapshot:413%100,events:422%100"];
const SMALL: &[&str] = &["--no-batch", "--fault", "snapshot:413%100"];
const STRANGER: &[&str] =
    &["--fault", "state:401%100,stream:401%100,heartbeat:401%100,events:401%100,snapshot:401%100"];

/// In the order of how long it takes until it is said.
const CASES: [Case; 11] = [
    Case { says: "503", ..case("down", &["--fault", "*:503%100"]) },
    Case { says: "429", ..case("busy", &["--fault", "*:429/2%100"]) },
    case("cut", &["--fault", "*:truncate%100"]),
    Case { says: "JSON", ..case("half", &["--fault", "*:half-body%100"]) },
    case("closed", &["--fault", "*:disconnect%100"]),
    Case {
        kind: "CredentialsValid",
        is: "False AuthenticationError",
        says: "401",
        ..case("stranger", STRANGER)
    },
    Case {
        kind: "CredentialsValid",
        is: "False AuthenticationError",
        says: "600 s behind",
        ..case("early", &["--fault", "token:clock/600%100"])
    },
    Case { is: "False UnexpectedAnswer", says: "redirects", ..case("moved", &["--fault", "*:redirect%100"]) },
    Case { kind: "Degraded", is: "True SnapshotRefused", says: "413", healed: SMALL, ..case("small", SMALL) },
    Case {
        kind: "Degraded",
        is: "True ChangesRefused",
        says: "refuses",
        healed: SMALL,
        ..case("picky", PICKY)
    },
    Case { says: "within 30 s", ..case("mute", &["--fault", "*:hang%100"]) },
];

#[test]
fn whatever_a_platform_answers_is_said_and_nothing_is_lost() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    let add = |name: &str, arguments: &[&str]| {
        let platform = Platform::start(arguments);
        cluster.apply(&format!("{}---\n{}", platform.register(name), agent(name, &platform.url)));
        platform
    };
    let mut platforms: Vec<Platform> = CASES.iter().map(|case| add(case.name, case.arguments)).collect();
    let sound = add("sound", &[]);
    let slow = add("slow", &["--fault", "*:slow/300%100"]);

    // Churn while all that is wrong.
    cluster.apply(&secrets());
    cluster.apply(&deployment("web", 5));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]);
    cluster.kubectl(&["delete", "service", "web"]);
    cluster.kubectl(&["scale", "deployment/web", "--replicas=2"]);

    for (case, platform) in CASES.iter().zip(&mut platforms) {
        let Case { name, arguments: _, healed, kind, is, says } = case;
        cluster.eventually(&format!("{name}: {kind} {is}, and {says:?}"), || {
            let [status, reason, message] = condition(&cluster, name, kind);
            let said = format!("{status} {reason}") == *is && message.contains(says);
            if said { Ok(()) } else { Err(format!("{status} {reason}: {message}")) }
        });
        platform.kill();
        platform.restart(healed);
    }
    let all = platforms.iter().zip(CASES.map(|case| case.name)).chain([(&sound, "sound"), (&slow, "slow")]);
    let all: Vec<_> = all.collect();
    cluster.eventually("every platform has everything", || {
        let wanted = wanted(&cluster);
        all.iter().try_for_each(|(platform, name)| {
            platform
                .known()
                .and_then(|known| differences(&known, &wanted))
                .map_err(|why| format!("{name}: {why}"))
        })
    });
    for (_, name) in &all {
        has_condition(&cluster, name, "Available", "True AgentRunning");
        let small = matches!(*name, "small" | "picky");
        let degraded = if small { "True SnapshotRefused" } else { "False AgentHealthy" };
        has_condition(&cluster, name, "Degraded", degraded);
        has_condition(&cluster, name, "CredentialsValid", "True Accepted");
    }
}

/// Passes connections on, from another address than the one the platform's certificate names.
fn elsewhere(platform: &Platform) -> String {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let to = platform.url.trim_start_matches("https://").to_owned();
    let pass = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Either end may go at any time; then so does the other.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            drop((from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write)));
        });
    };
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(&to) else { continue };
            pass(near.try_clone().unwrap(), far.try_clone().unwrap());
            pass(far, near);
        }
    });
    url
}

#[test]
fn a_certificate_that_is_not_the_platforms_is_said() {
    let platform = Platform::start(&[]);
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    let secret = platform.register("home");
    // Of an authority that nobody vouches for.
    let (without, _) = secret.split_once("  ca.crt:").unwrap();
    cluster.apply(without);
    cluster.apply(&agent("home", &platform.url));
    // And of another name.
    let other = secret.replace("name: home", "name: other");
    cluster.apply(&format!("{other}---\n{}", agent("other", &elsewhere(&platform))));
    for name in ["home", "other"] {
        let message = has_condition(&cluster, name, "Available", "False PlatformUnavailable");
        let says = if name == "home" { "ca.crt of the Secret" } else { "another host" };
        assert!(message.contains("certificate") && message.contains(says), "{name}: {message}");
    }
    cluster.kubectl(&["delete", "obsykagent", "other"]);
    cluster.apply(&secret);
    has_condition(&cluster, "home", "Available", "True AgentRunning");
}
