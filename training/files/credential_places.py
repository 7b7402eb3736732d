"""Where programs keep passwords, keys and sessions; refused whatever the permitted folders are."""

from __future__ import annotations

from pathlib import Path

PLACES = [
    place.casefold().split("/")
    for place in (
        # keys and tokens of tools
        ".ssh",
        ".gnupg",
        ".aws",
        ".azure",
        ".boto",
        ".kube",
        ".docker",
        ".oci",
        "gcloud",
        ".config/gh",
        ".config/hub",
        ".config/github-copilot",
        ".config/glab-cli",
        ".config/rclone",
        ".config/op",
        ".config/doctl",
        ".terraform.d",
        ".subversion/auth",
        ".cargo/credentials",
        ".cargo/credentials.toml",
        ".gem/credentials",
        ".netrc",
        "_netrc",
        ".git-credentials",
        ".config/git/credentials",
        ".npmrc",
        ".yarnrc.yml",
        ".pypirc",
        ".pgpass",
        ".my.cnf",
        ".vault-token",
        ".databrickscfg",
        ".kaggle",
        "huggingface/token",
        "huggingface/stored_tokens",
        ".huggingface/token",
        ".ollama/id_ed25519",
        # password stores and keyrings
        ".password-store",
        ".pki",
        ".local/share/keyrings",
        ".gnome2/keyrings",
        "kwalletd",
        ".kde/share/apps/kwallet",
        "Keychains",
        "Microsoft/Credentials",
        "Microsoft/Protect",
        "Microsoft/Vault",
        "Microsoft/Crypto",
        "Bitwarden",
        "KeePassXC",
        "1Password",
        # profiles of browsers and of mail programs
        ".mozilla",
        ".thunderbird",
        ".librewolf",
        "Mozilla/Firefox",
        "Application Support/Firefox",
        "Thunderbird",
        "google-chrome",
        "google-chrome-beta",
        "google-chrome-unstable",
        "Google/Chrome",
        "chromium",
        "BraveSoftware",
        "microsoft-edge",
        "Microsoft/Edge",
        "Microsoft Edge",
        "vivaldi",
        ".config/opera",
        "Opera Software",
        "com.operasoftware.Opera",
        "Library/Safari",
        "Library/Cookies",
        "org.mozilla.firefox",
        "com.google.Chrome",
        "org.chromium.Chromium",
        "com.brave.Browser",
    )
]
"""Files or folders: names that follow each other in a path. Letters count without their case."""


BY_FIRST_NAME = {first: [place for place in PLACES if place[0] == first] for first, *_ in PLACES}


def in_credential_place(path: Path) -> bool:
    """Whether a path is, or is in, such a place."""
    parts = [part.casefold() for part in path.parts]
    return any(
        parts[start : start + len(place)] == place
        for start, part in enumerate(parts)
        for place in BY_FIRST_NAME.get(part, ())
    )
