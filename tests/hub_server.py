"""A small hub on 127.0.0.1 for the tests: real HTTP, real files, and faults on demand.

It speaks the part of the hub's protocol that its client uses to look at, download and push repositories. A route is a
method of ``_Handler`` found through ``_ROUTES``; a new one is one more line there. Faults are kept
apart from the routes: each waits for a path, strikes a number of times, and is gone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Kind = Literal["models", "datasets"]
_VERBS = {"revision", "tree", "paths-info", "resolve", "preupload", "commit"}


@dataclass
class Repository:
    """One repository: every commit's files, and where its branches and tags point."""

    kind: Kind
    id: str
    gated: bool = False
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit of exactly ``files`` and let ``branch`` point to it."""
        content = "".join(f"{name}:{hashlib.sha256(data).hexdigest()}\n" for name, data in sorted(files.items()))
        commit = hashlib.sha1(f"{self.id}\n{content}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.references[branch] = commit
        return commit

    def find(self, revision: str) -> str | None:
        """The commit that a branch, tag or commit names."""
        return self.references.get(revision) or (revision if revision in self.commits else None)


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    """With their names in lower case."""
    body: bytes


@dataclass
class Fault:
    """Something that goes wrong for requests whose method and path fit."""

    pattern: re.Pattern[str]
    method: str
    times: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    send_first: int | None = None
    """Bytes of the real answer that are sent before the connection stalls or is cut."""
    stall: float = 0.0

    def strikes(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and self.pattern.search(path) is not None


class HubServer:
    """A hub with its repositories, the faults that are due, and the requests it has seen."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.seen: list[Seen] = []
        self.stored: dict[str, bytes] = {}
        """Large files that were uploaded, by their SHA-256."""
        self.token: str | None = None
        """The token that may write; None lets everybody."""
        self._faults: list[Fault] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Stop answering: open connections are closed and new ones refused."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                close(connection)

    def add(self, identifier: str, files: Mapping[str, bytes], *, kind: Kind = "models", gated: bool = False) -> str:
        """Add a repository with one commit on ``main``; returns the commit."""
        repository = Repository(kind, identifier, gated)
        self.repositories[kind, identifier] = repository
        return repository.commit(files)

    def fail(
        self,
        pattern: str,
        status: int,
        *,
        times: int = 1_000,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        """Answer with ``status`` instead."""
        self._add(Fault(re.compile(pattern), method, times, status, dict(headers or {}), body))

    def cut(self, pattern: str, after: int, *, times: int = 1) -> None:
        """Close the connection after so many bytes of the file."""
        self._add(Fault(re.compile(pattern), "GET", times, send_first=after))

    def stall(self, pattern: str, seconds: float, *, after: int = 0, times: int = 1_000) -> None:
        """Stop sending for so long after so many bytes of the file, then close the connection."""
        self._add(Fault(re.compile(pattern), "GET", times, send_first=after, stall=seconds))

    def requests(self, pattern: str, method: str | None = None) -> list[Seen]:
        """The requests so far whose path fits."""
        with self._lock:
            return [seen for seen in self.seen if re.search(pattern, seen.path) and method in (None, seen.method)]

    def note(self, seen: Seen) -> Fault | None:
        """Record a request; returns the fault that is due for it."""
        with self._lock:
            self.seen.append(seen)
            for fault in self._faults:
                if fault.strikes(seen.method, seen.path):
                    fault.times -= 1
                    return fault
        return None

    def connected(self, connection: socket.socket) -> None:
        """Remember an open connection."""
        with self._lock:
            self._connections.add(connection)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the server's own end."""
        self._stopped.wait(seconds)

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)


@contextlib.contextmanager
def running_hub() -> Iterator[HubServer]:
    """A hub for the length of a ``with`` block."""
    server = HubServer()
    try:
        yield server
    finally:
        server.stop()


def close(connection: socket.socket) -> None:
    """End a connection for both sides, also if it has ended already."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _handler_for(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"hub": hub})


class _Refused(Exception):
    """An answer that is an error of the hub's own kind."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    fault: Fault | None

    def setup(self) -> None:
        super().setup()
        self.hub.connected(self.connection)

    def log_message(self, *_: Any) -> None:
        pass

    def _dispatch(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.fault = self.hub.note(Seen(self.command, unquote(path), headers, body))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.fault is not None and self.fault.status is not None:
                self._send(self.fault.status, self.fault.body, self.fault.headers)
                return
            try:
                self._route(path, body)
            except _Refused as refused:
                headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
                self._send_json({"error": refused.message}, refused.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = _dispatch  # noqa: N815  # the names http.server looks for

    def _route(self, path: str, body: bytes) -> None:
        if self.command in ("POST", "PUT") and "paths-info" not in path:
            self._push(path, body)
            return
        if path == "/api/models":
            self._search()
            return
        for method, pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, path):
                kind: Kind = "datasets" if (match["kind"] or "").startswith("datasets") else "models"
                if self.command in method.split():
                    repository, rest = self._find(kind, match["rest"])
                    answer(self, repository, rest, body)
                    return
        raise _Refused(404, "NotFound", "There is no such page")

    def _search(self) -> None:
        """Models whose name holds the words, as many as were asked for."""
        asked = parse_qs(urlsplit(self.path).query)
        words, limit = asked["search"][0].lower(), int(asked["limit"][0])
        found = [each for (kind, name), each in self.hub.repositories.items() if kind == "models" and words in name]
        self._send_json([_description(each) for each in found[:limit]])

    def _find(self, kind: Kind, rest: str) -> tuple[Repository, list[str]]:
        """The repository at the start of a path, whose id has one part or two, and what follows it."""
        # Decoded part by part: a revision such as refs/pr/1 is one part, its slashes encoded.
        parts = [unquote(part) for part in rest.split("/")]
        length = 1 if len(parts) == 1 or parts[1] in _VERBS else 2
        repository = self.hub.repositories.get((kind, "/".join(parts[:length])))
        if repository is None:
            # What the real hub says to strangers, so that private repositories cannot be guessed.
            raise _Refused(401, "RepoNotFound", "Invalid username or password.")
        return repository, parts[length:]

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.find(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def information(self, repository: Repository, rest: list[str], body: bytes) -> None:
        """What a repository is, and its files with their sizes."""
        commit = self._commit(repository, "/".join(rest[1:]) or "main")
        files = repository.commits[commit]
        self._send_json(
            {
                "_id": "0",
                "id": repository.id,
                "sha": commit,
                "private": False,
                "gated": "manual" if repository.gated else False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name, "size": len(data)} for name, data in files.items()],
            }
        )

    def tree(self, repository: Repository, rest: list[str], body: bytes) -> None:
        """The files below a folder."""
        commit = self._commit(repository, rest[1])
        prefix = "/".join(rest[2:])
        self._send_json(
            [entry for name, entry in _entries(repository.commits[commit]).items() if name.startswith(prefix)]
        )

    def paths(self, repository: Repository, rest: list[str], body: bytes) -> None:
        """What some paths are."""
        commit = self._commit(repository, rest[1])
        wanted = json.loads(body)["paths"]
        self._send_json([entry for name, entry in _entries(repository.commits[commit]).items() if name in wanted])

    def resolve(self, repository: Repository, rest: list[str], body: bytes) -> None:
        """A file, from the byte that was asked for."""
        if repository.gated and "Authorization" not in self.headers:
            raise _Refused(401, "GatedRepo", "Access to this repository is restricted.")
        commit, name = self._commit(repository, rest[1]), "/".join(rest[2:])
        data = repository.commits[commit].get(name)
        if data is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, data, headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self._send(206, data[start : end + 1], headers)

    def _push(self, path: str, body: bytes) -> None:
        """Everything that writes: a new repository, the questions before a commit, large files, the commit."""
        if self.hub.token is not None and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            if path.startswith("/store/"):
                pass  # the address itself is the permission
            else:
                raise _Refused(401, "", f"Invalid token {self.headers.get('Authorization')}")
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif path.startswith("/store/"):
            self.hub.stored[path.removeprefix("/store/")] = body
            self._send_json({})
        elif match := re.fullmatch(r"/(?P<id>.+)\.git/info/lfs/objects/batch", path):
            self._send_json({"objects": [self._upload_action(each) for each in json.loads(body)["objects"]]})
        elif match := re.fullmatch(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<verb>preupload|commit)/.+", path):
            repository = self.hub.repositories["models", match["id"]]
            (self._preupload if match["verb"] == "preupload" else self._take_commit)(repository, body)
        else:
            raise _Refused(404, "NotFound", "There is no such page")

    def _create(self, wanted: dict[str, Any]) -> None:
        identifier = f"{wanted['organization']}/{wanted['name']}"
        if ("models", identifier) in self.hub.repositories:
            self._send_json({"url": f"{self.hub.address}/{identifier}"}, 409)
            return
        self.hub.add(identifier, {})
        self.hub.repositories["models", identifier].private = wanted.get("visibility") == "private"
        self._send_json({"url": f"{self.hub.address}/{identifier}"})

    def _upload_action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        address = f"{self.hub.address}/store/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": address, "header": {}}}}

    def _preupload(self, repository: Repository, body: bytes) -> None:
        paths = [each["path"] for each in json.loads(body)["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self._send_json({"files": files})

    def _take_commit(self, repository: Repository, body: bytes) -> None:
        files = dict(repository.commits[repository.references["main"]])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commit = repository.commit(files)
        self._send_json({"commitUrl": f"{self.hub.address}/{repository.id}/commit/{commit}", "commitOid": commit})

    def _send_json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = self.fault
        if fault is None or fault.send_first is None:
            self.wfile.write(data)
            return
        self.wfile.write(data[: fault.send_first])
        self.wfile.flush()
        self.hub.pause(fault.stall)
        self.close_connection = True
        close(self.connection)


def _description(repository: Repository) -> dict[str, Any]:
    """A line of the answer to a search; the licence is that of the model's card."""
    card = repository.commits[repository.references["main"]].get("README.md", b"").decode()
    licence = re.search(r"^license: (\S+)$", card, re.MULTILINE)
    return {
        "id": repository.id,
        "downloads": 7,
        "gated": "manual" if repository.gated else False,
        "tags": ["text-generation", *([f"license:{licence[1]}"] if licence else [])],
    }


def _entries(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {
        name: {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in files.items()
    }


# Longest first: the page of a repository fits the start of every other path.
_ROUTES: list[tuple[str, str, Callable[[Any, Repository, list[str], bytes], None]]] = [
    ("GET", r"/api/(?P<kind>models|datasets)/(?P<rest>.+/tree/.+)", _Handler.tree),
    ("POST", r"/api/(?P<kind>models|datasets)/(?P<rest>.+/paths-info/.+)", _Handler.paths),
    ("GET", r"/api/(?P<kind>models|datasets)/(?P<rest>.+)", _Handler.information),
    ("GET HEAD", r"/(?P<kind>datasets/)?(?P<rest>.+/resolve/.+)", _Handler.resolve),
]
