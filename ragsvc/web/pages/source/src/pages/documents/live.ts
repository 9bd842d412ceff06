import { signal } from "@preact/signals";
import { ApiError, isAbort } from "../../api/errors";
import type { DocumentCounts, DocumentInfo, DocumentsSnapshot } from "../../api/documents";
import { events } from "../../api/events";

/**
 * What the event stream of all documents says: a new state of a document, a deletion, or "list again". With `missed`,
 * changes were not reported before, and `unfinished` has the ids of documents that are still read.
 */
export type Change =
  | { kind: "document"; document: DocumentInfo }
  | { kind: "deleted"; id: string }
  | { kind: "reload"; counts: DocumentCounts; missed: boolean; unfinished: ReadonlySet<string> };

type Listener = (change: Change) => void;

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

/** Whether the stream is open; false while it is opened again. */
export const connected = signal(true);

const REMEMBERED = 500;
const listeners = new Set<Listener>();
const latest = new Map<string, DocumentInfo>();
let stop: AbortController | null = null;

/** Calls `listener` with each change; the stream is open while there is a listener. Returns a function that ends it. */
export function onChange(listener: Listener): () => void {
  listeners.add(listener);
  if (!stop) {
    stop = new AbortController();
    void follow(stop.signal);
  }
  return () => {
    listeners.delete(listener);
    if (listeners.size) return;
    stop?.abort();
    stop = null;
  };
}

/** The last state of a document that the stream reported, if it was not long ago. */
export function latestState(id: string): DocumentInfo | undefined {
  return latest.get(id);
}

function remember(document: DocumentInfo): void {
  latest.delete(document.id);
  latest.set(document.id, document);
  for (const oldest of latest.keys()) {
    if (latest.size <= REMEMBERED) break;
    latest.delete(oldest);
  }
}

function tell(change: Change): void {
  if (change.kind === "document") remember(change.document);
  for (const listener of [...listeners]) listener(change);
}

async function follow(signal: AbortSignal): Promise<void> {
  let last = "";
  let pause = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      const headers: Record<string, string> = last ? { "last-event-id": last } : {};
      for await (const event of events("GET", "/v1/rag/events", { headers, signal })) {
        if (event.id) last = event.id;
        connected.value = true;
        pause = FIRST_PAUSE_MS;
        take(event.event, event.data);
      }
    } catch (error) {
      if (isAbort(error)) return;
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
        if (stop?.signal === signal) stop = null; // the next listener opens the stream, after a new sign-in for example
        return;
      }
    }
    if (signal.aborted) return;
    connected.value = false;
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

function take(name: string, data: string): void {
  if (name === "snapshot") {
    const snapshot = JSON.parse(data) as DocumentsSnapshot;
    const unfinished = new Set(snapshot.unfinished.map((document) => document.id));
    tell({ kind: "reload", counts: snapshot.counts, missed: !snapshot.resumed, unfinished });
    for (const document of snapshot.unfinished) tell({ kind: "document", document });
  } else if (name === "deleted") tell({ kind: "deleted", id: (JSON.parse(data) as { id: string }).id });
  else if (name) tell({ kind: "document", document: JSON.parse(data) as DocumentInfo });
}
