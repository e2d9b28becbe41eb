# Every process of ours. EXTRA names its needs in pyproject.toml; ALSO what it has beyond another image of the same EXTRA,
# so that the two share the large layer: inference is EXTRA=inference, the trainer that and ALSO="trainer sampler cluster int8".
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS uv
RUN pip install --no-cache-dir --target=/uv uv==0.13.9

# The base in one layer, without what no process reads.
FROM ${PYTHON_IMAGE} AS slim
RUN rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /root/.cache \
      /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian /usr/share/python-wheels \
      /usr/lib/python3/dist-packages/pip /usr/local/lib/python3*/site-packages/pip

FROM scratch AS base
COPY --from=slim / /
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt LANG=C.UTF-8 PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --create-home closedloop && install -d -o closedloop -g closedloop /state /cache
WORKDIR /app

# The doors: the pages' port, TLS, and what the profile `open` opens.
FROM base AS front
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends caddy curl socat \
      >/dev/null && rm -rf /var/lib/apt/lists/* /var/cache/apt/* && caddy version
USER closedloop
ENV XDG_CONFIG_HOME=/state XDG_DATA_HOME=/state

FROM base
ARG EXTRA
ARG CPU=""
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_PROGRESS=1
COPY --chmod=755 pyproject.toml uv.lock scripts/install_extras.sh ./
RUN --mount=type=bind,from=uv,source=/uv,target=/uv --mount=type=cache,target=/root/.cache/uv \
    sh install_extras.sh $EXTRA
ARG ALSO=""
RUN --mount=type=bind,from=uv,source=/uv,target=/uv --mount=type=cache,target=/root/.cache/uv \
    test -z "$ALSO" || sh install_extras.sh $EXTRA $ALSO
# Readable whatever umask the checkout was made under.
COPY --chmod=755 README.md LICENSE ./
COPY --chmod=755 src src
COPY --chmod=755 services services
COPY --chmod=755 label_studio/*.xml label_studio/
COPY --chmod=755 projects projects
RUN --mount=type=bind,from=uv,source=/uv,target=/uv --mount=type=cache,target=/root/.cache/uv \
    /uv/bin/uv pip install --no-deps --compile-bytecode --editable .
USER closedloop
ENV CLOSEDLOOP_HOME=/state CLOSEDLOOP_BIND=0.0.0.0 CLOSEDLOOP_CACHE=/cache/closedloop HF_HOME=/cache/huggingface
CMD ["closedloop", "--help"]
