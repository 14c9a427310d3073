# The image of a runner's pod. Two targets:
#
#   full  (the default)  git and the command-line tools that steps need, and the attacks that `plue-runner escape-test` runs
#   slim                 a distroless base: the runner, its file tools and CA certificates; nothing that could run a command
#
#   docker build --tag plue-runner .
#   docker build --tag plue-runner:slim --target slim .
#   docker build --platform linux/arm64 --tag plue-runner:arm64 .
#
# With podman or buildah add `--format docker`: the OCI format has no HEALTHCHECK.
#
# Only amd64 was built and run so far. Every stage runs on the image's own platform (amd64 or arm64), since the components are compiled ahead of time by the
# runner that will load them. A build for another platform than the machine's needs emulation (binfmt) or a builder that
# is such a machine.
#
# What is copied into the image is one folder, named `dist`. With `--build-context dist=target/dist` it is what `cargo
# xtask build` and `cargo xtask sbom` have made on this machine, and nothing is compiled; `cargo xtask pod` does that.

# Digests, so that a build next year has the same base. To take a newer one: `docker buildx imagetools inspect TAG`.
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171
ARG SLIM_IMAGE=gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f


# The runner, the attacks and the components, from source. `cargo xtask` installs what it needs, compiler for the
# components included. The bases have the same C library (Debian 12), so what is built here runs there.
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo xtask build && cargo xtask sbom


FROM scratch AS dist
COPY --from=build /src/target/dist /


FROM ${BASE_IMAGE} AS full
# No compiler: an image for a language derives from this one. `git` and `jq` are what steps use most.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates curl diffutils file git jq less make patch procps ripgrep tree unzip xz-utils zip zstd \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    # Group 0, which may write where the user may: OpenShift runs the image as a user of its own choice in that group.
    # The home is not the workspace: a standby runner empties the workspace, and never a home.
    && useradd --uid 10001 --gid 0 --create-home --shell /bin/sh runner \
    && chmod -R g=u /home/runner \
    && install --directory --owner=10001 --group=0 --mode=775 /workspace \
    # A volume of Kubernetes belongs to root, and git works in no repository whose folder is somebody else's.
    && git config --system --add safe.directory /workspace
# Root's, and nobody else may write there: compiled components are trusted code.
COPY --from=dist --chown=0:0 / /opt/plue/
# Programs of another architecture, from a `dist` that was made elsewhere, fail here.
RUN ["/opt/plue/plue-runner", "plugin", "list"]
ENV PATH=/opt/plue:/usr/local/bin:/usr/bin:/bin HOME=/home/runner LANG=C.UTF-8
WORKDIR /workspace
# By number, so that Kubernetes can tell that it is not root, and above those that a machine gives to people.
USER 10001:0
# The runner reaps what its tasks leave, so there is no init before it.
ENTRYPOINT ["plue-runner"]
HEALTHCHECK --interval=15s --timeout=5s --start-period=5s CMD ["plue-runner", "health"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Plue Runner" \
      org.opencontainers.image.description="Runs one Claude agent or workflow at a time, each tool a sandboxed WebAssembly component" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"


# A distroless image has no program that could make folders or leave the attacks out of `dist`.
FROM ${BASE_IMAGE} AS slim-root
COPY --from=dist / /slim/opt/plue/
RUN rm /slim/opt/plue/plue-escape /slim/opt/plue/sbom/plue-escape* \
    && install --directory --mode=755 /slim/etc /slim/home \
    && install --directory --owner=10001 --group=0 --mode=775 /slim/workspace /slim/home/runner \
    && printf 'root:x:0:0:root:/root:/sbin/nologin\nrunner:x:10001:0::/home/runner:/sbin/nologin\n' > /slim/etc/passwd \
    && printf 'root:x:0:\n' > /slim/etc/group


FROM ${SLIM_IMAGE} AS slim
COPY --from=slim-root /slim/ /
ENV PATH=/opt/plue HOME=/home/runner LANG=C.UTF-8
WORKDIR /workspace
USER 10001:0
ENTRYPOINT ["plue-runner"]
HEALTHCHECK --interval=15s --timeout=5s --start-period=5s CMD ["plue-runner", "health"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Plue Runner (slim)" \
      org.opencontainers.image.description="Plue Runner with its file tools and without a shell: for agents that run no command" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"


# The default target is the last one.
FROM full
