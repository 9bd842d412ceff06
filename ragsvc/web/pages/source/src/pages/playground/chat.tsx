import { useRef, useState } from "preact/hooks";
import { session } from "../../api/session";
import { Button, IconButton } from "../../components/button";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { toast } from "../../components/toast";
import { formatBytes, t } from "../../texts";
import { ExchangeView } from "./exchange_view";
import { ExtraFields, Numbers, numbersOf, type NumberParameter, parseList, parseObject } from "./parameters";
import type { PaneProps } from "./panes";
import { failureOf, jsonOf, usageOf, useRun } from "./run";

const PATH = "/v1/chat/completions";
const MAX_IMAGE_BYTES = 8_000_000;
const NUMBERS: readonly NumberParameter[] = [
  { name: "temperature", label: "playground.temperature", min: 0, max: 2, step: 0.1 },
  { name: "top_p", label: "playground.top_p", min: 0, max: 1, step: 0.05 },
  { name: "max_tokens", label: "playground.max_tokens", min: 1, step: 1 },
  { name: "seed", label: "playground.seed", step: 1 },
  { name: "presence_penalty", label: "playground.presence_penalty", min: -2, max: 2, step: 0.1 },
  { name: "frequency_penalty", label: "playground.frequency_penalty", min: -2, max: 2, step: 0.1 },
];

interface Turn {
  role: "user" | "assistant";
  text: string;
}

interface Picture {
  name: string;
  url: string;
}

interface Delta {
  choices?: { delta?: { content?: string | null; tool_calls?: unknown[] } }[];
  error?: { message?: string };
}

interface Answer {
  choices?: { message?: { content?: string | null; tool_calls?: unknown[] } }[];
}

interface ToolPart {
  index?: number;
  function?: { name?: string; arguments?: string };
}

/** Tools that a streamed answer calls, put together from its pieces. */
function joinToolCalls(parts: readonly unknown[]): { name: string; arguments: string }[] {
  const calls: { name: string; arguments: string }[] = [];
  for (const part of parts as ToolPart[]) {
    const at = part.index ?? calls.length;
    const found = (calls[at] ??= { name: "", arguments: "" });
    found.name += part.function?.name ?? "";
    found.arguments += part.function?.arguments ?? "";
  }
  return calls.filter(Boolean);
}

export function ChatPane({ model, pricing, collections }: PaneProps) {
  const run = useRun();
  const [system, setSystem] = useState("");
  const [turns, setTurns] = useState<Turn[]>([]);
  const [draft, setDraft] = useState("");
  const [pictures, setPictures] = useState<Picture[]>([]);
  const [numbers, setNumbers] = useState<Record<string, string>>({});
  const [streamed, setStreamed] = useState(true);
  const [useRag, setUseRag] = useState(false);
  const [collection, setCollection] = useState("");
  const [topK, setTopK] = useState("");
  const [stops, setStops] = useState("");
  const [tools, setTools] = useState("");
  const [extra, setExtra] = useState("");
  const [answer, setAnswer] = useState("");
  const [stopped, setStopped] = useState(false);
  const [cut, setCut] = useState("");
  const conversation = useRef(0); // another number after "New conversation"
  const toolList = parseList(tools);
  const extraFields = parseObject(extra);
  const mayAskDocuments = session.value?.key.scopes.some((scope) => scope === "chat" || scope === "admin") ?? false;

  const messages = (asked: readonly Turn[]): unknown[] => [
    ...(system.trim() ? [{ role: "system", content: system }] : []),
    ...asked.map(({ role, text }) => ({ role, content: text })),
  ];
  const question = (): unknown =>
    pictures.length
      ? [
          { type: "text", text: draft },
          ...pictures.map(({ url }) => ({ type: "image_url", image_url: { url } })),
        ]
      : draft;
  const body = (): Record<string, unknown> => ({
    model,
    messages: [...messages(turns), { role: "user", content: question() }],
    ...(streamed ? { stream: true, stream_options: { include_usage: true } } : {}),
    ...numbersOf(NUMBERS, numbers),
    ...(stops.trim() ? { stop: stops.split("\n").filter(Boolean) } : {}),
    ...(toolList.value ? { tools: toolList.value } : {}),
    ...(useRag ? { use_rag: true } : {}),
    ...(useRag && (collection || topK)
      ? { rag: { ...(collection ? { collection } : {}), ...(topK ? { top_k: Number(topK) } : {}) } }
      : {}),
    ...extraFields.value,
  });

  const send = async (): Promise<void> => {
    if (!draft.trim() || !model || !extraFields.value || toolList.error || run.busy) return;
    let text = "";
    let failure = "";
    const toolParts: unknown[] = [];
    const asked = { text: draft, pictures };
    const own = conversation.current;
    setAnswer("");
    setStopped(false);
    setCut("");
    const done = await run.send(PATH, body(), (data) => {
      if (data === "[DONE]") return;
      const { choices, error } = JSON.parse(data) as Delta;
      if (error) failure = error.message || t("error.unknown");
      const delta = choices?.[0]?.delta;
      text += delta?.content ?? "";
      toolParts.push(...(delta?.tool_calls ?? []));
      if (own === conversation.current) setAnswer(text);
    });
    if (own !== conversation.current) return;
    const message = jsonOf<Answer>(done)?.choices?.[0]?.message;
    text ||= message?.content ?? "";
    const calls = toolParts.length ? joinToolCalls(toolParts) : message?.tool_calls;
    if (calls?.length) text += `${text ? "\n\n" : ""}${JSON.stringify(calls, null, 2)}`;
    setAnswer("");
    setStopped(!done);
    setCut(failure);
    if (!text) return;
    setTurns([...turns, { role: "user", text: asked.text }, { role: "assistant", text }]);
    setDraft((present) => (present === asked.text ? "" : present)); // the next message may have been begun
    setPictures((present) => (present === asked.pictures ? [] : present));
  };

  const addPictures = (files: FileList | null): void => {
    for (const file of files ?? []) {
      if (file.size > MAX_IMAGE_BYTES) {
        toast(t("playground.image_too_large", { name: file.name, limit: formatBytes(MAX_IMAGE_BYTES) }), { kind: "error" });
        continue;
      }
      const reader = new FileReader();
      reader.onload = () => setPictures((before) => [...before, { name: file.name, url: String(reader.result) }]);
      reader.readAsDataURL(file);
    }
  };

  const failure = failureOf(run.last) || cut;
  return (
    <div class="playground-columns">
      <div class="stack">
        <Field label={t("playground.system")}>
          <textarea rows={2} value={system} onInput={(event) => setSystem(event.currentTarget.value)} />
        </Field>
        <div class="turns" role="log" aria-label={t("playground.conversation")} tabIndex={0}>
          {turns.map((turn, index) => (
            <Shown key={index} role={turn.role} text={turn.text} />
          ))}
          {answer ? <Shown role="assistant" text={answer} /> : null}
        </div>
        {failure && !run.busy ? <Notice kind="error">{failure}</Notice> : null}
        {stopped && !run.busy ? <Notice>{t("playground.stopped")}</Notice> : null}
        <form
          class="stack"
          onSubmit={(event) => {
            event.preventDefault();
            void send();
          }}
        >
          <Field label={t("playground.message")}>
            <textarea
              rows={3}
              value={draft}
              onInput={(event) => setDraft(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void send();
              }}
            />
          </Field>
          {pictures.length ? (
            <ul class="pictures">
              {pictures.map((picture, index) => (
                <li key={index}>
                  <img src={picture.url} alt={picture.name} />
                  <IconButton
                    small
                    icon="close"
                    label={t("playground.remove_image", { name: picture.name })}
                    onClick={() => setPictures(pictures.filter((_, other) => other !== index))}
                  />
                </li>
              ))}
            </ul>
          ) : null}
          <div class="row">
            <Button type="submit" kind="primary" icon="send" busy={run.busy} disabled={!draft.trim() || !model}>
              {t("playground.send")}
            </Button>
            {run.busy ? (
              <Button icon="stop" onClick={run.stop}>
                {t("playground.stop")}
              </Button>
            ) : null}
            <label class="button button-plain file-button">
              {t("playground.add_image")}
              <input
                class="visually-hidden"
                type="file"
                accept="image/*"
                multiple
                onChange={(event) => {
                  addPictures(event.currentTarget.files);
                  event.currentTarget.value = "";
                }}
              />
            </label>
            <Button
              icon="trash"
              disabled={!turns.length && !run.busy}
              onClick={() => {
                conversation.current += 1;
                run.stop();
                setTurns([]);
                setAnswer("");
                setStopped(false);
                setCut("");
              }}
            >
              {t("playground.clear")}
            </Button>
          </div>
        </form>
      </div>
      <div class="stack">
        <fieldset class="card stack">
          <legend>{t("playground.parameters")}</legend>
          <Check label={t("playground.stream")} checked={streamed} onChange={setStreamed} />
          {mayAskDocuments ? <Check label={t("playground.use_rag")} checked={useRag} onChange={setUseRag} /> : null}
          {useRag ? (
            <div class="parameter-grid">
              <Field label={t("playground.collection")}>
                <select value={collection} onChange={(event) => setCollection(event.currentTarget.value)}>
                  <option value="">{t("playground.default")}</option>
                  {collections.map((name) => (
                    <option key={name} value={name}>
                      {name}
                    </option>
                  ))}
                </select>
              </Field>
              <Field label={t("playground.top_k")}>
                <input
                  type="number"
                  min={1}
                  max={100}
                  value={topK}
                  placeholder={t("playground.default")}
                  onInput={(event) => setTopK(event.currentTarget.value)}
                />
              </Field>
            </div>
          ) : null}
          <Numbers
            parameters={NUMBERS}
            values={numbers}
            onChange={(name, value) => setNumbers({ ...numbers, [name]: value })}
          />
          <Field label={t("playground.stops")} hint={t("playground.stops.hint")}>
            <textarea rows={2} value={stops} onInput={(event) => setStops(event.currentTarget.value)} />
          </Field>
          <Field label={t("playground.tools")} hint={t("playground.tools.hint")} error={toolList.error || undefined}>
            <textarea
              class="code-input"
              rows={4}
              spellcheck={false}
              value={tools}
              onInput={(event) => setTools(event.currentTarget.value)}
            />
          </Field>
          <ExtraFields text={extra} error={extraFields.error} onChange={setExtra} />
        </fieldset>
        <ExchangeView path={PATH} body={body()} last={run.last} usage={usageOf(run.last)} pricing={pricing} />
      </div>
    </div>
  );
}

function Shown({ role, text }: Turn) {
  return (
    <div class={`turn turn-${role}`}>
      <div class="turn-role">{t(role === "user" ? "playground.you" : "playground.model")}</div>
      <div class="turn-text">{text}</div>
    </div>
  );
}

export function Check({ label, checked, onChange }: { label: string; checked: boolean; onChange: (on: boolean) => void }) {
  return (
    <label class="row">
      <input type="checkbox" checked={checked} onChange={(event) => onChange(event.currentTarget.checked)} />
      {label}
    </label>
  );
}
