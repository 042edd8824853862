"""The embedded default data set: five kinds of flowers drawn by code, for a machine without photographs.

The kinds are the classes of TensorFlow's flower_photos. Pose, number, colour, light, background, blur
and what stands in front all vary, and colours overlap between kinds, so that form decides.
"""

from __future__ import annotations

from minialex.data.drawn.folder import contact_sheet, drawn_image, ensure_drawn
from minialex.data.drawn.picture import KINDS, draw_flower

__all__ = ["KINDS", "contact_sheet", "draw_flower", "drawn_image", "ensure_drawn"]
