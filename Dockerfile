# pgsluice alone: the binary, the C library it needs, certificates, a user. About 15 MB, no shell.
#
#   docker build -t pgsluice .
#   docker run -e DATABASE_URL=postgres://user:password@host:5432/app -p 6432:6432 -p 9127:9127 pgsluice
#
# The steps are scripts, so that `make test` runs them without a container engine.
ARG RUST=rust:1-slim-bookworm

FROM ${RUST} AS build
WORKDIR /src
# no: without the profile that guides the build (tools/guided.sh), as where the builder is emulated.
ARG GUIDED=yes
COPY . .
RUN ["tools/image/build.sh", "/out/pgsluice"]
RUN ["tools/image/rootfs.sh", "/out/pgsluice", "/out/root"]

FROM scratch
COPY --from=build /out/root /
# A number: Kubernetes' runAsNonRoot cannot judge a name.
USER 65532:65532
# The container's network is its own; what may reach it is decided by published ports or the pod.
ENV PGSLUICE_LISTEN=*:6432 PGSLUICE_HTTP_LISTEN=*:9127 PGSLUICE_LOG_FORMAT=json
EXPOSE 6432 9127
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/bin/pgsluice", "health"]
ENTRYPOINT ["/usr/bin/pgsluice"]
CMD ["run"]
