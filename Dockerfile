# The same node as the dev dependency `node` of package.json, and the same Debian in both; scripts/image.sh holds them together.
ARG NODE_IMAGE=node:24.21.0-trixie-slim
# What the service runs on: that image without npm, headers and corepack, which take more than node itself.
ARG BASE_IMAGE=debian:trixie-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
COPY client/package.json client/
COPY console/package.json console/
RUN npm ci --ignore-scripts --no-fund --no-audit --loglevel=error
COPY nest-cli.json tsconfig.json tsconfig.build.json ./
COPY proto proto
COPY src src
RUN node_modules/.bin/nest build
COPY client/tsconfig.json client/
COPY client/src client/src
RUN node_modules/.bin/tsc -p client/tsconfig.json
COPY console console
RUN node_modules/.bin/vite build console --logLevel=warn

# Installed apart rather than pruned: nothing of a development dependency was ever here.
FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
COPY client/package.json client/
COPY console/package.json console/
# The scripts of those that package.json allows, and of no other package. Then goes what no program reads, such as OpenTelemetry's
# builds for bundlers, and lmdb's builds for other versions of node and another libc.
RUN npm ci --ignore-scripts --no-fund --no-audit --loglevel=error --omit=dev \
 && npm rebuild --loglevel=error lmdb msgpackr-extract \
 && find node_modules client/node_modules -type f \
      \( -name '*.map' -o -name '*.ts' -o -name '*.cts' -o -name '*.mts' -o -name '*.md' \
      -o -name 'node.abi*.node' -o -name 'node.*.musl.node' -o -path '*/@opentelemetry/*/build/es*' \) -delete

FROM ${BASE_IMAGE}
COPY --from=build /usr/local/bin/node /usr/local/bin/
WORKDIR /app
# package.json says that dist/ is ESM; proto/ is read at run time.
COPY package.json ./
COPY bin bin
COPY proto proto
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist
# The `feed` command, for `helm test` and for whoever looks into a pod.
COPY client/package.json client/
COPY client/bin client/bin
COPY --from=dependencies /app/client/node_modules client/node_modules
COPY --from=build /app/client/dist client/dist
# The console is one page and what it loads; all that it is made of is in its files.
COPY --from=build /app/console/dist console/dist

# A number, because Kubernetes' runAsNonRoot can't check a name; one that no user of the host has.
# A new volume takes its owner from the directory, so that comes before VOLUME.
RUN ln -s /app/client/bin/feed.js /usr/local/bin/feed \
 && install -d -o 65532 -g 65532 -m 0700 /data node_modules/.cache
USER 65532:65532
VOLUME /data

# Compiled code for src/main.ts, which could not keep it in a read-only container: a start takes 0.47 s instead of 0.62.
# By the user who runs it and with the flags that it runs with, because both are part of the cache's key. A setting that
# is refused ends the start (78) once all is loaded.
RUN node --version && { FEED_ENGINE=none bin/feed-server 2>/dev/null || test $? = 78; }

ENV NODE_ENV=production \
    FEED_GRPC_ADDRESS=0.0.0.0:50051 \
    FEED_HTTP_ADDRESS=0.0.0.0:8080 \
    FEED_DATA_DIR=/data
EXPOSE 50051 8080

# Last, because each build has others.
ARG BASE_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Feed" \
      org.opencontainers.image.description="A durable, resumable event feed over gRPC" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"

# It becomes node, which so is process 1 and gets SIGTERM itself.
ENTRYPOINT ["/app/bin/feed-server"]
