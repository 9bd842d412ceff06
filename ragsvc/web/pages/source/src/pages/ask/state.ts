import { computed, signal } from "@preact/signals";
import {
  addItems,
  changeConversation,
  conversationItems,
  createConversation,
  deleteConversation,
  deleteItem,
  findDocuments,
  latestItems,
  listCollections,
  listConversations,
  listFeedback,
  listModels,
  listStores,
  sendFeedback,
  showConversation,
  showDocument,
  showResponse,
  streamResponse,
  deleteFeedback,
  type Collection,
  type Condition,
  type Feedback,
  type ListedConversation,
  type Model,
  type Store,
} from "../../api/ask";
import { isAbort } from "../../api/errors";
import { hasScope, session } from "../../api/session";
import { errorText, toastError } from "../../components/toast";
import { navigate, path } from "../../shell/router";
import { t } from "../../texts";
import { afterEvent, citationsOf, isNotInDocuments, newTurn, textOf, turnsOf, type Source, type Turn } from "./turns";

export interface ChosenDocument {
  id: string;
  filename: string;
}

/** Where answers are looked for. No collection means all of them. */
export interface AskScope {
  collections: string[];
  documents: ChosenDocument[];
  conditions: Condition[];
}

const NOWHERE: AskScope = { collections: [], documents: [], conditions: [] };
const MODEL_KEY = "ragsvc.ask.model";
/** As `MAX_VECTOR_STORES` of the service. */
export const MOST_COLLECTIONS = 16;
const FLUSH_MS = 40;
const TITLE_LENGTH = 80;
const METADATA_LENGTH = 512;
const NOT_FOR_CHATS = /embed|rerank|whisper|transcri|tts|speech|voice|dall-e|image|moderation|ocr|video|minilm|hybrid-score/i;

export const collections = signal<Collection[] | null>(null);
export const models = signal<Model[]>([]);
export const model = signal("");
export const scope = signal<AskScope>(NOWHERE);
export const turns = signal<readonly Turn[]>([]);
export const conversationId = signal<string | null>(null);
export const conversationTitle = signal("");
export const history = signal<readonly ListedConversation[] | null>(null);
export const historyGoesOn = signal(false);
export const opening = signal(false);
export const ratings = signal<ReadonlyMap<string, Feedback>>(new Map());
export const shownSource = signal<Source | null>(null);
/** What screen readers are told about the answer. */
export const announced = signal("");

export const isBusy = computed(() => {
  const last = turns.value.at(-1);
  return last?.state === "waiting" || last?.state === "writing";
});
export const hasDocuments = computed(
  () => collections.value === null || collections.value.some((collection) => collection.documents > 0),
);
export const readyDocuments = computed(() =>
  (collections.value ?? []).reduce((sum, collection) => sum + collection.ready, 0),
);

let stores: Store[] = [];
let owner = "";
let running: AbortController | null = null;
/** Conversations that were deleted here: an answer that this ends is not stored. */
const removed = new Set<string>();

/** Loads what the page shows; everything of a key that was signed in before is forgotten. */
export async function start(): Promise<void> {
  const key = session.value?.key.id ?? "";
  if (owner !== key) forget();
  owner = key;
  await Promise.all([loadModels(), loadCollections(), loadHistory(), loadRatings()].map((work) => work.catch(toastError)));
}

function forget(): void {
  running?.abort();
  newConversation();
  collections.value = null;
  history.value = null;
  models.value = [];
  ratings.value = new Map();
  scope.value = NOWHERE;
  stores = [];
}

async function loadModels(): Promise<void> {
  const found = await listModels();
  const chats = found.filter((each) => !NOT_FOR_CHATS.test(each.id) && !/\+docs(:|$)/.test(each.id));
  models.value = chats;
  const wished = model.value || readStored(MODEL_KEY);
  const usable = chats.find((each) => each.id === wished) ?? chats.find((each) => each.available) ?? chats[0];
  model.value = usable?.id ?? "";
}

export async function loadCollections(): Promise<void> {
  if (!hasScope("documents.read")) return;
  const [found, known] = await Promise.all([listCollections(), listStores()]);
  stores = known;
  collections.value = found;
}

export async function loadHistory(more = false): Promise<void> {
  const former = more ? (history.value ?? []) : [];
  const page = await listConversations(former.at(-1)?.id ?? null);
  history.value = [...former, ...page.data];
  historyGoesOn.value = page.has_more;
}

async function loadRatings(): Promise<void> {
  const found = await listFeedback();
  ratings.value = new Map(found.flatMap((each) => (each.answer_id ? [[each.answer_id, each]] : [])));
}

export function chooseModel(id: string): void {
  model.value = id;
  try {
    localStorage.setItem(MODEL_KEY, id);
  } catch {
    // storage is switched off: the choice holds until the page is closed
  }
}

function readStored(name: string): string {
  try {
    return localStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
}

/** Begins a conversation; it is stored with its first question. */
export function newConversation(): void {
  running?.abort();
  opening.value = false;
  turns.value = [];
  conversationId.value = null;
  conversationTitle.value = "";
  shownSource.value = null;
  announced.value = "";
}

export async function openConversation(id: string): Promise<void> {
  if (conversationId.value === id) return;
  newConversation();
  opening.value = true;
  conversationId.value = id;
  try {
    const [conversation, items] = await Promise.all([showConversation(id), conversationItems(id)]);
    if (conversationId.value !== id) return; // another one was opened meanwhile
    const usedModel = conversation.metadata.model ?? null;
    turns.value = turnsOf(items, usedModel);
    conversationTitle.value = conversation.metadata.title ?? "";
    scope.value = readScope(conversation.metadata.scope);
    if (usedModel && (!models.value.length || models.value.some((each) => each.id === usedModel))) model.value = usedModel;
    await Promise.all(turns.value.filter(isNotInDocuments).map(loadPassages));
  } catch (error) {
    if (conversationId.value === id) {
      newConversation();
      showAddress("/ask");
    }
    toastError(error);
  } finally {
    if (conversationId.value === id) opening.value = false;
  }
}

/** The nearest passages of an old answer without citations; they are part of the response as long as it is kept. */
async function loadPassages(turn: Turn): Promise<void> {
  if (!turn.responseId) return;
  try {
    const response = await showResponse(turn.responseId);
    const results = response.output.find((item) => item.type === "file_search_call")?.results ?? null;
    replaceTurn(turn.key, (present) => ({ ...present, passages: results }));
  } catch {
    // it is not kept any more
  }
}

function readScope(text: string | undefined): AskScope {
  if (!text) return NOWHERE;
  try {
    const read = JSON.parse(text) as Partial<AskScope>;
    return { ...NOWHERE, ...read };
  } catch {
    return NOWHERE;
  }
}

/** Asks about one document only, as a link of the Documents page does. */
export async function chooseDocument(id: string): Promise<void> {
  const found = await showDocument(id);
  newConversation();
  scope.value = { ...NOWHERE, collections: [found.collection], documents: [{ id, filename: found.filename }] };
}

export async function searchDocuments(name: string, collection: string | null): ReturnType<typeof findDocuments> {
  return findDocuments(name, collection);
}

/** Whether the conversation of a turn is shown. */
function isPresent(turn: Turn): boolean {
  return turns.value.some((each) => each.key === turn.key);
}

function replaceTurn(key: string, change: (turn: Turn) => Turn): void {
  turns.value = turns.value.map((turn) => (turn.key === key ? change(turn) : turn));
}

/** The names of the collections in which a question looks; the service searches at most `MOST_COLLECTIONS`. */
export function searchedCollections(where: AskScope): string[] {
  if (where.collections.length) return where.collections;
  return (collections.value ?? []).filter((collection) => collection.ready > 0).map((collection) => collection.name);
}

/** The fields of a request that say where to look. */
export function searchFields(where: AskScope): Record<string, unknown> {
  if (!hasScope("chat")) return {};
  const filters = filtersOf(where.conditions);
  const names = searchedCollections(where);
  const options = filters ? { filters } : {};
  if (where.documents.length || names.length <= 1) {
    const rag: Record<string, unknown> = { ...options };
    if (names[0] !== undefined) rag.collection = names[0];
    if (where.documents.length) rag.document_ids = where.documents.map((document) => document.id);
    return { use_rag: true, rag };
  }
  const ids = names.flatMap((name) => stores.find((store) => store.collection === name)?.id ?? []);
  return { tools: [{ type: "file_search", vector_store_ids: ids.slice(0, MOST_COLLECTIONS), ...options }] };
}

function filtersOf(conditions: readonly Condition[]): object | null {
  const filters = conditions
    .filter((condition) => condition.key.trim() && condition.value.trim())
    .map(({ key, type, value }) => filterOf(key.trim(), type, value.trim()));
  if (!filters.length) return null;
  return filters.length === 1 ? (filters[0] ?? null) : { type: "and", filters };
}

/** Values of different types are never equal, so what looks like a number is compared as text as well. */
function filterOf(key: string, type: Condition["type"], text: string): object {
  const value = typedValue(type, text);
  if (typeof value === "string" || (type !== "eq" && type !== "ne")) return { type, key, value };
  const filters = [value, text].map((each) => ({ type, key, value: each }));
  return { type: type === "eq" ? "or" : "and", filters };
}

/** A number or a truth value where the text is one. */
function typedValue(type: Condition["type"], value: string): string | number | boolean {
  if (type === "contains" || type === "prefix") return value;
  if (/^-?\d+(\.\d+)?$/.test(value)) return Number(value);
  return value === "true" ? true : value === "false" ? false : value;
}

/** Asks a question in the present conversation, which is created if there is none. */
export async function ask(question: string): Promise<void> {
  const text = question.trim();
  if (!text || isBusy.value) return;
  const turn = newTurn(text, model.value);
  turns.value = [...turns.value, turn];
  await answer(turn);
}

/** Asks the last question again; the former answer is removed from the conversation. */
export async function retry(): Promise<void> {
  const last = turns.value.at(-1);
  if (!last || isBusy.value) return;
  const turn = newTurn(last.question, model.value);
  turns.value = [...turns.value.slice(0, -1), turn];
  shownSource.value = null;
  try {
    if (conversationId.value && last.state !== "failed") await removeLastTurn(conversationId.value, last.question);
  } catch (error) {
    toastError(error);
  }
  if (turns.value.at(-1) === turn) await answer(turn);
}

/** Removes a question and its answer from a conversation, if they are the last ones there. */
async function removeLastTurn(id: string, question: string): Promise<void> {
  const items = await latestItems(id);
  const at = items.findIndex((item) => item.type === "message" && item.role === "user");
  const asked = items[at];
  if (!asked || textOf(asked).trim() !== question.trim()) return; // it was not stored, or more was asked elsewhere
  for (const item of items.slice(0, at + 1)) await deleteItem(id, item.id);
}

/** Ends the answer that is being written; what was written is kept. */
export function stop(): void {
  running?.abort();
}

async function answer(asked: Turn): Promise<void> {
  const controller = new AbortController();
  running = controller;
  announced.value = t("ask.searching");
  let turn = asked;
  let shown = 0;
  const show = (): void => {
    shown = performance.now();
    replaceTurn(asked.key, () => turn);
  };
  let conversation = conversationId.value; // the reader may open another one before the answer ends
  try {
    conversation ??= await begin(turn);
    const body = {
      model: model.value,
      input: turn.question,
      conversation,
      stream: true,
      truncation: "auto",
      include: ["file_search_call.results"],
      ...searchFields(scope.value),
    };
    for await (const event of streamResponse(body, controller.signal)) {
      const before = turn;
      turn = afterEvent(turn, event);
      // the first words at once, later ones together: each is a new rendering of the answer
      if (turn.state !== before.state || turn.searched !== before.searched || performance.now() - shown > FLUSH_MS) show();
    }
    if (turn.state === "waiting" || turn.state === "writing") throw new Error(t("ask.cut"));
  } catch (error) {
    if (isAbort(error)) {
      turn = { ...turn, state: "stopped" };
      if (conversation && !removed.has(conversation)) await keepStopped(conversation, turn).catch(toastError);
    } else turn = { ...turn, state: "failed", error: errorText(error) };
  } finally {
    if (running === controller) running = null;
    show();
  }
  if (isPresent(asked)) announced.value = announcement(turn);
  loadHistory().catch(toastError);
}

function announcement(turn: Turn): string {
  if (turn.state === "failed") return t("ask.failed");
  if (turn.state === "stopped") return t("ask.stopped");
  if (isNotInDocuments(turn)) return t("ask.absent");
  return t("ask.answered", { count: citationsOf(turn).sources.length });
}

/** Creates the conversation of a first question. */
async function begin(turn: Turn): Promise<string> {
  const words = turn.question.replace(/\s+/g, " ");
  const title = words.length > TITLE_LENGTH ? `${words.slice(0, TITLE_LENGTH - 1)}…` : words;
  const metadata: Record<string, string> = { title, model: model.value };
  const where = JSON.stringify(scope.value);
  if (where !== JSON.stringify(NOWHERE) && where.length <= METADATA_LENGTH) metadata.scope = where;
  const made = await createConversation(metadata);
  if (!isPresent(turn)) return made.id; // the reader opened another conversation
  conversationId.value = made.id;
  conversationTitle.value = title;
  showAddress(`/ask?conversation=${made.id}`);
  return made.id;
}

/** Changes the address while the page is shown; the reader may have gone to another one. */
function showAddress(to: string): void {
  if (["/", "/ask", "/sign-in"].includes(path.value)) navigate(to, { replace: true });
}

/** The service does not add a stopped answer to the conversation; the page adds what was written. */
async function keepStopped(id: string, turn: Turn): Promise<void> {
  const text = [{ type: "output_text", text: turn.text, annotations: [] }];
  await addItems(id, [
    { type: "message", role: "user", content: [{ type: "input_text", text: turn.question }] },
    ...(turn.text ? [{ type: "message", role: "assistant", status: "incomplete", content: text }] : []),
  ]);
}

export async function renameConversation(id: string, title: string): Promise<void> {
  const { metadata } = await showConversation(id);
  await changeConversation(id, { ...metadata, title });
  if (conversationId.value === id) conversationTitle.value = title;
  await loadHistory();
}

export async function removeConversation(id: string): Promise<void> {
  await deleteConversation(id);
  removed.add(id);
  if (conversationId.value === id) {
    newConversation();
    showAddress("/ask");
  }
  await loadHistory();
}

/** Stores a rating, or removes it if the answer has the same one already and there is no note to change. */
export async function rate(turn: Turn, rating: "up" | "down", note: string | null = null): Promise<void> {
  const answerId = turn.responseId;
  if (!answerId) return;
  const known = ratings.value.get(answerId);
  let made: Feedback | null = null;
  if (known?.rating === rating && note === null) {
    await deleteFeedback(known.id);
  } else {
    const { sources } = citationsOf(turn);
    made = await sendFeedback({
      question: turn.question,
      answer: turn.text,
      rating,
      note: note === null ? (known?.note ?? null) : note || null,
      citations: sources.map((source) => ({
        document_id: source.documentId,
        page: source.page,
        quote: source.quote || null,
        filename: source.filename,
        chunk_id: source.chunkId,
      })),
      not_in_documents: isNotInDocuments(turn),
      model: turn.model,
      collections: scope.value.collections.slice(0, MOST_COLLECTIONS),
      answer_id: answerId,
      conversation_id: conversationId.value,
    });
  }
  const changed = new Map(ratings.value); // other answers may have been rated meanwhile
  if (made) changed.set(answerId, made);
  else changed.delete(answerId);
  ratings.value = changed;
}
