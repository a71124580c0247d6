# SPDX-License-Identifier: Apache-2.0
"""`python -m batchnorm`."""

import sys

from .cli import main

sys.exit(main())
