"""`realtime-ssd completion`: commands and options are completed by the Tab key."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["completion"]


def completion(
    shell: Literal["bash", "zsh", "fish"],
    *,
    install: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Print the script that completes commands and options in a shell, or install it.

    Args:
        shell: The shell.
        install: Write the script where the shell looks for it, and load it at the start of the
            shell; by default it is printed.
    """
    from realtime_ssd.cli import build_app

    app = build_app()
    if install:
        path = app.install_completion(shell=shell)
        print(f"{path}: installed; open a new shell to use it")
    else:
        print(app.generate_completion(shell=shell))
