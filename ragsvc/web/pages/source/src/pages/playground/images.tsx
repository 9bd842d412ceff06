import { useState } from "preact/hooks";
import { Button } from "../../components/button";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { t } from "../../texts";
import { ExchangeView } from "./exchange_view";
import { ExtraFields, parseObject } from "./parameters";
import type { PaneProps } from "./panes";
import { failureOf, jsonOf, usageOf, useRun } from "./run";

const PATH = "/v1/images/generations";

interface Answer {
  data?: { b64_json?: string; url?: string }[];
}

export function ImagesPane({ model, pricing }: PaneProps) {
  const run = useRun();
  const [prompt, setPrompt] = useState("");
  const [count, setCount] = useState("1");
  const [size, setSize] = useState("");
  const [extra, setExtra] = useState("");
  const extraFields = parseObject(extra);
  const body = {
    model,
    prompt,
    n: Number(count) || 1,
    ...(size ? { size } : {}),
    ...extraFields.value,
  };
  const failure = failureOf(run.last);
  const images = jsonOf<Answer>(run.last)?.data ?? [];
  return (
    <div class="playground-columns">
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void run.send(PATH, body);
        }}
      >
        <Field label={t("playground.prompt")}>
          <textarea rows={4} value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />
        </Field>
        <div class="parameter-grid">
          <Field label={t("playground.count")}>
            <input type="number" min={1} max={10} value={count} onInput={(event) => setCount(event.currentTarget.value)} />
          </Field>
          <Field label={t("playground.size")}>
            <input value={size} placeholder="1024x1024" onInput={(event) => setSize(event.currentTarget.value)} />
          </Field>
        </div>
        <ExtraFields text={extra} error={extraFields.error} onChange={setExtra} />
        <div class="row">
          <Button
            type="submit"
            kind="primary"
            icon="send"
            busy={run.busy}
            disabled={!prompt.trim() || !model || !extraFields.value}
          >
            {t("playground.make_image")}
          </Button>
        </div>
        {failure ? <Notice kind="error">{failure}</Notice> : null}
        <div class="made-images">
          {images.map((image, index) =>
            image.b64_json ? (
              <img key={index} src={`data:image/png;base64,${image.b64_json}`} alt={t("playground.made_image", { prompt })} />
            ) : image.url && /^https?:/i.test(image.url) ? (
              <a key={index} href={image.url} target="_blank" rel="noreferrer">
                {t("playground.open_image")}
              </a>
            ) : null,
          )}
        </div>
      </form>
      <ExchangeView path={PATH} body={body} last={run.last} usage={usageOf(run.last)} pricing={pricing} />
    </div>
  );
}
