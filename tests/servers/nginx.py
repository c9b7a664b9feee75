"""Debian's nginx in front of a service, on free ports, with the site from docs/examples/nginx.conf."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path

from tests.servers import Server, Unavailable, free_port, install, last_line

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "nginx.conf"

# Debian's nginx.conf with other file paths. It includes the site.
MAIN = """
{user}
error_log stderr;
pid {directory}/nginx.pid;
events {{ worker_connections 768; }}
http {{
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""


class Nginx(Server):
    """nginx with HTTPS on `port` and plain HTTP on `http_port`. The SSL context `tls` trusts its certificate."""

    def __init__(self, service_port: int) -> None:
        self.service_port, self.http_port = service_port, free_port()
        super().__init__()

    def prepare(self) -> None:
        for program, package in (("nginx", "nginx-light"), ("openssl", "openssl")):
            if not find(program):
                install(package)
        self.program = find("nginx")
        self.make_certificate()
        # If root starts nginx, the workers run as another user, who cannot read the server's directory.
        user = "" if os.geteuid() else "user root;"
        self.write("nginx.conf", MAIN.format(user=user, directory=self.directory))
        self.write("site.conf", self.site())

    def site(self) -> str:
        """Return the example site with other ports, another host name and another certificate."""
        certificate = "/etc/letsencrypt/live/threads.example.org"
        text = EXAMPLE.read_text(encoding="utf-8")
        for old, new in {
            "listen [::]:80;": "",  # no IPv6, because some machines do not have it
            "listen [::]:443 ssl http2;": "",
            "listen 80;": f"listen 127.0.0.1:{self.http_port};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
            "server 127.0.0.1:8000;": f"server 127.0.0.1:{self.service_port};",
            f"{certificate}/fullchain.pem": str(self.directory / "certificate.pem"),
            f"{certificate}/privkey.pem": str(self.directory / "key.pem"),
            "https://threads.example.org$": f"https://localhost:{self.port}$",
            "server_name threads.example.org;": "server_name localhost;",
        }.items():
            assert old in text, old
            text = text.replace(old, new)
        return text

    def make_certificate(self) -> None:
        files = ["-keyout", str(self.directory / "key.pem"), "-out", str(self.directory / "certificate.pem")]
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
        name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        done = subprocess.run(["openssl", "req", *kind, *name, *files], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"openssl failed: {last_line(done.stderr)}")
        self.tls = ssl.create_default_context(cafile=str(self.directory / "certificate.pem"))

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")

    def command(self) -> list[str]:
        return [self.program, "-c", str(self.directory / "nginx.conf"), "-g", "daemon off;"]


def find(program: str) -> str:
    """Return the path of a program in PATH or /usr/sbin, or an empty string if the program is missing."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin") or ""
