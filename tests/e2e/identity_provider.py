"""A small OpenID Connect provider on loopback: whoever is named signs in at once, with a signed identity token."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID = "influence"
CLIENT_SECRET = secrets.token_hex(16)


class IdentityProvider:
    """Discovery, authorization with a code and PKCE, tokens signed with RS256, public keys.

    Attributes:
        person: claims of whoever signs in next; `email` and `name` at least.
        codes: codes given out and not yet exchanged.
    """

    def __init__(self) -> None:
        self.person: dict[str, Any] = {}
        self.codes: dict[str, dict[str, Any]] = {}
        self._key = RSAKey.generate_key(2048, {"kid": "test", "use": "sig", "alg": "RS256"})
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                url = urlsplit(self.path)
                asked = {name: values[0] for name, values in parse_qs(url.query).items()}
                if url.path == "/.well-known/openid-configuration":
                    self._json(provider.metadata())
                elif url.path == "/keys":
                    self._json({"keys": [provider._key.as_dict(private=False)]})
                elif url.path == "/authorize":
                    self.send_response(302)
                    self.send_header("Location", provider.authorized(asked))
                    self.end_headers()
                else:
                    self.send_error(404)

            def do_POST(self) -> None:  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                given = {name: values[0] for name, values in parse_qs(body).items()}
                basic = self.headers.get("Authorization", "").removeprefix("Basic ")
                known = base64.b64decode(basic).decode() == f"{CLIENT_ID}:{CLIENT_SECRET}"
                answer = provider.token(given) if known and self.path == "/token" else None
                self._json(answer or {"error": "invalid_grant"}, 200 if answer else 400)

            def _json(self, value: object, status: int = 200) -> None:
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url, "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token", "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"], "code_challenge_methods_supported": ["S256"],
        }  # fmt: skip

    def authorized(self, asked: dict[str, str]) -> str:
        """The address that a browser is sent back to."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = {
            "nonce": asked["nonce"], "challenge": asked["code_challenge"], "redirect_uri": asked["redirect_uri"],
            "person": dict(self.person),
        }  # fmt: skip
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, given: dict[str, str]) -> dict[str, Any] | None:
        """The tokens of a code that is exchanged once, with its verifier; None for anything else."""
        code = self.codes.pop(given.get("code", ""), None)
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if code is None or code["challenge"] != challenge or code["redirect_uri"] != given["redirect_uri"]:
            return None
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT_ID, "sub": code["person"]["email"], "iat": now, "exp": now + 600,
            "nonce": code["nonce"], **code["person"],
        }  # fmt: skip
        identity = jwt.encode({"alg": "RS256", "kid": "test"}, claims, self._key)
        return {"access_token": secrets.token_hex(8), "token_type": "Bearer", "expires_in": 600, "id_token": identity}

    @contextmanager
    def running(self) -> Iterator[IdentityProvider]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield self
        self._server.shutdown()
        thread.join()
        self._server.server_close()

    def write_secrets(self, file: Path, app: str) -> None:
        """Write the `secrets.toml` of an app at an address."""
        file.write_text(
            f'[auth]\nredirect_uri = "{app}/oauth2callback"\ncookie_secret = "{secrets.token_hex(32)}"\n'
            f'client_id = "{CLIENT_ID}"\nclient_secret = "{CLIENT_SECRET}"\n'
            f'server_metadata_url = "{self.url}/.well-known/openid-configuration"\n',
            encoding="utf-8",
        )
