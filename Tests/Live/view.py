# SPDX-License-Identifier: Apache-2.0
"""view.py BROWSER PAGE [TEST...]: the live page in a headless Chromium or Firefox. The last line counts."""

from __future__ import annotations

import sys
import time
import traceback

# Each adds its tests.
import view_by_itself  # noqa: F401
import view_people  # noqa: F401
import view_set  # noqa: F401
import view_shown  # noqa: F401
from browsers import Chromium, Firefox
from harness import TESTS


def main(browser: str, only: list[str]) -> int:
    is_firefox = "firefox" in browser
    b = Firefox(browser) if is_firefox else Chromium(browser)
    passed = failed = 0
    for kind, test in TESTS:
        if (is_firefox and kind == "chromium") or (only and test.__name__ not in only):
            continue
        started = time.monotonic()
        try:
            test(b)
            passed += 1
            print(f"passed {test.__name__} ({time.monotonic() - started:.1f} s)")
        except Exception:
            failed += 1
            print(f"FAILED {test.__name__}\n{traceback.format_exc()}")
    b.close()
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[3:]))
