import type { Annotation, Item, Passage, ResponseEvent } from "../../api/ask";

/** A source of an answer: a passage, with the first quote from it. `number` is that of its chips. */
export interface Source {
  number: number;
  documentId: string;
  filename: string;
  page: number;
  pageLabel: string | null;
  quote: string;
  chunkId: string | null;
}

/** A marker in an answer, as positions in its text, and the sources that it names. */
export interface Marker {
  start: number;
  end: number;
  sources: Source[];
}

export interface Turn {
  /** Unique on the page. */
  key: string;
  question: string;
  text: string;
  annotations: Annotation[];
  /** The passages that the search found, if they are known. */
  passages: Passage[] | null;
  searched: boolean;
  state: "waiting" | "writing" | "done" | "stopped" | "failed";
  error: string;
  /** The answer ended before it was complete, such as at the limit of its length. */
  isCut: boolean;
  responseId: string | null;
  model: string | null;
}

let made = 0;

export function newTurn(question: string, model: string | null): Turn {
  return {
    key: `turn-${++made}`,
    question,
    text: "",
    annotations: [],
    passages: null,
    searched: false,
    state: "waiting",
    error: "",
    isCut: false,
    responseId: null,
    model,
  };
}

/** The turn after an event of the stream. */
export function afterEvent(turn: Turn, event: ResponseEvent): Turn {
  switch (event.type) {
    case "response.created":
      return { ...turn, responseId: event.response?.id ?? null };
    case "response.output_item.done":
      if (event.item?.type !== "file_search_call") return turn;
      return { ...turn, searched: true, passages: event.item.results ?? null };
    case "response.output_text.delta":
    case "response.refusal.delta":
      return { ...turn, state: "writing", text: turn.text + (event.delta ?? "") };
    case "response.output_text.annotation.added":
      return event.annotation ? { ...turn, annotations: [...turn.annotations, event.annotation] } : turn;
    case "response.completed":
      return { ...turn, state: "done" };
    case "response.incomplete":
      return { ...turn, state: "done", isCut: true };
    case "response.failed":
      return { ...turn, state: "failed", error: event.response?.error?.message ?? "" };
    case "error":
      return { ...turn, state: "failed", error: event.message ?? "" };
    default:
      return turn;
  }
}

/** The turns of a stored conversation; `items` are its items, oldest first. */
export function turnsOf(items: readonly Item[], model: string | null): Turn[] {
  const turns: Turn[] = [];
  for (const item of items) {
    const last = turns.at(-1);
    if (item.type === "message" && item.role === "user") {
      turns.push({ ...newTurn(textOf(item), model), state: "done" });
    } else if (item.type === "file_search_call" && last) {
      last.searched = true;
      last.passages = item.results ?? null;
    } else if (item.type === "message" && item.role === "assistant" && last) {
      last.text += textOf(item);
      last.annotations.push(...(item.content ?? []).flatMap((part) => part.annotations ?? []));
      last.responseId = responseOf(item.id);
      if (item.status === "incomplete") last.state = "stopped";
    }
  }
  return turns;
}

export function textOf(item: Item): string {
  return (item.content ?? []).map((part) => part.text ?? part.refusal ?? "").join("");
}

/** The response that a message belongs to: its id begins with that of the response. */
function responseOf(itemId: string): string | null {
  const found = /^msg_([0-9a-f]{24})[0-9a-f]{4}$/.exec(itemId);
  return found ? `resp_${found[1]}` : null;
}

const WRITTEN_MARKER = /\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]/g;

/**
 * What the markers of an answer name while it is written: the service sends its citations at the end, and `[2]` is the
 * second passage that the search found.
 */
function expectedCitations(turn: Pick<Turn, "text" | "passages">): Annotation[] {
  return [...turn.text.matchAll(WRITTEN_MARKER)].flatMap((match) =>
    (match[1] ?? "").split(",").flatMap((number) => {
      const passage = turn.passages?.[Number(number) - 1];
      if (!passage?.document_id || !passage.page) return [];
      const place = { start_index: match.index, end_index: match.index + match[0].length };
      return [{ ...passage, ...place, type: "file_citation", quote: "" }];
    }),
  );
}

/** The sources of an answer in the order of their first markers, and its markers. */
export function citationsOf(turn: Turn): { sources: Source[]; markers: Marker[] } {
  const isWritten = turn.state === "waiting" || turn.state === "writing";
  const annotations = turn.annotations.length || !isWritten ? turn.annotations : expectedCitations(turn);
  const positions = turn.annotations.length ? codeUnits(turn.text) : (place: number) => place;
  const sources = new Map<string, Source>();
  const markers = new Map<string, Marker>();
  const cited = annotations.filter((each) => each.type === "file_citation" && each.document_id && each.page);
  for (const each of cited) {
    const name = each.chunk_id ?? `${each.document_id} ${each.page}`;
    const known = sources.get(name);
    const source: Source = {
      number: known?.number ?? sources.size + 1,
      documentId: each.document_id ?? "",
      filename: each.filename ?? "",
      page: each.page ?? 1,
      pageLabel: each.page_label ?? null,
      quote: each.quote ?? "",
      chunkId: each.chunk_id ?? null,
    };
    if (!known) sources.set(name, source);
    const start = positions(each.start_index ?? 0);
    const end = positions(each.end_index ?? 0);
    const marker = markers.get(`${start}-${end}`) ?? { start, end, sources: [] };
    if (!marker.sources.some((other) => other.number === source.number)) marker.sources.push(source);
    markers.set(`${start}-${end}`, marker);
  }
  const inOrder = [...markers.values()].sort((left, right) => left.start - right.start);
  return { sources: [...sources.values()], markers: inOrder };
}

/** The place in a JavaScript string of a number of code points. */
function codeUnits(text: string): (points: number) => number {
  if (!/[\uD800-\uDBFF]/.test(text)) return (points) => points;
  const starts: number[] = [];
  let at = 0;
  for (const character of text) {
    starts.push(at);
    at += character.length;
  }
  return (points) => starts[points] ?? text.length;
}

/** Whether the documents do not contain the answer: they were searched, and nothing of them is cited. */
export function isNotInDocuments(turn: Turn): boolean {
  return turn.state === "done" && turn.searched && !turn.annotations.some((each) => each.document_id || each.page);
}

/** The answer with the numbers of its sources as `[1]`. */
export function numberedText(turn: Turn): string {
  const { markers } = citationsOf(turn);
  let text = "";
  let at = 0;
  for (const marker of markers) {
    text += `${turn.text.slice(at, marker.start)}[${marker.sources.map((source) => source.number).join(", ")}]`;
    at = marker.end;
  }
  return text + turn.text.slice(at);
}

/** How people name a page: by its printed label, else by its number. */
export function pageName(source: { page: number; pageLabel: string | null }): string {
  return source.pageLabel && source.pageLabel !== String(source.page) ? source.pageLabel : String(source.page);
}
