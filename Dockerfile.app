# keyturn-app, alone in its image. Builds with BuildKit, for any platform that it is asked for, and with the classic builder,
# for that of the host, which knows neither BUILDPLATFORM nor TARGETARCH: they are empty then.
ARG GOLANG_IMAGE=golang:1.26
FROM --platform=${BUILDPLATFORM:-linux} ${GOLANG_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=devel
ARG COMMIT
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" -o /keyturn-app ./app

FROM scratch
ARG VERSION=devel
ARG COMMIT
LABEL org.opencontainers.image.title="keyturn-app" \
      org.opencontainers.image.description="Answers prompts through the Gemini API with a key that changes under requests in flight." \
      org.opencontainers.image.source="https://github.com/keyturn/keyturn" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY LICENSE /
COPY --from=build /keyturn-app /
USER 65532:65532
ENTRYPOINT ["/keyturn-app"]
