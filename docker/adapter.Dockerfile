# syntax=docker/dockerfile:1.7
# The adapter: `serve`, `worker` and `keys`. Built from the repository's root:
#   docker build -f docker/adapter.Dockerfile -t miaas-adapter:0.1.0 .
# Not the slim one: the hot path is compiled.
FROM python:3.12.13-trixie AS build

WORKDIR /src
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY adapter adapter
COPY model_repository/digits model_repository/digits
COPY model_repository/sklearn-iris model_repository/sklearn-iris
RUN python -m venv /opt/adapter
# What compiles it is locked by the variable, what is installed by the option.
RUN --mount=type=cache,target=/root/.cache/pip \
    HATCH_BUILD_HOOK_ENABLE_MYPYC=1 PIP_CONSTRAINT=/src/constraints.txt \
    /opt/adapter/bin/pip install --disable-pip-version-check --constraint constraints.txt .


FROM python:3.12.13-slim-trixie

LABEL org.opencontainers.image.title="miaas-adapter" \
      org.opencontainers.image.licenses="Apache-2.0"

# A user without a name, a home or a shell. /state is for API keys; beside it only /tmp is written to, for large
# bodies of requests.
RUN install --directory --owner 10001 --group 10001 --mode 0700 /state
COPY --from=build /opt/adapter /opt/adapter
COPY docker/healthcheck.py /opt/adapter/healthcheck.py

ENV PATH=/opt/adapter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ADAPTER_HOST=0.0.0.0 \
    ADAPTER_OPS_HOST=0.0.0.0 \
    ADAPTER_STATE_DIR=/state \
    ADAPTER_LOG_FORMAT=json
USER 10001:10001
WORKDIR /
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/opt/adapter/healthcheck.py"]
ENTRYPOINT ["miaas-adapter"]
CMD ["serve"]
