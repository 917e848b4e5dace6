# syntax=docker/dockerfile:1
# The daemon in an image without a shell:  docker build --tag lantern-cli .
# The tags say what the digests are; Dependabot brings both up to date.
FROM rust:1.92-slim-bookworm@sha256:f1f73538ebe623fd3673a35aff3df358ae1084c64c55646516e5b17b321b6c9b AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /source
# Security updates of Debian should come in, so these have no versions.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY scripts scripts
RUN scripts/setup.sh setup_library.py
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin lantern-cli \
    && packaging/image.sh target/release/lantern-cli /image

FROM gcr.io/distroless/cc-debian12:nonroot@sha256:bd2899c12b335c827750ccf2359879eab09c09b206023dcebea408947d54127c
COPY --from=build /image/ /
USER 65532:65532
ENV LANTERN_DATA_PATH=/var/lib/lantern \
    LANTERN_LISTEN=127.0.0.1:9187
VOLUME /var/lib/lantern
EXPOSE 9187
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["/usr/bin/lantern-cli", "healthcheck"]
ENTRYPOINT ["/usr/bin/lantern-cli"]
CMD ["start-daemon", "--refuse-superuser"]
