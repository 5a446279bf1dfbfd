"""Recommendations: which GPUs, how many and with which flags meet an SLO at the least cost.

>>> from busdoor.config.recommend import RecommendTable
>>> RecommendTable().tp
(1, 2, 4, 8)
"""

from busdoor.recommend.api import recommend
from busdoor.recommend.result import Recommendation

__all__ = ["Recommendation", "recommend"]
