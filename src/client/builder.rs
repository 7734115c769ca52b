//! [`ClientBuilder`]: the settings of a client, checked by [`build`](ClientBuilder::build).

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::secret::Secret;
use http::{HeaderValue, Uri, uri::Scheme};

use super::{
    Client,
    call::{Inner, Project},
    error::{Error, ErrorKind},
};
use crate::{
    auth::{AccessKey, Authenticator, Iam, IamCredentials, VendorCredentials, VendorCredentialsError},
    queue::ProjectId,
    retry::RetryPolicy,
    secret_url::SecretUrl,
    transport::{HttpOptions, HttpTransport, Transport},
    wire::{ApiVersion, Content, Dialect},
};

/// Builds a [`Client`]. Without credentials its requests are unsigned.
///
/// ```
/// use std::time::Duration;
/// use dms_worker::Client;
///
/// let client = Client::builder("http://127.0.0.1:9400", "local")
///     .access_key("AK", "SK") // or .credentials_from_env(), .iam(...), .token(...)
///     .timeout(Duration::from_secs(10))
///     .build()?;
/// # let _ = client;
/// # Ok::<(), dms_worker::Error>(())
/// ```
pub struct ClientBuilder {
    endpoint: String,
    project_id: ProjectId,
    project_name: Option<String>,
    iam_endpoint: Option<String>,
    credentials: Vec<Credentials>,
    /// Why the environment had no credentials, for [`build`](Self::build).
    no_credentials: Option<VendorCredentialsError>,
    security_token: Option<Secret>,
    api_version: ApiVersion,
    dialect: Dialect,
    content: Content,
    retry: RetryPolicy,
    timeout: Duration,
    transport: Option<Arc<dyn Transport>>,
    http: HttpOptions,
}

enum Credentials {
    AccessKey(AccessKey),
    Token(Secret),
    Iam(IamCredentials),
}

impl ClientBuilder {
    pub(super) fn new(endpoint: String, project_id: ProjectId) -> Self {
        Self {
            endpoint,
            project_id,
            project_name: None,
            iam_endpoint: None,
            credentials: Vec::new(),
            no_credentials: None,
            security_token: None,
            api_version: ApiVersion::V2,
            dialect: Dialect::Dms,
            content: Content::default(),
            retry: RetryPolicy::default(),
            timeout: Duration::from_secs(15),
            transport: None,
            http: HttpOptions::default(),
        }
    }

    /// Signs requests with an access key (AK) and its secret key (SK). By default requests carry no credentials.
    pub fn access_key(mut self, access_key: impl Into<String>, secret_key: impl Into<Secret>) -> Self {
        let key = AccessKey::new(access_key, secret_key);
        self.credentials.push(Credentials::AccessKey(key));
        self
    }

    /// Adds the security token of temporary keys; none by default.
    pub fn security_token(mut self, token: impl Into<Secret>) -> Self {
        self.security_token = Some(token.into());
        self
    }

    /// Sends one IAM token with every request; none by default. It is never renewed.
    pub fn token(mut self, token: impl Into<Secret>) -> Self {
        self.credentials.push(Credentials::Token(token.into()));
        self
    }

    /// Fetches tokens from IAM; off by default. Clones share one token, which is renewed before it expires. An empty project id is
    /// taken from the token.
    pub fn iam(mut self, credentials: IamCredentials) -> Self {
        self.credentials.push(Credentials::Iam(credentials));
        self
    }

    /// Takes the key from `HUAWEICLOUD_SDK_AK` and related variables, or from the file `~/.huaweicloud/credentials`, as
    /// the vendor's SDKs do. An empty project id is taken from there, too. If neither place has a key,
    /// [`build`](Self::build) fails and names both.
    pub fn credentials_from_env(mut self) -> Self {
        let found = match VendorCredentials::find() {
            Ok(found) => found,
            Err(error) => {
                self.no_credentials = Some(error);
                return self;
            }
        };
        if let (true, Some(id)) = (self.project_id.as_str().is_empty(), found.project_id) {
            self.project_id = ProjectId::from(id);
        }
        self.iam_endpoint = self.iam_endpoint.or(found.iam_endpoint);
        self.credentials.push(Credentials::AccessKey(found.key));
        self
    }

    /// Names the project, for access keys with an empty project id; no name by default. The client looks the id up at IAM once, before its
    /// first call. [`IamCredentials`] name the project of an IAM user.
    pub fn project_name(mut self, name: impl Into<String>, iam_endpoint: impl Into<String>) -> Self {
        self.project_name = Some(name.into());
        self.iam_endpoint = Some(iam_endpoint.into());
        self
    }

    /// The version of the API to use; V2 by default.
    pub fn api_version(mut self, version: ApiVersion) -> Self {
        self.api_version = version;
        self
    }

    /// The API to speak: the DMS API, which is the default, or the API of ROMA Connect MQS.
    ///
    /// With [`Dialect::Mqs`] the SASL user and password are set as [`access_key`](Self::access_key), queues and groups are topics and
    /// groups by their names, and the project id has no effect, because this API has no projects.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// How contents of messages are written and read over ROMA Connect MQS; as documented by default, and read tolerantly.
    pub fn content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    /// Accepts any certificate of the service; off by default. Then anybody on the way can read messages and send answers. Prefer
    /// [`ca_file`](Self::ca_file).
    pub fn insecure_skip_verify(mut self, on: bool) -> Self {
        self.http.insecure_skip_verify = on;
        self
    }

    /// The delays and the number of tries of calls that are safe to repeat; four tries within about a second by
    /// default.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// The timeout of an answer; 15 s by default. A consume call adds its poll wait.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The most idle connections to keep; 1,024 by default. Keep it above the number of concurrent calls.
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.http.pool_size = connections;
        self
    }

    /// The timeout of connecting, TLS included; 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.http.connect_timeout = timeout;
        self
    }

    /// A PEM file with the certificate authorities to trust instead of the system's; none by default.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.http.ca_file = Some(file.into());
        self
    }

    /// Sends requests over `transport`, for example to a server of the same process, instead of the connection pool that is
    /// the default. The settings of
    /// the pool then have no effect.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Checks the settings and makes the client. It connects at its first call.
    ///
    /// # Errors
    /// When the endpoint is not an `http` or `https` address, the project or a key is missing or malformed, two kinds
    /// of credentials are set, the environment has none although it should, or the file of certificate authorities
    /// cannot be read.
    pub fn build(mut self) -> Result<Client, Error> {
        let endpoint = Endpoint::parse(&self.endpoint)?;
        if let Some(error) = self.no_credentials.take() {
            return Err(setup(error.to_string()));
        }
        let credentials = self.check_credentials()?;
        self.check_dialect(credentials.as_ref())?;
        if endpoint.tls && self.http.insecure_skip_verify && self.transport.is_none() {
            tracing::warn!(
                endpoint = endpoint.base,
                "insecure_skip_verify is on, so anybody on the way to the service can read and forge messages: name its certificate \
                 authority in ca_file instead"
            );
        }
        let transport = match self.transport.take() {
            Some(transport) => transport,
            None => self.connect(&endpoint, credentials.as_ref())?,
        };
        let project = self.project(&transport, credentials.as_ref())?;
        let authenticator = match credentials {
            None => Authenticator::Anonymous,
            Some(Credentials::AccessKey(key)) => Authenticator::Signer(Arc::new(key)),
            Some(Credentials::Token(token)) => Authenticator::Token(token),
            Some(Credentials::Iam(iam)) => Authenticator::Iam(Arc::new(Iam::new(Arc::clone(&transport), iam))),
        };
        let wording = self.dialect.wording(self.api_version);
        let inner = Inner::new(transport, endpoint.base, endpoint.host, wording, project, authenticator)
            .with_limits(self.retry, self.timeout)
            .with_content(self.content);
        Ok(Client { inner: Arc::new(inner) })
    }

    fn check_credentials(&mut self) -> Result<Option<Credentials>, Error> {
        if self.credentials.len() > 1 {
            return Err(setup("two kinds of credentials are set; set an access key, a token or an IAM user"));
        }
        let mut credentials = self.credentials.pop();
        match (&mut credentials, self.security_token.take()) {
            (Some(Credentials::AccessKey(key)), token) => {
                key.security_token = token.or_else(|| key.security_token.take());
                check_key(key)?;
            }
            (_, Some(_)) => return Err(setup("a security token goes with an access key, and none is set")),
            (Some(Credentials::Token(token)), None) if token.is_blank() => return Err(setup("the token is empty")),
            (Some(Credentials::Iam(iam)), None) => {
                Endpoint::parse(&iam.endpoint)?;
                if iam.user.trim().is_empty() || iam.password.is_blank() {
                    return Err(setup("the name of the IAM user or the password is empty"));
                }
            }
            (_, None) => {}
        }
        Ok(credentials)
    }

    fn check_dialect(&self, credentials: Option<&Credentials>) -> Result<(), Error> {
        if self.dialect == Dialect::Dms {
            return match self.content == Content::default() {
                true => Ok(()),
                false => Err(setup("content is for ROMA Connect MQS: leave it out, or set the dialect")),
            };
        }
        if matches!(credentials, Some(Credentials::Token(_) | Credentials::Iam(_))) {
            return Err(setup("ROMA Connect MQS knows no tokens: set its SASL user and password as access_key"));
        }
        if matches!(credentials, Some(Credentials::AccessKey(key)) if key.security_token.is_some()) {
            return Err(setup(
                "ROMA Connect MQS knows no temporary keys: leave out security_token, and set its SASL user and password",
            ));
        }
        if self.project_name.is_some() {
            return Err(setup("ROMA Connect MQS has no projects: leave out project_name"));
        }
        match self.api_version {
            ApiVersion::V2 => Ok(()),
            ApiVersion::V1_0 => Err(setup("ROMA Connect MQS has one version of its API: leave out api_version")),
        }
    }

    fn project(&self, transport: &Arc<dyn Transport>, credentials: Option<&Credentials>) -> Result<Project, Error> {
        if self.dialect == Dialect::Mqs {
            // The second is the default of the sidecar.
            if !["", "local"].contains(&self.project_id.as_str()) {
                tracing::warn!(
                    project_id = self.project_id.as_str(),
                    "the project id has no effect: ROMA Connect MQS has no projects"
                );
            }
            return Ok(Project::Known(ProjectId::from("")));
        }
        let given = self.project_id.as_str();
        if !given.is_empty() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if given.len() > 64 || !given.bytes().all(plain) {
                return Err(setup(format!("the project id is {given:?}: 1 to 64 of A-Z a-z 0-9 _ - are allowed")));
            }
            return Ok(Project::Known(self.project_id.clone()));
        }
        match (credentials, &self.project_name, &self.iam_endpoint) {
            (Some(Credentials::Iam(_)), ..) => Ok(Project::OfToken),
            (Some(Credentials::AccessKey(key)), Some(name), Some(iam_endpoint)) => {
                Endpoint::parse(iam_endpoint)?;
                let transport = Arc::clone(transport);
                Ok(Project::Named { transport, key: key.clone(), name: name.clone(), iam: iam_endpoint.clone() })
            }
            _ => Err(setup("the project id is empty; give it, or an access key with a project name, or an IAM user")),
        }
    }

    fn connect(&self, endpoint: &Endpoint, credentials: Option<&Credentials>) -> Result<Arc<dyn Transport>, Error> {
        let iam = match credentials {
            Some(Credentials::Iam(iam)) => Some(&iam.endpoint),
            _ => self.iam_endpoint.as_ref(),
        };
        let options = HttpOptions {
            tls: endpoint.tls || iam.is_some_and(|iam| iam.starts_with("https")),
            // A proxy cannot reach the loopback interface of this machine.
            proxies: !endpoint.loopback,
            ..self.http.clone()
        };
        let transport = HttpTransport::new(&options)
            .map_err(|error| Error::new(SETUP, ErrorKind::Transport(endpoint.base.clone(), error)))?;
        Ok(Arc::new(transport))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoint", &SecretUrl::new(self.endpoint.as_str()))
            .field("project_id", &self.project_id)
            .field("api_version", &self.api_version)
            .finish_non_exhaustive()
    }
}

/// The service's address.
struct Endpoint {
    /// The address, without a final `/`.
    base: String,
    /// The `Host` header, which is signed. It has the port unless that is the scheme's default.
    host: HeaderValue,
    tls: bool,
    loopback: bool,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            let text = SecretUrl::new(text);
            Err(setup(format!("the endpoint is {text:?}: {why}; write it as https://dms.cn-north-4.myhuaweicloud.com")))
        };
        let Ok(uri) = text.trim().parse::<Uri>() else { return refuse("that is no address") };
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return refuse("that is no absolute address");
        };
        let standard_port = match scheme {
            scheme if *scheme == Scheme::HTTPS => 443,
            scheme if *scheme == Scheme::HTTP => 80,
            _ => return refuse("only http and https are known"),
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return refuse("user names and queries have no place in it");
        }
        let name = authority.host();
        let host = match authority.port_u16() {
            Some(port) if port != standard_port => format!("{name}:{port}"),
            _ => name.to_owned(),
        };
        let Ok(host) = HeaderValue::try_from(host) else { return refuse("its host cannot stand in a header") };
        let address = name.trim_matches(['[', ']']);
        let loopback = address == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let base = format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'));
        Ok(Self { base, host, tls: standard_port == 443, loopback })
    }
}

const SETUP: &str = "client";

fn setup(text: impl Into<String>) -> Error {
    Error::new(SETUP, ErrorKind::Setup(text.into()))
}

fn check_key(key: &AccessKey) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    if key.access_key.is_empty() || !key.access_key.bytes().all(legal) {
        return Err(setup(format!("the access key is {:?}: visible ASCII without commas is allowed", key.access_key)));
    }
    if key.secret_key.is_blank() {
        return Err(setup(format!("the secret key of {} is empty", key.access_key)));
    }
    if key.security_token.as_ref().is_some_and(Secret::is_blank) {
        return Err(setup(format!("the security token of {} is empty", key.access_key)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[track_caller]
    fn refused(builder: ClientBuilder, expected: &str) {
        let error = builder.build().expect_err("it was built").to_string();
        assert!(error.contains(expected), "{error}");
    }

    fn builder() -> ClientBuilder {
        Client::builder("http://127.0.0.1:9400", "p")
    }

    #[test]
    fn an_endpoint_must_be_an_absolute_http_address() {
        for bad in ["", "dms.example.com", "/path", "ftp://host", "http://u:p@host", "http://host?x=1", "http://"] {
            refused(Client::builder(bad, "p"), "the endpoint is");
        }
    }

    #[test]
    fn the_host_has_its_port_unless_it_is_the_schemes_own() {
        for (endpoint, host, base) in [
            ("http://127.0.0.1:9400/", "127.0.0.1:9400", "http://127.0.0.1:9400"),
            ("https://dms.example.com:443", "dms.example.com", "https://dms.example.com:443"),
            ("http://dms.example.com:80/x/", "dms.example.com", "http://dms.example.com:80/x"),
            ("https://[::1]:80", "[::1]:80", "https://[::1]:80"),
        ] {
            let parsed = Endpoint::parse(endpoint).unwrap();
            assert_eq!((parsed.host.to_str().unwrap(), parsed.base.as_str()), (host, base));
        }
        assert!(Endpoint::parse("http://[::1]").unwrap().loopback);
        assert!(!Endpoint::parse("http://10.0.0.1").unwrap().loopback);
    }

    fn iam(user: &str, password: &str) -> IamCredentials {
        IamCredentials::new("http://iam", crate::auth::Scope::ProjectId("p".into())).user(user, "d").password(password)
    }

    #[test]
    fn credentials_must_be_whole_and_of_one_kind() {
        refused(builder().access_key("a,b", "s"), "the access key is \"a,b\"");
        refused(builder().access_key("ak", ""), "the secret key of ak is empty");
        refused(builder().access_key("ak", " "), "the secret key of ak is empty");
        refused(builder().access_key("ak", "sk").security_token(""), "the security token of ak is empty");
        refused(builder().token("\t"), "the token is empty");
        refused(builder().iam(iam("u", " ")), "the name of the IAM user or the password is empty");
        refused(builder().iam(iam("", "p")), "the name of the IAM user or the password is empty");
        refused(builder().access_key("ak", "sk").token("t"), "two kinds of credentials");
        refused(builder().security_token("t"), "a security token goes with an access key");
        refused(Client::builder("http://h", ""), "the project id is empty");
        refused(Client::builder("http://h", "a/b"), "the project id is \"a/b\"");
    }

    #[test]
    fn no_secret_shows_in_debug() {
        let client = builder().access_key("ak", "S3CRET").security_token("T0KEN").build().unwrap();
        let shown = format!("{client:?} {:?}", builder().token("T0KEN"));
        assert!(!shown.contains("S3CRET") && !shown.contains("T0KEN"), "{shown}");
        assert!(shown.contains("ak"));
    }

    #[test]
    fn a_ca_file_that_cannot_be_read_is_named() {
        refused(builder().ca_file("/nonexistent/ca.pem"), "/nonexistent/ca.pem");
    }
}
