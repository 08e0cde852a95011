# One image: the page is built in the first stage, the second serves it together with the API.
# Build arguments for machines behind a mirror: PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, PIP_CERT, NPM_CONFIG_REGISTRY.
ARG PYTHON_IMAGE=python:3.11-slim
ARG NODE_IMAGE=node:22-slim

FROM ${NODE_IMAGE} AS page
ARG NPM_CONFIG_REGISTRY
WORKDIR /source/frontend
COPY frontend/package.json frontend/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --no-audit --no-fund
COPY frontend/ ./
# The page shows the lessons' own text, and carries the modules that compute, for the time without a server.
COPY code/ ../code/
COPY backend/loralens/ ../backend/loralens/
RUN npm run build

FROM ${PYTHON_IMAGE}
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
# PyTorch for the benchmark and the experiments: cpu, its build without CUDA, and none where no index gives one; cuda, the
# ordinary build of several GB; no. Page and calculator need none of it.
ARG LAB=cpu
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY backend/pyproject.toml backend/constraints.txt backend/
COPY backend/loralens/__init__.py backend/loralens/
# The dependencies change less often than the code: a layer of their own, installed for an empty package.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c backend/constraints.txt "./backend[gpu]" && \
    pip uninstall --yes loralens
COPY start.sh ./
RUN --mount=type=cache,target=/root/.cache/pip \
    index=$(sed -n 's/^TORCH_CPU_INDEX=//p' start.sh) && \
    torch=$(sed -n 's/^lab = \["\(torch==[0-9.]*\)".*/\1/p' backend/pyproject.toml) && \
    case "$LAB" in \
      no) exit ;; \
      cuda) ;; \
      cpu) pip install -c backend/constraints.txt --retries 1 --extra-index-url "$index" "$torch+cpu" || \
           { echo "No index gives $torch+cpu: this image has page and calculator, without the lab"; exit 0; } ;; \
      *) echo "LAB is cpu, cuda or no, got $LAB" >&2; exit 2 ;; \
    esac && \
    pip install -c backend/constraints.txt "./backend[lab,gpu]" && \
    pip uninstall --yes loralens
COPY backend/ backend/
COPY --from=page /source/frontend/dist/ backend/loralens/web/
COPY code/ code/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps -c backend/constraints.txt ./backend && \
    mkdir /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
ENV LORALENS_HOST=0.0.0.0 LORALENS_PORT=5173 LORALENS_STATE_DIR=/data HOME=/data
EXPOSE 5173
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5173/api/health', timeout=4)"]
CMD ["loralens", "serve"]
