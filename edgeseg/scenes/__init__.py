"""Rendered street scenes with exact labels: a test card, never real data.

    from edgeseg.scenes import Street, render

    scene = render(Street(seed=0), 12, 360, 480)
    scene.image, scene.labels  # (360, 480, 3) uint8 RGB; (360, 480) uint8, the classes of CamVid

A scene shows whether a camera, a converter or a training run does its work at all. It says nothing about accuracy on
real roads.
"""

from edgeseg.scenes.render import Scene, render
from edgeseg.scenes.street import Street

__all__ = ["Scene", "Street", "render"]
