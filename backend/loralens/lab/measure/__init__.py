"""Real training steps on this machine's device, with torch's own memory figures beside the computed ones.

`measure(config, method, recipe)` runs one step; `grid.run(path)` runs many and writes rows for `loralens validate`.
"""

from loralens.lab.measure.run import Measured, measure

__all__ = ["Measured", "measure"]
