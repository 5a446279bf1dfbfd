"""What the notebooks run and draw: one module per subject, so that a cell is a line or two.

`memory` for the first notebook, `spread` for the second, `tuning` for the fourth and `checks` for
the fifth; `servers` holds the server that closed forms are about, `pace` the switch that lets tests
hurry.
"""

from lessons.pace import pace

__all__ = ["pace"]
