"""What a notebook talks to: its claims, its profile, figures that work with and without a kernel."""

import papernets.tools.quick_imports  # noqa: F401  before all others
from papernets.chapter import plots
from papernets.chapter._chapter import Chapter, Profile
from papernets.chapter._claims import ClaimError, Claims
from papernets.chapter._explorer import Choice, Explorer, Slider, Toggle
from papernets.chapter._figure import Figure
from papernets.chapter._style import ACCENTS, BASELINE, OURS, SCALE, figure_template

__all__ = ["ACCENTS", "BASELINE", "OURS", "SCALE", "Chapter", "Choice", "ClaimError", "Claims", "Explorer", "Figure", "Profile",
           "Slider", "Toggle", "figure_template", "plots"]
