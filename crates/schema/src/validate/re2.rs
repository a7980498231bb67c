//! Patterns as Go reads them (RE2, `regexp/syntax`), in the syntax of the crate `regex`.
//!
//! They differ in little, but a CRD that upstream takes must be taken, and mean the same: Go's `\d`, `\w`, `\s` and `\b`
//! are ASCII only; in its classes `[`, `&&`, `--` and `~~` are plain characters, and so is a `]` that comes first; a `{` that
//! begins no repetition is one anywhere; `\Q` quotes until `\E`.

use std::{iter::Peekable, str::Chars};

/// What stands for a class of Perl's in a class: `\d` by its first letter. The large letter is what it leaves out.
const PERL: &[(char, &str)] = &[('d', "0-9"), ('w', "0-9A-Za-z_"), ('s', r"\t\n\f\r ")];

/// The same pattern for `regex`. What Go refuses may come out as anything that `regex` refuses, or reads in its own way.
pub(super) fn to_regex(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out),
            '[' => class(&mut rest, &mut out),
            '{' if !repeats(rest.clone()) => out.push_str(r"\{"),
            _ => out.push(c),
        }
    }
    out
}

/// Whether this ends `{2}`, `{2,}` or `{2,3}`.
fn repeats(rest: Peekable<Chars<'_>>) -> bool {
    let rest: String = rest.collect();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    rest.split_once('}').is_some_and(|(inner, _)| {
        let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
        number(least) && (most.is_empty() || number(most))
    })
}

/// What follows a backslash outside of classes.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match rest.next() {
        Some('Q') => {
            let text: String = rest.clone().collect();
            let quoted = text.split_once(r"\E").map_or(&*text, |(quoted, _)| quoted);
            out.push_str(&regex::escape(quoted));
            // Its end is passed over with it.
            rest.nth((quoted.chars().count() + 1).min(text.chars().count().saturating_sub(1)));
        }
        Some('b') => out.push_str(r"(?-u:\b)"),
        Some(c) => match perl(c) {
            Some((set, true)) => out.extend(["[^", set, "]"]),
            Some((set, false)) => out.extend(["[", set, "]"]),
            None => out.extend(['\\', c]),
        },
        None => out.push('\\'),
    }
}

/// What is in a class of Perl's, and whether it is what the class leaves out.
fn perl(c: char) -> Option<(&'static str, bool)> {
    let (_, set) = PERL.iter().find(|(letter, _)| letter.eq_ignore_ascii_case(&c))?;
    Some((set, c.is_ascii_uppercase()))
}

/// What follows the `[` of a class.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    // Whether the last one may be the first of a range.
    let mut open = false;
    while let Some(c) = rest.next() {
        let begins = std::mem::replace(&mut first, false);
        match c {
            ']' if !begins => return out.push(']'),
            '[' if rest.peek() == Some(&':') => open = !named(rest, out),
            '-' if open && rest.peek().is_some_and(|next| *next != ']') => {
                out.push('-');
                item(rest, out);
                open = false;
            }
            '\\' => open = escape_in_class(rest, out),
            _ => {
                plain(c, out);
                open = true;
            }
        }
    }
}

/// A name such as `[:alpha:]` after its bracket, and whether it is one: else the bracket is a plain one.
fn named(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> bool {
    let text: String = rest.clone().skip(1).collect();
    let Some((name, _)) = text.split_once(":]") else {
        plain('[', out);
        return false;
    };
    out.push('[');
    out.extend(rest.by_ref().take(name.chars().count() + 3));
    true
}

/// The last one of a range.
fn item(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match rest.next() {
        Some('\\') => drop(escape_in_class(rest, out)),
        Some(c) => plain(c, out),
        None => {}
    }
}

/// One character of a class that means nothing else.
fn plain(c: char, out: &mut String) {
    if matches!(c, '[' | ']' | '&' | '-' | '~' | '^') {
        out.push('\\');
    }
    out.push(c);
}

/// Whether what followed a backslash may be the first of a range.
fn escape_in_class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> bool {
    let Some(c) = rest.next() else {
        out.push('\\');
        return false;
    };
    match perl(c) {
        Some((set, true)) => out.extend(["[^", set, "]"]),
        Some((set, false)) => out.push_str(set),
        None => {
            out.extend(['\\', c]);
            // A number or a property in braces belongs to it.
            if rest.peek() == Some(&'{') {
                for c in rest.by_ref() {
                    out.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            return !c.eq_ignore_ascii_case(&'p');
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn patterns_mean_what_go_reads() {
        // Pattern, what it matches, and what it does not; from running Go's `regexp` on them.
        for (pattern, yes, no) in [
            (r"^[^][(){}]+$", &["abc"][..], &["a[", "a]", "(", ""][..]),
            (r"^[]a]+$", &["a]"], &["b"]),
            (r"^[[:alpha:][]+$", &["a["], &["1", ":"]),
            (r"^[a&&b]+$", &["a&b"], &["c"]),
            (r"^[+--]+$", &["+,-"], &["."]),
            (r"^[--/]+$", &["-./"], &[","]),
            (r"^[a-]+$", &["a-"], &["b"]),
            (r"^[\w-]+$", &["a_9-"], &["é", "a b"]),
            (r"^[\w.-]+$", &["a.b-c"], &["a/b"]),
            (r"^[^\d]$", &["a", "٣"], &["3"]),
            (r"^[\D]$", &["a", "٣"], &["3"]),
            (r"^\d+$", &["12"], &["٣", ""]),
            (r"^\w$", &["a"], &["é"]),
            (r"^\S+$", &["a\u{a0}b"], &["a b"]),
            (r"\bé", &["aé"], &["é"]),
            (r"^{a}$", &["{a}"], &["a"]),
            (r"^a{,2}$", &["a{,2}"], &["aa"]),
            (r"^a{1,2}$", &["a", "aa"], &["aaa"]),
            (r"^a{2,}$", &["aaa"], &["a"]),
            (r"^\$\{[a-z]+\}$", &["${ab}"], &["ab"]),
            (r"^\Qa.b[\E+$", &["a.b["], &["axb["]),
            (r"^\Qa.b", &["a.b"], &["axb"]),
            (r"^\Q\E$", &[""], &["Q"]),
            (r"^[\x{41}-\x{43}]$", &["B"], &["D"]),
            (r"^[\p{Greek}x]+$", &["αx"], &["a"]),
            (r"^\pL+$", &["é"], &["1"]),
            (r"^[\]\-]+$", &["]-"], &["\\"]),
            (r"^[a^]+$", &["^a"], &["b"]),
            (r"^~~[~~]$", &["~~~"], &["~~-"]),
            (r"^[[:alpha]+$", &["[:l"], &["z"]),
            (r"^[\d-a]+$", &["1-a"], &["b"]),
        ] {
            let regex = Regex::new(&to_regex(pattern));
            let regex = regex.unwrap_or_else(|why| panic!("{pattern} as {}: {why}", to_regex(pattern)));
            for text in yes {
                assert!(regex.is_match(text), "{pattern} as {regex} matches {text:?}");
            }
            for text in no {
                assert!(!regex.is_match(text), "{pattern} as {regex} does not match {text:?}");
            }
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in ["[", "[a", "[^", "(", r"\", r"[\", "[b-a]", "[[:alpha:", "{1}", "*", r"\h", r"[a-\d]"]
        {
            assert!(Regex::new(&to_regex(pattern)).is_err(), "{pattern} as {}", to_regex(pattern));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(pattern in r"[\[\]\\^{}:a-cQEdwDW&~,0-9-]{0,24}") {
            drop(Regex::new(&to_regex(&pattern)));
        }
    }
}
