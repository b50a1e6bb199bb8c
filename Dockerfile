# The serving image: the service and nothing else. How to run it: docs/operations.md.
# The tag is the release the tests run on. For a build that can be repeated byte by byte give a digest:
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:... .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# ---- builder: the locked libraries in an environment without pip, our code compiled beside it
FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/varsel
COPY requirements.txt ./
RUN python -m venv --without-pip env \
    && pip --python env/bin/python install --require-hashes --only-binary :all: -r requirements.txt
COPY LICENSE ./app/
COPY fhir_adapters ./app/fhir_adapters
COPY models ./app/models
COPY validation ./app/validation
COPY monitoring ./app/monitoring
COPY cds_service ./app/cds_service
RUN env/bin/python -m compileall -q app \
    && printf '#!/bin/sh\nexec /opt/varsel/env/bin/python -m cds_service "$@"\n' > env/bin/varsel \
    && chmod 0755 env/bin/varsel \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/varsel

# ---- the image
FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Varsel" \
      org.opencontainers.image.description="Explained, logged clinical risk prognoses over CDS Hooks and FHIR R4. Not for clinical use" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/varsel/env/bin:$PATH \
    PYTHONPATH=/opt/varsel/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VARSEL_PROFILE=production \
    VARSEL_STATE_DIR=/var/lib/varsel
COPY --from=builder /opt/varsel /opt/varsel
COPY --from=builder --chown=10001:10001 /var/lib/varsel /var/lib/varsel
USER 10001:10001
WORKDIR /var/lib/varsel
VOLUME /var/lib/varsel
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('VARSEL_PORT', '8000')}/healthz\", timeout=4)"]
ENTRYPOINT ["varsel"]
# 0.0.0.0 inside the container; the demo profile refuses that, so production settings are needed
CMD ["serve", "--host", "0.0.0.0"]
