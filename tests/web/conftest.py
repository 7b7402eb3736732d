"""A page for each file of tests; each test begins as if nobody had asked it anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from web_page import Page, serving_page


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of the user, with what nobody should read."""
    user = tmp_path_factory.mktemp("web") / "user"
    (user / ".ssh").mkdir(parents=True)
    (user / ".ssh" / "id_ed25519").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("HOME", "USERPROFILE"):
            patched.setenv(name, str(user))
        patched.setenv("BACKPROPAGATE_HOME", str(user.parent / "home"))
        patched.setenv("BACKPROPAGATE_RUNTIME_DIR", str(user.parent / "runtime"))
        yield user


@pytest.fixture(scope="module")
def served(user: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page as it is without options, for a user whose data is in the tests' folder."""
    with serving_page(roots=(tmp_path_factory.getbasetemp(),)) as page:
        yield page


@pytest.fixture
def page(served: Page) -> Page:
    served.calm_down()
    served.client.cookies.clear()
    return served
