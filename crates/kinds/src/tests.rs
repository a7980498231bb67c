//! The table as a whole.

use schema::Shape;

use super::*;

fn table() -> Vec<Resource> {
    all(&Options::default(), &Acts::default())
}

/// What a discovery client sees: one line for each kind.
#[test]
fn discovery() {
    let lines: Vec<String> = table()
        .iter()
        .map(|r| {
            let names = |names: &[Arc<str>]| names.join(",");
            let subresources: Vec<&str> = r.subresources.iter().map(|(name, _)| &**name).collect();
            format!(
                "{} {} {} {:?} short=[{}] categories=[{}] sub=[{}]",
                r.api_version(),
                r.plural,
                r.kind,
                r.scope,
                names(&r.short_names),
                names(&r.categories),
                subresources.join(",")
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// Numbers of the generated table that a careless change would move.
#[test]
fn zeros_are_read() {
    let schemas::Types { set, zeros } = schemas::read();
    let spec = set.find("io.k8s.api.core.v1.PodSpec").unwrap();
    assert!(zeros[&spec].contains("restartPolicy") && !zeros[&spec].contains("priority"));
    let role = set.find("io.k8s.api.rbac.v1.RoleRef").unwrap();
    assert!(zeros[&role].contains("apiGroup"), "typed clients always send it");
}

#[test]
fn every_kind_has_a_schema_and_columns() {
    // What is measured is only read, so nothing has to be known of its fields.
    for resource in table().into_iter().filter(|resource| resource.verbs.contains(&resource::Verb::Create)) {
        let Shape::Struct { properties, .. } = &resource.schema.node().shape else {
            panic!("{resource:?} has no schema");
        };
        assert!(properties.contains_key("metadata"), "{resource:?}");
        // What is only asked has no table.
        assert!(!resource.columns.is_empty() || resource.subresource("").is_some(), "{resource:?}");
        assert_eq!(resource.has_status(), resource.subresource("status").is_some());
    }
}

/// Every generated line is understood: no struct lost a field, no field points nowhere.
#[test]
fn generated_table_is_read_whole() {
    let types = types();
    let lines = include_str!("schemas.txt").lines();
    let fields = lines.filter(|line| line.starts_with(' ')).count();
    let mut read = 0;
    for (_, id) in types.named() {
        if let Shape::Struct { properties, .. } = &types.node(id).shape {
            read += properties.len();
        }
    }
    assert_eq!(read, fields);
    let volume = types.find("io.k8s.api.core.v1.Volume").unwrap();
    let Shape::Struct { properties, .. } = &types.node(volume).shape else { panic!("not a struct") };
    assert_eq!(properties["emptyDir"].protobuf, 2 << 16 | 2);
    assert_eq!(properties["name"].protobuf, 1);
}

/// Every line of the table of defaults names a field that exists and gives it its value.
#[test]
fn defaults_reach_their_fields() {
    let types = types();
    let lines = include_str!("defaults.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let (path, value) = line.split_once(' ').unwrap();
        let (of, field) = path.rsplit_once('.').unwrap();
        let suffix = format!(".{of}");
        let (_, id) = types.named().find(|(name, _)| name.ends_with(&suffix)).unwrap();
        let Shape::Struct { properties, .. } = &types.node(id).shape else { panic!("{path}") };
        let default = properties[field.trim_end_matches('~')].default.as_deref();
        assert_eq!(default, Some(&serde_json::from_str(value).unwrap()), "{path}");
    }
}

/// Headings as kubectl shows them; `*` marks those of `-o wide`.
#[test]
fn headings() {
    let lines: Vec<String> = table()
        .iter()
        .map(|kind| {
            let names = kind.columns.iter();
            let names: Vec<String> =
                names.map(|c| format!("{}{}", c.name, if c.priority > 0 { "*" } else { "" })).collect();
            format!("{} {}: {}", kind.api_version(), kind.plural, names.join(" | "))
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// No cell fails on an object that has nothing.
#[test]
fn cells_bear_emptiness() {
    let empty = meta::Object::default();
    for kind in table() {
        for column in &kind.columns {
            let cell = (column.cell)(&empty, meta::Timestamp::UNIX_EPOCH);
            assert!(!cell.is_object() && !cell.is_array(), "{kind:?} {}", column.name);
        }
    }
}
