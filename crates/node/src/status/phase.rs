//! `status.phase` from the container statuses (upstream `getPhase`).

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use crate::pod;

/// Whether the container does not run and never did, or has ended.
pub(super) fn is_down(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_none_or(|state| state.running.is_none())
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let terminated =
        |state: &Option<ContainerState>| state.as_ref()?.terminated.as_ref().map(|t| t.exit_code);
    terminated(&status.state).or_else(|| terminated(&status.last_state))
}

/// `ended` says that nothing of the pod will run again.
pub(super) fn phase(
    want: &Pod,
    ended: bool,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> &'static str {
    let policy = pod::restart_policy(want);
    if ended {
        let regular = pod::init(want).filter(|member| member.role == runtime::action::Role::Init);
        let names: Vec<&str> = regular.map(|member| member.container.name.as_str()).collect();
        let init_ok =
            init.iter().filter(|s| names.contains(&s.name.as_str())).all(|s| exit_code(s) == Some(0));
        let main_ok = main.iter().all(|status| exit_code(status) == Some(0));
        return if init_ok && main_ok { "Succeeded" } else { "Failed" };
    }
    let begun = main.iter().any(|s| s.restart_count > 0 || exit_code(s).is_some() || !is_down(s));
    if !begun {
        let failed = pod::init(want).zip(init).any(|(member, status)| {
            let code = status.state.as_ref().and_then(|state| state.terminated.as_ref()).map(|t| t.exit_code);
            code.is_some_and(|code| code != 0 && !pod::restarts(want, member, code))
        });
        return if failed { "Failed" } else { "Pending" };
    }
    let running = main.iter().any(|status| !is_down(status));
    let unborn = main.iter().any(|status| is_down(status) && exit_code(status).is_none());
    if unborn {
        return "Pending";
    }
    if running {
        return "Running";
    }
    let all_ok = main.iter().all(|status| exit_code(status) == Some(0));
    match policy {
        "Always" => "Running",
        _ if all_ok => "Succeeded",
        "Never" if pod::main(want).all(|m| m.container.restart_policy.is_none()) => "Failed",
        _ => "Running",
    }
}
