"""The cheapest plan and engine settings that serve a load within latency limits."""

from jaxcost.explore.recommend.candidates import Candidate, Verification
from jaxcost.explore.recommend.search import Recommendation, recommend
from jaxcost.explore.recommend.verification import draw_trace, mean_traffic, verify

__all__ = ["Candidate", "Recommendation", "Verification", "draw_trace", "mean_traffic", "recommend", "verify"]
