import { useEffect, useState } from "preact/hooks";
import { Button } from "../../components/button";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { t } from "../../texts";
import { ExchangeView } from "./exchange_view";
import { ExtraFields, parseObject } from "./parameters";
import type { PaneProps } from "./panes";
import { failureOf, useRun } from "./run";

const PATH = "/v1/audio/speech";
const FORMATS = ["mp3", "wav", "opus", "flac", "aac"];

/** Speaks a text. */
export function SpeechPane({ model, pricing }: PaneProps) {
  const run = useRun();
  const [input, setInput] = useState("");
  const [voice, setVoice] = useState("alloy");
  const [format, setFormat] = useState("mp3");
  const [extra, setExtra] = useState("");
  const [url, setUrl] = useState("");
  const extraFields = parseObject(extra);
  const body = { model, input, voice, response_format: format, ...extraFields.value };
  const blob = run.last?.blob;
  useEffect(() => {
    if (!blob) return setUrl("");
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  const failure = failureOf(run.last);
  return (
    <div class="playground-columns">
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void run.send(PATH, body);
        }}
      >
        <Field label={t("playground.speak_text")}>
          <textarea rows={4} value={input} onInput={(event) => setInput(event.currentTarget.value)} />
        </Field>
        <div class="parameter-grid">
          <Field label={t("playground.voice")}>
            <input value={voice} onInput={(event) => setVoice(event.currentTarget.value)} />
          </Field>
          <Field label={t("playground.format")}>
            <select value={format} onChange={(event) => setFormat(event.currentTarget.value)}>
              {FORMATS.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </Field>
        </div>
        <ExtraFields text={extra} error={extraFields.error} onChange={setExtra} />
        <div class="row">
          <Button
            type="submit"
            kind="primary"
            icon="send"
            busy={run.busy}
            disabled={!input.trim() || !model || !extraFields.value}
          >
            {t("playground.speak")}
          </Button>
        </div>
        {failure ? <Notice kind="error">{failure}</Notice> : null}
        {url ? <audio controls src={url} aria-label={t("playground.spoken")} /> : null}
      </form>
      <ExchangeView path={PATH} body={body} last={run.last} usage={null} pricing={pricing} />
    </div>
  );
}
