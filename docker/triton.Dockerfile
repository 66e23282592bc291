# syntax=docker/dockerfile:1.7
# NVIDIA's Triton, with what the Python models of model_repository/ import beside the image's own numpy:
#   docker build -f docker/triton.Dockerfile -t miaas-triton:26.09 .
# Models that need no Python package run on NVIDIA's image as it is.
FROM nvcr.io/nvidia/tritonserver:26.09-py3

COPY constraints.txt /tmp/constraints.txt
# The python backend takes its packages from the image's own interpreter, which Debian's rules (PEP 668) guard.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check --break-system-packages --only-binary pillow \
    --constraint /tmp/constraints.txt pillow

# The image's user triton-server.
USER 1000:1000
EXPOSE 8000 8001 8002
# A model that does not load leaves the others served. Models come and go by V2's load and unload calls.
CMD ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit", "--load-model=*", \
     "--exit-on-error=false", "--strict-readiness=false"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
