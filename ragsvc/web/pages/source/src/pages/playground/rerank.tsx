import { useState } from "preact/hooks";
import { Button } from "../../components/button";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { Table } from "../../components/table";
import { formatNumber, t } from "../../texts";
import { ExchangeView } from "./exchange_view";
import type { PaneProps } from "./panes";
import { failureOf, jsonOf, usageOf, useRun } from "./run";

const PATH = "/v1/rerank";

interface Result {
  index: number;
  relevance_score: number;
}

/** Orders texts by how well they answer a query. */
export function RerankPane({ model, pricing }: PaneProps) {
  const run = useRun();
  const [query, setQuery] = useState("");
  const [text, setText] = useState("");
  const [shown, setShown] = useState<{ documents: string[]; results: Result[] } | null>(null);
  const documents = text.split("\n").filter((line) => line.trim());
  const body = { model, query, documents };
  const send = async (): Promise<void> => {
    const asked = documents;
    const answer = jsonOf<{ results: Result[] }>(await run.send(PATH, body));
    setShown(answer ? { documents: asked, results: answer.results } : null);
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
        <Field label={t("playground.query")}>
          <input value={query} onInput={(event) => setQuery(event.currentTarget.value)} />
        </Field>
        <Field label={t("playground.rerank_texts")} hint={t("playground.texts.hint")}>
          <textarea rows={6} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </Field>
        <div class="row">
          <Button
            type="submit"
            kind="primary"
            icon="send"
            busy={run.busy}
            disabled={!documents.length || !query.trim() || !model}
          >
            {t("playground.rerank")}
          </Button>
        </div>
        {failure ? <Notice kind="error">{failure}</Notice> : null}
        {shown ? (
          <Table
            caption={t("playground.order")}
            rowKey={(row) => row.index}
            rows={shown.results}
            columns={[
              {
                id: "score",
                title: t("playground.score"),
                number: true,
                cell: (row) => formatNumber(row.relevance_score, { minimumFractionDigits: 3, maximumFractionDigits: 3 }),
              },
              { id: "text", title: t("playground.text"), cell: (row) => shown.documents[row.index] ?? "" },
            ]}
          />
        ) : null}
      </form>
      <ExchangeView path={PATH} body={body} last={run.last} usage={usageOf(run.last)} pricing={pricing} />
    </div>
  );
}
