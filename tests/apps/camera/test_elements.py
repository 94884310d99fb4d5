"""What the camera needs of GStreamer, and the packages that bring it."""

from __future__ import annotations

import pytest

from edgeseg.apps.camera import elements
from edgeseg.apps.camera.elements import PACKAGES, TYPELIBS, missing_elements, missing_of, package_of


@pytest.mark.usefixtures("gst")
class TestMissing:
    def test_typelibs_beside_elements(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(elements, "PACKAGES", {"gstreamer1.0-plugins-base": ("appsink", "nosuchelement")})
        monkeypatch.setattr(elements, "TYPELIBS", {"gir1.2-gstreamer-1.0": ("Gst", "NoSuchTypelib")})
        expected = {"gstreamer1.0-plugins-base": ("nosuchelement",), "gir1.2-gstreamer-1.0": ("NoSuchTypelib",)}
        assert missing_elements(jetson=False) == expected

    def test_of_some_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            elements, "PACKAGES", {"one": ("appsink", "nosuchelement", "nosuchother"), "two": ("nvnone",)}
        )
        assert missing_of(("appsink", "nosuchother", "nvnone")) == {"one": ("nosuchother",), "two": ("nvnone",)}
        assert missing_of(("appsink",)) == {}


def test_each_name_has_one_package() -> None:
    brought: dict[str, tuple[str, ...]] = {**PACKAGES, **TYPELIBS}
    names = [name for known in brought.values() for name in known]
    assert len(names) == len(set(names))
    assert {package_of(name) for name in names} == set(brought)
    assert package_of("GstWebRTC") == "gir1.2-gst-plugins-bad-1.0"
    assert package_of("nicesink") == "gstreamer1.0-nice"


@pytest.mark.parametrize("name", ["webrtcbin", "dtlssrtpenc", "srtpenc", "rtpbin", "rtpvp8pay", "GstSdp"])
def test_doctor_knows_what_webrtc_needs(name: str) -> None:
    assert package_of(name) is not None
