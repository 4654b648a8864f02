# The endpoint picker for a cluster: `epp serve` and what it needs at run time, nothing of the local gateway.
# The patch release is pinned, for two builds to be the same; a digest may be given: --build-arg PYTHON=...@sha256:...
ARG PYTHON=python:3.13.14-slim-trixie

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Every timestamp in the wheel, so that the same sources make the same wheel.
ENV SOURCE_DATE_EPOCH=315532800
WORKDIR /src
RUN python -m venv --without-pip /opt/epp
COPY requirements-build.lock requirements-runtime.lock ./
RUN python -m pip install --require-hashes --only-binary :all: -r requirements-build.lock \
 && python -m pip --python /opt/epp/bin/python install --no-compile \
      --require-hashes --only-binary :all: -r requirements-runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY epp ./epp
RUN python -m hatchling build -t wheel -d /wheel \
 && python -m pip --python /opt/epp/bin/python install --no-compile --no-deps --no-index /wheel/*.whl
# Without the tests of what is installed. The image is read-only at run time, hence byte code now, of the
# kind that holds no time, so that it is the same in every build.
RUN find /opt/epp/lib -type d -name tests -prune -exec rm -r {} + \
 && /opt/epp/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/epp/lib

FROM ${PYTHON}
# Nothing that installs or builds: neither pip nor what could bring it back.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
 && rm -r /usr/local/lib/python3.*/ensurepip
COPY --from=build /opt/epp /opt/epp
ENV PATH=/opt/epp/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that `runAsNonRoot` can be checked; it needs no entry in /etc/passwd.
USER 65532:65532
WORKDIR /
# ext_proc, health, metrics
EXPOSE 9002 9003 9090
ENTRYPOINT ["epp"]
# In a cluster: all pools of the pod's namespace that have this label. A Deployment says more.
CMD ["serve", "--pool-selector", "inference-epp/picker=epp", "--log-format", "json"]
