"""Print the job template of a Kubernetes work pool whose runs share one store.

It is Prefect's own template with a persistent volume claim, `potstill-store`, mounted where the
runs have their `work_dir`:

    python production/kubernetes_pool.py > pool.json
    prefect work-pool create --type kubernetes --base-job-template pool.json potstill
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from typing import Any

CLAIM, FOLDER = "potstill-store", "/potstill/.potstill"
SHIPPED = "api/collections_data/views/aggregate-worker-metadata.json"


def read_template(package: str, kind: str) -> dict[str, Any]:
    """Return the job template that Prefect ships for a kind of work pool."""
    shipped = json.loads((files("prefect.server") / SHIPPED).read_text())
    template: dict[str, Any] = shipped[package][kind]["default_base_job_configuration"]
    return template


def make_template() -> dict[str, Any]:
    """Return Prefect's template for Kubernetes with the store as a volume."""
    template = read_template("prefect-kubernetes", "kubernetes")
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    pod["volumes"] = [{"name": "store", "persistentVolumeClaim": {"claimName": CLAIM}}]
    for container in pod["containers"]:
        container["volumeMounts"] = [{"name": "store", "mountPath": FOLDER}]
    return template


if __name__ == "__main__":
    json.dump(make_template(), sys.stdout, indent=2)
