# SPDX-License-Identifier: Apache-2.0
"""experiments FOLDER: puts what `batchnorm experiments` has left in FOLDER into docs/experiments.md.

The pictures go to docs/static/experiments, and the text between the two comments of the page is written anew.
`scripts/experiments docs` calls this.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE, PICTURES = HERE / "experiments.md", HERE / "static" / "experiments"
BEGIN, END = "<!-- what scripts/experiments writes -->\n", "<!-- the end of it -->\n"


def section(found: dict[str, Any]) -> str:
    """Lesson, command, picture, the numbers of the run, and when it is not so."""
    name, lesson = found["name"], found["lesson"]
    paragraphs = found["claim"]["sentence"], f"**When it is not so.** {found['when_not']}"
    parts = [
        f"## {lesson}",
        f"```sh\nbatchnorm experiments {name}\n```",
        f"![{name} as a picture; its numbers stand below](static/experiments/{name}.png)",
        *(textwrap.fill(each, 118, break_long_words=False, break_on_hyphens=False) for each in paragraphs),
    ]
    return "\n\n".join(parts)


def main() -> int:
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(HERE.parent / "python"))
    from batchnorm.experiments import NAMES

    everything = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES]
    for found in everything:
        if found["settings"]["quick"] or not found["claim"]["holds"]:
            print(f"{found['name']} is of a quick run, or its claim does not hold: the page is left as it was")
            return 1
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        shutil.copy(folder / f"{name}.png", PICTURES)
    made = "\n\n".join(section(found) for found in everything)
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
