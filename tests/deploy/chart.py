"""Renders the Helm chart with several values, checks the manifests against the schemas of Kubernetes, and the configuration in them
with `dms-worker check`:

    chart.py path/to/dms-worker

Needs requirements.txt and Go; the templates are rendered by render/main.go, because Helm itself needs a newer Go than Debian's.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]
CHART = TOP / "deploy/helm/dms-server"
CASES = {
    "on a volume": {},
    "with everything": {"tls": True, "clients": {"app": "orders"}, "monitors": {"app": "prometheus"}, "podAnnotations": {"a": "b"},
                        "storage": {"size": "1Gi", "className": "fast"}, "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}],
                        "affinity": {"podAntiAffinity": {}}, "server": {"retention": "12h", "quotas": {"queues": 100}}},
    "on PostgreSQL, encrypted": {"secrets": {"keys": "dms-keys", "tls": "dms-server-tls", "postgres": "dms-postgres", "hop": "dms-hop-tls"}},
    "on PostgreSQL": {"secrets": {"keys": "dms-keys", "tls": "dms-server-tls", "postgres": "dms-postgres"}, "clients": {"app": "orders"}},
}


def merged(base, more):
    both = isinstance(base, dict) and isinstance(more, dict)
    return {**base, **{key: merged(base.get(key), value) for key, value in more.items()}} if both else more


def certificate(directory):
    """A certificate for the name that the servers share, of an authority of its own: none is its own authority."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=authority", "-out", "ca.crt", "-keyout", "ca.key")
    openssl("req", *key, "-subj", "/CN=dms", "-out", "tls.csr", "-keyout", "tls.key")
    (directory / "names").write_text("subjectAltName=DNS:dms-hop\n")
    openssl("x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "tls.crt")


def check(binary, directory, config):
    """The configuration, with its secrets in a directory."""
    for place in ("/run/secrets/dms", "/run/secrets/tls", "/run/secrets/postgres", "/run/secrets/hop"):
        config = config.replace(place, str(directory))
    (directory / "config.yaml").write_text(config)
    for name, text in {"admin_token": "token", "secret_key": "secret", "url": "postgres://dms:password@pg/dms"}.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    certificate(directory)
    environment = {**os.environ, "DMS_ACCESS_KEY": "orders", "POD_IP": "10.0.0.7"}
    return subprocess.run([binary, "check", "-c", directory / "config.yaml"], env=environment, capture_output=True, text=True)


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    validate = pathlib.Path(sys.executable).parent / "kubernetes-validate"
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        environment = {**os.environ, "GOCACHE": str(TOP / "target/go"), "GOPROXY": "off"}
        subprocess.run(["go", "build", "-o", directory / "render", "."], cwd=TOP / "tests/deploy/render", env=environment, check=True)
        chart, defaults = (yaml.safe_load((CHART / file).read_text()) for file in ("Chart.yaml", "values.yaml"))
        for case, values in CASES.items():
            (directory / "values.json").write_text(json.dumps({"chart": chart, "values": merged(defaults, values)}))
            rendered = subprocess.run([directory / "render", CHART, "dms", directory / "values.json"], capture_output=True, text=True)
            if rendered.returncode:
                sys.exit(f"{case}: {rendered.stderr}")
            manifests = [manifest for manifest in yaml.safe_load_all(rendered.stdout) if manifest]
            (directory / "manifests.yaml").write_text(yaml.safe_dump_all(manifests))
            valid = subprocess.run([validate, "--strict", directory / "manifests.yaml"], capture_output=True, text=True)
            if valid.returncode:
                sys.exit(f"{case}:\n{valid.stdout}{valid.stderr}\n{rendered.stdout}")
            config = next(manifest for manifest in manifests if manifest["kind"] == "ConfigMap")["data"]["config.yaml"]
            checked = check(binary, directory, config)
            if checked.returncode:
                sys.exit(f"{case}: {checked.stdout}{checked.stderr}\n{config}")
            print(f"{case}: {', '.join(manifest['kind'] for manifest in manifests)}")


if __name__ == "__main__":
    main()
