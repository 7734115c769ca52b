//! `server.admin`: the admin address of the server, as an address alone or as a section.

use std::{borrow::Cow, fmt, net::SocketAddr, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::config::schema::{dashboard::Dashboard, tls::Tls, values::Secret};

/// The admin address of the server: an address alone, or a section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerAdmin(pub AdminSection);

/// The admin address of the server as a section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// Where it listens; nowhere by default. Other addresses than loopback need `token` and `tls`.
    pub listen: Option<SocketAddr>,
    /// Its certificate; plain HTTP by default.
    pub tls: Option<Tls>,
    /// The bearer token that all but health needs; none by default.
    pub token: Option<Secret>,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// The bearer token that reads and changes nothing; none by default. It needs `token` beside it.
    pub read_token: Option<Secret>,
    /// A file that holds the read token.
    pub read_token_file: Option<PathBuf>,
    /// Whether the read token shows bodies and attributes of messages; false by default.
    pub read_token_sees_bodies: bool,
    /// Whether the dashboard is served at `/ui/`; true by default.
    pub dashboard: Dashboard,
    /// The path under which a proxy serves the address, such as `/dms`; none by default.
    pub base_path: Option<String>,
    /// The address of a trace in the tracing system, such as `https://jaeger.example/trace/{trace_id}`, to which the dashboard links;
    /// none by default.
    pub trace_url: Option<String>,
}

impl<'de> Deserialize<'de> for ServerAdmin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressOrSection)
    }
}

struct AddressOrSection;

impl<'de> Visitor<'de> for AddressOrSection {
    type Value = ServerAdmin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address like 127.0.0.1:9401, or a map with `listen`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ServerAdmin, E> {
        let listen = text.parse().map_err(|_| E::custom("invalid socket address syntax"))?;
        Ok(ServerAdmin(AdminSection { listen: Some(listen), ..AdminSection::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServerAdmin, A::Error> {
        AdminSection::deserialize(MapAccessDeserializer::new(map)).map(ServerAdmin)
    }

    fn visit_unit<E: Error>(self) -> Result<ServerAdmin, E> {
        Ok(ServerAdmin::default())
    }

    fn visit_none<E: Error>(self) -> Result<ServerAdmin, E> {
        Ok(ServerAdmin::default())
    }
}

/// An address alone where nothing else is set, as most files write it.
impl Serialize for ServerAdmin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rest = AdminSection { listen: None, ..self.0.clone() };
        if rest == AdminSection::default() { self.0.listen.serialize(serializer) } else { self.0.serialize(serializer) }
    }
}

impl JsonSchema for ServerAdmin {
    fn schema_name() -> Cow<'static, str> {
        "ServerAdmin".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (address, section) = (generator.subschema_for::<SocketAddr>(), generator.subschema_for::<AdminSection>());
        json_schema!({ "anyOf": [address, section] })
    }
}
