"""Passwords of the page: held, and compared, as scrypt hashes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread

from ..training.errors import ForeignOwnerError, InputError
from ..training.files.private_folder import OTHERS, require_own
from ..training.untrusted import shown_path
from .options import UiOptions

PREFIX = "scrypt$"
COST, BLOCK, PARALLEL = 2**14, 8, 1  # 16 MiB and some 50 ms
LEAST = 8  # characters of a password
COMPARED_AT_ONCE = 2  # each takes the memory above
FILE_BYTES = 2**20


def hash_of(password: str) -> str:
    """`scrypt$SALT$HASH`, with a salt of its own."""
    salt = secrets.token_bytes(16)
    return f"{PREFIX}{_text(salt)}${_text(_derived(password, salt))}"


class Accounts:
    """The users of the page with the hashes of their passwords."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = hashes
        self._nobody = hash_of(secrets.token_hex())  # an unknown name takes as long as a wrong password
        self._limiter: anyio.CapacityLimiter | None = None

    def __bool__(self) -> bool:
        return bool(self._hashes)

    async def admits(self, user: str, password: str) -> bool:
        """Whether this is the password of the user; takes the same time if it is not."""
        self._limiter = self._limiter or anyio.CapacityLimiter(COMPARED_AT_ONCE)
        known = self._hashes.get(user, self._nobody)
        return await anyio.to_thread.run_sync(_is_of, password, known, limiter=self._limiter)


def accounts_of(options: UiOptions) -> Accounts:
    """The accounts that the options give; none if they give none.

    Raises:
        InputError: what was given has no name or password, or a password is short.
        ForeignOwnerError: the file can be read by others.
    """
    entries = [] if options.auth is None else [("--auth", options.auth)]
    if options.auth_file is not None:
        entries += _entries(options.auth_file)
    return Accounts(dict(_account(place, entry) for place, entry in entries))


def _entries(path: Path) -> list[tuple[str, str]]:
    """Place and text of each line of the file that is none of a comment."""
    place = shown_path(path)
    if not path.is_file():
        raise InputError(
            f"--auth-file: {place} does not exist.", hint="Give a file with USER:PASSWORD lines."
        )
    require_own(path)
    if os.name != "nt" and stat.S_IMODE(path.stat().st_mode) & OTHERS:
        raise ForeignOwnerError(
            f"{place} can be read by other users.", hint="Take their rights from it (chmod 600)."
        )
    if path.stat().st_size > FILE_BYTES:
        raise InputError(f"{place} has more than {FILE_BYTES} bytes.", hint="Give one account a line.")
    lines = path.read_text("utf-8", "replace").splitlines()
    found = [
        (f"{place}:{number}", line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not found:
        raise InputError(f"{place} has no account.", hint="Give one USER:PASSWORD a line.")
    return found


def _account(place: str, entry: str) -> tuple[str, str]:
    user, _, password = entry.partition(":")
    if not user or not password:
        raise InputError(f"{place} is not USER:PASSWORD.", hint="Put a colon between the two.")
    if password.startswith(PREFIX):
        _require_hash(place, password)
        return user, password
    if len(password) < LEAST:
        raise InputError(
            f"{place}: a password of {len(password)} characters is too short.",
            hint=f"Use at least {LEAST} characters.",
        )
    return user, hash_of(password)


def _require_hash(place: str, known: str) -> None:
    try:
        salt, derived = _parts(known)
    except ValueError:
        salt, derived = b"", b""
    if len(salt) < 16 or len(derived) != 32:
        raise InputError(
            f"{place} has no hash of a password.", hint="`backprop ui --hash-password` makes one."
        )


def _is_of(password: str, known: str) -> bool:
    salt, derived = _parts(known)
    return hmac.compare_digest(_derived(password, salt), derived)


def _parts(known: str) -> tuple[bytes, bytes]:
    salt, _, derived = known.removeprefix(PREFIX).partition("$")
    return base64.b64decode(salt, validate=True), base64.b64decode(derived, validate=True)


def _derived(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=COST,
        r=BLOCK,
        p=PARALLEL,
        maxmem=2**26,
        dklen=32,
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
