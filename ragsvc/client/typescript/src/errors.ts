/** The errors of this package. Messages contain neither secrets nor the text of requests and responses. */

/** The base of all errors that this package throws itself. Failures of the network keep the types of `fetch`. */
export class RagsvcClientError extends Error {
  override name = "RagsvcClientError";
}

/**
 * A response that was not sealed by the server, was changed or was cut off; or a server key that is not accepted.
 *
 * What was read of a response before this error is genuine, but incomplete.
 */
export class EncryptionError extends RagsvcClientError {
  override name = "EncryptionError";
  readonly code = "encryption_error";
}

/** A request that cannot be encrypted, or options that contradict each other. Nothing was sent. */
export class ConfigurationError extends RagsvcClientError {
  override name = "ConfigurationError";
}

/** A response is larger than `maxBufferSize`. */
export class BufferLimitError extends RagsvcClientError {
  override name = "BufferLimitError";

  constructor(readonly maxBufferSize: number) {
    super(`The response is larger than maxBufferSize (${maxBufferSize} bytes). Raise maxBufferSize to accept it.`);
  }
}

/** `requestTimeoutMs` has passed, and the response is not complete. */
export class RequestTimeoutError extends RagsvcClientError {
  override name = "TimeoutError";

  constructor(readonly requestTimeoutMs: number) {
    super(`The request timed out: the response was not complete after requestTimeoutMs (${requestTimeoutMs} ms).`);
  }
}

/** The service answered with an error. */
export class ApiError extends RagsvcClientError {
  override name = "ApiError";
  /** The HTTP status; `undefined` for an error in the middle of a stream. */
  readonly status: number | undefined;
  readonly type: string | undefined;
  readonly code: string | undefined;
  readonly param: string | undefined;
  readonly requestId: string | undefined;
  /** Seconds to wait before a retry, if the service said so. */
  readonly retryAfterS: number | undefined;

  constructor(message: string, fields: ApiErrorFields = {}) {
    super(message);
    this.status = fields.status;
    this.type = fields.type;
    this.code = fields.code;
    this.param = fields.param;
    this.requestId = fields.requestId;
    this.retryAfterS = fields.retryAfterS;
  }
}

export interface ApiErrorFields {
  status?: number | undefined;
  type?: string | undefined;
  code?: string | undefined;
  param?: string | undefined;
  requestId?: string | undefined;
  retryAfterS?: number | undefined;
}

/** A stream ended without its end marker. */
export class IncompleteStreamError extends RagsvcClientError {
  override name = "IncompleteStreamError";

  constructor() {
    super("The stream ended before it was complete.");
  }
}

/** A document could not be read. `code` is the reason, as in the service's table of failures. */
export class DocumentFailedError extends RagsvcClientError {
  override name = "DocumentFailedError";

  constructor(
    readonly documentId: string,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}
