//! `dashboard` of an admin address: true, false, or a section.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

/// Whether there is a dashboard, and whether it may change anything without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dashboard {
    /// Whether it is served.
    pub enabled: bool,
    /// Whether callers may change something while the admin address has no token.
    pub actions: bool,
}

/// The section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct DashboardSection {
    /// Whether it is served; true by default.
    enabled: bool,
    /// Whether callers may change something while the admin address has no token; false by default.
    actions: bool,
}

impl Default for DashboardSection {
    fn default() -> Self {
        Self { enabled: true, actions: false }
    }
}

impl Default for Dashboard {
    fn default() -> Self {
        DashboardSection::default().into()
    }
}

impl From<DashboardSection> for Dashboard {
    fn from(DashboardSection { enabled, actions }: DashboardSection) -> Self {
        Self { enabled, actions }
    }
}

impl Dashboard {
    fn switched(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }
}

impl<'de> Deserialize<'de> for Dashboard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchOrSection)
    }
}

struct SwitchOrSection;

impl<'de> Visitor<'de> for SwitchOrSection {
    type Value = Dashboard;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or {actions: true}")
    }

    fn visit_bool<E: Error>(self, enabled: bool) -> Result<Dashboard, E> {
        Ok(Dashboard::switched(enabled))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Dashboard, E> {
        // Variables have texts only.
        text.parse().map(Dashboard::switched).map_err(|_| E::invalid_type(Unexpected::Str(text), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dashboard, A::Error> {
        DashboardSection::deserialize(MapAccessDeserializer::new(map)).map(Dashboard::from)
    }

    fn visit_unit<E: Error>(self) -> Result<Dashboard, E> {
        Ok(Dashboard::default())
    }

    fn visit_none<E: Error>(self) -> Result<Dashboard, E> {
        Ok(Dashboard::default())
    }
}

impl Serialize for Dashboard {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self { enabled, actions: false } => enabled.serialize(serializer),
            Self { enabled, actions } => DashboardSection { enabled, actions }.serialize(serializer),
        }
    }
}

impl JsonSchema for Dashboard {
    fn schema_name() -> Cow<'static, str> {
        "Dashboard".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (switch, section) = (generator.subschema_for::<bool>(), generator.subschema_for::<DashboardSection>());
        json_schema!({ "anyOf": [switch, section] })
    }
}
