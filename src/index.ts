export { GatewayError, type GatewayErrorCode } from './errors/gateway-error.js'
export { type Gateway, type HttpFront, type HttpOptions, type StartOptions, startGateway } from './start.js'
