import { useState } from "preact/hooks";
import { Button } from "../../components/button";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { Table } from "../../components/table";
import { formatNumber, t } from "../../texts";
import { ExchangeView } from "./exchange_view";
import type { PaneProps } from "./panes";
import { failureOf, jsonOf, usageOf, useRun } from "./run";

const PATH = "/v1/embeddings";

interface Answer {
  data: { index: number; embedding: number[] }[];
}

function cosine(a: readonly number[], b: readonly number[]): number {
  let dot = 0;
  let lengthA = 0;
  let lengthB = 0;
  for (const [index, value] of a.entries()) {
    const other = b[index] ?? 0;
    dot += value * other;
    lengthA += value * value;
    lengthB += other * other;
  }
  return dot / Math.sqrt(lengthA * lengthB) || 0;
}

/** Embeds several texts and shows how similar each is to each other. */
export function EmbeddingsPane({ model, pricing }: PaneProps) {
  const run = useRun();
  const [text, setText] = useState("");
  const [shown, setShown] = useState<{ texts: string[]; vectors: number[][] } | null>(null);
  const texts = text.split("\n").filter((line) => line.trim());
  const body = { model, input: texts };
  const send = async (): Promise<void> => {
    const asked = texts;
    const answer = jsonOf<Answer>(await run.send(PATH, body));
    if (!answer) return setShown(null);
    const vectors = [...answer.data].sort((a, b) => a.index - b.index).map((item) => item.embedding);
    setShown({ texts: asked, vectors });
  };
  const failure = failureOf(run.last);
  return (
    <div class="playground-columns">
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <Field label={t("playground.texts")} hint={t("playground.texts.hint")}>
          <textarea rows={6} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </Field>
        <div class="row">
          <Button type="submit" kind="primary" icon="send" busy={run.busy} disabled={!texts.length || !model}>
            {t("playground.embed")}
          </Button>
        </div>
        {failure ? <Notice kind="error">{failure}</Notice> : null}
        {shown ? (
          <>
            <p class="soft">
              {t("playground.vectors", { count: shown.vectors.length, dimensions: shown.vectors[0]?.length ?? 0 })}
            </p>
            <Table
              caption={t("playground.similarity")}
              rowKey={(row) => row}
              rows={shown.texts.map((_, index) => index)}
              columns={[
                { id: "text", title: t("playground.text"), cell: (row) => `${row + 1}. ${shown.texts[row]}` },
                ...shown.vectors.map((vector, column) => ({
                  id: String(column),
                  title: String(column + 1),
                  number: true,
                  cell: (row: number) =>
                    formatNumber(cosine(shown.vectors[row] ?? [], vector), {
                      minimumFractionDigits: 3,
                      maximumFractionDigits: 3,
                    }),
                })),
              ]}
            />
          </>
        ) : null}
      </form>
      <ExchangeView path={PATH} body={body} last={run.last} usage={usageOf(run.last)} pricing={pricing} />
    </div>
  );
}
