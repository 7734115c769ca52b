//! A client as the configuration describes it.

use std::sync::Arc;

use dms_protocol::secret;

use crate::config::{self, Config, Secret};
use dms_protocol::queue::ProjectId;
use dms_worker::{
    ApiVersion,
    auth::{IamCredentials, Scope, VendorCredentials},
    client::{Client, ClientBuilder, Error},
    transport::{InProcess, Transport},
};

/// A client of the configured service over the network. An embedded service is looked for at `server.listen`.
///
/// # Errors
/// When the client cannot be built: a CA file that cannot be read, a malformed key.
pub(crate) fn to_service(config: &Config) -> Result<Client, Error> {
    let builder = Client::builder(endpoint(config), project(config));
    let alone = config.dms.auth.is_none() && (!config.dms.is_embedded() || own_key(config).is_none());
    // The vendor's variables hold a key of the cloud, and MQS asks for the one of an integration application.
    if alone && config.dms.dialect == config::Dialect::Dms && has_vendor_key() {
        return settings(builder.credentials_from_env(), config).build();
    }
    authorized(builder, config)
}

/// A client of the configured service: through `embedded` if the configuration has the server in this process, else over the network.
///
/// # Errors
/// As [`to_service`].
pub(crate) fn to_service_of(config: &Config, embedded: Option<&Arc<InProcess>>) -> Result<Client, Error> {
    match embedded {
        Some(transport) if config.dms.is_embedded() => in_process(config, Arc::<InProcess>::clone(transport)),
        _ => to_service(config),
    }
}

/// Whether the vendor's variables or its credentials file have a key. One variable alone counts, because a request must not
/// be sent unsigned when only a part of the key was forgotten: the client then names the missing variable.
fn has_vendor_key() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("HUAWEICLOUD_SDK_AK") || is_set("HUAWEICLOUD_SDK_SK") || VendorCredentials::find().is_ok()
}

/// The address of the service; of an embedded one, where a process that runs it listens.
pub(crate) fn endpoint(config: &Config) -> String {
    match (config.dms.is_embedded(), &config.server.tls) {
        (false, _) => config.dms.endpoint.expose().to_owned(),
        (true, None) => format!("http://{}", config.server.listen),
        (true, Some(_)) => format!("https://{}", config.server.listen),
    }
}

/// A client of the server in the same process, past its sockets.
fn in_process(config: &Config, transport: Arc<dyn Transport>) -> Result<Client, Error> {
    let builder = Client::builder(format!("http://{}", config.server.listen), project(config));
    authorized(builder.transport(transport), config)
}

fn project(config: &Config) -> ProjectId {
    ProjectId::from(config.dms.project_id.as_str())
}

/// Adds credentials and settings of the connection.
fn authorized(builder: ClientBuilder, config: &Config) -> Result<Client, Error> {
    let builder = settings(builder, config);
    match &config.dms.auth {
        Some(auth) => with(builder, auth, config),
        None if config.dms.is_embedded() => match own_key(config) {
            Some(key) => with_own(builder, key),
            None => builder,
        },
        None => builder,
    }
    .build()
}

/// Adds the settings of the connection.
fn settings(builder: ClientBuilder, config: &Config) -> ClientBuilder {
    let version = match config.dms.api_version {
        config::ApiVersion::V2 => ApiVersion::V2,
        config::ApiVersion::V1 => ApiVersion::V1_0,
    };
    let builder = builder
        .dialect(config.dms.dialect.into())
        .content(config.dms.content.into())
        .insecure_skip_verify(config.dms.insecure_skip_verify);
    let mut builder = builder.api_version(version).connect_timeout(config.dms.connect_timeout.into());
    if let Some(file) = &config.dms.ca_file {
        builder = builder.ca_file(file);
    }
    builder
}

fn with(builder: ClientBuilder, auth: &config::Auth, config: &Config) -> ClientBuilder {
    if let (Some(access_key), Some(secret_key)) = (&auth.access_key, &auth.secret_key) {
        let builder = builder.access_key(access_key, secret(secret_key));
        return match &auth.security_token {
            Some(token) => builder.security_token(secret(token)),
            None => builder,
        };
    }
    if let Some(token) = &auth.token {
        return builder.token(secret(token));
    }
    match &auth.iam {
        Some(iam) => {
            let project = match &iam.project {
                Some(name) => Scope::ProjectName(name.clone()),
                None => Scope::ProjectId(project(config)),
            };
            let password = iam.password.as_ref().map(secret).unwrap_or_default();
            let credentials = IamCredentials::new(iam.endpoint.expose(), project);
            builder.iam(credentials.user(&iam.user, &iam.domain).password(password))
        }
        None => builder,
    }
}

/// The first key that the embedded server itself lets in.
fn own_key(config: &Config) -> Option<&config::AccessKey> {
    config.server.auth_of(&config.dms.project_id)?.keys().next().filter(|key| key.secret_key.is_some())
}

fn with_own(builder: ClientBuilder, key: &config::AccessKey) -> ClientBuilder {
    let Some(secret_key) = &key.secret_key else { return builder };
    let builder = builder.access_key(&key.access_key, secret(secret_key));
    match &key.security_token {
        Some(token) => builder.security_token(secret(token)),
        None => builder,
    }
}

fn secret(secret: &Secret) -> secret::Secret {
    secret::Secret::from(secret.expose())
}
