use std::fs;

use super::*;
use crate::{
    auth::{Ask, Asked, decide},
    testing::Objects,
    testing_webhook::{Hook, Reply},
};

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";

fn parse(members: &str) -> Result<AuthorizationConfiguration, String> {
    AuthorizationConfiguration::parse(&format!("{HEAD}authorizers: [{members}]"))
}

const REST: &str = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, \
                    connectionInfo: {type: KubeConfigFile, kubeConfigFile: FILE}";

/// A webhook with `REST`, in which `from` is replaced.
fn webhook(file: &Path, from: &str, to: &str) -> String {
    let rest = REST.replace(from, to).replace("FILE", &file.display().to_string());
    format!("{{type: Webhook, name: a, webhook: {{{rest}}}}}")
}

#[test]
fn what_is_wrong_is_said_as_upstream_does() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("kubeconfig");
    fs::write(&file, "").unwrap();
    let at = |from: &str, to: &str| webhook(&file, from, to);
    for (members, words) in [
        (String::new(), "authorizers: Required value: at least one authorization mode must be defined"),
        ("{name: a}".to_owned(), "authorizers[0].type: Required value"),
        ("{type: ABAC, name: a}".to_owned(), "authorizers[0].type: Unsupported value: \"ABAC\""),
        ("{type: RBAC}".to_owned(), "authorizers[0].name: Required value"),
        ("{type: RBAC, name: A}".to_owned(), "authorizer name is invalid: a lowercase RFC 1123 subdomain"),
        ("{type: RBAC, name: a}, {type: RBAC, name: b}".to_owned(), "authorizers[1].type: Duplicate value"),
        ("{type: RBAC, name: a}, {type: Node, name: a}".to_owned(), "authorizers[1].name: Duplicate value"),
        (
            "{type: Webhook, name: a}".to_owned(),
            "authorizers[0].webhook: Required value: required when type=Webhook",
        ),
        (at("x", "y").replace("type: Webhook", "type: RBAC"), "may only be specified when type=Webhook"),
        (at("timeout: 3s, ", ""), "authorizers[0].timeout: Required value"),
        (at("3s", "31s"), "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s"),
        (at("3s", "soon"), "authorizers[0].timeout: Invalid value: \"soon\""),
        (at("timeout", "authorizedTTL: x, timeout"), "authorizers[0].authorizedTTL: Invalid value"),
        (at("Version: v1", "Version: v2"), "subjectAccessReviewVersion: Unsupported value: \"v2\""),
        (at("failurePolicy: Deny, ", ""), "authorizers[0].failurePolicy: Required value"),
        (at("Deny", "Fail"), "supported values: \"NoOpinion\", \"Deny\""),
        (at("KubeConfigFile, ", "InClusterConfig, "), "connectionInfo.type: Unsupported value"),
        (
            at("FILE", "relative"),
            "connectionInfo.kubeConfigFile: Invalid value: \"relative\": must be an absolute path",
        ),
        (
            at("FILE", "/nowhere"),
            "connectionInfo.kubeConfigFile: Invalid value: \"/nowhere\": error loading file",
        ),
        (at("FILE", "/"), "must be a regular file"),
        (
            at("timeout", "matchConditions: [{expression: 'true'}], timeout"),
            "matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
        ),
        (
            at(
                "timeout",
                "matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: 'rq.x'}], timeout",
            ),
            "authorizers[0].matchConditions[0].expression: Invalid value: \"rq.x\": compilation failed: undeclared \
             reference to 'rq'",
        ),
        (
            at(
                "timeout",
                "matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: ' '}], timeout",
            ),
            "authorizers[0].matchConditions[0].expression: Required value",
        ),
        (at("timeout", "typo: 1, timeout"), "unknown field `typo`"),
    ] {
        let why = parse(&members).err().unwrap_or_default();
        assert!(why.contains(words), "{members}\n{why}\nwant: {words}");
    }
    for text in ["", "[]", "{", "kind: AuthorizationConfiguration\napiVersion: v1"] {
        assert!(AuthorizationConfiguration::parse(text).is_err(), "{text}");
    }
    assert!(parse(&at("x", "y")).is_ok());
}

#[tokio::test]
async fn the_row_is_as_the_file_says() {
    let hook = Hook::start(|_, body| {
        let denied = body["spec"]["user"] == "eve";
        Reply::Json(json!({"status": {"allowed": false, "denied": denied}}))
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("kubeconfig");
    let kubeconfig = json!({
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k"}}],
        "clusters": [{"name": "k", "cluster": {
            "server": format!("https://{}/authz", hook.address()), "certificate-authority-data": hook.ca()}}],
    });
    fs::write(&file, kubeconfig.to_string()).unwrap();
    let (node, rbac): (Arc<dyn Authorizer>, Arc<dyn Authorizer>) =
        (Arc::new(Always::Deny), Arc::new(Always::Allow));
    let parts = AuthorizerParts {
        node,
        rbac,
        client: Webhooks::new(Arc::new(Objects::default())),
        random: Arc::new(meta::Seeded::new(1)),
        clock: Arc::new(meta::Fixed::new(meta::Timestamp::UNIX_EPOCH)),
        decisions: Arc::default(),
    };
    let conditions = "matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: \
                      'has(request.resourceAttributes)'}], timeout";
    let members = webhook(&file, "timeout", conditions);
    let union = parse(&format!("{{type: Node, name: node}}, {members}, {{type: RBAC, name: rbac}}"));
    let union = union.unwrap().authorizers(&parts).unwrap();
    let user = |name: &str| resource::User { name: name.to_owned(), ..resource::User::default() };
    let (ann, eve) = (user("ann"), user("eve"));
    let pods = Asked::Resource {
        group: "",
        version: "v1",
        resource: "pods",
        subresource: "",
        namespace: "",
        name: "",
    };
    assert!(decide(&union, &Ask::new(&ann, "list", pods)).await.allows());
    assert!(!decide(&union, &Ask::new(&eve, "list", pods)).await.allows());
    assert!(decide(&union, &Ask::new(&eve, "get", Asked::Path("/livez"))).await.allows(), "not asked");
    assert_eq!(hook.calls().len(), 2);
    let mut out = meta::metrics::Exposition::default();
    parts.decisions.expose(&mut out);
    for (decision, name, kind, count) in [("allowed", "rbac", "RBAC", 2), ("denied", "a", "Webhook", 1)] {
        let line = format!("{{decision=\"{decision}\",name=\"{name}\",type=\"{kind}\"}} {count}\n");
        assert!(out.text().contains(&line), "{line}{}", out.text());
    }

    // A kubeconfig that cannot be used is told, and by which webhook.
    fs::write(&file, "{}").unwrap();
    let why = parse(&members).unwrap().authorizers(&parts).err().unwrap();
    assert!(why.starts_with("webhook \"a\": ") && why.contains("no configuration"), "{why}");
}
