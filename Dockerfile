# receiptd as one static binary in an empty image. Builds from a plain checkout:
#
#   docker build -t receiptd .
#
# What is inside: /receiptd and /data, nothing else. No shell, no user database, no certificates.

# Any version from `rust-version` in Cargo.toml on. The build needs this and a C compiler, which the
# slim image holds (SQLite and the cryptography are compiled in).
ARG RUST_VERSION=1.95.0
FROM docker.io/library/rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /build

# A binary that loads nothing at run time. It applies to the program only and not to build scripts
# and macros, because every build below names its target.
ENV RUSTFLAGS="-C target-feature=+crt-static"

# The dependencies: a layer of its own, built again only when the manifest changes. The sources are
# placeholders; cargo wants a file for every target that the manifest names.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir src benches \
    && echo 'fn main() {}' | tee src/main.rs > benches/ingest.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin receiptd --target "$(rustc --print host-tuple)"

# The program. COPY keeps the times of the checkout, which may be older than the placeholders that
# cargo has already built: without `touch` it would keep those.
COPY config config
COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin receiptd --target "$(rustc --print host-tuple)" \
    && cp "target/$(rustc --print host-tuple)/release/receiptd" /receiptd \
    && mkdir /data

FROM scratch
LABEL org.opencontainers.image.title="receiptd" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /receiptd /receiptd
# A new named volume takes this owner over. A folder of the host must belong to 65532, or run the
# container with --user.
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532

# These win over the same settings in a file: the environment is the later layer. To let a file
# decide, set the variable to nothing (-e RECEIPTD_LISTEN=).
# The callbacks come from outside the container. Health, metrics and control stay inside it, or
# inside its pod, until someone decides otherwise: for Prometheus on another machine set
# RECEIPTD_ADMIN_LISTEN=0.0.0.0:9090 and do not publish that port to the internet.
# Name the configuration file by RECEIPTD_CONFIG rather than --config: then the health check, and
# every command run in the container, reads the same one.
ENV RECEIPTD_LISTEN=0.0.0.0:8080 \
    RECEIPTD_ADMIN_LISTEN=127.0.0.1:9090 \
    RECEIPTD_STORE_PATH=/data/receiptd.db
EXPOSE 8080 9090

# The only place that is written: the root file system can be read-only. SQLite puts what it cannot
# hold in memory into the working directory, because there is no /tmp. `check-db` and `demo` want a
# folder for temporary files: run them with -e TMPDIR=/data, or mount a /tmp.
VOLUME /data
WORKDIR /data

HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/receiptd", "healthcheck"]
ENTRYPOINT ["/receiptd"]
CMD ["serve"]
