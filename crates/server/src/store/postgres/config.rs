//! [`PostgresConfig`]: which PostgreSQL keeps the messages, and how long a server may be silent before another takes over.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs},
};

use tokio_rustls::rustls::pki_types::ServerName;

use crate::{
    net::{
        peer_tls::{PeerTls, PeerTlsFiles},
        tls_files::TlsError,
    },
    store::postgres::{error::PostgresError, shards::MAX_SHARDS},
};
use dms_protocol::{
    internal::postgres_settings::{check_schema, connection_string},
    secret::Secret,
};

/// How long an idle connection is left alone before PostgreSQL is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long an address may take to be reached.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest time after which a take-over makes sense: PostgreSQL has to answer a beat in a fifth of it.
const MIN_TAKEOVER: Duration = Duration::from_millis(250);

/// The connection to PostgreSQL, and how several servers on it share the queues.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use dms_server::{PostgresConfig, ServerConfig};
///
/// let mut postgres = PostgresConfig::new("postgres://dms@db1,db2/dms".into());
/// postgres.takeover_after = Duration::from_secs(3);
/// postgres.check()?;
/// let config = ServerConfig::default().postgres(postgres);
/// # let _ = config;
/// # Ok::<(), dms_server::PostgresError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// The connection string, as `postgres://user@host1,host2/database` or `host=host1,host2 user=… dbname=…`.
    pub url: Secret,
    /// The certificates of the authorities that may have issued PostgreSQL's certificate, as PEM. With them every connection is
    /// encrypted and the server's name checked; without them (the default) nothing is encrypted.
    pub ca_file: Option<PathBuf>,
    /// The schema of the tables; `dms` by default. It is created if it is missing.
    pub schema: String,
    /// The time without a sign of life of an owner after which another server takes over; 5 s by default, at least 250 ms.
    pub takeover_after: Duration,
    /// How other servers and their logs name this one; the name of the host by default.
    pub name: String,
    /// How many parts the queues are divided into, each of which one server owns. It is fixed when the tables are made; by default
    /// 4, or as many as the tables have.
    pub shards: Option<u32>,
    /// The address at which other servers pass requests on to this one; none by default. Without it one server owns all queues, and
    /// the others stand by.
    pub listen: Option<SocketAddr>,
    /// The URL of that address as other servers reach it, as `http://10.0.0.7:9410`, with [`tls`](Self::tls)
    /// `https://10.0.0.7:9410`; `listen` by default.
    pub advertise: Option<String>,
    /// The certificates with which the servers encrypt the connections between them and check each other; none by default (plain
    /// TCP). All servers of a cluster have them, or none.
    pub tls: Option<PeerTlsFiles>,
    /// The export that this program imports: other programs may not open the tables meanwhile.
    pub(crate) importing: Option<String>,
}

impl PostgresConfig {
    /// Creates a configuration with the defaults for everything except the connection string.
    pub fn new(url: Secret) -> Self {
        Self {
            url,
            ca_file: None,
            schema: "dms".to_owned(),
            takeover_after: Duration::from_secs(5),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            shards: None,
            listen: None,
            advertise: None,
            tls: None,
            importing: None,
        }
    }

    /// Checks everything that can be checked without a connection or a file.
    ///
    /// # Errors
    /// A sentence about the first setting that cannot be used. It never contains the connection string.
    pub fn check(&self) -> Result<(), PostgresError> {
        match self.mistakes().into_iter().next() {
            Some((setting, reason)) => Err(PostgresError::Setting { setting, reason }),
            None => Ok(()),
        }
    }

    /// All settings that cannot be used, and why.
    pub(crate) fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if let Err(PostgresError::Setting { setting, reason }) = self.hosts() {
            found.push((setting, reason));
        }
        found.extend(check_schema(&self.schema).err().map(|reason| ("schema", reason)));
        if self.takeover_after < MIN_TAKEOVER {
            found.push(("takeover_after", format!("{:?} is less than {MIN_TAKEOVER:?}", self.takeover_after)));
        }
        if let Some(shards) = self.shards.filter(|shards| !(1..=MAX_SHARDS).contains(shards)) {
            found.push(("shards", format!("{shards} is not allowed: 1 to {MAX_SHARDS} are")));
        }
        found.extend(self.wrong_address().map(|reason| ("advertise", reason)));
        if let Some(tls) = &self.tls {
            found.extend(self.wrong_tls(tls).map(|reason| ("tls", reason)));
        }
        found
    }

    fn wrong_address(&self) -> Option<String> {
        match (&self.advertise, self.listen) {
            (Some(_), None) => Some("it is the address of cluster.listen, which is not set".to_owned()),
            (Some(url), Some(_)) => match (PeerUrl::parse(url), &self.tls) {
                (None, _) => Some(format!("{url:?} is no URL of a host with a port, as http://10.0.0.7:9410")),
                (Some(PeerUrl { is_encrypted: true, .. }), None) => {
                    Some(format!("{url} needs a certificate: set cluster.tls, or write http://"))
                }
                (Some(PeerUrl { is_encrypted: false, .. }), Some(_)) => {
                    Some(format!("{url} says that nothing is encrypted, and cluster.tls is set: write https://"))
                }
                _ => None,
            },
            (None, Some(listen)) if listen.ip().is_unspecified() => {
                Some(format!("it is required, because other servers cannot reach {listen}"))
            }
            _ => None,
        }
    }

    fn wrong_tls(&self, tls: &PeerTlsFiles) -> Option<String> {
        if self.listen.is_none() {
            return Some("it is for the address of cluster.listen, which is not set".to_owned());
        }
        let name = tls.server_name.as_deref()?;
        ServerName::try_from(name).is_err().then(|| format!("server_name `{name}` is no name of a host"))
    }

    /// Reads the certificate for the other servers, and judges it as they do.
    ///
    /// # Errors
    /// When a file cannot be used, or the other servers would refuse the certificate: it does not name the host of
    /// [`advertise`](Self::advertise), [`tls`](Self::tls) names another authority, or its time is over.
    pub fn check_certificate(&self) -> Result<(), TlsError> {
        let Some(tls) = self.tls.clone().map(PeerTls::load).transpose()? else { return Ok(()) };
        let listen = self.listen.map(|listen| listen.ip().to_string());
        let host = self.advertise.as_deref().and_then(PeerUrl::parse).map(|url| url.host).or(listen.as_deref());
        host.map_or(Ok(()), |host| tls.check(host).map_err(|refused| refused.error))
    }

    /// A configuration for each host, in the order of the connection string.
    ///
    /// # Errors
    /// When the connection string cannot be used.
    pub(crate) fn hosts(&self) -> Result<Vec<Config>, PostgresError> {
        let bad = |reason: String| PostgresError::Setting { setting: "url", reason };
        let given = connection_string(&self.url, self.ca_file.is_some()).map_err(bad)?;
        if given.get_hosts().is_empty() {
            return Err(bad("it names no host".to_owned()));
        }
        // Refused and not ignored: the connection would go to another address than the one that was given.
        if !given.get_hostaddrs().is_empty() {
            return Err(bad("it has hostaddr, which is not supported; give the addresses as host".to_owned()));
        }
        let ports = given.get_ports();
        // As libpq does. Otherwise some host would be looked for at a port that nobody named.
        if ports.len() > 1 && ports.len() != given.get_hosts().len() {
            return Err(bad(format!(
                "it has {} hosts and {} ports: give one port for each, or one for all",
                given.get_hosts().len(),
                ports.len()
            )));
        }
        let hosts = given.get_hosts().iter().enumerate();
        Ok(hosts.map(|(number, host)| self.one_host(&given, host, port(ports, number))).collect())
    }

    fn one_host(&self, given: &Config, host: &Host, port: u16) -> Config {
        let mut config = Config::new();
        match host {
            Host::Tcp(name) => config.host(name),
            #[cfg(unix)]
            Host::Unix(path) => config.host_path(path),
        };
        config.port(port);
        if let Some(user) = given.get_user() {
            config.user(user);
        }
        if let Some(password) = given.get_password() {
            config.password(password);
        }
        if let Some(name) = given.get_dbname() {
            config.dbname(name);
        }
        if let Some(options) = given.get_options() {
            config.options(options);
        }
        config
            // Whatever the connection string says: commits need the server that takes writes, and a lost connection has to be
            // noticed within seconds.
            .ssl_mode(if self.ca_file.is_some() { SslMode::Require } else { SslMode::Disable })
            .ssl_negotiation(given.get_ssl_negotiation())
            .channel_binding(given.get_channel_binding())
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .load_balance_hosts(LoadBalanceHosts::Disable)
            .connect_timeout(given.get_connect_timeout().copied().unwrap_or(TCP_TIMEOUT))
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE / 3)
            .keepalives_retries(3)
            .tcp_user_timeout(KEEPALIVE);
        config
    }
}

/// The parts of an advertised URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerUrl<'a> {
    pub(crate) is_encrypted: bool,
    /// The host and the port.
    pub(crate) authority: &'a str,
    /// The host, an address of IPv6 without its brackets.
    pub(crate) host: &'a str,
}

impl<'a> PeerUrl<'a> {
    pub(crate) fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let is_encrypted = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = rest.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_plain = !host.is_empty() && !authority.contains(['/', '@', '?', '#', ' ']);
        let is_right = is_plain && port.parse::<u16>().is_ok_and(|port| port > 0);
        is_right.then_some(Self { is_encrypted, authority, host })
    }

    /// The URL itself without a slash at its end, if it is one.
    pub(crate) fn normal(url: &'a str) -> Option<&'a str> {
        Self::parse(url).map(|_| url.trim_end_matches('/'))
    }
}

fn port(ports: &[u16], number: usize) -> u16 {
    ports.get(number).or_else(|| ports.first().filter(|_| ports.len() == 1)).copied().unwrap_or(5432)
}

/// Where a configuration for one host leads, for errors and logs.
pub(crate) fn address(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        Some(Host::Tcp(name)) => format!("{name}:{port}"),
        #[cfg(unix)]
        Some(Host::Unix(path)) => format!("{}:{port}", path.display()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(url: &str) -> PostgresConfig {
        PostgresConfig::new(url.to_owned().into())
    }

    #[test]
    fn both_forms_of_a_connection_string_name_several_hosts() {
        for url in [
            "postgres://dms:pw@pg1,pg2:6000,pg3/queues",
            "host=pg1,pg2,pg3 port=5432,6000,5432 user=dms password=pw dbname=queues",
        ] {
            let hosts = of(url).hosts().unwrap();
            assert_eq!(hosts.iter().map(address).collect::<Vec<_>>(), ["pg1:5432", "pg2:6000", "pg3:5432"], "{url}");
            assert!(hosts.iter().all(|host| host.get_user() == Some("dms") && host.get_dbname() == Some("queues")));
            assert!(hosts.iter().all(|host| host.get_target_session_attrs() == TargetSessionAttrs::ReadWrite));
        }
    }

    #[test]
    fn the_default_port_is_that_of_postgresql() {
        assert_eq!(of("host=pg1 user=dms").hosts().unwrap().iter().map(address).collect::<Vec<_>>(), ["pg1:5432"]);
        let both = of("host=pg1,pg2 port=6000 user=dms").hosts().unwrap();
        assert_eq!(both.iter().map(address).collect::<Vec<_>>(), ["pg1:6000", "pg2:6000"]);
    }

    #[test]
    fn each_host_has_its_port_or_all_have_one() {
        for url in ["host=pg1,pg2,pg3 port=5432,6000 user=dms", "host=pg1,pg2 port=1,2,3 user=dms"] {
            let refused = of(url).check().unwrap_err().to_string();
            assert!(refused.contains("one port for each, or one for all"), "{refused}");
        }
    }

    #[test]
    fn no_error_shows_the_connection_string() {
        for url in
            ["postgres://dms:geheim@pg1:port/x", "host=pg1 password=geheim sslmode=geheim", "geheim", "user=geheim"]
        {
            let error = of(url).check().unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
            assert!(error.contains("setting url"), "{error}");
        }
        assert!(!format!("{:?}", of("postgres://dms:geheim@pg1/x")).contains("geheim"));
    }

    #[test]
    fn tls_needs_authorities() {
        let mut config = of("postgres://dms@pg1/x?sslmode=verify-full");
        assert!(config.check().unwrap_err().to_string().contains("ca_file"));
        config.ca_file = Some("ca.pem".into());
        assert!(config.hosts().unwrap().iter().all(|host| host.get_ssl_mode() == SslMode::Require));
    }

    #[test]
    fn an_advertised_url_says_whether_the_servers_encrypt() {
        let with = |advertise: &str, tls: bool, listen: bool| {
            let mut config = of("host=pg1");
            config.listen = listen.then(|| "10.0.0.7:9410".parse().unwrap());
            config.advertise = (!advertise.is_empty()).then(|| advertise.to_owned());
            let own = crate::TlsFiles { certificate: "a.crt".into(), key: "a.key".into() };
            config.tls = tls.then(|| PeerTlsFiles::new(own, "ca.crt"));
            config.mistakes()
        };
        assert!(with("http://a:9410", false, true).is_empty());
        assert!(with("https://[fd00::7]:9410/", true, true).is_empty());
        assert!(with("", true, true).is_empty());
        for (advertise, tls, listen, setting, part) in [
            ("https://a:9410", false, true, "advertise", "set cluster.tls"),
            ("http://a:9410", true, true, "advertise", "write https://"),
            ("a:9410", true, true, "advertise", "no URL"),
            ("https://a", true, true, "advertise", "no URL"),
            ("", true, false, "tls", "cluster.listen"),
        ] {
            let found = with(advertise, tls, listen);
            let is_it = |(key, reason): &(&str, String)| *key == setting && reason.contains(part);
            assert!(found.iter().any(is_it), "{advertise}: {found:?}");
        }
        assert_eq!(PeerUrl::parse("https://[fd00::7]:9410").unwrap().host, "fd00::7");
    }

    #[test]
    fn schemas_and_times_are_checked() {
        for schema in ["", "Dms", "1dms", "pg_dms", "a-b", "a\"b", &"x".repeat(64)] {
            let config = PostgresConfig { schema: schema.to_owned(), ..of("host=pg1") };
            assert!(config.check().unwrap_err().to_string().contains("schema"), "{schema}");
        }
        let config = PostgresConfig { takeover_after: Duration::from_millis(249), ..of("host=pg1") };
        assert!(config.check().unwrap_err().to_string().contains("takeover_after"));
    }
}
