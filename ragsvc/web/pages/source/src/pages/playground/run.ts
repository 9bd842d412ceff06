import { useEffect, useRef, useState } from "preact/hooks";
import { isAbort } from "../../api/errors";
import { exchange, type Exchange } from "../../api/exchange";
import type { Usage } from "../../api/models";
import { toastError } from "../../components/toast";

export interface Run {
  busy: boolean;
  last: Exchange | null;
  /** Sends a request; the exchange, or null if it was stopped or did not reach the service. */
  send: (path: string, body: unknown, onEvent?: (data: string) => void) => Promise<Exchange | null>;
  stop: () => void;
}

/** One request at a time; the request that runs is stopped when the page is left. */
export function useRun(): Run {
  const [busy, setBusy] = useState(false);
  const [last, setLast] = useState<Exchange | null>(null);
  const controller = useRef<AbortController | null>(null);
  useEffect(() => () => controller.current?.abort(), []);
  const send: Run["send"] = async (path, body, onEvent) => {
    controller.current?.abort();
    const own = new AbortController();
    controller.current = own;
    setBusy(true);
    try {
      const options = onEvent ? { signal: own.signal, onEvent } : { signal: own.signal };
      const done = await exchange("POST", path, body, options);
      setLast(done);
      return done;
    } catch (error) {
      if (!isAbort(error)) toastError(error);
      return null;
    } finally {
      if (controller.current === own) setBusy(false);
    }
  };
  return { busy, last, send, stop: () => controller.current?.abort() };
}

/** The JSON of an exchange that succeeded; null otherwise. */
export function jsonOf<T>(done: Exchange | null): T | null {
  if (!done || done.status < 200 || done.status > 299 || !done.text) return null;
  try {
    return JSON.parse(done.text) as T;
  } catch {
    return null;
  }
}

/** The tokens that a response reports, also one that was streamed. */
export function usageOf(done: Exchange | null): Usage | null {
  if (!done?.text) return null;
  const whole = jsonOf<{ usage?: Usage }>(done);
  if (whole) return whole.usage ?? null;
  for (const line of done.text.split("\n").reverse()) {
    if (!line.startsWith("data: {") || !line.includes('"usage"')) continue;
    try {
      const usage = (JSON.parse(line.slice(6)) as { usage?: Usage | null }).usage;
      if (usage) return usage;
    } catch {
      return null;
    }
  }
  return null;
}

/** The message of an error answer; empty if the exchange succeeded. */
export function failureOf(done: Exchange | null): string {
  if (!done || (done.status >= 200 && done.status < 300)) return "";
  try {
    return (JSON.parse(done.text) as { error?: { message?: string } }).error?.message ?? `HTTP ${done.status}`;
  } catch {
    return `HTTP ${done.status}`;
  }
}
