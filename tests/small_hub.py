"""A small server that speaks as much of the Hub's API as uploads need."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest


class SmallHub(BaseHTTPRequestHandler):
    """Takes a commit of a repository: small files in the commit itself, weights as large files."""

    token: ClassVar[str] = "hf_right"
    repositories: ClassVar[dict[str, dict[str, Any]]]
    large: ClassVar[dict[str, bytes]]
    full: ClassVar[bool] = False

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def answer(self, status: int, content: Any, **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def refused(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {self.token}":
            return False
        self.answer(401, {"error": "Invalid username or password."}, X_Error_Message="Invalid username or password.")
        return True

    def do_GET(self) -> None:
        name = self.path.removeprefix("/api/models/").partition("?")[0]
        if self.refused():
            return
        if name not in self.repositories:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return
        self.answer(200, {"id": name, "private": self.repositories[name]["private"], "tags": [], "siblings": []})

    def do_PUT(self) -> None:
        if self.full:
            self.answer(403, {"error": "no room"})
            return
        self.large[self.path.removeprefix("/large/")] = self.body
        self.answer(200, {})

    def do_POST(self) -> None:
        body, path = self.body, self.path.strip("/").split("/")
        if self.refused():
            return
        if path == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif path == ["api", "validate-yaml"]:
            bad = "language: 7" in json.loads(body)["content"]
            errors = [{"message": '"language" must be a string'}] if bad else []
            self.answer(400 if bad else 200, {"errors": errors, "warnings": []})
        elif path[-2] == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {file: "lfs" if file.endswith("safetensors") else "regular" for file in files}
            told = [{"path": file, "uploadMode": mode, "shouldIgnore": False} for file, mode in modes.items()]
            self.answer(200, {"files": told})
        elif path[-2:] == ["objects", "batch"]:
            self.batch(json.loads(body))
        elif path[-2] == "commit":
            self.commit("/".join(path[2:4]), [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "others":
            message = 'You don\'t have the rights to create a model under the namespace "others"'
            self.answer(403, {"error": message}, X_Error_Message=message)
            return
        url = f"http://{self.headers['Host']}/{name}"
        if name in self.repositories:
            self.answer(409, {"error": "You already created this model repo", "url": url})
            return
        self.repositories[name] = {"private": asked.get("visibility") == "private", "files": {}, "commits": []}
        self.answer(200, {"url": url})

    def batch(self, asked: dict[str, Any]) -> None:
        to = {o["oid"]: f"http://{self.headers['Host']}/large/{o['oid']}" for o in asked["objects"]}
        objects = [o | {"actions": {"upload": {"href": to[o["oid"]]}}} for o in asked["objects"]]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository["commits"].append(value["summary"])
            elif line["key"] == "file":
                repository["files"][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository["files"][value["path"]] = self.large[value["oid"]]
        url = f"http://{self.headers['Host']}/{name}"
        self.answer(200, {"commitUrl": f"{url}/commit/{'0' * 40}", "commitOid": "0" * 40})


@contextmanager
def at_the_hubs_place(handler: type[BaseHTTPRequestHandler], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Inside, the Hub is a server with this handler; its address."""
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=partial(served.serve_forever, poll_interval=0.01))
    thread.start()
    address = f"http://127.0.0.1:{served.server_port}"
    for name, value in (("ENDPOINT", address), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setattr(f"multitune.storage.hub.{name}", value)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # made once, with the address of then
    try:
        yield address
    finally:
        served.shutdown()
        served.server_close()
        thread.join()


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SmallHub]]:
    """Inside, the Hub is a small one with a public and a private repository, and there is a token for it."""
    there = {f"me/{kind}": {"private": kind == "private", "files": {}, "commits": []} for kind in ("public", "private")}
    handler = type("Handler", (SmallHub,), {"repositories": there, "large": {}})
    with at_the_hubs_place(handler, monkeypatch) as address:
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        yield handler
