"""GitHub's REST API on localhost: what the comment job asks, and what it writes."""

from __future__ import annotations

import io
import itertools
import json
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

REPOSITORY = "msa-bench/msa-bench"
TOKEN = "token-of-the-job"
BOT = "github-actions[bot]"


def packed(files):
    """A zip archive as upload-artifact makes it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


class FakeGitHub:
    """A repository with a pull request; use it as a context manager."""

    def __init__(self):
        self.pulls, self.runs, self.artifacts, self.blobs = [], {}, {}, {}
        self.statuses, self.comments, self.asked = [], [], []
        self.trees, self.fork_point = {}, "f" * 40
        self._ids = itertools.count(100)

    def __enter__(self):
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                fake.asked.append((self.command, self.path, self.headers.get("Authorization")))
                code, headers, data = fake.respond(self.command, self.path, body, self.headers)
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def open(self, number, head, base, *, repository="someone/msa-bench", edits_workflows=False):
        where = {"full_name": repository} if repository else None
        pull = {"number": number, "head": {"sha": head, "repo": where}, "base": {"sha": base}}
        self.pulls.append(pull)
        self.trees = {self.fork_point: "as it was", head: "new" if edits_workflows else "as it was"}

    def ran(self, workflow, head, conclusion, archive=None, *, repository="someone/msa-bench"):
        """A run of a workflow, and its artifact if it left one."""
        number = next(self._ids)
        run = {
            "id": number,
            "run_number": number,
            "head_sha": head,
            "head_repository": {"full_name": repository} if repository else None,
            "status": "completed" if conclusion else "in_progress",
            "conclusion": conclusion,
            "html_url": f"https://github.com/{REPOSITORY}/actions/runs/{number}",
        }
        self.runs.setdefault(workflow, []).append(run)
        if archive is not None:
            self.left(number, archive)
        return number

    def left(self, run, archive, *, name="gate-run", size=None, expired=False):
        number = next(self._ids)
        self.blobs[number] = archive
        about = {"id": number, "name": name, "size_in_bytes": size or len(archive)}
        self.artifacts.setdefault(run, []).append({**about, "expired": expired})

    def say(self, author, body):
        user = {"login": author} if author else None
        self.comments.append({"id": next(self._ids), "user": user, "body": body})

    def respond(self, verb, target, body, headers):
        if match := re.fullmatch(r"/blob/(\d+)", target):
            return 200, {"Content-Type": "application/zip"}, self.blobs[int(match[1])]
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = url.path.removeprefix(f"/repos/{REPOSITORY}/")
        if headers.get("Authorization") != f"Bearer {TOKEN}" or path == url.path:
            return 401, {}, b'{"message": "Bad credentials"}'
        if match := re.fullmatch(r"actions/artifacts/(\d+)/zip", path):
            # Another host, as with GitHub: a token that is sent on would leak.
            return 302, {"Location": f"http://localhost:{self.port}/blob/{match[1]}"}, b""
        found = self._write(verb, path, body) if body is not None else self._read(path, query)
        if found is None:
            return 404, {}, b'{"message": "Not Found"}'
        return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()

    def _read(self, path, query):
        start = (int(query.get("page", 1)) - 1) * int(query.get("per_page", 30))
        part = slice(start, start + int(query.get("per_page", 30)))
        if path == "pulls":
            return self.pulls[part]
        if re.fullmatch(r"issues/\d+/comments", path):
            return self.comments[part]
        if match := re.fullmatch(r"actions/workflows/([\w.]+)/runs", path):
            runs = [r for r in self.runs.get(match[1], []) if r["head_sha"] == query["head_sha"]]
            return {"workflow_runs": runs[part]}
        if match := re.fullmatch(r"actions/runs/(\d+)/artifacts", path):
            return {"artifacts": self.artifacts.get(int(match[1]), [])[part]}
        if re.fullmatch(r"compare/[0-9a-f]{40}\.\.\.[0-9a-f]{40}", path):
            return {"merge_base_commit": {"sha": self.fork_point}}
        if match := re.fullmatch(r"git/trees/([0-9a-f]{40})", path):
            return {"tree": [{"path": ".github", "sha": self.trees[match[1]]}]}
        return None

    def _write(self, verb, path, body):
        if verb == "POST" and (match := re.fullmatch(r"statuses/([0-9a-f]{40})", path)):
            assert len(body["description"]) <= 140
            self.statuses.append({**body, "sha": match[1]})
            return body
        if verb == "POST" and re.fullmatch(r"issues/\d+/comments", path):
            assert len(body["body"]) <= 65_536
            self.say(BOT, body["body"])
            return body
        if verb == "PATCH" and (match := re.fullmatch(r"issues/comments/(\d+)", path)):
            (comment,) = [one for one in self.comments if one["id"] == int(match[1])]
            comment["body"] = body["body"]
            return body
        return None
