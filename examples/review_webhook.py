"""Starts the deployment that promotes as soon as somebody sets the tag `review` in MLflow.

Without it the deployment finds approved versions when its schedule next runs it; that stays the
truth, since MLflow's webhooks are not kept where nobody answers. In the environment:
WEBHOOK_SECRET, the webhook's secret, and what Prefect needs (PREFECT_API_URL).

    python examples/review_webhook.py promote/promote --port 8090
    mlflow.MlflowClient().create_webhook(
        "review", "https://this-machine:8090", ["model_version_tag.set"], secret=…)
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DECISIONS = ("approved", "rejected")
OLDEST_S = 300
"""Older messages are refused: somebody may have recorded them."""
LARGEST_BYTES = 100_000


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether MLflow signed a message with the secret, and of late."""
    delivery, sent = headers.get("X-MLflow-Delivery-Id", ""), headers.get("X-MLflow-Timestamp", "")
    if not sent.isdigit() or abs(time.time() - int(sent)) > OLDEST_S:
        return False
    signed = f"{delivery}.{sent}.".encode() + body
    code = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(f"v1,{code}", headers.get("X-MLflow-Signature", ""))


def is_decision(message: dict[str, Any]) -> bool:
    """Return whether a message says that somebody decided about a version."""
    data = message.get("data", {})
    event = (message.get("entity"), message.get("action"))
    word = str(data.get("value", "")).strip().lower()
    return (
        event == ("model_version_tag", "set")
        and data.get("key") == "review"
        and (word in DECISIONS)
    )


def make_server(port: int, secret: str, start: Callable[[], object]) -> ThreadingHTTPServer:
    """Return a server that calls ``start`` for each signed message about a decision."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers["Content-Length"] or 0), LARGEST_BYTES))
            signed = is_signed(secret, self.headers, body)
            if signed and is_decision(json.loads(body)):
                start()
            self.send_response(204 if signed else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    return ThreadingHTTPServer(("", port), Handler)


def main() -> None:
    """Serve until the process is ended."""
    from prefect.deployments import run_deployment

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deployment", help="FLOW/DEPLOYMENT, as in promote/promote")
    parser.add_argument("--port", type=int, default=8090)
    asked = parser.parse_args()
    secret = os.environ["WEBHOOK_SECRET"]
    server = make_server(asked.port, secret, lambda: run_deployment(asked.deployment, timeout=0))
    server.serve_forever()


if __name__ == "__main__":
    main()
