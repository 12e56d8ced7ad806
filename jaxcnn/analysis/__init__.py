"""How large a model is, how much it computes and what it sees, layer by layer; where two models part."""

from jaxcnn.analysis.count import count_macs, count_parameters
from jaxcnn.analysis.difference import Difference, first_difference
from jaxcnn.analysis.summary import Row, Summary, summarize

__all__ = ["Difference", "Row", "Summary", "count_macs", "count_parameters", "first_difference", "summarize"]
