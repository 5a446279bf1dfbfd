"""How long work reports what it has done, and when that is shown."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[float, str], None]
"""Called with the share that is done, and what is being done."""
PATIENCE_S = 1.0  # before a bar appears: shorter work needs none
