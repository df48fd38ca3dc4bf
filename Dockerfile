# Two images of `milan-onnx serve`, without a compiler and without torch (docs/deploy.md):
#
#   docker build -t milan-onnx .                       any processor
#   docker build -t milan-onnx:gpu --target gpu .      NVIDIA GPU, CUDA 13
#   docker build -t milan-onnx:gpu --target gpu --build-arg GPU=gpu-cu12 --build-arg CUDA=12.0 .
#
# What is installed is a virtual environment without pip, made in a stage of its own and copied.
# CUDA and cuDNN come with the gpu extra as wheels, so its image needs none of NVIDIA's, which would
# bring them a second time; the driver is the machine's.
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY milan_onnx milan_onnx
RUN pip wheel --no-deps --wheel-dir /wheels . && python -m venv --without-pip /opt/milan

FROM wheel AS install-cpu
RUN pip --python /opt/milan/bin/python install --only-binary :all: \
    "$(echo /wheels/*.whl)[cpu,serve,parquet]"

FROM wheel AS install-gpu
ARG GPU=gpu
RUN pip --python /opt/milan/bin/python install --only-binary :all: \
    "$(echo /wheels/*.whl)[${GPU},serve,parquet]"

FROM python:${PYTHON} AS runtime
LABEL org.opencontainers.image.title="milan-onnx" \
      org.opencontainers.image.description="Natural language descriptions of the units of a vision network" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/deploy.md"
RUN groupadd --gid 10001 milan \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin milan \
 && install -d -o milan -g milan /data
# /data and /tmp are all that is written: the rest may be mounted read-only.
ENV PATH=/opt/milan/bin:$PATH \
    HOME=/data \
    TMPDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Not urllib, which would ask a proxy of the environment.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["milan-onnx"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080", "--store", "/data"]

FROM runtime AS gpu
ARG CUDA=13.0
# Read by the NVIDIA container toolkit: what it brings in, and which driver it asks for.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA="cuda>=${CUDA}"
COPY --from=install-gpu /opt/milan /opt/milan

FROM runtime AS cpu
COPY --from=install-cpu /opt/milan /opt/milan
