//! [`HostCheck`]: protects a listener without credentials from web pages.
//!
//! Every page in a browser on the same machine can reach a listener on loopback. Pages can send requests across sites, and a
//! name that resolves to 127.0.0.1 (DNS rebinding) lets them read the answers. Browsers cannot forge `Host`, and they add
//! `Origin` and `Sec-Fetch-Site`.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, Version, header, request::Parts, uri::Authority};

use dms_protocol::internal::json::quoted;

/// The header in which a browser says where a request comes from.
pub(crate) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The rule of one listener. Clones are cheap.
#[derive(Clone, Debug)]
pub struct HostCheck {
    /// `None` if the listener requires credentials. Then only the form of `Host` is checked.
    open: Option<Arc<Open>>,
}

#[derive(Debug)]
struct Open {
    /// Further names of the listener.
    hosts: Vec<String>,
    remedy: Remedy,
}

/// The configuration keys that a refusal names.
#[derive(Clone, Copy, Debug)]
pub struct Remedy {
    /// The key of the further names.
    pub hosts: &'static str,
    /// The key of the credentials.
    pub credentials: &'static str,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRefusal {
    /// 400 for a malformed `Host`, 421 for a foreign one, 403 for a web page.
    pub status: StatusCode,
    /// The header, its value, and the remedy.
    pub text: String,
}

impl HostCheck {
    /// The rule of a listener that requires credentials.
    pub fn guarded() -> Self {
        Self { open: None }
    }

    /// The rule of a listener without credentials. Callers may also use the names in `hosts`.
    pub fn open(hosts: &[String], remedy: Remedy) -> Self {
        let hosts = hosts.iter().map(|host| bare(host).to_owned()).collect();
        Self { open: Some(Arc::new(Open { hosts, remedy })) }
    }

    /// Checks the head of a request.
    ///
    /// # Errors
    /// The status and the text of the answer.
    pub fn check(&self, head: &Parts) -> Result<(), HostRefusal> {
        self.check_host(head)?;
        self.open.as_ref().map_or(Ok(()), |open| open.check_page(head))
    }

    /// Checks `Host` alone, for pages of the listener itself, which have a rule of their own for `Origin`.
    ///
    /// # Errors
    /// The status and the text of the answer.
    pub fn check_host(&self, head: &Parts) -> Result<(), HostRefusal> {
        let host = host(head)?;
        let Some(open) = &self.open else { return Ok(()) };
        host.iter().chain(head.uri.authority()).try_for_each(|host| open.check_host(host))
    }
}

impl Open {
    fn check_host(&self, host: &Authority) -> Result<(), HostRefusal> {
        let name = bare(host.host());
        if is_loopback(name) || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        let Remedy { hosts, credentials } = self.remedy;
        let text = format!(
            "Host is {}: without credentials this address serves `localhost` and loopback addresses only; add the name to \
             {hosts}, or set {credentials}",
            quoted(host.as_str())
        );
        Err(HostRefusal { status: StatusCode::MISDIRECTED_REQUEST, text })
    }

    /// Refuses requests that a browser sends for a page of another site.
    fn check_page(&self, head: &Parts) -> Result<(), HostRefusal> {
        let own = |site: &HeaderValue| matches!(site.as_bytes(), b"none" | b"same-origin");
        let origin = head.headers.get(header::ORIGIN).map(|value| ("Origin", value));
        let site = || head.headers.get_all(SEC_FETCH_SITE).iter().find(|site| !own(site));
        let Some((name, value)) = origin.or_else(|| site().map(|value| ("Sec-Fetch-Site", value))) else {
            return Ok(());
        };
        let value = quoted(&String::from_utf8_lossy(value.as_bytes()));
        let text = format!(
            "{name} is {value}: web pages may not use an address without credentials; call it from a program, or set {}",
            self.remedy.credentials
        );
        Err(HostRefusal { status: StatusCode::FORBIDDEN, text })
    }
}

/// The `Host` of a request. Only HTTP/1.0 may omit it.
fn host(head: &Parts) -> Result<Option<Authority>, HostRefusal> {
    let refuse = |text| Err(HostRefusal { status: StatusCode::BAD_REQUEST, text });
    let mut values = head.headers.get_all(header::HOST).iter();
    let value = match (values.next(), values.count()) {
        (Some(value), 0) => value,
        (Some(_), further) => {
            return refuse(format!("the request has {} Host headers: send one", further.saturating_add(1)));
        }
        (None, _) if head.version < Version::HTTP_11 => return Ok(None),
        (None, _) => return refuse("the request has no Host header: send one, as HTTP/1.1 requires".to_owned()),
    };
    match Authority::try_from(value.as_bytes()) {
        Ok(host) if !host.host().is_empty() && !host.as_str().contains('@') && has_port(&host) => Ok(Some(host)),
        _ => {
            let value = quoted(&String::from_utf8_lossy(value.as_bytes()));
            refuse(format!("Host is {value}: a host name or an address is needed, with or without a port"))
        }
    }
}

/// Whether the rest after the host is empty or a port.
fn has_port(host: &Authority) -> bool {
    let rest = host.as_str().strip_prefix(host.host()).unwrap_or_default();
    rest.strip_prefix(':').is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok())
}

/// A host without the brackets of an IPv6 address and the dot that ends an absolute name.
fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    inner.strip_suffix('.').unwrap_or(inner)
}

/// Whether a name or an address always refers to this machine (RFC 6761, 6.3, for names).
pub fn is_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let label = host.rsplit('.').next().unwrap_or_default();
    label.eq_ignore_ascii_case("localhost")
}

/// Whether `text` can be one of the further hosts: a name or an address without a port.
pub fn is_host(text: &str) -> bool {
    let name = bare(text);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    name.parse::<Ipv6Addr>().is_ok() || !name.is_empty() && name.len() <= 253 && name.bytes().all(legal)
}

/// Whether `path` can be the path under which a proxy serves a listener: empty, or segments of letters, digits, `-`, `_`, `.` and
/// `~`, each after a `/`.
pub fn is_base_path(path: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(legal);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.is_empty() || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

/// Whether `url` can be the address of a trace: empty, or an `http` or `https` URL in printable ASCII that has `{trace_id}`, and no
/// other braces but `{span_id}`.
pub fn is_trace_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let filled = url.replace("{trace_id}", "").replace("{span_id}", "");
    let is_legal = filled.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}\"<>\\^`|".contains(&byte));
    url.is_empty() || is_legal && url.contains("{trace_id}") && !rest.is_empty() && !rest.starts_with('/')
}

/// Refuses requests that break the rule, in plain text; a middleware.
pub async fn check(State(rule): State<HostCheck>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match rule.check(&head) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => (refusal.status, format!("{}\n", refusal.text)).into_response(),
    }
}

#[cfg(test)]
mod tests;
