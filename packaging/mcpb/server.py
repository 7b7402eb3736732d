"""Starts the server of the bundle: the host has installed what its pyproject.toml names."""

from backpropagate.__main__ import serve

if __name__ == "__main__":
    serve()
