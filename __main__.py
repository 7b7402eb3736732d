"""`python -m backpropagate`, the command `backprop`, and `backpropagate-mcp` (= `backprop serve`)."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Run `backprop` and leave the process with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if __name__ == "__main__" and not sys.flags.safe_path:
        # `python -m` puts the working folder first; a `torch.py` there must not be imported.
        del sys.path[0]
    wire: int | None = None
    if arguments[:1] == ["serve"] and not {"--help", "-h"} & set(arguments):
        from .server.stdio import reserve_stdout

        wire = reserve_stdout()
    else:
        from .cli.code_page import never_fail_to_print

        never_fail_to_print()
    from .cli.main import run

    sys.exit(run(arguments, wire))


def serve() -> None:
    """`backpropagate-mcp`."""
    main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
