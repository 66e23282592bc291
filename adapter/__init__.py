"""MIaaS and KServe's V1 protocol in front of NVIDIA Triton."""

from importlib.metadata import version

__version__ = version("miaas-adapter")
