//! Byte order marks and other encodings in every text file that a user provides.

use std::fs;

use dms_worker_cli::config::{ConfigError, Loaded, Request, load};

fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn read(bytes: &[u8]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    fs::write(&file, bytes).unwrap();
    load(&Request::new().file(file))
}

#[test]
fn a_configuration_may_begin_with_a_byte_order_mark() {
    let marked = "\u{feff}log: {filter: debug}\nshutdown: {grace: 1s}\n";
    let loaded = read(marked.as_bytes()).unwrap();
    assert_eq!(loaded.config.log.filter, "debug");
    let grace = loaded.settings().into_iter().find(|setting| setting.key == "shutdown.grace").unwrap();
    assert!(grace.origin.to_string().ends_with(":2"), "{}", grace.origin);
    let error = read("\u{feff}lgo: {}\n".as_bytes()).unwrap_err().to_string();
    assert!(error.contains(":1: lgo: unknown key"), "{error}");
}

#[test]
fn a_configuration_in_another_encoding_says_so() {
    let error = read(&utf16("log: {}\n")).unwrap_err().to_string();
    assert!(error.contains("config.yaml: cannot be read: it is UTF-16 text: save it as UTF-8"), "{error}");
    let error = read(b"log: {filter: gr\xfcn}\n").unwrap_err().to_string();
    assert!(error.contains("byte 16 is not UTF-8"), "{error}");
}

#[test]
fn a_secret_may_begin_with_a_byte_order_mark() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let yaml = format!("admin: {{token_file: '{}'}}\n", secret.display());
    fs::write(&secret, "\u{feff}s3cret\r\n").unwrap();
    assert_eq!(read(yaml.as_bytes()).unwrap().config.admin.token.unwrap().expose(), "s3cret");
    fs::write(&secret, "\u{feff}\n").unwrap();
    assert!(read(yaml.as_bytes()).unwrap_err().to_string().contains("is empty: put the secret in it"));
    fs::write(&secret, utf16("s3cret")).unwrap();
    let error = read(yaml.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("admin.token_file: ") && error.contains("save it as UTF-8"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn service_links_are_no_settings() {
    let links = [
        ("DMS_WORKER_ADMIN_PORT", "tcp://10.0.0.1:80"),
        ("DMS_WORKER_ADMIN_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("DMS_WORKER_QUEUE_SERVICE_HOST", "10.0.0.2"),
        ("DMS_WORKER_QUEUE_SERVICE_PORT_HTTP", "80"),
        ("DMS_WORKER_PORT", "tcp://10.0.0.3:80"),
    ];
    let loaded = super::read("", &links).unwrap();
    assert_eq!(loaded.config, dms_worker_cli::config::Config::default());
    assert_eq!(loaded.service_links().len(), links.len());
}
