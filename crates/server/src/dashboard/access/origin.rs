//! The rule for requests that web pages cause.
//!
//! Browsers add `Sec-Fetch-Site` to every request to an address of this machine or one with TLS, and pages cannot forge it. Older
//! browsers send `Origin` with forms.

use http::{HeaderValue, Method, header, request::Parts};

use crate::http::host_check::SEC_FETCH_SITE;

/// Whether a page of this dashboard may have caused the request.
///
/// Requests that change something need a proof of it: `Sec-Fetch-Site: same-origin`, or `Origin` with the host of the request where
/// `Sec-Fetch-Site` is missing.
pub(super) fn is_own(head: &Parts) -> bool {
    let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        let is_own = |site: &HeaderValue| site == "same-origin" || site == "none" && !changes(&head.method);
        return sites.all(is_own);
    }
    match head.headers.get(header::ORIGIN) {
        Some(origin) => is_host(origin, head),
        None => !changes(&head.method),
    }
}

/// Whether a request with this method can change something.
pub(in crate::dashboard) fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// Whether an origin has the host and port of the request.
fn is_host(origin: &HeaderValue, head: &Parts) -> bool {
    let origin = origin.to_str().ok();
    let host = origin.and_then(|origin| origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")));
    let own = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.zip(own).is_some_and(|(host, own)| host.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::Request;

    use super::*;

    fn own(method: &str, headers: &[(&str, &str)]) -> bool {
        let request = Request::builder().method(method).uri("/ui/").header("Host", "127.0.0.1:9401");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        is_own(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn changes_need_a_proof_that_the_page_is_ours() {
        assert!(own("GET", &[]) && own("GET", &[("sec-fetch-site", "none")]));
        assert!(own("GET", &[("sec-fetch-site", "same-origin")]));
        assert!(!own("GET", &[("sec-fetch-site", "cross-site")]));
        assert!(!own("POST", &[]) && !own("POST", &[("sec-fetch-site", "none")]));
        // With `Referrer-Policy: no-referrer` browsers send `Origin: null` for the dashboard's own forms.
        assert!(own("POST", &[("sec-fetch-site", "same-origin"), ("origin", "null")]));
        assert!(own("POST", &[("origin", "http://127.0.0.1:9401")]));
        for foreign in ["null", "http://127.0.0.1:9400", "http://evil.example", "http://127.0.0.1:9401.evil.example"] {
            assert!(!own("POST", &[("origin", foreign)]), "{foreign}");
        }
        for site in ["same-site", "cross-site", "", "same-origin, cross-site"] {
            assert!(!own("POST", &[("sec-fetch-site", site), ("origin", "http://127.0.0.1:9401")]), "{site}");
        }
        assert!(!own("DELETE", &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]));
    }
}
