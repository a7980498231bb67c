//! The functions and operators there are and what they take and give: those of cel-go (`common/stdlib`, `ext`) and of
//! Kubernetes (`apiserver/pkg/cel/library`), as far as the interpreter has them.

use std::{collections::HashMap, sync::LazyLock};

use super::types::Type;

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Overload {
    /// Whether the first argument stands before the dot.
    member: bool,
    arguments: Vec<Type>,
    result: Type,
}

/// How a call turned out.
pub(super) enum Called {
    Gives(Type),
    /// There is no such function.
    Unknown,
    /// It does not take these.
    Unfit,
}

/// Whether a function has this name.
pub(super) fn known(name: &str) -> bool {
    FUNCTIONS.contains_key(name) || LOOSE.contains(&name)
}

/// Every function; operators are none.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let all = SIGNATURES.iter().flat_map(|(names, _)| names.split_whitespace()).chain(LOOSE.iter().copied());
    all.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Calls a function with these arguments, the target of a member call first.
pub(super) fn call(name: &str, member: bool, arguments: &[Type]) -> Called {
    if LOOSE.contains(&name) {
        return Called::Gives(Type::Dyn);
    }
    let Some(overloads) = FUNCTIONS.get(name) else { return Called::Unknown };
    let mut given: Option<Type> = None;
    for overload in overloads.iter().filter(|overload| overload.member == member) {
        let Some(result) = overload.fits(arguments) else { continue };
        // With more than one that fits, only running it tells.
        given = Some(match given {
            Some(before) if before != result => Type::Dyn,
            Some(before) => before,
            None => result,
        });
    }
    given.map_or(Called::Unfit, Called::Gives)
}

impl Overload {
    fn fits(&self, arguments: &[Type]) -> Option<Type> {
        if arguments.len() != self.arguments.len() {
            return None;
        }
        let mut bound = HashMap::new();
        let all =
            self.arguments.iter().zip(arguments).all(|(wanted, given)| assign(wanted, given, &mut bound));
        all.then(|| bind(&self.result, &bound))
    }
}

fn assign(wanted: &Type, given: &Type, bound: &mut HashMap<char, Type>) -> bool {
    match (wanted, given) {
        (Type::Param(name), given) => {
            let joined = match bound.get(name) {
                None => Some(given.clone()),
                Some(before) => before.join(given),
            };
            let fits = joined.is_some();
            bound.extend(joined.map(|joined| (*name, joined)));
            fits
        }
        (Type::Dyn, _) | (_, Type::Dyn | Type::Free) => true,
        (Type::List(wanted), Type::List(given)) | (Type::Optional(wanted), Type::Optional(given)) => {
            assign(wanted, given, bound)
        }
        (Type::Map(key, value), Type::Map(given_key, given_value)) => {
            assign(key, given_key, bound) && assign(value, given_value, bound)
        }
        // An object is indexed as the map that it is.
        (Type::Map(..), Type::Object(_) | Type::Record(_)) => true,
        (wanted, given) => wanted.join(given).is_some(),
    }
}

fn bind(of: &Type, bound: &HashMap<char, Type>) -> Type {
    match of {
        Type::Param(name) => bound.get(name).cloned().unwrap_or(Type::Dyn),
        Type::List(of) => Type::list(bind(of, bound)),
        Type::Map(key, value) => Type::Map(Box::new(bind(key, bound)), Box::new(bind(value, bound))),
        Type::Optional(of) => Type::optional(bind(of, bound)),
        other => other.clone(),
    }
}

/// Functions that take what they are given: of many numbers of arguments or kinds of numbers.
const LOOSE: &[&str] = &[
    "max",
    "min",
    "base64.decode",
    "base64.encode",
    "jsonpatch.escapeKey",
    "first",
    "last",
    "flatten",
    "isIPv4",
    "isIPv6",
    "isCIDRv4",
    "isCIDRv6",
    "math.abs",
    "math.bitAnd",
    "math.bitNot",
    "math.bitOr",
    "math.bitShiftLeft",
    "math.bitShiftRight",
    "math.bitXor",
    "math.ceil",
    "math.floor",
    "math.greatest",
    "math.isFinite",
    "math.isInf",
    "math.isNaN",
    "math.least",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
];

static FUNCTIONS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for (names, signatures) in SIGNATURES {
        for name in names.split_whitespace() {
            functions.entry(name).or_default().extend(signatures.split(';').map(overload));
        }
    }
    functions
});

/// Names, and the ways to call each: `TARGET.(ARGUMENT, ...) RESULT`, apart by semicolons. `A` and `B` stand for any type.
const SIGNATURES: &[(&str, &str)] = &[
    ("_&&_ _||_", "(bool, bool) bool"),
    ("!_ @not_strictly_false", "(bool) bool"),
    ("_?_:_", "(bool, A, A) A"),
    ("_==_ _!=_", "(A, A) bool"),
    (
        "_<_ _<=_ _>_ _>=_",
        "(bool, bool) bool; (int, int) bool; (int, uint) bool; (int, double) bool; (uint, uint) bool; \
         (uint, int) bool; (uint, double) bool; (double, double) bool; (double, int) bool; (double, uint) bool; \
         (string, string) bool; (bytes, bytes) bool; (timestamp, timestamp) bool; (duration, duration) bool",
    ),
    (
        "_+_",
        "(int, int) int; (uint, uint) uint; (double, double) double; (string, string) string; (bytes, bytes) bytes; \
         (list(A), list(A)) list(A); (timestamp, duration) timestamp; (duration, timestamp) timestamp; \
         (duration, duration) duration",
    ),
    (
        "_-_",
        "(int, int) int; (uint, uint) uint; (double, double) double; (timestamp, timestamp) duration; \
         (timestamp, duration) timestamp; (duration, duration) duration",
    ),
    ("_*_ _/_", "(int, int) int; (uint, uint) uint; (double, double) double"),
    ("_%_", "(int, int) int; (uint, uint) uint"),
    ("-_", "(int) int; (double) double; (duration) duration"),
    (
        "_[_]",
        "(list(A), int) A; (map(A, B), A) B; (optional(list(A)), int) optional(A); \
         (optional(map(A, B)), A) optional(B)",
    ),
    (
        "_[?_]",
        "(list(A), int) optional(A); (map(A, B), A) optional(B); (optional(list(A)), int) optional(A); \
         (optional(map(A, B)), A) optional(B)",
    ),
    ("@in", "(A, list(A)) bool; (A, map(A, B)) bool"),
    (
        "size",
        "(string) int; (bytes) int; (list(A)) int; (map(A, B)) int; string.() int; bytes.() int; list(A).() int; \
         map(A, B).() int",
    ),
    ("bool", "(bool) bool; (string) bool"),
    ("bytes", "(bytes) bytes; (string) bytes"),
    ("double", "(double) double; (int) double; (uint) double; (string) double"),
    ("duration", "(duration) duration; (int) duration; (string) duration"),
    ("dyn type", "(A) dyn"),
    ("int", "(int) int; (uint) int; (double) int; (string) int; (timestamp) int; (duration) int"),
    ("uint", "(uint) uint; (int) uint; (double) uint; (string) uint"),
    (
        "string",
        "(string) string; (bool) string; (bytes) string; (double) string; (duration) string; (int) string; \
         (uint) string; (timestamp) string; (IP) string; (CIDR) string",
    ),
    ("timestamp", "(timestamp) timestamp; (int) timestamp; (string) timestamp"),
    ("contains startsWith endsWith", "string.(string) bool"),
    ("matches", "(string, string) bool; string.(string) bool"),
    (
        "getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear getMonth",
        "timestamp.() int; timestamp.(string) int",
    ),
    (
        "getHours getMilliseconds getMinutes getSeconds",
        "timestamp.() int; timestamp.(string) int; duration.() int",
    ),
    ("optional.none", "() optional(dyn)"),
    ("optional.of optional.ofNonZeroValue", "(A) optional(A)"),
    ("@values", "(optional(A)) list(A)"),
    ("@first", "(list(A)) optional(A)"),
    ("@mapInsert", "(map(A, B), A, B) map(A, B); (map(A, B), map(A, B)) map(A, B)"),
    ("hasValue", "optional(A).() bool"),
    ("value", "optional(A).() A"),
    ("or", "optional(A).(optional(A)) optional(A)"),
    ("orValue", "optional(A).(A) A"),
    ("charAt", "string.(int) string"),
    ("indexOf lastIndexOf", "string.(string) int; string.(string, int) int; list(A).(A) int"),
    ("join", "list(string).() string; list(string).(string) string"),
    ("lowerAscii upperAscii trim", "string.() string"),
    ("reverse", "string.() string; list(A).() list(A)"),
    ("replace", "string.(string, string) string; string.(string, string, int) string"),
    ("split", "string.(string) list(string); string.(string, int) list(string)"),
    ("substring", "string.(int) string; string.(int, int) string"),
    ("format", "string.(list(dyn)) string"),
    ("strings.quote", "(string) string"),
    ("find", "string.(string) string"),
    ("findAll", "string.(string) list(string); string.(string, int) list(string)"),
    ("isSorted", "list(A).() bool"),
    ("sum", "list(A).() A"),
    ("distinct sort", "list(A).() list(A)"),
    ("slice", "list(A).(int, int) list(A)"),
    ("lists.range", "(int) list(int)"),
    ("sets.contains sets.equivalent sets.intersects", "(list(A), list(A)) bool"),
    ("url", "(string) URL"),
    ("isURL isIP isCIDR isQuantity ip.isCanonical", "(string) bool"),
    ("getScheme getHost getHostname getPort getEscapedPath", "URL.() string"),
    ("getQuery", "URL.() map(string, list(string))"),
    ("ip", "(string) IP; CIDR.() IP"),
    ("family", "IP.() int"),
    ("isLoopback isUnspecified isLinkLocalMulticast isLinkLocalUnicast isGlobalUnicast", "IP.() bool"),
    ("cidr", "(string) CIDR"),
    ("containsIP", "CIDR.(string) bool; CIDR.(IP) bool"),
    ("containsCIDR", "CIDR.(string) bool; CIDR.(CIDR) bool"),
    ("prefixLength", "CIDR.() int"),
    ("masked", "CIDR.() CIDR"),
    ("quantity", "(string) Quantity"),
    ("isInteger", "Quantity.() bool"),
    ("asInteger sign", "Quantity.() int"),
    ("asApproximateFloat", "Quantity.() double"),
    ("add sub", "Quantity.(Quantity) Quantity; Quantity.(int) Quantity"),
    ("isGreaterThan isLessThan", "Quantity.(Quantity) bool; Semver.(Semver) bool"),
    ("compareTo", "Quantity.(Quantity) int; Semver.(Semver) int"),
    ("semver", "(string) Semver; (string, bool) Semver"),
    ("isSemver", "(string) bool; (string, bool) bool"),
    ("major minor patch", "Semver.() int"),
    (
        "format.dns1123Label format.dns1123Subdomain format.dns1035Label format.qualifiedName \
         format.dns1123LabelPrefix format.dns1123SubdomainPrefix format.dns1035LabelPrefix format.labelValue \
         format.uri format.uuid format.byte format.date format.datetime",
        "() NamedFormat",
    ),
    ("format.named", "(string) optional(NamedFormat)"),
    ("validate", "NamedFormat.(string) optional(list(string))"),
    ("path", "Authorizer.(string) PathCheck"),
    ("group", "Authorizer.(string) GroupCheck"),
    ("serviceAccount", "Authorizer.(string, string) Authorizer"),
    ("resource", "GroupCheck.(string) ResourceCheck"),
    ("subresource namespace name fieldSelector labelSelector", "ResourceCheck.(string) ResourceCheck"),
    ("check", "PathCheck.(string) Decision; ResourceCheck.(string) Decision"),
    ("allowed errored", "Decision.() bool"),
    ("reason error", "Decision.() string"),
];

/// Types that only functions know, and what upstream's errors call them.
const OPAQUE: &[(&str, &str)] = &[
    ("Authorizer", "kubernetes.authorization.Authorizer"),
    ("CIDR", "net.CIDR"),
    ("Decision", "kubernetes.authorization.Decision"),
    ("GroupCheck", "kubernetes.authorization.GroupCheck"),
    ("IP", "net.IP"),
    ("NamedFormat", "kubernetes.NamedFormat"),
    ("PathCheck", "kubernetes.authorization.PathCheck"),
    ("Quantity", "kubernetes.Quantity"),
    ("ResourceCheck", "kubernetes.authorization.ResourceCheck"),
    ("Semver", "kubernetes.Semver"),
    ("URL", "kubernetes.URL"),
];

/// The type that `authorizer` has, and that of `authorizer.requestResource`.
pub(super) fn opaque(name: &str) -> Type {
    let known = OPAQUE.iter().find(|(short, _)| *short == name);
    known.map_or(Type::Dyn, |(_, name)| Type::Opaque(name))
}

fn overload(signature: &str) -> Overload {
    let mut rest = signature.trim();
    let member = !rest.starts_with('(');
    let mut arguments = Vec::new();
    if member {
        arguments.push(read(&mut rest));
        skip(&mut rest, ".");
    }
    skip(&mut rest, "(");
    while !rest.starts_with(')') && !rest.is_empty() {
        arguments.push(read(&mut rest));
        skip(&mut rest, ",");
    }
    skip(&mut rest, ")");
    Overload { member, arguments, result: read(&mut rest) }
}

fn skip(rest: &mut &str, sign: &str) {
    *rest = rest.trim_start();
    *rest = rest.strip_prefix(sign).unwrap_or(rest).trim_start();
}

fn read(rest: &mut &str) -> Type {
    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    let mut inner = |count: usize| -> Vec<Type> {
        skip(rest, "(");
        let of = (0..count).map(|_| {
            let of = read(rest);
            skip(rest, ",");
            of
        });
        let of = of.collect();
        skip(rest, ")");
        of
    };
    let boxed = |of: Option<Type>| Box::new(of.unwrap_or(Type::Dyn));
    match word {
        "dyn" => Type::Dyn,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "list" => Type::List(boxed(inner(1).pop())),
        "optional" => Type::Optional(boxed(inner(1).pop())),
        "map" => {
            let mut both = inner(2).into_iter();
            Type::Map(boxed(both.next()), boxed(both.next()))
        }
        word => match word.chars().next() {
            Some(name) if word.len() == 1 => Type::Param(name),
            _ => opaque(word),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_as_they_are_written() {
        let written: Vec<String> = SIGNATURES
            .iter()
            .flat_map(|(_, signatures)| signatures.split(';'))
            .filter(|one| !OPAQUE.iter().any(|(short, _)| one.contains(short)))
            .map(|one| one.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let shown = |one: &String| {
            let Overload { member, arguments, result } = overload(one);
            let all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let (target, rest) = all.split_at(usize::from(member));
            let dot = if member { "." } else { "" };
            format!("{}{dot}({}) {result}", target.concat(), rest.join(", "))
                .replace("optional_type", "optional")
        };
        assert_eq!(written.iter().map(shown).collect::<Vec<_>>(), written);
        assert_eq!(overload("CIDR.() IP").result.to_string(), "net.IP");
    }
}
