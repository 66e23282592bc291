"""MIaaS and KServe V1 in front of NVIDIA Triton."""
