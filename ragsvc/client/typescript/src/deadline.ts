/** Bounds a whole request, from the fetch of the server's key to the last byte of the response. */

import { RequestTimeoutError } from "./errors.js";

const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** A `RequestInit` or a `Request`. It is kept: undici no longer aborts the signal of a `Request` that was collected. */
export interface Caller {
  readonly signal?: AbortSignal | null;
}

export class Deadline {
  readonly #controller = new AbortController();
  readonly #caller: Caller;
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #onCallerAbort = () => this.#controller.abort(this.#caller.signal?.reason);

  /** `timeoutMs` is `undefined` for no limit of time. */
  constructor(caller: Caller, timeoutMs: number | undefined) {
    this.#caller = caller;
    if (caller.signal?.aborted) this.#onCallerAbort();
    else caller.signal?.addEventListener("abort", this.#onCallerAbort, { once: true });
    if (timeoutMs !== undefined) {
      const expire = () => this.#controller.abort(new RequestTimeoutError(timeoutMs));
      this.#timer = setTimeout(expire, Math.min(timeoutMs, LONGEST_TIMER_MS));
      (this.#timer as { unref?(): void }).unref?.(); // an answer that nobody reads does not keep Node running
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Await `work`, but no longer than until the deadline or the caller's abort, whose reason is then thrown. */
  async within<Result>(work: Promise<Result>): Promise<Result> {
    const { signal } = this;
    let stop: (() => void) | undefined;
    const aborted = new Promise<never>((_, reject) => {
      stop = () => reject(signal.reason);
      signal.addEventListener("abort", stop, { once: true });
    });
    try {
      if (signal.aborted) throw signal.reason;
      return await Promise.race([work, aborted]);
    } catch (error) {
      work.catch(() => undefined); // its failure after the deadline is of no interest
      throw signal.aborted ? signal.reason : error;
    } finally {
      if (stop !== undefined) signal.removeEventListener("abort", stop);
    }
  }

  /** Stop the clock: the request has ended. */
  end(): void {
    clearTimeout(this.#timer);
    this.#caller.signal?.removeEventListener("abort", this.#onCallerAbort);
  }
}
