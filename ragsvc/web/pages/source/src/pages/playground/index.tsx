import { useEffect, useId, useState } from "preact/hooks";
import { listModels, type Model } from "../../api/models";
import { request } from "../../api/request";
import { hasScope } from "../../api/session";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { PageHeader } from "../../components/page_header";
import { Spinner } from "../../components/spinner";
import { Tabs } from "../../components/tabs";
import { errorText } from "../../components/toast";
import { t } from "../../texts";
import { ChatPane } from "./chat";
import { EmbeddingsPane } from "./embeddings";
import { ImagesPane } from "./images";
import type { PaneProps } from "./panes";
import "./playground.css";
import { RerankPane } from "./rerank";
import { SpeechPane } from "./speech";

const panes = { chat: ChatPane, embeddings: EmbeddingsPane, rerank: RerankPane, images: ImagesPane, speech: SpeechPane };
type Family = keyof typeof panes;

/** Parts of names by which the first model of a family is chosen; any model can be typed. */
const HINTS: Record<Family, RegExp> = {
  chat: /chat|gpt|claude|llama|mistral|qwen|gemma/i,
  embeddings: /embed|minilm|e5|bge|gte/i,
  rerank: /rerank|cross-encoder/i,
  images: /image|dall|flux|diffusion/i,
  speech: /tts|speech|audio/i,
};

function firstModel(models: readonly Model[], family: Family): string {
  const found = models.find((model) => model.available && HINTS[family].test(model.id));
  return (found ?? (family === "chat" ? models[0] : undefined))?.id ?? "";
}

export default function PlaygroundPage() {
  const [models, setModels] = useState<Model[] | null>(null);
  const [collections, setCollections] = useState<string[]>([]);
  const [failure, setFailure] = useState("");
  const [family, setFamily] = useState<Family>("chat");
  const [chosen, setChosen] = useState<Partial<Record<Family, string>>>({});
  const list = useId();

  useEffect(() => {
    listModels().then(setModels, (error: unknown) => setFailure(errorText(error)));
    if (hasScope("documents.read") || hasScope("admin")) {
      request<{ data: { name: string }[] }>("GET", "/v1/rag/collections").then(
        ({ data }) => setCollections(data.map(({ name }) => name)),
        () => undefined, // a key that may not list collections can still name the default one
      );
    }
  }, []);

  const model = chosen[family] ?? firstModel(models ?? [], family);
  const props: PaneProps = {
    model,
    pricing: models?.find(({ id }) => id === model)?.pricing ?? null,
    collections,
  };
  const Pane = panes[family];
  return (
    <>
      <PageHeader title={t("nav.playground")} />
      {failure ? <Notice kind="error">{failure}</Notice> : null}
      {models ? (
        <div class="stack">
          <Field label={t("playground.model_field")} hint={model ? undefined : t("playground.no_model")}>
            <input
              class="model-input"
              list={list}
              value={model}
              onInput={(event) => setChosen({ ...chosen, [family]: event.currentTarget.value })}
            />
          </Field>
          <datalist id={list}>
            {models.map(({ id }) => (
              <option key={id} value={id} />
            ))}
          </datalist>
          <Tabs
            label={t("playground.family")}
            tabs={(Object.keys(panes) as Family[]).map((id) => ({ id, title: t(`playground.family.${id}`) }))}
            selected={family}
            onSelect={(id) => setFamily(id as Family)}
          >
            <Pane key={family} {...props} />
          </Tabs>
        </div>
      ) : failure ? null : (
        <Spinner label={t("shell.loading")} />
      )}
    </>
  );
}
