import { useEffect, useRef, useState } from "preact/hooks";
import { isAbort } from "../../api/errors";
import { exchange, type Exchange } from "../../api/exchange";
import type { ApiDescription, Parameter, Route } from "../../api/openapi";
import { withQuery } from "../../api/request";
import { Button } from "../../components/button";
import { Field } from "../../components/field";
import { toastError } from "../../components/toast";
import { formatBytes, formatNumber, t } from "../../texts";
import { exampleOf, typeText } from "./schemas";

const SHOWN_CHARACTERS = 100_000;

type Values = Record<string, string>;

/** Sends the operation as the key that is signed in, and shows the response. */
export function TryIt({ api, route }: { api: ApiDescription; route: Route }) {
  const { operation, method } = route;
  const parameters = (operation.parameters ?? []).filter((parameter) => parameter.in === "path" || parameter.in === "query");
  const content = operation.requestBody?.content ?? {};
  const json = content["application/json"];
  const form = json ? undefined : content["multipart/form-data"];
  const [values, setValues] = useState<Values>({});
  const [body, setBody] = useState(() => (json?.schema ? JSON.stringify(exampleOf(api, json.schema), null, 2) : ""));
  const [files, setFiles] = useState<Record<string, File>>({});
  const [busy, setBusy] = useState(false);
  const [done, setDone] = useState<Exchange | null>(null);
  const controller = useRef<AbortController | null>(null);
  useEffect(() => () => controller.current?.abort(), []);

  const missing = parameters.some((parameter) => parameter.in === "path" && !values[parameter.name]);
  const formFields = Object.entries(form?.schema ? (api.resolve(form.schema).properties ?? {}) : {});

  const requestBody = (): unknown => {
    if (json) return body.trim() ? body : undefined;
    if (!form) return undefined;
    const data = new FormData();
    for (const [name] of formFields) {
      const file = files[name];
      const value = values[`form:${name}`];
      if (file) data.append(name, file);
      else if (value) data.append(name, value);
    }
    return data;
  };

  const send = async (): Promise<void> => {
    const own = new AbortController();
    controller.current = own;
    setBusy(true);
    try {
      const path = filledPath(route.path, parameters, values);
      const sent = requestBody();
      const blob = typeof sent === "string" ? new Blob([sent], { type: "application/json" }) : sent;
      setDone(await exchange(method, path, blob, { signal: own.signal }));
    } catch (error) {
      if (!isAbort(error)) toastError(error);
    } finally {
      setBusy(false);
    }
  };

  return (
    <form
      class="card stack"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <h3>{t("reference.try")}</h3>
      <p class="soft small">{t(method === "GET" ? "reference.try.read" : "reference.try.write")}</p>
      {parameters.length ? (
        <div class="parameter-fields">
          {parameters.map((parameter) => (
            <Field key={parameter.name} label={parameter.name} hint={parameter.schema ? typeText(api, parameter.schema) : undefined}>
              <input
                value={values[parameter.name] ?? ""}
                required={parameter.in === "path"}
                onInput={(event) => setValues({ ...values, [parameter.name]: event.currentTarget.value })}
              />
            </Field>
          ))}
        </div>
      ) : null}
      {json ? (
        <Field label={t("reference.body")}>
          <textarea
            class="reference-code"
            rows={Math.min(16, Math.max(4, body.split("\n").length))}
            spellcheck={false}
            value={body}
            onInput={(event) => setBody(event.currentTarget.value)}
          />
        </Field>
      ) : null}
      {formFields.map(([name, schema]) =>
        schema.format === "binary" ? (
          <Field key={name} label={name}>
            <input
              type="file"
              onChange={(event) => {
                const file = event.currentTarget.files?.[0];
                if (file) setFiles({ ...files, [name]: file });
              }}
            />
          </Field>
        ) : (
          <Field key={name} label={name} hint={typeText(api, schema)}>
            <input
              value={values[`form:${name}`] ?? ""}
              onInput={(event) => setValues({ ...values, [`form:${name}`]: event.currentTarget.value })}
            />
          </Field>
        ),
      )}
      <div class="row">
        <Button type="submit" kind={method === "DELETE" ? "danger" : "primary"} icon="send" busy={busy} disabled={missing}>
          {t("reference.send", { method })}
        </Button>
        {busy ? (
          <Button icon="stop" onClick={() => controller.current?.abort()}>
            {t("reference.stop")}
          </Button>
        ) : null}
      </div>
      {done ? <Shown done={done} /> : null}
    </form>
  );
}

function filledPath(path: string, parameters: readonly Parameter[], values: Values): string {
  const query: Values = {};
  let filled = path;
  for (const { name, in: place } of parameters) {
    const value = values[name] ?? "";
    if (place === "path") filled = filled.replace(`{${name}}`, encodeURIComponent(value));
    else if (value) query[name] = value;
  }
  return withQuery(filled, query);
}

function Shown({ done }: { done: Exchange }) {
  const duration = formatNumber(Math.round(done.totalMs), { style: "unit", unit: "millisecond", unitDisplay: "short" });
  return (
    <div aria-live="polite">
      <p>
        <strong>HTTP {done.status}</strong> <span class="soft">{duration}</span>
      </p>
      <pre class="reference-answer" tabIndex={0}>
        {done.headers.map(([name, value]) => `${name}: ${value}\n`).join("")}
        {"\n"}
        {done.blob ? t("reference.binary", { size: formatBytes(done.blob.size) }) : pretty(done.text).slice(0, SHOWN_CHARACTERS)}
      </pre>
    </div>
  );
}

function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
