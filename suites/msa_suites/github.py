"""GitHub's API as far as the comment on a pull request needs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

API = "https://api.github.com"
_SECONDS = 30  # to wait for an answer
_PAGE = 100  # items, the most that GitHub gives at once
_MOST_PAGES = 50
_CHUNK = 1 << 16  # bytes


class GitHubError(RuntimeError):
    """GitHub refused, did not answer, or answered something else."""


class GitHub:
    """One repository.

    Args:
        repository: "owner/name".
        token: of a job, allowed what the calls below need.
        api: address of the API, of GitHub Enterprise another one.
    """

    def __init__(self, repository: str, token: str, api: str = API) -> None:
        self._root = f"{api.rstrip('/')}/repos/{repository}/"
        self._session = requests.Session()
        # Questions are asked again. What writes is not: it may have been done.
        retry = Retry(
            3, backoff_factor=0.5, status_forcelist=(502, 503, 504), allowed_methods=["GET"]
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        self._session.headers.update(
            {
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "X-GitHub-Api-Version": "2022-11-28",
            }
        )

    def get(self, path: str, **query: str | int) -> Any:  # noqa: ANN401 - JSON
        """What GitHub says of ``path``, below the repository.

        Raises:
            GitHubError: it said no, or nothing.
        """
        return _json(self._ask("GET", path, params=query))

    def pages(self, path: str, key: str | None = None, **query: str | int) -> Iterator[Any]:
        """The items of a list, however many pages it has.

        Args:
            path: below the repository.
            key: name of the list in an answer that is an object.
            query: what to ask for.

        Raises:
            GitHubError: it said no, or the list does not end.
        """
        for page in range(1, _MOST_PAGES + 1):
            answer = self.get(path, **query, per_page=_PAGE, page=page)
            items = answer[key] if key else answer
            yield from items
            if len(items) < _PAGE:
                return
        raise GitHubError(f"{path}: wanted at most {_MOST_PAGES * _PAGE:,} items, got more")

    def send(self, verb: str, path: str, **fields: str) -> Any:  # noqa: ANN401 - JSON
        """Write ``fields``; the result is what GitHub made of them.

        Raises:
            GitHubError: it said no, or nothing.
        """
        return _json(self._ask(verb, path, json=fields))

    def download(self, path: str, *, limit: int) -> bytes:
        """The bytes behind ``path``: at most ``limit``, and one more where there are more.

        Raises:
            GitHubError: it said no, or nothing.
        """
        # GitHub points to another host; requests leaves the token behind on the way there.
        with self._ask("GET", path, stream=True) as answer:
            found = bytearray()
            try:
                for chunk in answer.iter_content(_CHUNK):
                    found += chunk
                    if len(found) > limit:
                        break
            except requests.RequestException as error:
                raise GitHubError(f"GET {path}: {type(error).__name__}") from error
        return bytes(found[: limit + 1])

    def _ask(self, verb: str, path: str, **what: Any) -> requests.Response:  # noqa: ANN401
        try:
            answer = self._session.request(verb, self._root + quote(path), timeout=_SECONDS, **what)
            answer.raise_for_status()
        except requests.RequestException as error:
            # Not its text: behind a redirect the address is a signed one, and logs are public.
            answered = getattr(error.response, "status_code", None) or type(error).__name__
            raise GitHubError(f"{verb} {path}: {answered}") from error
        return answer


def from_environment(repository: str, environment: Mapping[str, str] = os.environ) -> GitHub:
    """The repository with the job's own token.

    Raises:
        ValueError: there is no token.
    """
    token = environment.get("GITHUB_TOKEN", "")
    if not token:
        raise ValueError("GITHUB_TOKEN: wanted a token of the job, got none")
    return GitHub(repository, token, environment.get("GITHUB_API_URL") or API)


def _json(answer: requests.Response) -> Any:  # noqa: ANN401
    try:
        return answer.json()
    except json.JSONDecodeError as error:
        raise GitHubError(f"{answer.url}: wanted JSON, got {answer.text!r:.80}") from error
