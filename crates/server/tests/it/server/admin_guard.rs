//! An admin address that other machines can reach: a token, a certificate, and probes that need neither.

use dms_protocol::secret::Secret;
use dms_server::{Server, ServerConfig, ServerError, TlsFiles};
use reqwest::{Certificate, Client, Method, Response};
use tokio::sync::oneshot;

use super::admin;
use crate::{log::Log, pki::Pki};

const TOKEN: &str = "a token";

fn guarded(pki: &Pki) -> ServerConfig {
    admin::config().admin_token(Secret::from(TOKEN)).admin_tls(pki.files())
}

/// A running server whose admin address has both.
struct Running {
    server: String,
    _stop: oneshot::Sender<()>,
}

impl Running {
    async fn start(config: ServerConfig) -> Self {
        let server = Server::bind(config).await.unwrap();
        let url = server.admin_url().unwrap();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { server: url, _stop: stop }
    }

    async fn ask(&self, client: &Client, method: Method, path: &str, token: Option<&str>) -> Response {
        let request = client.request(method, format!("{}{path}", self.server));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.unwrap()
    }
}

/// A client that trusts the authority of these files as they are now.
fn client(pki: &Pki) -> Client {
    let authority = Certificate::from_pem(&std::fs::read(pki.path("ca.pem")).unwrap()).unwrap();
    Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap()
}

#[tokio::test]
async fn outside_of_loopback_the_admin_address_needs_a_token_and_a_certificate() {
    let pki = Pki::new();
    let outside = Some(([0, 0, 0, 0], 0).into());
    let both = || guarded(&pki).admin(outside).listen(None::<std::net::SocketAddr>);
    for config in [
        both().admin_token(None::<Secret>),
        both().admin_tls(None::<TlsFiles>),
        both().admin_token(None::<Secret>).admin_tls(None::<TlsFiles>),
    ] {
        let error = Server::bind(config).await.unwrap_err();
        assert!(matches!(error, ServerError::Config(_)), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("admin: `0.0.0.0:0` can be reached from outside and `admin_t"), "{text}");
    }
    for empty in ["", " "] {
        let error = Server::bind(both().admin_token(Secret::from(empty))).await.unwrap_err();
        assert_eq!(error.to_string(), "admin_token: is empty: set it, or leave it out");
    }
    let broken = TlsFiles { key: "/nonexistent/tls.key".into(), ..pki.files() };
    let error = Server::bind(both().admin_tls(broken)).await.unwrap_err();
    assert!(matches!(error, ServerError::Tls(_)), "{error}");
    Server::bind(both()).await.unwrap();
}

#[tokio::test]
async fn probes_need_no_token_and_everything_else_does() {
    let pki = Pki::new();
    let (server, client) = (Running::start(guarded(&pki)).await, client(&pki));
    assert!(server.server.starts_with("https://"), "{}", server.server);
    for path in ["/livez", "/readyz"] {
        assert_eq!(server.ask(&client, Method::GET, path, None).await.status(), 200, "{path}");
    }
    let group = "/admin/queues/q/groups/g/messages";
    let guarded = [
        (Method::GET, "/metrics"),
        (Method::GET, "/admin/queues"),
        (Method::GET, "/admin/damaged"),
        (Method::GET, "/admin/storage"),
        (Method::GET, group),
        (Method::POST, "/admin/damaged/skip?queue=orders"),
        (Method::POST, "/admin/backup?to=/nowhere"),
    ];
    for (method, path) in guarded {
        for token in [None, Some(""), Some("another")] {
            let answer = server.ask(&client, method.clone(), path, token).await;
            assert_eq!(answer.status(), 401, "{path}");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            let text = answer.text().await.unwrap();
            assert!(text.contains("DMS.10240101") && text.contains("server.admin_token"), "{path}: {text}");
        }
        let status = server.ask(&client, method, path, Some(TOKEN)).await.status();
        assert_ne!(status, 401, "{path}");
    }
    let metrics = server.ask(&client, Method::GET, "/metrics", Some(TOKEN)).await;
    assert!(metrics.text().await.unwrap().contains("dms_server_queue_messages"));

    let plain = server.server.replace("https", "http");
    Client::builder().no_proxy().build().unwrap().get(format!("{plain}/livez")).send().await.unwrap_err();
    let stranger = Pki::new();
    self::client(&stranger).get(format!("{}/livez", server.server)).send().await.unwrap_err();
}

/// The token alone is enough on loopback, and keeps out those whom the machine's other users and pages would let in.
#[tokio::test]
async fn on_loopback_the_admin_address_can_require_a_token_alone() {
    let server = Running::start(admin::config().admin_token(Secret::from(TOKEN))).await;
    let client = Client::builder().no_proxy().build().unwrap();
    assert!(server.server.starts_with("http://"), "{}", server.server);
    assert_eq!(server.ask(&client, Method::GET, "/metrics", None).await.status(), 401);
    assert_eq!(server.ask(&client, Method::GET, "/metrics", Some(TOKEN)).await.status(), 200);
    let answer = client.get(format!("{}/metrics", server.server)).header("Host", "dms.example").bearer_auth(TOKEN);
    assert_eq!(answer.send().await.unwrap().status(), 200, "who shows the token may use any name");
}

/// Anybody who reaches the address can send requests without the token: they cannot fill the log.
#[tokio::test]
async fn refused_requests_are_logged_within_bounds() {
    let (log, _guard) = Log::capture();
    let server = Running::start(admin::config().admin_token(Secret::from(TOKEN))).await;
    let client = Client::builder().no_proxy().build().unwrap();
    let path = "/admin/damaged/skip?queue=orders";
    let lines = || log.text().lines().filter(|line| line.contains("access") && line.contains("status=")).count();
    for _ in 0..30 {
        assert_eq!(server.ask(&client, Method::POST, path, None).await.status(), 401);
    }
    assert_eq!(lines(), 10);
    assert_eq!(server.ask(&client, Method::POST, path, Some(TOKEN)).await.status(), 200);
    assert_eq!(lines(), 11, "what the token's owner does is always logged");
}
