"""How large a model is and how much it computes, by abstract evaluation."""

from jaxcnn.analysis.count import count_macs, count_parameters

__all__ = ["count_macs", "count_parameters"]
