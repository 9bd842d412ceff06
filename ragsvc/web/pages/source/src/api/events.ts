import { ApiError } from "./errors";
import { fetchResponse, type RequestOptions } from "./request";

export interface ServerEvent {
  event: string;
  data: string;
  id: string;
}

/** Splits the text of an event stream (WHATWG HTML, "Server-sent events"); text may arrive in any pieces. */
export class EventParser {
  private rest = "";
  private event = "";
  private data: string[] = [];
  private id = "";

  push(text: string): ServerEvent[] {
    const found: ServerEvent[] = [];
    this.rest += text;
    for (;;) {
      const end = /\r\n|\n|\r(?!$)/.exec(this.rest); // a CR at the end may be the first half of CR LF
      if (!end) return found;
      const line = this.rest.slice(0, end.index);
      this.rest = this.rest.slice(end.index + end[0].length);
      if (line) this.field(line);
      else {
        if (this.data.length) found.push({ event: this.event || "message", data: this.data.join("\n"), id: this.id });
        this.event = "";
        this.data = [];
      }
    }
  }

  private field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.event = value;
    else if (name === "data") this.data.push(value);
    else if (name === "id") this.id = value;
  }
}

/** The events of a streamed response, as they arrive. */
export async function* events(
  method: string,
  path: string,
  options: RequestOptions = {},
): AsyncGenerator<ServerEvent, void, undefined> {
  const headers = { accept: "text/event-stream", ...options.headers };
  const response = await fetchResponse(method, path, { ...options, headers });
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** As `events`, with JSON in each event. Ends at `[DONE]`; an error event of the service is thrown as `ApiError`. */
export async function* jsonEvents<T>(
  method: string,
  path: string,
  options: RequestOptions = {},
): AsyncGenerator<T, void, undefined> {
  for await (const event of events(method, path, options)) {
    if (event.data === "[DONE]") return;
    const value: unknown = JSON.parse(event.data);
    const failure = failureOf(value);
    if (failure) throw failure;
    yield value as Awaited<T>;
  }
}

/** The error that the service sends after a stream has begun: `{"error": {…}}` and nothing else. */
function failureOf(value: unknown): ApiError | null {
  if (value === null || typeof value !== "object" || !("error" in value) || "id" in value) return null;
  const error = value.error as { message?: string; code?: string | null } | null;
  return error?.message === undefined ? null : new ApiError(error.message, 200, error.code ?? null);
}
