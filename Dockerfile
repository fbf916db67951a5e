# docker build --tag agent-mcp-gateway .
# How to run it: docs/deployment.md
#
# Node 22.15 or newer: as process 1 the gateway puts a shell in its place that collects orphans, which needs process.execve().
# So there is no tini here, and "docker run --init" is not needed either.
ARG NODE=24-slim

FROM node:${NODE} AS production
WORKDIR /app
COPY package.json package-lock.json ./
# Nothing it needs runs a script at installation; what is optional is the keychain, which a container has none of.
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

FROM node:${NODE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build && chmod 755 dist/main.js

FROM node:${NODE}
COPY --from=production /app/node_modules /app/node_modules
COPY --from=build /app/dist /app/dist
COPY package.json LICENSE /app/
# A new volume gets the owner that its directory has here: logins and the audit log, and what npx downloads.
RUN ln -s /app/dist/main.js /usr/local/bin/gateway \
  && install -d /config \
  && install -d -o node -g node -m 700 /state /home/node/.npm
ENV HOME=/home/node \
    GATEWAY_MCP_CONFIG=/config/.mcp.json \
    GATEWAY_RULES=/config/.mcp-gateway-rules.json \
    GATEWAY_STATE_DIR=/state \
    GATEWAY_KEYCHAIN=off
VOLUME /state
# The user "node", as a number: Kubernetes wants to see that it is not root.
USER 1000:1000
WORKDIR /config
# Any answer is a sign of life.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.MCP_SERVER_PORT || 8080}/health`).then(({ status }) => process.exit(status < 500 ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "/app/dist/main.js"]
CMD ["serve"]
