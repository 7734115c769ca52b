#![allow(clippy::unwrap_used)]

use http::{Request, request::Builder};

use super::*;

const REMEDY: Remedy = Remedy { hosts: "server.hosts", credentials: "server.auth" };

fn open() -> HostCheck {
    HostCheck::open(&["DMS.internal".to_owned(), "[fd00::1]".to_owned()], REMEDY)
}

fn status(rule: &HostCheck, request: Builder) -> u16 {
    let head = request.body(()).unwrap().into_parts().0;
    rule.check(&head).err().map_or(200, |refusal| refusal.status.as_u16())
}

fn with_host(rule: &HostCheck, host: &str) -> u16 {
    status(rule, Request::builder().header("host", host))
}

#[test]
fn only_loopback_and_configured_hosts_are_served_without_credentials() {
    let own = ["localhost", "LOCALHOST:9400", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9:1", "[::1]:9400"];
    let mapped = ["[::ffff:127.0.0.1]", "dms.internal", "dms.INTERNAL:80", "dms.internal.", "[fd00::1]:9400"];
    for host in own.into_iter().chain(mapped) {
        assert_eq!(with_host(&open(), host), 200, "{host}");
    }
    let foreign = ["evil.example", "evil.example:9400", "127.0.0.1.evil.example", "localhost.evil.example"];
    let nearly = ["notlocalhost", "10.0.0.1", "0.0.0.0", "[::]", "[fd00::2]", "a.dms.internal", "2130706433"];
    for host in foreign.into_iter().chain(nearly) {
        assert_eq!(with_host(&open(), host), 421, "{host}");
        assert_eq!(with_host(&HostCheck::guarded(), host), 200, "{host}");
    }
}

#[test]
fn a_request_has_exactly_one_host_of_the_right_form() {
    for rule in [open(), HostCheck::guarded()] {
        assert_eq!(status(&rule, Request::builder()), 400);
        assert_eq!(status(&rule, Request::builder().version(Version::HTTP_10)), 200);
        let double = Request::builder().header("host", "localhost").header("host", "localhost");
        assert_eq!(status(&rule, double), 400);
        for host in ["", "a b", "u@localhost", "localhost:x", "localhost:65536", "localhost/x", "[::1", ":80"] {
            assert_eq!(with_host(&rule, host), 400, "{host:?}");
        }
    }
}

#[test]
fn the_host_of_an_absolute_target_counts_too() {
    let request = |uri: &str| Request::builder().uri(uri).header("host", "localhost");
    assert_eq!(status(&open(), request("http://localhost:9400/")), 200);
    assert_eq!(status(&open(), request("http://evil.example/")), 421);
}

#[test]
fn web_pages_are_refused_without_credentials() {
    let request = |name: &str, value: &str| Request::builder().header("host", "localhost").header(name, value);
    for (name, value, expected) in [
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "", 403),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
    ] {
        assert_eq!(status(&open(), request(name, value)), expected, "{name}: {value}");
        assert_eq!(status(&HostCheck::guarded(), request(name, value)), 200, "{name}: {value}");
    }
    let double = request("sec-fetch-site", "none").header("sec-fetch-site", "cross-site");
    assert_eq!(status(&open(), double), 403);
}

#[test]
fn a_refusal_names_the_header_its_value_and_the_remedy() {
    let text = |rule: &HostCheck, name: &str, value: &str| {
        let request = Request::builder().header("host", "localhost");
        let mut head = request.body(()).unwrap().into_parts().0;
        head.headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        rule.check(&head).unwrap_err().text
    };
    assert_eq!(
        text(&open(), "host", "evil.example:1"),
        "Host is \"evil.example:1\": without credentials this address serves `localhost` and loopback addresses only; \
         add the name to server.hosts, or set server.auth"
    );
    assert_eq!(
        text(&open(), "sec-fetch-site", "cross-site"),
        "Sec-Fetch-Site is \"cross-site\": web pages may not use an address without credentials; \
         call it from a program, or set server.auth"
    );
    assert_eq!(
        text(&open(), "origin", "null"),
        "Origin is \"null\": web pages may not use an address without credentials; call it from a program, or set server.auth"
    );
}

#[test]
fn further_hosts_are_names_or_addresses() {
    for host in ["dms", "dms.internal", "dms_1", "10.0.0.1", "fd00::1", "[fd00::1]"] {
        assert!(is_host(host), "{host}");
    }
    for bad in ["", ".", "a b", "dms:9400", "http://dms", "*.internal", "10.0.0.1:1", "[fd00::1]:1"] {
        assert!(!is_host(bad), "{bad}");
    }
}

#[test]
fn addresses_of_traces_are_web_addresses_with_the_id() {
    for good in ["", "https://jaeger.example/trace/{trace_id}", "http://[::1]:3000/explore?t={trace_id}&s={span_id}"] {
        assert!(is_trace_url(good), "{good}");
    }
    for bad in [
        "https://jaeger.example/",
        "jaeger.example/{trace_id}",
        "javascript:alert('{trace_id}')",
        "https:///{trace_id}",
        "https://",
        "https://x/{trace_id}/{service}",
        "https://x/{trace_id}?a b",
        "https://x/\"{trace_id}",
    ] {
        assert!(!is_trace_url(bad), "{bad}");
    }
}

#[test]
fn base_paths_are_plain_segments() {
    for good in ["", "/", "/dms", "/dms/", "/a/b-c_d.e~f"] {
        assert!(is_base_path(good), "{good}");
    }
    for bad in ["dms", "//", "/a//b", "/../x", "/a b", "/<x>", "/a?b", "/{x}", "/%2e", "http://x/"] {
        assert!(!is_base_path(bad), "{bad}");
    }
}
