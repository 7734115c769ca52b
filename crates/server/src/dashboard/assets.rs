//! The files of the dashboard: its script and style, and uPlot, which draws the charts.

use std::sync::LazyLock;

use axum::{
    extract::RawPathParams,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use sha2::{Digest, Sha256};

use crate::dashboard::access::gate::Gate;

struct Asset {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $content_type:literal) => {
        Asset { name: $name, content_type: $content_type, bytes: include_bytes!(concat!("assets/", $name)) }
    };
}

static ASSETS: [Asset; 6] = [
    asset!("dashboard.js", "text/javascript; charset=utf-8"),
    asset!("dashboard.css", "text/css; charset=utf-8"),
    asset!("icon.svg", "image/svg+xml"),
    asset!("uplot-1.6.32.min.js", "text/javascript; charset=utf-8"),
    asset!("uplot-1.6.32.min.css", "text/css; charset=utf-8"),
    asset!("uplot-LICENSE", "text/plain; charset=utf-8"),
];

/// A hash of all files. It is part of their paths, so that browsers may cache them without a limit.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    ASSETS.iter().for_each(|asset| hash.update(asset.bytes));
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
});

/// The URL path of a file.
pub(crate) fn url(gate: &Gate, name: &str) -> String {
    gate.url(&format!("/assets/{}/{name}", *HASH))
}

/// `GET /ui/assets/{hash}/{name}`.
pub(crate) async fn serve(params: RawPathParams) -> Response {
    let param = |name| params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == param("name")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // After an update a page of the old version may still ask for its files.
    let keep = if param("hash") == *HASH { "public, max-age=31536000, immutable" } else { "no-cache" };
    ([(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, keep)], asset.bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(name: &str) -> &'static [u8] {
        ASSETS.iter().find(|asset| asset.name == name).map_or(&[], |asset| asset.bytes)
    }

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn uplot_is_the_published_file() {
        let hash = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f";
        assert_eq!(sha256(asset("uplot-1.6.32.min.js")), hash);
    }

    #[test]
    fn the_script_stays_small() {
        assert!(asset("dashboard.js").len() <= 12 << 10, "{} bytes", asset("dashboard.js").len());
    }
}
