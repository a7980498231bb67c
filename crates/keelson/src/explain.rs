//! `keelson explain pod`: why a pod went, or does not go, where.

use rpc::scheduler::{ExplainRequest, ExplainResponse, NodeVerdict, scheduler_client::SchedulerClient};

use crate::{
    cli::{ExplainCommand, ExplainPodOptions},
    error::Failure,
    line::{self, ANSWER_MAX},
    term,
};

/// Nodes shown unless all are asked for.
const NODES_SHOWN: usize = 20;

pub(crate) async fn explain(command: ExplainCommand) -> Result<(), Failure> {
    let ExplainCommand::Pod(ExplainPodOptions { name, namespace, all, reach, output }) = command;
    let line = line::connect(&reach).await?;
    let origin = line.origin.clone();
    let mut client = SchedulerClient::with_origin(line, origin).max_decoding_message_size(ANSWER_MAX);
    let request = ExplainRequest { namespace: namespace.clone(), name: name.clone() };
    let answer = client.explain(request).await;
    let told = answer
        .map_err(|status| line::refused(&format!("explain pod {namespace}/{name}"), &status))?
        .into_inner();
    match output {
        Some(output) => term::machine(&told, output),
        None => {
            term::line(&text(&told, if all { usize::MAX } else { NODES_SHOWN }));
            Ok(())
        }
    }
}

/// The answer for a reader.
fn text(told: &ExplainResponse, shown: usize) -> String {
    let mut lines = vec![format!("{} {}/{}", term::bold("pod"), told.namespace, told.name)];
    lines.push(format!("  {}", headline(told)));
    if !told.nominated_node.is_empty() {
        lines.push(format!("  room is being made on {}", told.nominated_node));
    }
    for text in [&told.message, &told.refusal].into_iter().filter(|text| !text.is_empty()) {
        lines.push(format!("  {text}"));
    }
    let fitting = told.nodes.iter().filter(|node| node.fits).count();
    if !told.nodes.is_empty() {
        let as_if = if told.node.is_empty() { "" } else { ", if it were placed now" };
        lines.push(term::bold(&format!("nodes: {fitting} of {} fit{as_if}", told.nodes.len())));
    }
    let width = told.nodes.iter().take(shown).map(|node| node.node.len()).max().unwrap_or(0);
    lines.extend(told.nodes.iter().take(shown).map(|node| row(node, width, node.node == told.node)));
    if told.nodes.len() > shown {
        lines.push(format!("  and {} more; --all shows them", told.nodes.len() - shown));
    }
    lines.join("\n")
}

fn headline(told: &ExplainResponse) -> String {
    if !told.node.is_empty() {
        return format!("{} is on {}", term::good("✓"), told.node);
    }
    let waits = match told.queue.as_str() {
        "" => "has no node, and this scheduler does not place it",
        "active" => "waits for its turn",
        "backoff" => "failed, and is tried again soon",
        "unschedulable" => "fits nowhere, and is tried again when something changes that could help",
        "gated" => "is held by its scheduling gates",
        _ => "is being bound",
    };
    format!("{} {waits}", term::warn("✗"))
}

fn row(node: &NodeVerdict, width: usize, here: bool) -> String {
    let name = format!("{:<width$}", node.node);
    if node.fits {
        let scores: Vec<String> = node
            .scores
            .iter()
            .filter(|s| s.score != 0)
            .map(|s| format!("{} {}", s.plugin, s.score))
            .collect();
        let mark = if here { " ← here" } else { "" };
        return format!(
            "  {} {name} {:>5}  {}{mark}",
            term::good("✓"),
            node.total,
            term::dim(&scores.join(", "))
        );
    }
    let why: Vec<String> =
        node.refused.iter().map(|r| format!("{}: {}", r.plugin, r.reasons.join(", "))).collect();
    format!("  {} {name}        {}", term::warn("✗"), why.join("; "))
}

#[cfg(test)]
mod tests {
    use rpc::scheduler::{PluginScore, Refusal};

    use super::*;

    fn verdict(node: &str, total: i64) -> NodeVerdict {
        let refused = (total == 0).then(|| Refusal {
            plugin: "NodeResourcesFit".into(),
            reasons: vec!["Insufficient cpu".into(), "Too many pods".into()],
        });
        NodeVerdict {
            node: node.into(),
            fits: total > 0,
            refused: refused.into_iter().collect(),
            scores: vec![PluginScore { plugin: "NodeResourcesFit".into(), score: total }],
            total,
        }
    }

    #[test]
    fn reads_well() {
        let mut told = ExplainResponse {
            namespace: "ns".into(),
            name: "p".into(),
            queue: "unschedulable".into(),
            message: "0/2 nodes are available: 2 Insufficient cpu.".into(),
            nodes: vec![verdict("a", 0), verdict("long-name", 0), verdict("third", 0)],
            ..ExplainResponse::default()
        };
        let shown = text(&told, 2);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "pod ns/p");
        assert!(lines[1].starts_with("  ✗ fits nowhere"));
        assert_eq!(lines[2], "  0/2 nodes are available: 2 Insufficient cpu.");
        assert_eq!(lines[3], "nodes: 0 of 3 fit");
        assert_eq!(lines[4], "  ✗ a                NodeResourcesFit: Insufficient cpu, Too many pods");
        assert_eq!(lines[6], "  and 1 more; --all shows them");
        told.node = "a".into();
        told.nodes = vec![verdict("a", 97)];
        let shown = text(&told, 9);
        assert!(
            shown.contains("✓ is on a") && shown.contains("1 of 1 fit, if it were placed now"),
            "{shown}"
        );
        assert!(shown.ends_with("✓ a    97  NodeResourcesFit 97 ← here"), "{shown}");
    }
}
