"""Reports: one self-contained HTML page of a comparison or a result, with the timelines to be played."""

from busdoor.report.comparison import comparison_page
from busdoor.report.folders import page_of
from busdoor.report.page import Page, Section
from busdoor.report.result import result_page

__all__ = ["Page", "Section", "comparison_page", "page_of", "result_page"]
