"""The certificates of a run, made by openssl at its start: one authority, one certificate for every proxy and for the
origin, and one for proxies that prove themselves to the origin. All keys are ECDSA P-256, as most sites have them."""

import subprocess
from pathlib import Path

from .settings import OUTPUT

FOLDER = OUTPUT / "tls"
AUTHORITY = FOLDER / "ca.pem"
SERVER = FOLDER / "server.pem"
SERVER_KEY = FOLDER / "server.key"
SERVER_BUNDLE = FOLDER / "server-bundle.pem"
CLIENT = FOLDER / "client.pem"
CLIENT_KEY = FOLDER / "client.key"
CLIENT_BUNDLE = FOLDER / "client-bundle.pem"
"""Certificate and key in one file, which is how HAProxy takes them."""

CLIENT_SETTINGS = FOLDER / "openssl.cnf"
"""What the load generators' OpenSSL reads (OPENSSL_CONF). They offer one version, one cipher suite and one group, and
so every proxy has to use these, whatever it would have preferred and whether or not it can be told."""

CIPHER_SUITE = "TLS_AES_128_GCM_SHA256"
GROUP = "X25519"

ORIGIN_NAME = "origin.bench"
SITE_NAME = "localhost"

_DAYS = "7"


def make() -> None:
    """Writes all of them anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    authority_key = FOLDER / "ca.key"
    _key(authority_key)
    _openssl("req", "-x509", "-new", "-key", str(authority_key), "-days", _DAYS, "-subj", "/CN=Benchmark authority",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", str(AUTHORITY))
    for name, key, certificate, bundle, use in (
        ("server", SERVER_KEY, SERVER, SERVER_BUNDLE,
         f"extendedKeyUsage=serverAuth\nsubjectAltName=DNS:{SITE_NAME},DNS:{ORIGIN_NAME}"),
        ("client", CLIENT_KEY, CLIENT, CLIENT_BUNDLE, "extendedKeyUsage=clientAuth\nsubjectAltName=DNS:proxy.bench"),
    ):
        request, extensions = FOLDER / f"{name}.csr", FOLDER / f"{name}.ext"
        extensions.write_text(f"basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n{use}\n")
        _key(key)
        _openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", str(request))
        _openssl("x509", "-req", "-in", str(request), "-CA", str(AUTHORITY), "-CAkey", str(authority_key),
                 "-CAcreateserial", "-days", _DAYS, "-extfile", str(extensions), "-out", str(certificate))
        bundle.write_text(certificate.read_text() + key.read_text())
        bundle.chmod(0o600)
    CLIENT_SETTINGS.write_text(f"""openssl_conf = openssl
[openssl]
ssl_conf = ssl
[ssl]
system_default = clients
[clients]
MinProtocol = TLSv1.3
Ciphersuites = {CIPHER_SUITE}
Groups = {GROUP}
""")


def _key(path: Path) -> None:
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path))
    path.chmod(0o600)


def _openssl(*words: str) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]} failed: {done.stderr.strip()}")
