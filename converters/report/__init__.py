"""The report of a bundle: one page for a person (`report.html`) and the same figures for a program (`report.json`)."""

from __future__ import annotations

from edgeseg.converters.report.content import ReportContent, WorstFrame
from edgeseg.converters.report.page import html_page, report_html, sensitivity_html
from edgeseg.converters.report.sensitivity import sensitivity_figures
from edgeseg.converters.report.twin import report_json

__all__ = [
    "ReportContent",
    "WorstFrame",
    "html_page",
    "report_html",
    "report_json",
    "sensitivity_figures",
    "sensitivity_html",
]
