# SPDX-License-Identifier: Apache-2.0
"""`batchnorm live`: opens the page that trains in the browser."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .problems import UserError

# A checkout has it beside the package; a wheel does not, as it would be half as large again.
BUILT = Path(__file__).resolve().parents[3] / ".build-live" / "batchnorm-live.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", help="copy the page to FILE, and open that")
    parser.add_argument("--no-browser", action="store_true", help="only say where the page is")


def find() -> Path:
    """The page: where BATCHNORM_LIVE says, or in a checkout where `make live` puts it."""
    given = os.environ.get("BATCHNORM_LIVE")
    page = Path(given) if given else BUILT
    if page.is_file():
        return page
    if given:
        raise UserError(f"BATCHNORM_LIVE is {given!r}, where no file is; expected the page that `make live` builds")
    raise UserError(
        "the page is not in the package: `make live` in a checkout builds it, the documentation's “In the browser” has "
        "it, and BATCHNORM_LIVE may name the file"
    )


def copied(page: Path, output: Path) -> Path:
    """A copy that is there as a whole or not at all."""
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        try:
            part.write_bytes(page.read_bytes())
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"the page cannot be written to {str(output)!r}: {error.strerror}") from None
    return output


def run(arguments: argparse.Namespace) -> int:
    page = find()
    if arguments.output is not None:
        page = copied(page, arguments.output)
    print(page.resolve())
    if not arguments.no_browser:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            raise UserError("no browser could be started; open the file above in one")
    return 0
