"""Plots of the report and of `skillweave interference`: functions that return matplotlib figures.

Importing this package imports matplotlib, so import it only where a plot is drawn.
"""

from skillweave.reporting.plots.activated_skills import activated_skills
from skillweave.reporting.plots.experts import expert_heat_maps, experts_over_training
from skillweave.reporting.plots.figure import DARK_MODE_CSS, PALETTE, SERIES, to_svg, write_svg
from skillweave.reporting.plots.interference import interference_heat_map
from skillweave.reporting.plots.learning_curves import learning_curves

__all__ = [
    "DARK_MODE_CSS",
    "PALETTE",
    "SERIES",
    "activated_skills",
    "expert_heat_maps",
    "experts_over_training",
    "interference_heat_map",
    "learning_curves",
    "to_svg",
    "write_svg",
]
