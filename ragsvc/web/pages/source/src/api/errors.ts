/** An error answer of the API: `{"error": {message, type, param, code}}`. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
    readonly param: string | null = null,
    readonly requestId: string | null = null,
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** The request never reached the service. */
  get offline(): boolean {
    return this.status === 0;
  }
}

interface ErrorBody {
  error?: { message?: string; code?: string | null; param?: string | null };
}

/** The error of a response whose status is not a success. */
export async function errorOf(response: Response): Promise<ApiError> {
  let body: ErrorBody = {};
  try {
    body = (await response.json()) as ErrorBody;
  } catch {
    // a proxy in front answered with a page of its own
  }
  const retry = Number(response.headers.get("retry-after"));
  return new ApiError(
    body.error?.message ?? `HTTP ${response.status}`,
    response.status,
    body.error?.code ?? null,
    body.error?.param ?? null,
    response.headers.get("x-request-id"),
    Number.isFinite(retry) && retry > 0 ? retry : null,
  );
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
