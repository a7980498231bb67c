//! The page: three files that are part of the program, and headers under which nothing else is loaded, run
//! or framed.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};

use crate::answer::bytes_response;

/// A file of the page.
pub(crate) fn file(path: &str) -> Option<Response<Bytes>> {
    let (content_type, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "/page.js" => ("text/javascript; charset=utf-8", include_str!("page/page.js")),
        "/page.css" => ("text/css; charset=utf-8", include_str!("page/page.css")),
        _ => return None,
    };
    Some(bytes_response(200, content_type, Bytes::from_static(text.as_bytes())))
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Headers of every answer to those who look on.
pub(crate) fn protect(response: &mut Response<Bytes>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(opener, HeaderValue::from_static("same-origin"));
    let resource = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(resource, HeaderValue::from_static("same-origin"));
}
