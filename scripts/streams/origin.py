"""The origin behind the gateway: an nginx that speaks each protocol, and a sink for what is uploaded."""

import hashlib
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path

START_SECONDS = 10
PIECE = 1 << 20

BEHIND = {"h1": "", "h1-tls": " ssl", "h2": " http2", "h2-tls": " ssl http2"}
"""The protocols behind the gateway, and what nginx calls each."""


class Sink(socketserver.ThreadingTCPServer):
    """Reads the content of each request and answers with its SHA-256."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Reader)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Reader(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline().strip().lower()) != b"":
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
        digest, buffer = hashlib.sha256(), bytearray(PIECE)
        while length > 0:
            count = self.rfile.readinto1(memoryview(buffer)[:min(length, PIECE)])
            if count == 0:
                return
            digest.update(memoryview(buffer)[:count])
            length -= count
        answer = digest.hexdigest().encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(answer), answer))


def nginx(directory: Path, sink: Sink, ports: dict[str, int]) -> subprocess.Popen[bytes]:
    """Serves `directory` and passes uploads on to `sink`, on one port for each protocol."""
    listens = "".join(f"listen 127.0.0.1:{port}{BEHIND[name]};" for name, port in ports.items())
    configuration = f"""
daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log warn; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off; sendfile on; client_max_body_size 0;
    client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
    server {{
        {listens}
        ssl_certificate {directory}/certificate.pem; ssl_certificate_key {directory}/key.pem;
        root {directory};
        location /upload {{ proxy_pass http://127.0.0.1:{sink.server_address[1]}; proxy_request_buffering off; proxy_http_version 1.1; }}
    }}
}}
"""
    file = directory / "nginx.conf"
    file.write_text(configuration)
    return subprocess.Popen(["nginx", "-c", file, "-e", directory / "nginx.log"])


def wait_for(port: int) -> None:
    """Returns once somebody listens on `port`."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
