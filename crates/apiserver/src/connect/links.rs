//! Links of what is reached through a `proxy` subresource: they lead back through it, as upstream's `proxy.Transport` has
//! them. Paths in the attributes of HTML's start tags and in `Location` get the path of the proxy put in front.
//!
//! Guarantees: everything else passes byte by byte and as it comes; at most [`TAG_MAX`] bytes are held, longer tags pass as
//! they are. Not rewritten: what is compressed, for which reason browsers' pages are asked for without compression.

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{HeaderValue, Response, header};
use http_body_util::BodyStream;

use crate::http::Body;

/// Longest tag that is looked into. What is held is looked at again with each piece that comes, however small.
const TAG_MAX: usize = 16 << 10;

/// Attributes that are links, by the names of tags.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Tags whose content is no HTML until they end.
const RAW: &[&str] = &["script", "style", "textarea", "title", "xmp", "noembed", "noframes"];

/// Where a proxied server is, seen from both sides.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The path of the proxy, without a `/` at its end.
    pub(super) prefix: String,
    /// Host and port of the server that is proxied.
    pub(super) server: String,
    /// Host and port that the client asked.
    pub(super) asked: String,
}

impl Place {
    /// The link as the client has to follow it; `None` where that is as it is.
    fn rewritten(&self, link: &str) -> Option<String> {
        let (keep, path) = match link.split_once("://") {
            Some(("http" | "https", rest)) => {
                let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                let keep = if host == self.asked {
                    link.strip_suffix(path)?
                } else if host == self.server {
                    ""
                } else {
                    return None;
                };
                (keep, path)
            }
            _ if link.starts_with("//") => return None,
            _ => ("", link),
        };
        if !path.starts_with('/') {
            return None;
        }
        let prefix = if path.starts_with(&self.prefix) { "" } else { &self.prefix };
        (!prefix.is_empty() || keep.is_empty() && path != link).then(|| format!("{keep}{prefix}{path}"))
    }
}

/// Has the links of an answer lead back through the proxy.
pub(super) fn rewrite(mut answer: Response<Body>, place: Place) -> Response<Body> {
    let text = |name| answer.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(to) = text(header::LOCATION) {
        if let Some(Ok(to)) = place.rewritten(to).map(HeaderValue::try_from) {
            answer.headers_mut().insert(header::LOCATION, to);
        }
        return answer;
    }
    let media = text(header::CONTENT_TYPE).and_then(|media| media.split(';').next()).unwrap_or_default();
    let is_html = media.trim().eq_ignore_ascii_case("text/html");
    if !is_html || !matches!(text(header::CONTENT_ENCODING), None | Some("identity")) {
        return answer;
    }
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer.map(|body| {
        let pages = Page { place, held: Vec::new(), within: Within::Text };
        let frames = BodyStream::new(body).map(Some).chain(stream::iter([None]));
        Body::stream(frames.scan(pages, |page, frame| {
            let piece = match frame {
                Some(Ok(frame)) => Ok(Bytes::from(page.pass(&frame.into_data().unwrap_or_default()))),
                Some(Err(error)) => Err(error),
                None => Ok(Bytes::from(std::mem::take(&mut page.held))),
            };
            std::future::ready(Some(piece))
        }))
    })
}

/// HTML as it comes.
struct Page {
    place: Place,
    /// The beginning of what cannot be told yet.
    held: Vec<u8>,
    within: Within,
}

#[derive(Clone, Copy)]
enum Within {
    Text,
    Comment,
    Raw(&'static str),
}

/// What stands at the beginning of some HTML.
enum Next {
    /// That many bytes, and what comes after them.
    Passes(usize, Within),
    /// A tag of that many bytes.
    Tag(usize),
    /// More must come to tell.
    Unknown,
}

impl Page {
    /// What can be passed on now that these bytes have come.
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::with_capacity(held.len() + self.place.prefix.len());
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            let length = match next(rest, self.within) {
                Next::Passes(length, within) => {
                    self.within = within;
                    out.extend_from_slice(rest.get(..length).unwrap_or_default());
                    length
                }
                Next::Tag(length) => {
                    self.tag(rest.get(..length).unwrap_or_default(), &mut out);
                    length
                }
                Next::Unknown if rest.len() > TAG_MAX => {
                    out.extend_from_slice(rest);
                    rest.len()
                }
                Next::Unknown => break,
            };
            rest = rest.get(length..).unwrap_or_default();
        }
        self.held = rest.to_vec();
        out
    }

    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
        let name = tag.get(1..).unwrap_or_default();
        let name = name.split(is_end).next().unwrap_or_default();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if let Some(raw) = RAW.iter().find(|raw| is(raw)) {
            self.within = Within::Raw(raw);
        }
        let Some((_, links)) = LINKS.iter().find(|(known, _)| is(known)) else {
            out.extend_from_slice(tag);
            return;
        };
        let mut done = 0;
        for (attribute, from, to) in attributes(tag, 1 + name.len()) {
            let is_link = links.iter().any(|link| attribute.eq_ignore_ascii_case(link.as_bytes()));
            let value = tag.get(from..to).and_then(|value| std::str::from_utf8(value).ok());
            let Some(link) = value.filter(|_| is_link).and_then(|value| self.place.rewritten(value)) else {
                continue;
            };
            out.extend_from_slice(tag.get(done..from).unwrap_or_default());
            out.extend_from_slice(link.as_bytes());
            done = to;
        }
        out.extend_from_slice(tag.get(done..).unwrap_or_default());
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|at| at.eq_ignore_ascii_case(what))
}

fn next(rest: &[u8], within: Within) -> Next {
    // All but what may be the beginning of the end.
    let most = |end: usize, within| match rest.len().saturating_sub(end - 1) {
        0 => Next::Unknown,
        length => Next::Passes(length, within),
    };
    match within {
        Within::Comment => match find(rest, b"-->") {
            Some(at) => Next::Passes(at + 3, Within::Text),
            None => most(3, within),
        },
        Within::Raw(name) => match find(rest, format!("</{name}").as_bytes()) {
            Some(0) => Next::Passes(1, Within::Text),
            Some(at) => Next::Passes(at, within),
            None => most(2 + name.len(), within),
        },
        Within::Text => match rest.iter().position(|byte| *byte == b'<') {
            None => Next::Passes(rest.len(), within),
            Some(0) if rest.starts_with(b"<!--") => Next::Passes(4, Within::Comment),
            Some(0) if b"<!--".starts_with(rest) => Next::Unknown,
            Some(0) if !rest.get(1).is_some_and(u8::is_ascii_alphabetic) => Next::Passes(1, within),
            Some(0) => end_of_tag(rest).map_or(Next::Unknown, Next::Tag),
            Some(at) => Next::Passes(at, within),
        },
    }
}

/// Where a tag ends: behind the first `>` that is not quoted.
fn end_of_tag(tag: &[u8]) -> Option<usize> {
    let mut quoted = None;
    for (at, byte) in tag.iter().enumerate() {
        match (quoted, byte) {
            (None, b'"' | b'\'') => quoted = Some(*byte),
            (None, b'>') => return Some(at + 1),
            (Some(quote), byte) if quote == *byte => quoted = None,
            _ => {}
        }
    }
    None
}

/// The attributes of a tag that have a value: the name, and where the value is.
fn attributes(tag: &[u8], mut at: usize) -> Vec<(&[u8], usize, usize)> {
    let mut found = Vec::new();
    let skip = |from: usize, pass: &dyn Fn(&u8) -> bool| {
        from + tag.get(from..).unwrap_or_default().iter().take_while(|byte| pass(byte)).count()
    };
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    while at < tag.len() {
        let name = skip(at, &|byte| is_blank(byte) || *byte == b'/');
        let end = skip(name, &|byte| !is_blank(byte) && !matches!(byte, b'/' | b'>' | b'='));
        let equals = skip(end, &is_blank);
        if tag.get(equals) != Some(&b'=') {
            at = end.max(name + 1);
            continue;
        }
        let value = skip(equals + 1, &is_blank);
        let (from, to) = match tag.get(value) {
            Some(quote @ (b'"' | b'\'')) => (value + 1, skip(value + 1, &|byte| byte != quote)),
            _ => (value, skip(value, &|byte| !is_blank(byte) && *byte != b'>')),
        };
        found.push((tag.get(name..end).unwrap_or_default(), from, to));
        at = (to + 1).max(value + 1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            prefix: "/api/v1/namespaces/a/pods/p/proxy".into(),
            server: "10.0.0.1:80".into(),
            asked: "me:6443".into(),
        }
    }

    #[test]
    fn links_lead_back() {
        let prefix = place().prefix;
        for (link, expected) in [
            ("/a?b#c", Some(format!("{prefix}/a?b#c"))),
            ("/", Some(format!("{prefix}/"))),
            ("a/b", None),
            ("#x", None),
            ("", None),
            ("mailto:x", None),
            ("//elsewhere/x", None),
            ("http://elsewhere/x", None),
            ("http://10.0.0.1:80/x", Some(format!("{prefix}/x"))),
            ("https://me:6443/x", Some(format!("https://me:6443{prefix}/x"))),
            ("/api/v1/namespaces/a/pods/p/proxy/x", None),
            ("http://10.0.0.1:80/api/v1/namespaces/a/pods/p/proxy/x", Some(format!("{prefix}/x"))),
        ] {
            assert_eq!(place().rewritten(link), expected, "{link}");
        }
    }

    /// Whatever the pieces it comes in, a page is the same.
    #[test]
    fn pages_pass_but_for_their_links() {
        let page = concat!(
            r#"<!DOCTYPE html><html><a href="/x">1 < 2 <b></a><A class='c>' HREF = '/y' id=z/><img src=/i.png alt>"#,
            r#"<p href="/no"><a data-href="/no" href="no"><!-- <a href="/no"> --><script src="/s.js">"<a href='/no'>""#,
            r#"</script><a href="http://10.0.0.1:80/q?a=1&amp;b=2">x</a><br/><"#,
        );
        let prefix = place().prefix;
        let expected = page
            .replace(r#""/x""#, &format!("\"{prefix}/x\""))
            .replace("'/y'", &format!("'{prefix}/y'"))
            .replace("/i.png", &format!("{prefix}/i.png"))
            .replace("/s.js", &format!("{prefix}/s.js"))
            .replace("http://10.0.0.1:80/q", &format!("{prefix}/q"));
        for size in 1..page.len() {
            let mut passing = Page { place: place(), held: Vec::new(), within: Within::Text };
            let mut out: Vec<u8> =
                page.as_bytes().chunks(size).flat_map(|piece| passing.pass(piece)).collect();
            out.extend(passing.held);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut page = Page { place: place(), held: Vec::new(), within: Within::Text };
        let mut passed = page.pass(b"<a href=\"").len();
        for _ in 0..100 {
            passed += page.pass(&[b'x'; 1_000]).len();
            assert!(page.held.len() <= TAG_MAX);
        }
        assert!(passed > TAG_MAX / 2);
    }
}
