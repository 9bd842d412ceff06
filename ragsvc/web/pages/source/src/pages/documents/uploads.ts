import { signal } from "@preact/signals";
import { getDocument, retryDocument, uploadDocument, type DocumentInfo, type UploadedDocument } from "../../api/documents";
import { ApiError, isAbort } from "../../api/errors";
import type { Upload } from "../../api/request";
import { errorText } from "../../components/toast";
import { latestState, onChange } from "./live";

const AT_ONCE = 4;
const LONGEST_PAUSE_S = 30;
const SHARE_OF_SENDING = 0.3;

export type UploadState = "waiting" | "sending" | "paused" | "processing" | "ready" | "known" | "failed" | "refused";

/** A file on its way to becoming a document. */
export interface UploadItem {
  id: number;
  file: File;
  /** The name with its folder. */
  name: string;
  collection: string;
  state: UploadState;
  /** Of the bytes sent, 0 to 1. */
  sent: number;
  document: DocumentInfo | null;
  /** The name of the document with the same bytes, if it is another name: it is that of the last upload. */
  sameAs: string;
  error: { code: string; message: string } | null;
}

/** The uploads of this visit; a new array for each change that is shown. */
export const uploads = signal<readonly UploadItem[]>([]);

let items: UploadItem[] = [];
const byDocument = new Map<string, UploadItem[]>();
const running = new Map<UploadItem, Upload<UploadedDocument>>();
let next = 1;
let active = 0;
let stopListening: (() => void) | null = null;
let shown = false;

/** Shows all changes since the last picture at once. */
function show(): void {
  if (shown) return;
  shown = true;
  setTimeout(() => {
    shown = false;
    uploads.value = [...items];
    const unfinished = items.some(isUnfinished);
    if (!unfinished) {
      stopListening?.();
      stopListening = null;
    }
    window.onbeforeunload = items.some(isUnsent) ? (event) => event.preventDefault() : null;
  }, 50);
}

function isUnsent(item: UploadItem): boolean {
  return item.state === "waiting" || item.state === "sending" || item.state === "paused";
}

function isUnfinished(item: UploadItem): boolean {
  return isUnsent(item) || item.state === "processing";
}

/** Uploads files, four at a time, into a collection. */
export function addFiles(files: readonly NamedFile[], collection: string): void {
  for (const { file, name } of files) {
    items.push({ id: next++, file, name, collection, state: "waiting", sent: 0, document: null, sameAs: "", error: null });
  }
  startListening();
  pump();
  show();
}

function startListening(): void {
  stopListening ??= onChange((change) => {
    if (change.kind === "document") for (const item of byDocument.get(change.document.id) ?? []) take(item, change.document);
    if (change.kind === "deleted") {
      for (const item of byDocument.get(change.id) ?? []) forget(item);
      byDocument.delete(change.id);
    }
    if (change.kind === "reload" && change.missed) void readAgain(change.unfinished);
  });
}

/** Reads the documents that were finished while nothing was reported. */
async function readAgain(unfinished: ReadonlySet<string>): Promise<void> {
  for (const item of items.filter((candidate) => candidate.state === "processing")) {
    const id = item.document?.id;
    if (id === undefined || unfinished.has(id)) continue;
    try {
      take(item, await getDocument(id));
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) forget(item);
    }
  }
}

function pump(): void {
  while (active < AT_ONCE) {
    const item = items.find((candidate) => candidate.state === "waiting");
    if (!item) return;
    active += 1;
    item.state = "sending";
    void send(item).finally(() => {
      active -= 1;
      pump();
      show();
    });
  }
}

async function send(item: UploadItem): Promise<void> {
  let pauseS = 1;
  for (;;) {
    item.state = "sending";
    item.sent = 0;
    const call = uploadDocument(item.file, {
      collection: item.collection,
      onProgress: (share) => {
        item.sent = share;
        show();
      },
    });
    running.set(item, call);
    try {
      const stored = await call.result;
      item.sent = 1;
      byDocument.set(stored.id, [...(byDocument.get(stored.id) ?? []), item]);
      for (const other of byDocument.get(stored.id) ?? []) other.sameAs = other.file.name === stored.filename ? "" : stored.filename;
      take(item, stored);
      const later = latestState(stored.id); // it may have been reported before the answer came
      if (later) take(item, later);
      if (!stored.created && stored.status === "ready") item.state = "known";
      return;
    } catch (error) {
      if (isAbort(error)) return;
      const busy = error instanceof ApiError && (error.status === 429 || error.status === 503);
      if (!busy) {
        item.state = "refused";
        item.error = { code: error instanceof ApiError ? (error.code ?? "") : "", message: errorText(error) };
        return;
      }
      item.state = "paused"; // the queue of the service is full, or the key has sent too much for now
      show();
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfterS ?? pauseS) * 1000));
      pauseS = Math.min(pauseS * 2, LONGEST_PAUSE_S);
      if (!items.includes(item)) return;
    } finally {
      running.delete(item);
    }
  }
}

function take(item: UploadItem, document: DocumentInfo): void {
  if (item.document && document.updated_at < item.document.updated_at) return;
  item.document = document;
  item.error = document.error;
  if (document.status === "ready") item.state = item.state === "known" ? "known" : "ready";
  else item.state = document.status === "failed" ? "failed" : "processing";
  show();
}

/** Tries a failed upload again: the sending, or the processing of the stored file. */
export async function retryUpload(item: UploadItem, password?: string): Promise<void> {
  startListening();
  if (item.state === "refused" || !item.document) {
    item.error = null;
    item.state = "waiting";
    pump();
  } else {
    const document = await retryDocument(item.document.id, password);
    item.document = null;
    take(item, document);
  }
  show();
}

/** Stops what is not stored yet. */
export function stopUploads(): void {
  for (const item of items) if (isUnsent(item)) running.get(item)?.abort();
  items = items.filter((item) => !isUnsent(item));
  show();
}

function forget(item: UploadItem): void {
  items = items.filter((other) => other !== item);
  show();
}

/** Takes finished uploads off the list. */
export function clearFinished(): void {
  items = items.filter(isUnfinished);
  show();
}

/** The share of all work that is done, 0 to 1. */
export function totalProgress(all: readonly UploadItem[]): number {
  if (!all.length) return 0;
  const done = all.reduce((sum, item) => sum + itemProgress(item), 0);
  return done / all.length;
}

export function itemProgress(item: UploadItem): number {
  if (item.state === "ready" || item.state === "known" || item.state === "failed" || item.state === "refused") return 1;
  if (item.state === "processing") return SHARE_OF_SENDING + (1 - SHARE_OF_SENDING) * (item.document?.progress ?? 0);
  return SHARE_OF_SENDING * item.sent;
}

export interface NamedFile {
  file: File;
  name: string;
}

/** The files of a drop or paste, and those of dropped folders at any depth. */
export async function filesOf(data: DataTransfer): Promise<NamedFile[]> {
  const entries: FileSystemEntry[] = [];
  const plain: File[] = [];
  for (const item of [...data.items]) {
    if (item.kind !== "file") continue;
    const entry = item.webkitGetAsEntry(); // only now: the list is empty after the event
    if (entry) entries.push(entry);
    else {
      const file = item.getAsFile();
      if (file) plain.push(file);
    }
  }
  const found = plain.map((file) => ({ file, name: file.name }));
  for (const entry of entries) found.push(...(await filesOfEntry(entry)));
  return found.filter(({ file }) => !isHidden(file.name));
}

/** The files that a file dialog returned. */
export function filesOfInput(list: FileList | null): NamedFile[] {
  return [...(list ?? [])]
    .map((file) => ({ file, name: file.webkitRelativePath || file.name }))
    .filter(({ file }) => !isHidden(file.name));
}

/** Files that systems put into folders and nobody means to upload. */
function isHidden(name: string): boolean {
  return name.startsWith(".") || name === "Thumbs.db" || name === "desktop.ini";
}

async function filesOfEntry(entry: FileSystemEntry): Promise<NamedFile[]> {
  const name = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ file, name }];
  }
  if (entry.name.startsWith(".")) return [];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: NamedFile[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const inner of some) found.push(...(await filesOfEntry(inner)));
  }
}
