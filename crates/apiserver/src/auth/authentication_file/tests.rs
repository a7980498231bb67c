use super::*;

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

/// `jwt` is the inside of one issuer in flow style.
fn one(jwt: &str) -> Result<AuthenticationConfiguration, String> {
    AuthenticationConfiguration::parse(&format!("{HEAD}jwt: [{{{jwt}}}]"), &["https://own".to_owned()])
}

const ISSUER: &str = "issuer: {url: 'https://a.example', audiences: [x]}";
const NAME: &str = "claimMappings: {username: {claim: sub, prefix: ''}}";

#[test]
fn a_whole_file_is_read() {
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let text = format!(
            r#"
apiVersion: apiserver.config.k8s.io/{version}
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://a.example
    discoveryURL: https://b.example/openid
    audiences: [x, z]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - {{claim: hd, requiredValue: example.com}}
  - {{expression: "claims.exp - claims.nbf <= 86400", message: too long}}
  claimMappings:
    username: {{expression: "'a:' + claims.email"}}
    groups: {{expression: "claims.roles.split(',')"}}
    uid: {{claim: sub}}
    extra:
    - {{key: example.org/verified, valueExpression: "string(claims.email_verified)"}}
  userValidationRules:
  - {{expression: "!user.username.startsWith('system:')", message: reserved}}
- issuer: {{url: "https://c.example", audiences: [z]}}
  claimMappings: {{username: {{claim: sub, prefix: "c:"}}}}
anonymous:
  enabled: true
  conditions: [{{path: /livez}}, {{path: /readyz}}]
"#
        );
        let read = AuthenticationConfiguration::parse(&text, &[]).unwrap_or_else(|why| panic!("{why}"));
        let paths = ["/livez", "/readyz"].map(str::to_owned).to_vec();
        assert_eq!(read.anonymous, Some(Anonymous::Paths(paths)));
        assert_eq!(read.issuers.len(), 2);
        assert_eq!(read.issuers[0].discovery_url.as_deref(), Some("https://b.example/openid"));
        assert_eq!(read.issuers[0].options.audiences, ["x", "z"]);
        let clock: Arc<dyn Clock> = Arc::new(meta::Fixed::new(meta::Timestamp::UNIX_EPOCH));
        assert_eq!(read.issuers(&clock).unwrap().len(), 2);
    }
    let empty = AuthenticationConfiguration::parse(HEAD, &[]).unwrap();
    assert!(empty.issuers.is_empty() && empty.anonymous.is_none(), "issuers may come later");
}

#[test]
fn what_is_wrong_is_said_as_upstream_does() {
    let audiences = |audiences: &str| format!("issuer: {{url: 'https://a.example', {audiences}}}, {NAME}");
    let url = |url: &str| format!("issuer: {{url: '{url}', audiences: [x]}}, {NAME}");
    let mappings = |mappings: &str| format!("{ISSUER}, claimMappings: {{{mappings}}}");
    let extra = |extra: &str| mappings(&format!("username: {{claim: sub, prefix: ''}}, extra: [{extra}]"));
    let rules = |rules: &str| format!("{ISSUER}, {NAME}, claimValidationRules: [{rules}]");
    let users = |rules: &str| format!("{ISSUER}, {NAME}, userValidationRules: [{rules}]");
    for (jwt, words) in [
        (url(""), "jwt[0].issuer.url: Required value"),
        (url("http://a"), "jwt[0].issuer.url: Invalid value: \"http://a\": URL scheme must be https"),
        (url("https://own"), "URL must not overlap with disallowed issuers: [https://own]"),
        (url("https://u:p@a"), "URL must not contain a username or password"),
        (url("https://a?b=c"), "URL must not contain a query"),
        (url("https://a#b"), "URL must not contain a fragment"),
        (audiences("discoveryURL: 'https://a.example/', audiences: [x]"), "must be different from URL"),
        (
            audiences("certificateAuthority: junk, audiences: [x]"),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\"",
        ),
        (audiences("audiences: []"), "Required value: at least one jwt[0].issuer.audiences is required"),
        (
            audiences("audiences: [x, x], audienceMatchPolicy: MatchAny"),
            "audiences[1]: Duplicate value: \"x\"",
        ),
        (audiences("audiences: [x, z]"), "audienceMatchPolicy must be MatchAny for multiple audiences"),
        (
            audiences("audiences: [x], audienceMatchPolicy: All"),
            "audienceMatchPolicy must be empty or MatchAny for single audience",
        ),
        (mappings(""), "jwt[0].claimMappings.username: Required value: claim or expression is required"),
        (mappings("username: {claim: a, expression: b}"), "claim and expression can't both be set"),
        (mappings("username: {claim: a}"), "prefix is required when claim is set"),
        (mappings("username: {expression: 'claims.a', prefix: x}"), "when expression is set"),
        (mappings("username: {expression: 'clams.a'}"), "undeclared reference to 'clams'"),
        (mappings("username: {expression: 'claims.email'}"), "claims.email_verified must be used"),
        (
            extra("{key: plain, valueExpression: 'claims.a'}"),
            "jwt[0].claimMappings.extra[0].key: Invalid value",
        ),
        (extra("{key: a.org/B, valueExpression: 'claims.a'}"), "must be lowercase"),
        (extra("{key: x.k8s.io/b, valueExpression: 'claims.a'}"), "are reserved for Kubernetes use"),
        (extra("{key: a.org/b}"), "jwt[0].claimMappings.extra[0].valueExpression: Required value"),
        (
            extra("{key: a.org/b, valueExpression: 'claims.a'}, {key: a.org/b, valueExpression: 'claims.b'}"),
            "extra[1].key: Duplicate value",
        ),
        (rules("{}"), "jwt[0].claimValidationRules[0]: Required value: claim or expression is required"),
        (
            rules("{claim: a, message: b}"),
            "message: Invalid value: \"b\": may not be specified when claim is set",
        ),
        (rules("{expression: 'true', requiredValue: b}"), "may not be specified when expression is set"),
        (rules("{expression: 'true'}, {expression: 'true'}"), "[1].expression: Duplicate value"),
        (rules("{claim: a}, {claim: a}"), "claimValidationRules[1].claim: Duplicate value: \"a\""),
        (users("{}"), "jwt[0].userValidationRules[0].expression: Required value"),
        (users("{expression: 'claims.a'}"), "undeclared reference to 'claims'"),
        (format!("{ISSUER}, {NAME}, typo: 1"), "unknown field `typo`"),
    ] {
        let why = one(&jwt).err().unwrap_or_default();
        assert!(why.contains(words), "{jwt}\n{why}\nwant: {words}");
    }
    for verified in ["claims.?email_verified.orValue(false)", "claims['email_verified']"] {
        let rule = rules(&format!("{{expression: \"{verified}\"}}"));
        let named = rule.replace("{claim: sub, prefix: ''}", "{expression: 'claims.email'}");
        assert_eq!(one(&named).err(), None, "{verified}");
    }
    let file = |rest: &str| AuthenticationConfiguration::parse(&format!("{HEAD}{rest}"), &[]).err();
    let conditions = file("anonymous: {enabled: false, conditions: [{path: /x}]}").unwrap();
    assert!(conditions.contains("enabled should be set to true when conditions are defined"), "{conditions}");
    let twice = format!("jwt: [{{{ISSUER}, {NAME}}}, {{{ISSUER}, {NAME}}}]");
    assert_eq!(file(&twice).unwrap(), "jwt[1].issuer.url: Duplicate value: \"https://a.example\"");
    let many = format!("jwt: [{}]", vec![format!("{{{ISSUER}, {NAME}}}"); 65].join(", "));
    assert_eq!(file(&many).unwrap(), "jwt: Too many: 65: must have at most 64 items");
    for text in
        ["", "[]", "kind: Pod\napiVersion: v1", "apiVersion: apiserver.config.k8s.io/v2\nkind: X", "{"]
    {
        assert!(AuthenticationConfiguration::parse(text, &[]).is_err(), "{text}");
    }
}
