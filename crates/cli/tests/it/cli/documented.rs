//! The documents for operators match the program: paths of the admin addresses, exit codes, metrics.

use std::collections::BTreeSet;

use super::Program;

const OPERATIONS: &str = include_str!("../../../../../docs/operations.md");
const COMMANDS: &str = include_str!("../../../../../docs/commands.md");
const SIDECAR_ADMIN: &str = include_str!("../../../src/sidecar/admin/mod.rs");
const SERVER_ADMIN: &str = include_str!("../../../../server/src/admin/mod.rs");
const EXIT_CODES: &str = include_str!("../../../src/cli/support/failure.rs");

/// A section of the document, from its heading to the next one.
fn section(heading: &str) -> &'static str {
    let text = OPERATIONS.split_once(heading).unwrap_or_else(|| panic!("there is no {heading}")).1;
    text.split_once("\n#").map_or(text, |(section, _)| section)
}

/// `GET /livez` for each route that a source registers.
fn routes(source: &str) -> BTreeSet<String> {
    let routes = source.split(".route(\"").skip(1).map(|text| {
        let (path, rest) = text.split_once("\", ").unwrap();
        format!("{} {path}", rest.split('(').next().unwrap().to_uppercase())
    });
    routes.collect()
}

/// The same of each request in a section's table, without its parameters.
fn requests(section: &str) -> BTreeSet<String> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let cells = rows.flat_map(|(cell, _)| cell.split('`').map(str::to_owned).collect::<Vec<_>>());
    let requests = cells.filter(|text| text.starts_with("GET ") || text.starts_with("POST "));
    requests.map(|request| request.split('?').next().unwrap().to_owned()).collect()
}

#[test]
fn every_path_of_the_admin_addresses_is_documented() {
    for (source, heading) in [(SIDECAR_ADMIN, "### Admin of the sidecar"), (SERVER_ADMIN, "### Admin of the server")] {
        let routes = routes(source);
        assert!(routes.len() >= 5, "{routes:?}");
        assert_eq!(requests(section(heading)), routes, "{heading}");
    }
}

/// The codes in the first column of a table, and of a line of `0 ok · 1 failure · …`.
fn numbers(text: &str) -> BTreeSet<u8> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn every_exit_code_is_documented_everywhere() {
    let codes = EXIT_CODES.split_once("fn code(self)").unwrap().1.split_once("\n    }\n").unwrap().0;
    let mut codes: BTreeSet<u8> =
        codes.split("=> ").skip(1).flat_map(|arm| numbers(arm.split(',').next().unwrap())).collect();
    codes.extend([130, 143]);
    assert!(codes.len() >= 8, "{codes:?}");

    let table = section("## Signals and exit codes").split_once("| code | meaning |").unwrap().1;
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    assert_eq!(rows.flat_map(numbers).collect::<BTreeSet<_>>(), codes, "docs/operations.md");

    let help = Program::new().run(&["--help"]).ok();
    let help = help.split_once("Exit codes:").unwrap().1.split_once("\n\n").unwrap().0;
    assert_eq!(numbers(help), codes, "--help");
    let line = COMMANDS.split_once("Exit codes: ").unwrap().1.split_once(".\n").unwrap().0;
    assert_eq!(numbers(line), codes, "docs/commands.md");
}

/// The names of the metrics in an answer.
fn told(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    types.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exposed_metric_is_documented() {
    let program = Program::new();
    let yaml = "server: {listen: '127.0.0.1:0', queues: [{name: q, groups: [g]}]}\nworkers: [{queue: q, group: g, handler: {log: }}]\npublishers: [{queue: q, listen: '127.0.0.1:0'}]\nadmin: {listen: '127.0.0.1:0'}\n";
    let sidecar = program.start(&["run", "-c", &program.file("config.yaml", yaml)]);
    let server = program.serve(&["--admin", "127.0.0.1:0"]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = http.post(sidecar.url("publisher on ")).body("{\"body\": 1}").send().await.unwrap();
    assert_eq!(sent.status(), 200);
    let get = async |address: &str| {
        let url = format!("{}/metrics", address.trim_end_matches(')'));
        told(&http.get(url).send().await.unwrap().text().await.unwrap())
    };
    let mut told = get(&sidecar.url("admin on ")).await;
    told.extend(get(&server.url("admin on ")).await);
    for start in ["dms_worker_", "dms_producer_", "dms_server_"] {
        assert!(told.iter().filter(|name| name.starts_with(start)).count() >= 5, "{start}: {told:?}");
    }
    for name in told {
        assert!(OPERATIONS.contains(&format!("`{name}`")), "{name} is not in docs/operations.md");
    }
}
