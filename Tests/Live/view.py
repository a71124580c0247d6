# SPDX-License-Identifier: Apache-2.0
"""view.py BROWSER PAGE [TEST...]: the live page in a headless Chromium or Firefox. The last line counts."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

# Each adds its tests.
import view_by_itself  # noqa: F401
import view_people  # noqa: F401
import view_set  # noqa: F401
import view_shown  # noqa: F401
from browsers import Browser, Chromium, Firefox
from harness import TESTS


def tried(test: Callable[[Any], None], b: Browser) -> bool:
    """True if the test passed. The caller starts a browser again that has ended or fallen silent."""
    started = time.monotonic()
    try:
        test(b)
    except (ConnectionError, TimeoutError):
        raise
    except Exception:
        print(f"FAILED {test.__name__}\n{traceback.format_exc()}")
        return False
    print(f"passed {test.__name__} ({time.monotonic() - started:.1f} s)")
    return True


def main(browser: str, only: list[str]) -> int:
    start = Firefox if "firefox" in browser else Chromium
    b = start(browser)
    passed = failed = 0
    for kind, test in TESTS:
        if (start is Firefox and kind == "chromium") or (only and test.__name__ not in only):
            continue
        try:
            done = tried(test, b)
        except (ConnectionError, TimeoutError) as error:
            print(f"{test.__name__}: {browser} is started again: {error}")
            b.process.kill()
            b = start(browser)
            done = tried(test, b)
        passed, failed = passed + done, failed + (not done)
    b.close()
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[3:]))
