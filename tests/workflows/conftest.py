from __future__ import annotations

import fake_github
import pytest
from fake_github import FakeGitHub


@pytest.fixture
def github(monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", fake_github.TOKEN)
    with FakeGitHub() as fake:
        monkeypatch.setenv("GITHUB_API_URL", fake.url)
        yield fake
